// Colours of the page for what is drawn on a canvas, light or dark as they are now.
const known = new Map();
let probe = null;

// "--line-3" as the browser computes it.
export function colour(name) {
  if (!known.has(name)) {
    if (!probe) { probe = document.createElement("i"); probe.hidden = true; document.body.append(probe); }
    probe.style.setProperty("color", `var(${name})`);
    known.set(name, getComputedStyle(probe).color);
  }
  return known.get(name);
}

export const LINES = 8;
export const line = (index) => `--line-${index % LINES}`;
// The second eight are dashed, so that no two of sixteen look alike.
export const dashes = (index) => [[], [7, 3], [2, 3], [9, 3, 2, 3]][Math.floor(index / LINES) % 4];

export function onColours(then, signal) {
  const changed = () => { known.clear(); then(); };
  const watcher = new MutationObserver(changed);
  watcher.observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", changed, { signal });
  signal.addEventListener("abort", () => watcher.disconnect());
}
