// Charts in SVG, drawn by hand: stacked bars, and lines. Each is readable by eye, by keyboard (arrow keys) and as a table.
// Names come from model calls: they are only ever set as text, never as markup.

/**
 * @typedef {object} Series
 * @property {string} name
 * @property {(number | null)[]} values one for each step; null if nothing was measured
 * @property {boolean} [dashed]
 * @property {boolean} [area] whether the area below the line is filled
 */

/**
 * @typedef {object} ChartData
 * @property {number} start Unix seconds
 * @property {number} step seconds
 * @property {number} steps
 * @property {Series[]} series
 * @property {number} [max] the top of the scale; without it, the scale fits the values
 */

/** @typedef {Node | string | number} Child */
/** @typedef {readonly [x: number, y: number]} Point */

const SPACE = "http://www.w3.org/2000/svg";
const MARGIN = { top: 8, right: 6, bottom: 20, left: 50 };

/**
 * Return a new HTML element with attributes and children; a child that is not a node becomes text.
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} name
 * @param {Record<string, string>} attributes
 * @param {...Child} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function html(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children.map((child) => (child instanceof Node ? child : String(child))));
  return element;
}

/**
 * Return a new SVG element.
 * @template {keyof SVGElementTagNameMap} K
 * @param {K} name
 * @param {Record<string, string | number>} attributes
 * @param {string} text
 * @returns {SVGElementTagNameMap[K]}
 */
function svg(name, attributes = {}, text = "") {
  const element = document.createElementNS(SPACE, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, String(value));
  if (text) element.textContent = text;
  return element;
}

/**
 * Return a round number at or above a value, and the marks up to it.
 * @param {number} most
 */
function scale(most) {
  if (!(most > 0)) return { top: 1, marks: [0, 1] };
  const rough = most / 4;
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = unit * ([1, 2, 2.5, 5].find((factor) => factor * unit >= rough) ?? 10);
  const count = Math.ceil(most / step - 1e-9);
  return { top: count * step, marks: Array.from({ length: count + 1 }, (_, place) => place * step) };
}

/**
 * Return the words for the step that begins at a time.
 * @param {number} seconds since 1970
 * @param {number} step in seconds
 * @param {boolean} exact whether to name both the day and the time of day
 */
function moment(seconds, step, exact) {
  const at = new Date(seconds * 1000);
  if (step >= 86400) return at.toLocaleDateString(undefined, { day: "numeric", month: "short", timeZone: "UTC" });
  const day = at.toLocaleDateString(undefined, { day: "numeric", month: "short" });
  const clock = at.toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit" });
  if (exact) return `${day}, ${clock}`;
  return step >= 6 * 3600 ? day : clock;
}

/**
 * Return the highest value of a chart.
 * @param {ChartData} data
 * @param {boolean} stacked whether the values of a step are added up
 */
function highest(data, stacked) {
  const values = (/** @type {number} */ step) => data.series.map((one) => one.values[step] ?? 0);
  const steps = Array.from({ length: data.steps }, (_, step) => values(step));
  return Math.max(...(stacked ? steps.map((step) => step.reduce((sum, value) => sum + value, 0)) : steps.flat()));
}

/** Where things are in one drawing: coordinates are pixels in the picture. */
class Plot {
  /**
   * @param {ChartData} data
   * @param {number} width of the picture
   * @param {number} height of the picture
   * @param {number} top the value at the top of the scale
   */
  constructor(data, width, height, top) {
    this.data = data;
    this.width = width;
    this.height = height;
    this.top = top;
    this.inner = { width: width - MARGIN.left - MARGIN.right, height: height - MARGIN.top - MARGIN.bottom };
    this.band = this.inner.width / data.steps;
  }

  /** @param {number} step */
  x(step) {
    return MARGIN.left + this.band * step;
  }

  /** @param {number} value */
  y(value) {
    return MARGIN.top + this.inner.height * (1 - value / this.top);
  }

