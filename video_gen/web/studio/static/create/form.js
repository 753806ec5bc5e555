import { h, find } from "../lib/dom.js";
import { icon } from "../lib/icons.js";
import { get, post } from "../lib/api.js";
import { toast, trying } from "../lib/toast.js";
import { Field, shown } from "./fields.js";
import { Slots } from "./slots.js";

// What is to be made: every option of `video-gen sample`, those that are wanted often first.
const FILES = ["image", "video", "last_image", "source"];
const OFTEN = ["num_frames", "num_steps", "guidance_scale", "seed", "count"];
const TOP = ["prompt", "negative_prompt", "loop", "strength", "interpolate", ...OFTEN, ...FILES];
const LABELS = { num_frames: "frames", num_steps: "steps", guidance_scale: "guidance", count: "videos", negative_prompt: "not wanted" };
const OF_SOURCE = ["strength", "interpolate"];
const KEPT = "create";

export class Form {
  constructor(spec, signal) {
    this.signal = signal;
    this.said = Object.fromEntries(spec.groups.flatMap((group) => group.fields.map((field) => [field.name, field])));
    const changed = () => this.keep();
    this.fields = {};
    for (const [name, said] of Object.entries(this.said)) {
      if (FILES.includes(name) || (said.kind === "names" && !spec.loras.length)) continue;
      if (said.kind === "names") said.names = spec.loras;
      const often = OFTEN.includes(name);
      this.fields[name] = new Field(said, changed, { label: LABELS[name], help: !often && !TOP.includes(name), rows: name === "prompt" ? 3 : 0 });
    }
    this.slots = new Slots(Object.fromEntries(FILES.map((name) => [name, (this.said[name] || {}).help])), () => { this.follow(); this.keep(); }, signal);
    this.model = h("select", { id: "model", name: "model", onchange: () => this.pick(this.model.value) }, spec.models.map((name) => h("option", { value: name }, name)));
    this.facts = h("p", { class: "help" });
    this.make = h("button", { class: "primary wide", type: "submit" }, icon("create"), h("span", {}, "Make"));
    const { prompt, negative_prompt: unwanted, seed, loop, strength, interpolate } = this.fields;
    prompt.example = prompt.control.placeholder = "a red circle, fast, and a blue square";
    prompt.control.rows = 3;
    const dice = h("button", { type: "button", class: "icon", "aria-label": "another seed", title: "another seed", onclick: () => seed.set(Math.floor(Math.random() * 2 ** 31), true) }, icon("dice"));
    const joined = h("span", { class: "joined" });
    seed.control.before(joined);
    joined.append(seed.control, dice);
    this.length = h("p", { class: "help" });
    const rest = spec.groups.map((group) => this.group(group)).filter(Boolean);
    this.element = h("form", { class: "form card", "aria-label": "what to make", onsubmit: (event) => { event.preventDefault(); this.send(); } },
      h("div", { class: "field" }, h("label", { for: "model" }, "model"), this.model, this.facts),
      prompt.element, unwanted && unwanted.element, this.slots.element, strength.element, interpolate.element, loop.element,
      h("div", { class: "often" }, OFTEN.map((name) => this.fields[name].element)), this.length,
      h("details", { class: "rest" }, h("summary", {}, "every setting ", this.count = h("span", { class: "chip", hidden: true })), rest),
      h("div", { class: "send" }, this.make,
        h("button", { type: "button", class: "quiet icon", "aria-label": "copy the command line", title: "copy the command line", onclick: () => this.copy() }, icon("copy"))));
    this.element.noValidate = true;
    prompt.control.addEventListener("keydown", (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); this.send(); } });
    this.spec = spec;
  }

  group(group) {
    const left = group.fields.filter((field) => !TOP.includes(field.name) && this.fields[field.name]);
    if (!left.length) return null;
    const [title] = group.title.split(/[;,]/);
    return h("fieldset", {}, h("legend", {}, title || "the file"), left.map((field) => this.fields[field.name].element));
  }

  // Begin with what the address says, or with what was said last.
  async begin(address) {
    let before = {};
    try { before = JSON.parse(localStorage.getItem(KEPT) || "{}"); } catch { /* nothing that is known */ }
    const asked = Object.fromEntries(new URLSearchParams(address));
    const values = Object.keys(asked).some((name) => name === "model" || name in this.said) ? asked : before;
    await this.take(values);
  }

  // Show these values, and nothing else. Files are references.
  async take(values) {
    const model = values.model && [...this.model.options].some((option) => option.value === values.model) ? values.model : this.spec.model;
    this.model.value = model;
    await this.pick(model);
    for (const [name, field] of Object.entries(this.fields)) field.set(values[name]);
    for (const name of FILES) this.slots.set(name, null);
    for (const name of FILES) if (values[name]) await trying(() => this.slots.refer(name, values[name]));
    this.keep();
  }

  // The settings of another model, beside which what is said is shown.
  async pick(name) {
    const first = this.spec.settings && this.spec.settings.name === name && this.spec.settings;  // came with the form
    this.spec.settings = null;
    const told = first || await trying(() => get(`/api/create/model?name=${encodeURIComponent(name)}`, this.signal));
    if (!told || this.model.value !== name) return;
    this.clip = told.clip;
    const own = { ...(told.sampling || {}), num_frames: told.clip ? told.clip.num_frames : undefined };
    for (const [key, field] of Object.entries(this.fields)) field.usual(key in own ? own[key] : field.said.default ?? undefined);
    this.facts.textContent = told.error || (told.clip ? `${told.clip.width} × ${told.clip.height}, ${told.clip.num_frames} frames at ${shown(told.clip.fps)} a second` : "tells its settings once it is loaded");
    this.facts.classList.toggle("bad", Boolean(told.error));
    // So that it is ready, once the page is drawn; whoever makes something is told what is wrong.
    setTimeout(() => { if (this.model.value === name) post("/api/create/load", { model: name }).catch(() => {}); }, 200);
    this.keep();
  }

  follow() {
    const source = Boolean(this.slots.values.source);
    for (const name of OF_SOURCE) this.fields[name].element.hidden = !source;
    if (!source) for (const name of OF_SOURCE) this.fields[name].set(undefined);
  }

  get values() {
    const values = { model: this.model.value, ...this.slots.said };
    for (const [name, field] of Object.entries(this.fields)) if (field.value !== undefined) values[name] = field.value;
    return values;
  }

  keep() {
    const values = this.values;
    localStorage.setItem(KEPT, JSON.stringify(values));
    const many = Object.keys(values).filter((name) => !TOP.includes(name) && name !== "model").length;
    this.count.hidden = !many;
    this.count.textContent = `${many} set`;
    const frames = Number(values.num_frames || (this.clip || {}).num_frames), fps = (this.clip || {}).fps;
    this.length.textContent = frames && fps ? `${(frames / fps).toFixed(1)} seconds of video${values.count > 1 ? `, ${values.count} times` : ""}` : "";
    find("span", this.make).textContent = values.count > 1 ? `Make ${values.count} videos` : "Make";
  }

  async send() {
    if (this.slots.sending) { toast("a file is still being sent", { bad: true }); return; }
    const wrong = Object.values(this.fields).find((field) => field.control.validity && !field.control.validity.valid);
    if (wrong) {
      const fold = wrong.element.closest("details");
      if (fold) fold.open = true;
      wrong.control.focus();
      toast(`${wrong.name.replaceAll("_", " ")}: ${wrong.control.validationMessage}`, { bad: true });
      return;
    }
    const values = this.values;
    const made = await trying(() => post("/api/jobs", values));
    if (!made) return;
    if (this.element.parentElement.children[1].offsetTop > this.element.offsetTop + 40) this.element.parentElement.children[1].scrollIntoView({ block: "start" });  // below the form, where it is narrow
    this.fields.seed.set((values.seed || 0) + (values.count || 1));  // so that the next press makes others
    this.keep();
  }

  async copy() {
    const told = await trying(() => post("/api/create/command", this.values));
    if (told) { await navigator.clipboard.writeText(told.command); toast("the command line is copied"); }
  }
}
