"""A world that is played in real time: a thread that steps it, what is held meanwhile, and where its frames go.

The page's messages become calls of `Player`; all that touches the world happens in its thread.
"""

import os
import queue
import re
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from video_gen.errors import DataError, VideoGenError
from video_gen.model.pretrained import local_folder
from video_gen.sample import read_given
from video_gen.sampling.fit import Fit
from video_gen.sampling.pipeline import VideoPipeline
from video_gen.sampling.play import Play, vocabulary_of
from video_gen.vocabulary import Action, Vocabulary, parse_action
from video_gen.web.recording import Recording
from video_gen.web.shown import Shown

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")
START = "start.png"
"""In a model's folder: what its world begins with where nothing else is given."""
RATE_OVER = 24
"""Steps over which the rate is told."""
LATE = 0.25
"""Seconds by which a world may lag, and which it makes up for; more are let go, lest it race."""


@dataclass
class Held:
    """What is held, and what was since the last step: a tap between two steps counts, too."""

    vocabulary: Vocabulary
    keys: frozenset[str] = frozenset()
    tapped: set[str] = field(default_factory=set)
    axes: dict[str, float] = field(default_factory=dict)
    pressed: int = 0

    def change(self, said: Any, pressed: int) -> None:
        """Raises: ValueError for what the vocabulary has not."""
        action = parse_action(said)
        kinds = {axis.name: axis for axis in self.vocabulary.axes}
        self.vocabulary.row(Action(keys=action.keys, axes={}))
        if unknown := [name for name in action.axes if name not in kinds]:
            raise ValueError(f"unknown axis '{unknown[0]}'; the axes are {', '.join(kinds) or 'none'}")
        for name, value in action.axes.items():
            moved = value + (self.axes.get(name, 0.0) if kinds[name].kind == "delta" else 0.0)
            if not np.isfinite(moved):
                raise ValueError(f"axis '{name}' is {value}; give a number")
            self.axes[name] = moved
        self.keys = frozenset(action.keys)
        self.tapped |= self.keys
        self.pressed = pressed

    def take(self, frames: int) -> tuple[np.ndarray, int]:
        """The actions (frames, a) of a step, and the last change that is in them. What was tapped and moved is then used up."""
        down = self.keys | self.tapped
        axes = {}
        for axis in self.vocabulary.axes:
            if axis.name in self.axes:
                share = frames if axis.kind == "delta" else 1
                axes[axis.name] = min(max(self.axes[axis.name] / share, axis.low), axis.high)
        row = self.vocabulary.row(Action(keys=tuple(key for key in self.vocabulary.keys if key in down), axes=axes))
        deltas = {axis.name for axis in self.vocabulary.axes if axis.kind == "delta"}
        self.axes = {name: value for name, value in self.axes.items() if name not in deltas}
        self.tapped = set()
        return np.array([row] * frames), self.pressed


