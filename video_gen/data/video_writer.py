"""Writing videos, as numpy arrays, into files, and several of them into one picture to look at; no torch."""

import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace
from PIL import Image

from video_gen.errors import DataError, ShapeError
from video_gen.files import written

WRITABLE_SUFFIXES = (".mp4", ".gif", ".png")
MAX_SIDE = 8192  # what browsers and players show of H.264
MAX_GIF_FPS = 50
GOP = 16  # frames between key frames: random access 2.2 to 2.8 times as fast as with x264's 250 (DESIGN.md)
REPEATABLE = "no-mbtree=1:rc-lookahead=0"  # x264 looking ahead makes now and then other bytes of the same small frames
BT709 = 1  # the code of ITU-R BT.709 for matrix, primaries and transfer alike (ITU-T H.273)


def write_video(
    path: str | Path,
    frames: np.ndarray,
    fps: float,
    *,
    crf: int = 16,
    preset: str = "veryfast",
    metadata: dict[str, str] | None = None,
) -> Path:
    """Write frames as .mp4 (H.264, plays in browsers), .gif, or .png (animated if there are several frames).

    The file appears whole or not at all: it is written beside its place under a hidden name and moved.

    Args:
        frames: (f, h, w, 3) uint8 RGB; height and width even for mp4.
        fps: frames per second; at most 50 in a gif, which counts in 1/100 s.
        crf: H.264 quality, 0 (best) to 51; 16 looks lossless, 4 is within a few grey levels. Unused by gif and png.
        preset: x264's trade of speed for size.
        metadata: kept as JSON in the file's comment; see `read_metadata`.
    Returns: the path.
    Raises: ShapeError if the frames do not fit; DataError if the format is unknown or the file cannot be written.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    check_frames(path, frames)
    check_writable(path, frames.shape[1], frames.shape[2], fps)
    comment = json.dumps(metadata or {}, ensure_ascii=True)
    with written(path) as temporary:
        if suffix == ".mp4":
            _write_mp4(temporary, frames, fps, crf, preset, comment)
        elif suffix == ".gif":
            _write_gif(temporary, frames, fps, comment)
        else:
            _write_png(temporary, frames, fps, comment)
    return path


def check_frames(path: Path, frames: np.ndarray) -> None:
    """Raises: ShapeError if `frames` are not (f, h, w, 3) uint8."""
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or 0 in frames.shape:
        raise ShapeError(f"{path}: frames must be (f, h, w, 3) uint8, got {tuple(frames.shape)} {frames.dtype}")


def check_writable(path: Path, height: int, width: int, fps: float) -> None:
    """Raises: DataError, ShapeError if the format of `path` does not take such pictures or such a rate."""
    suffix = path.suffix.lower()
    if suffix not in WRITABLE_SUFFIXES:
        raise DataError(f"{path}: cannot write '{suffix}'; use one of {', '.join(WRITABLE_SUFFIXES)}")
    if max(height, width) > MAX_SIDE:
        raise ShapeError(
            f"{path}: {width}x{height} pixels, at most {MAX_SIDE} a side can be written; enlarge by a smaller factor"
        )
    if suffix == ".mp4" and (height % 2 or width % 2):
        even = f"{height // 2 * 2}x{width // 2 * 2}"
        raise ShapeError(f"{path}: {height}x{width} is odd, H.264 needs even; crop to {even}, or write .gif or .png")
    if not fps > 0:
        raise DataError(f"{path}: fps is {fps}; it must be above 0")
    if suffix == ".gif" and fps > MAX_GIF_FPS:
        raise DataError(
            f"{path}: {fps:g} frames per second in a gif, browsers show at most {MAX_GIF_FPS}; write .mp4 or lower fps"
        )


def _write_mp4(path: Path, frames: np.ndarray, fps: float, crf: int, preset: str, comment: str) -> None:
    rate = Fraction(fps).limit_denominator(10_000)
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        container.metadata["comment"] = comment
        height, width = frames.shape[1:3]
        options = {"crf": str(crf), "preset": preset, "x264-params": REPEATABLE}
        stream = h264_stream(container, height, width, rate, options)
        for index, array in enumerate(frames):
            container.mux(stream.encode(to_yuv420(array, index, 1 / rate)))
        container.mux(stream.encode())


def h264_stream(
    container: Any, height: int, width: int, rate: Fraction, options: dict[str, str], matrix: int = BT709
) -> Any:
    """A stream of H.264 that plays in browsers, in a container open for writing. `matrix`: of its colours, by H.273."""
    stream: Any = container.add_stream("libx264", rate=rate, options=options)
    context = stream.codec_context
    stream.height, stream.width = height, width
    stream.pix_fmt = "yuv420p"
    context.gop_size = GOP
    context.thread_count = 1  # worlds are rendered in as many processes as there are cores
    context.colorspace, context.color_primaries, context.color_trc = matrix, BT709, BT709
    context.color_range = ColorRange.MPEG
    return stream


def to_yuv420(array: np.ndarray, pts: int, time_base: Fraction) -> VideoFrame:
    """(h, w, 3) uint8 RGB as a frame for `h264_stream`, shown at `pts * time_base` seconds."""
    frame = VideoFrame.from_ndarray(np.ascontiguousarray(array), format="rgb24").reformat(
        format="yuv420p",
        dst_colorspace=Colorspace.ITU709,
        src_color_range=ColorRange.JPEG,
        dst_color_range=ColorRange.MPEG,
    )
    frame.pts, frame.time_base = pts, time_base
    return frame


def _write_gif(path: Path, frames: np.ndarray, fps: float, comment: str) -> None:
    images = [Image.fromarray(frame) for frame in frames]
    durations = [10 * step for step in _steps(len(images), 100 / fps)]
    images[0].save(
        path, "GIF", save_all=True, append_images=images[1:], duration=durations, loop=0, comment=comment.encode()
    )


def _write_png(path: Path, frames: np.ndarray, fps: float, comment: str) -> None:
    from PIL.PngImagePlugin import PngInfo

    text = PngInfo()
    text.add_text("comment", comment)
    images = [Image.fromarray(frame) for frame in frames]
    many: dict[str, Any] = {}
    if len(images) > 1:
        many = dict(save_all=True, append_images=images[1:], duration=_steps(len(images), 1000 / fps), loop=0)
    images[0].save(path, "PNG", pnginfo=text, **many)


def _steps(count: int, ticks: float) -> list[int]:
    """Whole ticks per frame whose running sum stays within a tick of the true time: no drift."""
    ends = np.floor(np.arange(count + 1) * ticks + 1e-6).astype(int)
    return np.diff(ends).tolist()


def contact_sheet(videos: Sequence[np.ndarray], columns: int = 8, scale: int = 1, gap: int = 2) -> np.ndarray:
    """Videos as one picture: a row each, `columns` evenly spaced frames, first and last included.

    Args:
        videos: (f, h, w, 3) uint8 each, all of one height and width; one with fewer frames fills fewer columns.
        scale: whole factor by which pixels are enlarged, each to a square.
        gap: white pixels between the frames.
    Returns: (H, W, 3) uint8.
    Raises: ShapeError if there is no video or their sizes differ.
    """
    if not len(videos):
        raise ShapeError("contact_sheet: no videos were given; give at least one")
    sizes = {video.shape[1:] for video in videos}
    if len(sizes) > 1:
        raise ShapeError(f"contact_sheet: videos of different sizes {sorted(sizes)}; make one sheet per size")
    columns = min(columns, max(len(video) for video in videos))
    height, width = (side * scale for side in videos[0].shape[1:3])
    shape = (len(videos) * (height + gap) - gap, columns * (width + gap) - gap, 3)
    sheet = np.full(shape, 255, dtype=np.uint8)
    for row, video in enumerate(videos):
        count = min(columns, len(video))
        for column, index in enumerate(np.linspace(0, len(video) - 1, count).round().astype(int)):
            y, x = row * (height + gap), column * (width + gap)
            sheet[y : y + height, x : x + width] = video[index].repeat(scale, axis=0).repeat(scale, axis=1)
    return sheet
