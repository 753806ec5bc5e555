import { h, size, calm } from "../lib/dom.js";
import { icon } from "../lib/icons.js";
import { get, post } from "../lib/api.js";
import { toast, trying } from "../lib/toast.js";
import { named, small } from "./gallery.js";
import { shown, words } from "./fields.js";

// One result, large: played, frame by frame, with its settings and what can be done with it.
export class Viewer {
  constructor(gallery, signal) {
    this.gallery = gallery;
    this.video = h("video", { muted: true, loop: true, playsInline: true, tabIndex: -1 });
    this.slider = h("input", { type: "range", min: 0, max: 0, step: 1, value: 0, "aria-label": "frame", oninput: () => this.seek(Number(this.slider.value)) });
    this.frame = h("output", { class: "numbers muted" });
    this.toggle = h("button", { class: "quiet icon", onclick: () => this.play(this.video.paused) });
    this.side = h("div", { class: "side" });
    this.before = h("button", { class: "quiet icon", "aria-label": "the newer one", onclick: () => this.move(-1) }, icon("left"));
    this.after = h("button", { class: "quiet icon", "aria-label": "the older one", onclick: () => this.move(1) }, icon("right"));
    this.stage = h("div", { class: "stage" }, this.video);
    this.dialog = h("dialog", { class: "viewer", "aria-label": "a result" },
      h("div", { class: "shown" }, this.stage, h("div", { class: "transport" }, this.before, this.toggle, this.slider, this.frame, this.after)), this.side);
    this.dialog.addEventListener("keydown", (event) => this.key(event));
    this.dialog.addEventListener("close", () => { this.video.removeAttribute("src"); this.video.load(); if (!signal.aborted) this.gallery.wall.focus(this.index); });
    this.dialog.addEventListener("click", (event) => { if (event.target === this.dialog) this.dialog.close(); });
    for (const name of ["play", "pause"]) this.video.addEventListener(name, () => this.paused());
    const tick = () => { if (signal.aborted) return; requestAnimationFrame(tick); if (this.dialog.open && !this.video.paused) this.tell(); };
    requestAnimationFrame(tick);
    this.video.addEventListener("seeked", () => this.tell());
    signal.addEventListener("abort", () => this.dialog.remove());
  }

  get fps() { return this.item.fps || 16; }

  async open(index) {
    const item = this.gallery.wall.items.get(index);
    if (!item) return;
    Object.assign(this, { index, item });
    if (!this.dialog.isConnected) document.body.append(this.dialog);
    this.video.classList.toggle("sharp", Boolean(small(item)));
    this.stage.style.setProperty("--ratio", `${item.width || 1} / ${item.height || 1}`);
    this.video.src = named("video", item);
    this.slider.max = Math.max(0, (item.frames || 1) - 1);
    this.before.disabled = index <= 0;
    this.after.disabled = index >= this.gallery.wall.total - 1;
    if (!this.dialog.open) this.dialog.showModal();
    this.play(!calm());
    this.side.replaceChildren(h("p", { class: "muted" }, "…"));
    const told = await trying(() => get(`/api/results/item?name=${encodeURIComponent(item.name)}`));
    if (told && this.item === item) this.draw(told);
  }

  async move(by) {
    const wall = this.gallery.wall, index = this.index + by;
    if (index < 0 || index >= wall.total) return;
    if (!wall.items.has(index)) await wall.page(Math.floor(index / 60));
    this.open(index);
  }

