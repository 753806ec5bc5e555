// What a run is and how it stands, in words.
import { ago, h } from "../lib/dom.js";
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
const JUDGED = { psnr: { name: "Sharpness", kind: "decibels" }, loss: { name: "Held-out loss", kind: "number" } };

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
  return alive(row) ? "" : ago(row.changed);
}

// Of a run at work whose log has been still for longer than its lines take.
export function still(row) {
  return alive(row) && row.quiet > Math.max(120, row.pace ? 50 / row.pace : 0) ? `no line in its log for ${span(row.quiet)}` : "";
}
