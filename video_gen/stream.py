"""Streaming to a file or a player: script, progress, and an end that leaves whatever was written whole."""

import json
import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, model_validator

from video_gen.config import Config, validate
from video_gen.data.live_video import LiveMP4, LiveRaw, LiveWriter
from video_gen.errors import ConfigError, DataError, VideoGenError
from video_gen.files import check_folder, read_lines
from video_gen.interrupt import stop_signals
from video_gen.naming import free_name
from video_gen.plain_json import parse
from video_gen.sample import read_given
from video_gen.sampling.pipeline import VideoPipeline
from video_gen.sampling.stream import Stream

Format = Literal["mp4", "raw"]
TO_PLAYER = "-"
"""The output that is standard output."""


class Cue(Config):
    """A line of a script: from the first block that begins at `time` or later, what else it names holds."""

    time: float = Field(ge=0)
    """Seconds since the start of the stream."""
    prompt: str | None = None
    guidance_scale: float | None = Field(default=None, ge=0, le=1_000)
    speed: float | None = Field(default=None, ge=0.01, le=100)

    @model_validator(mode="after")
    def _changes_something(self):
        if self.prompt is None and self.guidance_scale is None and self.speed is None:
            raise ValueError("names no prompt, guidance_scale or speed: it would change nothing")
        return self

    def settings(self) -> dict[str, Any]:
        """What changes besides the prompt."""
        return self.model_dump(include={"guidance_scale", "speed"}, exclude_none=True)


def read_script(path: Path) -> list[Cue]:
    """A file with a JSON object per line, in the order of time. Raises: DataError, ConfigError naming a bad line."""
    cues: list[Cue] = []
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        try:
            values = parse(line)
        except ValueError as error:
            raise DataError(f"{path}, line {number}: not JSON ({error}): {line.strip()[:60]}") from None
        cue = validate(Cue, values, source=f"{path}, line {number}")
        if cues and cue.time < cues[-1].time:
            raise ConfigError(f"{path}, line {number}: time {cue.time} is before {cues[-1].time} above; sort the lines")
        cues.append(cue)
    return cues


def check_cues(pipeline: VideoPipeline, cues: Sequence[Cue]) -> None:
    """All that a script will ask of a model, before the first frame. Raises: DataError for a prompt that it does not take."""
    for cue in cues:
        if cue.prompt is not None:
            try:
                pipeline.text.tokenise([cue.prompt])
            except DataError as error:
                raise DataError(f"script, at {cue.time:g} s: {error}") from None


def open_stream(
    pipeline: VideoPipeline,
    prompt: str | None,
    *,
    resume: Path | None = None,
    cues: Sequence[Cue] = (),
    image: Path | None = None,
    video: Path | None = None,
    **options: Any,
) -> Stream:
    """A new stream, or with `resume` a saved one, which keeps its prompt and settings where none are given.

    Args: options: of `VideoPipeline.streams`, besides `seed`; None = not given.
    Raises: ConfigError if an option makes no sense for a saved stream; what `VideoPipeline.streams` and `Stream.load` do.
    """
    options = {name: value for name, value in options.items() if value is not None}
    check_cues(pipeline, cues)
    if resume is not None:
        names = ("seed", "block_frames", "first_steps", "first_block_frames")
        beginnings = {"image": image, "video": video} | {name: options.get(name) for name in names}
        if wrong := [name for name, value in beginnings.items() if value is not None]:
            raise ConfigError(f"{wrong[0]} is given with resume, but {resume} has begun already; leave one of them out")
        stream = Stream.load(resume, pipeline)
        try:
            stream.steer(prompt, **options)
        except VideoGenError:
            stream.close()
            raise
        return stream
    for cue in cues:
        if cue.time == 0:
            options |= cue.settings()
            prompt = prompt if cue.prompt is None else cue.prompt
    given = read_given(pipeline, image, video)
    return pipeline.stream(prompt or "", **given, **options)


def steer_on_cue(stream: Stream, cues: Sequence[Cue], after: float) -> float:
    """Follow the cues later than `after`, up to the start of the block that `next` begins. Returns: that start."""
    now = stream.begins_at
    for cue in cues:
        if after < cue.time <= now:
            stream.steer(cue.prompt, **cue.settings())
    return now


