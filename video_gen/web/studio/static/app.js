// The shell: navigation, light and dark, and the page that is open. A page is a module in pages/, `mount(place, signal)`.
import { h, find } from "./lib/dom.js";
import { hear } from "./lib/events.js";
import { icon } from "./lib/icons.js";

const PAGES = JSON.parse(document.documentElement.dataset.pages);
const place = find("#page");
let leaving = null;

export function go(address) {
  if (location.pathname + location.search !== address) history.pushState(null, "", address);
  open();
}

const pageOf = (path) => path.slice(1) || Object.keys(PAGES)[0];

async function open() {
  const name = pageOf(location.pathname);
  if (leaving) leaving.abort();
  const stay = leaving = new AbortController();
  for (const link of find("#pages").children) {
    if (link.dataset.page === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${PAGES[name]} · Video Gen studio`;
  document.body.dataset.page = name;
  drawWorking();
  try {
    const page = await import(`./pages/${name}.js`);
    if (stay.signal.aborted) return;
    place.replaceChildren();
    await page.mount(place, stay.signal);
  } catch (error) {
    if (stay.signal.aborted) return;
    console.error(error);
    place.replaceChildren(h("p", { class: "empty", role: "alert" }, `This page could not be drawn: ${error.message}`));
  }
}

function navigate(event) {
  const link = event.target.closest("a[href^='/']");
  if (!link || event.defaultPrevented || event.button || event.ctrlKey || event.metaKey || event.shiftKey || link.hasAttribute("download") || link.target) return;
  if (!(pageOf(new URL(link.href).pathname) in PAGES)) return;
  event.preventDefault();
  go(link.getAttribute("href"));
  place.focus({ preventScroll: true });
  scrollTo(0, 0);
}

// How far the queue is, on every page.
function working() {
  const link = h("a", { href: "/", class: "working numbers", hidden: true }), place = find("#working");
  let queue = null, progress = null;
  place.append(link);
  const draw = () => {
    const waiting = queue ? queue.jobs.filter((job) => job.state === "waiting").length : 0;
    link.hidden = !queue || document.body.dataset.page === "create" || !(progress || waiting);
    if (link.hidden) return;
    const done = progress ? Math.round(100 * progress.done) : 0;
    link.style.setProperty("--done", `${done}%`);
    link.textContent = `${done}%${waiting ? ` · ${waiting} more` : ""}`;
    link.title = link.ariaLabel = `a video is made, ${done}% of it${waiting ? `, and ${waiting} jobs wait` : ""}`;
  };
  hear("queue", (told) => { queue = told; draw(); });
  hear("progress", (told) => { progress = told; draw(); });
  return draw;
}

const THEMES = [["system", "as the system"], ["light", "light"], ["dark", "dark"]];
function themes() {
  const button = h("button", { class: "quiet icon", onclick: next });
  function show() {
    const now = document.documentElement.dataset.theme || "system";
    button.replaceChildren(icon({ system: "system", light: "sun", dark: "moon" }[now]));
    button.setAttribute("aria-label", `colours: ${THEMES.find(([name]) => name === now)[1]}`);
    button.title = button.getAttribute("aria-label");
  }
  function next() {
    const now = document.documentElement.dataset.theme || "system";
    const [then] = THEMES[(THEMES.findIndex(([name]) => name === now) + 1) % THEMES.length];
    if (then === "system") { delete document.documentElement.dataset.theme; localStorage.removeItem("theme"); }
    else { document.documentElement.dataset.theme = then; localStorage.setItem("theme", then); }
    show();
  }
  show();
  return button;
}

find("#pages").append(...Object.entries(PAGES).map(([name, title], at) =>
  h("a", { href: at ? `/${name}` : "/", data: { page: name } }, icon(name), h("span", {}, title))));
find("#status").append(h("div", { id: "working" }), themes());
const drawWorking = working();
document.addEventListener("click", navigate);
addEventListener("popstate", open);
if (new URLSearchParams(location.search).has("token")) history.replaceState(null, "", location.pathname);  // a cookie has it now
open();
