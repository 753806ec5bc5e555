// Runs: what trains and has trained. The address holds what is looked at: ?run=root/name&run=...&tab=samples.
import { h } from "../lib/dom.js";
import { get } from "../lib/api.js";
import { hear } from "../lib/events.js";
import { icon } from "../lib/icons.js";
import { toast, trying } from "../lib/toast.js";
import { Curves } from "../runs/curves.js";
import { List } from "../runs/list.js";
import { NewRun } from "../runs/recipe.js";
import { Overview } from "../runs/overview.js";
import { Samples } from "../runs/samples.js";
import { Settings } from "../runs/settings.js";
import { STATES, alive, query } from "../runs/words.js";

const TABS = { curves: "Curves", samples: "Samples", settings: "Settings", output: "Output" };
const AT_FIRST = 3, MOST_ABOUT = 12, KEPT = "runs.curves";

export async function mount(place, signal) {
  const page = new Page(place, signal);
  await page.load();
}

class Page {
  constructor(place, signal) {
    const asked = new URLSearchParams(location.search);
    this.signal = signal;
    this.rows = new Map();
    this.order = [];
    this.roots = [];
    this.about = new Map();
    this.help = new Map();
    this.wanted = asked.getAll("run");
    this.tab = asked.get("tab") in TABS ? asked.get("tab") : "curves";
    this.chosen = new Map();
    this.loading = false;
    const options = { log: false, across: "steps", smooth: 0, ...JSON.parse(localStorage.getItem(KEPT) || "{}") };
    this.list = new List({ pick: (key, alone) => this.pick(key, alone), all: (keys) => this.choose(keys), signal });
    this.overview = new Overview({ changed: () => this.load(), signal });
    this.parts = {
      curves: new Curves({ options, keep: () => localStorage.setItem(KEPT, JSON.stringify(options)), signal }),
      samples: new Samples({ signal }),
      settings: new Settings({ use: (run) => this.again(run), signal }),
      output: new Output(),
    };
    this.fresh = new NewRun({ started: (key) => { this.wanted = [key]; this.chosen.clear(); this.load(); }, signal });
    this.draw(place);
    hear("runs", (versions) => this.changed(versions), signal);
    const tick = setInterval(() => { if (!document.hidden && this.order.some(alive)) this.load(); }, 15000);  // time left goes on
    signal.addEventListener("abort", () => clearInterval(tick));
  }

  draw(place) {
    this.troubles = h("ul", { class: "troubles" });
    this.tabs = h("div", { class: "tabs", role: "tablist", "aria-label": "what to see of the runs", onkeydown: (event) => this.turn(event) },
      Object.entries(TABS).map(([name, text]) => h("button", { role: "tab", id: `tab-${name}`, "aria-controls": "panel", data: { tab: name }, onclick: () => this.open(name) }, text)));
    this.panel = h("div", { id: "panel", role: "tabpanel", tabIndex: -1 });
    this.main = h("section", { class: "shown", "aria-label": "the runs that are chosen" }, this.overview.element, this.tabs, this.panel);
    this.empty = h("div", { class: "empty", hidden: true });
    const side = h("details", { class: "side", open: matchMedia("(min-width: 62rem)").matches }, this.sum = h("summary", {}, "All runs"), this.list.element);
    place.append(h("div", { class: "row spread head" }, h("h1", {}, "Runs"), h("button", { class: "primary", onclick: () => this.fresh.open() }, icon("start"), "New run")),
      this.troubles, this.empty, this.both = h("div", { class: "both" }, side, this.main));
    matchMedia("(min-width: 62rem)").addEventListener("change", (event) => { side.open = event.matches; }, { signal: this.signal });
    this.open(this.tab, true);
  }

  async load() {
    if (this.loading) { this.again_ = true; return; }
    this.loading = true;
    const found = await trying(() => get("/api/runs", this.signal));
    this.loading = false;
    if (this.signal.aborted || !found) return;
    this.take(found);
    if (this.again_) { this.again_ = false; this.load(); }
  }

  changed(versions) {
    const same = Object.keys(versions).length === this.rows.size && Object.entries(versions).every(([key, version]) => this.rows.has(key) && this.rows.get(key).version === version);
    if (!same && this.roots.length) this.load();
  }

  take(found) {
    this.roots = found.roots;
    this.fresh.places(found.roots);
    const rows = found.runs, names = new Set(rows.map((row) => row.key));
    for (const row of rows) row.depth = ancestors(row.key).filter((key) => names.has(key)).length;
    for (const row of rows) this.ended(this.rows.get(row.key), row);
    this.rows = new Map(rows.map((row) => [row.key, row]));
    this.order = ordered(rows);
    this.troubles.replaceChildren(...found.troubles.map((text) => h("li", { class: "warn" }, text)));
    if (!this.chosen.size && !this.cleared) {
      const wanted = this.wanted.filter((key) => this.rows.has(key)), working = this.order.filter((row) => alive(row) && !row.stages);
      const first = wanted.length ? wanted : (working.length ? working.slice(0, AT_FIRST) : this.order.slice(0, 1)).map((row) => row.key);
      for (const key of first) this.add(key);
    }
    for (const key of [...this.chosen.keys()]) if (!this.rows.has(key)) this.chosen.delete(key);
    this.both.hidden = !rows.length;
    this.empty.hidden = rows.length > 0;
    this.empty.replaceChildren(h("p", {}, `There is no run in ${found.roots.map((root) => root.folder).join(", ")} yet.`),
      h("p", { class: "muted" }, "Start one here, or with `video-gen train`; it appears by itself."));
    this.update();
  }

