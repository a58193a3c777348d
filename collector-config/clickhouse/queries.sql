-- What `tollspan inspect` tells, of a fleet: each query counts from the start of the day `since` to that of the day `until`.
--
--   clickhouse-client --queries-file queries.sql --param_since=2026-11-01 --param_until=2026-12-01 \
--     --param_run=RUN --param_tag=tier
--
-- Figures have the names and the meaning of `tollspan inspect --json`; costs are exact. Grafana takes the queries as they
-- are, with its own variables in place of the parameters.

-- total
SELECT
    sum(calls) AS calls, sum(failed) AS failed, sum(denied) AS denied, sum(unpriced) AS unpriced,
    sum(uncertain) AS uncertain, sum(broken) AS broken, sum(retries) AS retries,
    sum(input) AS input, sum(output) AS output,
    sum(cache_read) AS cache_read, sum(cache_write) AS cache_write, sum(reasoning) AS reasoning,
    sum(cost_usd) AS cost_usd, sum(savings_usd) AS savings_usd, sum(avoided_usd) AS avoided_usd,
    sum(broken_usd) AS broken_usd, sum(retry_usd) AS retry_usd
FROM tollspan.spend
WHERE day >= {since:Date} AND day < {until:Date};

-- by day
SELECT
    day,
    sum(calls) AS calls, sum(failed) AS failed, sum(unpriced) AS unpriced,
    sum(input) AS input, sum(cache_read) AS cache_read, sum(output) AS output, sum(cost_usd) AS cost_usd
FROM tollspan.spend
WHERE day >= {since:Date} AND day < {until:Date}
GROUP BY day
ORDER BY day;

-- by provider
SELECT
    provider,
    sum(calls) AS calls, sum(failed) AS failed, sum(unpriced) AS unpriced,
    sum(input) AS input, sum(cache_read) AS cache_read, sum(output) AS output, sum(cost_usd) AS cost_usd
FROM tollspan.spend
WHERE day >= {since:Date} AND day < {until:Date}
GROUP BY provider
ORDER BY cost_usd DESC;

-- by provider, model
SELECT
    provider, model,
    sum(calls) AS calls, sum(failed) AS failed, sum(unpriced) AS unpriced,
    sum(input) AS input, sum(cache_read) AS cache_read, sum(output) AS output, sum(cost_usd) AS cost_usd
FROM tollspan.spend
WHERE day >= {since:Date} AND day < {until:Date}
GROUP BY provider, model
ORDER BY cost_usd DESC;

-- by session
SELECT
    session,
    sum(calls) AS calls, sum(failed) AS failed, sum(unpriced) AS unpriced,
    sum(input) AS input, sum(cache_read) AS cache_read, sum(output) AS output, sum(cost_usd) AS cost_usd
FROM tollspan.spend
WHERE day >= {since:Date} AND day < {until:Date}
GROUP BY session
ORDER BY cost_usd DESC;

-- by run
SELECT
    run,
    sum(calls) AS calls, sum(failed) AS failed, sum(unpriced) AS unpriced,
    sum(input) AS input, sum(cache_read) AS cache_read, sum(output) AS output, sum(cost_usd) AS cost_usd
FROM tollspan.spend
WHERE day >= {since:Date} AND day < {until:Date}
GROUP BY run
ORDER BY cost_usd DESC;

-- by step of a run
SELECT
    step,
    sum(calls) AS calls, sum(failed) AS failed, sum(unpriced) AS unpriced,
    sum(input) AS input, sum(cache_read) AS cache_read, sum(output) AS output, sum(cost_usd) AS cost_usd
FROM tollspan.spend
WHERE day >= {since:Date} AND day < {until:Date} AND run = {run:String}
GROUP BY step
ORDER BY cost_usd DESC;

-- by user
SELECT
    user,
    sum(calls) AS calls, sum(failed) AS failed, sum(unpriced) AS unpriced,
    sum(input) AS input, sum(cache_read) AS cache_read, sum(output) AS output, sum(cost_usd) AS cost_usd
