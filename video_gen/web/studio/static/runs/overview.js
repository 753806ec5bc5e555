// How the chosen runs stand: how far, how fast, what is left, how good, what it takes; and what can be done with each.
import { h, size } from "../lib/dom.js";
import { icon } from "../lib/icons.js";
import { line } from "../lib/colours.js";
import { pace, say, span, whole } from "../lib/figures.js";
import { toast, trying } from "../lib/toast.js";
import { post } from "../lib/api.js";
import { KINDS, alive, best, chip, notes, part, steps, title } from "./words.js";

const MOST = 12;

export class Overview {
  constructor({ changed, signal }) {
    Object.assign(this, { changed, signal, stopping: new Map(), drawn: "" });
    this.element = h("div", { class: "overview" });
  }

  // about: key to what the server says of a run that is looked at, where it has come. One run is a card, several are a table.
  set(chosen, rows, about) {
    const keys = [...chosen.keys()].filter((key) => rows.has(key)), runs = keys.slice(0, MOST).map((key) => [rows.get(key), about.get(key), chosen.get(key)]);
    for (const [row] of runs) if (!alive(row)) this.stopping.delete(row.key);
    const state = JSON.stringify([keys.length, runs.map(([row, told, index]) => [row.key, row.version, row.left, notes(row), index, told && told.version, this.stopping.get(row.key)])]);
    if (state === this.drawn) return;
    if (this.element.querySelector("details[open]") && this.keys === String(keys)) return;  // somebody types there
    this.drawn = state;
    this.keys = String(keys);
    const held = document.activeElement, act = this.element.contains(held) && held.dataset.act;
    this.element.replaceChildren(...(runs.length === 1 ? [this.card(...runs[0])] : runs.length ? this.table(runs, keys.length - runs.length) : []));
    const again = act && [...this.element.querySelectorAll("[data-act]")].find((one) => one.dataset.act === act);
    if (again) again.focus();
  }

  table(runs, more) {
    const head = ["Run", "", "Steps", "Left", "Best held out", "Speed", "So far", "Memory", "On disk", ""];
    const rows = runs.map(([row, told, index]) => {
      const found = best(row), said = notes(row);
      const cell = (value) => h("td", { class: "numbers" }, value || h("span", { class: "muted" }, "–"));
      return [h("tr", { class: said.length ? "noted" : "", style: { "--line": `var(${line(index)})` } },
        h("th", { scope: "row" }, h("i", { class: "swatch" }), h("span", {}, ...title(row))),
        h("td", {}, chip(row)),
        h("td", { class: "numbers" }, steps(row).replace(" steps", ""), h("progress", { value: part(row), max: 1, class: alive(row) ? "live" : "", "aria-label": "steps made" })),
        cell(alive(row) && row.left !== null && span(row.left)),
        h("td", { class: `numbers ${found && found.below ? "bad" : ""}` }, found ? [found.text, h("span", { class: "muted" }, `at ${whole(found.step)}${found.floor ? `, floor ${found.floor}` : ""}`)] : "–"),
        cell(row.pace && pace(row.pace)), cell(typeof row.seconds === "number" && span(row.seconds)),
        cell(typeof row.memory_mb === "number" && row.memory_mb > 0 && say("memory_mb", null, row.memory_mb)), cell(told && size(told.sizes.all)),
        h("td", {}, h("div", { class: "row acts" }, this.acts(row, told, false)))),
      said.length > 0 && h("tr", {}, h("td", { colSpan: head.length, class: "note" }, said.map(([text, tone]) => h("p", { class: tone }, text))))];
    });
    return [h("div", { class: "card scroll", tabIndex: 0, role: "region", "aria-label": "the runs that are chosen, side by side" },
      h("table", { class: "beside" }, h("thead", {}, h("tr", {}, head.map((name) => h(name ? "th" : "td", name ? { scope: "col" } : {}, name)))), h("tbody", {}, rows))),
    ...(more > 0 ? [h("p", { class: "muted" }, `and ${more} more, whose curves lie over these`)] : [])];
  }

  card(row, told, index) {
    const found = best(row), facts = [];
    const fact = (name, value, note, tone) => value && facts.push(h("div", {}, h("dt", {}, name), h("dd", { class: `numbers ${tone || ""}` }, value, note && h("span", { class: "muted" }, ` ${note}`))));
    fact("Made", steps(row));
    if (alive(row)) fact("Left", row.left !== null && span(row.left), row.left !== null && `done ${clockTime(row.left)}`);
    fact("Speed", row.pace && pace(row.pace), row.pace && row.batch ? `${Number((row.pace * row.batch).toPrecision(3))} clips/s` : "");
    fact("So far", typeof row.seconds === "number" && span(row.seconds), "training");
    fact(found ? `Best ${found.name.toLowerCase()}` : "", found && found.text, found && `at step ${whole(found.step)}${found.floor ? `; PCA alone, the floor: ${found.floor}` : ""}`, found && found.below ? "bad" : "");
    fact("Memory", typeof row.memory_mb === "number" && row.memory_mb > 0 && say("memory_mb", null, row.memory_mb), "at most");
    if (told) fact("On disk", size(told.sizes.all), `checkpoints ${size(told.sizes.checkpoints)}`);
    fact("Saved", typeof row.saved === "number" && `step ${whole(row.saved)}`);
    return h("article", { class: "card about", style: { "--line": `var(${line(index)})` }, "aria-label": row.key },
      h("header", {}, h("i", { class: "swatch" }), h("h2", {}, ...title(row)), h("span", { class: "chip" }, KINDS[row.kind] || "run"), chip(row)),
      h("progress", { value: part(row), max: 1, class: alive(row) ? "live" : "", "aria-label": "steps made" }),
      ...notes(row).map(([text, tone]) => h("p", { class: `note ${tone}` }, text)),
      h("dl", { class: "figures" }, facts),
      found && h("p", { class: "help" }, `Runs of this kind are judged by ${found.name.toLowerCase()} on clips that are held out: ${row.best.higher ? "more" : "less"} is better. ${row.keep === "last" ? "The model is made of the last weights (loop.keep)." : `The model is made of the best weights, ${alive(row) ? "so far " : ""}those of step ${whole(found.step)}.`}`),
      h("div", { class: "row acts" }, this.acts(row, told)));
  }

  acts(row, told, full = true) {
    const acts = [];
    const act = (name, glyph, text, hint, work, kind = "") => acts.push(h("button", { class: `small ${kind}`, title: hint, data: { act: `${name} ${row.key}` }, onclick: () => trying(work) }, icon(glyph), text));
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
      if (full) acts.push(h("span", { class: "muted" }, "a stage: go on with the run it belongs to"));
    } else {
      if (row.state !== "finished") act("resume", "start", "Go on", "The same command again, from the newest checkpoint", async () => { await send("resume"); toast(`${name} goes on`); this.changed(); }, full ? "primary" : "");
      if (full && row.train_steps && row.state !== "crashed") {
        const more = h("input", { type: "number", min: 1, step: 1, value: row.train_steps * 2, "aria-label": "steps to go on to", class: "steps" });
        acts.push(h("details", { class: "longer" }, h("summary", {}, "Longer"), h("div", { class: "row" }, h("label", { class: "muted" }, "go on to step ", more),
          h("button", { class: "small", onclick: () => trying(async () => { await send("resume", { train_steps: Number(more.value) }); toast(`${name} goes on to step ${whole(Number(more.value))}`); this.changed(); }) }, "Go on"))));
      }
    }
    if (told && full) act("copy", "copy", "Command", told.command, async () => { await copy(told.command); }, "quiet");
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
