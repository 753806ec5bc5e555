"""A world that is played, as a person meets it: frames a second and milliseconds from key to picture, in a real Chromium.

    python -m benchmarks.play --model maze --seconds 60
    python -m benchmarks.play --model maze --soak 43200

The first starts `video-gen play`, opens its page, and holds keys for random times; a key's time is from the page's `keydown` to the
picture that answers it, drawn. The second steps the world without a page, as fast as it goes: does memory grow, does a step take
longer? 43,200 steps of one frame are an hour of play at 12 frames a second.
"""

import argparse
import os
import random
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.soak import growth, resident
from video_gen.errors import exit_code
from video_gen.sampling.pipeline import VideoPipeline

QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def in_browser(model: Path, seconds: float, extra: list[str]) -> dict[str, float]:
    """Play at random for so long."""
    from playwright.sync_api import sync_playwright

    chromium = os.environ.get("VIDEO_GEN_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    command = [
        sys.executable,
        "-m",
        "video_gen.cli",
        "play",
        "--model",
        str(model),
        "--port",
        "0",
        "--no-browser",
        *extra,
    ]
    started = time.perf_counter()
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    address = re.search(r"http://\S+", server.stdout.readline())
    assert address is not None
    ready = time.perf_counter() - started
    rng = random.Random(0)
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=QUIET)
            page = browser.new_page()
            page.goto(address[0])
            page.wait_for_function("() => window.shown !== undefined")
            keys = page.evaluate("() => window.shown.codes")
            page.wait_for_timeout(1000)
            began, first = time.perf_counter(), page.evaluate("() => window.shown.number")
            latencies: list[float] = []
            while time.perf_counter() - began < seconds:
                key = rng.choice(keys)
                page.keyboard.down(key)
                page.wait_for_timeout(rng.uniform(100, 1200))
                page.keyboard.up(key)
                page.wait_for_timeout(rng.uniform(100, 600))
                latencies += page.evaluate("() => window.shown.latencies.splice(0)")
            frames = page.evaluate("() => window.shown.number") - first
            taken = time.perf_counter() - began
            made = float(page.locator("#made").inner_text())
            browser.close()
    finally:
        server.terminate()
        server.wait()
    return {
        "seconds to a page that can be used": ready,
        "frames a second": frames / taken,
        "ms to make a step": made,
        "key presses and releases": len(latencies),
        "ms from key to picture, median": float(np.median(latencies)),
        "ms from key to picture, 95%": float(np.quantile(latencies, 0.95)),
    }


def soak(model: Path, steps: int) -> dict[str, float]:
    """Step a world so many times."""
    pipeline = VideoPipeline.from_pretrained(model)
    world, rng = pipeline.play(seed=0), random.Random(0)
    rows, began = np.zeros((steps, 4)), time.perf_counter()  # all of it at once, or its growth would be measured
    for step in range(steps):
        clock, cpu = time.perf_counter(), time.process_time()
        held = [key for key in world.vocabulary.keys if rng.random() < 0.3]
        world.step({"keys": held})
        taken = (1e3 * (time.perf_counter() - clock), 1e3 * (time.process_time() - cpu))
        rows[step] = (world.frames_per_step * step, resident(), *taken)
    rate = steps * world.frames_per_step / (time.perf_counter() - began)
    found = growth(rows)
    return {"frames": steps * world.frames_per_step, "frames a second": rate} | {
        f"growth of {k}": v for k, v in found.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, default=Path("maze"))
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--soak", type=int, default=0, help="steps without a page")
    args, extra = parser.parse_known_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    found = soak(args.model, args.soak) if args.soak else in_browser(args.model, args.seconds, extra)
    for name, value in found.items():
        print(f"{name:45}{value:10.2f}")


if __name__ == "__main__":
    sys.exit(exit_code("play", main))
