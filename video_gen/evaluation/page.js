// Nothing lies over what is looked at: a press or the space bar stops a video and lets it go on, arrows step through it.
const STEP = 1 / 24;
for (const video of document.querySelectorAll("video")) {
  const turn = () => (video.paused ? video.play() : video.pause());
  video.tabIndex = 0;
  video.title = "press: stop or go on; left and right: a step";
  video.addEventListener("click", turn);
  video.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: -STEP, ArrowRight: STEP };
    if (event.key !== " " && !(event.key in steps)) return;
    event.preventDefault();
    if (event.key === " ") { turn(); return; }
    video.pause();
    video.currentTime = Math.max(0, video.currentTime + steps[event.key]);
  });
  if (matchMedia("(prefers-reduced-motion: reduce)").matches) video.pause();
}

// A page that is still growing renews itself, and opens again where its reader was.
function renew(seconds) {
  const place = "place:" + location.pathname, details = [...document.querySelectorAll("details")];
  const name = (detail) => detail.querySelector("summary").textContent;
  const before = JSON.parse(sessionStorage.getItem(place) || "null");
  history.scrollRestoration = "manual";
  if (before) {
    for (const detail of details) detail.open = before.open.includes(name(detail));
    scrollTo(0, before.top);
  }
  setInterval(() => {
    if (document.hidden || document.querySelector("video:hover")) return;
    const open = details.filter((detail) => detail.open).map(name);
    sessionStorage.setItem(place, JSON.stringify({ top: scrollY, open }));
    location.reload();
  }, 1000 * seconds);
  const status = document.querySelector(".status");
  if (Date.now() / 1000 - Number(status.dataset.time) > 300) status.querySelector(".stale").style.display = "block";
}