def show(
    stream: Stream,
    output: Path,
    *,
    seconds: float | None = None,
    format: Format = "mp4",
    enlarge: int = 1,
    cues: Sequence[Cue] = (),
    save: Path | None = None,
) -> "Progress":
    """Write a stream until `seconds` are there, or until Ctrl-C, SIGTERM, or the player at the other end goes away.

    Args:
        output: an .mp4 file, or "-" for standard output. A file that is there is kept: a number is added to the name.
        seconds: of video, without given frames; the block that reaches them is the last, and whole. None = no end.
        enlarge: whole factor.
        cues: from `read_script`. `save`: a file for the state at the end, from which the stream can go on.
    Raises: DataError if the output cannot be written.
    """
    check_output(output, format, save)
    clip, start, followed = stream.clip, stream.seconds, stream.seconds
    progress = Progress()
    writer = _writer(stream, output, format, clip.height * enlarge, clip.width * enlarge)
    try:
        with stop_signals() as stop:
            if stream.given is not None:
                writer.write(stream.given.repeat(enlarge, axis=1).repeat(enlarge, axis=2), stream.fps)
            while not stop.is_set() and (seconds is None or stream.seconds - start < seconds):
                followed = steer_on_cue(stream, cues, followed)
                frames = next(stream)
                writer.write(frames.repeat(enlarge, axis=1).repeat(enlarge, axis=2), stream.fps)
                progress.add(len(frames), stream.seconds - start)
    except BrokenPipeError:
        progress.say("the reader has gone")
    except DataError:  # a full disk: what is kept elsewhere is kept
        if save is not None:
            with suppress(DataError):
                stream.save(save)
        raise
    finally:
        _close(writer)
        progress.end()
    if save is not None:
        stream.save(save)
        progress.say(f"{save}: the state; go on from it with --resume")
    return progress


def check_output(output: Path, format: Format, save: Path | None = None) -> None:
    """What can be known before a model is loaded. Raises: ConfigError, DataError if nothing can be written there."""
    to_player = str(output) == TO_PLAYER
    if format == "raw" and not to_player:
        raise ConfigError(f"output is {output}, but format 'raw' goes to standard output; use --output -")
    if not to_player and output.suffix.lower() != ".mp4":
        raise ConfigError(f"output is {output}: a stream is written as .mp4, or to standard output with --output -")
    for path in (None if to_player else output, save):
        if path is not None and path.is_dir():
            raise DataError(f"{path}: cannot be written: is a folder; give a file in it")
        if path is not None:
            check_folder(path.parent)


def _writer(stream: Stream, output: Path, format: Format, height: int, width: int) -> LiveWriter:
    if format == "raw":
        hint = f"ffplay -f rawvideo -pixel_format rgb24 -video_size {width}x{height} -framerate {stream.fps:g} -"
        print(f"raw frames; to watch them: {hint}", file=sys.stderr)
        return LiveRaw(sys.stdout.buffer)
    facts = {"prompt": stream.steering.prompts[0], **stream.steering.sampling.model_dump(mode="json")}
    metadata = {name: json.dumps(value) for name, value in facts.items()}
    target = sys.stdout.buffer if str(output) == TO_PLAYER else _unused(output)
    return LiveMP4(target, height, width, stream.fps, metadata=metadata)


def _unused(output: Path) -> Path:
    """The file itself, or if it is there already, one beside it, which is said."""
    if not output.is_file():
        return output
    other = output.with_name(free_name(output.parent, output.stem) + output.suffix)
    print(f"{output}: is there already and is kept; this stream goes to {other}", file=sys.stderr)
    return other


def _close(writer: LiveWriter) -> None:
    try:
        writer.close()
    except BrokenPipeError:  # nobody is there to miss the end; and Python is not to try again when it exits
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@dataclass
class Progress:
    """How much was made and how fast, on standard error: standard output may be the video."""

    frames: int = 0
    seconds: float = 0.0
    started: float = field(default_factory=time.monotonic)
    first_after: float | None = None
    """Seconds from the start to the first frame."""

    def add(self, frames: int, seconds: float) -> None:
        self.frames, self.seconds = self.frames + frames, seconds
        self.first_after = self.first_after or time.monotonic() - self.started
        if sys.stderr.isatty():
            print(f"\r{self}\033[K", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        print(f"\r{self}" if sys.stderr.isatty() else str(self), file=sys.stderr)

    def say(self, text: str) -> None:
        print(f"\r{text}\033[K" if sys.stderr.isatty() else text, file=sys.stderr)

    def __str__(self) -> str:
        taken = time.monotonic() - self.started
        first = f", first frame after {self.first_after:.2f} s" if self.first_after else ""
        rate = f"{self.frames / taken:.1f} frames/s, {self.seconds / taken:.2f} x real time"
        return f"{self.frames} frames, {self.seconds:.1f} s of video in {taken:.1f} s: {rate}{first}"


def share_cores(device: torch.device) -> None:
    """Half of the cores for each of the two things a stream does at once; more threads than cores cost most of the speed."""
    if device.type == "cpu":
        torch.set_num_threads(max(1, torch.get_num_threads() // 2))
