import { h, size, calm, svg, unique } from "../lib/dom.js";
import { get, post } from "../lib/api.js";
import { icon } from "../lib/icons.js";
import { plain, span } from "../lib/figures.js";
import { trying } from "../lib/toast.js";
import { Actions } from "./actions.js";

const WIDE = 1000;

// One clip, large: played, with the windows that training cuts of it, the crop, what is done in it, and what can be mended.
export class Viewer {
  constructor({ page, signal }) {
    Object.assign(this, { page, signal });
    this.picture = h("div", { class: "picture" });
    this.crop = h("div", { class: "crop", hidden: true, title: "the part that training sees" });
    this.actions = new Actions();
    this.stage = h("div", { class: "stage" }, h("div", { class: "frame" }, this.picture, this.crop, this.actions.element));
    this.slider = h("input", { type: "range", min: 0, max: 0, step: 1, value: 0, "aria-label": "frame", oninput: () => this.seek(Number(this.slider.value)) });
    this.frame = h("output", { class: "numbers muted" });
    this.toggle = h("button", { class: "quiet icon", onclick: () => this.play(this.video.paused) });
    this.before = h("button", { class: "quiet icon", "aria-label": "the one before", onclick: () => this.move(-1) }, icon("left"));
    this.after = h("button", { class: "quiet icon", "aria-label": "the next one", onclick: () => this.move(1) }, icon("right"));
    this.strip = svg("svg", { class: "windows", viewBox: `0 0 ${WIDE} 40`, preserveAspectRatio: "none", role: "img" });
    this.cut = h("p", { class: "muted numbers" });
    this.side = h("div", { class: "side" });
    this.dialog = h("dialog", { class: "clip-viewer", "aria-label": "a clip" },
      h("div", { class: "shown" }, this.stage, h("div", { class: "transport" }, this.before, this.toggle, this.slider, this.frame, this.after), h("div", { class: "cut" }, this.strip, this.cut)), this.side);
    this.dialog.addEventListener("keydown", (event) => this.key(event));
    this.dialog.addEventListener("click", (event) => { if (event.target === this.dialog) this.dialog.close(); });
    this.dialog.addEventListener("close", () => { this.stop(); this.page.address(); if (this.index !== undefined) this.page.wall.focus(this.index); });
    const tick = () => { if (signal.aborted) return; requestAnimationFrame(tick); if (this.dialog.open) this.follow(); };
    requestAnimationFrame(tick);
    signal.addEventListener("abort", () => this.dialog.remove());
  }

  get url() { return new URLSearchParams({ set: this.page.ref, name: this.name }); }

  get fps() { return (this.item && this.item.info && this.item.info.fps) || 16; }

  async open(name, index) {
    Object.assign(this, { name, index, item: null });
    if (!this.dialog.isConnected) document.body.append(this.dialog);
    if (!this.dialog.open) this.dialog.showModal();
    this.page.address(name);
    this.stop();
    this.actions.show(null);
    this.side.replaceChildren(h("p", { class: "muted" }, "…"));
    const item = await trying(() => get(`/api/data/clip?${this.url}`));
    if (this.name !== name) return;
    if (!item) { this.dialog.close(); return; }
    this.show(item);
    if (item.actions && item.info) {
      const told = await get(`/api/data/actions?${this.url}`).catch((error) => ({ error: error.message }));
      if (this.name !== name) return;
      if (told.error) this.trouble(told.error); else this.actions.show(told);
    }
  }

  // The same clip, told anew: something was mended.
  async again() {
    if (!this.dialog.open || !this.name) return;
    const name = this.name, item = await get(`/api/data/clip?${this.url}`).catch(() => null);
    if (item && this.name === name) { this.item = item; this.draw(); }
  }

  show(item) {
    this.item = item;
    const { info } = item;
    this.stage.style.setProperty("--ratio", info ? `${info.width} / ${info.height}` : "4 / 3");
    const still = item.refused || !info || info.kind === "image";
    this.video = null;
    if (item.refused) this.picture.replaceChildren(h("img", { src: `/api/data/thumb?${this.url}`, alt: "what it looked like, small and grey", onerror: () => this.picture.replaceChildren(h("p", { class: "muted" }, "no picture of it is kept")) }));
    else if (!info) this.picture.replaceChildren(h("p", { class: "muted" }, "cannot be read"));
    else if (still) this.picture.replaceChildren(h("img", { src: `/api/data/picture?${this.url}`, alt: item.caption || item.name }));
    else this.load(`/api/data/video?${this.url}`, `/api/data/preview?${this.url}`);
    this.slider.max = still ? 0 : Math.max(0, info.num_frames - 1);
    this.slider.disabled = this.toggle.disabled = still;
    this.frame.textContent = "";
    this.after.disabled = this.before.disabled = this.index === undefined;
    this.draw();
    this.windows();
  }

