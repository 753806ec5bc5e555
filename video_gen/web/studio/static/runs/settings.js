// The settings of the chosen runs side by side; first what differs between them.
import { h } from "../lib/dom.js";
import { line } from "../lib/colours.js";
import { icon } from "../lib/icons.js";
import { copy } from "./overview.js";
import { title } from "./words.js";

const MOST_RUNS = 12;

export class Settings {
  constructor({ use, signal }) {
    this.use = use;
    this.words = "";
    this.search = h("input", { type: "search", placeholder: "Find a setting", "aria-label": "Find a setting", spellcheck: false });
    this.search.addEventListener("input", () => { this.words = this.search.value.trim().toLowerCase(); this.draw(); }, { signal });
    this.only = h("input", { type: "checkbox", checked: true, onchange: () => this.draw() });
    this.which = h("label", { class: "check" }, this.only, "only what differs");
    this.acts = h("div", { class: "row" });
    this.body = h("div", { class: "scroll", tabIndex: 0, role: "region", "aria-label": "settings" });
    this.element = h("div", {}, h("div", { class: "row bar-of-settings" }, this.search, this.which, this.acts), this.body);
    this.drawn = "";
  }

  set(chosen, rows, about, help) {
    this.runs = [...chosen.keys()].filter((key) => rows.has(key) && about.has(key)).slice(0, MOST_RUNS)
      .map((key) => ({ row: rows.get(key), index: chosen.get(key), told: about.get(key) }));
    this.help = help;
    this.waiting = chosen.size > 0 && !this.runs.length;
    this.draw();
  }

  draw() {
    const { runs } = this, state = JSON.stringify([runs.map((run) => [run.row.key, run.index, run.told.settings]), this.words, this.only.checked, this.help && this.help.size]);
    if (state === this.drawn && runs.length) return;
    this.drawn = state;
    this.which.hidden = runs.length < 2;
    this.acts.replaceChildren(...(runs.length === 1 ? [
      h("button", { class: "small", onclick: () => this.use(runs[0]) }, icon("again"), "New run with these"),
      h("button", { class: "small quiet", onclick: () => copy(runs[0].told.yaml) }, icon("copy"), "YAML")] : []));
    if (!runs.length) { this.body.replaceChildren(h("p", { class: "empty" }, this.waiting ? "reading" : "Pick a run to see its settings; tick several to see what differs between them.")); return; }
    const names = [...new Set(runs.flatMap((run) => Object.keys(run.told.settings)))];
    const shown = names.map((name) => ({ name, values: runs.map((run) => run.told.settings[name]) }))
      .map((one) => ({ ...one, differ: new Set(one.values.map((value) => JSON.stringify(value))).size > 1 }))
      .filter(({ name, differ }) => name.toLowerCase().includes(this.words) && (runs.length < 2 || differ || !this.only.checked));
    if (!shown.length) {
      const why = !names.length ? "There is no config.yaml yet; it is written when training begins." : this.words ? "No setting has this in its name." : "These runs have the same settings.";
      this.body.replaceChildren(h("p", { class: "empty" }, why));
      return;
    }
    const head = h("tr", {}, h("th", { scope: "col" }, "Setting"), ...runs.map((run) => h("th", { scope: "col", style: { "--line": `var(${line(run.index)})` } }, h("i", { class: "swatch" }), ...title(run.row))));
    this.body.replaceChildren(h("table", { class: "settings" }, h("thead", {}, head), h("tbody", {}, shown.map((one) => this.row(one, runs)))));
  }

  row({ name, values, differ }, runs) {
    const cut = name.lastIndexOf(".") + 1, about = this.help && this.help.get(name);
    return h("tr", { class: differ ? "differs" : "" },
      h("th", { scope: "row" }, h("code", {}, h("span", { class: "muted" }, name.slice(0, cut)), name.slice(cut)), about && h("p", { class: "help" }, about.help)),
      ...values.map((value) => h("td", { class: "numbers" }, value === undefined ? h("span", { class: "muted" }, "not set") : said(value))));
  }
}

function said(value) {
  if (value === null) return "none";
  if (value === "") return h("span", { class: "muted" }, "empty");
  if (typeof value === "boolean") return value ? "yes" : "no";
  return Array.isArray(value) ? (value.length ? value.map((part) => Array.isArray(part) ? part.join("×") : String(part)).join(", ") : "none") : typeof value === "object" ? JSON.stringify(value) : String(value);
}
