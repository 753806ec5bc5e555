// What changes by itself: one socket for the whole page, which comes back when it is lost.
//   hear("queue", (value) => draw(value), signal)
const heard = new Map();  // topic to its listeners
const latest = new Map();
let socket = null, tries = 0, timer = 0;

export function hear(topic, then, signal) {
  const known = heard.get(topic);
  if (known) known.add(then);
  else { heard.set(topic, new Set([then])); reopen(); }
  if (latest.has(topic)) then(latest.get(topic));
  if (signal) signal.addEventListener("abort", () => {
    const left = heard.get(topic);
    if (!left) return;
    left.delete(then);
    if (!left.size) { heard.delete(topic); latest.delete(topic); }
  });
}

function reopen() {
  clearTimeout(timer);
  timer = setTimeout(open, 0);  // once for all that a page wants to hear
}

function open() {
  clearTimeout(timer);
  if (socket) { socket.onclose = null; socket.close(); }
  if (!heard.size) { socket = null; return; }
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  socket = new WebSocket(`${scheme}://${location.host}/api/events?topics=${[...heard.keys()].map(encodeURIComponent).join(",")}`);
  socket.onopen = () => { tries = 0; document.documentElement.classList.remove("offline"); };
  socket.onmessage = (event) => {
    for (const [topic, value] of Object.entries(JSON.parse(event.data))) {
      latest.set(topic, value);
      for (const then of heard.get(topic) || []) then(value);
    }
  };
  socket.onclose = () => {
    tries += 1;
    if (tries > 1) document.documentElement.classList.add("offline");
    timer = setTimeout(open, Math.min(250 * 2 ** tries, 4000));
  };
}
