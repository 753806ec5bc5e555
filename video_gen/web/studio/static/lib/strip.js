import { h, calm } from "./dom.js";

// A short video as one picture with its frames side by side, played round on a canvas.
export class Strip {
  constructor(label, signal) {
    this.element = h("canvas", { class: "strip", role: "img", "aria-label": label, width: 64, height: 64 });
    this.image = null;
    this.count = 0;
    this.fps = 8;
    const draw = (now) => {
      if (signal.aborted) return;
      requestAnimationFrame(draw);
      if (!this.image || document.hidden) return;
      const frame = calm() ? this.count - 1 : Math.floor((now / 1000) * this.fps) % this.count;
      if (frame === this.drawn) return;
      this.drawn = frame;
      const { width, height } = this.element;
      this.element.getContext("2d").drawImage(this.image, frame * width, 0, width, height, 0, 0, width, height);
    };
    requestAnimationFrame(draw);
  }

  // Show the strip at an address; until it has come, the one before stays. `seconds`: how long all of its frames last.
  async show(address, count, seconds = 2) {
    const image = new Image();
    image.src = address;
    try { await image.decode(); } catch { return; }
    const width = Math.round(image.width / count);
    if (this.element.width !== width || this.element.height !== image.height) Object.assign(this.element, { width, height: image.height });
    Object.assign(this, { image, count, fps: Math.min(24, Math.max(4, count / seconds)), drawn: -1 });
  }

  clear() { this.image = null; this.element.getContext("2d").clearRect(0, 0, this.element.width, this.element.height); }
}
