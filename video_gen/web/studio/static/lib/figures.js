// Figures as people read them. `words` is what the server says of a figure: name, note, kind, aim, better.
import { size } from "./dom.js";

const UNITS = {
  memory_mb: (value) => size(value * 2 ** 20),
  lr: (value) => value === 0 ? "0" : value.toExponential(1).replace("e", "e").replace("+", ""),
  time: (value) => span(value),
};

const KINDS = {
  share: (value) => `${(100 * value).toFixed(value < 0.1 ? 1 : 0)}%`,
  change: (value) => `${value < 0 ? "" : "+"}${(100 * value).toFixed(0)}%`,
  pixels: (value) => `${value.toFixed(2)} px`,
  decibels: (value) => `${value.toFixed(value < 100 ? 2 : 1)} dB`,
  seconds: (value) => span(value),
  count: (value) => whole(value),
};

export function say(name, words, value) {
  if (typeof value !== "number" || !Number.isFinite(value)) return "–";
  return (UNITS[name] || KINDS[words && words.kind] || plain)(value);
}

export function plain(value) {
  const size = Math.abs(value);
  if (size >= 10000) return whole(value);
  if (size && size < 0.001) return value.toExponential(2).replace("+", "");
  return String(Number(value.toPrecision(4)));
}

export const whole = (value) => Math.round(value).toLocaleString("en");

// 0.012 as "12 ms", 83 as "1 min 23 s", 8000 as "2 h 13 min".
export function span(seconds) {
  if (!Number.isFinite(seconds)) return "–";
  if (seconds < 0.0995) return `${Number((1000 * seconds).toPrecision(2))} ms`;
  if (seconds < 9.95) return `${Number(seconds.toPrecision(2))} s`;
  const total = Math.round(seconds);
  for (const [unit, large, part, small] of [["d", 86400, 3600, "h"], ["h", 3600, 60, "min"], ["min", 60, 1, "s"]]) {
    if (total >= large) {
      const rest = Math.floor((total % large) / part);
      return rest ? `${Math.floor(total / large)} ${unit} ${rest} ${small}` : `${Math.floor(total / large)} ${unit}`;
    }
  }
  return `${total} s`;
}

// A speed: steps a second, or the time of one where it takes longer.
export const pace = (rate) => rate >= 1 ? `${Number(rate.toPrecision(3))} steps/s` : `${span(1 / rate)} a step`;
