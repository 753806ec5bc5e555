import { h } from "./dom.js";

// Thousands of tiles of one size, of which only those near the window are there.
//   const wall = new Wall({ draw: (item, index) => element, fetch: async (start, count) => ({ total, items }), label }, signal)
// `wall.element` goes into the page; `wall.reload()` when something came or went; `wall.setWidth(px)` for tiles of another size.
const PAGE = 60, AROUND = 2;

export class Wall {
  constructor({ draw, fetch, label, width = 176, extra = 44, empty = "nothing here" }, signal) {
    Object.assign(this, { draw, fetch, signal, width, extra, empty });
    this.element = h("div", { class: "wall", role: "list", "aria-label": label });
    this.note = h("p", { class: "empty", hidden: true });
    this.total = null;
    this.items = new Map();      // index to item
    this.asked = new Set();      // pages that are under way, or here
    this.tiles = new Map();      // index to element
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
    const wide = (room - gap * (columns - 1)) / columns, high = Math.round(wide + this.extra);
    const rows = Math.ceil(this.total / columns), step = high + gap;
    this.element.style.height = `${Math.max(0, rows * step - gap)}px`;
    const top = -this.element.getBoundingClientRect().top;
    const from = Math.max(0, Math.floor(top / step) - AROUND), to = Math.min(rows, Math.ceil((top + innerHeight) / step) + AROUND);
    this.first = from * columns;
    const last = Math.min(this.total, to * columns);
    if (this.redraw) { for (const tile of this.tiles.values()) tile.remove(); this.tiles.clear(); this.redraw = false; }
    for (const [index, tile] of this.tiles) {
      if (index < this.first || index >= last) { if (!tile.contains(document.activeElement)) { tile.remove(); this.tiles.delete(index); } }
    }
    let missing = null;
    const fresh = [];
    for (let index = this.first; index < last; index += 1) {
      let tile = this.tiles.get(index);
      if (!tile) {
        const item = this.items.get(index);
        if (!item) { missing = missing ?? new Set(); missing.add(Math.floor(index / PAGE)); continue; }
        tile = this.draw(item, index);
        tile.setAttribute("role", "listitem");
        tile.setAttribute("aria-posinset", index + 1);
        tile.dataset.index = index;
        this.tiles.set(index, tile);
        fresh.push(tile);
      }
      tile.setAttribute("aria-setsize", this.total);
      const style = `translate(${Math.round((index % columns) * (wide + gap))}px, ${Math.floor(index / columns) * step}px)`;
      if (tile.style.transform !== style) tile.style.transform = style;
      tile.style.width = `${wide}px`;
      tile.style.height = `${high}px`;
    }
    for (const tile of fresh) {  // in the order of their numbers, for whoever goes through them by keyboard
      const after = [...this.element.children].find((other) => Number(other.dataset.index) > Number(tile.dataset.index));
      this.element.insertBefore(tile, after || null);
    }
    if (missing) for (const number of missing) this.page(number).catch(() => {});
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
