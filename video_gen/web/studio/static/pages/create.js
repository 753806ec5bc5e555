import { h } from "../lib/dom.js";

export function mount(place, signal) {
  place.append(h("h1", {}, "Create"));
}
