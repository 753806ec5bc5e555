// Curves on a canvas: several over one another, log or linear, smoothed, with a readout and zoom. Charts of one board share the
// cursor and the zoom. What is out of sight is not drawn.
//   const board = new Board(signal); const chart = board.chart({ name, note, say }); chart.fill(() => ({ lines, options }));
// A line is { label, colour, x, y, low, high, dash, dots, faint }, x in order.
import { h } from "./dom.js";
import { colour, line, onColours } from "./colours.js";

const TICKS = 5, NEAR = 10;

export class Board {
  constructor(signal, { onzoom = () => {}, sayX = String } = {}) {
    this.charts = new Set();
    this.onzoom = onzoom;
    this.sayX = sayX;
    this.range = null;      // [from, to] of x, or all
    this.cursor = null;
    this.due = 0;
    this.seen = new IntersectionObserver((entries) => {
      for (const entry of entries) { entry.target.chart.visible = entry.isIntersecting; if (entry.isIntersecting) this.redraw(); }
    }, { rootMargin: "200px" });
    this.sized = new ResizeObserver((entries) => {
      for (const entry of entries) entry.target.chart.resize();
      this.redraw();
    });
    onColours(() => { for (const chart of this.charts) chart.dirty = true; this.redraw(); }, signal);
    signal.addEventListener("abort", () => { this.seen.disconnect(); this.sized.disconnect(); cancelAnimationFrame(this.due); });
  }

  chart(about) {
    const chart = new Chart(this, about);
    this.charts.add(chart);
    chart.plot.chart = chart;
    this.seen.observe(chart.plot);
    this.sized.observe(chart.plot);
    return chart;
  }

  drop(chart) {
    this.charts.delete(chart);
    this.seen.unobserve(chart.plot);
    this.sized.unobserve(chart.plot);
    chart.element.remove();
  }

  zoom(range) {
    this.range = range;
    for (const chart of this.charts) chart.dirty = true;
    this.redraw();
    this.onzoom(range);
  }

  point(x, owner) {
    this.cursor = x;
    for (const chart of this.charts) if (chart.visible) chart.point(x, chart === owner);
  }

  redraw() {
    if (this.due) return;
    this.due = requestAnimationFrame(() => {
      this.due = 0;
      for (const chart of this.charts) if (chart.dirty && chart.visible) chart.draw();
    });
  }
}

class Chart {
  constructor(board, { name, note = "", say = String }) {
    Object.assign(this, { board, name, say, lines: [], options: {}, dirty: true, visible: false });
    this.canvas = h("canvas", { tabIndex: 0, role: "img", "aria-label": name });
    this.mark = h("i", { class: "mark", hidden: true });
    this.span = h("i", { class: "span", hidden: true });
    this.readout = h("div", { class: "readout", hidden: true });
    this.plot = h("div", { class: "plot" }, this.canvas, this.span, this.mark, this.readout);
    this.now = h("span", { class: "last-ones numbers" });
    this.element = h("figure", { class: "chart" },
      h("figcaption", {}, h("h3", { title: note || null }, name), this.now, note && h("p", { class: "muted" }, note)), this.plot);
    this.listen();
  }

  // What is drawn, from the next time that the chart is in sight: make() gives { lines, options, now }.
  // Options are log and smooth, 0 to 1; now are elements beside the title.
  fill(make) {
    this.make = make;
    this.dirty = true;
    this.board.redraw();
  }

  set({ lines, options, now = [] }) {
    this.lines = lines.filter((one) => one.x.length).map((one) => ({ ...one, shown: one.dots || one.faint ? one.y : smoothed(one.y, options.smooth || 0) }));
    this.options = options;
    this.now.replaceChildren(...now);
    this.canvas.setAttribute("aria-label", this.aloud());
  }

  aloud() {
    const last = this.lines.slice(0, 4).map((one) => `${one.label} ${this.say(one.y.at(-1))} at ${this.board.sayX(one.x.at(-1))}`);
    return `${this.name}. ${last.join("; ")}${this.lines.length > 4 ? `; and ${this.lines.length - 4} more` : ""}`;
  }

