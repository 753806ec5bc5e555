// Data: folders of clips. The address holds what is looked at: ?set=root/name&words=..&trouble=..&clip=name.
import { h, size, calm } from "../lib/dom.js";
import { get, post } from "../lib/api.js";
import { hear } from "../lib/events.js";
import { icon } from "../lib/icons.js";
import { span, whole } from "../lib/figures.js";
import { toast, trying } from "../lib/toast.js";
import { Wall } from "../lib/wall.js";
import { Check } from "../data/check.js";
import { Shape } from "../data/shape.js";
import { Viewer } from "../data/viewer.js";
import { Thumb } from "../data/thumb.js";

const ASKED = ["words", "trouble", "source", "shape", "kind", "shortest", "longest", "sort"];
const SORTS = { name: "by name", longest: "longest first", shortest: "shortest first", largest: "largest first" };

export async function mount(place, signal) {
  const told = await get("/api/data/sets", signal);
  if (signal.aborted) return;
  const page = new Page(told, signal);
  place.append(page.element);
  await page.open(new URLSearchParams(location.search).get("set") || localStorage.getItem("data.set"));
}

class Page {
  constructor(told, signal) {
    Object.assign(this, { signal, sets: told.sets, chosen: new Map(), asked: {} });
    const search = new URLSearchParams(location.search);
    for (const name of ASKED) if (search.get(name)) this.asked[name] = search.get(name);
    this.clip = search.get("clip");
    this.pick = h("select", { "aria-label": "folder of clips", onchange: () => { this.asked = {}; this.open(this.pick.value); } },
      this.sets.map((one) => h("option", { value: one.ref }, one.prepared ? `${one.ref} (prepared)` : one.ref)));
    this.sum = h("p", { class: "muted numbers sum" });
    this.notes = h("ul", { class: "notes" });
    this.known = h("p", { class: "muted", role: "status", hidden: true });
    this.picked = h("div", { class: "picked row", role: "group", "aria-label": "chosen clips", hidden: true });
    this.number = h("span", { class: "muted numbers" });
    this.filters = this.drawFilters();
    this.moving = !calm() && localStorage.getItem("data.moving") !== "no";
    this.move = h("button", { class: "quiet small", "aria-pressed": String(this.moving), onclick: () => this.setMoving(!this.moving) }, icon("video"), "All move");
    this.wall = new Wall({
      draw: (item, index) => this.tile(item, index),
      fetch: (start, count) => this.clips(this.ref, start, count),
      label: "clips", width: 160, extra: 12, empty: "no clip is like that",
    }, signal);
    this.shape = new Shape({ changed: () => { this.countWindows(); this.viewer.windows(); }, signal });
    this.check = new Check({ page: this, signal });
    this.viewer = new Viewer({ page: this, signal });
    this.inside = h("div", { class: "inside", hidden: true }, this.sum, this.notes, this.known,
      h("div", { class: "panels" }, this.check.element, this.shape.element),
      h("section", { "aria-label": "clips" }, this.filters, h("div", { class: "row spread" }, this.number, this.move), this.picked, this.wall.note, this.wall.element));
    this.empty = h("p", { class: "empty", hidden: true });
    this.element = h("div", { class: "data" },
      h("div", { class: "row head" }, h("h1", {}, "Data"), h("div", { class: "which" }, this.pick)), this.empty, this.inside);
    this.setMoving(this.moving);
    hear("data", (told) => this.looked(told), signal);
    signal.addEventListener("abort", () => { for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close(); });
  }

  // -------------------- the folder

  async open(ref) {
    if (!this.sets.length) {
      this.pick.hidden = true;
      this.empty.hidden = false;
      this.empty.textContent = "There is no folder of clips under the data folders yet. `video-gen worlds` makes one; `video-gen studio --data FOLDER` shows your own.";
      return;
    }
    this.ref = this.sets.some((one) => one.ref === ref) ? ref : this.sets[0].ref;
    this.pick.value = this.ref;
    localStorage.setItem("data.set", this.ref);
    this.chosen.clear();
    this.showChosen();
    await this.load();
    if (this.told) {
      await trying(() => this.wall.reload());
      post("/api/data/probe", { set: this.ref }, this.signal).catch(() => {});
      if (this.clip) { const name = this.clip; this.clip = null; this.viewer.open(name); }
    }
  }

