// How the chosen runs stand: how far, how fast, what is left, how good, what it takes; and what can be done with each.
import { h, size } from "../lib/dom.js";
import { icon } from "../lib/icons.js";
import { line } from "../lib/colours.js";
import { pace, say, span, whole } from "../lib/figures.js";
import { toast, trying } from "../lib/toast.js";
import { post } from "../lib/api.js";
import { KINDS, alive, best, chip, part, steps, still, title } from "./words.js";

const MOST = 4;

export class Overview {
  constructor({ changed, signal }) {
    Object.assign(this, { changed, signal, stopping: new Map() });
    this.element = h("div", { class: "overview" });
    this.drawn = new Map();
  }

  // about: key to what the server says of a run that is looked at, where it has come.
  set(chosen, rows, about) {
    const keys = [...chosen.keys()].filter((key) => rows.has(key));
    const cards = keys.slice(0, MOST).map((key) => {
      const row = rows.get(key), told = about.get(key), index = chosen.get(key);
      if (!alive(row)) this.stopping.delete(key);
      const version = JSON.stringify([row.version, row.left, still(row), index, told && told.version, this.stopping.get(key)]);
      const known = this.drawn.get(key);
      if (known && known[0] === version) return known[1];
      const open = known && known[1].contains(document.activeElement) && document.activeElement.dataset.act;
      const card = this.card(row, told, index);
      this.drawn.set(key, [version, card, open]);
      return card;
    });
    const rest = keys.length > MOST && h("p", { class: "muted" }, `and ${keys.length - MOST} more runs, whose curves lie over these`);
    for (const key of this.drawn.keys()) if (!keys.includes(key)) this.drawn.delete(key);
    this.element.replaceChildren(...cards, ...(rest ? [rest] : []));
    for (const entry of this.drawn.values()) {
      const again = entry[2] && entry[1].querySelector(`[data-act="${entry[2]}"]`);
      if (again) again.focus();
      entry[2] = null;
    }
  }

  card(row, told, index) {
    const found = best(row), quiet = still(row), facts = [];
    const fact = (name, value, note, tone) => value && facts.push(h("div", {}, h("dt", {}, name), h("dd", { class: `numbers ${tone || ""}` }, value, note && h("span", { class: "muted" }, ` ${note}`))));
    fact("Made", steps(row));
    if (alive(row)) fact("Left", row.left !== null && span(row.left), row.left !== null && `done ${clockTime(row.left)}`);
    fact("Speed", row.pace && pace(row.pace), row.pace && row.batch ? `${Number((row.pace * row.batch).toPrecision(3))} clips/s` : "");
    fact("So far", typeof row.seconds === "number" && span(row.seconds), "training");
    fact(found ? `Best ${found.name.toLowerCase()}` : "", found && found.text, found && `at step ${whole(found.step)}${found.floor ? `; floor ${found.floor}` : ""}`, found && found.below ? "bad" : "");
    fact("Memory", typeof row.memory_mb === "number" && row.memory_mb > 0 && say("memory_mb", null, row.memory_mb), "at most");
    if (told) fact("On disk", size(told.sizes.all), `checkpoints ${size(told.sizes.checkpoints)}`);
    fact("Saved", typeof row.saved === "number" && `step ${whole(row.saved)}`);
    return h("article", { class: "card about", style: { "--line": `var(${line(index)})` }, "aria-label": row.key },
      h("header", {}, h("i", { class: "swatch" }), h("h2", {}, ...title(row)), h("span", { class: "chip" }, KINDS[row.kind] || "run"), chip(row)),
      h("progress", { value: part(row), max: 1, class: alive(row) ? "live" : "", "aria-label": "steps made" }),
      row.note && h("p", { class: `note ${["crashed", "killed"].includes(row.state) ? "bad" : "muted"}` }, row.note),
      quiet && h("p", { class: "note warn" }, quiet),
      found && found.below && h("p", { class: "note bad" }, "It is worse than PCA alone, its floor: a smaller learning rate, or more different clips, help."),
      h("dl", { class: "facts" }, facts),
      h("div", { class: "row acts" }, this.acts(row, told)));
  }

  acts(row, told) {
    const acts = [];
    const act = (name, glyph, text, hint, work, kind = "") => acts.push(h("button", { class: `small ${kind}`, title: hint, data: { act: name }, onclick: () => trying(work) }, icon(glyph), text));
    const name = row.name || row.root, send = (what, said = {}) => post(`/api/runs/${what}`, { root: row.root, name: row.name, ...said }, this.signal);
    if (alive(row)) {
      const again = this.stopping.has(row.key);
      act("stop", "stop", again ? "Stop at once" : "Stop", again ? "It finishes its step and saves; this ends it without" : "As Ctrl-C: it finishes its step, saves, and can go on from there", async () => {
        await send("stop", { again });
        this.stopping.set(row.key, true);
        toast(again ? `${name} is ended` : `${name} finishes its step and saves`);
        this.changed();
      }, "danger");
    } else if (/(^|\/)stage-\d+$/.test(row.name)) {
      acts.push(h("span", { class: "muted" }, "a stage: go on with the run it belongs to"));
    } else {
      if (row.state !== "finished") act("resume", "start", "Go on", "The same command again, from the newest checkpoint", async () => { await send("resume"); toast(`${name} goes on`); this.changed(); }, "primary");
      if (row.train_steps && row.state !== "crashed") {
        const more = h("input", { type: "number", min: 1, step: 1, value: row.train_steps * 2, "aria-label": "steps to go on to", class: "steps" });
        acts.push(h("details", { class: "longer" }, h("summary", {}, "Longer"), h("div", { class: "row" }, h("label", { class: "muted" }, "go on to step ", more),
          h("button", { class: "small", onclick: () => trying(async () => { await send("resume", { train_steps: Number(more.value) }); toast(`${name} goes on to step ${whole(Number(more.value))}`); this.changed(); }) }, "Go on"))));
      }
    }
    if (told) act("copy", "copy", "Command", told.command, async () => { await copy(told.command); }, "quiet");
    return acts;
  }
}

export async function copy(text) {
  try { await navigator.clipboard.writeText(text); toast("copied"); }
  catch { toast(text); }  // no clipboard without https beyond this machine
}

function clockTime(seconds) {
  const then = new Date(Date.now() + 1000 * seconds), today = new Date().toDateString() === then.toDateString();
  const time = then.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  return today ? `at ${time}` : `on ${then.toLocaleDateString([], { weekday: "short", day: "numeric", month: "short" })} at ${time}`;
}
