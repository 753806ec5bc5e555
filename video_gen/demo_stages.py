"""How far `video-gen demo` is: a stage after another, each with its share done and its time left, on the page and in lines."""

import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from video_gen.errors import VideoGenError
from video_gen.evaluation.demo_report import Stage, say_seconds, write_page
from video_gen.training.monitor import say

PAGE_SECONDS = 10.0
"""The page is written anew so often while a stage goes on."""
TOLD, TOLD_SECONDS = 0.03, 5.0
"""Share of a stage, and seconds of it, from which its pace tells the time left: what was there already passes in less."""


class Stages:
    """The demo's stages and its page; a context manager, which at the end leaves the page finished, or says that it stopped.

    Args:
        output: the demo's folder.
        names: of the stages, in order, by key.
        seconds: what each is thought to take.
        intro: the first words of the page.
    """

    def __init__(self, output: Path, names: Mapping[str, str], seconds: Mapping[str, float], intro: str):
        self.output, self.names, self.seconds, self.intro = output, names, seconds, intro
        self.took: dict[str, float] = {}
        self.now: str | None = None
        self.stopped = False
        self._pace = 1.0
        self._lock = threading.Lock()
        self._begin(0.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stopped = kind is not None
        with suppress(VideoGenError) if self.stopped else nullcontext():  # the error that stopped it is to be told
            self.write()

    @contextmanager
    def stage(self, key: str) -> Iterator[None]:
        """Work on one stage."""
        left = sum(self.seconds[key] * self._pace for key in self.names if key not in self.took)
        number = list(self.names).index(key) + 1
        say(f"{number}/{len(self.names)}  {self.names[key]}; about {say_seconds(left)} to the end")
        self.now = key
        self._begin(0.0)
        self.write()
        yield
        self.took[key] = time.monotonic() - self._started
        self.now = None

    def progress(self, share: float) -> None:
        """Say how much of the stage in work is done; the page follows."""
        if self._share == 0.0 and time.monotonic() - self._started < 1.0:  # what was there already is no pace
            self._begin(share)
        self._share = share
        if time.monotonic() - self._written > PAGE_SECONDS or share == 1.0:
            self.write()

    @contextmanager
    def following(self, log: Path, train_steps: int) -> Iterator[None]:
        """Take the progress of a training from its log while it goes on."""
        done = threading.Event()

        def follow() -> None:
            with suppress(VideoGenError):  # a full disk: the training tells it
                while not done.wait(PAGE_SECONDS):
                    self._share = min(1.0, _last_step(log) / train_steps)
                    self.write()

        self._begin(min(1.0, _last_step(log) / train_steps))
        follower = threading.Thread(target=follow, daemon=True)
        follower.start()
        try:
            yield
        finally:
            done.set()
            follower.join()

    def write(self) -> Path:
        """The page as things stand."""
        with self._lock:
            self._written = time.monotonic()
            self._measure_pace()
            return write_page(self.output, [self._stage(key) for key in self.names], self.intro)

    def _stage(self, key: str) -> Stage:
        if key in self.took:
            return Stage(self.names[key], "done", 1.0, self.took[key])
        if key != self.now:
            return Stage(self.names[key], "next", 0.0, self.seconds[key] * self._pace)
        if self.stopped:
            return Stage(self.names[key], "stopped")
        left = max(0.0, self.seconds[key] * self._pace * (1 - self._first_share) - self._spent())
        return Stage(self.names[key], "now", self._share, left)

    def _measure_pace(self) -> None:
        """Against what stages are thought to take, from the one in work, once it shows; the next are thought to have it, too."""
        done = self._share - self._first_share
        if self.now is not None and done >= TOLD and self._spent() >= TOLD_SECONDS:
            self._pace = self._spent() / done / self.seconds[self.now]

    def _spent(self) -> float:
        return time.monotonic() - self._started

    def _begin(self, share: float) -> None:
        self._first_share = self._share = share
        self._started = time.monotonic()
        self._written = 0.0


def _last_step(log: Path) -> int:
    """The step of the last whole line of a run's log; 0 if there is none."""
    if not log.is_file():
        return 0
    lines = log.read_text(encoding="utf-8").split("\n")[:-1]
    return int(json.loads(lines[-1])["step"]) if lines else 0
