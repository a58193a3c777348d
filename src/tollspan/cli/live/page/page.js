// The page: requests the state of a range and a session, and shows each state that the server sends.

/**
 * @import { Child } from "./charts.js"
 * @import { Board, Budget, Call, Figures, History, ModelFigures, Percentiles, Problem, Refusal, State, TierFigures } from "./state.js"
 */

import { Chart, html } from "./charts.js";

/**
 * Return the element with an id. Throws a TypeError if the page has none of that kind.
 * @template {HTMLElement} T
 * @param {string} id
 * @param {new () => T} kind
 */
function element(id, kind) {
  const found = document.getElementById(id);
  if (!(found instanceof kind)) throw new TypeError(`#${id} is not an ${kind.name}`);
  return found;
}

const at = (/** @type {string} */ id) => element(id, HTMLElement);
const tableBody = (/** @type {string} */ id) => element(`${id}-rows`, HTMLTableSectionElement);
const put = (/** @type {string} */ id, /** @type {(string | Node)[]} */ ...children) =>
  at(id).replaceChildren(...children);

const whole = new Intl.NumberFormat("en");
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const percent = (/** @type {number} */ share) => `${Math.round(share * 100)}%`;
const seconds = (/** @type {number} */ value) =>
  value < 1 ? `${Math.round(value * 1000)} ms` : `${value.toFixed(value < 10 ? 2 : 1)} s`;
const count = (/** @type {number} */ value, /** @type {string} */ one, many = `${one}s`) =>
  `${whole.format(value)} ${value === 1 ? one : many}`;

/**
 * Return an amount with 4 decimals below a hundred dollars, and never as zero if it is not zero.
 * @param {number} value
 */
function dollars(value) {
  if (value > 0 && value < 0.0001) return "<$0.0001";
  const digits = value >= 100 ? 2 : 4;
  return value.toLocaleString("en", {
    style: "currency",
    currency: "USD",
    minimumFractionDigits: digits,
    maximumFractionDigits: digits,
  });
}

/**
 * Return an amount for the axis of a chart.
 * @param {number} value
 */
function mark(value) {
  if (value === 0) return "$0";
  return `$${value >= 1 ? short.format(value) : Number(value.toPrecision(2))}`;
}

const charts = {
  spend: new Chart(at("chart-spend"), "bars", mark),
  tokens: new Chart(at("chart-tokens"), "bars", (value) => short.format(value)),
  ttft: new Chart(at("chart-ttft"), "lines", seconds),
  hits: new Chart(at("chart-hits"), "lines", percent),
};

/** @param {State | Problem} state */
function show(state) {
  at("problem").hidden = !("problem" in state);
  if ("problem" in state) {
    put("problem", state.problem);
    return;
  }
  const { board, history, first_token: first } = state;
  const total = board.total;
  at("empty").hidden = total.calls + total.failed + total.denied > 0;
  figures(board, first);
  draw(history);
  models(board.models);
  tiers(board.tiers);
  budgets(board);
  calls(board.calls);
  sessions(state.sessions, state.session);
  at("reading").hidden = board.read === 1;
  put("reading", `Reading earlier calls: ${percent(board.read)}. The figures are complete when that is done.`);
  put("ledger", `Ledger: ${state.ledger}. Costs are shown as they were recorded.`);
  document.title = `${dollars(Number(total.cost_usd))} · tollspan`;
}

/**
 * @param {Board} board
 * @param {Percentiles} first
 */
function figures(board, first) {
  const { total } = board;
  put("spend", dollars(Number(total.cost_usd)));
  put("spend-more", count(total.calls, "call"), ...notes(total));
  put("rate", `${dollars(Number(board.usd_per_hour))}/h`);
  put("rate-more", `${count(board.calls_per_minute, "call")} in the last minute`);
  put("tokens", short.format(total.input + total.output));
  put("tokens-more", `${short.format(total.input)} in, ${short.format(total.output)} out`);
  put("hits", total.input ? percent(total.cache_read / total.input) : "–");
  put("hits-more", Number(total.savings_usd) > 0 ? `${dollars(Number(total.savings_usd))} saved` : "of input tokens");
  put("ttft", first.p50 === null ? "–" : seconds(first.p50));
  put("ttft-more", first.p95 === null ? "no streams yet" : `median; 95% within ${seconds(first.p95)}`);
}

/**
 * Return what to know beside the total: calls without a price, calls that did not end well, and calls never sent.
 * @param {Figures} total
 */
function notes(total) {
  const all = [
    { calls: total.unpriced, words: `${whole.format(total.unpriced)} unpriced`, kind: "warn" },
    { calls: total.pending, words: `${whole.format(total.pending)} pending`, kind: "warn" },
    { calls: total.failed, words: `${whole.format(total.failed)} failed`, kind: "bad" },
    { calls: total.denied, words: `${whole.format(total.denied)} denied`, kind: "bad" },
    { calls: total.retries, words: count(total.retries, "retry", "retries"), kind: "warn" },
  ];
  return all
    .filter((note) => note.calls > 0)
    .flatMap(({ words, kind }) => [" · ", html("span", { class: kind }, words)]);
}

