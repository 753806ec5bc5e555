import { h, calm } from "../lib/dom.js";
import { icon } from "../lib/icons.js";
import { named, small } from "./gallery.js";

// Several results side by side, in step: every picture on the screen is that of the same moment of each.
// Frames are taken out of the videos first, since players drift; then one clock draws them all.
export class Compare {
  constructor(signal) {
    this.signal = signal;
    this.place = h("div", { class: "together" });
    this.slider = h("input", { type: "range", min: 0, max: 0, step: 1, value: 0, "aria-label": "moment", oninput: () => { this.playing = false; this.draw(Number(this.slider.value)); this.paused(); } });
    this.time = h("output", { class: "numbers muted" });
    this.toggle = h("button", { class: "quiet icon", onclick: () => { this.playing = !this.playing; this.since = performance.now() - (1000 * this.at) / this.fps; this.paused(); } });
    this.dialog = h("dialog", { class: "compare", "aria-label": "results side by side" },
      h("header", { class: "row spread" }, h("h2", {}, "Side by side"), h("button", { class: "quiet icon", "aria-label": "close", onclick: () => this.dialog.close() }, icon("close"))),
      this.place, h("div", { class: "transport" }, this.toggle, this.slider, this.time));
    this.dialog.addEventListener("close", () => { for (const clip of this.clips || []) clip.close(); this.clips = null; });
    this.dialog.addEventListener("click", (event) => { if (event.target === this.dialog) this.dialog.close(); });
    signal.addEventListener("abort", () => this.dialog.remove());
  }

  async open(items) {
    if (!this.dialog.isConnected) document.body.append(this.dialog);
    this.clips = items.map((item) => new Clip(item));
    this.place.replaceChildren(...this.clips.map((clip) => h("figure", {}, clip.canvas, h("figcaption", {}, h("span", {}, clip.item.prompt || clip.item.name), h("small", { class: "muted" }, `seed ${clip.item.seed ?? "?"} · ${clip.item.model || ""}`)))));
    this.dialog.showModal();
    this.fps = Math.max(...items.map((item) => item.fps || 16));
    const seconds = Math.max(...items.map((item) => (item.frames || 1) / (item.fps || 16)));
    this.count = Math.max(1, Math.round(seconds * this.fps));
    this.slider.max = this.count - 1;
    this.at = 0;
    const mine = this.clips;
    await Promise.all(mine.map((clip) => clip.load()));
    if (this.clips !== mine) return;
    this.playing = !calm();
    this.since = performance.now();
    this.paused();
    this.draw(0);
    const tick = (now) => {
      if (this.clips !== mine || this.signal.aborted) return;
      requestAnimationFrame(tick);
      if (this.playing) this.draw(Math.floor(((now - this.since) / 1000) * this.fps) % this.count);
    };
    requestAnimationFrame(tick);
  }

  draw(at) {
    this.at = at;
    for (const clip of this.clips || []) clip.draw(at / this.fps);
    this.slider.value = at;
    this.time.textContent = `${(at / this.fps).toFixed(2)} s`;
  }

  paused() {
    this.toggle.replaceChildren(icon(this.playing ? "pause" : "start"));
    this.toggle.setAttribute("aria-label", this.playing ? "pause" : "play");
  }
}

class Clip {
  constructor(item) {
    this.item = item;
    this.frames = [];
    this.canvas = h("canvas", { width: item.width || 64, height: item.height || 64, role: "img", "aria-label": item.prompt || item.name, class: small(item) ? "sharp" : "" });
    this.closed = false;
  }

  async load() {
    const video = h("video", { src: named("video", this.item), muted: true, preload: "auto" }), fps = this.item.fps || 16;
    const once = (name) => new Promise((resolve, reject) => { video.addEventListener(name, resolve, { once: true }); video.addEventListener("error", () => reject(new Error("cannot be played")), { once: true }); });
    try {
      await once("loadeddata");
      if (this.canvas.width !== video.videoWidth) Object.assign(this.canvas, { width: video.videoWidth, height: video.videoHeight });
      const count = this.item.frames || Math.max(1, Math.round(video.duration * fps));
      for (let frame = 0; frame < count && !this.closed; frame += 1) {
        const there = once("seeked");
        video.currentTime = (frame + 0.5) / fps;
        await there;
        this.frames.push(await createImageBitmap(video));
        if (frame === 0) this.draw(0);
      }
    } catch { /* what could be read is shown */ }
    video.removeAttribute("src");
    video.load();
  }

  draw(seconds) {
    const frame = this.frames[Math.min(this.frames.length - 1, Math.floor(seconds * (this.item.fps || 16) + 1e-6))];
    if (!frame || this.shown === frame) return;
    this.shown = frame;
    this.canvas.getContext("2d").drawImage(frame, 0, 0);
    this.canvas.dataset.frame = this.frames.indexOf(frame);
  }

  close() { this.closed = true; for (const frame of this.frames) frame.close(); this.frames = []; }
}
