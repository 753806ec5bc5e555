"""The process that holds a model and makes videos with it. torch is imported here, and nowhere else in the studio.

Said to it:  ("load", Wanted)   ("make", Order)  ("stop", number)
It says:     ("loading" | "ready", model)  ("trouble", model, line)  ("step", number, done)  ("draft", number, jpeg, frames)
             ("made" | "stopped", number)  ("failed", number, line)
"""

import gc
import io
import json
import time
from collections import deque
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from video_gen.errors import line_of
from video_gen.files import write_text, written
from video_gen.sampling.fit import Fit

SHARE = 0.02
"""Of the time of sampling that drafts may take."""
EVERY, TOLD = 0.2, 0.1
"""Seconds between two drafts, and between two words of progress, at least."""
IDLE = 600.0
"""Seconds without work after which a model is let go of: others want the memory, too."""
DONE = "done"
"""The file that says that a folder's video is whole."""


@dataclass(frozen=True)
class Wanted:
    """A model as it is to be in memory."""

    model: str
    fit: Fit
    loras: tuple[str, ...]


@dataclass(frozen=True)
class Order:
    """One video to make."""

    number: int
    wanted: Wanted
    folder: Path
    """For the video, its settings and its picture; nothing is in it."""
    options: dict[str, Any]
    """Keywords of `sample_to_files`."""
    said: dict[str, Any]
    """What the person said, kept beside the video."""


class Stopped(Exception):
    """Somebody wants no more of this video."""


def work(line: Connection, device: str) -> None:
    """Serve until the studio ends."""
    line.poll(None)  # the first page goes first; what is imported now takes both it and us a second
    from video_gen.training.parallel import pick_device

    maker = Maker(line, str(pick_device(device)))  # type: ignore[arg-type]
    while True:
        if not maker.waiting and not line.poll(IDLE):
            maker.let_go()
        maker.serve(maker.waiting.popleft() if maker.waiting else line.recv())


class Maker:
    """A model in memory, and what is asked of it."""

    def __init__(self, line: Connection, device: str):
        self.line, self.device = line, device
        self.waiting: deque[tuple] = deque()
        self.held: Wanted | None = None
        self.pipeline: Any = None
        self.draft: Any = None

    def serve(self, message: tuple) -> None:
        kind, what = message
        if kind == "load":
            try:
                self.load(what)
            except Exception as error:  # of a model that is damaged; another one can be picked
                self.line.send(("trouble", what.model, told(error)))
        elif kind == "make":
            try:
                self.make(what)
                self.line.send(("made", what.number))
            except Stopped:
                self.line.send(("stopped", what.number))
            except Exception as error:  # of this video; the next may do
                self.line.send(("failed", what.number, told(error)))

    def load(self, wanted: Wanted) -> None:
        if wanted == self.held:
            return
        self.line.send(("loading", wanted.model))
        self.let_go()  # there may be memory for one only
        import torch

        from video_gen.sample import load_model
        from video_gen.sampling.draft_decoder import DraftDecoder

        self.pipeline = load_model(Path(wanted.model), torch.device(self.device), wanted.fit, (), wanted.loras)
        with self.pipeline.inference():
            self.draft = DraftDecoder.fit(self.pipeline.vae, self.pipeline.device)
        strip_of(self.draft(torch.zeros(self.draft.first.shape[0] - 1, 1, 8, 8)))  # the first one is the slowest
        self.held = wanted
        self.line.send(("ready", wanted.model))

    def let_go(self) -> None:
        """Have no model in memory."""
        if self.held is not None:
            import torch

            self.held = self.pipeline = self.draft = None
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def make(self, order: Order) -> None:
        from video_gen.sample import sample_to_files

        self.load(order.wanted)
        began = time.monotonic()
        watch = Watching(self, order.number)
        video = sample_to_files(self.pipeline, output=order.folder, count=1, sheet=False, watch=watch, **order.options)[
            0
        ]
        finish(video, order.said | {"device": self.device, "took": round(time.monotonic() - began, 3)})

    def stops(self, number: int) -> bool:
        """Whether this video is not wanted any more. What else is said meanwhile waits."""
        while self.line.poll():
            message = self.line.recv()
            if message == ("stop", number):
                return True
            if message[0] != "stop":
                self.waiting.append(message)
        return False


class Watching:
    """Tells of a video while it is made, and shows a draft of it as often as that costs little."""

    def __init__(self, maker: Maker, number: int):
        self.maker, self.number = maker, number
        self.began = self.told = time.monotonic()
        self.spent = self.last = 0.0
        self.shown = self.began - EVERY
        self.blocks: dict[int, Any] = {}

    def __call__(self, step: Any) -> None:
        if self.maker.stops(self.number):
            raise Stopped
        self.blocks[step.start] = step.estimate[0]
        now = time.monotonic()
        if now - self.told >= TOLD or step.done == 1:
            self.maker.line.send(("step", self.number, step.done))
            self.told = now
        if now - self.shown >= EVERY and self.spent + self.last <= SHARE * (now - self.began):
            self.maker.line.send(("draft", self.number, *self._draft()))
            self.shown, self.last = now, time.monotonic() - now
            self.spent += self.last

    def _draft(self) -> tuple[bytes, int]:
        """The frames of all blocks so far, as a strip, and how many they are."""
        import torch

        starts = sorted(self.blocks)
        frames = self.maker.draft(torch.cat([self.blocks[start] for start in starts], dim=1), starts[0])
        return strip_of(frames), len(frames)


def strip_of(frames: Any) -> bytes:
    """uint8 (f, h, w, 3), side by side, as JPEG."""
    from PIL import Image

    f, h, w, _ = frames.shape
    out = io.BytesIO()
    Image.fromarray(frames.transpose(1, 0, 2, 3).reshape(h, f * w, 3)).save(out, "JPEG", quality=85)
    return out.getvalue()


def finish(video: Path, said: dict[str, Any]) -> None:
    """Put beside a video what it was made of, and its picture; then say that it is whole."""
    from PIL import Image

    from video_gen.data.video_file import iterate_frames, probe
    from video_gen.web.studio.looking import webp

    info = probe(video)
    first = Image.fromarray(next(iterate_frames(video, [0.0])))
    facts = json.loads(video.with_suffix(".json").read_text(encoding="utf-8"))
    studio = said | {"height": info.height, "width": info.width, "frames": info.num_frames}
    write_text(video.with_suffix(".json"), json.dumps(facts | {"studio": studio}, indent=1))
    with written(video.with_suffix(".webp")) as temporary:
        temporary.write_bytes(webp(first))
    write_text(video.parent / DONE, "")


def told(error: Exception) -> str:
    """An error in one line, whatever it is."""
    return line_of(error) or f"{type(error).__name__}: {' '.join(str(error).split())}"
