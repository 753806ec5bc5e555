// A new run: YAML that is checked while it is typed, a place, and the command that does the same.
import { find, h, unique } from "../lib/dom.js";
import { get, post } from "../lib/api.js";
import { icon } from "../lib/icons.js";
import { toast, trying } from "../lib/toast.js";
import { say, span, whole } from "../lib/figures.js";
import { copy } from "./overview.js";
import { KINDS } from "./words.js";

const DRAFT = "runs.draft", PAUSE = 250;
const FIRST = "data:\n  folder: data/my-clips\n  height: 64\n  width: 64\n  fps: 8\nvae:\n  preset: tiny\nloop:\n  train_steps: 1000\n";

export class NewRun {
  // started(key): a run has begun.
  constructor({ started, signal }) {
    Object.assign(this, { started, signal, recipes: [], help: new Map() });
    this.build();
    signal.addEventListener("abort", () => this.dialog.remove());
  }

  build() {
    const ids = { text: unique("yaml"), name: unique("name"), root: unique("root"), kind: unique("kind"), from: unique("from"), help: unique("help"), told: unique("told") };
    this.from = h("select", { id: ids.from, onchange: () => this.take() }, h("option", { value: "" }, "an example"));
    this.kind = h("select", { id: ids.kind, onchange: () => this.check() }, h("option", { value: "auto" }, "what the text fits"), Object.entries(KINDS).map(([value, text]) => h("option", { value }, text)));
    this.root = h("select", { id: ids.root, onchange: () => this.check() });
    this.name = h("input", { id: ids.name, placeholder: "my-vae", autocomplete: "off", spellcheck: false, oninput: () => this.later() });
    this.text = h("textarea", { id: ids.text, rows: 16, wrap: "off", spellcheck: false, autocapitalize: "off", autocomplete: "off", "aria-describedby": `${ids.told} ${ids.help}`, oninput: () => { this.number(); this.later(); this.explain(); } });
    this.text.addEventListener("scroll", () => { this.gutter.scrollTop = this.text.scrollTop; }, { signal: this.signal });
    for (const event of ["keyup", "click"]) this.text.addEventListener(event, () => this.explain(), { signal: this.signal });
    this.gutter = h("div", { class: "gutter numbers", "aria-hidden": "true" });
    this.about = h("p", { class: "help about-setting", id: ids.help });
    this.told = h("div", { class: "checked", id: ids.told, role: "status", "aria-live": "polite" });
    this.aside = h("input", { type: "checkbox" });
    this.there = h("label", { class: "check", hidden: true }, this.aside, "set the run that is there aside, and begin anew");
    this.command = h("code", { class: "command" });
    this.cost = h("div", { class: "cost", role: "status", "aria-live": "polite" });
    this.ask = h("button", { type: "button", disabled: true, title: "Make some real steps, and tell how long all of them would take", onclick: () => trying(() => this.plan()) }, "What will it cost?");
    this.go = h("button", { class: "primary", type: "submit", disabled: true }, icon("start"), "Start");
    const field = (id, label, input, help) => h("div", { class: "field" }, h("label", { htmlFor: id }, label), input, help && h("p", { class: "help" }, help));
    this.form = h("form", { class: "recipe", onsubmit: (event) => { event.preventDefault(); trying(() => this.start()); } },
      h("header", { class: "row spread" }, h("h2", {}, "New run"), h("button", { type: "button", class: "quiet icon", "aria-label": "close", onclick: () => this.dialog.close() }, icon("close"))),
      h("div", { class: "fields" }, field(ids.name, "Name", this.name), field(ids.root, "In", this.root), field(ids.kind, "Train", this.kind), field(ids.from, "Begin with", this.from)),
      h("div", { class: "field" }, h("label", { htmlFor: ids.text }, "Settings (YAML); what is left out is as it is by default"), h("div", { class: "editor" }, this.gutter, this.text)),
      this.about, this.told, this.there, this.cost,
      h("div", { class: "row spread end" }, h("div", { class: "row command-line" }, this.command, h("button", { type: "button", class: "quiet icon", "aria-label": "copy the command", title: "Copy the command", onclick: () => copy(this.command.textContent) }, icon("copy"))),
        h("div", { class: "row" }, this.ask, this.go)));
    this.dialog = h("dialog", { class: "new-run", "aria-label": "new run" }, this.form);
    document.body.append(this.dialog);
  }