  /** @param {number} step */
  when(step) {
    return moment(this.data.start + step * this.data.step, this.data.step, true);
  }
}

/** A chart in a figure. `draw(data)` may be called as often as there is new data. */
export class Chart {
  /**
   * @param {HTMLElement} figure has a figcaption
   * @param {"bars" | "lines"} kind bars are stacked
   * @param {(value: number) => string} format returns the words for a value
   */
  constructor(figure, kind, format) {
    this.figure = figure;
    this.kind = kind;
    this.format = format;
    /** @type {ChartData | null} */
    this.data = null;
    /** @type {Plot | null} what is drawn, if anything is */
    this.plot = null;
    /** @type {number | null} the step that the cursor is at */
    this.at = null;
    this.title = figure.querySelector("figcaption")?.textContent ?? "";
    this.picture = svg("svg", { tabindex: "0", role: "img" });
    this.cursor = svg("rect", { class: "cursor", visibility: "hidden" });
    this.legend = html("ul", { class: "legend" });
    this.tip = html("div", { class: "tip", hidden: "" });
    this.spoken = html("p", { class: "unseen", "aria-live": "polite" });
    this.none = html("p", { class: "none", hidden: "" }, "nothing in this range");
    this.table = html("table");
    this.details = html(
      "details",
      {},
      html("summary", {}, "As a table"),
      html("div", { class: "scroll", tabindex: "0" }, this.table),
    );
    figure.append(this.picture, this.none, this.legend, this.details, this.tip, this.spoken);
    this.picture.addEventListener("pointermove", (event) => this.point(this.step(event)));
    this.picture.addEventListener("pointerleave", () => this.point(null));
    this.picture.addEventListener("blur", () => this.point(null));
    this.picture.addEventListener("keydown", (event) => this.key(event));
    this.details.addEventListener("toggle", () => this.fill());
    new ResizeObserver(() => this.data && this.draw(this.data)).observe(this.picture);
  }

  /** @param {ChartData} data */
  draw(data) {
    this.data = data;
    const some = data.series.some((one) => one.values.some((value) => value !== null && value > 0));
    this.none.hidden = some;
    this.picture.style.display = some ? "" : "none";
    this.legend.hidden = this.details.hidden = !some;
    if (some) this.show(data);
    else this.clear();
  }

  clear() {
    this.plot = null;
    this.point(null);
  }

  /** @param {ChartData} data */
  show(data) {
    const bars = this.kind === "bars";
    const { top, marks } = scale(data.max ?? highest(data, bars));
    const plot = new Plot(data, this.picture.clientWidth || 400, this.picture.clientHeight || 190, top);
    this.plot = plot;
    this.picture.setAttribute("viewBox", `0 0 ${plot.width} ${plot.height}`);
    this.picture.setAttribute("aria-label", this.words(plot));
    this.cursor = svg("rect", {
      class: "cursor",
      y: MARGIN.top,
      height: plot.inner.height,
      width: Math.max(plot.band, 2),
      visibility: "hidden",
    });
    this.picture.replaceChildren(
      ...this.axes(plot, marks),
      ...(bars ? this.bars(plot) : this.lines(plot)),
      this.cursor,
    );
    this.legend.replaceChildren(...data.series.map((one, place) => html("li", {}, this.mark(one, place), one.name)));
    this.fill();
    if (this.at !== null) this.point(this.at);
  }

  /**
   * Return the key of a series in the legend.
   * @param {Series} one
   * @param {number} place of the series in the chart
   */
  mark(one, place) {
    return html("span", { class: `key s${place + 1}${one.dashed ? " dashed" : ""}`, "aria-hidden": "true" });
  }

  /**
   * Return what the chart shows, for those who hear the page.
   * @param {Plot} plot
   */
  words(plot) {
    const { series, steps } = plot.data;
    const parts = series.map((one) => {
      const known = one.values.filter((value) => value !== null);
      if (!known.length) return `${one.name}: nothing`;
      const words =
        this.kind === "bars"
          ? `${this.format(known.reduce((sum, value) => sum + value, 0))} in all`
          : `${this.format(Math.min(...known))} to ${this.format(Math.max(...known))}`;
      return `${one.name}: ${words}`;
    });
    return `${this.title}, ${plot.when(0)} to ${plot.when(steps)}. ${parts.join("; ")}. Arrow keys read single steps.`;
  }

