import { ago, h, unique } from "../lib/dom.js";
import { post } from "../lib/api.js";
import { hear } from "../lib/events.js";
import { icon } from "../lib/icons.js";
import { span, whole } from "../lib/figures.js";
import { trying } from "../lib/toast.js";
import { Thumb } from "./thumb.js";

const KINDS = {
  unreadable: "cannot be decoded to the end", "bad actions": "actions that do not fit the video", "caption too long": "longer than the text encoder takes",
  "too short": "too short for a window", "near-duplicate": "looks like another file", still: "nothing moves",
};
const SHOWN = 6;

// What `video-gen data check` says of the folder, with the files beside it.
export class Check {
  constructor({ page, signal }) {
    Object.assign(this, { page, signal });
    this.boxes = Object.fromEntries(Object.keys(KINDS).map((kind) => [kind, h("input", { type: "checkbox", checked: kind === "unreadable" })]));
    this.tokens = h("input", { type: "number", min: 2, max: 100000, step: 1, value: 128, id: unique("tokens") });
    this.start = h("button", { class: "primary", onclick: () => this.begin() }, icon("check"), "Read every frame");
    this.stop = h("button", { hidden: true, onclick: () => trying(() => post("/api/data/check/stop", { set: this.running })) }, icon("stop"), "Stop");
    this.bar = h("progress", { "aria-label": "files read", hidden: true });
    this.state = h("p", { class: "muted numbers", role: "status" });
    this.found = h("div", { class: "found" });
    this.element = h("details", { class: "card check" }, this.sum = h("summary", {}, "Check"),
      h("p", { class: "help" }, "Decodes everything, and writes quarantine.jsonl anew: what training is to skip. What was put there by hand stays."),
      h("fieldset", { class: "kinds" }, h("legend", { class: "help" }, "Into quarantine goes what is"), Object.entries(KINDS).map(([kind, about]) => h("label", { class: "check", title: about }, this.boxes[kind], kind))),
      h("div", { class: "row" }, h("label", { for: this.tokens.id, class: "help" }, "a caption may have so many tokens"), h("div", { class: "narrow" }, this.tokens)),
      h("div", { class: "row" }, this.start, this.stop, this.state), this.bar, this.found);
    hear("data check", (told) => this.tell(told), signal);
  }

  begin() {
    const clip = this.page.shape.value;
    if (!clip) return;
    const quarantine = Object.keys(KINDS).filter((kind) => this.boxes[kind].checked);
    return trying(() => post("/api/data/check", { set: this.page.ref, clip, quarantine, max_tokens: Number(this.tokens.value) || 128 }));
  }

  tell(told) {
    this.running = told.set;
    const mine = told.set === this.page.ref;
    this.start.disabled = Boolean(told.set);
    this.stop.hidden = this.bar.hidden = !mine;
    this.state.classList.remove("bad");
    if (told.set) {
      this.bar.max = told.of || 1;
      this.bar.value = told.done || 0;
      const left = told.done > 3 ? ((Date.now() / 1000 - told.began) / told.done) * (told.of - told.done) : null;
      this.state.textContent = mine ? `${whole(told.done)} of ${whole(told.of)} files${left === null ? "" : `, ${span(Math.max(0, left))} left`}` : `${told.set} is being read`;
    } else if (told.ended === this.page.ref && told.at !== this.heard) {
      this.heard = told.at;
      this.state.textContent = told.error || "";
      this.state.classList.toggle("bad", Boolean(told.error));
      if (!told.error && this.page.told) this.page.changed();
    } else this.state.textContent = "";
  }

  show(report) {
    if (!report) { this.sum.textContent = "Check: not read yet"; this.found.replaceChildren(); return; }
    const troubles = Object.values(report.counts).reduce((sum, count) => sum + count, 0) + report.faults.length;
    this.sum.textContent = `Check: ${troubles ? troubles === 1 ? "one trouble" : `${whole(troubles)} troubles` : "nothing wrong"}, ${ago(report.when)}`;
    this.found.replaceChildren(
      h("p", { class: "numbers" }, `${whole(report.files)} files, ${whole(report.videos)} of them videos of ${span(report.length)}; ${report.clips.map(([name, count]) => `${whole(count)} clips of ${name.replaceAll("x", " × ")}`).join(", ")}; ${whole(report.held_out[1])} clips of ${whole(report.held_out[0])} files are held out. Read in ${span(report.seconds)}.`),
      ...Object.entries(report.problems).filter(([, rows]) => rows.length).map(([kind, rows]) => this.kind(kind, rows, report.counts[kind])),
      ...(report.faults.length ? [h("ul", { class: "notes" }, report.faults.slice(0, 20).map((line) => h("li", { class: "bad" }, line)))] : []),
      ...(report.remarks.length ? [h("details", {}, h("summary", {}, `${whole(report.remarks.length)} files with a remark`), h("ul", { class: "notes" }, report.remarks.slice(0, 200).map(([name, lines]) => h("li", {}, this.link(name), `: ${lines.join("; ")}`))))] : []),
      ...(report.actions.length ? [this.actions(report.actions)] : []),
      ...(report.unwritten ? [h("p", { class: "bad" }, `quarantine.jsonl was not written: ${report.unwritten}`)] : []));
  }

  kind(kind, rows, count) {
    return h("section", { class: "trouble" },
      h("div", { class: "row spread" }, h("h3", {}, `${kind}: ${whole(count)}`), h("button", { class: "small quiet", onclick: () => { this.page.ask("trouble", kind); this.page.filters.scrollIntoView({ block: "center" }); } }, "On the wall")),
      h("ul", {}, rows.slice(0, SHOWN).map(([name, why]) => h("li", {},
        kind === "unreadable" ? null : h("button", { class: "shot", "aria-label": `open ${name}`, onclick: () => this.page.viewer.open(name) }, new Thumb(this.page.ref, { name, v: "" }).element),
        h("span", {}, this.link(name), h("small", { class: "muted" }, why))))),
      count > SHOWN && h("p", { class: "muted" }, `and ${whole(count - SHOWN)} more, on the wall`));
  }

  link(name) { return h("button", { class: "link", onclick: () => this.page.viewer.open(name) }, name); }

  // How each key is used: a bar is its share of the frames.
  actions(rows) {
    return h("section", {}, h("h3", {}, "How keys are used"), h("dl", { class: "keys" }, rows.map((row) => h("div", {}, h("dt", {}, row.key),
      h("dd", {}, h("meter", { min: 0, max: 1, value: row.share, "aria-label": `share of frames with ${row.key}` }), h("span", { class: "muted numbers" }, `${(100 * row.share).toFixed(1)}% of frames, ${whole(row.times)} times, ${row.mean.toFixed(1)} frames each`))))));
  }
}