  // What there is in the folder, and what is wrong with it.
  async load() {
    this.told = null;
    const ref = this.ref;
    try {
      const told = await get(`/api/data/set?set=${encodeURIComponent(ref)}`, this.signal);
      if (ref !== this.ref) return;
      this.told = told;
    } catch (error) {
      if (error.name === "AbortError") return;
      this.inside.hidden = true;
      this.empty.hidden = false;
      this.empty.textContent = error.message;
      return;
    }
    this.empty.hidden = true;
    this.inside.hidden = false;
    this.draw();
    this.countWindows();
  }

  draw() {
    const { told } = this, kinds = told.kinds;
    this.sum.textContent = [kinds.video && `${whole(kinds.video)} videos`, kinds.image && `${whole(kinds.image)} images`, told.length && span(told.length), size(told.bytes), told.known < told.files && `${whole(told.known)} looked at`].filter(Boolean).join(" · ");
    const faults = told.faults.slice(0, 8), more = told.faults.length - faults.length;
    if (more) faults.push(`and ${whole(more)} more; training refuses the folder until they are mended`);
    this.notes.replaceChildren(...faults.map((line) => h("li", { class: "bad" }, line)), ...told.notes.slice(0, 4).map((line) => h("li", {}, line)));
    this.notes.hidden = !told.faults.length && !told.notes.length;
    this.fill();
    this.check.show(told.report);
    this.address();
  }

  looked(told) {
    if (!told || told.set !== this.ref) return;
    this.known.hidden = told.known >= told.of;
    this.known.textContent = `looking at the files: ${whole(told.known)} of ${whole(told.of)}`;
    if (told.known >= told.of && this.told && this.told.known < this.told.files) this.changed();
  }

  async countWindows() {
    if (!this.told) return;
    const clip = this.shape.value;
    if (!clip) return;
    try { this.shape.tell(await post("/api/data/windows", { set: this.ref, clip }, this.signal), this.told); } catch (error) { this.shape.wrong(error.message); }
  }

  // -------------------- finding

  drawFilters() {
    const later = (name, wait) => (event) => { clearTimeout(this.waiting); this.waiting = setTimeout(() => this.ask(name, event.target.value), wait); };
    const choice = (name, label) => h("select", { "aria-label": label, data: { ask: name }, onchange: (event) => this.ask(name, event.target.value) });
    const number = (name, label) => h("input", { type: "number", min: 0, step: 0.1, inputMode: "decimal", placeholder: label, "aria-label": `${label} in seconds`, title: `${label} in seconds`, data: { ask: name }, oninput: later(name, 400) });
    return h("div", { class: "filters", role: "search", "aria-label": "find clips" },
      h("div", { class: "search" }, icon("search"), h("input", { type: "search", placeholder: "words of the caption or the name", "aria-label": "words of the caption or the name", data: { ask: "words" }, oninput: later("words", 200) })),
      choice("trouble", "trouble"), choice("source", "source"), choice("shape", "size of the picture"), number("shortest", "at least s"), number("longest", "at most s"), choice("sort", "order"));
  }

  fill() {
    const { told } = this, choices = {
      trouble: [["", "all that is kept"], ["any", "any trouble"], ...told.troubles.map(([kind, count]) => [kind, `${kind} (${whole(count)})`])],
      source: [["", "every source"], ...told.sources.map(([name, count]) => [name, `${name} (${whole(count)})`])],
      shape: [["", "every size"], ...told.shapes.map(([name, count]) => [name, `${name.replace("x", " × ")} (${whole(count)})`])],
      sort: Object.entries(SORTS),
    };
    for (const control of this.filters.querySelectorAll("[data-ask]")) {
      const name = control.dataset.ask;
      if (choices[name]) {
        control.replaceChildren(...choices[name].map(([value, text]) => h("option", { value }, text)));
        control.hidden = name !== "sort" && choices[name].length < 3 && name !== "trouble";
      }
      control.value = this.asked[name] || (name === "sort" ? "name" : "");
      if (control.value === "" && this.asked[name]) delete this.asked[name];  // there is no such thing any more
    }
  }