  draw(told) {
    const { item } = this, own = (told.facts.studio || {}).options || {};
    const button = (glyph, text, what, kind = "") => h("button", { class: `small ${kind}`, onclick: what }, icon(glyph), text);
    const facts = [["model", item.model], ["seed", item.seed], ["size", item.width && `${item.width} × ${item.height}`], ["frames", item.frames && `${item.frames} at ${shown(item.fps)} a second`], ["made in", told.facts.studio && `${told.facts.studio.took} s`], ["file", size(item.bytes)]];
    const set = Object.entries(own).filter(([name]) => !["prompt", "model", "seed"].includes(name));
    this.side.replaceChildren(
      h("header", { class: "row spread" }, h("h2", {}, item.prompt || "no prompt"), h("button", { class: "quiet icon", "aria-label": "close", onclick: () => this.dialog.close() }, icon("close"))),
      h("div", { class: "row" }, button("again", "Next seed", () => this.again(own), "primary"), button("create", "Into the form", () => this.reuse(own))),
      h("h3", {}, "Use it"),
      h("div", { class: "row" }, button("image", "This frame first", () => this.still("image")), button("image", "This frame last", () => this.still("last_image")), button("video", "Go on from it", () => this.give("video")), button("again", "Change it", () => this.give("source"))),
      h("h3", {}, "Keep it"),
      h("div", { class: "row" }, h("a", { class: "button small", href: named("video", item, "&download=1"), download: "" }, icon("download"), "Download"),
        told.command && button("copy", "Command", () => this.copy(told.command, "the command line")), told.python && button("copy", "Python", () => this.copy(told.python, "the Python program")),
        button("trash", "Delete", () => this.remove(), "danger")),
      h("dl", { class: "facts" }, facts.filter(([, value]) => value !== null && value !== undefined && value !== false).map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, String(value))))),
      set.length > 0 && h("h3", {}, "Settings that were said"),
      set.length > 0 && h("dl", { class: "facts" }, set.map(([name, value]) => h("div", {}, h("dt", {}, words(name)), h("dd", {}, shown(value).split("/").pop())))),
      told.command && h("details", {}, h("summary", {}, "the command line that makes the same file"), h("pre", { tabIndex: 0, "aria-label": "command line" }, told.command)),
      told.python && h("details", {}, h("summary", {}, "the Python"), h("pre", { tabIndex: 0, "aria-label": "Python" }, told.python)),
      h("details", {}, h("summary", {}, "everything its file says"), h("dl", { class: "facts" }, Object.entries(told.facts).filter(([name]) => name !== "studio").map(([name, value]) => h("div", {}, h("dt", {}, words(name)), h("dd", {}, shown(value)))))));
  }

  play(on) { if (on) this.video.play().catch(() => {}); else this.video.pause(); this.paused(); }

  paused() {
    this.toggle.replaceChildren(icon(this.video.paused ? "start" : "pause"));
    this.toggle.setAttribute("aria-label", this.video.paused ? "play" : "pause");
  }

  get at() { return Math.min(Number(this.slider.max), Math.max(0, Math.floor(this.video.currentTime * this.fps + 0.01))); }

  tell() {
    this.slider.value = this.at;
    this.frame.textContent = `${this.at + 1} / ${Number(this.slider.max) + 1}`;
  }

  seek(frame) { this.play(false); this.video.currentTime = (frame + 0.5) / this.fps; }

  key(event) {
    if (event.target.matches("input, pre")) return;
    const keys = { ArrowLeft: () => this.move(-1), ArrowRight: () => this.move(1), " ": () => this.play(this.video.paused), ",": () => this.seek(Math.max(0, this.at - 1)), ".": () => this.seek(Math.min(Number(this.slider.max), this.at + 1)), Delete: () => this.remove() };
    if (!(event.key in keys) || (event.key === " " && event.target.matches("button, summary, a"))) return;
    event.preventDefault();
    keys[event.key]();
  }

  // Files of the options are paths here; a page knows them by what it sent or made.
  values(own) {
    const known = (path) => {
      const name = path.split(/[\\/]/).pop();
      return /[\\/]uploads[\\/][^\\/]+$/.test(path) ? `upload:${name}` : /[\\/]results[\\/][^\\/]+\.mp4$/.test(path) ? `result:${name.replace(/\.mp4$/, "")}` : undefined;
    };
    return Object.fromEntries(Object.entries(own).map(([name, value]) => [name, ["image", "video", "last_image", "source"].includes(name) ? known(value) : value]));
  }

  async again(own) {
    const values = { ...this.values(own), seed: (this.item.seed || 0) + 1, model: own.model || this.item.model };
    if (await trying(() => post("/api/jobs", values))) toast(`seed ${values.seed} is in the queue`);
  }

  async reuse(own) { this.dialog.close(); await this.gallery.form.take({ ...this.values(own), model: own.model || this.item.model }); scrollTo({ top: 0 }); }

  give(name) {
    this.gallery.form.slots.set(name, { reference: `result:${this.item.name}`, name: this.item.name, poster: named("poster", this.item) });
    this.dialog.close();
    scrollTo({ top: 0 });
  }

  async still(name) {
    const made = await trying(() => post("/api/uploads/frame", { result: this.item.name, frame: this.at }));
    if (!made) return;
    this.gallery.form.slots.set(name, { reference: `upload:${made.id}`, name: made.name, poster: `/api/uploads/poster?id=${made.id}` });
    this.dialog.close();
    scrollTo({ top: 0 });
  }

  async copy(text, what) { await navigator.clipboard.writeText(text); toast(`${what} is copied`); }

  async remove() { if (await this.gallery.remove([this.item])) this.dialog.close(); }
}
