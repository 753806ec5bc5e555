import { h, ago, calm } from "../lib/dom.js";
import { icon } from "../lib/icons.js";
import { get, post } from "../lib/api.js";
import { hear } from "../lib/events.js";
import { toast, trying } from "../lib/toast.js";
import { Wall } from "../lib/wall.js";
import { Compare } from "./compare.js";
import { Bin } from "./bin.js";
import { Viewer } from "./viewer.js";

export const named = (place, item, more = "") => `/api/results/${place}?name=${encodeURIComponent(item.name)}&v=${item.v}${more}`;
const SIZES = [112, 176, 272];

// What was made, newest first. `gallery.form` is where results go that are used again.
export class Gallery {
  constructor(signal) {
    this.signal = signal;
    this.chosen = new Map();  // name to item
    this.words = "";
    this.wall = new Wall({
      draw: (item) => this.tile(item),
      fetch: (start, count) => get(`/api/results?start=${start}&count=${count}&words=${encodeURIComponent(this.words)}`, signal).then((told) => { this.counted(told.total); return told; }),
      label: "what was made", width: SIZES[Number(localStorage.getItem("tiles") ?? 1)] || SIZES[1],
    }, signal);
    for (const [on, what] of Object.entries(this.heard())) this.wall.element.addEventListener(on, what);  // once for all tiles
    this.number = h("span", { class: "muted numbers" });
    const search = h("input", { type: "search", placeholder: "prompt, model or name", "aria-label": "find results", oninput: () => this.find(search.value) });
    const size = h("button", { class: "quiet icon", "aria-label": "size of the pictures", title: "size of the pictures", onclick: () => this.resize() }, icon("data"));
    this.bin = new Bin(() => this.wall.reload(), signal);
    this.picked = h("div", { class: "picked row", role: "group", "aria-label": "chosen results", hidden: true });
    this.element = h("section", { class: "gallery", "aria-labelledby": "gallery-title" },
      h("header", { class: "row spread" }, h("div", { class: "row" }, h("h2", { id: "gallery-title" }, "Gallery"), this.number),
        h("div", { class: "row" }, h("div", { class: "search" }, icon("search"), search), size, h("button", { class: "quiet icon", "aria-label": "the bin", title: "the bin", onclick: () => this.bin.open() }, icon("trash")))),
      this.picked, this.wall.note, this.wall.element);
    this.viewer = new Viewer(this, signal);
    this.compare = new Compare(signal);
    hear("results", () => this.wall.reload(), signal);
    this.wall.reload();
  }

  counted(total) {
    this.number.textContent = total.toLocaleString("en");
    this.wall.empty = this.words ? "nothing holds these words" : "What you make appears here, newest first.";
  }

  find(words) {
    clearTimeout(this.finding);
    this.finding = setTimeout(() => { this.words = words; scrollTo({ top: Math.min(scrollY, this.element.offsetTop), behavior: "instant" }); this.wall.reload(); }, 150);
  }

  resize() {
    const at = (SIZES.indexOf(this.wall.width) + 1) % SIZES.length;
    localStorage.setItem("tiles", at);
    this.wall.setWidth(SIZES[at]);
  }

  tile(item) {
    const said = item.prompt || item.name, made = ago(item.made);
    return h("div", { class: "tile", draggable: true },
      h("label", { class: "pick" }, h("input", { type: "checkbox", "aria-label": `choose ${said}`, checked: this.chosen.has(item.name) })),
      h("button", { class: "shot", data: { main: "" }, "aria-label": `${said}, seed ${item.seed}, ${made}` },
        h("img", { src: named("poster", item), alt: "", decoding: "async", draggable: false, class: small(item) ? "sharp" : "" })),
      h("p", { class: "caption", title: item.prompt }, h("span", {}, said), h("small", { class: "muted numbers" }, `seed ${item.seed ?? "?"} · ${made}`)));
  }

  // What is done with a tile: events of the wall, by name.
  heard() {
    const of = (event) => { const tile = event.target.closest(".tile"); return tile && { tile, item: this.wall.drawn.get(tile) }; };
    const enter = (event) => { const on = of(event); if (on) this.move(on.tile, on.item); };
    const leave = (event) => { const on = of(event); if (on && !on.tile.contains(event.relatedTarget)) this.still(on.tile); };
    return {
      click: (event) => { if (event.target.closest(".shot")) this.viewer.open(Number(of(event).tile.dataset.index)); },
      change: (event) => this.choose(of(event).item, event.target.checked),
      dragstart: (event) => { const on = of(event); if (on) event.dataTransfer.setData("application/x-result", on.item.name); },
      pointerover: enter, focusin: enter, pointerout: leave, focusout: leave,
    };
  }

  // The video of a tile that is looked at.
  move(tile, item) {
    if (calm() || tile.querySelector("video")) return;
    tile.querySelector(".shot").append(h("video", { src: named("video", item), muted: true, loop: true, playsInline: true, autoplay: true, tabIndex: -1, "aria-hidden": "true", class: small(item) ? "sharp" : "", onerror: () => this.still(tile) }));
  }

  still(tile) { for (const video of tile.querySelectorAll("video")) video.remove(); }

  choose(item, on) {
    if (on) this.chosen.set(item.name, item); else this.chosen.delete(item.name);
    this.showChosen();
  }

  showChosen() {
    const many = this.chosen.size, items = [...this.chosen.values()];
    this.picked.hidden = !many;
    this.picked.replaceChildren(
      h("span", { class: "numbers" }, `${many} chosen`),
      h("button", { class: "small", disabled: many < 2 || many > 9, onclick: () => this.compare.open(items) }, icon("compare"), "Compare"),
      h("button", { class: "small danger", onclick: () => this.remove(items) }, icon("trash"), "Delete"),
      h("button", { class: "quiet small", onclick: () => { this.chosen.clear(); for (const box of this.element.querySelectorAll(".pick input")) box.checked = false; this.showChosen(); } }, "Clear"));
  }

  async remove(items) {
    const told = await trying(() => post("/api/results/delete", { names: items.map((item) => item.name) }));
    if (!told) return false;
    for (const item of items) this.chosen.delete(item.name);
    this.showChosen();
    this.wall.reload();
    toast(items.length === 1 ? "moved to the bin" : `${items.length} moved to the bin`, { action: async () => { if (await trying(() => post("/api/bin/restore", { ticket: told.ticket }))) this.wall.reload(); } });
    return true;
  }
}

// Pictures of few pixels are shown as such.
export const small = (item) => Math.max(item.width || 0, item.height || 0) <= 128 && item.width;