/** @param {History} history */
function draw(history) {
  const frame = { start: history.start, step: history.step, steps: history.steps };
  charts.spend.draw({ ...frame, series: history.spend.map((one) => ({ name: one.model || "?", values: one.usd })) });
  charts.tokens.draw({
    ...frame,
    series: [
      { name: "input, fresh", values: history.fresh },
      { name: "output", values: history.output },
      { name: "input, cached", values: history.cached },
    ],
  });
  charts.ttft.draw({
    ...frame,
    series: [
      { name: "median", values: history.ttft.p50 },
      { name: "95th percentile", values: history.ttft.p95, dashed: true },
    ],
  });
  charts.hits.draw({ ...frame, max: 1, series: [{ name: "of input tokens", values: history.hits, area: true }] });
}

/** @param {Pick<Figures, "calls" | "input" | "cache_read" | "output">} row */
const numbers = (row) => [
  whole.format(row.calls),
  short.format(row.input),
  short.format(row.cache_read),
  short.format(row.output),
];

/** @param {{ calls: number, unpriced: number, cost_usd: string | number }} row */
function cost(row) {
  const amount = dollars(Number(row.cost_usd));
  if (!row.unpriced) return [amount];
  const unpriced = html("span", { class: "warn" }, `${whole.format(row.unpriced)} unpriced`);
  return [row.unpriced === row.calls ? "" : `${amount} + `, unpriced];
}

/**
 * Return the row of a table.
 * @param {string} kind
 * @param {string} name
 * @param {(Child | Child[])[]} cells
 */
function line(kind, name, cells) {
  const data = cells.map((cell) => html("td", {}, ...[cell].flat()));
  return html("tr", { class: kind }, html("th", { scope: "row" }, name), ...data);
}

/**
 * Return a bar with its percentage.
 * @param {number} share
 */
function bar(share) {
  const filled = html("i");
  filled.style.width = `${share * 100}%`;
  return [html("span", { class: "share", "aria-hidden": "true" }, filled), html("span", {}, percent(share))];
}

/**
 * Return the sums over each provider's models, in the order of the rows.
 * @param {ModelFigures[]} rows
 */
function byProvider(rows) {
  const nothing = { calls: 0, unpriced: 0, input: 0, cache_read: 0, output: 0, cost_usd: 0 };
  /** @type {Map<string, typeof nothing & { provider: string, rows: ModelFigures[] }>} */
  const providers = new Map();
  for (const row of rows) {
    const sums = providers.get(row.provider) ?? { ...nothing, provider: row.provider, rows: [] };
    sums.calls += row.calls;
    sums.unpriced += row.unpriced;
    sums.input += row.input;
    sums.cache_read += row.cache_read;
    sums.output += row.output;
    sums.cost_usd += Number(row.cost_usd);
    sums.rows.push(row);
    providers.set(row.provider, sums);
  }
  return [...providers.values()];
}

/** @param {ModelFigures[]} rows */
function models(rows) {
  const providers = byProvider(rows);
  const all = providers.reduce((sum, one) => sum + one.cost_usd, 0) || 1;
  const lines = providers
    .sort((one, other) => other.cost_usd - one.cost_usd)
    .flatMap((sums) => [
      line("head", sums.provider, [...numbers(sums), cost(sums), bar(sums.cost_usd / all)]),
      ...sums.rows.map((row) =>
        line("sub", row.model || "?", [...numbers(row), cost(row), bar(Number(row.cost_usd) / all)]),
      ),
    ]);
  tableBody("models").replaceChildren(...lines);
}

/** @param {Record<string, TierFigures[]>} found */
function tiers(found) {
  const tables = Object.entries(found).map(([name, rows]) => {
    const head = [name, "Calls", "Tokens", "Cost"].map((words) => html("th", { scope: "col" }, words));
    const lines = rows.map((row) =>
      line("", row.value, [whole.format(row.calls), short.format(row.input + row.output), cost(row)]),
    );
    return html("table", {}, html("thead", {}, html("tr", {}, ...head)), html("tbody", {}, ...lines));
  });
  put("tiers", ...(tables.length ? tables : [html("p", { class: "none" }, "No calls with a tier in this range.")]));
}

/**
 * Return an amount in a budget's unit.
 * @param {string | null} value
 * @param {string} unit
 */
function amount(value, unit) {
  if (value === null) return "no limit";
  return unit === "usd" ? dollars(Number(value)) : `${whole.format(Number(value))} ${unit}`;
}

/** @param {Board} board */
function budgets(board) {
  const refused = board.refused.map((calls) => html("p", { class: "refused bad" }, calls.text));
  if (board.budgets_unknown) {
    put("budgets-list", html("p", { class: "bad" }, `not known: ${board.budgets_unknown}`), ...refused);
    return;
  }
  const example = html("code", {}, 'tollspan run --budget "5 USD/day" -- …');
  const none = html("p", { class: "none" }, "No budgets. Set one:", html("br"), example);
  put("budgets-list", ...(board.budgets.length ? board.budgets.map(budget) : [none]), ...refused);
}

