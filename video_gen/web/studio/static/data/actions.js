import { h } from "../lib/dom.js";
import { plain } from "../lib/figures.js";

const ARROWS = { up: "↑", down: "↓", left: "←", right: "→" };

// What is done at each frame, over the picture: the keys that are held light up, and each axis is a bar from its rest.
export class Actions {
  constructor() { this.element = h("div", { class: "actions", hidden: true }); }

  show(told) {
    this.told = told;
    this.element.hidden = !told;
    if (!told) return;
    const { keys, axes } = told.vocabulary;
    this.keys = keys.map((key) => h("kbd", { title: key }, ARROWS[key.toLowerCase()] || key));
    this.bars = axes.map((axis) => {
      const fill = h("i", {}), value = h("span", { class: "numbers" });
      return { axis, fill, value, element: h("div", { class: "axis" }, h("span", {}, axis.name), h("b", {}, fill), value) };
    });
    this.element.replaceChildren(h("div", { class: "held" }, this.keys), ...this.bars.map((bar) => bar.element));
    this.draw(0);
  }

  draw(frame) {
    if (!this.told) return;
    const row = this.told.rows[Math.min(frame, this.told.rows.length - 1)] || [];
    this.keys.forEach((key, at) => key.classList.toggle("on", row[at] > 0));
    this.bars.forEach(({ axis, fill, value }, at) => {
      const now = row[this.keys.length + at] ?? 0, wide = axis.high - axis.low;
      const rest = (Math.min(Math.max(0, axis.low), axis.high) - axis.low) / wide, there = (now - axis.low) / wide;
      fill.style.setProperty("left", `${100 * Math.min(rest, there)}%`);
      fill.style.setProperty("width", `${100 * Math.abs(there - rest)}%`);
      value.textContent = `${plain(now)} ${axis.unit}`.trim();
    });
  }
}
