// Elements in one expression: h("button", { class: "primary", onclick: make }, "Make").
// `on...` are listeners; `data` a mapping; a property that the element has is set, everything else is an attribute. null and false
// are left out. Text is always text: nothing here reads HTML.
export function h(tag, properties = {}, ...children) {
  return fill(document.createElement(tag), properties, children);
}

const SVG = "http://www.w3.org/2000/svg";
export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== null && value !== undefined) element.setAttribute(name, value);
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "data") Object.assign(element.dataset, value);
    else if (name === "class") element.className = value;
    else if (name === "style") Object.entries(value).forEach(([key, v]) => element.style.setProperty(key, v));
    else if (name in element && !name.includes("-") && name !== "list" && name !== "form") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

// Text of a docstring: what stands between `backticks` is code.
export const prose = (text) => text.split("`").map((part, at) => (at % 2 ? h("code", {}, part) : part));

export const find = (selector, within = document) => within.querySelector(selector);

let count = 0;
export const unique = (name = "id") => `${name}-${++count}`;

// 83 seconds as "1:23", for what is counted down or up.
export function clock(seconds) {
  const whole = Math.max(0, Math.round(seconds)), hours = Math.floor(whole / 3600);
  const rest = `${hours ? String(Math.floor((whole % 3600) / 60)).padStart(2, "0") : Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
  return hours ? `${hours}:${rest}` : rest;
}

// Bytes as people say them.
export function size(bytes) {
  const units = ["B", "KB", "MB", "GB", "TB"];
  let at = 0;
  while (bytes >= 1000 && at < units.length - 1) { bytes /= 1000; at += 1; }
  return `${at && bytes < 10 ? bytes.toFixed(1) : Math.round(bytes)} ${units[at]}`;
}

// A time in the past, in seconds since 1970, as "5 minutes ago".
const words = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
export function ago(seconds) {
  let past = seconds - Date.now() / 1000;
  for (const [unit, many] of [["second", 60], ["minute", 60], ["hour", 24], ["day", 30], ["month", 12], ["year", Infinity]]) {
    if (Math.abs(past) < many) return words.format(Math.round(past), unit);
    past /= many;
  }
}

export const calm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;