/** @param {Budget} one */
function budget(one) {
  const share = one.utilization ?? 0;
  const held = Number(one.reserved) ? ` · ${amount(one.reserved, one.unit)} reserved` : "";
  const name = html("span", {}, decodeURIComponent(one.counter));
  return html(
    "div",
    { class: "budget" },
    html("p", {}, name, html("b", { class: share >= 0.9 ? "bad" : "" }, percent(share))),
    meter(one.budget, share),
    html("small", {}, `${amount(one.spent, one.unit)} of ${amount(one.limit, one.unit)}${held}`),
  );
}

/**
 * @param {string} name
 * @param {number} share
 */
function meter(name, share) {
  const filled = html("i");
  filled.style.width = `${Math.min(share, 1) * 100}%`;
  const kind = share >= 0.9 ? "full-up" : share >= 0.5 ? "busy" : "";
  const now = String(Math.round(share * 100));
  const range = { "aria-valuemin": "0", "aria-valuemax": "100", "aria-valuenow": now };
  return html("div", { class: `meter ${kind}`, role: "meter", "aria-label": name, ...range }, filled);
}

/** @param {Call[]} rows */
function calls(rows) {
  const tokens = (/** @type {number | null} */ value) => (value === null ? "–" : whole.format(value));
  const lines = rows.map((row) =>
    line("", String(row.number), [
      new Date(row.at).toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" }),
      row.model || "?",
      outcome(row),
      tokens(row.input),
      tokens(row.output),
      row.first_token_seconds === null ? "–" : seconds(row.first_token_seconds),
      row.seconds === null ? "–" : seconds(row.seconds),
      price(row),
    ]),
  );
  tableBody("calls").replaceChildren(...lines);
}

/** @param {Call} row */
function outcome(row) {
  if (row.outcome === "ok") return "ok";
  if (row.outcome === "denied") return denied(row.refusal);
  return html("span", { class: "bad" }, row.error ? `${row.outcome}: ${row.error}` : row.outcome);
}

/**
 * Return which budget refused a call, with the reason and what to do as a tooltip.
 * @param {Refusal | null} refusal
 */
function denied(refusal) {
  if (refusal === null) return html("span", { class: "bad" }, "denied");
  const title = [refusal.reason, refusal.remedy].filter(Boolean).join(": ");
  return html("span", { class: "bad", title }, `denied by ${refusal.budget || "tollspan"}`);
}

/** @param {Call} row */
function price(row) {
  if (row.outcome === "denied") return "not sent";
  if (!row.billable) return row.pending ? html("span", { class: "warn" }, "pending") : "–";
  if (row.cost_usd === null) return html("span", { class: "warn" }, "unpriced");
  return `${["estimated", "floor"].includes(row.quality) ? "~" : ""}${dollars(Number(row.cost_usd))}`;
}

/**
 * @param {string[]} found
 * @param {string | null} chosen
 */
function sessions(found, chosen) {
  if (select === document.activeElement) return; // not while somebody chooses
  const names = chosen && !found.includes(chosen) ? [chosen, ...found] : found;
  const options = names.map((name) => html("option", { value: name }, name));
  select.replaceChildren(html("option", { value: "" }, "all"), ...options);
  select.value = chosen ?? "";
}

// --- Staying up to date

const select = element("session", HTMLSelectElement);
const ranges = [...at("range").querySelectorAll("input")];

/** @type {EventSource | null} */
let source = null;

/**
 * @param {string} kind
 * @param {string} words
 */
function link(kind, words) {
  at("link").className = kind;
  if (at("link-words").textContent !== words) put("link-words", words);
}

/** Return the parameters of the range that is chosen. */
function parameters() {
  const chosen = ranges.find((range) => range.checked);
  return new URLSearchParams(chosen ? { range: chosen.value } : {});
}

function follow() {
  source?.close();
  const query = parameters();
  const session = select.value || new URLSearchParams(location.hash.slice(1)).get("session");
  if (session) query.set("session", session);
  const events = new EventSource(`/events?${query}`);
  events.onopen = () => link("live", "live");
  events.onerror = () =>
    link("lost", events.readyState === EventSource.CLOSED ? "ended: start tollspan ui again" : "lost; trying again");
  events.onmessage = (event) => show(JSON.parse(event.data));
  source = events;
}

/** Keep what was chosen in the address, so that a reload shows the same. */
function remember() {
  const chosen = parameters();
  if (select.value) chosen.set("session", select.value);
  history.replaceState(null, "", `#${chosen}`);
  follow();
}

const kept = new URLSearchParams(location.hash.slice(1)).get("range");
const range = ranges.find((one) => one.value === kept);
if (range) range.checked = true;
at("range").addEventListener("change", remember);
select.addEventListener("change", remember);
addEventListener("pagehide", () => source?.close());
addEventListener("pageshow", (event) => event.persisted && follow());
follow();
