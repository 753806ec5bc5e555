import { h, prose, unique } from "../lib/dom.js";

// A field of the form: its control, its help, what it is if nothing is said, and its value. Values that are as ever are undefined.
export const words = (name) => name.replaceAll("_", " ");
const shown = (value) => (value === null || value === undefined || value === "" ? "none" : Array.isArray(value) ? value.join(" ") : typeof value === "boolean" ? (value ? "on" : "off") : String(value));

export class Field {
  constructor(said, changed, { label = words(said.name), help = true, rows = 0 } = {}) {
    Object.assign(this, { said, name: said.name, changed, own: undefined });
    const id = unique(said.name), about = `${id}-help`;
    this.control = this.make(id, about, rows);
    this.reset = h("button", { type: "button", class: "quiet small icon", "aria-label": `${label}: as the model has it`, title: "as the model has it", hidden: true, onclick: () => this.set(undefined, true) }, "↺");
    this.help = h("span", { class: help ? "help" : "hush", id: about }, prose(said.help));
    this.element = said.kind === "flag"
      ? h("div", { class: "field" }, h("span", { class: "row" }, h("label", { class: "check", for: id }, this.control, label), this.reset), this.help)
      : h("div", { class: "field" }, h("span", { class: "row spread" }, h("label", { for: id }, label), this.reset), this.control, this.help);
    this.control.addEventListener("input", () => this.edited());
    this.control.addEventListener("change", () => this.edited());
  }

  make(id, about, rows) {
    const { said } = this, common = { id, name: said.name, "aria-describedby": about };
    if (said.kind === "flag") return h("input", { ...common, type: "checkbox" });
    if (said.kind === "choice") return h("select", common, h("option", { value: "" }, ""), said.choices.map((choice) => h("option", { value: choice }, choice)));
    if (said.kind === "whole" || said.kind === "number") {
      const low = said.low ?? said.above, high = said.high ?? said.below;
      return h("input", { ...common, type: "number", inputmode: said.kind === "whole" ? "numeric" : "decimal", step: said.kind === "whole" ? 1 : "any",
        min: low ?? null, max: high !== undefined && high < 1e9 ? high : null });
    }
    if (said.kind === "names") return h("select", { ...common, multiple: true, size: Math.min(4, said.names.length) }, said.names.map((one) => h("option", { value: one }, one)));
    if (said.kind === "text" && rows) return h("textarea", { ...common, rows });
    return h("input", { ...common, type: "text", autocomplete: "off", spellcheck: said.kind === "text" });
  }

  // What it is where nothing is said: the model's own.
  usual(value) {
    this.own = value;
    const { control, said } = this;
    if (said.kind === "flag") { if (!this.dirty) control.checked = Boolean(value); }
    else if (said.kind === "choice") control.options[0].textContent = value === undefined ? "as the model has it" : `${shown(value)} (the model's own)`;
    else if (!this.example && said.kind !== "names") control.placeholder = value === undefined ? "" : shown(value);
  }

  edited() {
    this.dirty = this.said.kind === "names" ? this.control.selectedOptions.length > 0 : this.said.kind === "flag" ? this.control.checked !== Boolean(this.own) : this.control.value !== "";
    this.mark();
    this.changed(this);
  }

  mark() {
    const wrong = this.control.validity && !this.control.validity.valid;
    this.control.classList.toggle("wrong", Boolean(wrong));
    if (wrong) this.control.setAttribute("aria-invalid", "true"); else this.control.removeAttribute("aria-invalid");
    this.reset.hidden = !this.dirty;
    this.element.classList.toggle("said", Boolean(this.dirty));
  }

  set(value, tell = false) {
    const { control, said } = this;
    this.dirty = value !== undefined && value !== null && value !== "";
    if (said.kind === "names") for (const option of control.options) option.selected = this.dirty && value.includes(option.value);
    else if (said.kind === "flag") control.checked = this.dirty ? Boolean(value) : Boolean(this.own);
    else control.value = this.dirty ? (Array.isArray(value) ? value.join(" ") : String(value)) : "";
    if (said.kind === "flag") this.dirty = control.checked !== Boolean(this.own);
    this.mark();
    if (tell) this.changed(this);
  }

  get value() {
    const { control, said } = this;
    if (!this.dirty) return undefined;
    if (said.kind === "names") return [...control.selectedOptions].map((option) => option.value);
    if (said.kind === "flag") return control.checked;
    if (said.kind === "whole" || said.kind === "number") return control.value === "" ? undefined : Number(control.value);
    if (said.kind === "numbers") return control.value.trim().split(/[\s,;]+/).map(Number);
    return control.value;
  }
}

export { shown };