  ask(name, value) {
    if (value && !(name === "sort" && value === "name")) this.asked[name] = value; else delete this.asked[name];
    const control = this.filters.querySelector(`[data-ask="${name}"]`);
    if (control.value !== value) control.value = value;
    this.address();
    trying(() => this.wall.reload());
  }

  query(more) { return new URLSearchParams({ set: this.ref, ...this.asked, ...more }); }

  address(clip = null) {
    const asked = this.query(clip ? { clip } : {});
    history.replaceState(null, "", `/data?${asked}`);
  }

  // -------------------- the wall

  setMoving(on) {
    this.moving = on;
    localStorage.setItem("data.moving", on ? "yes" : "no");
    this.move.setAttribute("aria-pressed", String(on));
    this.wall.element.classList.toggle("move", on);
  }

  async clips(set, start, count) {
    const told = await get(`/api/data/clips?${this.query({ start, count })}`, this.signal);
    this.number.textContent = `${whole(told.total)} shown`;
    for (const item of told.items) item.set = set;  // which may be left by the time it is drawn
    return told;
  }

  tile(item, index) {
    const trouble = item.refused || item.quarantine || (item.troubles[0] && item.troubles[0][0]);
    const box = h("input", { type: "checkbox", "aria-label": `choose ${item.name}`, checked: this.chosen.has(item.name), onchange: () => this.choose(item, box.checked) });
    const words = item.caption || item.name;
    return h("article", { class: "clip", data: { bad: trouble ? "yes" : "no" } },
      item.refused ? null : h("label", { class: "pick" }, box),
      h("button", { class: "shot", data: { main: "" }, "aria-label": [words, trouble].filter(Boolean).join(", "), onclick: () => this.viewer.open(item.name, index) },
        new Thumb(item.set, item).element),
      h("p", { class: "words", title: item.caption ? `${item.name}: ${item.caption}` : item.name }, h("span", {}, words),
        h("small", { class: trouble ? "warn" : "muted numbers" }, trouble || [item.seconds ? span(item.seconds) : null, item.info && `${item.info.width} × ${item.info.height}`].filter(Boolean).join(" · "))));
  }

  choose(item, on) {
    if (on) this.chosen.set(item.name, item); else this.chosen.delete(item.name);
    this.showChosen();
  }

  showChosen() {
    const names = [...this.chosen.keys()], held = names.filter((name) => this.chosen.get(name).quarantine);
    this.picked.hidden = !names.length;
    this.picked.replaceChildren(h("span", { class: "numbers" }, `${names.length} chosen`),
      h("button", { class: "small danger", onclick: () => this.quarantine(names, "by hand") }, icon("trash"), "Into quarantine"),
      h("button", { class: "small", disabled: !held.length, onclick: () => this.quarantine(held, null) }, icon("again"), "Out of quarantine"),
      h("button", { class: "quiet small", onclick: () => { this.chosen.clear(); for (const box of this.element.querySelectorAll(".pick input")) box.checked = false; this.showChosen(); } }, "Clear"));
  }

  // -------------------- mending

  quarantine(names, reason) { return this.setQuarantine(Object.fromEntries(names.map((name) => [name, reason]))); }

  async setQuarantine(reasons, back = false) {
    const told = await trying(() => post("/api/data/quarantine", { set: this.ref, reasons }));
    if (!told) return;
    this.chosen.clear();
    this.showChosen();
    await this.changed();
    const names = Object.keys(reasons), out = Object.values(reasons).every((reason) => reason === null);
    toast(`${names.length === 1 ? names[0] : `${names.length} clips`} ${out ? "out of" : "in"} quarantine`, back ? {} : { action: () => this.setQuarantine(told.before, true) });
  }

  async setCaption(name, text, back = false) {
    const told = await trying(() => post("/api/data/caption", { set: this.ref, name, text }));
    if (!told) return false;
    await this.changed();
    toast(`the caption of ${name} is written`, back ? {} : { action: () => this.setCaption(name, told.before, true) });
    return true;
  }

  async changed() {
    await this.load();
    await trying(() => this.wall.reload());
    this.viewer.again();
  }
}