  load(address, otherwise) {
    const video = this.video = h("video", { src: address, muted: true, loop: true, playsInline: true, tabIndex: -1, class: this.item.info.width <= 128 ? "sharp" : "" });
    video.addEventListener("error", () => { if (this.video === video) { if (otherwise) this.load(otherwise, null); else this.picture.replaceChildren(h("p", { class: "muted" }, "the browser cannot play it")); } });
    for (const name of ["play", "pause"]) video.addEventListener(name, () => this.paused());
    this.picture.replaceChildren(video);
    this.play(!calm());
  }

  stop() { if (this.video) { this.video.pause(); this.video.removeAttribute("src"); this.video.load(); this.video = null; } this.picture.replaceChildren(); this.crop.hidden = true; }

  play(on) { if (!this.video) return; if (on) this.video.play().catch(() => {}); else this.video.pause(); this.paused(); }

  paused() {
    const still = !this.video || this.video.paused;
    this.toggle.replaceChildren(icon(still ? "start" : "pause"));
    this.toggle.setAttribute("aria-label", still ? "play" : "pause");
  }

  get at() { return this.video ? Math.min(Number(this.slider.max), Math.max(0, Math.floor(this.video.currentTime * this.fps + 0.01))) : 0; }

  seek(frame) { if (!this.video) return; this.play(false); this.video.currentTime = (frame + 0.5) / this.fps; }

  follow() {
    if (!this.video || !this.item || !this.item.info) return;
    const at = this.at;
    if (at === this.drawn) return;
    this.drawn = at;
    this.slider.value = at;
    this.frame.textContent = `${at + 1} / ${Number(this.slider.max) + 1}`;
    this.actions.draw(at);
    if (this.needle) this.needle.setAttribute("x", (WIDE * at) / Math.max(1, Number(this.slider.max) + 1));
  }

  async move(by) {
    const { wall } = this.page, index = this.index + by;
    if (this.index === undefined || index < 0 || index >= wall.total) return;
    if (!wall.items.has(index)) await wall.page(Math.floor(index / 60));
    const item = wall.items.get(index);
    if (item) this.open(item.name, index);
  }

  key(event) {
    if (event.target.matches("input, textarea, select")) return;
    const keys = { ArrowLeft: () => this.move(-1), ArrowRight: () => this.move(1), " ": () => this.play(this.video && this.video.paused), ",": () => this.seek(Math.max(0, this.at - 1)), ".": () => this.seek(Math.min(Number(this.slider.max), this.at + 1)) };
    if (!(event.key in keys) || (event.key === " " && event.target.matches("button, summary, a"))) return;
    event.preventDefault();
    keys[event.key]();
  }

  // -------------------- windows

