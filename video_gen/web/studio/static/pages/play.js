import { h } from "../lib/dom.js";
import { get, post } from "../lib/api.js";
import { hear } from "../lib/events.js";
import { trying } from "../lib/toast.js";
import { mountWorld } from "../play/world.js";

// Play: the worlds of models that know actions, and recordings of what was played.
export async function mount(place, signal) {
  place.append(h("h1", { class: "hush" }, "Play"));
  const state = h("p", { class: "empty", role: "status", "aria-live": "polite" }, "looking for worlds"), inside = h("div", {});
  place.append(state, inside);
  const { models, model } = await get("/api/play/models", signal);
  if (!model) { state.textContent = "No model here knows actions. `video-gen train diffusion` on data with actions makes one."; return; }
  let world = null;
  const close = () => { if (world) { world.abort(); world = null; inside.replaceChildren(); } };
  signal.addEventListener("abort", close);
  const again = h("button", { class: "primary", onclick: () => trying(() => post("/api/play/open", { model: models.includes(model) ? model : models[0] })) }, "Open it again");
  hear("play", (told) => {
    state.hidden = told.status === "ready";
    if (told.status === "ready" && !world) {
      world = new AbortController();
      mountWorld(inside, "/api/play/socket", world.signal);
    } else if (told.status !== "ready") {
      close();
      state.replaceChildren(told.status === "loading" ? `${told.model} is loading` : told.trouble || "", told.trouble ? h("p", {}, again) : "");
    }
  }, signal);
  await trying(() => post("/api/play/open", { model }));
}
