import { h, unique } from "../lib/dom.js";
import { get } from "../lib/api.js";
import { whole } from "../lib/figures.js";
import { trying } from "../lib/toast.js";

const FIELDS = [
  ["num_frames", "Frames", 17, 1, 1, "of a clip"], ["fps", "A second", 16, 0.1, "any", "to which videos are resampled"],
  ["height", "Height", 64, 8, 1, "pixels"], ["width", "Width", 64, 8, 1, "pixels"], ["stride", "Every", "", 1, 1, "frames from window to window; none: no overlap"],
];
const KEPT = "data.shape";

// The windows of training: their size, and how many of them the folder makes.
export class Shape {
  constructor({ changed, signal }) {
    this.changed = changed;
    const kept = JSON.parse(localStorage.getItem(KEPT) || "{}");
    this.inputs = {};
    const later = () => { clearTimeout(this.waiting); this.waiting = setTimeout(() => this.keep(), 300); };
    const field = (name, label, input, help) => {
      this.inputs[name] = input;
      input.id = unique(name);
      return h("div", { class: "field" }, h("label", { for: input.id }, label), input, h("p", { class: "help" }, help));
    };
    this.counts = h("ul", { class: "counts numbers", role: "status" });
    this.model = h("select", { id: unique("model"), onchange: () => this.take() }, h("option", { value: "" }, "a model's own size"));
    this.element = h("details", { class: "card shape", ontoggle: () => this.names(signal) }, this.sum = h("summary", {}, "Windows as training sees them"),
      h("div", { class: "few" }, ...FIELDS.map(([name, label, value, min, step, help]) => field(name, label, h("input", { type: "number", min, step, value: kept[name] ?? value, oninput: later }), help))),
      field("buckets", "Sizes for footage of many forms", h("input", { placeholder: "17x64x64, 17x48x80", value: kept.buckets ?? "", oninput: later }), "frames x height x width, each file goes to the one that fits it best; the size above must be one of them"),
      h("div", { class: "field" }, h("label", { for: this.model.id }, "Set all from"), this.model), this.counts);
  }

  async names(signal) {
    if (this.named) return;
    this.named = true;
    const form = await trying(() => get("/api/create/form", signal));
    if (form) this.model.append(...form.models.map((name) => h("option", { value: name }, name.split("/").slice(-3).join("/"))));
  }

  async take() {
    if (!this.model.value) return;
    const told = await trying(() => get(`/api/create/model?name=${encodeURIComponent(this.model.value)}`));
    if (!told || !told.clip) return;
    for (const name of ["num_frames", "fps", "height", "width"]) if (told.clip[name] !== undefined) this.inputs[name].value = told.clip[name];
    this.inputs.buckets.value = "";
    this.keep();
  }

  keep() {
    localStorage.setItem(KEPT, JSON.stringify(Object.fromEntries(Object.entries(this.inputs).map(([name, input]) => [name, input.value]))));
    this.changed();
  }

  // As the server takes it; null, and said so, if it is none.
  get value() {
    const clip = {};
    for (const [name] of FIELDS) {
      const text = this.inputs[name].value;
      if (text !== "") clip[name] = Number(text);
    }
    const buckets = [];
    for (const part of this.inputs.buckets.value.split(/[,;\s]+/).filter(Boolean)) {
      const found = /^(\d{1,7})x(\d{1,5})x(\d{1,5})$/.exec(part);
      if (!found) { this.wrong(`'${part}' is no size; write frames x height x width, such as 17x64x64`); return null; }
      buckets.push(found.slice(1).map(Number));
    }
    if (buckets.length) clip.buckets = buckets;
    return clip;
  }

  tell(told) {
    const windows = told.buckets.reduce((sum, [, , count]) => sum + count, 0);
    this.sum.textContent = `Windows as training sees them: ${whole(windows)}`;
    this.counts.replaceChildren(
      ...told.buckets.map(([name, files, count]) => h("li", {}, h("b", {}, whole(count)), ` of ${name.replaceAll("x", " × ")}, out of ${whole(files)} files`)),
      ...(told.short ? [h("li", { class: "warn" }, `${whole(told.short)} files are too short for any`)] : []),
      ...(told.unknown ? [h("li", { class: "muted" }, `${whole(told.unknown)} files are not looked at yet, or cannot be read`)] : []));
  }

  wrong(line) { this.sum.textContent = "Windows as training sees them"; this.counts.replaceChildren(h("li", { class: "bad" }, line)); }
}
