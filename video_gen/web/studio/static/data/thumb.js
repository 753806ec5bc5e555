import { h } from "../lib/dom.js";

// A moving thumbnail: frames side by side in one picture, pushed on by a style sheet. One frame alone stands still.
export class Thumb {
  constructor(set, item) {
    const image = h("img", { alt: "", decoding: "async", draggable: false });
    this.element = h("span", { class: "thumb" }, image);
    image.addEventListener("load", () => this.element.classList.add(image.naturalWidth > 3 * image.naturalHeight ? "strip" : "still"));
    image.addEventListener("error", () => { image.remove(); this.element.append(h("span", { class: "muted" }, item.refused ? "no picture is kept" : "cannot be read")); });
    image.src = `/api/data/thumb?${new URLSearchParams({ set, name: item.name, v: item.v })}`;
  }
}
