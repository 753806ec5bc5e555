"""Pages of the studio in a real Chromium: how soon one can be used, and how it scrolls.

    python -m benchmarks.studio runs|gallery|start|drafts

`runs`: 100 runs of 10,000 lines each, written to a temporary folder. Told are the times from the press of Enter to a list that can
be pressed and to curves that are drawn, with nothing in the server's memory, and the frames a second while the page scrolls.
`gallery`: the same of 5,000 results. `start`: from the command to a page, and to the shipped model. `drafts`: what the picture that
becomes clear while steps run adds to the time of sampling.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from benchmarks.made_runs import write_run
from benchmarks.studio_create import drafts, gallery, start
from benchmarks.studio_page import CHROMIUM, frames, served
from video_gen.web.studio.roots import Roots
from video_gen.web.studio.studio import Studio


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
    options.add_argument("what", choices=("runs", "gallery", "start", "drafts"))
    options.add_argument("--count", type=int, help="runs, 100; or results, 5000")
    options.add_argument("--lines", type=int, default=10_000)
    options.add_argument("--rounds", type=int, default=3)
    said = options.parse_args()
    if said.what == "drafts":
        drafts(said.rounds)
        return
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        if said.what == "runs":
            runs_page(browser, said.count or 100, said.lines, said.rounds)
        elif said.what == "gallery":
            gallery(browser, said.count or 5000, said.rounds)
        else:
            start(browser, said.rounds)
        browser.close()


if __name__ == "__main__":
    sys.exit(main())
