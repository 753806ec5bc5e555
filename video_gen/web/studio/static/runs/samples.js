// Samples over time: what each chosen run made at the step on the slider, or at the last one before it.
import { calm, h } from "../lib/dom.js";
import { line } from "../lib/colours.js";
import { whole } from "../lib/figures.js";
import { query, title } from "./words.js";

const MOST_RUNS = 6;

export class Samples {
  constructor({ signal }) {
    this.at = null;      // the step; null = the last
    this.moving = !calm();
    this.rows = new Map();
    this.slider = h("input", { type: "range", min: 0, step: 1, "aria-label": "step of the samples" });
    this.slider.addEventListener("input", () => { this.at = this.steps[Number(this.slider.value)]; this.show(); }, { signal });
    this.step = h("output", { class: "numbers" });
    this.play = h("button", { class: "small", "aria-pressed": String(this.moving), onclick: () => {
      this.moving = !this.moving;
      this.play.setAttribute("aria-pressed", String(this.moving));
      for (const video of this.element.querySelectorAll("video")) if (this.moving) start(video); else video.pause();
    } }, "All move");
    this.bar = h("div", { class: "row bar-of-samples" }, h("span", { class: "muted" }, "Step"), this.slider, this.step, this.play);
    this.body = h("div", { class: "made-by" });
    this.element = h("div", {}, this.bar, this.body);
  }

  set(chosen, rows, about) {
    const keys = [...chosen.keys()].filter((key) => rows.has(key)).slice(0, MOST_RUNS);
    this.runs = keys.map((key) => ({ key, row: rows.get(key), index: chosen.get(key), samples: about.has(key) ? about.get(key).samples : null }));
    const before = this.steps || [], last = before.at(-1);
    this.steps = [...new Set(this.runs.flatMap((run) => (run.samples || []).map((sample) => sample.step)))].sort((a, b) => a - b);
    if (this.at === null || this.at === last || !this.steps.includes(this.at)) this.at = this.steps.at(-1) ?? null;
    this.bar.hidden = this.steps.length === 0;
    this.slider.max = Math.max(0, this.steps.length - 1);
    this.slider.disabled = this.steps.length < 2;
    this.show();
  }

  show() {
    const at = this.steps.indexOf(this.at);
    this.slider.value = at;
    this.slider.setAttribute("aria-valuetext", this.at === null ? "none" : `step ${whole(this.at)}`);
    this.step.textContent = this.at === null ? "" : `${whole(this.at)} · ${at + 1} of ${this.steps.length}`;
    for (const key of this.rows.keys()) if (!this.runs.some((run) => run.key === key)) this.rows.delete(key);
    const parts = this.runs.map((run) => this.part(run));
    if (!this.runs.length) parts.push(h("p", { class: "empty" }, "Pick a run to see what it makes."));
    if (parts.length !== this.body.children.length || parts.some((part, index) => this.body.children[index] !== part)) this.body.replaceChildren(...parts);
  }

  part(run) {
    const sample = (run.samples || []).filter((one) => one.step <= this.at).at(-1);
    const state = JSON.stringify([sample, run.index, run.samples === null]), known = this.rows.get(run.key);
    if (known && known.state === state) return known.element;
    const element = known ? known.element : h("section", { class: "of-run" });
    element.replaceChildren(h("header", { style: { "--line": `var(${line(run.index)})` } }, h("i", { class: "swatch" }), h("h2", {}, ...title(run.row)),
      sample && h("span", { class: "muted numbers" }, `step ${whole(sample.step)}`),
      sample && sample.sheet && h("a", { class: "button quiet small", href: this.address(run, sample, "sheet.png"), target: "_blank", rel: "noopener" }, "All frames")),
    sample ? this.tiles(run, sample, known) : h("p", { class: "muted" }, run.samples === null ? "looking" : run.samples.length ? "nothing yet at this step" : "No samples yet; loop.sample_every says how often there are some."));
    this.rows.set(run.key, { state, element, tiles: element.querySelector(".tiles") });
    return element;
  }

  // A video is replaced in its tile, where the old one stays until the new one can be shown.
  tiles(run, sample, known) {
    const tiles = known && known.tiles ? known.tiles : h("div", { class: "tiles" });
    const wanted = sample.videos.length ? sample.videos : sample.sheet ? ["sheet.png"] : [];
    while (tiles.children.length > wanted.length) tiles.lastChild.remove();
    wanted.forEach((file, index) => {
      const tile = tiles.children[index] || tiles.appendChild(h("figure", { class: "sample", tabIndex: 0 }, h("div", { class: "screen" }), h("figcaption", {})));
      const said = run.row.kind === "vae" ? "left: the clip; right: after the VAE" : sample.captions[index] || "no caption";
      tile.querySelector("figcaption").textContent = said;
      this.fill(tile, this.address(run, sample, file), file.endsWith(".png") ? "every frame of the samples" : `sample ${index + 1}: ${said}`);
    });
    if (!wanted.length) tiles.replaceChildren(h("p", { class: "muted" }, "the folder of this step is empty"));
    return tiles;
  }

  fill(tile, address, name) {
    if (tile.dataset.address === address) return;
    tile.dataset.address = address;
    const screen = tile.querySelector(".screen");
    const swap = (element) => { if (tile.dataset.address === address) screen.replaceChildren(element); };
    if (address.endsWith("sheet.png")) { swap(h("img", { src: address, alt: name, loading: "lazy" })); return; }
    const video = h("video", { src: address, muted: true, loop: true, playsInline: true, preload: "auto", "aria-label": name });
    video.addEventListener("loadeddata", () => { swap(video); if (this.moving) start(video); }, { once: true });
    video.addEventListener("error", () => swap(h("p", { class: "muted" }, "this file is no video that can be played")), { once: true });
    tile.onmouseenter = tile.onfocus = () => start(video);
    tile.onmouseleave = tile.onblur = () => { if (!this.moving) video.pause(); };
    if (!screen.children.length) screen.replaceChildren(video);
  }

  address(run, sample, file) { return `/api/runs/file?${query(run.row)}&step=${sample.name}&file=${encodeURIComponent(file)}`; }
}

function start(video) {
  const playing = video.play();
  if (playing) playing.catch(() => {});  // taken away meanwhile
}