class Player:
    """The world of a model, stepped in a thread of its own as long as somebody plays.

    Args:
        load: a model's name to the model.
        folder: where recordings/ and states/ are written.
        start: keywords of `VideoPipeline.play`; resume: a saved state in its place.
        show: is called in the thread with each frame; `tell` with what a page is to know, plain values.
    """

    def __init__(
        self,
        load: Callable[[str], VideoPipeline],
        model: str,
        folder: Path,
        start: Mapping[str, Any],
        show: Callable[[Shown], None],
        tell: Callable[[dict[str, Any]], None],
        resume: Path | None = None,
    ):
        self._load, self.folder, self._show, self._tell = load, folder, show, tell
        self.model, self.prompt, self.seed = model, str(start.get("prompt", "")), int(start.get("seed", 0))
        self._start = {name: value for name, value in start.items() if name not in ("prompt", "seed")}
        self.pipeline = load(model)
        if resume is None:
            self._world = self._begin()
        else:
            self._world = Play.load(resume, self.pipeline)
            self._world.steer(self.prompt or None, **self._settings)
        self.prompt = self._world.steering.prompts[0]
        self._held = Held(self._world.vocabulary)
        self._lock, self._orders = threading.Lock(), queue.Queue[Callable[[], dict[str, Any] | None]]()
        self._playing, self._stop = threading.Event(), threading.Event()
        self._recording: Recording | None = None
        self._broken = False
        self._number, self._rate = 0, 0.0
        self._world = warmed(self.pipeline, self._world)
        self._thread = threading.Thread(target=self._run, name="video-gen play", daemon=True)
        self._thread.start()

    # -------------------- from the page, in its thread

    @property
    def vocabulary(self) -> Vocabulary:
        return self._world.vocabulary

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the frames."""
        clip = self.pipeline.config.clip
        return clip.height, clip.width

    @property
    def fps(self) -> float:
        return self._world.fps

    def hold(self, said: Any, pressed: int) -> None:
        """What is held from now on. Raises: ValueError for what the vocabulary has not."""
        with self._lock:
            self._held.change(said, pressed)

    def play(self, on: bool) -> None:
        """Whether somebody plays. Nobody's keys are let go; a recording is closed."""
        if on:
            self.order(lambda: self._show_now())
            self._playing.set()
            return
        self._playing.clear()
        with self._lock:
            self._held = Held(self.vocabulary)
        self.order(self._end_recording)

    def order(self, what: Callable[[], dict[str, Any] | None]) -> None:
        """Have something done in the world's thread, between two steps; what it returns is told."""
        self._orders.put(what)

    def reset(self, prompt: str, seed: int) -> None:
        self.order(lambda: self._reset(prompt, seed))

    def record(self, on: bool) -> None:
        self.order(self._begin_recording if on else self._end_recording)

    def save(self, name: str) -> None:
        self.order(lambda: self._save(name))

    def load(self, name: str) -> None:
        self.order(lambda: self._load_state(name))

    def change_model(self, name: str) -> None:
        self.order(lambda: self._change_model(name))

    def states(self) -> list[str]:
        """Names of saved states, newest first."""
        found = sorted((self.folder / "states").glob("*.safetensors"), key=lambda path: -path.stat().st_mtime)
        return [path.stem for path in found]

    def close(self) -> None:
        """End the thread; a recording is kept."""
        self._stop.set()
        self._thread.join()

    # -------------------- in the world's thread

    def _run(self) -> None:
        due = time.monotonic()
        while not self._stop.is_set():
            self._obey()
            if self._broken or not self._playing.is_set():
                time.sleep(0.02)
                due = time.monotonic()
                continue
            due = max(due, time.monotonic() - LATE)
            try:
                self._step()
            except Exception as error:  # the thread goes on, whatever a step meets, until somebody begins anew
                self._broken = True
                self._tell({"kind": "error", "text": f"{said(error)}; begin anew, or load a state"})
            due += self._world.frames_per_step / self.fps
            self._wait(due)
        self._end_recording()

    def _wait(self, until: float) -> None:
        while (left := until - time.monotonic()) > 0 and not self._stop.is_set():
            with suppress(queue.Empty):
                self._try(self._orders.get(timeout=left))

    def _obey(self) -> None:
        with suppress(queue.Empty):
            while True:
                self._try(self._orders.get_nowait())

    def _step(self) -> None:
        began = time.monotonic()
        with self._lock:
            rows, pressed = self._held.take(self._world.frames_per_step)
        before = self._world.frames
        frames = self._world.step_rows(rows[None])[0]
        made = time.monotonic() - began
        if self._recording is not None:
            if before is not None and not self._recording.frames:
                self._recording.begin(before[0, -1])
            self._recording.add(rows, frames)
            if self._recording.is_full:
                self._end_recording()
        period = max(made, self._world.frames_per_step / self.fps) / len(frames)
        self._rate = 1 / period if not self._rate else self._rate + (1 / period - self._rate) / RATE_OVER
        ready = time.monotonic()
        for index, frame in enumerate(frames):
            self._number += 1
            if index and (left := ready + index * period - time.monotonic()) > 0:
                time.sleep(left)
            self._show(Shown(self._number, pressed, 1000 * made, self._rate, frame))

    def _show_now(self) -> None:
        if self._world.frames is not None:
            self._number += 1
            self._show(Shown(self._number, self._held.pressed, 0.0, self._rate, self._world.frames[0, -1]))

    @property
    def _settings(self) -> dict[str, Any]:
        """How to sample, whatever the world begins with."""
        return {name: value for name, value in self._start.items() if name not in ("image", "video")}

    def _begin(self) -> Play:
        return self.pipeline.play(self.prompt, seed=self.seed, **self._start)

    def _try(self, what: Callable[[], dict[str, Any] | None]) -> None:
        """Do it, and tell what came of it; what goes wrong is told, and the world goes on."""
        try:
            told = what()
        except Exception as error:  # of somebody's order; the world's thread must outlive it
            told = {"kind": "error", "text": said(error)}
        if told is not None:
            self._tell(told)

    def _reset(self, prompt: str, seed: int) -> None:
        world = self.pipeline.play(prompt, seed=seed, **self._start)
        self._end_recording()
        self.prompt, self.seed, self._world, self._broken = prompt, seed, world, False
        self._show_now()

    def _save(self, name: str) -> dict[str, Any]:
        self._world.save(self._state_file(name))
        return {"kind": "note", "text": f"saved as {name}", "states": self.states()}

    def _load_state(self, name: str) -> dict[str, Any]:
        world = Play.load(self._state_file(name), self.pipeline)
        self._end_recording()
        self.prompt, self._world, self._broken = world.steering.prompts[0], world, False
        return {"kind": "note", "text": f"goes on from {name}", "prompt": self.prompt}

    def _state_file(self, name: str) -> Path:
        if not NAME.fullmatch(name):
            raise DataError(f"'{name[:40]}' is no name for a state; use up to 40 letters, digits, - and _")
        return self.folder / "states" / f"{name}.safetensors"

    def _change_model(self, name: str) -> dict[str, Any]:
        pipeline = self._load(name)
        settings = self._settings
        world = warmed(pipeline, pipeline.play(self.prompt, seed=self.seed, **settings))
        self._end_recording()
        with self._lock:
            self.pipeline, self.model, self._start = pipeline, name, settings
            self._world, self._held = world, Held(world.vocabulary)
        self._rate, self._broken = 0.0, False
        self._show_now()
        return {"kind": "model"}

    @property
    def recording(self) -> bool:
        return self._recording is not None

    def _begin_recording(self) -> dict[str, Any]:
        if self._recording is None:
            folder, caption = self.folder / "recordings", self._world.steering.prompts[0]
            self._recording = Recording(folder, self.vocabulary, self.fps, caption)
            if self._world.frames is not None:
                self._recording.begin(self._world.frames[0, -1])
        return {"kind": "recording", "on": True}

    def _end_recording(self) -> None:
        """Write it. What cannot be written, as on a full disk, is kept until the next try."""
        if self._recording is None:
            self._tell({"kind": "recording", "on": False})
            return
        try:
            path = self._recording.write()
        except Exception as error:
            self._tell(
                {"kind": "error", "text": f"the recording goes on, since it could not be written: {said(error)}"}
            )
            return
        self._recording = None
        self._tell({"kind": "recording", "on": False, "text": f"recorded {path}" if path else "nothing was recorded"})


