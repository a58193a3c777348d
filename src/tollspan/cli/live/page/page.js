// The page: asks for the state of a range and a session, and shows each state that the server sends.

import { Chart, html } from "./charts.js";

const at = (id) => document.getElementById(id);
const put = (id, ...children) => at(id).replaceChildren(...children);

const whole = new Intl.NumberFormat("en");
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const percent = (share) => `${Math.round(share * 100)}%`;
const seconds = (value) => (value < 1 ? `${Math.round(value * 1000)} ms` : `${value.toFixed(value < 10 ? 2 : 1)} s`);
const count = (value, one, many = `${one}s`) => `${whole.format(value)} ${value === 1 ? one : many}`;

/** Give an amount as people read it: to 4 decimals below a hundred dollars, and never as nothing where there is something. */
function dollars(value) {
  if (value > 0 && value < 0.0001) return "<$0.0001";
  const digits = value >= 100 ? 2 : 4;
  return value.toLocaleString("en", { style: "currency", currency: "USD", minimumFractionDigits: digits, maximumFractionDigits: digits });
}

/** Give an amount for the axis of a chart. */
function mark(value) {
  if (value === 0) return "$0";
  return `$${value >= 1 ? short.format(value) : Number(value.toPrecision(2))}`;
}

const charts = {
  spend: new Chart(at("chart-spend"), "bars", (value) => mark(value)),
  tokens: new Chart(at("chart-tokens"), "bars", (value) => short.format(value)),
  ttft: new Chart(at("chart-ttft"), "lines", seconds),
  hits: new Chart(at("chart-hits"), "lines", percent),
};

