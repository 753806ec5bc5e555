// Controls show under the pointer or the focus only, so that nothing lies over what is looked at.
for (const video of document.querySelectorAll("video")) {
  video.tabIndex = 0;
  for (const name of ["pointerenter", "focus"]) video.addEventListener(name, () => (video.controls = true));
  for (const name of ["pointerleave", "blur"]) video.addEventListener(name, () => (video.controls = false));
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
