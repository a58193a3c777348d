-- The calls of a fleet in ClickHouse, 25.8 or newer: run this file once, before the first Collector writes.
--
--   Collector -> tollspan.otel_logs (keeps nothing) -> tollspan.calls (one row for each call) -> tollspan.spend (a view)
--
-- Amounts are exact: Decimal(38, 18) holds every atto-dollar. A call that was delivered twice counts once: tollspan.calls
-- keeps one row of an id when it merges, and the view (FINAL) sees one of them before that.

CREATE DATABASE IF NOT EXISTS tollspan;

-- What the Collector's clickhouse exporter inserts into, with the columns that it names (v0.161, `create_schema: false`).
-- Where your Collector already fills an otel_logs of its own, leave this out and name that table in the view below.
CREATE TABLE IF NOT EXISTS tollspan.otel_logs
(
    Timestamp DateTime64(9),
    TraceId String,
    SpanId String,
    TraceFlags UInt8,
    SeverityText LowCardinality(String),
    SeverityNumber UInt8,
    ServiceName LowCardinality(String),
    Body String,
    ResourceSchemaUrl LowCardinality(String),
    ResourceAttributes Map(LowCardinality(String), String),
    ScopeSchemaUrl LowCardinality(String),
    ScopeName String,
    ScopeVersion LowCardinality(String),
    ScopeAttributes Map(LowCardinality(String), String),
    LogAttributes Map(LowCardinality(String), String),
    EventName String
)
ENGINE = Null;

-- An empty text means that there is none; numbers that are not known are NULL. Calls are kept until you say otherwise:
--   ALTER TABLE tollspan.calls MODIFY TTL toDateTime(started_at) + INTERVAL 2 YEAR
CREATE TABLE IF NOT EXISTS tollspan.calls
(
    id String COMMENT 'the attempt: one HTTP request',
    operation_id String COMMENT 'the logical call of the application, which its retries share',
    trace_id String,
    span_id String,
    started_at DateTime64(9, 'UTC') CODEC(Delta, ZSTD),
    duration Float64 COMMENT 'seconds',
    first_chunk Nullable(Float64) COMMENT 'seconds',
    first_token Nullable(Float64) COMMENT 'seconds',
    service LowCardinality(String) COMMENT 'service.name',
    instance String COMMENT 'service.instance.id: the process',
    tollspan LowCardinality(String) COMMENT 'version of tollspan that recorded the call',
    provider LowCardinality(String),
    operation LowCardinality(String),
    request_model LowCardinality(String),
    response_model LowCardinality(String),
    response_id String,
    model LowCardinality(String) MATERIALIZED if(response_model != '', response_model, request_model),
    outcome LowCardinality(String) COMMENT 'ok, error, aborted, denied',
    billable Bool COMMENT 'false where the provider charges nothing',
    pending Bool COMMENT 'the provider goes on with it by itself',
    settles String COMMENT 'the pending call that this one ends',
    stream Bool,
    http_status Nullable(UInt16),
    error_type LowCardinality(String),
    resend_count Nullable(UInt32) COMMENT '1 for the first retry',
    finish_reasons Array(LowCardinality(String)),
    server_address LowCardinality(String),
    server_port Nullable(UInt16),
    service_tier LowCardinality(String),
    region LowCardinality(String),
    geography LowCardinality(String),
    speed LowCardinality(String),
    search_context LowCardinality(String),
    cached_by LowCardinality(String),
    session String,
    user String,
    run String,
    step String,
    agent LowCardinality(String),
    tags Map(LowCardinality(String), String),
    input_tokens Nullable(Int64) COMMENT 'cache included',
    output_tokens Nullable(Int64) COMMENT 'reasoning included',
    cache_read_tokens Nullable(Int64),
    cache_write_tokens Nullable(Int64),
    reasoning_tokens Nullable(Int64),
    counts Map(LowCardinality(String), Decimal(38, 18)) COMMENT 'other counts: modalities, cache lifetimes, searches...',
    usage_quality LowCardinality(String),
    cost Nullable(Decimal(38, 18)) COMMENT 'US dollars; NULL: no price is known',
    savings Decimal(38, 18) COMMENT 'by reading from the caches of the provider',
    avoided Nullable(Decimal(38, 18)) COMMENT 'by an answer out of a cache, which cost nothing',
    breakdown Map(LowCardinality(String), Decimal(38, 18)),
    computed Nullable(Decimal(38, 18)) COMMENT 'by the price table, also where the provider stated the cost',
    low Nullable(Decimal(38, 18)),
    high Nullable(Decimal(38, 18)),
    source LowCardinality(String) COMMENT 'provider or local',
    quality LowCardinality(String) COMMENT 'measured, provider, estimated, floor, unpriced',
    price_labels Array(LowCardinality(String)) COMMENT 'where a price was looked for, best first',
    price_key LowCardinality(String),
    rule LowCardinality(String),
    table_version LowCardinality(String),
    missing Array(LowCardinality(String)),
    note String,
    parts String COMMENT 'JSON: passes that were billed at prices of their own',
    budget LowCardinality(String) COMMENT 'the budget that refused the call',
    budget_reason LowCardinality(String) COMMENT 'why it did',
    refusal String COMMENT 'JSON: all that is known of that, amounts as decimal texts',
    earliness Int64 MATERIALIZED -toUnixTimestamp64Nano(started_at),
    INDEX days toDate(started_at) TYPE minmax GRANULARITY 1
)
-- By id alone, for a result of a batch has one id on all machines that download it. The ids of calls are in the order of
-- time, so that the index of days finds a period. Of several the earliest stays: a cost that was recorded does not change.
ENGINE = ReplacingMergeTree(earliness)
ORDER BY id;

