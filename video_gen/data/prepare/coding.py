"""One clip as a file, picture by picture: scaled, cropped, at its rate, with key frames close together, so that any window is read
fast."""

import json
from fractions import Fraction
from pathlib import Path
from typing import Any, Self

import av
import numpy as np
from av.video.frame import PictureType, VideoFrame

from video_gen.data.container import slack_of
from video_gen.data.picture import Scaled
from video_gen.data.prepare.pieces import Box
from video_gen.data.prepare.settings import PrepareConfig
from video_gen.data.video_info import VideoInfo
from video_gen.data.video_writer import REPEATABLE, h264_stream, to_yuv420

B_FRAMES = 2
"""With x264's fastest settings: at equal error a third more bytes than `veryfast`, coded in a third of the time, and decoded in
half of it, again and again in training (benchmarks/coding.py)."""


class Clip:
    """An .mp4 that is being written; to be used in a `with`.

    Args:
        path: where; the caller sees to it that nobody takes it for whole before it is.
        source: the file's name in its pile, `start` the time in it, seconds, both written into the clip.
        box: what is cropped.
    """

    def __init__(self, path: Path, source: str, start: float, info: VideoInfo, box: Box, config: PrepareConfig):
        self.start, self.number = start, 0
        """Seconds into the source; frames that were due so far."""
        self.whole, self._box = size_of(info, box, config)
        """(width, height) to which all of a picture is to be scaled."""
        self._fps, self._slack = rate_of(info, config), slack_of(info.tick)
        self._rate = Fraction(self._fps).limit_denominator(10_000)
        self._options = {
            "crf": str(config.crf),
            "preset": "ultrafast",
            "x264-params": f"{REPEATABLE}:bframes={B_FRAMES}",
        }
        self._held: tuple[VideoFrame, int] | None = None
        """The last frame that was due, and its number: whether it still belongs to the clip is known at the end."""
        self._stream: Any = None
        self._container: Any = av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"})
        self._container.metadata["comment"] = json.dumps({"source": source, "start": start}, ensure_ascii=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._container.close()

    def count(self, seconds: float) -> int:
        """Frames of a clip that is so long."""
        return count_of(seconds, self._fps)

    def due(self, end: float) -> int:
        """Of the clip's frames, how many are to be shown before `end`, seconds into the source."""
        number = self.number
        while self.start + number / self._fps < end - self._slack:
            number += 1
        return number

    def add(self, end: float, picture: Scaled) -> None:
        """What is shown until `end`, of the size `whole`, as often as it is due."""
        number = self.due(end)
        frame = coded(picture, self._box) if number > self.number else None
        for index in range(self.number, number):
            assert frame is not None
            self._code()
            self._held = (frame, index)
        self.number = number

    def finish(self, seconds: float) -> int:
        """Now it is known how long it is. Returns: how many frames it lacks, 0 if it is whole."""
        count = self.count(seconds)
        if self.number < count or self._held is None:
            return count - self.number
        if self._held[1] < count:
            self._code()
        self._container.mux(self._stream.encode())
        return 0

    def _code(self) -> None:
        if self._held is None:
            return
        frame, index = self._held
        if self._stream is None:
            height, width, matrix = frame.height, frame.width, int(frame.colorspace)
            self._stream = h264_stream(self._container, height, width, self._rate, self._options, matrix)
        frame.pts, frame.time_base = index, 1 / self._rate
        self._container.mux(self._stream.encode(frame))


def rate_of(info: VideoInfo, config: PrepareConfig) -> float:
    """Frames a second of what is written: as it is, or thinned out."""
    return min(info.fps, config.fps) if config.fps else info.fps


def count_of(seconds: float, fps: float) -> int:
    """Frames of a clip that is so long."""
    return max(1, round(seconds * fps))


def shrinks(info: VideoInfo, side: int | None) -> bool:
    """Whether pictures with a short side of `side` pixels (None = all) are of half the size or less."""
    return side is not None and 2 * side <= min(info.width, info.height)


def smaller(width: int, height: int, side: float) -> tuple[int, int]:
    """(width, height) with the short side of `side` pixels, both even; as they are if that is less."""
    scale = side / min(width, height)
    if scale >= 1:
        return width, height
    return max(2, round(width * scale / 2) * 2), max(2, round(height * scale / 2) * 2)


def size_of(info: VideoInfo, box: Box, config: PrepareConfig) -> tuple[tuple[int, int], tuple[int, int, int, int]]:
    """(width, height) to which the whole picture is scaled, and what is cut out of it: left, top, width, height, which are even."""
    top, bottom, left, right = box
    kept_w, kept_h = info.width * (1 - left - right), info.height * (1 - top - bottom)
    short = min(kept_w, kept_h)
    share = min(1.0, config.short_side / short) if config.short_side else 1.0
    whole = smaller(info.width, info.height, share * min(info.width, info.height))
    # colours are stored for two by two pixels
    x, y = 2 * int(np.ceil(left * whole[0] / 2)), 2 * int(np.ceil(top * whole[1] / 2))
    width = int(whole[0] - x - np.ceil(right * whole[0])) // 2 * 2
    height = int(whole[1] - y - np.ceil(bottom * whole[1])) // 2 * 2
    return whole, (x, y, max(2, width), max(2, height))


def coded(picture: Scaled, box: tuple[int, int, int, int]) -> VideoFrame:
    """A part of a picture (left, top, width, height; all even) as yuv420p of limited range."""
    x, y, width, height = box
    content = picture.content
    if isinstance(content, np.ndarray):
        return to_yuv420(content[y : y + height, x : x + width], 0, Fraction(1))
    made = content
    if (x, y, width, height) != (0, 0, content.width, content.height):
        planes = []
        for plane, half in zip(content.planes, (1, 2, 2)):
            rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
            part = rows[y // half : (y + height) // half, x // half : (x + width) // half]
            planes.append(part.reshape(-1, width))
        made = VideoFrame.from_ndarray(np.concatenate(planes), format="yuv420p")
        made.colorspace, made.color_range = content.colorspace, content.color_range
    made.pict_type = PictureType.NONE  # where key frames are is for the encoder to say
    return made
