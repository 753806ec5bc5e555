import { h, size } from "../lib/dom.js";
import { get, post } from "../lib/api.js";
import { toast, trying } from "../lib/toast.js";

// What was deleted, until it is brought back or is gone for good.
export class Bin {
  constructor(changed, signal) {
    this.changed = changed;
    this.list = h("ul", { class: "jobs" });
    this.clear = h("button", { class: "danger", onclick: () => this.empty() }, "Delete for good");
    this.dialog = h("dialog", { class: "bin", "aria-labelledby": "bin-title" },
      h("header", { class: "row spread" }, h("h2", { id: "bin-title" }, "Bin"), h("button", { class: "quiet", onclick: () => this.dialog.close() }, "Close")), this.list, h("footer", { class: "row" }, this.clear));
    signal.addEventListener("abort", () => this.dialog.remove());
  }

  async open() {
    if (!this.dialog.isConnected) document.body.append(this.dialog);
    await this.draw();
    if (!this.dialog.open) this.dialog.showModal();
  }

  async draw() {
    const told = await trying(() => get("/api/bin"));
    if (!told) return;
    this.clear.disabled = !told.bins.length;
    this.clear.textContent = told.bins.length ? `Delete ${size(told.bins.reduce((sum, one) => sum + one.bytes, 0))} for good` : "Delete for good";
    this.list.replaceChildren(...told.bins.map((one) => h("li", { class: "job" },
      h("span", { class: "what" }, one.names.slice(0, 3).join(", ") + (one.names.length > 3 ? ` and ${one.names.length - 3} more` : "")), h("span", { class: "muted" }, size(one.bytes)),
      h("button", { class: "quiet small", onclick: () => this.back(one.ticket) }, "Bring back"))));
    if (!told.bins.length) this.list.append(h("li", { class: "empty" }, "nothing is in the bin"));
  }

  async back(ticket) {
    if (await trying(() => post("/api/bin/restore", { ticket }))) { this.changed(); await this.draw(); }
  }

  async empty() {
    const told = await trying(() => post("/api/bin/empty"));
    if (told) { toast(`${size(told.bytes)} are free`); await this.draw(); }
  }
}