  async open(text, kind = "auto", name = "") {
    const draft = JSON.parse(sessionStorage.getItem(DRAFT) || "null") || { text: FIRST, name: "", kind: "auto" };
    const given = text === undefined ? draft : { text, kind, name };
    this.text.value = given.text;
    this.kind.value = given.kind;
    this.name.value = given.name;
    this.dialog.showModal();
    this.number();
    this.check();
    this.name.focus();
    if (!this.recipes.length) {
      this.recipes = await trying(() => get("/api/runs/recipes", this.signal)) || [];
      this.from.append(...this.recipes.map((recipe) => h("option", { value: recipe.name }, `${recipe.name}: ${recipe.about}`)));
    }
  }

  // Where runs may be made.
  places(roots) {
    const same = roots.length === this.root.children.length && roots.every((root, index) => this.root.children[index].value === root.name);
    if (same) return;
    this.root.replaceChildren(...roots.map((root) => h("option", { value: root.name }, root.folder)));
    if (this.dialog.open) this.check();
  }

  take() {
    const recipe = this.recipes.find((one) => one.name === this.from.value);
    if (!recipe) return;
    this.text.value = recipe.text;
    this.kind.value = "auto";
    if (!this.name.value) this.name.value = `${recipe.name}`;
    this.number();
    this.check();
  }

  said() { return { text: this.text.value, kind: this.kind.value, root: this.root.value, name: this.name.value.trim() }; }

  later() {
    clearTimeout(this.pause);
    this.go.disabled = true;
    this.pause = setTimeout(() => this.check(), PAUSE);
  }

  async check() {
    const said = this.said(), turn = this.turn = (this.turn || 0) + 1;
    sessionStorage.setItem(DRAFT, JSON.stringify(said));
    this.go.disabled = true;
    let found;
    try {
      found = await post("/api/runs/check", said, this.signal);
    } catch (error) {
      if (error.name !== "AbortError" && turn === this.turn) this.told.replaceChildren(h("p", { class: "bad" }, error.message));
      return;
    }
    if (turn !== this.turn) return;
    this.found = found;
    this.show(found);
    if (!this.help.has(found.kind)) {
      this.help.set(found.kind, null);
      const all = await get(`/api/runs/help?kind=${found.kind}`, this.signal).catch(() => []);
      this.help.set(found.kind, new Map(all.map((one) => [one.name, one])));
      this.explain();
    }
  }

  show(found) {
    const { problems } = found;
    this.command.textContent = found.command;
    this.there.hidden = !found.there || found.alive;
    const told = problems.map((problem) => h("li", {}, problem.line
      ? h("button", { type: "button", class: "quiet small problem", onclick: () => this.jump(problem.line) }, h("b", { class: "numbers" }, `line ${problem.line}`), h("span", {}, problem.text))
      : h("span", { class: "problem" }, problem.text)));
    if (found.alive) told.unshift(h("li", { class: "problem" }, "a run of this name is at work; stop it first, or give another name"));
    if (told.length) this.told.replaceChildren(h("ul", { class: "problems" }, told));
    else {
      const [frames, height, width] = found.size, stages = found.stages > 1 ? ` in ${found.stages} stages` : "";
      this.told.replaceChildren(h("p", { class: "good" }, `${KINDS[found.kind]}: ${whole(found.train_steps)} steps${stages}, ${found.batch} clips a step, ${frames} frame${frames === 1 ? "" : "s"} of ${width}×${height}.`),
        ...(found.there ? [h("p", { class: "muted" }, "There is a run of this name: it goes on if the settings that belong to its weights are the same.")] : []));
    }
    const lines = new Set(problems.map((problem) => problem.line));
    [...this.gutter.children].forEach((row, index) => row.classList.toggle("wrong-line", lines.has(index + 1)));
    this.go.disabled = problems.length > 0 || found.alive;
    this.ask.disabled = this.planning || problems.some((problem) => problem.field !== "name");
  }

