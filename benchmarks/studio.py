"""Pages of the studio in a real Chromium: `python -m benchmarks.studio runs` tells how soon one can be used, and how it scrolls.

`runs`: 100 runs of 10,000 lines each, written to a temporary folder. Told are the times from the press of Enter to a list that can
be pressed and to curves that are drawn, with nothing in the server's memory, and the frames a second while the page scrolls.
"""

import argparse
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from benchmarks.made_runs import write_run
from video_gen.web.access import listen
from video_gen.web.studio.app import make_app
from video_gen.web.studio.roots import Roots
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


class RunsAlone(Studio):
    """Without the process that samples, which would compete for the cores."""

    def start(self) -> None:
        self.hub.start()
        self.watch.start()

    def close(self) -> None:
        self.watch.close()
        self.apart.close()


def runs_page(browser, count: int, lines: int, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "runs"
        for seed in range(count):
            write_run(root / f"group-{seed % 7}/run-{seed:03d}", ("vae", "diffusion")[seed % 2], lines, seed=seed)
        size = sum(file.stat().st_size for file in root.rglob("log.jsonl"))
        print(f"{count} runs of {lines:,} lines, {size / 1e6:,.0f} MB of logs")
        times: dict[str, list[float]] = {
            "list": [],
            "curves": [],
            "all curves": [],
            "frames a second": [],
            "longest frame": [],
        }
        for _ in range(rounds):
            studio = RunsAlone(Path(folder) / "out", "bounce", Roots((root,)), Roots(()))
            with served(studio) as address:
                page = browser.new_page(viewport={"width": 1440, "height": 900})
                page.goto(address)  # the shell and its programs are there, as where one comes from another page
                begin = time.perf_counter()
                page.goto(f"{address}/runs")
                page.wait_for_function(f"() => document.querySelectorAll('.run').length === {count}")
                times["list"].append(time.perf_counter() - begin)
                page.wait_for_function(
                    "() => document.querySelector('.last-ones') && document.querySelector('.last-ones').textContent"
                )
                times["curves"].append(time.perf_counter() - begin)
                page.wait_for_timeout(500)
                rate, longest = frames(page, 3)
                times["frames a second"].append(rate)
                times["longest frame"].append(longest)
                begin = time.perf_counter()
                page.get_by_role("button", name="All", exact=True).click()
                page.wait_for_selector(f"[data-read='{count}']")
                times["all curves"].append(time.perf_counter() - begin)
                page.close()
        for name, found in times.items():
            unit = "" if "frames" in name else " ms" if "frame" in name else " s"
            print(
                f"{name}: median {median(found):.2f}{unit}, worst {(min if unit == '' else max)(found):.2f}{unit}, of {len(found)}"
            )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("what", choices=("runs",))
    options.add_argument("--count", type=int, default=100)
    options.add_argument("--lines", type=int, default=10_000)
    options.add_argument("--rounds", type=int, default=3)
    said = options.parse_args()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        runs_page(browser, said.count, said.lines, said.rounds)
        browser.close()


if __name__ == "__main__":
    sys.exit(main())
