"""Pieces as files: decoded once more, scaled on the way, with key frames close together, so that any window is read fast."""

import json
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.frame import PictureType, VideoFrame
from PIL import Image

from video_gen.data.actions import actions_of, beside, write_actions
from video_gen.data.container import slack_of
from video_gen.data.picture import Scaled
from video_gen.data.prepare.pieces import Piece
from video_gen.data.prepare.settings import PrepareConfig
from video_gen.data.video_file import Timed, VideoInfo, every_frame, frames_from
from video_gen.data.video_writer import REPEATABLE, h264_stream, to_yuv420
from video_gen.errors import DataError
from video_gen.files import written
from video_gen.vocabulary import Vocabulary

B_FRAMES = 2
"""With x264's fastest settings: at equal error 1.2 to 1.6 times the bytes of `veryfast`, coded three times as fast, and decoded
twice as fast, again and again in training."""


def write_pieces(
    path: Path,
    info: VideoInfo,
    pieces: Sequence[Piece],
    output: Path,
    config: PrepareConfig,
    vocabulary: Vocabulary | None,
) -> None:
    """Write those pieces of one file that `output` does not have yet, as .mp4 or .png, with their actions beside them.

    Raises: DataError if the file cannot be read any more, or `output` not be written.
    """
    missing = [piece for piece in pieces if not (output / file_name(piece, info)).exists()]
    if info.kind == "image":
        for piece in missing:
            _write_image(path, info, piece, output / file_name(piece, info), config)
        return
    rows = None
    if vocabulary is not None and beside(path).exists():
        rows = actions_of(beside(path), str(path), vocabulary, info.num_frames, info.fps)
    # one pass through the file serves all its pieces, unless there are long stretches between them
    for run in _runs(missing):
        frames = frames_from(path, info, run[0].start_time)
        for piece in run:
            if rows is not None and vocabulary is not None:
                if config.fps is not None and config.fps < info.fps:
                    raise DataError(
                        f"{path}: has actions at {info.fps:g} a second, which are not thinned out here; leave out --fps"
                    )
                write_actions(output / file_name(piece, info), rows[piece.start : piece.end], vocabulary)
            _write_video(path, frames, info, piece, output / file_name(piece, info), config)


def file_name(piece: Piece, info: VideoInfo) -> str:
    return piece.name + (".mp4" if info.kind == "video" else ".png")


def rate_of(info: VideoInfo, config: PrepareConfig) -> float:
    """Frames a second of what is written: as it is, or thinned out."""
    return min(info.fps, config.fps) if config.fps else info.fps


def size_of(info: VideoInfo, piece: Piece, config: PrepareConfig) -> tuple[tuple[int, int], tuple[int, int, int, int]]:
    """(width, height) to which the whole picture is scaled, and what is cut out of it: left, top, width, height, which are even."""
    top, bottom, left, right = piece.box
    kept_w, kept_h = info.width * (1 - left - right), info.height * (1 - top - bottom)
    scale = min(1.0, config.short_side / min(kept_w, kept_h)) if config.short_side else 1.0
    whole = (info.width, info.height)
    if scale < 1:
        whole = max(2, round(info.width * scale / 2) * 2), max(2, round(info.height * scale / 2) * 2)
    # colours are stored for two by two pixels
    x, y = 2 * int(np.ceil(left * whole[0] / 2)), 2 * int(np.ceil(top * whole[1] / 2))
    width = int(whole[0] - x - np.ceil(right * whole[0])) // 2 * 2
    height = int(whole[1] - y - np.ceil(bottom * whole[1])) // 2 * 2
    return whole, (x, y, max(2, width), max(2, height))


def _runs(pieces: Sequence[Piece]) -> Iterator[list[Piece]]:
    """Pieces in their order, in groups between which it is better to jump than to read on."""
    run: list[Piece] = []
    for piece in sorted(pieces, key=lambda piece: piece.start):
        if run and piece.start_time - run[-1].end_time > 5.0:
            yield run
            run = []
        run.append(piece)
    if run:
        yield run


def _write_video(
    path: Path, frames: Iterator[Timed], info: VideoInfo, piece: Piece, target: Path, config: PrepareConfig
) -> None:
    fps = rate_of(info, config)
    rate = Fraction(fps).limit_denominator(10_000)
    count = max(1, round(piece.seconds * fps))
    times = [piece.start_time + i / fps for i in range(count)]
    slack = slack_of(info.tick)
    whole, (x, y, width, height) = size_of(info, piece, config)
    options = {"crf": str(config.crf), "preset": "ultrafast", "x264-params": f"{REPEATABLE}:bframes={B_FRAMES}"}
    comment = json.dumps({"source": piece.source, "start": piece.start_time}, ensure_ascii=True)
    with (
        written(target) as temporary,
        av.open(str(temporary), "w", format="mp4", options={"movflags": "+faststart"}) as made,
    ):
        made.metadata["comment"] = comment
        stream, number = None, 0
        for timed in frames:
            due = number
            while due < count and times[due] < timed.end - slack:
                due += 1
            picture = coded(timed.scaled(*whole), (x, y, width, height)) if due > number else None
            for index in range(number, due):
                assert picture is not None
                stream = stream or h264_stream(made, height, width, rate, options, int(picture.colorspace))
                picture.pts, picture.time_base = index, 1 / rate
                made.mux(stream.encode(picture))
            number = due
            if number == count:
                break
        if number < count:
            raise DataError(
                f"{path}: from {piece.start_time:.2f} s on lacks {count - number} frames that it had when it was looked at"
            )
        assert stream is not None
        made.mux(stream.encode())


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


def _write_image(path: Path, info: VideoInfo, piece: Piece, target: Path, config: PrepareConfig) -> None:
    whole, (x, y, width, height) = size_of(info, piece, config)
    timed = next(iter(every_frame(path, info)))
    with written(target) as temporary:
        Image.fromarray(timed.scaled(*whole).rgb()[y : y + height, x : x + width]).save(temporary, "PNG")
