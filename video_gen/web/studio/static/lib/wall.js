import { h } from "./dom.js";

// Thousands of tiles of one size, of which only those near the window are there.
//   const wall = new Wall({ draw: (item, index) => element, fetch: async (start, count) => ({ total, items }), label }, signal)
// `wall.element` goes into the page; `wall.reload()` when something came or went; `wall.setWidth(px)` for tiles of another size.
const PAGE = 60, AROUND = 2;

export class Wall {
  constructor({ draw, fetch, label, width = 176, extra = 44, empty = "nothing here" }, signal) {
    Object.assign(this, { draw, fetch, signal, width, extra, empty });
    this.places = h("div", { class: "places", "aria-hidden": "true", hidden: true });  // what is painted where tiles are to come
    this.element = h("div", { class: "wall", role: "list", "aria-label": label }, this.places);
    this.note = h("p", { class: "empty", hidden: true });
    this.total = null;
    this.items = new Map();      // index to item
    this.asked = new Set();      // pages that are under way, or here
    this.tiles = new Map();      // index to element
    this.drawn = new WeakMap();  // element to its item
    this.version = 0;
    this.planned = false;
    const plan = () => this.plan();
    addEventListener("scroll", plan, { signal, passive: true });
    addEventListener("resize", plan, { signal });
    this.element.addEventListener("keydown", (event) => this.key(event), { signal });
    const observer = new ResizeObserver(plan);
    observer.observe(this.element);
    signal.addEventListener("abort", () => observer.disconnect());
  }

  async reload() {
    this.version += 1;
    this.asked.clear();
    this.stale = true;   // what is shown stays until the new pages are here
    await this.page(Math.floor(Math.max(0, this.first || 0) / PAGE));
    this.plan();
  }

  setWidth(width) { this.width = width; this.plan(); }

  async page(number) {
    if (this.asked.has(number)) return;
    this.asked.add(number);
    const version = this.version;
    let told;
    try {
      told = await this.fetch(number * PAGE, PAGE);
    } catch (error) {
      this.asked.delete(number);
      if (error.name !== "AbortError" && version === this.version) throw error;
      return;
    }
    if (version !== this.version) return;
    if (this.stale) { this.items.clear(); this.stale = false; this.redraw = true; }
    this.total = told.total;
    told.items.forEach((item, at) => this.items.set(number * PAGE + at, item));
    this.plan();
  }

  plan() {
    if (this.planned) return;
    this.planned = true;
    requestAnimationFrame(() => { this.planned = false; if (!this.signal.aborted) this.show(); });
  }

  show() {
    if (this.total === null) return;
    this.note.hidden = this.total > 0;
    this.note.textContent = this.empty;
    const gap = 10, room = this.element.clientWidth;
    if (!room) return;
    const columns = this.columns = Math.max(room < 460 && this.width < 200 ? 2 : 1, Math.floor((room + gap) / (this.width + gap)));
    const wide = (room - gap * (columns - 1)) / columns, high = Math.round(wide + this.extra), step = high + gap;
    this.measure(wide, high, gap);
    const top = -this.element.getBoundingClientRect().top, gone = Math.abs(top - (this.top ?? top));
    this.top = top;
    this.places.style.transform = `translateY(${Math.max(0, Math.min(Math.floor(top / step), Math.floor(this.total / columns) - this.shown) * step)}px)`;
    if (gone > innerHeight / 4) { this.places.hidden = false; this.plan(); return; }  // nobody sees what flies past: tiles come when it is slower
    const from = Math.max(0, Math.floor(top / step) - AROUND), to = Math.min(Math.ceil(this.total / columns), Math.ceil((top + innerHeight) / step) + AROUND);
    this.first = from * columns;
    const last = Math.min(this.total, to * columns);
    if (this.redraw) { for (const index of this.tiles.keys()) this.drop(index); this.redraw = false; }
    for (const [index, tile] of this.tiles) {
      if ((index < this.first || index >= last) && !tile.contains(document.activeElement)) this.drop(index);
    }
    const missing = new Set();
    let next = this.places.nextSibling;  // tiles stand in the order of their numbers, for whoever goes through them by keyboard
    for (let index = this.first; index < last; index += 1) {
      while (next && Number(next.dataset.index) < index) next = next.nextSibling;
      let tile = this.tiles.get(index);
      if (!tile) {
        const item = this.items.get(index);
        if (!item) { missing.add(Math.floor(index / PAGE)); continue; }
        tile = this.draw(item, index);
        tile.setAttribute("role", "listitem");
        tile.setAttribute("aria-posinset", index + 1);
        tile.setAttribute("aria-setsize", this.total);
        tile.dataset.index = index;
        this.tiles.set(index, tile);
        this.drawn.set(tile, item);
        this.element.insertBefore(tile, next);
      }
      const style = `translate(${Math.round((index % columns) * (wide + gap))}px, ${Math.floor(index / columns) * step}px)`;
      if (tile.style.transform !== style) tile.style.transform = style;
    }
    this.places.hidden = !missing.size;
    for (const number of missing) this.page(number).catch(() => {});
  }

  drop(index) {
    const tile = this.tiles.get(index);
    for (const image of tile.querySelectorAll("img")) if (!image.complete) image.removeAttribute("src");  // nobody waits for it any more
    tile.remove();
    this.tiles.delete(index);
  }

  // The size of the whole, of a tile, and of as many empty places as there is room for, where it has changed.
  measure(wide, high, gap) {
    const rows = this.total / this.columns, step = high + gap, size = `${wide} ${high} ${this.total} ${innerHeight}`;
    if (size === this.size) return;
    this.size = size;
    this.shown = Math.min(Math.floor(rows), Math.ceil(innerHeight / step) + 1);
    const sizes = { "--wide": wide, "--high": high, "--extra": this.extra, "--places": Math.max(0, this.shown * step - gap) };
    for (const [name, pixels] of Object.entries(sizes)) this.element.style.setProperty(name, `${pixels}px`);
    this.element.style.height = `${Math.max(0, Math.ceil(rows) * step - gap)}px`;
    for (const tile of this.tiles.values()) tile.setAttribute("aria-setsize", this.total);
  }

  // Arrows move among the tiles, also to those that are not there yet.
  async key(event) {
    const moves = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -this.columns, ArrowDown: this.columns, Home: -Infinity, End: Infinity };
    const tile = event.target.closest("[data-index]");
    if (!tile || !(event.key in moves) || event.target.matches("input, select, textarea") || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const index = Math.min(this.total - 1, Math.max(0, Number(tile.dataset.index) + moves[event.key]));
    await this.focus(index);
  }

  async focus(index) {
    const step = this.tiles.values().next().value ? this.element.offsetHeight / Math.ceil(this.total / this.columns) : 0;
    const y = this.element.getBoundingClientRect().top + Math.floor(index / this.columns) * step;
    if (y < 60 || y + step > innerHeight) scrollBy({ top: y < 60 ? y - 70 : y + step - innerHeight + 10, behavior: "instant" });
    for (let tries = 0; tries < 60 && !this.tiles.has(index); tries += 1) { this.show(); await new Promise(requestAnimationFrame); }
    const tile = this.tiles.get(index);
    if (tile) (tile.querySelector("[data-main]") || tile).focus({ preventScroll: true });
  }
}
