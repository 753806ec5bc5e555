// The curves of the runs that are chosen, over one another: a chart a figure, with training thin and held-out figures dotted.
import { h } from "../lib/dom.js";
import { get } from "../lib/api.js";
import { Board, nearest } from "../lib/chart.js";
import { dashes, line } from "../lib/colours.js";
import { say, span, whole } from "../lib/figures.js";
import { alive, query } from "./words.js";

const GROUPS = [
  ["How good it is", (figure, held) => held && !/^loss_|psnr_linear/.test(figure) || figure === "loss"],
  ["By how much noise, and in which use", (figure) => /^loss_/.test(figure)],
  ["Parts of the loss", (figure) => !/^(grad_norm|samples_per_s|tokens_per_s|mfu|lr|memory_mb|time|psnr_linear)|_s$/.test(figure)],
  ["Pace", (figure) => /_s$|^mfu$/.test(figure)],
  ["Memory and learning rate", (figure) => /^(memory_mb|lr)$/.test(figure)],
  ["Gradients", (figure) => /^grad_norm/.test(figure)],
];
const FLOORS = { psnr: "psnr_linear" };
const POINTS = 400, AGAIN = 2000, AT_ONCE = 4;
const MANY = 8, FEWER = 200;  // of more runs than that fewer lines are read, and fewer points drawn

export class Curves {
  constructor({ options, keep, signal }) {
    Object.assign(this, { options, keep, signal, known: new Map(), parts: new Map(), charts: new Map(), waiting: [], running: 0, chosen: new Map(), rows: new Map() });
    this.board = new Board(signal, { sayX: (x) => this.options.across === "time" ? span(x) : whole(x), onzoom: () => this.zoomed() });
    this.body = h("div", { class: "groups" });
    this.troubles = h("ul", { class: "troubles" });
    this.element = h("div", {}, this.bar(), h("div", { role: "status" }, this.troubles), this.body);
    this.redraw = 0;
  }

  bar() {
    const { options } = this;
    const change = (name, value) => { options[name] = value; this.keep(); this.draw(); };
    const pair = (label, name, choices) => h("div", { class: "pair", role: "group", "aria-label": label }, choices.map(([value, text]) =>
      h("button", { class: "small", "aria-pressed": String(options[name] === value), onclick: (event) => {
        for (const other of event.target.parentNode.children) other.setAttribute("aria-pressed", String(other === event.target));
        if (name === "across") this.board.range = null;
        change(name, value);
      } }, text)));
    const smooth = h("input", { type: "range", min: 0, max: 0.99, step: 0.01, value: options.smooth, "aria-label": "smoothing of training's curves",
      oninput: (event) => change("smooth", Number(event.target.value)) });
    this.all = h("button", { class: "small", hidden: true, onclick: () => this.board.zoom(null) }, "Show all steps");
    return h("div", { class: "row bar-of-curves" },
      pair("scale", "log", [[false, "Linear"], [true, "Log"]]), pair("across", "across", [["steps", "Steps"], ["time", "Time"]]),
      h("label", { class: "row smooth" }, h("span", { class: "muted" }, "Smooth"), smooth), this.all,
      this.hint = h("span", { class: "muted hint" }));
  }

  // chosen: key to index of colour; rows: key to row.
  set(chosen, rows) {
    this.chosen = chosen;
    this.rows = rows;
    for (const key of this.known.keys()) if (!chosen.has(key)) { this.known.delete(key); this.parts.delete(key); }
    for (const key of chosen.keys()) this.want(key);
    this.draw();
  }

  coarse() { return this.chosen.size > MANY && !this.board.range; }

  // What is asked for of a run, and when it was last written.
  asks(key, row) {
    const steps = this.stepsOf(key), part = steps ? `&first=${steps[0]}&last=${steps[1]}` : "";
    return { steps, text: `points=${this.coarse() ? `${FEWER}&coarse=true` : POINTS}${part}`, version: row.logged };
  }

  // Curves of a run, if they may have changed: of one at work not more often than every two seconds.
  want(key) {
    const row = this.rows.get(key), known = this.known.get(key);
    if (!row || this.waiting.includes(key)) return;
    const { text, version } = this.asks(key, row);
    if (known && known.asked === text && known.version === version) return;
    const wait = known && alive(row) && known.asked === text ? Math.max(0, known.at + AGAIN - performance.now()) : 0;
    if (wait) { clearTimeout(known.later); known.later = setTimeout(() => !this.signal.aborted && this.want(key), wait); return; }
    this.waiting.push(key);
    this.next();
  }

