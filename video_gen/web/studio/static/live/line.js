import { clock, h, svg } from "../lib/dom.js";

// The time line: what was said when, the points to which one can go back, and where the stream is. A press goes back to there.
export class TimeLine {
  constructor(back) {
    this.back = back;
    this.marks = h("ol", { class: "said" });
    this.slider = h("input", { type: "range", min: 0, max: 0, step: 1, value: 0, "aria-label": "a point to go back to", oninput: () => this.name(), onchange: () => this.name() });
    this.button = h("button", { class: "small", onclick: () => this.points.length && back(this.points[Number(this.slider.value)]) }, "Go back to here");
    this.where = h("output", { class: "numbers muted" });
    this.drawing = svg("svg", { viewBox: "0 0 1000 26", preserveAspectRatio: "none", "aria-hidden": "true" });
    this.points = [];
    this.element = h("section", { class: "timeline", "aria-label": "time line", hidden: true }, this.drawing, h("div", { class: "row" }, this.slider, this.where, this.button), this.marks);
  }

  name() {
    this.touched = true;
    const at = this.points[Number(this.slider.value)];
    this.where.textContent = at === undefined ? "" : clock(at);
  }

  show(told) {
    const seconds = told.seconds || 0;
    this.element.hidden = told.seconds === undefined;
    this.points = told.points || [];
    const last = this.points.length - 1, follows = !this.touched || Number(this.slider.value) >= Number(this.slider.max);
    this.slider.max = Math.max(0, last);
    if (follows) { this.slider.value = Math.max(0, last); this.touched = false; }
    this.name();
    this.touched = this.touched && !follows;
    const x = (at) => Math.min(1000, 1000 * at / Math.max(seconds, 1));
    const cues = [{ time: 0, prompt: told.begun && told.begun.prompt, first: true }, ...(told.cues || [])];
    this.drawing.replaceChildren(
      svg("rect", { x: 0, y: 10, width: 1000, height: 6, class: "past" }),
      ...this.points.map((at) => svg("rect", { x: x(at), y: 11, width: 1.2, height: 4, class: "point" })),
      ...cues.map((cue) => svg("rect", { x: Math.max(0, x(cue.time) - 1.5), y: 3, width: 3, height: 20, class: "cue" })));
    const text = JSON.stringify(cues);
    if (text === this.known) return;
    this.known = text;
    this.marks.replaceChildren(...cues.map((cue) => h("li", {}, h("span", { class: "chip numbers" }, clock(cue.time)), this.words(cue))));
  }

  words(cue) {
    const said = [];
    if (cue.prompt !== undefined && cue.prompt !== null) said.push(cue.prompt || "no prompt");
    else if (cue.first) said.push("goes on from what was saved");
    if (cue.guidance_scale !== undefined) said.push(`guidance ${cue.guidance_scale}`);
    if (cue.speed !== undefined) said.push(`speed ${cue.speed}`);
    return h("span", {}, said.join(", "));
  }
}
