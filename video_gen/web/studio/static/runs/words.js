// What a run is and how it stands, in words.
import { h } from "../lib/dom.js";
import { say, span, whole } from "../lib/figures.js";

export const KINDS = { vae: "VAE", diffusion: "Transformer", distill: "Student" };
export const ALIVE = ["starting", "running"];
export const STATES = {
  starting: ["starting", "warm", "It reads its data; the first line of the log comes with the first steps."],
  running: ["running", "live", "It trains."],
  finished: ["done", "good", "All steps are made, and its model is saved."],
  stopped: ["stopped", "rest", "It was stopped, and goes on from where it is."],
  crashed: ["failed", "bad", "It ended by a fault."],
  killed: ["killed", "bad", "Its process ended without a word."],
  resting: ["at rest", "rest", "No process trains it, and nothing says how it ended."],
};
const AGES = [[0, "min", 60], [3600, "h", 3600], [2 * 86400, "days", 86400], [60 * 86400, "months", 30 * 86400], [730 * 86400, "years", 365 * 86400]];
const STARVED = 0.2;  // as training/watch.py has it
const JUDGED = { psnr: { name: "Sharpness", kind: "decibels" }, loss: { name: "Loss", kind: "number" } };

export const alive = (row) => ALIVE.includes(row.state);
export const query = (row) => `root=${encodeURIComponent(row.root)}&name=${encodeURIComponent(row.name)}`;

// "a/b" with what comes before the last name made quiet.
export function title(row) {
  const parts = (row.name || row.root).split("/");
  const own = parts.pop();
  return [parts.length > 0 && h("span", { class: "muted" }, `${parts.join("/")}/`), own];
}

export function chip(row) {
  const [word, tone, meaning] = STATES[row.state] || [row.state, "rest", ""];
  return h("span", { class: `state ${tone}`, title: meaning }, word);
}

export function part(row) {
  return typeof row.step === "number" && row.train_steps ? Math.min(1, row.step / row.train_steps) : 0;
}

export function steps(row) {
  if (typeof row.step !== "number") return row.train_steps ? `0 of ${whole(row.train_steps)} steps` : "no step yet";
  return row.train_steps ? `${whole(row.step)} of ${whole(row.train_steps)} steps` : `${whole(row.step)} steps`;
}

// The held-out figure by which runs of this kind are compared, with its floor.
export function best(row) {
  if (!row.best) return null;
  const { figure, value, step } = row.best, words = JUDGED[figure];
  const below = figure === "psnr" && typeof row.floor === "number" && value < row.floor;
  return { name: words.name, text: say(figure, words, value), step, below, floor: typeof row.floor === "number" ? say(figure, words, row.floor) : null };
}

export function when(row) {
  if (row.left !== null && row.left !== undefined) return `${span(row.left)} left`;
  return alive(row) ? "" : `${since(row.changed)} ago`;
}

// How long ago, in one unit.
function since(then) {
  const past = Math.max(0, Date.now() / 1000 - then);
  const [, unit, many] = AGES.findLast(([least]) => past >= least);
  return `${Math.max(1, Math.round(past / many))} ${unit}`;
}

// What is to be said of a run beside its state: [text, tone].
export function notes(row) {
  const found = best(row), told = [];
  if (row.note) told.push([row.note, ["crashed", "killed"].includes(row.state) ? "bad" : "muted"]);
  if (still(row)) told.push([still(row), "warn"]);
  if (found && found.below) told.push(["Its best is below PCA alone, the floor: a smaller learning rate, or more different clips, help.", "bad"]);
  if (row.worse) told.push([`Held out, it was better at step ${whole(row.best.step)} than at ${whole(row.worse.step)}: ${row.worse.remedy}.`, "warn"]);
  if (row.waits > STARVED) told.push([`${Math.round(100 * row.waits)}% of a step is spent waiting for its clips: a faster disk, more cores, or clips at the size of training help.`, "warn"]);
  return told;
}

// Of a run at work whose log has been still for longer than its lines take.
export function still(row) {
  return alive(row) && row.quiet > Math.max(120, row.pace ? 50 / row.pace : 0) ? `no line in its log for ${span(row.quiet)}` : "";
}
