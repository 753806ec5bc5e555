import { h, unique } from "../lib/dom.js";
import { icon } from "../lib/icons.js";
import { get, upload } from "../lib/api.js";
import { toast, trying } from "../lib/toast.js";

// The files of the form: a place each, by drop, by paste or by choosing. A reference is "upload:ID" or "result:NAME".
const KINDS = {
  image: { title: "First frame", glyph: "image", takes: "image", hint: "a picture to start from" },
  video: { title: "Go on from", glyph: "video", takes: "video", hint: "a video that is continued" },
  last_image: { title: "Last frame", glyph: "image", takes: "image", hint: "a picture to end with" },
  source: { title: "Change", glyph: "again", takes: "video", hint: "a video that is made anew, at a strength" },
};
const CLASH = { image: ["video", "source"], video: ["image", "source"], last_image: ["source"], source: ["image", "video", "last_image"] };

export class Slots {
  constructor(helps, changed, signal) {
    this.values = {};
    this.changed = changed;
    this.signal = signal;
    this.slots = Object.fromEntries(Object.keys(KINDS).map((name) => [name, this.slot(name, helps[name] || "")]));
    this.element = h("div", { class: "slots", role: "group", "aria-label": "pictures and videos to start from" }, Object.values(this.slots).map((slot) => slot.element));
    this.show();
  }

  slot(name, help) {
    const kind = KINDS[name], about = unique("slot");
    const input = h("input", { type: "file", class: "hush", tabIndex: -1, "aria-hidden": "true", accept: `${kind.takes}/*`, onchange: () => { if (input.files[0]) this.send(name, input.files[0]); input.value = ""; } });
    const button = h("button", { type: "button", class: "slot", "aria-describedby": about, title: help, onclick: () => input.click() });
    const clear = h("button", { type: "button", class: "quiet icon small clear", "aria-label": `${kind.title}: take it out`, onclick: () => this.set(name, null) }, icon("close"));
    const element = h("div", { class: "slotted" }, button, clear, input, h("span", { class: "hush", id: about }, help));
    for (const type of ["dragenter", "dragover"]) element.addEventListener(type, (event) => { if (!button.disabled) { event.preventDefault(); element.classList.add("over"); } });
    for (const type of ["dragleave", "drop"]) element.addEventListener(type, () => element.classList.remove("over"));
    element.addEventListener("drop", (event) => {
      if (button.disabled) return;
      event.preventDefault();
      event.stopPropagation();
      this.dropped(event.dataTransfer, name);
    });
    return { element, button, clear, kind };
  }

  show() {
    for (const [name, { button, clear, kind, element }] of Object.entries(this.slots)) {
      const value = this.values[name], other = CLASH[name].find((clashing) => this.values[clashing]);
      button.disabled = Boolean(other) && !value;
      clear.hidden = !value;
      element.classList.toggle("full", Boolean(value) && !value.glyph);
      const picture = value && !value.glyph && (value.poster ? h("img", { src: value.poster, alt: "" }) : h("progress", { max: 1, value: value.sent || 0, "aria-label": "sending" }));
      button.replaceChildren(picture || icon(kind.glyph), h("span", {}, value && value.glyph ? value.name : kind.title));
      button.setAttribute("aria-label", `${kind.title}: ${value ? value.name || "chosen" : other ? `not beside ${KINDS[other].title.toLowerCase()}` : kind.hint}`);
    }
  }

  // Take a reference, with what is known of it; null = nothing.
  set(name, value) {
    if (value) {
      for (const other of CLASH[name]) delete this.values[other];
      this.values[name] = value;
    } else delete this.values[name];
    this.show();
    this.changed();
  }

  async refer(name, reference) {
    const [kind, id] = [reference.slice(0, reference.indexOf(":")), reference.slice(reference.indexOf(":") + 1)];
    if (kind === "result") { this.set(name, { reference, name: id, poster: `/api/results/poster?name=${encodeURIComponent(id)}` }); return; }
    if (kind === "data") { this.set(name, { reference, name: id.split("/").pop(), glyph: true }); return; }
    const facts = await get(`/api/uploads/facts?id=${encodeURIComponent(id)}`, this.signal);
    this.set(name, { reference, name: facts.name, poster: `/api/uploads/poster?id=${facts.id}` });
  }

  async send(name, file) {
    const coming = { name: file.name, sent: 0 };
    this.set(name, coming);
    const made = await trying(() => upload(file, (sent) => { coming.sent = sent; this.show(); }, this.signal));
    if (this.values[name] !== coming) return;
    if (!made) { this.set(name, null); return; }
    if (made.kind !== KINDS[name].takes) {
      toast(`${file.name} is a ${made.kind === "image" ? "picture" : "video"}; ${KINDS[name].title.toLowerCase()} takes a ${KINDS[name].takes === "image" ? "picture" : "video"}`, { bad: true });
      this.set(name, null);
      return;
    }
    this.set(name, { reference: `upload:${made.id}`, name: made.name, poster: `/api/uploads/poster?id=${made.id}` });
  }

  // Something that was dropped or pasted: a file, or a result of the gallery.
  dropped(data, name) {
    const result = data.getData("application/x-result"), file = data.files[0];
    if (result) {
      const where = name || "source";
      if (KINDS[where].takes === "image") toast("a result is a video; take a frame of it in its view", { bad: true });
      else this.set(where, { reference: `result:${result}`, name: result, poster: `/api/results/poster?name=${encodeURIComponent(result)}` });
    } else if (file) {
      const moving = file.type.startsWith("video/") || file.type === "image/gif";
      this.send(name || (moving ? "video" : "image"), file);
    }
  }

  get said() {
    return Object.fromEntries(Object.entries(this.values).filter(([, value]) => value.reference).map(([name, value]) => [name, value.reference]));
  }

  get sending() { return Object.values(this.values).some((value) => !value.reference); }
}
