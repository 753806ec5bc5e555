import { h, clock } from "../lib/dom.js";
import { icon } from "../lib/icons.js";
import { post } from "../lib/api.js";
import { hear } from "../lib/events.js";
import { Strip } from "../lib/strip.js";
import { trying } from "../lib/toast.js";

// The queue: the video under way with its draft, and the jobs behind it.
export class Line {
  constructor(signal) {
    this.jobs = [];
    this.strip = new Strip("what the video looks like so far", signal);
    this.title = h("p", { class: "title" });
    this.state = h("p", { class: "muted numbers" });
    this.bar = h("progress", { max: 1, value: 0, "aria-label": "how far the video is" });
    this.stop = h("button", { class: "small", onclick: () => this.ask("cancel", this.now) }, icon("stop"), "Cancel");
    this.live = h("p", { class: "hush", role: "status", "aria-live": "polite" });
    this.card = h("section", { class: "now card", "aria-label": "the video under way", hidden: true }, this.strip.element,
      h("div", { class: "told" }, this.title, this.bar, this.state, h("div", { class: "row" }, this.stop)));
    this.list = h("ol", { class: "jobs" });
    this.trouble = h("p", { class: "bad card", role: "alert", hidden: true });
    this.element = h("div", { class: "line" }, this.trouble, this.card, this.list, this.live);
    hear("queue", (told) => this.queue(told), signal);
    hear("progress", (told) => this.progress(told), signal);
  }

  ask(what, id) { return trying(() => post(`/api/jobs/${what}`, { id })); }

  queue(told) {
    this.jobs = told.jobs;
    this.worker = told.worker;
    this.trouble.hidden = !told.trouble;
    this.trouble.textContent = told.trouble || "";
    const behind = told.jobs.filter((job) => job.state !== "running");
    this.list.replaceChildren(...behind.slice(0, 30).map((job) => this.row(job)));
    const more = told.total - (told.jobs.length - behind.length) - Math.min(30, behind.length);
    if (more > 0) this.list.append(h("li", { class: "muted" }, `and ${more} more`));
    this.draw();
  }

  row(job) {
    const waits = job.state === "waiting";
    const first = waits && job !== this.jobs.find((other) => other.state === "waiting");
    return h("li", { class: `job ${job.state}` },
      h("span", { class: "chip" }, waits ? "waits" : job.state),
      h("span", { class: "what", title: job.prompt }, job.prompt || "no prompt"),
      h("span", { class: "muted numbers" }, job.made ? `${job.made} of ${job.count}` : job.count > 1 ? `${job.count} videos` : ""),
      h("span", { class: "row" },
        first && h("button", { class: "quiet small", onclick: () => this.ask("first", job.id) }, "Next"),
        !waits && h("button", { class: "quiet small", onclick: () => this.ask("retry", job.id) }, job.state === "failed" ? "Try again" : "Go on"),
        h("button", { class: "quiet small icon", "aria-label": waits ? `cancel ${job.prompt}` : `dismiss ${job.prompt}`, onclick: () => this.ask(waits ? "cancel" : "dismiss", job.id) }, icon("close"))),
      job.error && h("span", { class: "bad error" }, job.error));
  }

  progress(told) {
    if (told && (!this.told || this.told.id !== told.id || this.told.made !== told.made)) { this.strip.clear(); this.version = 0; }
    this.told = told;
    if (told && told.version > (this.version || 0)) {
      this.version = told.version;
      this.strip.show(`/api/jobs/draft?id=${told.id}&v=${told.made}-${told.version}`, told.frames);
    }
    this.draw();
  }

  draw() {
    const job = this.jobs.find((one) => one.state === "running"), told = this.told;
    const loading = this.worker && this.worker.state !== "ready" ? this.worker : null;
    this.card.hidden = !job && !(loading && loading.state === "loading");
    this.now = job ? job.id : null;
    this.stop.hidden = !job;
    this.strip.element.classList.toggle("bare", !this.version || !told);
    if (!job) {
      this.title.textContent = `loading ${loading ? loading.model : ""}`;
      this.state.textContent = "";
      this.bar.removeAttribute("value");
      return;
    }
    this.title.textContent = job.prompt || "no prompt";
    const which = job.count > 1 ? `video ${job.made + 1} of ${job.count}` : "";
    const under = told && told.id === job.id && told.done > 0;
    if (under) this.bar.value = told.done; else this.bar.removeAttribute("value");
    const left = told && told.left !== null ? `${clock(told.left)} left` : "";
    const state = told && told.stopping ? "stops after this step" : under ? `${Math.round(100 * told.done)}%` : loading ? `${loading.state === "starting" ? "starting" : `loading ${loading.model}`}` : "begins";
    this.state.textContent = [which, state, under ? left : ""].filter(Boolean).join(" · ");
    this.stop.disabled = Boolean(told && told.stopping);
    const said = `${which || "the video"} is made`;
    if (this.live.textContent !== said) this.live.textContent = said;
  }
}

