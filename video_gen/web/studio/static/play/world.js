import { h } from "../lib/dom.js";

// A world to be played: keys in, frames out. The server's words are those of `video_gen/web/playing.py`.
const HEADER = 20;
// what a key of that name is on a keyboard; other names get the digits, in their order
const USUAL = {
  forward: ["KeyW", "ArrowUp"], up: ["KeyW", "ArrowUp"], back: ["KeyS", "ArrowDown"], backward: ["KeyS", "ArrowDown"], down: ["KeyS", "ArrowDown"],
  left: ["KeyA", "ArrowLeft"], turn_left: ["KeyA", "ArrowLeft"], right: ["KeyD", "ArrowRight"], turn_right: ["KeyD", "ArrowRight"],
  open: ["Space"], use: ["Space"], jump: ["Space"], fire: ["KeyF"], attack: ["KeyF"],
};
const LABELS = { ArrowUp: "↑", ArrowDown: "↓", ArrowLeft: "←", ArrowRight: "→", Space: "space" };

function drawn() {
  const choice = (id, label, input) => h("label", { class: id === "prompt" ? "wide" : null }, label, input);
  return [
    h("div", { class: "screen" }, h("canvas", { id: "picture", width: 64, height: 48, tabIndex: 0, "aria-label": "the world" }), h("p", { id: "note", role: "status", "aria-live": "polite" }, "connecting")),
    h("p", { class: "figures" },
      h("span", {}, h("b", { id: "rate" }, "–"), " frames a second"), h("span", {}, h("b", { id: "latency" }, "–"), " ms from key to picture"),
      h("span", {}, h("b", { id: "made" }, "–"), " ms to make"), h("span", { id: "dot", hidden: true }, "recording")),
    h("div", { id: "keys", class: "keys", role: "group", "aria-label": "keys" }),
    h("div", { id: "axes", class: "axes" }),
    h("form", { id: "world", class: "row" },
      choice("model", "model ", h("select", { id: "model" })),
      choice("prompt", "prompt ", h("input", { id: "prompt", autocomplete: "off", placeholder: "none" })),
      choice("seed", "seed ", h("input", { id: "seed", type: "number", min: 0, max: 4294967295, step: 1, value: 0 })),
      h("button", { type: "submit" }, "Begin anew")),
    h("div", { class: "row" },
      h("button", { id: "record", "aria-pressed": "false" }, "Record"),
      choice("name", "state ", h("input", { id: "name", list: "states", value: "here", maxLength: 40, pattern: "[A-Za-z0-9][A-Za-z0-9_\\-]*" })),
      h("datalist", { id: "states" }), h("button", { id: "save" }, "Save"), h("button", { id: "load" }, "Load"),
      h("label", { class: "check" }, h("input", { id: "sharp", type: "checkbox" }), " show pixels")),
  ];
}

