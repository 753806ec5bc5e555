"""The studio's start, its gallery and its drafts: `python -m benchmarks.studio start`, `gallery`, `drafts`."""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any
from urllib.request import urlopen

import numpy as np
from PIL import Image

from benchmarks.studio_page import frames, served
from video_gen.data.video_writer import write_video
from video_gen.web.studio.roots import Roots
from video_gen.web.studio.studio import Studio


class GalleryAlone(Studio):
    """Without the process that samples, which would compete for the cores."""

    def start(self) -> None:
        self.hub.start()

    def close(self) -> None:
        self.apart.close()


def start(browser: Any, rounds: int) -> None:
    """From the command to a page on which a prompt can be typed, in a browser that is open, and to the shipped model ready."""
    usable, ready = [], []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            words = [sys.executable, "-m", "video_gen.cli", "studio", "--no-browser", "--port", "0", "--output", folder]
            page = browser.new_page()
            began = time.perf_counter()
            process = subprocess.Popen([*words, "--model", "bounce"], stdout=subprocess.PIPE, text=True)
            assert process.stdout is not None
            address = process.stdout.readline().split()[2]
            while True:
                try:
                    urlopen(address).close()
                    break
                except OSError:
                    time.sleep(0.01)
            page.goto(address)
            page.wait_for_selector("textarea[name=prompt]")
            usable.append(time.perf_counter() - began)
            page.evaluate(READY)
            ready.append(time.perf_counter() - began)
            page.close()
            process.terminate()
            process.wait()
    tell("a page that can be used", usable, "s")
    tell("the shipped model ready", ready, "s")


READY = """() => new Promise((done) => {
  const socket = new WebSocket(`ws://${location.host}/api/events?topics=queue`);
  socket.onmessage = (event) => { if (JSON.parse(event.data).queue.worker.state === 'ready') { socket.close(); done(); } };
})"""


def gallery(browser: Any, count: int, rounds: int) -> None:
    """Results of 64x64 with pictures of their own: how soon they can be used, and how they scroll."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        fill(out / "results", count)
        usable, rates, longest = [], [], []
        for _ in range(rounds):
            with served(GalleryAlone(out, "bounce", Roots(()), Roots(()))) as address:
                page = browser.new_page(viewport={"width": 1440, "height": 900})
                began = time.perf_counter()
                page.goto(address)
                page.wait_for_function("() => [...document.querySelectorAll('.tile img')].some((one) => one.complete)")
                usable.append(time.perf_counter() - began)
                page.wait_for_timeout(500)
                rate, worst = frames(page, 4)
                rates.append(rate)
                longest.append(worst)
                page.close()
    print(f"{count:,} results")
    tell("a gallery that can be used", usable, "s")
    tell("frames a second while it scrolls from end to end", rates, "", min)
    tell("longest frame", longest, "ms")


def fill(folder: Path, count: int) -> None:
    folder.mkdir(parents=True)
    draw = np.random.default_rng(0)
    video = write_video(folder / "one.mp4", draw.integers(0, 255, (17, 64, 64, 3), np.uint8), 16).read_bytes()
    (folder / "one.mp4").unlink()
    for number in range(count):
        name = folder / f"clip_{number}"
        facts = {"prompt": f"clip number {number}", "seed": number, "fps": 16}
        studio = {"width": 64, "height": 64, "frames": 17, "model": "bounce"}
        name.with_suffix(".json").write_text(json.dumps(facts | {"studio": studio}))
        Image.fromarray(draw.integers(0, 255, (8, 8, 3), np.uint8)).resize((64, 64)).save(name.with_suffix(".webp"))
        name.with_suffix(".mp4").write_bytes(video)
        os.utime(name.with_suffix(".mp4"), (10**9 + number, 10**9 + number))


def drafts(rounds: int) -> None:
    """What being watched, with a picture as often as the studio has one, adds to the time of sampling; one after the other."""
    from video_gen.sampling.fit import Fit
    from video_gen.web.studio.worker import Maker, Wanted, Watching

    class Line:
        """Nobody at the other end."""

        def __init__(self):
            self.sent: list[Any] = []

        def send(self, message: Any) -> None:
            self.sent.append(message)

        def poll(self) -> bool:
            return False

    line = Line()
    maker = Maker(line, "cpu")  # type: ignore[arg-type]
    maker.load(Wanted("bounce", Fit(), ()))

    def seconds(watch: Any) -> float:
        began = time.perf_counter()
        maker.pipeline("a red circle, fast", seed=0, num_frames=17, num_steps=30, watch=watch)
        return time.perf_counter() - began

    seconds(None)
    pairs = [(seconds(None), seconds(Watching(maker, 1))) for _ in range(rounds)]
    pictures = sum(message[0] == "draft" for message in line.sent)
    ratios = [watched / plain for plain, watched in pairs]
    best = min(watched for _, watched in pairs) / min(plain for plain, _ in pairs)
    print(f"{pictures / rounds:.0f} pictures a video of {min(plain for plain, _ in pairs):.1f} s")
    print(f"time with drafts by time without: median {median(ratios):.3f}, best by best {best:.3f}, of {rounds} pairs")


def tell(name: str, found: list[float], unit: str, worst: Any = max) -> None:
    print(
        f"{name}: median {median(found):.2f} {unit}, worst {worst(found):.2f} {unit}, of {len(found)}".replace(
            " ,", ","
        )
    )