  resize() {
    const box = this.plot.getBoundingClientRect(), many = devicePixelRatio || 1;
    if (!box.width) return;
    this.width = box.width;
    this.height = box.height;
    this.canvas.width = Math.round(box.width * many);
    this.canvas.height = Math.round(box.height * many);
    this.dirty = true;
  }

  // ---- where things are
  frame() {
    const { log } = this.options;
    const [from, to] = this.board.range || extent(this.lines.map((one) => [one.x[0], one.x.at(-1)]).flat());
    const seen = this.lines.flatMap((one) => {
      const [a, b] = [Math.max(0, nearest(one.x, from) - 1), Math.min(one.x.length, nearest(one.x, to) + 2)];
      const ys = one.shown.slice(a, b).filter((y) => y !== null && (!log || y > 0));
      return ys.length ? [min(ys), max(ys)] : [];
    });
    let [low, high] = seen.length ? extent(seen) : [0, 1];
    if (log && seen.length) [low, high] = [Math.log10(low), Math.log10(high)];
    if (!log && low >= 0 && low < 0.4 * high) low = 0;
    const room = 0.06 * (high - low) || Math.abs(high) * 0.1 || 1;
    return { from, to: to === from ? from + 1 : to, low: !log && low === 0 ? 0 : low - room, high: high + room, log };
  }

  draw() {
    if (!this.width) this.resize();
    if (!this.width) return;
    if (this.make) { this.set(this.make()); this.make = null; }
    const context = this.canvas.getContext("2d"), many = devicePixelRatio || 1;
    const rem = parseFloat(getComputedStyle(document.documentElement).fontSize);
    const frame = this.at = this.frame();
    context.setTransform(many, 0, 0, many, 0, 0);
    context.clearRect(0, 0, this.width, this.height);
    context.font = `${0.7 * rem}px ${getComputedStyle(document.body).fontFamily}`;
    const rows = frame.log ? decades(frame.low, frame.high) : ticks(frame.low, frame.high);
    const texts = rows.map((y) => this.say(frame.log ? 10 ** y : y));
    const left = Math.ceil(Math.max(0, ...texts.map((text) => context.measureText(text).width))) + 0.5 * rem;
    Object.assign(frame, { left, right: this.width - 0.5 * rem, top: 0.4 * rem, bottom: this.height - 1.35 * rem });
    const X = (x) => frame.left + (x - frame.from) / (frame.to - frame.from) * (frame.right - frame.left);
    const Y = (y) => frame.bottom - ((frame.log ? Math.log10(y) : y) - frame.low) / (frame.high - frame.low) * (frame.bottom - frame.top);
    context.fillStyle = colour("--muted");
    context.strokeStyle = colour("--rule");
    context.lineWidth = 1;
    context.textAlign = "right";
    context.textBaseline = "middle";
    rows.forEach((y, index) => {
      const at = Math.round(frame.bottom - (y - frame.low) / (frame.high - frame.low) * (frame.bottom - frame.top)) + 0.5;
      context.beginPath(); context.moveTo(frame.left, at); context.lineTo(frame.right, at); context.stroke();
      context.fillText(texts[index], frame.left - 0.35 * rem, at);
    });
    context.textBaseline = "alphabetic";
    this.across(context, frame, X, rem);
    context.save();
    context.beginPath(); context.rect(frame.left, 0, frame.right - frame.left + 1, this.height); context.clip();
    for (const one of this.lines) this.trace(context, one, X, Y, rem);
    context.restore();
    this.dirty = false;
    if (this.board.cursor !== null) this.point(this.board.cursor, !this.readout.hidden);
  }

  across(context, frame, X, rem) {
    const many = Math.max(2, Math.floor((frame.right - frame.left) / (5 * rem)));
    let free = -Infinity;
    for (const x of ticks(frame.from, frame.to, many)) {
      const text = this.board.sayX(x), wide = context.measureText(text).width;
      const middle = Math.min(Math.max(X(x), frame.left + wide / 2), frame.right - wide / 2);
      if (middle - wide / 2 < free) continue;
      free = middle + wide / 2 + 0.6 * rem;
      context.textAlign = "center";
      context.fillText(text, middle, this.height - 0.25 * rem);
    }
  }