FROM tollspan.spend
WHERE day >= {since:Date} AND day < {until:Date}
GROUP BY user
ORDER BY cost_usd DESC;

-- by service_tier
SELECT
    service_tier,
    sum(calls) AS calls, sum(failed) AS failed, sum(unpriced) AS unpriced,
    sum(input) AS input, sum(cache_read) AS cache_read, sum(output) AS output, sum(cost_usd) AS cost_usd
FROM tollspan.spend
WHERE day >= {since:Date} AND day < {until:Date}
GROUP BY service_tier
ORDER BY cost_usd DESC;

-- by tag
SELECT
    tags[{tag:String}] AS value,
    sum(calls) AS calls, sum(failed) AS failed, sum(unpriced) AS unpriced,
    sum(input) AS input, sum(cache_read) AS cache_read, sum(output) AS output, sum(cost_usd) AS cost_usd
FROM tollspan.spend
WHERE day >= {since:Date} AND day < {until:Date}
GROUP BY value
ORDER BY cost_usd DESC;

-- by service: what a ledger of one machine cannot tell
SELECT
    service,
    sum(calls) AS calls, sum(failed) AS failed, sum(unpriced) AS unpriced,
    sum(input) AS input, sum(cache_read) AS cache_read, sum(output) AS output, sum(cost_usd) AS cost_usd
FROM tollspan.spend
WHERE day >= {since:Date} AND day < {until:Date}
GROUP BY service
ORDER BY cost_usd DESC;

-- dearest calls
SELECT id, started_at, service, provider, model, outcome, error, input, output, first_token, duration, cost_usd, trace_id
FROM tollspan.spend
WHERE day >= {since:Date} AND day < {until:Date} AND cost_usd > 0
ORDER BY cost_usd DESC, started_at DESC
LIMIT 10;

-- cache: tokens that were read from the providers' caches, and what that saved
SELECT
    provider, model,
    sum(input) AS input, sum(cache_read) AS cache_read, sum(cache_write) AS cache_write,
    if(input = 0, 0, cache_read / input) AS hit_rate,
    sum(savings_usd) AS savings_usd, sum(avoided_usd) AS avoided_usd
FROM tollspan.spend
WHERE day >= {since:Date} AND day < {until:Date}
GROUP BY provider, model
ORDER BY savings_usd DESC;

-- money for nothing: calls that broke off or were left early, and retries
SELECT
    provider, model,
    sum(failed) AS failed, sum(denied) AS denied, sum(broken) AS broken, sum(broken_usd) AS broken_usd,
    sum(retries) AS retries, sum(retry_usd) AS retry_usd
FROM tollspan.spend
WHERE day >= {since:Date} AND day < {until:Date}
GROUP BY provider, model
ORDER BY broken_usd + retry_usd DESC;

-- how calls ended
SELECT
    outcome, error,
    sum(calls) AS calls, sum(failed) AS failed, sum(cost_usd) AS cost_usd
FROM tollspan.spend
WHERE day >= {since:Date} AND day < {until:Date}
GROUP BY outcome, error
ORDER BY cost_usd DESC, failed DESC;

-- pending: responses in the background and batches that nobody has fetched yet; their cost is not known
SELECT provider, model, count() AS waiting, min(started_at) AS oldest
FROM tollspan.spend
WHERE day >= {since:Date} AND day < {until:Date} AND pending AND calls = 0
    AND id NOT IN (SELECT settles FROM tollspan.spend WHERE settles != '')
GROUP BY provider, model
ORDER BY waiting DESC;

-- unpriced: usage is known, the price is not, and so these are in no total
SELECT provider, model, sum(unpriced) AS unpriced, any(table_version) AS table_version
FROM tollspan.spend
WHERE day >= {since:Date} AND day < {until:Date}
GROUP BY provider, model
HAVING unpriced > 0
ORDER BY unpriced DESC;