  async next() {
    if (this.running >= AT_ONCE || !this.waiting.length) return;
    const key = this.waiting.shift(), row = this.rows.get(key);
    if (!row || !this.chosen.has(key)) { this.next(); return; }
    this.running += 1;
    const { steps, text, version } = this.asks(key, row), fact = { asked: text, version, at: performance.now() };
    try {
      const found = await get(`/api/runs/curves?${query(row)}&${text}`, this.signal);
      const known = this.known.get(key) || {};
      Object.assign(known, fact, { at: performance.now(), failed: null, [steps ? "part" : "all"]: found });
      if (!steps) known.part = null;
      this.known.set(key, known);
    } catch (error) {
      if (error.name === "AbortError") return;
      this.known.set(key, { ...(this.known.get(key) || {}), ...fact, failed: error.message });
    }
    this.running -= 1;
    this.later();
    this.next();
  }

  // Drawn when all have come, and meanwhile now and then.
  later() {
    if (this.redraw && this.waiting.length) return;
    clearTimeout(this.redraw);
    this.redraw = setTimeout(() => { this.redraw = 0; if (!this.signal.aborted) this.draw(); }, this.waiting.length ? 250 : 0);
  }

  zoomed() {
    this.all.hidden = !this.board.range;
    for (const known of this.known.values()) if (!this.board.range) known.part = null;
    clearTimeout(this.zooming);
    this.zooming = setTimeout(() => { for (const key of this.chosen.keys()) this.want(key); }, 150);
    this.later();
  }

  // The zoom in steps of a run; null = all.
  stepsOf(key) {
    const { range } = this.board, known = this.known.get(key);
    if (!range || !known || !known.all) return null;
    if (this.options.across === "steps") return [Math.floor(range[0]), Math.ceil(range[1])];
    const time = known.all.curves["train/time"];
    if (!time) return null;
    return range.map((x) => time.steps[nearest(time.values, x)]);
  }

  // x of a curve's points: its steps, or the time at which training was there.
  across(key, curve) {
    if (this.options.across === "steps") return curve.steps;
    const time = this.known.get(key).all.curves["train/time"];
    if (!time || !time.steps.length) return [];
    return curve.steps.map((step) => {
      const i = Math.min(Math.max(1, upper(time.steps, step)), time.steps.length - 1);
      if (i < 1) return time.values[0];
      const [a, b] = [time.steps[i - 1], time.steps[i]];
      return Math.max(0, time.values[i - 1] + (step - a) / ((b - a) || 1) * (time.values[i] - time.values[i - 1]));
    });
  }

  figures() {
    const found = new Map();
    for (const key of this.chosen.keys()) {
      const known = this.known.get(key);
      if (!known || !known.all) continue;
      for (const [name, curve] of Object.entries(known.all.curves)) {
        const cut = name.indexOf("/"), figure = name.slice(cut + 1), kind = name.slice(0, cut);
        if (figure === "time" || !curve.steps.length) continue;
        if (!found.has(figure)) found.set(figure, { words: known.all.words[figure], held: false });
        if (kind === "validation") found.get(figure).held = true;
      }
    }
    return found;
  }

  draw() {
    const figures = this.figures(), left = new Set(figures.keys()), groups = [];
    for (const [title, fits] of GROUPS) {
      const own = [...left].filter((figure) => fits(figure, figures.get(figure).held));
      own.forEach((figure) => left.delete(figure));
      if (title === "By how much noise, and in which use") own.sort();
      if (own.length) groups.push([title, own.filter((figure) => !Object.values(FLOORS).includes(figure))]);
    }
    for (const [figure, chart] of this.charts) if (!figures.has(figure)) { this.board.drop(chart); this.charts.delete(figure); }
    const drawn = groups.filter(([, own]) => own.length).map(([title, own]) => this.group(title, own.map((figure) => this.chart(figure, figures.get(figure)))));
    const same = drawn.length === this.body.children.length && drawn.every((group, index) => this.body.children[index] === group);
    if (!same) this.body.replaceChildren(...drawn);
    if (!drawn.length) this.body.replaceChildren(h("p", { class: "empty" }, this.empty()));
    for (const [figure, { words }] of figures) if (this.charts.has(figure)) this.charts.get(figure).fill(() => this.filled(figure, words));
    this.tell();
  }

