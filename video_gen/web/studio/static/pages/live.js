import { clock, h, unique } from "../lib/dom.js";
import { icon } from "../lib/icons.js";
import { get, post, upload } from "../lib/api.js";
import { hear } from "../lib/events.js";
import { toast, trying } from "../lib/toast.js";
import { Screen } from "../live/screen.js";
import { TimeLine } from "../live/line.js";

// Live: one endless stream that all open pages see, and that each of them can steer.
export async function mount(place, signal) {
  const form = await get("/api/create/form", signal);
  if (signal.aborted) return;
  const page = new Page(form, signal);
  place.append(h("h1", { class: "hush" }, "Live"), page.element);
  page.open(form.model);
}

class Page {
  constructor(form, signal) {
    this.signal = signal;
    this.told = { status: "none" };
    this.screen = new Screen(signal, (seconds) => { this.at.textContent = clock(seconds); });
    this.line = new TimeLine((seconds) => { this.screen.clear(); return this.ask("back", { seconds }); });
    this.at = h("span", { class: "numbers" }, "0:00");
    this.state = h("p", { class: "muted state", role: "status", "aria-live": "polite" });
    this.rate = h("span", { class: "muted numbers", title: "seconds of work for a second of video; below 1 the model keeps up" });
    this.model = h("select", { id: unique("model"), onchange: () => this.open(this.model.value) }, form.models.map((name) => h("option", { value: name }, name)));
    this.prompt = h("textarea", { id: unique("prompt"), rows: 2, maxLength: 2000, placeholder: "what is to be seen; a change comes with the next block", onkeydown: (event) => { if (event.key === "Enter" && !event.shiftKey) { event.preventDefault(); this.submit(); } } });
    this.seed = h("input", { id: unique("seed"), type: "number", min: 0, step: 1, value: 0 });
    this.steps_help = h("span", {});
    this.steps = h("input", { id: unique("steps"), type: "number", min: 1, max: 1000, step: 1 });
    this.guidance = this.slider("guidance_scale", "Guidance", "how closely it keeps to the prompt; 1 is off", 0, 10, 0.1, (value) => value.toFixed(1));
    this.speed = this.slider("speed", "Speed of playback", "the same frames in less time, or more", 0.25, 4, 0.05, (value) => `${value.toFixed(2)} ×`);
    this.press = h("button", { class: "primary", onclick: () => this.start() }, icon("start"), "Start");
    this.hold = h("button", { "aria-pressed": "false", onclick: () => this.ask("run", { on: this.told.status === "paused" }) }, icon("pause"), "Pause");
    this.record = h("button", { "aria-pressed": "false", onclick: () => this.ask("record", { on: !this.told.recording }) }, icon("record"), "Record");
    this.say = h("button", { class: "small", onclick: () => this.submit() }, "Say it now");
    this.name = h("input", { id: unique("name"), value: "here", maxLength: 40, pattern: "[A-Za-z0-9][A-Za-z0-9_\\-]*" });
    this.saved = h("select", { id: unique("saved") });
    this.load = h("button", { class: "small", onclick: () => { this.screen.clear(); this.ask("resume", { name: this.saved.value }); } }, "Go on from it");
    this.trouble = h("p", { class: "bad card", role: "alert", hidden: true });
    this.picture = h("input", { type: "file", id: unique("picture"), accept: "image/*", onchange: () => this.send() });
    this.sent = h("div", { class: "row sent", hidden: true });
    const field = (label, input, help) => h("div", { class: "field" }, h("label", { for: input.id }, label), input, help && h("p", { class: "help" }, help));
    this.element = h("div", { class: "live" },
      h("div", { class: "seen" },
        h("figure", { class: "screen" }, this.screen.canvas),
        h("div", { class: "row spread" }, h("div", { class: "row" }, this.press, this.hold, this.record), h("div", { class: "row" }, this.rate, this.at)),
        this.state, this.trouble, this.line.element),
      h("div", { class: "said-to card" },
        field("Prompt", this.prompt), h("div", { class: "row" }, this.say),
        this.guidance.element, this.speed.element,
        h("details", { open: true }, h("summary", {}, "What it starts with"),
          h("div", { class: "few" }, field("Model", this.model), field("Seed", this.seed), field("Steps a block", this.steps, this.steps_help), field("First frame", this.picture), this.sent)),
        h("details", {}, h("summary", {}, "Save, and go on later"),
          h("div", { class: "few" }, field("Name", this.name), h("button", { class: "small", onclick: () => this.ask("save", { name: this.name.value }) }, icon("download"), "Save this point"),
            field("Saved", this.saved), this.load)),
        h("button", { class: "small quiet", onclick: () => this.copy() }, icon("copy"), "Copy the commands that make it")));
    hear("live", (told) => this.show(told), signal);
  }