def leave_a_core(device: torch.device) -> None:
    """One core stays free for a browser that draws here: with as many threads as cores, each operator waits for the thread that
    the browser has pushed aside, and pictures come later (docs/worlds.md)."""
    if device.type == "cpu":
        torch.set_num_threads(max(1, min(torch.get_num_threads(), (os.cpu_count() or 1) - 1)))


def warmed(pipeline: VideoPipeline, world: Play) -> Play:
    """The same world after a step that nobody sees: the first one is the slowest."""
    begun, first = world.state(), world.frames
    world.step()
    return Play(pipeline, begun, first)


def said(error: Exception) -> str:
    """What went wrong, in a line."""
    text = " ".join(str(error).split())
    return text if isinstance(error, VideoGenError) else f"{type(error).__name__}: {text}"


def opener(
    device: torch.device, fit: Fit = Fit(), room: str | None = None, **settings: Any
) -> Callable[[str], VideoPipeline]:
    """A function from a model's name to the model. It raises ConfigError for one that knows no actions, or does not fit.

    Args: room: a size, or "auto", into which each model is made to fit, as `fit` says where that says something.
    """

    def load(name: str) -> VideoPipeline:
        chosen = fit
        if room is not None:
            from video_gen.plan_sample import fit_into

            chosen = fit_into(room, name, device, fit, stream=True, block_frames=1, **settings)
        pipeline = VideoPipeline.from_pretrained(name, device, chosen)
        vocabulary_of(pipeline)
        return pipeline

    return load


def beginning(pipeline: VideoPipeline, model: str) -> dict[str, Any]:
    """With what a model's world begins where nothing is given: its own picture, if it has one."""
    own = local_folder(model) / START
    return read_given(pipeline, own if own.is_file() else None, None)