  /**
   * @param {Plot} plot
   * @param {number[]} marks
   */
  axes(plot, marks) {
    /** @type {SVGElement[]} */
    const elements = [];
    for (const mark of marks) {
      const y = Math.round(plot.y(mark)) + 0.5;
      elements.push(svg("line", { class: "rule", x1: MARGIN.left, x2: plot.width - MARGIN.right, y1: y, y2: y }));
      elements.push(svg("text", { x: MARGIN.left - 8, y: y + 4, "text-anchor": "end" }, this.format(mark)));
    }
    const { start, step: length, steps } = plot.data;
    const every = Math.ceil(steps / Math.max(Math.floor(plot.inner.width / 84), 2));
    for (let step = 0; step < steps; step += every) {
      const x = plot.x(step + 0.5);
      if (x > plot.width - 30) break;
      const words = moment(start + step * length, length, false);
      elements.push(svg("text", { x, y: plot.height - 5, "text-anchor": "middle" }, words));
    }
    return elements;
  }

  /** @param {Plot} plot */
  bars(plot) {
    /** @type {SVGElement[]} */
    const elements = [];
    const width = Math.max(plot.band - Math.min(plot.band * 0.25, 4), 1);
    for (let step = 0; step < plot.data.steps; step += 1) {
      const x = plot.x(step) + (plot.band - width) / 2;
      let below = 0;
      plot.data.series.forEach((one, place) => {
        const value = one.values[step] ?? 0;
        if (value <= 0) return;
        const [low, high] = [plot.y(below), plot.y(below + value)];
        below += value;
        const height = Math.max(low - high, 0.5);
        const shape = { class: `bar s${place + 1}`, x, y: high, width, height, rx: Math.min(width / 4, 2) };
        elements.push(svg("rect", shape));
      });
    }
    return elements;
  }

  /** @param {Plot} plot */
  lines(plot) {
    /** @type {SVGElement[]} */
    const elements = [];
    plot.data.series.forEach((one, place) => {
      /** @type {(Point | null)[]} */
      const points = one.values.map((value, step) => (value === null ? null : [plot.x(step + 0.5), plot.y(value)]));
      let path = "";
      points.forEach((point, step) => {
        if (point === null) return;
        const [x, y] = point;
        path += `${points[step - 1] ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`;
        if (!points[step - 1] && !points[step + 1]) {
          elements.push(svg("circle", { class: `point s${place + 1}`, cx: x, cy: y, r: 3 }));
        }
      });
      if (one.area) elements.push(...this.areas(plot, points, place));
      elements.push(svg("path", { class: `path s${place + 1}${one.dashed ? " dashed" : ""}`, d: path }));
    });
    return elements;
  }

  /**
   * Return the areas below a line: one for each run of steps with a value.
   * @param {Plot} plot
   * @param {(Point | null)[]} points
   * @param {number} place of the series in the chart
   */
  areas(plot, points, place) {
    /** @type {SVGElement[]} */
    const elements = [];
    const ground = plot.y(0);
    /** @type {Point[]} */
    let run = [];
    for (const point of [...points, null]) {
      if (point) {
        run.push(point);
        continue;
      }
      const [first, last] = [run[0], run.at(-1)];
      if (first && last) {
        const over = run.map(([x, y]) => `L${x.toFixed(1)} ${y.toFixed(1)}`).join("");
        const path = `M${first[0].toFixed(1)} ${ground}${over}L${last[0].toFixed(1)} ${ground}Z`;
        elements.push(svg("path", { class: `area s${place + 1}`, d: path }));
      }
      run = [];
    }
    return elements;
  }

