"""A studio in a thread, and how evenly its page scrolls in Chromium."""

import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from video_gen.web.access import listen
from video_gen.web.studio.app import make_app
from video_gen.web.studio.studio import Studio

CHROMIUM = os.environ.get("VIDEO_GEN_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
SCROLL = """seconds => new Promise(done => {
  const times = [], begin = performance.now(), far = document.documentElement.scrollHeight - innerHeight;
  function step(now) {
    times.push(now);
    const part = (now - begin) / 1000 / seconds;
    scrollTo(0, far * (1 - Math.abs(1 - 2 * Math.min(1, part))));
    if (part < 1) requestAnimationFrame(step); else done(times.slice(1).map((time, index) => time - times[index]));
  }
  requestAnimationFrame(step);
})"""
"""Down and up again; the milliseconds between frames."""


@contextmanager
def served(studio: Studio) -> Iterator[str]:
    """The address of a studio in a thread."""
    import uvicorn

    with listen("127.0.0.1", 0) as listener:
        server = uvicorn.Server(uvicorn.Config(make_app(studio), log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        while not server.started:
            time.sleep(0.02)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join()


def frames(page, seconds: float) -> tuple[float, float]:
    """(frames a second, the longest frame in ms) while a page scrolls."""
    between = page.evaluate(SCROLL, seconds)
    return 1000 / (sum(between) / len(between)), max(between)
