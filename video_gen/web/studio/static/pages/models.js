// Models: what is in each that can be picked; one prompt over a grid of them, or of settings; reports. The address: ?model=name&tab=grid.
import { h, ago, size } from "../lib/dom.js";
import { get } from "../lib/api.js";
import { icon } from "../lib/icons.js";
import { trying } from "../lib/toast.js";
import { About } from "../models/about.js";
import { Grid } from "../models/grid.js";

const TABS = { about: "What is in it", grid: "Side by side", reports: "Reports" };

export async function mount(place, signal) {
  const told = await get("/api/models/list", signal);
  if (signal.aborted) return;
  const page = new Page(told, signal);
  place.append(page.element);
  await page.open(page.tab);
}

export const short = (name) => name.split(/[\\/]/).filter((part, at, all) => !(part === "model" && at === all.length - 1)).slice(-2).join("/") || name;

class Page {
  constructor(told, signal) {
    Object.assign(this, { told, signal });
    const asked = new URLSearchParams(location.search);
    const names = told.models.map((one) => one.name);
    this.model = names.includes(asked.get("model")) ? asked.get("model") : told.model;
    this.tab = asked.get("tab") in TABS ? asked.get("tab") : "about";
    this.pick = h("select", { "aria-label": "model", onchange: () => { this.model = this.pick.value; this.open(this.tab === "reports" ? "about" : this.tab); } },
      told.models.map((one) => h("option", { value: one.name, selected: one.name === this.model }, `${short(one.name)}${one.shipped ? " (ships with Video Gen)" : ""}`)));
    this.tabs = h("div", { class: "tabs", role: "tablist", "aria-label": "what to see", onkeydown: (event) => this.turn(event) },
      Object.entries(TABS).map(([name, text]) => h("button", { role: "tab", id: `models-${name}`, "aria-controls": "models-panel", data: { tab: name }, onclick: () => this.open(name) }, text)));
    this.panel = h("div", { id: "models-panel", role: "tabpanel", tabIndex: -1 });
    this.element = h("div", { class: "models" }, h("div", { class: "row head" }, h("h1", {}, "Models"), h("div", { class: "which" }, this.pick)), this.tabs, this.panel);
    this.grid = new Grid({ told, short, signal });
    this.about = new About({ told, signal });
  }

  turn(event) {
    const names = Object.keys(TABS), by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by) return;
    event.preventDefault();
    this.open(names[(names.indexOf(this.tab) + by + names.length) % names.length]);
    this.tabs.querySelector("[aria-selected=true]").focus();
  }

  async open(tab) {
    this.tab = tab;
    for (const button of this.tabs.children) {
      button.setAttribute("aria-selected", String(button.dataset.tab === tab));
      button.tabIndex = button.dataset.tab === tab ? 0 : -1;
    }
    this.panel.setAttribute("aria-labelledby", `models-${tab}`);
    history.replaceState(null, "", `/models?${new URLSearchParams({ model: this.model, ...(tab === "about" ? {} : { tab }) })}`);
    if (tab === "about") { this.panel.replaceChildren(this.about.element); await this.about.show(this.model); }
    else if (tab === "grid") { this.panel.replaceChildren(this.grid.element); this.grid.show(this.model); }
    else { this.panel.replaceChildren(h("p", { class: "muted" }, "…")); await this.reports(); }
  }

  async reports() {
    const told = await trying(() => get("/api/models/reports", this.signal));
    if (!told || this.tab !== "reports") return;
    this.panel.replaceChildren(told.reports.length
      ? h("ul", { class: "reports" }, told.reports.map((one) => h("li", { class: "card" },
        h("a", { href: `/api/models/report?${new URLSearchParams({ root: one.root, name: one.name })}`, target: "_blank", rel: "noopener" }, icon("runs"), one.title),
        h("span", { class: "muted" }, `${one.root}/${one.name}`), h("span", { class: "muted numbers" }, `${ago(one.made)} · ${size(one.bytes)}`))))
      : h("p", { class: "empty" }, "No reports under the run folders yet. `video-gen evaluate` and `video-gen demo` write them."));
  }
}
