// Charts in SVG, by hand: bars that stack, and lines. Each can be read by eye, by keyboard (arrow keys) and as a table.
// Names come from model calls: they are only ever set as text, never as markup.

const SPACE = "http://www.w3.org/2000/svg";
const MARGIN = { top: 8, right: 6, bottom: 20, left: 50 };

/** Make an HTML element with attributes and children; a child that is no element becomes text. */
export function html(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children.map((child) => (child instanceof Node ? child : String(child))));
  return made;
}

function svg(name, attributes = {}, text = null) {
  const made = document.createElementNS(SPACE, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== null) made.textContent = text;
  return made;
}

/** Give a round number at or above a value, and the marks up to it. */
function scale(most) {
  if (!(most > 0)) return { top: 1, marks: [0, 1] };
  const rough = most / 4;
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = unit * [1, 2, 2.5, 5, 10].find((factor) => factor * unit >= rough);
  const count = Math.ceil(most / step - 1e-9);
  return { top: count * step, marks: Array.from({ length: count + 1 }, (_, place) => place * step) };
}

/** Give words for the step that begins at a moment; `exact` says the day too. */
export function moment(seconds, step, exact) {
  const at = new Date(seconds * 1000);
  const day = at.toLocaleDateString(undefined, { day: "numeric", month: "short" });
  const clock = at.toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit" });
  if (step >= 86400) return new Date(seconds * 1000).toLocaleDateString(undefined, { day: "numeric", month: "short", timeZone: "UTC" });
  if (exact) return `${day}, ${clock}`;
  return step >= 6 * 3600 ? day : clock;
}

/**
 * A chart in a figure. `draw(data)` may be called as often as there is something new.
 *
 * data: { start, step, steps, series: [{ name, values, dashed }], max }; a value that is null was not measured.
 * kind: "bars" (stacked) or "lines"; format(value) gives a value's words.
 */
export class Chart {
  constructor(figure, kind, format) {
    this.figure = figure;
    this.kind = kind;
    this.format = format;
    this.at = null;
    this.title = figure.querySelector("figcaption").textContent;
    this.picture = svg("svg", { tabindex: "0", role: "img" });
    this.legend = html("ul", { class: "legend" });
    this.tip = html("div", { class: "tip", hidden: "" });
    this.said = html("p", { class: "unseen", "aria-live": "polite" });
    this.none = html("p", { class: "none", hidden: "" }, "nothing in this range");
    this.table = html("table");
    this.details = html("details", {}, html("summary", {}, "As a table"), html("div", { class: "scroll", tabindex: "0" }, this.table));
    figure.append(this.picture, this.none, this.legend, this.details, this.tip, this.said);
    this.picture.addEventListener("pointermove", (event) => this.point(this.place(event)));
    this.picture.addEventListener("pointerleave", () => this.point(null));
    this.picture.addEventListener("blur", () => this.point(null));
    this.picture.addEventListener("keydown", (event) => this.key(event));
    this.details.addEventListener("toggle", () => this.fill());
    new ResizeObserver(() => this.data && this.draw(this.data)).observe(this.picture);
  }

  draw(data) {
    this.data = data;
    const some = data.series.some((one) => one.values.some((value) => value !== null && value > 0));
    this.none.hidden = some;
    this.picture.style.display = some ? "" : "none";
    this.legend.hidden = this.details.hidden = !some;
    if (!some) return this.point(null);
    this.width = this.picture.clientWidth || 400;
    this.height = this.picture.clientHeight || 190;
    this.inner = { width: this.width - MARGIN.left - MARGIN.right, height: this.height - MARGIN.top - MARGIN.bottom };
    this.band = this.inner.width / data.steps;
    const most = this.kind === "bars"
      ? Math.max(...Array.from({ length: data.steps }, (_, step) => data.series.reduce((sum, one) => sum + (one.values[step] ?? 0), 0)))
      : Math.max(...data.series.flatMap((one) => one.values.map((value) => value ?? 0)));
    const { top, marks } = scale(data.max ?? most);
    this.y = (value) => MARGIN.top + this.inner.height * (1 - value / top);
    this.x = (step) => MARGIN.left + this.band * step;
    this.picture.setAttribute("viewBox", `0 0 ${this.width} ${this.height}`);
    this.picture.setAttribute("aria-label", this.words());
    this.picture.replaceChildren(...this.axes(marks), ...(this.kind === "bars" ? this.bars() : this.lines()));
    this.cursor = svg("rect", { class: "cursor", y: MARGIN.top, height: this.inner.height, width: Math.max(this.band, 2), visibility: "hidden" });
    this.picture.append(this.cursor);
    this.legend.replaceChildren(...data.series.map((one, place) => html("li", {}, this.mark(place), one.name)));
    this.fill();
    if (this.at !== null) this.point(this.at);
  }

  mark(place) {
    return html("span", { class: `key s${place + 1}${this.data.series[place].dashed ? " dashed" : ""}`, "aria-hidden": "true" });
  }

  words() {
    const { series, steps, start, step } = this.data;
    const parts = series.map((one) => {
      const known = one.values.filter((value) => value !== null);
      if (!known.length) return `${one.name}: nothing`;
      const told = this.kind === "bars" ? `${this.format(known.reduce((sum, value) => sum + value, 0))} in all` : `${this.format(Math.min(...known))} to ${this.format(Math.max(...known))}`;
      return `${one.name}: ${told}`;
    });
    return `${this.title}, ${moment(start, step, true)} to ${moment(start + step * steps, step, true)}. ${parts.join("; ")}. Arrow keys read single steps.`;
  }