  trace(context, one, X, Y, rem) {
    const paint = colour(line(one.colour)), { log, smooth } = this.options;
    const good = (y) => y !== null && (!log || y > 0);
    if (one.low && this.lines.length <= 4 && !smooth) {
      context.globalAlpha = 0.14;
      context.fillStyle = paint;
      context.beginPath();
      one.x.forEach((x, i) => { if (good(one.low[i])) context.lineTo(X(x), Y(one.high[i])); });
      for (let i = one.x.length - 1; i >= 0; i -= 1) if (good(one.low[i])) context.lineTo(X(one.x[i]), Y(one.low[i]));
      context.fill();
    }
    const path = (ys, alpha, width) => {
      context.globalAlpha = alpha;
      context.strokeStyle = paint;
      context.lineWidth = width;
      context.lineJoin = "round";
      context.setLineDash(one.dash || []);
      context.beginPath();
      let open = false;
      for (let i = 0; i < one.x.length; i += 1) {
        if (!good(ys[i])) { open = false; continue; }
        if (open) context.lineTo(X(one.x[i]), Y(ys[i]));
        else { context.moveTo(X(one.x[i]), Y(ys[i])); open = true; }
      }
      context.stroke();
    };
    if (one.shown !== one.y && this.lines.length <= 8) path(one.y, 0.22, 1);
    path(one.shown, one.faint ? 0.45 : 1, one.dots ? 1.75 : 1.4);
    context.setLineDash([]);
    if (one.dots || one.x.length === 1) {
      context.fillStyle = paint;
      const radius = one.x.length > 60 ? 0 : 0.14 * rem;
      for (let i = 0; radius && i < one.x.length; i += 1) {
        if (good(one.y[i])) { context.beginPath(); context.arc(X(one.x[i]), Y(one.y[i]), radius, 0, 7); context.fill(); }
      }
    }
    context.globalAlpha = 1;
  }

  // ---- the cursor
  point(x, own) {
    const frame = this.at;
    if (!frame || x === null || x < frame.from || x > frame.to) { this.mark.hidden = this.readout.hidden = true; return; }
    const at = frame.left + (x - frame.from) / (frame.to - frame.from) * (frame.right - frame.left);
    this.mark.hidden = false;
    this.mark.style.setProperty("transform", `translateX(${at}px)`);
    this.readout.hidden = !own;
    if (!own) return;
    const found = this.lines.map((one) => ({ one, i: nearest(one.x, x) })).filter(({ one, i }) => x <= one.x.at(-1) + (frame.to - frame.from) / 50 && one.shown[i] !== null);
    found.sort((a, b) => b.one.shown[b.i] - a.one.shown[a.i]);
    this.readout.replaceChildren(h("b", { class: "numbers" }, this.board.sayX(x)),
      ...found.slice(0, NEAR).map(({ one, i }) => h("span", { class: "numbers", style: { "--line": `var(${line(one.colour)})` } },
        h("i", { class: "swatch" }), h("span", {}, one.label), h("b", {}, this.say(one.shown[i])))),
      ...(found.length > NEAR ? [h("span", { class: "muted" }, `and ${found.length - NEAR} more`)] : []));
    const rightwards = at < this.width / 2;
    this.readout.style.setProperty("left", rightwards ? `${at + 8}px` : "auto");
    this.readout.style.setProperty("right", rightwards ? "auto" : `${this.width - at + 8}px`);
  }

  place(event) {
    const box = this.plot.getBoundingClientRect(), { left, right, from, to } = this.at;
    return Math.min(to, Math.max(from, from + (event.clientX - box.left - left) / (right - left) * (to - from)));
  }