  async windows() {
    if (!this.dialog.open || !this.item) return;
    this.strip.replaceChildren();
    this.crop.hidden = true;
    this.needle = null;
    this.cut.textContent = "";
    const clip = this.page.shape.value;
    if (!this.item.info || !clip) return;
    const name = this.name, told = await post("/api/data/windows", { set: this.page.ref, name, clip }).catch((error) => ({ error: error.message }));
    if (this.name !== name) return;
    if (told.error || !told.bucket) { this.cut.textContent = told.error || `no window: ${told.why}`; return; }
    const length = told.length || told.seconds, to = (seconds) => (WIDE * seconds) / length;
    const lanes = Math.min(6, Math.max(1, told.starts.filter((start) => start < told.seconds).length));  // windows that overlap lie under one another
    const high = 34 / lanes;
    this.strip.replaceChildren(...told.starts.slice(0, 1500).map((start, number) => svg("rect", { class: number % 2 ? "odd" : "even", x: to(start), y: 3 + (number % lanes) * high, width: Math.max(1, Math.min(to(told.seconds), WIDE - to(start)) - 2), height: Math.max(1, high - 2), rx: 2 })),
      this.needle = svg("rect", { class: "needle", x: 0, y: 0, width: 2, height: 40 }));
    this.strip.setAttribute("aria-label", `${told.count} windows`);
    this.drawn = -1;
    const last = told.starts.length ? told.starts[told.starts.length - 1] + told.seconds : 0, rest = Math.max(0, length - last);
    this.cut.textContent = `${told.count} ${told.count === 1 ? "window" : "windows"} of ${told.bucket.replaceAll("x", " × ")}, ${span(told.seconds)} each; ${rest > 0.02 && this.item.info.kind === "video" ? `${span(rest)} at the end is in none; ` : ""}${told.scale === 1 ? "pixels as they are" : `pixels ${told.scale > 1 ? "enlarged" : "shrunk"} by ${plain(told.scale > 1 ? told.scale : 1 / told.scale)}`}`;
    const [x, y, width, height] = told.crop;
    for (const [side, value] of [["left", x], ["top", y], ["width", width], ["height", height]]) this.crop.style.setProperty(side, `${100 * value}%`);
    this.crop.hidden = width > 0.999 && height > 0.999;
  }

  // -------------------- what is known, and what can be mended

  trouble(line) { this.side.querySelector(".troubles")?.append(h("li", { class: "bad" }, line)); }

  draw() {
    const { item, page } = this, { info } = item;
    const caption = h("textarea", { id: unique("caption"), rows: 3, maxLength: 20000, value: item.caption, disabled: Boolean(item.refused) });
    const save = h("button", { class: "small primary", disabled: true, onclick: () => page.setCaption(item.name, caption.value) }, icon("check"), "Write it");
    caption.addEventListener("input", () => { save.disabled = caption.value.trim() === item.caption; });
    caption.addEventListener("keydown", (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !save.disabled) save.click(); });
    const reason = h("input", { "aria-label": "why it goes into quarantine", placeholder: "why, in a word", maxLength: 200 });
    const facts = [
      ["file", item.refused ? null : item.name], ["source", item.source], ["of the source", item.from && `${span(item.from[0])} to ${span(item.from[1])}`], ["size", info && `${info.width} × ${info.height}`],
      ["frames", info && info.kind === "video" && `${info.num_frames} at ${plain(info.fps)} a second`], ["length", item.seconds && span(item.seconds)], ["kept as", info && `${info.codec}, ${info.pixel_format}`], ["bytes", item.bytes && size(item.bytes)],
      ...Object.entries(item.figures || {}).map(([name, value]) => [name, value === -1 ? "too short to tell" : plain(value)]),
    ];
    this.side.replaceChildren(
      h("header", { class: "row spread" }, h("h2", {}, item.caption || item.name.split("/").pop()), h("button", { class: "quiet icon", "aria-label": "close", onclick: () => this.dialog.close() }, icon("close"))),
      h("ul", { class: "troubles" },
        item.refused && h("li", { class: "warn" }, `not kept: ${item.refused}`),
        item.quarantine !== null && h("li", { class: "warn" }, `in quarantine: ${item.quarantine}`),
        item.troubles.map(([kind, why]) => h("li", { class: "warn" }, why ? `${kind}: ${why}` : kind)), item.remarks.map((line) => h("li", { class: "muted" }, line))),
      item.refused ? "" : h("div", { class: "field" }, h("label", { for: caption.id }, "Caption"), caption, h("div", { class: "row spread" }, save, h("span", { class: "help" }, "where the folder keeps it"))),
      (item.changes || []).length > 0 ? h("ul", { class: "notes" }, item.changes.map(([time, text]) => h("li", {}, `from ${span(time)}: ${text}`))) : "",
      item.refused ? "" : item.quarantine !== null ? h("button", { class: "small", onclick: () => page.quarantine([item.name], null) }, icon("again"), "Out of quarantine")
        : h("div", { class: "row joined" }, reason, h("button", { class: "small danger", onclick: () => page.quarantine([item.name], reason.value.trim() ? `by hand: ${reason.value.trim()}` : "by hand") }, icon("trash"), "Into quarantine")),
      h("dl", { class: "facts" }, facts.filter(([, value]) => value !== null && value !== undefined && value !== false && value !== "" && value !== 0).map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, String(value))))));
  }
}
