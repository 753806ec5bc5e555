import { h, unique } from "../lib/dom.js";
import { get, post } from "../lib/api.js";
import { hear } from "../lib/events.js";
import { icon } from "../lib/icons.js";
import { toast, trying } from "../lib/toast.js";
import { Compare } from "../create/compare.js";
import { named, small } from "../create/gallery.js";

const MOST = 64, TOGETHER = 9, KEPT = "models.grid";

// Prompts down, models or values of one setting across: what is missing goes into the queue, what there is stands in its place.
export class Grid {
  constructor({ told, short, signal }) {
    Object.assign(this, { told, short, signal });
    const kept = JSON.parse(localStorage.getItem(KEPT) || "{}");
    const input = (tag, properties) => h(tag, { id: unique("grid"), oninput: () => this.changed(), ...properties });
    const field = (label, control, help) => h("div", { class: "field" }, h("label", { for: control.id }, label), control, help && h("p", { class: "help" }, help));
    this.prompts = input("textarea", { rows: 3, maxLength: 4000, value: kept.prompts ?? "", placeholder: "one prompt a line" });
    this.boxes = told.models.map((one) => input("input", { type: "checkbox", value: one.name, checked: (kept.models || []).includes(one.name) }));
    this.setting = input("select", { onchange: () => this.changed() });
    this.values = input("input", { value: kept.values ?? "", placeholder: "1, 2, 4" });
    this.seed = input("input", { type: "number", min: 0, step: 1, value: kept.seed ?? 0 });
    this.kept = kept;
    this.make = h("button", { class: "primary", disabled: true, onclick: () => this.send() }, icon("create"), "Make what is missing");
    this.together = h("button", { disabled: true, onclick: () => this.compare.open(this.here().slice(0, TOGETHER)) }, icon("compare"), "Play in step");
    this.state = h("p", { class: "muted numbers", role: "status" });
    this.place = h("div", { class: "cells" });
    this.compare = new Compare(signal);
    this.element = h("div", { class: "grid" },
      h("div", { class: "card said" }, field("Prompts", this.prompts),
        h("fieldset", { class: "which-models" }, h("legend", { class: "help" }, "Models"), this.boxes.map((box) => h("label", { class: "check" }, box, short(box.value)))),
        h("div", { class: "few" }, field("A setting", this.setting), field("Its values", this.values, "one column for each"), field("Seed", this.seed, "the same everywhere")),
        h("div", { class: "row" }, this.make, this.together, this.state)),
      this.place);
    hear("results", () => this.look(), signal);
    signal.addEventListener("abort", () => { for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close(); });
  }

  async show(model) {
    if (!this.boxes.some((box) => box.checked)) for (const box of this.boxes) box.checked = box.value === model;
    if (!this.form) {
      this.form = await trying(() => get("/api/create/form", this.signal));
      if (!this.form) return;
      const fields = this.form.groups.flatMap((group) => group.fields).filter((field) => ["whole", "number", "choice"].includes(field.kind) && !["count", "seed"].includes(field.name));
      this.kinds = Object.fromEntries(fields.map((field) => [field.name, field.kind]));
      this.setting.replaceChildren(h("option", { value: "" }, "none: models only"), ...fields.map((field) => h("option", { value: field.name }, field.name.replaceAll("_", " "))));
      this.setting.value = this.kinds[this.kept.setting] ? this.kept.setting : "";
    }
    this.changed();
  }

  // -------------------- what is asked for

  plan() {
    const prompts = this.prompts.value.split("\n").map((line) => line.trim()).filter(Boolean);
    const models = this.boxes.filter((box) => box.checked).map((box) => box.value);
    const setting = this.setting.value;
    const values = setting ? this.values.value.split(",").map((text) => text.trim()).filter(Boolean) : [];
    const columns = models.flatMap((model) => setting && values.length
      ? values.map((value) => ({ title: `${models.length > 1 ? `${this.short(model)}, ` : ""}${setting.replaceAll("_", " ")} ${value}`, model, [setting]: this.kinds[setting] === "choice" ? value : Number(value) }))
      : [{ title: this.short(model), model }]);
    return { prompts, columns };
  }

  changed() {
    localStorage.setItem(KEPT, JSON.stringify({ prompts: this.prompts.value, models: this.boxes.filter((box) => box.checked).map((box) => box.value), setting: this.setting.value, values: this.values.value, seed: this.seed.value }));
    this.values.disabled = !this.setting.value;
    clearTimeout(this.waiting);
    this.waiting = setTimeout(() => this.look(), 250);
  }

  get cells() {
    const { prompts, columns } = this.plan();
    return prompts.flatMap((prompt) => columns.map(({ title, ...values }) => ({ ...values, prompt, seed: Number(this.seed.value) || 0 })));
  }

  here() { return (this.results || []).filter(Boolean); }

  async look() {
    if (!this.element.isConnected) return;
    const { prompts, columns } = this.plan(), { cells } = this;
    if (!cells.length || cells.length > MOST) {
      this.place.replaceChildren(h("p", { class: "empty" }, cells.length ? `${cells.length} videos are too many for one table; at most ${MOST}` : "Write a prompt, and pick what stands beside one another."));
      this.make.disabled = this.together.disabled = true;
      this.state.textContent = "";
      return;
    }
    const asked = this.asked = (this.asked || 0) + 1;
    let told;
    try { told = await post("/api/models/grid", { cells }, this.signal); } catch (error) {
      if (error.name !== "AbortError" && asked === this.asked) { this.state.textContent = error.message; this.make.disabled = true; }
      return;
    }
    if (asked !== this.asked) return;
    this.results = told.results;
    const missing = told.results.filter((one) => !one).length;
    this.make.disabled = !missing;
    this.together.disabled = this.here().length < 2;
    this.state.textContent = missing ? `${missing} of ${cells.length} are not made yet` : `all ${cells.length} are here`;
    this.place.replaceChildren(h("table", {}, h("caption", { class: "hush" }, "videos by prompt and model"),
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "prompt"), columns.map((column) => h("th", { scope: "col" }, column.title)))),
      h("tbody", {}, prompts.map((prompt, row) => h("tr", {}, h("th", { scope: "row" }, prompt), columns.map((column, at) => h("td", {}, this.cell(told.results[row * columns.length + at]))))))));
  }

  cell(item) {
    if (!item) return h("div", { class: "none muted" }, "not made");
    const sharp = small(item) ? "sharp" : "";
    const video = h("video", { src: named("video", item), poster: named("poster", item), muted: true, loop: true, playsInline: true, preload: "none", class: sharp, tabIndex: 0, "aria-label": `${item.prompt || item.name}, seed ${item.seed}` });
    for (const on of ["pointerenter", "focus"]) video.addEventListener(on, () => video.play().catch(() => {}));
    for (const off of ["pointerleave", "blur"]) video.addEventListener(off, () => video.pause());
    return video;
  }

  async send() {
    const cells = this.cells.filter((cell, at) => !this.results[at]);
    this.make.disabled = true;
    let sent = 0;
    for (const cell of cells) {
      if (!(await trying(() => post("/api/jobs", cell)))) break;
      sent += 1;
    }
    if (sent) toast(`${sent} ${sent === 1 ? "video is" : "videos are"} in the queue`);
    this.look();
  }
}