  slider(name, label, help, low, high, step, words) {
    const value = h("output", { class: "numbers" }), id = unique(name), about = unique("about");
    const input = h("input", { type: "range", id, min: low, max: high, step, "aria-describedby": about,
      oninput: () => { held = true; value.textContent = words(Number(input.value)); },
      onchange: () => { held = false; if (this.streams) this.ask("steer", { [name]: Number(input.value) }); else own = true; } });
    let held = false, own = false;
    const show = (now) => { if (!held && !(own && !this.streams) && now !== undefined) { input.value = now; value.textContent = words(Number(now)); } };
    const element = h("div", { class: "field" }, h("label", { for: id, class: "row spread" }, h("span", {}, label), value), input, h("p", { class: "help", id: about }, help));
    return { element, show, get value() { return Number(input.value); }, get own() { return own; } };
  }

  get streams() { return ["running", "paused"].includes(this.told.status); }

  ask(what, body) { return trying(() => post(`/api/live/${what}`, body)); }

  open(model) { this.model.value = model; return this.ask("open", { model }); }

  start() {
    this.screen.clear();
    const begin = { prompt: this.prompt.value, seed: Math.max(0, Math.floor(Number(this.seed.value) || 0)) };
    if (this.steps.value) begin.num_steps = Number(this.steps.value);
    if (this.guidance.own || this.streams) begin.guidance_scale = this.guidance.value;
    if (this.speed.own || this.streams) begin.speed = this.speed.value;
    if (this.image) begin.image = this.image.id;
    this.pressed = performance.now();
    return this.ask("start", begin);
  }

  submit() { return this.streams ? this.ask("steer", { prompt: this.prompt.value }) : this.start(); }

  async send() {
    const [file] = this.picture.files;
    if (!file) return;
    const found = await trying(() => upload(file, () => {}, this.signal));
    if (found && found.kind !== "image") { toast(`${file.name} is no picture; a stream starts from a picture`, { bad: true }); this.picture.value = ""; return; }
    this.image = found || null;
    this.sent.hidden = !found;
    if (found) this.sent.replaceChildren(h("img", { src: `/api/uploads/poster?id=${found.id}`, alt: found.name, height: 48 }), h("button", { class: "quiet small icon", "aria-label": "take it out", onclick: () => { this.image = null; this.picture.value = ""; this.sent.hidden = true; } }, icon("close")));
  }

  async copy() {
    const answer = await fetch("/api/live/script", { signal: this.signal });
    await navigator.clipboard.writeText(await answer.text()).then(() => toast("the commands are copied"), () => toast("the browser does not let a page copy here", { bad: true }));
  }

  show(told) {
    this.told = told;
    const { status } = told, words = { none: "no model is open", loading: `${told.model} is loading`, ready: "ready: press start", running: "", paused: "paused" };
    this.state.textContent = words[status] ?? status;
    this.press.disabled = !["ready", "running", "paused"].includes(status);
    this.press.lastChild.textContent = this.streams ? "Start anew" : "Start";
    this.hold.disabled = this.record.disabled = this.say.disabled = !this.streams;
    this.hold.setAttribute("aria-pressed", String(status === "paused"));
    this.hold.replaceChildren(icon(status === "paused" ? "start" : "pause"), status === "paused" ? "Go on" : "Pause");
    this.record.setAttribute("aria-pressed", String(Boolean(told.recording)));
    this.record.lastChild.textContent = told.recording ? "Stop recording" : "Record";
    this.trouble.hidden = !told.trouble;
    this.trouble.textContent = told.trouble || "";
    if (told.model && this.model.value !== told.model) this.model.value = told.model;
    if (told.settings) {
      this.guidance.show(told.settings.guidance_scale);
      if (told.model !== this.stepped) {
        this.stepped = told.model;
        this.steps.value = told.lively;
        this.steps_help.textContent = told.lively < told.own_steps ? `as many as keep up on this machine; the model's own are ${told.own_steps}` : "the model's own";
      }
    }
    this.speed.show(told.speed ?? 1);
    if (told.width) this.screen.canvas.style.setProperty("--shape", `${told.width} / ${told.height}`);
    this.rate.textContent = this.streams && told.made ? `${told.made.toFixed(2)} s a second` : "";
    this.rate.classList.toggle("warn", told.made > 1);
    const known = JSON.stringify(told.states || []);
    if (known !== this.known) {
      this.known = known;
      this.saved.replaceChildren(...(told.states || []).map((name) => h("option", { value: name }, name)));
    }
    this.load.disabled = !(told.states || []).length || status === "loading" || status === "none";
    if (told.noted && told.noted !== this.noted && this.noted !== undefined) toast(told.note);
    this.noted = told.noted ?? this.noted ?? 0;
    this.line.show(told);
  }
}
