"""The process in which an endless stream runs, and the points on its way to which one can go back. torch is imported here.

Said to it:  ("open", model)  ("start", prompt, options)  ("steer", prompt, options)  ("run", on)  ("back", seconds)
             ("save" | "resume", path)  ("record", path or None)  ("stop",)
It says:     ("state", values)  ("block", bytes)  ("recorded", path, facts)  ("note" | "trouble", line)
"""

import io
import struct
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from video_gen.web.studio.worker import told

HEADER = struct.Struct("<IfdHHHH")
"""In front of a block's picture: its number, frames a second, the second at which it begins, how many frames, height, width, 0."""
AHEAD = 0.35
"""Seconds of video that are made before they are due: a page of a model that is fast enough never waits for a block."""
LOSSLESS = 160 * 160
"""Pixels of a frame up to which blocks are sent as PNG; larger ones as JPEG."""
KEPT_BYTES = 256 << 20
"""Of points, together; when there are more, every other one is let go of."""
TRIED, FEWEST, KEEPS_UP = 4, 4, 0.7
"""Steps with which a model is tried when it is opened; the fewest that are then proposed; and the share of its length in which a
block is to be made."""
TOLD = 0.25
"""Seconds between two words about how it goes."""


@dataclass(frozen=True)
class Point:
    """A place on the way to which one can go back."""

    seconds: float
    state: Any
    cues: int
    """Changes that were made up to there."""
    bytes: int


def work(line: Connection, device: str) -> None:
    """Serve until the studio ends."""
    from video_gen.stream import share_cores
    from video_gen.training.parallel import pick_device

    on = pick_device(device)  # type: ignore[arg-type]
    share_cores(on)
    runner = Runner(line, on)
    while True:
        while line.poll(runner.rest()):
            runner.obey(line.recv())
        runner.step()


