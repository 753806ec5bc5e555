import { h } from "../lib/dom.js";
import { get } from "../lib/api.js";
import { Form } from "../create/form.js";
import { Gallery } from "../create/gallery.js";
import { Line } from "../create/line.js";

// Create: what is to be made on one side; on the other what is being made, and what was.
export async function mount(place, signal) {
  const asked = get("/api/create/form", signal), line = new Line(signal), gallery = new Gallery(signal), empty = h("div", { class: "form card" });
  place.append(h("h1", { class: "hush" }, "Create"), h("div", { class: "create" }, empty, h("div", { class: "made" }, line.element, gallery.element)));
  const form = gallery.form = new Form(await asked, signal);
  await form.begin(location.search);  // before anybody types
  if (signal.aborted) return;
  if (location.search) history.replaceState(null, "", location.pathname);
  empty.replaceWith(form.element);
  const whole = document.documentElement;
  for (const type of ["dragenter", "dragover"]) whole.addEventListener(type, (event) => { event.preventDefault(); document.body.classList.add("dragging"); }, { signal });
  for (const type of ["dragleave", "drop", "dragend"]) whole.addEventListener(type, (event) => { if (type !== "dragleave" || !event.relatedTarget) document.body.classList.remove("dragging"); }, { signal });
  whole.addEventListener("drop", (event) => { event.preventDefault(); if (event.dataTransfer.files.length) form.slots.dropped(event.dataTransfer); }, { signal });
  document.addEventListener("paste", (event) => { if (event.clipboardData.files.length) form.slots.dropped(event.clipboardData); }, { signal });
}