CREATE MATERIALIZED VIEW IF NOT EXISTS tollspan.calls_arrive TO tollspan.calls AS
WITH
    LogAttributes AS a,
    prefix -> mapFromArrays(
        arrayMap(name -> substring(name, length(prefix) + 1), arrayFilter(name -> startsWith(name, prefix), mapKeys(a))),
        arrayFilter((value, name) -> startsWith(name, prefix), mapValues(a), mapKeys(a))
    ) AS named,
    text -> toDecimal128OrNull(text, 18) AS exact
SELECT
    a['tollspan.call.id'] AS id,
    a['tollspan.operation.id'] AS operation_id,
    TraceId AS trace_id,
    SpanId AS span_id,
    fromUnixTimestamp64Nano(toInt64OrZero(a['tollspan.started_at']), 'UTC') AS started_at,
    toFloat64OrZero(a['tollspan.duration']) AS duration,
    toFloat64OrNull(a['gen_ai.response.time_to_first_chunk']) AS first_chunk,
    toFloat64OrNull(a['tollspan.time_to_first_token']) AS first_token,
    ServiceName AS service,
    ResourceAttributes['service.instance.id'] AS instance,
    ScopeVersion AS tollspan,
    a['gen_ai.provider.name'] AS provider,
    a['gen_ai.operation.name'] AS operation,
    a['gen_ai.request.model'] AS request_model,
    a['gen_ai.response.model'] AS response_model,
    a['gen_ai.response.id'] AS response_id,
    a['tollspan.outcome'] AS outcome,
    a['tollspan.billable'] = 'true' AS billable,
    a['tollspan.pending'] = 'true' AS pending,
    a['tollspan.settles'] AS settles,
    a['gen_ai.request.stream'] = 'true' AS stream,
    toUInt16OrNull(a['http.response.status_code']) AS http_status,
    a['error.type'] AS error_type,
    toUInt32OrNull(a['http.request.resend_count']) AS resend_count,
    JSONExtract(a['gen_ai.response.finish_reasons'], 'Array(String)') AS finish_reasons,
    a['server.address'] AS server_address,
    toUInt16OrNull(a['server.port']) AS server_port,
    a['tollspan.service_tier'] AS service_tier,
    a['tollspan.region'] AS region,
    a['tollspan.geography'] AS geography,
    a['tollspan.speed'] AS speed,
    a['tollspan.search_context'] AS search_context,
    a['tollspan.cached_by'] AS cached_by,
    a['session.id'] AS session,
    a['user.id'] AS user,
    a['tollspan.run.id'] AS run,
    a['tollspan.step'] AS step,
    a['gen_ai.agent.name'] AS agent,
    named('tollspan.tag.') AS tags,
    toInt64OrNull(a['gen_ai.usage.input_tokens']) AS input_tokens,
    toInt64OrNull(a['gen_ai.usage.output_tokens']) AS output_tokens,
    toInt64OrNull(a['gen_ai.usage.cache_read.input_tokens']) AS cache_read_tokens,
    toInt64OrNull(a['gen_ai.usage.cache_write.input_tokens']) AS cache_write_tokens,
    toInt64OrNull(a['gen_ai.usage.reasoning.output_tokens']) AS reasoning_tokens,
    mapApply((name, count) -> (name, toDecimal128OrZero(count, 18)), named('tollspan.usage.count.')) AS counts,
    a['tollspan.usage.quality'] AS usage_quality,
    exact(a['tollspan.cost.amount_usd']) AS cost,
    coalesce(exact(a['tollspan.cost.savings_usd']), 0) AS savings,
    exact(a['tollspan.cost.avoided_usd']) AS avoided,
    mapApply((kind, part) -> (kind, toDecimal128OrZero(part, 18)), named('tollspan.cost.breakdown_usd.')) AS breakdown,
    exact(a['tollspan.cost.computed_usd']) AS computed,
    exact(a['tollspan.cost.low_usd']) AS low,
    exact(a['tollspan.cost.high_usd']) AS high,
    a['gen_ai.usage.cost.source'] AS source,
    a['tollspan.cost.quality'] AS quality,
    JSONExtract(a['tollspan.cost.price_labels'], 'Array(String)') AS price_labels,
    a['tollspan.cost.price_key'] AS price_key,
    a['tollspan.cost.rule'] AS rule,
    a['tollspan.cost.table_version'] AS table_version,
    JSONExtract(a['tollspan.cost.missing'], 'Array(String)') AS missing,
    a['tollspan.cost.note'] AS note,
    a['tollspan.parts'] AS parts,
    a['tollspan.budget.name'] AS budget,
    a['tollspan.budget.reason'] AS budget_reason,
    a['tollspan.budget.refusal'] AS refusal