class Runner:
    """A model, its stream, and what was said to it on the way."""

    def __init__(self, line: Connection, device: Any):
        self.line, self.device = line, device
        self.model, self.pipeline = "", None
        self.lively = 0
        """Steps a block with which the model keeps up here."""
        self.stream: Any = None
        self.running = False
        self.cues: list[dict[str, Any]] = []
        self.begun: dict[str, Any] = {}
        self.points: list[Point] = []
        self.apart = 1
        """Blocks from one point to the next."""
        self.writer: Any = None
        self.target: Path | None = None
        self.number, self.due, self.spoke, self.made = 0, 0.0, 0.0, 0.0

    # -------------------- what is said

    def obey(self, message: tuple) -> None:
        kind, *rest = message
        try:
            getattr(self, f"_{kind}")(*rest)
        except Exception as error:  # of what somebody wants; the stream goes on
            self.line.send(("trouble", told(error)))
        self.tell()

    def _open(self, model: str) -> None:
        if model == self.model and self.pipeline is not None:
            return
        self._stop()
        self.model, self.pipeline = model, None  # there may be memory for one only
        self.tell("loading")
        from video_gen.sample import load_model
        from video_gen.sampling.fit import Fit

        pipeline = load_model(Path(model), self.device, Fit())
        own = pipeline.config.sampling.num_steps
        with pipeline.stream(seed=0, num_steps=min(own, TRIED), first_steps=None) as first:
            for _ in range(2):  # the first blocks are the slowest
                next(first)
            began = time.monotonic()
            length = len(next(first)) / first.fps
            step = (time.monotonic() - began) / min(own, TRIED)
        self.pipeline, self.lively = pipeline, max(FEWEST, min(own, int(KEEPS_UP * length / step)))

    def _start(self, prompt: str, options: dict[str, Any]) -> None:
        from video_gen.stream import open_stream

        self._end_stream()
        self.stream = open_stream(self._loaded(), prompt, **options)
        self.begun = {"prompt": prompt, **options}
        self._begin()

    def _resume(self, path: Path) -> None:
        from video_gen.sampling.stream import Stream

        stream = Stream.load(path, self._loaded())
        self._end_stream()
        self.stream, self.begun = stream, {"resume": path}
        self._begin()

    def _begin(self) -> None:
        self.cues, self.points, self.apart, self.running = [], [], 1, True
        self.due = time.monotonic()

    def _steer(self, prompt: str | None, options: dict[str, Any]) -> None:
        at = self._streaming().begins_at
        self.stream.steer(prompt, **options)
        self.cues.append({"time": at, **({} if prompt is None else {"prompt": prompt}), **options})

    def _run(self, on: bool) -> None:
        self.running = on and self.stream is not None
        self.due = time.monotonic()

    def _back(self, seconds: float) -> None:
        """Go on from the last point up to there, as if nothing had been made or said since."""
        from video_gen.sampling.stream import Stream

        self._streaming()
        kept = [point for point in self.points if point.seconds <= seconds + 1e-6] or self.points[:1]
        if not kept:
            raise ValueError("no point to go back to yet")
        point = kept[-1]
        self._end_stream()
        self.stream = Stream(self._loaded(), point.state)
        self.points, self.cues = kept, self.cues[: point.cues]
        self._run(True)

    def _save(self, path: Path) -> None:
        self._streaming().save(path)
        self.line.send(("note", f"saved as {path.stem}"))

    def _record(self, path: Path | None) -> None:
        from video_gen.data.live_video import LiveMP4

        self._end_recording()
        if path is not None:
            clip = self._streaming().clip
            self.writer, self.target = LiveMP4(path, clip.height, clip.width, self.stream.fps), path
            self.recorded, self.recorded_from = 0, self.stream.seconds

    def _stop(self) -> None:
        self._end_recording()
        self._end_stream()
        self.running = False

    # -------------------- what is made

    def rest(self) -> float | None:
        """Seconds for which nothing is due; None = until somebody says something."""
        if not self.running:
            return None
        return max(0.0, self.due - AHEAD - time.monotonic())

    def step(self) -> None:
        if not self.running:
            return
        try:
            self._make()
        except Exception as error:  # the process outlives what a block meets, as a full disk
            self.running = False
            self.line.send(("trouble", f"{told(error)}; start anew, or go back"))
        if time.monotonic() - self.spoke > TOLD or not self.running:
            self.tell()

    def _make(self) -> None:
        began = time.monotonic()
        if self.number % self.apart == 0:
            self._keep()  # it waits for the block under way, as `next` would
        seconds = self.stream.seconds
        frames = next(self.stream)
        length, now = len(frames) / self.stream.fps, time.monotonic()
        self.made += 0.2 * ((now - began) / length - self.made)
        self.number += 1
        self.line.send(("block", packed(self.number, self.stream.fps, seconds, frames)))
        if self.writer is not None:
            self.writer.write(frames, self.stream.fps)
            self.recorded += len(frames)
        self.due = max(self.due, now) + length  # a slow block is not made up for by a race

    def _keep(self) -> None:
        state = self.stream.state()
        self.points.append(Point(state.seconds, state, len(self.cues), bytes_of(state)))
        if sum(point.bytes for point in self.points) > KEPT_BYTES and len(self.points) > 2:
            self.points, self.apart = self.points[::2], 2 * self.apart

    def _end_stream(self) -> None:
        if self.stream is not None:
            self.stream.close()
        self.stream = None

    def _end_recording(self) -> None:
        if self.writer is None:
            return
        writer, target, self.writer = self.writer, self.target, None
        writer.close()
        assert target is not None
        clip = self.pipeline.config.clip if self.pipeline is not None else None
        facts = {"prompt": self.begun.get("prompt", ""), "seed": self.begun.get("seed"), "fps": clip and clip.fps}
        facts |= {"from_second": round(self.recorded_from, 3), "script": list(self.cues)}
        own = {"model": self.model, "frames": self.recorded} | (
            {"height": clip.height, "width": clip.width} if clip else {}
        )
        self.line.send(("recorded", target, facts | {"studio": own}))

    # -------------------- what is told

    def tell(self, status: str | None = None) -> None:
        self.spoke = time.monotonic()
        stream = self.stream
        if status is None:
            status = "ready" if self.pipeline is not None else "none"
            if stream is not None:
                status = "running" if self.running else "paused"
        said: dict[str, Any] = {"status": status, "model": self.model, "recording": self.writer is not None}
        if self.pipeline is not None:
            clip, sampling = self.pipeline.config.clip, self.pipeline.config.sampling
            said |= {"lively": self.lively, "own_steps": sampling.num_steps}
            said |= {"height": clip.height, "width": clip.width, "fps": clip.fps}
            said |= {"settings": {"guidance_scale": sampling.guidance_scale, "num_steps": sampling.num_steps}}
        if stream is not None:
            now = stream.steering
            said |= {"seconds": stream.seconds, "prompt": now.prompts[0], "speed": now.speed, "made": self.made}
            said |= {"settings": {"guidance_scale": now.sampling.guidance_scale, "num_steps": now.sampling.num_steps}}
            said |= {"cues": list(self.cues), "begun": {name: str(value) for name, value in self.begun.items()}}
            said |= {"points": [round(point.seconds, 3) for point in self.points]}
        self.line.send(("state", said))

    def _loaded(self) -> Any:
        if self.pipeline is None:
            raise ValueError("no model is open; pick one")
        return self.pipeline

    def _streaming(self) -> Any:
        if self.stream is None:
            raise ValueError("nothing is streaming; start it first")
        return self.stream


def packed(number: int, fps: float, seconds: float, frames: Any) -> bytes:
    """A block for a page: its frames (f, h, w, 3) side by side in one picture."""
    from PIL import Image

    f, h, w, _ = frames.shape
    sheet, out = Image.fromarray(frames.transpose(1, 0, 2, 3).reshape(h, f * w, 3)), io.BytesIO()
    if h * w <= LOSSLESS:
        sheet.save(out, "PNG", compress_level=1)
    else:
        sheet.save(out, "JPEG", quality=90)
    return HEADER.pack(number, fps, seconds, f, h, w, 0) + out.getvalue()


def bytes_of(state: Any) -> int:
    """Of a state's tensors."""
    rollout, history = state.rollout, state.rollout.history
    tensors = [x for layer in (history.layers if history else ()) for x in layer]
    tensors += [x for cache in state.decoder or () for x in cache]
    tensors += [x for x in (rollout.block, *rollout.randomness) if x is not None]
    return sum(x.numel() * x.element_size() for x in tensors)
