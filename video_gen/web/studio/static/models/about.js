import { h, size } from "../lib/dom.js";
import { get } from "../lib/api.js";
import { icon } from "../lib/icons.js";
import { plain, whole } from "../lib/figures.js";
import { trying } from "../lib/toast.js";

const count = (numbers) => numbers >= 1e9 ? `${(numbers / 1e9).toFixed(2)} billion` : numbers >= 1e6 ? `${(numbers / 1e6).toFixed(numbers < 1e7 ? 2 : 1)} million` : whole(numbers);

// What a model's folder says of it.
export class About {
  constructor({ told, signal }) {
    Object.assign(this, { told, signal });
    this.element = h("div", { class: "about" });
  }

  async show(name) {
    this.name = name;
    this.element.replaceChildren(h("p", { class: "muted" }, "…"));
    const told = await trying(() => get(`/api/models/one?name=${encodeURIComponent(name)}`, this.signal));
    if (told && this.name === name) this.draw(told);
  }

  draw(told) {
    const { facts, clip, sampling } = told;
    if (!facts) { this.element.replaceChildren(h("p", { class: "empty" }, "This model is not on this machine yet; it is fetched when something is made with it.")); return; }
    const links = h("div", { class: "row" },
      h("a", { class: "button", href: `/?model=${encodeURIComponent(told.name)}` }, icon("create"), "Make something with it"),
      told.run ? h("a", { class: "button", href: `/runs?run=${encodeURIComponent(told.run)}` }, icon("runs"), "Its run") : "");
    this.element.replaceChildren(
      told.error ? h("p", { class: "bad card", role: "alert" }, told.error) : "",
      links,
      h("div", { class: "cards" },
        this.card("Parts", `${count(facts.parameters)} parameters, ${size(facts.bytes)}`, facts.parts.length ? this.parts(facts) : h("p", { class: "muted" }, "no weights lie in its folder")),
        this.card("What it makes", clip ? `${clip.num_frames} frames of ${clip.width} × ${clip.height}, ${plain(clip.fps)} a second` : null, this.list({ family: facts.family, world: facts.world })),
        facts.vae && this.card("VAE", this.squeeze(facts.vae), this.list(facts.vae)),
        facts.text && this.card("Text", null, this.list(facts.text)),
        sampling && this.card("How it is sampled", `${sampling.solver}, ${sampling.num_steps} ${sampling.num_steps === 1 ? "step" : "steps"}, guidance ${plain(sampling.guidance_scale)}`, h("details", {}, h("summary", {}, "all settings"), this.list(sampling))),
        facts.best && this.card("Held-out figures of its run", null, this.list(facts.best)),
        this.card("Licence", facts.licence || "its card names none", facts.licence_text ? h("details", {}, h("summary", {}, "the text"), h("pre", { tabIndex: 0, "aria-label": "licence" }, facts.licence_text)) : "")),
      facts.card ? h("section", { class: "card" }, h("h2", {}, "Card"), h("pre", { class: "readme", tabIndex: 0, "aria-label": "model card" }, facts.card)) : "",
      this.told.loras.length ? h("section", { class: "card" }, h("h2", {}, "LoRAs that runs have learned"), h("ul", { class: "loras" }, this.told.loras.map((name) => h("li", { class: "numbers" }, name)))) : "");
  }

  card(title, line, ...rest) { return h("section", { class: "card" }, h("h2", {}, title), line && h("p", { class: "gist" }, line), ...rest); }

  // 4 x 8 x 8 pixels to one place of so many channels.
  squeeze(vae) {
    const time = vae.temporal_stride ?? vae.scale_factor_temporal, space = vae.spatial_stride ?? vae.scale_factor_spatial, channels = vae.latent_channels ?? vae.z_dim;
    if (!(time && space && channels)) return null;
    return `${time} × ${space} × ${space} pixels become ${channels} numbers: ${plain((3 * time * space * space) / channels)} times fewer`;
  }

  parts(facts) {
    const most = Math.max(...facts.parts.map((part) => part.parameters || 0), 1);
    return h("ul", { class: "parts" }, facts.parts.map((part) => h("li", {},
      h("div", { class: "row spread" }, h("b", {}, part.name), h("span", { class: "muted numbers" }, `${count(part.parameters || 0)} · ${size(part.bytes)}`)),
      h("meter", { min: 0, max: most, value: part.parameters || 0, "aria-label": `share of ${part.name}` }),
      h("span", { class: "muted" }, [part.role, Object.keys(part.kinds || {}).join(", "), part.files > 1 && `${part.files} files`].filter(Boolean).join(" · ")),
      part.error && h("span", { class: "bad" }, part.error))));
  }

  list(values) {
    const rows = Object.entries(values).filter(([, value]) => value !== null && value !== undefined && value !== "");
    return h("dl", { class: "facts" }, rows.map(([name, value]) => h("div", {}, h("dt", {}, name.replaceAll("_", " ")), h("dd", {}, typeof value === "number" ? plain(value) : Array.isArray(value) ? value.join(", ") : String(value)))));
  }
}