FROM tollspan.otel_logs
WHERE a['tollspan.call.id'] != '';

-- Each call once, with what it counts towards: the figures of `tollspan inspect --json`, to be summed by whatever you like.
-- queries.sql does so.
CREATE VIEW IF NOT EXISTS tollspan.spend AS
SELECT
    id, operation_id, trace_id, span_id, started_at, toDate(started_at) AS day, toStartOfHour(started_at) AS hour,
    service, provider, operation, model, session, user, run, step, agent, tags, service_tier, region,
    server_address AS host, outcome, error_type AS error, quality, stream, pending, settles, duration, first_token, table_version,
    billable::Int64 AS calls,
    (NOT billable AND NOT pending AND outcome != 'denied')::Int64 AS failed,
    (NOT billable AND NOT pending AND outcome = 'denied')::Int64 AS denied,
    (billable AND cost IS NULL)::Int64 AS unpriced,
    (billable AND quality IN ('estimated', 'floor'))::Int64 AS uncertain,
    (billable AND outcome IN ('error', 'aborted'))::Int64 AS broken,
    (coalesce(resend_count, 0) > 0)::Int64 AS retries,
    if(billable, coalesce(input_tokens, 0), 0) AS input,
    if(billable, coalesce(output_tokens, 0), 0) AS output,
    if(billable, coalesce(cache_read_tokens, 0), 0) AS cache_read,
    if(billable, coalesce(cache_write_tokens, 0), 0) AS cache_write,
    if(billable, coalesce(reasoning_tokens, 0), 0) AS reasoning,
    if(billable, coalesce(cost, 0), 0) AS cost_usd,
    if(billable AND cost IS NOT NULL, savings, 0) AS savings_usd,
    if(billable, coalesce(avoided, 0), 0) AS avoided_usd,
    if(broken = 1, cost_usd, 0) AS broken_usd,
    if(retries = 1, cost_usd, 0) AS retry_usd
FROM tollspan.calls FINAL;