  empty() {
    if (!this.chosen.size) return "Pick a run to see its curves; tick several to lay them over one another.";
    const waits = [...this.chosen.keys()].some((key) => !this.known.has(key));
    return waits ? "reading the log" : "There is no line in the log yet. Curves appear with the first steps.";
  }

  group(title, charts) {
    this.groups = this.groups || new Map();
    if (!this.groups.has(title)) {
      const place = h("div", { class: "charts" });
      this.groups.set(title, [h("section", { class: "group" }, h("h2", {}, title), place), place]);
    }
    const [section, place] = this.groups.get(title);
    const elements = charts.map((chart) => chart.element);
    if (elements.length !== place.children.length || elements.some((element, index) => place.children[index] !== element)) place.replaceChildren(...elements);
    return section;
  }

  chart(figure, { words }) {
    if (!this.charts.has(figure)) {
      const chart = this.board.chart({ name: words ? words.name : figure, note: words ? words.note : "", say: (value) => say(figure, words, value) });
      this.charts.set(figure, chart);
    }
    return this.charts.get(figure);
  }

  filled(figure, words) {
    const lines = [], now = [], many = this.chosen.size;
    for (const [key, index] of this.chosen) {
      const known = this.known.get(key), row = this.rows.get(key);
      if (!known || !known.all || !row) continue;
      const curves = (known.part || known.all).curves, name = many > 1 ? row.name || row.root : "";
      const add = (curve, what, style) => {
        if (!curve || !curve.steps.length) return null;
        lines.push({ label: [name, what].filter(Boolean).join(", ") || words.name, colour: index, x: this.across(key, curve), y: curve.values, low: curve.low, high: curve.high, dash: dashes(index), ...style });
        return curve.values.at(-1);
      };
      const train = curves[`train/${figure}`], held = curves[`validation/${figure}`];
      const own = figure === "psnr" && held ? null : train;  // training sees other crops: its figure is no measure of these
      add(own, held ? "training" : "", { faint: false, thin: Boolean(held) });
      const value = add(held, own || many === 1 ? "held out" : "", { dots: true });
      const floor = add(curves[`validation/${FLOORS[figure]}`], "PCA alone, the floor", { faint: true, dash: [3, 3] });
      const last = value !== null && value !== undefined ? value : own && own.values.at(-1);
      const below = floor !== null && floor !== undefined && value < floor;
      if (many <= 3 && typeof last === "number") {
        now.push(h("span", { class: below ? "bad" : "", title: below ? `below its floor, ${say(figure, words, floor)}` : value !== null ? "the last one held out" : "the last one",
          style: { "--line": `var(${line(index)})` } }, many > 1 && h("i", { class: "swatch" }), say(figure, words, last)));
      }
    }
    return { lines, options: { log: this.options.log && figure !== "psnr", smooth: this.options.smooth }, now };
  }

  tell() {
    this.hint.textContent = this.coarse() ? "Of so many runs some lines are left out; zoom in to see all." : "Drag across a curve to zoom, double-click to go back.";
    this.body.dataset.read = String([...this.chosen.keys()].filter((key) => this.known.has(key)).length);
    const told = [];
    for (const key of this.chosen.keys()) {
      const known = this.known.get(key), row = this.rows.get(key);
      for (const text of [known && known.failed, ...(known && known.all ? known.all.troubles : []), row && row.trouble]) {
        if (text) told.push(h("li", { class: "warn" }, this.chosen.size > 1 ? `${key}: ${text}` : text));
      }
    }
    if (told.length !== this.troubles.children.length || told.some((one, index) => one.textContent !== this.troubles.children[index].textContent)) this.troubles.replaceChildren(...told);
  }
}

// The first index whose value is greater than x, of values in order.
function upper(values, x) {
  let low = 0, high = values.length;
  while (low < high) { const middle = (low + high) >> 1; if (values[middle] <= x) low = middle + 1; else high = middle; }
  return low;
}