  // A run that has come to its end meanwhile is told, wherever one looks.
  ended(before, row) {
    if (!before || !alive(before) || alive(row) || row.stages) return;
    const [word] = STATES[row.state];
    toast(`${row.name || row.root} is ${word}`, { action: () => this.pick(row.key, true), label: "Show" });
  }

  update() {
    this.list.set(this.order, this.chosen);
    this.sum.textContent = `All ${this.order.length} runs`;
    this.overview.set(this.chosen, this.rows, this.about);
    this.part().set(this.chosen, this.rows, this.about, this.settingsHelp());
    this.look();
  }

  // What is said of each chosen run, where it may have changed.
  look() {
    for (const key of [...this.chosen.keys()].slice(0, MOST_ABOUT)) {
      const row = this.rows.get(key), known = this.about.get(key);
      const version = row && row.version;
      if (!row || (known && known.version === version) || (this.asking || (this.asking = new Set())).has(key)) continue;
      this.asking.add(key);
      get(`/api/runs/about?${query(row)}`, this.signal).then((told) => {
        this.about.set(key, { ...told, version });
        this.overview.set(this.chosen, this.rows, this.about);
        if (this.tab !== "curves") this.part().set(this.chosen, this.rows, this.about, this.settingsHelp());
      }).catch(() => {}).finally(() => this.asking.delete(key));
    }
  }

  settingsHelp() {
    const kinds = new Set([...this.chosen.keys()].map((key) => this.rows.get(key)?.kind).filter(Boolean)), all = new Map();
    if (this.tab !== "settings") return all;
    for (const kind of kinds) {
      if (!this.help.has(kind)) {
        this.help.set(kind, []);
        get(`/api/runs/help?kind=${kind}`, this.signal).then((found) => { this.help.set(kind, found); this.update(); }).catch(() => {});
      }
      for (const one of this.help.get(kind)) all.set(one.name, one);
    }
    return all;
  }

  part() { return this.parts[this.tab]; }

  open(name, first = false) {
    this.tab = name;
    for (const tab of this.tabs.children) {
      const own = tab.dataset.tab === name;
      tab.setAttribute("aria-selected", String(own));
      tab.tabIndex = own ? 0 : -1;
    }
    this.panel.setAttribute("aria-labelledby", `tab-${name}`);
    this.panel.replaceChildren(this.part().element);
    if (!first) { this.address(); this.update(); }
  }

  turn(event) {
    const names = Object.keys(TABS), by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!by) return;
    const next = names[(names.indexOf(this.tab) + by + names.length) % names.length];
    this.open(next);
    this.tabs.querySelector(`[data-tab=${next}]`).focus();
    event.preventDefault();
  }

  add(key) {
    const taken = new Set(this.chosen.values());
    let index = 0;
    while (taken.has(index)) index += 1;
    this.chosen.set(key, index);
  }

  pick(key, alone) {
    if (alone) this.choose([key]);
    else if (this.chosen.has(key)) this.choose([...this.chosen.keys()].filter((other) => other !== key));
    else this.choose([...this.chosen.keys(), key]);
  }

  choose(keys) {
    for (const key of [...this.chosen.keys()]) if (!keys.includes(key)) this.chosen.delete(key);
    for (const key of keys) if (!this.chosen.has(key)) this.add(key);
    this.cleared = keys.length === 0;
    this.address();
    this.update();
  }

  address() {
    const said = new URLSearchParams([...[...this.chosen.keys()].slice(0, 20).map((key) => ["run", key]), ...(this.tab === "curves" ? [] : [["tab", this.tab]])]);
    history.replaceState(null, "", said.size ? `/runs?${said}` : "/runs");
  }

  again({ row, told }) { this.fresh.open(told.yaml, row.kind || "auto", `${row.name.split("/")[0] || "run"}-2`); }
}

// What each chosen run has said on its console, if it was started here.
class Output {
  constructor() { this.element = h("div", {}); this.drawn = ""; }

  set(chosen, rows, about) {
    const runs = [...chosen.keys()].filter((key) => rows.has(key) && about.has(key)).map((key) => [rows.get(key), about.get(key)]);
    const state = JSON.stringify(runs.map(([row, told]) => [row.key, told.console]));
    if (state === this.drawn) return;
    this.drawn = state;
    if (!runs.length) { this.element.replaceChildren(h("p", { class: "empty" }, "Pick a run to read what it says.")); return; }
    this.element.replaceChildren(...runs.map(([row, told]) => h("section", {}, h("h2", {}, row.name || row.root),
      told.console.length ? h("pre", { class: "console", tabIndex: 0, "aria-label": `output of ${row.key}` }, told.console.join("\n"))
        : h("p", { class: "muted" }, "It was not started here, so what it says stands where it was started."))));
    for (const box of this.element.querySelectorAll("pre")) box.scrollTop = box.scrollHeight;
  }
}

const ancestors = (key) => key.split("/").map((_, index, parts) => parts.slice(0, index).join("/")).filter(Boolean);

// At work first, then the newest; what lies in another run follows it.
function ordered(rows) {
  const by = new Map(rows.map((row) => [row.key, row])), inner = new Map(), tops = [];
  for (const row of rows) {
    const owner = ancestors(row.key).filter((key) => by.has(key)).at(-1);
    if (owner) inner.set(owner, [...(inner.get(owner) || []), row]);
    else tops.push(row);
  }
  const rank = (row) => [alive(row) || (inner.get(row.key) || []).some(alive) ? 0 : 1, -row.changed];
  tops.sort((a, b) => rank(a)[0] - rank(b)[0] || rank(a)[1] - rank(b)[1]);
  const out = [], put = (row) => { out.push(row); for (const one of inner.get(row.key) || []) put(one); };
  tops.forEach(put);
  return out;
}