function show(state) {
  at("problem").hidden = !state.problem;
  if (state.problem) {
    put("problem", state.problem);
    return;
  }
  const { board, history, first_token: first } = state;
  const total = board.total;
  at("empty").hidden = total.calls + total.failed > 0;
  figures(board, total, first);
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

function figures(board, total, first) {
  put("spend", dollars(Number(total.cost_usd)));
  const more = [count(total.calls, "call")];
  const notes = [
    [total.unpriced, `${whole.format(total.unpriced)} unpriced`, "warn"],
    [total.pending, `${whole.format(total.pending)} pending`, "warn"],
    [total.failed - total.denied, `${whole.format(total.failed - total.denied)} failed`, "bad"],
    [total.denied, `${whole.format(total.denied)} denied`, "bad"],
    [total.retries, count(total.retries, "retry", "retries"), "warn"],
  ].filter(([amount]) => amount > 0);
  put("spend-more", ...more, ...notes.flatMap(([, words, kind]) => [" · ", html("span", { class: kind }, words)]));
  put("rate", `${dollars(Number(board.usd_per_hour))}/h`);
  put("rate-more", `${count(board.calls_per_minute, "call")} in the last minute`);
  put("tokens", short.format(total.input + total.output));
  put("tokens-more", `${short.format(total.input)} in, ${short.format(total.output)} out`);
  put("hits", total.input ? percent(total.cache_read / total.input) : "–");
  put("hits-more", Number(total.savings_usd) > 0 ? `${dollars(Number(total.savings_usd))} saved` : "of input tokens");
  put("ttft", first.p50 === null ? "–" : seconds(first.p50));
  put("ttft-more", first.p95 === null ? "no streams yet" : `median; 95% within ${seconds(first.p95)}`);
}

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

const numbers = (row) => [whole.format(row.calls), short.format(row.input), short.format(row.cache_read), short.format(row.output)];

function cost(row) {
  const amount = dollars(Number(row.cost_usd));
  if (!row.unpriced) return [amount];
  return [row.unpriced === row.calls ? "" : `${amount} + `, html("span", { class: "warn" }, `${whole.format(row.unpriced)} unpriced`)];
}

function line(kind, name, cells) {
  return html("tr", { class: kind }, html("th", { scope: "row" }, name), ...cells.map((cell) => html("td", {}, ...[cell].flat())));
}

function bar(part) {
  const filled = html("i");
  filled.style.width = `${part * 100}%`;
  return [html("span", { class: "share", "aria-hidden": "true" }, filled), html("span", {}, percent(part))];
}

const COUNTED = ["calls", "unpriced", "input", "cache_read", "output"];

function models(rows) {
  const providers = new Map();
  for (const row of rows) {
    const sums = providers.get(row.provider) ?? { rows: [], cost_usd: 0, ...Object.fromEntries(COUNTED.map((name) => [name, 0])) };
    for (const name of COUNTED) sums[name] += row[name];
    sums.cost_usd += Number(row.cost_usd);
    sums.rows.push(row);
    providers.set(row.provider, sums);
  }
  const all = [...providers.values()].reduce((sum, one) => sum + one.cost_usd, 0) || 1;
  const found = [...providers.entries()]
    .sort(([, one], [, other]) => other.cost_usd - one.cost_usd)
    .flatMap(([provider, sums]) => [
      line("head", provider, [...numbers(sums), cost(sums), bar(sums.cost_usd / all)]),
      ...sums.rows.map((row) => line("sub", row.model || "?", [...numbers(row), cost(row), bar(Number(row.cost_usd) / all)])),
    ]);
  at("models").tBodies[0].replaceChildren(...found);
}

function tiers(found) {
  const tables = Object.entries(found).map(([name, rows]) =>
    html(
      "table",
      {},
      html("thead", {}, html("tr", {}, ...[name, "Calls", "Tokens", "Cost"].map((head) => html("th", { scope: "col" }, head)))),
      html("tbody", {}, ...rows.map((row) => line("", row.value, [whole.format(row.calls), short.format(row.input + row.output), cost(row)]))),
    ),
  );
  put("tiers", ...(tables.length ? tables : [html("p", { class: "none" }, "No calls with a tier in this range.")]));
}

/** Give an amount of a budget's unit. */
function amount(value, unit) {
  if (value === null) return "no limit";
  return unit === "usd" ? dollars(Number(value)) : `${whole.format(Number(value))} ${unit}`;
}

function budgets(board) {
  const list = document.querySelector("#budgets .list");
  if (board.budgets_unknown) {
    list.replaceChildren(html("p", { class: "bad" }, `not known: ${board.budgets_unknown}`));
    return;
  }
  const found = board.budgets.map((one) => {
    const part = one.utilization ?? 0;
    const kind = part >= 0.9 ? "full-up" : part >= 0.5 ? "busy" : "";
    const meter = html("div", { class: `meter ${kind}`, role: "meter", "aria-label": one.budget, "aria-valuemin": "0", "aria-valuemax": "100", "aria-valuenow": String(Math.round(part * 100)) }, html("i"));
    meter.firstChild.style.width = `${Math.min(part, 1) * 100}%`;
    const held = Number(one.reserved) ? ` · ${amount(one.reserved, one.unit)} reserved` : "";
    return html(
      "div",
      { class: "budget" },
      html("p", {}, html("span", {}, decodeURIComponent(one.counter)), html("b", { class: part >= 0.9 ? "bad" : "" }, percent(part))),
      meter,
      html("small", {}, `${amount(one.spent, one.unit)} of ${amount(one.limit, one.unit)}${held}`),
    );
  });
  list.replaceChildren(...(found.length ? found : [html("p", { class: "none" }, "No budgets. Set one:", html("br"), html("code", {}, "tollspan run --budget \"5 USD/day\" -- …"))]));
}

function calls(rows) {
  const found = rows.map((row) => {
    const when = new Date(row.at).toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
    const known = row.cost_usd === null ? html("span", { class: "warn" }, "unpriced") : `${["estimated", "floor"].includes(row.quality) ? "~" : ""}${dollars(Number(row.cost_usd))}`;
    const price = row.billable ? known : row.pending ? html("span", { class: "warn" }, "pending") : "–";
    const went = row.outcome === "ok" ? "ok" : html("span", { class: "bad" }, row.error ? `${row.outcome}: ${row.error}` : row.outcome);
    const tokens = (value) => (value === null ? "–" : whole.format(value));
    return line("", String(row.number), [
      when,
      row.model || "?",
      went,
      tokens(row.input),
      tokens(row.output),
      row.first_token_seconds === null ? "–" : seconds(row.first_token_seconds),
      seconds(row.seconds),
      price,
    ]);
  });
  at("calls").tBodies[0].replaceChildren(...found);
}

function sessions(found, chosen) {
  const select = at("session");
  if (select === document.activeElement) return; // not while somebody chooses
  const names = chosen && !found.includes(chosen) ? [chosen, ...found] : found;
  select.replaceChildren(html("option", { value: "" }, "all"), ...names.map((name) => html("option", { value: name }, name)));
  select.value = chosen ?? "";
}

// --- Staying up to date

let source = null;

function link(kind, words) {
  at("link").className = kind;
  if (at("link-words").textContent !== words) put("link-words", words);
}

function follow() {
  source?.close();
  const asked = new URLSearchParams({ range: document.querySelector("#range input:checked").value });
  const session = at("session").value || new URLSearchParams(location.hash.slice(1)).get("session");
  if (session) asked.set("session", session);
  source = new EventSource(`/events?${asked}`);
  source.onopen = () => link("live", "live");
  source.onerror = () => link("lost", source.readyState === EventSource.CLOSED ? "ended: start tollspan ui again" : "lost; trying again");
  source.onmessage = (event) => show(JSON.parse(event.data));
}

/** Keep what was chosen in the address, so that a reload shows the same. */
function remember() {
  const kept = new URLSearchParams({ range: document.querySelector("#range input:checked").value });
  if (at("session").value) kept.set("session", at("session").value);
  history.replaceState(null, "", `#${kept}`);
  follow();
}

const kept = new URLSearchParams(location.hash.slice(1));
const range = document.querySelector(`#range input[value="${CSS.escape(kept.get("range") ?? "")}"]`);
if (range) range.checked = true;
at("range").addEventListener("change", remember);
at("session").addEventListener("change", remember);
addEventListener("pagehide", () => source?.close());
addEventListener("pageshow", (event) => event.persisted && follow());
follow();
