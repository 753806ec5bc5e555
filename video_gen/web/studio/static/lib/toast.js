import { h, find } from "./dom.js";

// A line that goes by itself; `undo` puts a button beside it. An error stays until it is closed.
export function toast(text, { bad = false, action = null, label = "Undo", seconds = 6 } = {}) {
  const close = () => line.remove();
  const line = h("div", { class: bad ? "toast bad" : "toast", role: bad ? "alert" : null },
    h("span", {}, text),
    action && h("button", { class: "quiet", onclick: () => { close(); action(); } }, label),
    h("button", { class: "quiet icon", "aria-label": "close", onclick: close }, "×"));
  within().append(line);
  while (find("#toasts").children.length > 4) find("#toasts").firstChild.remove();
  if (!bad) setTimeout(close, 1000 * seconds);
  return close;
}

// Where lines stand: in the dialog that is open, if there is one, since nothing else can be pressed then.
function within() {
  const lines = find("#toasts"), open = [...document.querySelectorAll("dialog:modal")].pop();
  if (open && !open.contains(lines)) {
    open.append(lines);
    open.addEventListener("close", () => document.body.append(lines), { once: true });
  }
  return lines;
}

// Run what a button does; what goes wrong is said.
export async function trying(work) {
  try {
    return await work();
  } catch (error) {
    if (error.name !== "AbortError") toast(error.message, { bad: true });
    return undefined;
  }
}