  // What `video-gen plan` tells of the text as it is now.
  async plan() {
    const said = this.said();
    this.planning = true;
    this.ask.disabled = true;
    this.cost.replaceChildren(h("p", { class: "muted" }, "making some real steps to tell; this can take a minute"), h("progress", {}));
    try {
      const found = await post("/api/runs/plan", said, this.signal);
      const same = this.said().text === said.text ? "" : " (of the text as it was then)";
      this.cost.replaceChildren(h("p", {}, `${found.hours === null ? "Time is not known" : `About ${span(3600 * found.hours)} of training on this machine`}, ${say("memory_mb", null, found.memory_mb)} of memory, ${whole(found.parameters)} parameters${same}. Validation, samples and checkpoints come on top.`),
        ...(found.notes || []).map((note) => h("p", { class: "muted" }, note)));
    } catch (error) {
      this.cost.replaceChildren(h("p", { class: "bad" }, error.message));
    } finally {
      this.planning = false;
      this.check();
    }
  }

  number() {
    const many = this.text.value.split("\n").length;
    if (this.gutter.children.length === many) return;
    this.gutter.replaceChildren(...Array.from({ length: many }, (_, index) => h("div", {}, String(index + 1))));
    this.gutter.scrollTop = this.text.scrollTop;
  }

  jump(line) {
    const lines = this.text.value.split("\n"), start = lines.slice(0, line - 1).reduce((sum, one) => sum + one.length + 1, 0);
    this.text.focus();
    this.text.setSelectionRange(start, start + (lines[line - 1] || "").length);
    this.text.scrollTop = Math.max(0, (line - 5) * parseFloat(getComputedStyle(this.text).lineHeight));
    this.explain();
  }

  // What the setting means in whose line the cursor is.
  explain() {
    const help = this.found && this.help.get(this.found.kind), path = pathAt(this.text.value, this.text.selectionStart);
    const one = help && help.get(path), inner = help && path ? [...help.keys()].filter((name) => name.startsWith(`${path}.`)).map((name) => name.slice(path.length + 1)) : [];
    if (one) this.about.replaceChildren(h("code", {}, path), ` ${one.help} `, `Default: ${one.default === null ? "none" : Array.isArray(one.default) ? one.default.join(", ") || "none" : one.default}.`);
    else if (inner.length) this.about.replaceChildren(h("code", {}, path), ` takes ${inner.join(", ")}.`);
    else this.about.replaceChildren("The cursor on a setting tells what it means.");
  }

  async start() {
    const said = this.said();
    this.go.disabled = true;
    try {
      await post("/api/runs/start", { ...said, resume: this.aside.checked && !this.there.hidden ? "never" : "auto" }, this.signal);
    } finally {
      this.go.disabled = false;
    }
    toast(`${said.name} begins`);
    sessionStorage.removeItem(DRAFT);
    this.dialog.close();
    this.started(said.name ? `${said.root}/${said.name}` : said.root);
  }
}

// "loop.train_steps" for a place in a text, by the indentation of its lines, and by commas within { }.
export function pathAt(text, place) {
  const end = text.indexOf("\n", place), lines = text.slice(0, end < 0 ? text.length : end).split("\n");
  const start = lines.slice(0, -1).reduce((sum, line) => sum + line.length + 1, 0);
  const inner = /[{,]\s*(\w+)\s*:[^,{}]*$/.exec(lines.at(-1).slice(0, place - start));
  const parts = inner ? [inner[1]] : [];
  let deep = Infinity;
  for (const line of lines.reverse()) {
    const found = /^(\s*)([\w.]+)\s*:/.exec(line);
    if (!found) { if (deep === Infinity && line.trim()) return ""; continue; }
    if (found[1].length < deep) { parts.unshift(found[2]); deep = found[1].length; }
    if (deep === 0) break;
  }
  return parts.join(".");
}