  /**
   * Return the step that the pointer is at, or null beside the chart.
   * @param {PointerEvent} event
   */
  step(event) {
    if (this.plot === null) return null;
    const box = this.picture.getBoundingClientRect();
    const step = Math.floor((event.clientX - box.left - MARGIN.left) / this.plot.band);
    return step >= 0 && step < this.plot.data.steps ? step : null;
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    if (this.plot === null) return;
    const last = this.plot.data.steps - 1;
    const from = this.at ?? (event.key === "ArrowLeft" ? last + 1 : -1);
    /** @type {Map<string, number | null>} */
    const targets = new Map([
      ["ArrowLeft", Math.max(from - 1, 0)],
      ["ArrowRight", Math.min(from + 1, last)],
      ["Home", 0],
      ["End", last],
      ["Escape", null],
    ]);
    const to = targets.get(event.key);
    if (to === undefined) return;
    event.preventDefault();
    this.point(to);
    this.spoken.textContent = to === null ? "" : this.reading(this.plot, to);
  }

  /**
   * Return the values of a step in one sentence.
   * @param {Plot} plot
   * @param {number} step
   */
  reading(plot, step) {
    const values = this.rows(plot, step).map(({ one, words }) => `${one.name} ${words}`);
    return `${plot.when(step)}: ${values.join(", ") || "nothing"}`;
  }

  /**
   * Return the series that have a value in a step.
   * @param {Plot} plot
   * @param {number} step
   */
  rows(plot, step) {
    return plot.data.series.flatMap((one, place) => {
      const value = one.values[step] ?? null;
      if (value === null || (value <= 0 && this.kind === "bars")) return [];
      return [{ one, place, words: this.format(value) }];
    });
  }

  /**
   * Put the cursor at a step, or take it away.
   * @param {number | null} step
   */
  point(step) {
    const { plot } = this;
    this.at = step;
    this.tip.hidden = step === null || plot === null;
    this.cursor.setAttribute("visibility", step === null ? "hidden" : "visible");
    if (step === null || plot === null) return;
    this.cursor.setAttribute("x", String(plot.x(step)));
    const rows = this.rows(plot, step).map(({ one, place, words }) =>
      html("p", {}, this.mark(one, place), html("span", {}, one.name), html("b", {}, words)),
    );
    this.tip.replaceChildren(html("p", {}, plot.when(step)), ...(rows.length ? rows : [html("p", {}, "nothing")]));
    this.place(plot, step);
  }

  /**
   * Place the tip beside a step: to its right, or to its left if it would leave the figure.
   * @param {Plot} plot
   * @param {number} step
   */
  place(plot, step) {
    const [figure, picture] = [this.figure.getBoundingClientRect(), this.picture.getBoundingClientRect()];
    const left = plot.x(step) + picture.left - figure.left - this.figure.clientLeft;
    const width = this.tip.offsetWidth + 16;
    const fits = left + plot.band + width <= this.figure.clientWidth;
    this.tip.style.left = `${fits ? left + plot.band + 8 : Math.max(left - width, 4)}px`;
    this.tip.style.top = `${picture.top - figure.top - this.figure.clientTop + 6}px`;
  }

  /** Fill the table, if it is open. */
  fill() {
    const { plot } = this;
    if (!this.details.open || plot === null) return;
    const { series, steps } = plot.data;
    const names = series.map((one) => html("th", { scope: "col" }, one.name));
    const head = html("tr", {}, html("th", { scope: "col" }, "From"), ...names);
    const body = Array.from({ length: steps }, (_, step) => step)
      .filter((step) => series.some((one) => one.values[step]))
      .map((step) => {
        const cells = series.map(({ values }) => {
          const value = values[step] ?? null;
          return html("td", {}, value === null ? "–" : this.format(value));
        });
        return html("tr", {}, html("th", { scope: "row" }, plot.when(step)), ...cells);
      });
    this.table.replaceChildren(html("thead", {}, head), html("tbody", {}, ...body));
  }
}