  axes(marks) {
    const found = [];
    for (const mark of marks) {
      const y = Math.round(this.y(mark)) + 0.5;
      found.push(svg("line", { class: "rule", x1: MARGIN.left, x2: this.width - MARGIN.right, y1: y, y2: y }));
      found.push(svg("text", { x: MARGIN.left - 8, y: y + 4, "text-anchor": "end" }, this.format(mark)));
    }
    const every = Math.ceil(this.data.steps / Math.max(Math.floor(this.inner.width / 84), 2));
    for (let step = 0; step < this.data.steps; step += every) {
      const x = this.x(step + 0.5);
      if (x > this.width - 30) break;
      found.push(svg("text", { x, y: this.height - 5, "text-anchor": "middle" }, moment(this.data.start + step * this.data.step, this.data.step, false)));
    }
    return found;
  }

  bars() {
    const found = [];
    const room = Math.max(this.band - Math.min(this.band * 0.25, 4), 1);
    for (let step = 0; step < this.data.steps; step += 1) {
      let below = 0;
      this.data.series.forEach((one, place) => {
        const value = one.values[step] ?? 0;
        if (value <= 0) return;
        const [low, high] = [this.y(below), this.y(below + value)];
        below += value;
        found.push(svg("rect", { class: `bar s${place + 1}`, x: this.x(step) + (this.band - room) / 2, y: high, width: room, height: Math.max(low - high, 0.5), rx: Math.min(room / 4, 2) }));
      });
    }
    return found;
  }

  lines() {
    const found = [];
    this.data.series.forEach((one, place) => {
      const points = one.values.map((value, step) => (value === null ? null : [this.x(step + 0.5), this.y(value)]));
      let path = "";
      points.forEach((point, step) => {
        if (point === null) return;
        path += `${step && points[step - 1] ? "L" : "M"}${point[0].toFixed(1)} ${point[1].toFixed(1)}`;
        if (!points[step - 1] && !points[step + 1]) found.push(svg("circle", { class: `point s${place + 1}`, cx: point[0], cy: point[1], r: 3 }));
      });
      if (one.area) found.push(...this.areas(points, place));
      found.push(svg("path", { class: `path s${place + 1}${one.dashed ? " dashed" : ""}`, d: path }));
    });
    return found;
  }

  areas(points, place) {
    const found = [];
    let run = [];
    for (const point of [...points, null]) {
      if (point) run.push(point);
      else if (run.length) {
        const ground = this.y(0);
        const over = run.map(([x, y]) => `L${x.toFixed(1)} ${y.toFixed(1)}`).join("");
        found.push(svg("path", { class: `area s${place + 1}`, d: `M${run[0][0].toFixed(1)} ${ground}${over}L${run.at(-1)[0].toFixed(1)} ${ground}Z` }));
        run = [];
      }
    }
    return found;
  }

  place(event) {
    const box = this.picture.getBoundingClientRect();
    const step = Math.floor((event.clientX - box.left - MARGIN.left) / this.band);
    return step >= 0 && step < this.data.steps ? step : null;
  }

  key(event) {
    if (!this.data || !["ArrowLeft", "ArrowRight", "Home", "End", "Escape"].includes(event.key)) return;
    event.preventDefault();
    const last = this.data.steps - 1;
    const from = this.at ?? (event.key === "ArrowLeft" ? last + 1 : -1);
    const to = { ArrowLeft: Math.max(from - 1, 0), ArrowRight: Math.min(from + 1, last), Home: 0, End: last, Escape: null }[event.key];
    this.point(to);
    this.said.textContent = to === null ? "" : `${this.when(to)}: ${this.rows(to).map(([, name, value]) => `${name} ${value}`).join(", ") || "nothing"}`;
  }

  when(step) {
    return moment(this.data.start + step * this.data.step, this.data.step, true);
  }

  rows(step) {
    return this.data.series
      .map((one, place) => [place, one.name, one.values[step]])
      .filter(([, , value]) => value !== null && (value > 0 || this.kind === "lines"))
      .map(([place, name, value]) => [place, name, this.format(value)]);
  }

  point(step) {
    this.at = step;
    this.tip.hidden = step === null || !this.cursor;
    this.cursor?.setAttribute("visibility", step === null ? "hidden" : "visible");
    if (step === null || !this.cursor) return;
    this.cursor.setAttribute("x", this.x(step));
    const rows = this.rows(step).map(([place, name, value]) => html("p", {}, this.mark(place), html("span", {}, name), html("b", {}, value)));
    this.tip.replaceChildren(html("p", {}, this.when(step)), ...(rows.length ? rows : [html("p", {}, "nothing")]));
    const left = this.x(step) + this.picture.offsetLeft;
    const room = this.tip.offsetWidth + 16;
    this.tip.style.left = `${left + this.band + room > this.figure.clientWidth ? Math.max(left - room, 4) : left + this.band + 8}px`;
    this.tip.style.top = `${this.picture.offsetTop + 6}px`;
  }

  fill() {
    if (!this.details.open || !this.data) return;
    const head = html("tr", {}, html("th", { scope: "col" }, "From"), ...this.data.series.map((one) => html("th", { scope: "col" }, one.name)));
    const body = Array.from({ length: this.data.steps }, (_, step) => step)
      .filter((step) => this.data.series.some((one) => one.values[step]))
      .map((step) => html("tr", {}, html("th", { scope: "row" }, this.when(step)), ...this.data.series.map((one) => html("td", {}, one.values[step] === null ? "–" : this.format(one.values[step])))));
    this.table.replaceChildren(html("thead", {}, head), html("tbody", {}, ...body));
  }
}