  listen() {
    let began = null;
    const show = (event) => {
      const now = this.place(event), { left, right, from, to } = this.at;
      const at = (x) => left + (x - from) / (to - from) * (right - left);
      this.span.hidden = false;
      this.span.style.setProperty("left", `${at(Math.min(began, now))}px`);
      this.span.style.setProperty("width", `${Math.abs(at(now) - at(began))}px`);
    };
    const { canvas, board } = this;
    canvas.addEventListener("pointerdown", (event) => { if (this.at && !event.button) { began = this.place(event); canvas.setPointerCapture(event.pointerId); } });
    canvas.addEventListener("pointermove", (event) => { if (this.at) { board.point(this.place(event), this); if (began !== null) show(event); } });
    canvas.addEventListener("pointerup", (event) => {
      if (began === null) return;
      const [a, b] = [began, this.place(event)].sort((x, y) => x - y), { left, right, from, to } = this.at;
      began = null;
      this.span.hidden = true;
      if ((b - a) / (to - from) * (right - left) > 6) board.zoom([a, b]);
    });
    canvas.addEventListener("pointercancel", () => { began = null; this.span.hidden = true; });
    canvas.addEventListener("pointerleave", () => board.point(null, this));
    canvas.addEventListener("dblclick", () => board.zoom(null));
    canvas.addEventListener("keydown", (event) => this.key(event));
    canvas.addEventListener("blur", () => board.point(null, this));
  }

  // Arrows move the cursor, + and - zoom around it, Escape shows all.
  key(event) {
    if (!this.at || event.ctrlKey || event.metaKey || event.altKey) return;
    const { from, to } = this.at, now = this.board.cursor === null ? (from + to) / 2 : this.board.cursor;
    const step = (to - from) / (event.shiftKey ? 10 : 100);
    if (event.key === "ArrowLeft") this.board.point(Math.max(from, now - step), this);
    else if (event.key === "ArrowRight") this.board.point(Math.min(to, now + step), this);
    else if (event.key === "+" || event.key === "=") this.board.zoom([now - (now - from) / 2, now + (to - now) / 2]);
    else if (event.key === "-" || event.key === "Escape") { if (!this.board.range) return; this.board.zoom(null); }
    else return;
    event.preventDefault();
  }
}

// ---- numbers
const min = (values) => values.reduce((a, b) => (b < a ? b : a));
const max = (values) => values.reduce((a, b) => (b > a ? b : a));
const extent = (values) => values.length ? [min(values), max(values)] : [0, 1];

// Index of the value nearest to x, of values in order.
export function nearest(values, x) {
  let low = 0, high = values.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (values[middle] <= x) low = middle; else high = middle;
  }
  return high >= 0 && Math.abs(values[high] - x) < Math.abs(values[low] - x) ? high : low;
}

// A running mean over about 1 / (1 - weight) points that is not drawn to its start.
export function smoothed(values, weight) {
  if (!weight || values.length < 3) return values;
  let sum = 0, count = 0;
  return values.map((value) => {
    if (value === null) return null;
    sum = sum * weight + value;
    count = count * weight + 1;
    return sum / count;
  });
}

export function ticks(low, high, many = TICKS) {
  if (!(high > low)) return [low];
  const rough = (high - low) / many, unit = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((size) => size * unit).find((size) => size >= rough * (1 - 1e-9));
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k += 1) found.push(Number((k * step).toPrecision(12)));
  return found;
}

// Places of 1, 2 and 5 of each power of ten, as logarithms; fewer where there is little room.
function decades(low, high) {
  const within = (marks) => {
    const found = [];
    for (let power = Math.floor(low); power <= Math.ceil(high); power += 1) for (const mark of marks) {
      const at = power + Math.log10(mark);
      if (at >= low && at <= high) found.push(at);
    }
    return found;
  };
  const wide = high - low;
  if (wide > 6) return within([1]).filter((at, index, all) => index % Math.ceil(all.length / 6) === 0);
  if (wide > 2) return within([1]);
  const three = within([1, 2, 5]);
  return three.length > 2 ? three : ticks(10 ** low, 10 ** high).filter((y) => y > 0).map(Math.log10);
}
