// The list of runs: which are shown, and how each stands. A row is drawn again when its run has changed.
import { h, svg } from "../lib/dom.js";
import { line } from "../lib/colours.js";
import { KINDS, alive, best, chip, part, still, title, when } from "./words.js";

export class List {
  // pick(key, alone): show a run, by itself or with the others.
  constructor({ pick, all, signal }) {
    this.pick = pick;
    this.drawn = new Map();   // key to [version, element]
    this.words = "";
    this.search = h("input", { type: "search", placeholder: "Find a run", "aria-label": "Find a run", autocomplete: "off", spellcheck: false });
    this.search.addEventListener("input", () => { this.words = this.search.value.trim().toLowerCase(); this.filter(); }, { signal });
    this.count = h("span", { class: "muted numbers" });
    this.rows = h("ul", { class: "rows" });
    this.none = h("p", { class: "empty", hidden: true }, "No run has this in its name.");
    const several = (text, title, keys) => h("button", { class: "quiet small", title, onclick: () => all(keys()) }, text);
    this.element = h("div", { class: "list" },
      h("div", { class: "row spread" }, this.search),
      h("div", { class: "row spread" }, this.count,
        h("span", { class: "row tight" }, several("All", "Lay all of these over one another", () => this.visible()), several("None", "Show none", () => []))),
      this.rows, this.none);
  }

  visible() { return [...this.rows.children].filter((row) => !row.hidden).map((row) => row.dataset.key); }

  // rows in order; chosen: key to index of its colour.
  set(rows, chosen) {
    this.order = rows;
    const elements = rows.map((row) => {
      const known = this.drawn.get(row.key), version = `${row.version} ${when(row)} ${still(row)}`;
      if (known && known[0] === version) return known[1];
      const element = this.draw(row);
      this.drawn.set(row.key, [version, element]);
      return element;
    });
    const keys = new Set(rows.map((row) => row.key));
    for (const key of this.drawn.keys()) if (!keys.has(key)) this.drawn.delete(key);
    const held = document.activeElement, key = held && held.closest && held.closest(".run") && held.closest(".run").dataset.key;
    const same = elements.length === this.rows.children.length && elements.every((element, index) => this.rows.children[index] === element);
    if (!same) {
      this.rows.replaceChildren(...elements);
      const again = key && this.drawn.get(key);
      if (again) (held.isConnected ? held : again[1].querySelector(held.tagName)).focus();
    }
    this.choose(chosen);
    this.filter();
  }

  choose(chosen) {
    for (const [key, [, element]] of this.drawn) {
      const index = chosen.get(key), box = element.querySelector("input");
      box.checked = index !== undefined;
      element.classList.toggle("chosen", box.checked);
      element.style.setProperty("--line", index === undefined ? "var(--rule)" : `var(${line(index)})`);
    }
  }

  filter() {
    let shown = 0;
    for (const row of this.order || []) {
      const hit = `${row.key} ${KINDS[row.kind] || ""} ${row.state}`.toLowerCase().includes(this.words);
      this.drawn.get(row.key)[1].hidden = !hit;
      shown += hit;
    }
    const many = (this.order || []).length, working = (this.order || []).filter(alive).length;
    this.none.hidden = !(many && !shown);
    this.count.textContent = `${shown < many ? `${shown} of ` : ""}${many} run${many === 1 ? "" : "s"}${working ? `, ${working} at work` : ""}`;
  }

  draw(row) {
    const found = best(row), name = row.name || row.root;
    const box = h("input", { type: "checkbox", "aria-label": `show ${name} with the others`, onchange: () => this.pick(row.key, false) });
    const depth = Math.min(4, row.depth || 0);
    return h("li", { class: "run", data: { key: row.key }, style: { "--depth": String(depth) } },
      box,
      h("button", { class: "quiet", title: `Show ${row.key}`, onclick: () => this.pick(row.key, true) },
        h("span", { class: "top" }, h("span", { class: "name" }, ...(depth ? [name.split("/").pop()] : title(row))), chip(row)),
        h("progress", { value: part(row), max: 1, class: alive(row) ? "live" : "", "aria-label": "steps made" }),
        h("span", { class: "under muted numbers" },
          h("span", {}, KINDS[row.kind] || "Run"),
          found && h("span", { class: found.below ? "bad" : "", title: `${found.name}, held out${found.below ? `; below its floor ${found.floor}` : ""}` }, found.text),
          h("span", {}, still(row) ? h("span", { class: "warn" }, "still") : when(row)))),
      spark(row.sketch || []));
  }
}

// The loss of training, falling or not: its middle 95%, as a line without numbers.
function spark(points) {
  if (points.length < 2) return h("i", { class: "spark" });
  const values = points.map(([, y]) => y).sort((a, b) => a - b);
  const low = values[Math.floor(0.025 * values.length)], high = values[Math.ceil(0.975 * (values.length - 1))];
  const from = points[0][0], to = points.at(-1)[0];
  const at = ([x, y]) => `${(60 * (x - from) / ((to - from) || 1)).toFixed(1)},${(20 - 18 * Math.min(1, Math.max(0, (y - low) / ((high - low) || 1)))).toFixed(1)}`;
  return svg("svg", { viewBox: "0 0 60 21", class: "spark", "aria-hidden": "true", preserveAspectRatio: "none" },
    svg("polyline", { points: points.map(at).join(" "), "vector-effect": "non-scaling-stroke" }));
}
