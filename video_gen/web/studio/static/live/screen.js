import { h } from "../lib/dom.js";

// The stream's picture: blocks come as pictures of frames side by side, and are shown frame after frame at their own rate.
const SIZE = 24, LATE = 2;  // seconds of video that may wait; what is more is passed over

export class Screen {
  constructor(signal, told) {
    this.told = told;  // (seconds) of the frame that is shown
    this.canvas = h("canvas", { width: 64, height: 64, role: "img", "aria-label": "the stream" });
    this.context = this.canvas.getContext("2d");
    this.waiting = [];
    this.tries = 0;
    this.shown = 0;
    signal.addEventListener("abort", () => { this.gone = true; if (this.socket) this.socket.close(); });
    this.connect();
    requestAnimationFrame((now) => this.draw(now));
  }

  connect() {
    if (this.gone) return;
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    this.socket = new WebSocket(`${scheme}://${location.host}/api/live/frames`);
    this.socket.binaryType = "arraybuffer";
    this.order = Promise.resolve();
    this.socket.onopen = () => { this.tries = 0; };
    this.socket.onmessage = (event) => { this.order = this.order.then(() => this.take(event.data)); };
    this.socket.onclose = () => { if (!this.gone) setTimeout(() => this.connect(), Math.min(250 * 2 ** this.tries++, 4000)); };
  }

  async take(buffer) {
    const view = new DataView(buffer), number = view.getUint32(0, true), fps = view.getFloat32(4, true), seconds = view.getFloat64(8, true);
    const [frames, height, width] = [16, 18, 20].map((at) => view.getUint16(at, true));
    const sheet = await createImageBitmap(new Blob([new Uint8Array(buffer, SIZE)]));
    if (number <= this.last) this.waiting = [];  // another stream, or an earlier point
    this.last = number;
    for (let i = 0; i < frames; i += 1) this.waiting.push({ sheet, i, width, height, fps, seconds: seconds + i / fps, end: i === frames - 1 });
    while (this.waiting.length > Math.max(frames, LATE * fps)) this.let(this.waiting.shift());
  }

  let(frame) { if (frame.end) frame.sheet.close(); }

  draw(now) {
    if (this.gone) return;
    const next = this.waiting[0];
    if (next && now >= (this.due || 0)) {
      this.waiting.shift();
      const { canvas } = this;
      if (canvas.width !== next.width || canvas.height !== next.height) Object.assign(canvas, { width: next.width, height: next.height });
      this.context.drawImage(next.sheet, next.i * next.width, 0, next.width, next.height, 0, 0, next.width, next.height);
      this.let(next);
      this.due = Math.max((this.due || now) + 1000 / next.fps, now - 50);
      this.shown += 1;
      this.told(next.seconds);
    }
    requestAnimationFrame((then) => this.draw(then));
  }

  // What was made before a change of place is not to be seen any more.
  clear() { this.waiting.forEach((frame) => this.let(frame)); this.waiting = []; }
}