// Play in `place` what is served at the socket's `address`, until `signal` aborts.
export function mountWorld(place, address, signal) {
  place.append(...drawn());
  const $ = (id) => place.querySelector(`#${id}`);
  const canvas = $("picture"), context = canvas.getContext("2d");
  let socket = null, byCode = {}, held = new Map(), axes = {}, pressed = 0, pressedAt = new Map(), latencies = [], recording = false, tries = 0, busy = false, played = false;

  function say(text, isError = false) {
    $("note").textContent = text;
    $("note").className = isError ? "error" : "";
    clearTimeout(say.timer);
    if (text && !isError) say.timer = setTimeout(() => ($("note").textContent = ""), 3000);
  }

  function send(what) {
    if (socket && socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(what));
  }

  const median = (values) => [...values].sort((a, b) => a - b)[values.length >> 1];

  function hold() {
    const keys = [...held.keys()];
    pressed += 1;
    pressedAt.set(pressed, performance.now());
    send({ kind: "hold", action: { keys, axes }, pressed });
    for (const button of $("keys").children) button.classList.toggle("down", held.has(button.dataset.key));
  }

  function press(key, by) {
    const from = held.get(key) || new Set();
    if (from.has(by)) return;
    from.add(by);
    held.set(key, from);
    hold();
  }

  function release(key, by) {
    const from = held.get(key);
    if (!from || !from.delete(by)) return;
    if (!from.size) held.delete(key);
    hold();
  }

  function releaseAll() {
    if (!held.size) return;
    held.clear();
    hold();
  }

  function drawKeys(keys) {
    byCode = {};
    const taken = new Set();
    const codes = {};
    let digit = 1;
    for (const key of keys) {
      codes[key] = (USUAL[key.toLowerCase()] || []).filter((code) => !taken.has(code));
      if (!codes[key].length && digit <= 9) codes[key] = [`Digit${digit++}`];
      for (const code of codes[key]) { taken.add(code); byCode[code] = key; }
    }
    $("keys").replaceChildren(...keys.map((key) => {
      const button = document.createElement("button"), hint = document.createElement("small");
      button.type = "button";
      button.dataset.key = key;
      button.textContent = key;
      hint.textContent = codes[key].map((code) => LABELS[code] || code.replace(/Key|Digit/, "")).join(" or ");
      button.append(hint);
      button.addEventListener("pointerdown", (event) => { event.preventDefault(); button.setPointerCapture(event.pointerId); press(key, "pointer"); });
      for (const name of ["pointerup", "pointercancel", "lostpointercapture"]) button.addEventListener(name, () => release(key, "pointer"));
      button.addEventListener("contextmenu", (event) => event.preventDefault());
      return button;
    }));
  }

  function drawAxes(found) {
    axes = {};
    $("axes").replaceChildren(...found.map((axis) => {
      const label = document.createElement("label"), slider = document.createElement("input"), value = document.createElement("output");
      label.textContent = axis.unit ? `${axis.name} (${axis.unit})` : axis.name;
      Object.assign(slider, { type: "range", min: axis.low, max: axis.high, step: (axis.high - axis.low) / 200, value: Math.min(Math.max(0, axis.low), axis.high) });
      const rest = slider.value;
      let before = Number(rest);
      const moved = () => {
        const now = Number(slider.value);
        value.textContent = now.toPrecision(3);
        if (axis.kind === "absolute") axes[axis.name] = now;
        else axes = { ...axes, [axis.name]: now - before };  // a change: what the slider has moved
        before = now;
        hold();
        if (axis.kind === "delta") delete axes[axis.name];
      };
      slider.addEventListener("input", moved);
      if (axis.kind === "delta") slider.addEventListener("change", () => { slider.value = rest; before = Number(rest); value.textContent = ""; });
      label.append(slider, value);
      return label;
    }));
  }

  function show(buffer) {
    const view = new DataView(buffer);
    const number = view.getUint32(0, true), answers = view.getUint32(4, true);
    const made = view.getFloat32(8, true), rate = view.getFloat32(12, true);
    const height = view.getUint16(16, true), width = view.getUint16(18, true);
    const pixels = new Uint8Array(buffer, HEADER);
    const picture = context.createImageData(width, height);
    for (let from = 0, to = 0; from < pixels.length; from += 3, to += 4) {
      picture.data[to] = pixels[from];
      picture.data[to + 1] = pixels[from + 1];
      picture.data[to + 2] = pixels[from + 2];
      picture.data[to + 3] = 255;
    }
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    context.putImageData(picture, 0, 0);
    send({ kind: "seen", number });
    for (const [which, at] of pressedAt) {
      if (which > answers) break;
      latencies.push(performance.now() - at);
      pressedAt.delete(which);
    }
    latencies = latencies.slice(-500);
    window.shown = { number, answers, latencies, codes: Object.keys(byCode) };  // for whoever measures
    if (made) $("made").textContent = made.toFixed(0);
    if (rate) $("rate").textContent = rate.toFixed(1);
    if (latencies.length) $("latency").textContent = median(latencies.slice(-30)).toFixed(0);
  }

  function greet(said) {
    tries = 0;
    played = true;
    Object.assign(canvas, { width: said.width, height: said.height });
    canvas.style.aspectRatio = `${said.width} / ${said.height}`;
    drawKeys(said.keys);
    drawAxes(said.axes);
    $("model").replaceChildren(...said.models.map((name) => new Option(name, name, false, name === said.model)));
    $("prompt").value = said.prompt;
    $("seed").value = said.seed;
    listStates(said.states);
    showRecording(said.recording);
    held.clear();
    pressedAt.clear();
    latencies = [];
    say(said.keys.length ? "hold a key" : "move an axis");
    canvas.focus();
  }

  function listStates(states) {
    $("states").replaceChildren(...states.map((name) => new Option(name)));
  }

  function told(said) {
    if (said.kind === "hello") greet(said);
    else if (said.kind === "busy") { busy = true; say("somebody plays this world already; close that page, and load this one again", true); }
    else if (said.kind === "error") say(said.text, true);
    else if (said.kind === "note") {
      say(said.text);
      if (said.states) listStates(said.states);
      if (said.prompt !== undefined) $("prompt").value = said.prompt;
    } else if (said.kind === "recording") {
      showRecording(said.on);
      if (said.text) say(said.text);
    }
  }

  function showRecording(on) {
    recording = on;
    $("record").setAttribute("aria-pressed", on);
    $("record").textContent = on ? "Stop recording" : "Record";
    $("dot").hidden = !on;
  }

  function connect() {
    if (signal.aborted) return;
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    socket = new WebSocket(`${scheme}://${location.host}${address}`);
    socket.binaryType = "arraybuffer";
    socket.onmessage = (event) => (typeof event.data === "string" ? told(JSON.parse(event.data)) : show(event.data));
    socket.onclose = () => {
      // whoever has played may find its own lost connection still there for a while; whoever comes anew finds somebody else
      if (signal.aborted || (busy && !played) || tries > 40) return;
      busy = false;
      tries += 1;
      say("the connection is gone; trying again", true);
      setTimeout(connect, Math.min(500 * tries, 3000));
    };
  }

  const typing = (event) => event.target.matches("input:not([type=range]):not([type=checkbox]), select, textarea");
  addEventListener("keydown", (event) => {
    const key = byCode[event.code];
    if (!key || typing(event) || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.matches("button, a") && event.code === "Space") event.target.blur();
    event.preventDefault();
    if (!event.repeat) press(key, event.code);
  }, { signal });
  addEventListener("keyup", (event) => { const key = byCode[event.code]; if (key) release(key, event.code); }, { signal });
  addEventListener("blur", releaseAll, { signal });
  document.addEventListener("visibilitychange", () => { if (document.hidden) releaseAll(); }, { signal });
  $("world").addEventListener("submit", (event) => {
    event.preventDefault();
    send({ kind: "reset", prompt: $("prompt").value, seed: Number($("seed").value) || 0 });
    canvas.focus();
  });
  $("model").addEventListener("change", () => { say("loading"); send({ kind: "model", name: $("model").value }); });
  $("record").addEventListener("click", () => send({ kind: "record", on: !recording }));
  $("save").addEventListener("click", () => send({ kind: "save", name: $("name").value }));
  $("load").addEventListener("click", () => { send({ kind: "load", name: $("name").value }); canvas.focus(); });
  $("sharp").addEventListener("change", () => canvas.classList.toggle("sharp", $("sharp").checked));
  signal.addEventListener("abort", () => { clearTimeout(say.timer); if (socket) socket.close(); });
  connect();
}
