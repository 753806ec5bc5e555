"""One video or image file: what it is, and its frames at given times, as numpy arrays; no torch.

Times are seconds since the first frame that is shown. The frame *at* a time is the one on the screen then, by its time
stamp, so a variable frame rate needs no special case. Which library reads a file is decided by its first bytes, not its name:
videos go through PyAV, which brings its own FFmpeg (`container.py`, `picture.py`), pictures through Pillow (`image_file.py`).
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import partial
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from av.video.frame import VideoFrame
from PIL import Image

from video_gen.data.container import MAX_PIXELS as MAX_PIXELS
from video_gen.data.container import Opened, decoded, decoded_from, opened, remembered, timeline
from video_gen.data.image_file import count_of, opened_image, rgb_of, shown_images, tick_of
from video_gen.data.packed import File, Loaded, Packed
from video_gen.data.picture import (
    HLG,
    PQ,
    Geometry,
    Scaled,
    has_alpha,
    orientation_of,
    square_size,
    to_picture,
    to_scaled_picture,
)
from video_gen.data.video_info import IMAGE_SUFFIXES, VIDEO_SUFFIXES, VideoInfo
from video_gen.errors import DataError, ShapeError

IMAGE_STARTS = (
    b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"BM", b"II*\0", b"MM\0*", b"qoif", b"\0\0\0\x0cjP  ",
    b"\xff\x4f\xff\x51", b"P4", b"P5", b"P6",
)  # fmt: skip
VIDEO_STARTS = (b"\x1a\x45\xdf\xa3", b"FLV", b"OggS")


class Timed(NamedTuple):
    """A decoded frame, when it comes on the screen and when its own duration ends (seconds)."""

    start: float
    end: float
    read: Callable[[], np.ndarray]
    """Makes (h, w, 3) uint8 RGB of it; called only if it is wanted."""
    scaled: Callable[[int, int], Scaled]
    """Makes it of a width and a height, all of it; much faster than to scale what `read` makes."""


# -------------------- looking


def probe(path: str | File) -> VideoInfo:
    """What a file is: decodes its first frame and reads, without decoding, the time stamps of the others.

    Raises: DataError if it is missing, empty, not a video or image, or ends before its header says.
    """
    path = _readable(path)
    return _probe_image(path) if _is_image(path) else _probe_video(path)


def read_metadata(path: str | File) -> dict[str, str]:
    """The `metadata` that `write_video` put into the file; empty if another program wrote it. Raises: DataError."""
    path = _readable(path)
    if _is_image(path):
        with opened_image(path) as image:
            comment = image.info.get("comment", "")
    else:
        with opened(path) as video:
            comment = video.container.metadata.get("comment", "")
    try:
        found = json.loads(comment)
    except (ValueError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def _probe_image(path: Path | Loaded) -> VideoInfo:
    with opened_image(path) as image:
        format, mode, tick, pages = (
            (image.format or "").lower(),
            image.mode,
            tick_of(image),
            getattr(image, "n_frames", 1),
        )
        turn = {3: 180, 4: 180, 5: 270, 6: 270, 7: 90, 8: 90}.get(image.getexif().get(0x0112, 1), 0)
        animated = count_of(image) > 1
    count, duration, size = 0, 0.0, (0, 0)
    for shown in shown_images(path):
        size = shown.picture.size if not count else size
        count, duration = count + 1, shown.end
    notes = (f"{pages} pages, the first one is read",) if format == "tiff" and pages > 1 else ()
    if not animated:
        return VideoInfo("image", format, *size, 0.0, 1, 0.0, turn, False, mode, notes=notes)
    return VideoInfo("video", format, *size, count / duration, count, duration, turn, False, mode, tick, notes)


def _probe_video(path: Path | Loaded) -> VideoInfo:
    with opened(path) as video:
        seen: list[Any] = []
        first = next(decoded(video, remembered(video.packets, seen)), None)
        if first is None:
            raise DataError(f"{path}: holds no frame that can be decoded; remove it or encode it again")
        starts, duration = timeline(replace(video, packets=chain(seen, video.packets)))
        count = len(starts)
        stream, orientation = video.stream, orientation_of(first.frame, path)
        rate, declared = count / duration, float(stream.average_rate or 0)
        size = _sizes(video)[1]
        width, height = size[::-1] if orientation.transposed else size
        return VideoInfo(
            kind="video",
            codec=stream.codec_context.name,
            width=width,
            height=height,
            fps=declared if abs(declared - rate) < 0.01 * rate else rate,
            num_frames=count,
            duration=duration,
            rotation=orientation.turn,
            has_audio=bool(video.container.streams.audio),
            pixel_format=first.frame.format.name,
            tick=video.tick,
            notes=tuple(_notes(video, first.frame, path)),
        )


def _notes(video: Opened, frame: Any, path: Path | Loaded) -> Iterator[str]:
    stream = video.stream
    if frame.color_trc in (PQ, HLG):
        yield f"high dynamic range ({'PQ' if frame.color_trc == PQ else 'HLG'}), toned down"
    if frame.interlaced_frame:
        yield "interlaced: of each frame one field is read"
    if stream.sample_aspect_ratio not in (None, 0, 1):
        yield f"pixels of {stream.sample_aspect_ratio}, made square"
    if orientation_of(frame, path).mirrored:
        yield "mirrored, as the file says"
    if has_alpha(frame) or stream.metadata.get("alpha_mode") == "1":
        yield "transparent parts are white"
    if video.counted:
        yield "frames have no time stamps: counted, and read from the start"
    if len(video.container.streams.video) > 1:
        yield f"{len(video.container.streams.video)} video streams, number {stream.index} is read"


# -------------------- reading


def read_frames(path: str | File, times: Sequence[float]) -> np.ndarray:
    """The frames shown at `times`, as (len(times), h, w, 3) uint8 RGB, turned upright. See `iterate_frames`."""
    frames = list(iterate_frames(path, times))
    if not frames:
        raise ShapeError(f"{path}: no times were asked for; give at least one")
    return np.stack(frames)


def iterate_frames(path: str | File, times: Sequence[float]) -> Iterator[np.ndarray]:
    """The frames shown at `times`, one by one, so that a caller can shrink each before the next is decoded.

    Decoding starts at the last key frame before the first time, not at the start of the file.

    Args:
        times: seconds since the first frame, ascending; the same frame may be wanted several times.
    Returns: an iterator of (h, w, 3) uint8 RGB frames, all of one size, upright, in square pixels; transparent parts white.
    Raises: DataError if the file is unreadable, corrupt, or ends before a wanted time; ShapeError if `times` descend.
    """
    path = _readable(path)
    if any(b < a for a, b in pairwise(times)) or (len(times) and times[0] < 0):
        raise ShapeError(f"{path}: times must ascend from 0 or later, got {list(times)}; sort them")
    if not len(times):
        return
    if _is_image(path):
        with opened_image(path) as image:
            slack = tick_of(image) / 2 + 1e-6
        yield from _shown_at(_timed_images(path), times, slack, path)
        return
    with opened(path) as video:
        yield from _shown_at(_timed(video, times[0]), times, video.slack, path)


def shown_from(path: str | File) -> np.ndarray:
    """(f,) seconds from which on `iterate_frames` shows each frame: its start, less what the container may have rounded.

    Raises: DataError as `probe`.
    """
    path = _readable(path)
    if _is_image(path):
        with opened_image(path) as image:
            slack = tick_of(image) / 2 + 1e-6
        return np.array([shown.start for shown in shown_images(path)]) - slack
    with opened(path) as video:
        return np.array(timeline(video).starts) - video.slack


def all_frames(path: str | File) -> Iterator[tuple[float, np.ndarray]]:
    """Every frame from start to end with its time in seconds: for checking a file, not for training.

    Raises: DataError where decoding fails, or at the end if it comes before the header says.
    """
    for timed in every_frame(path, probe(path)):
        yield timed.start, timed.read()


def every_frame(path: str | File, info: VideoInfo, coarse: bool = False) -> Iterator[Timed]:
    """The same, none of them made into a picture yet.

    Args:
        info: what `probe` found.
        coarse: they will be seen at half their size or less, and may be decoded a little faster.
    """
    path = _readable(path)
    if _is_image(path):
        yield from _timed_images(path)
        return
    count = 0
    with opened(path, coarse) as video:
        for timed in _timed(video, 0.0):
            count += 1
            yield timed
    if count < info.num_frames:
        raise DataError(f"{path}: corrupt: {count} of {info.num_frames} frames can be decoded; encode it again")


def frames_from(path: str | File, info: VideoInfo, time: float, coarse: bool = False) -> Iterator[Timed]:
    """As `every_frame`, from the one that is shown at `time` (seconds) to the last."""
    path = _readable(path)
    if _is_image(path):
        yield from (timed for timed in _timed_images(path) if timed.end > time or not info.duration)
        return
    with opened(path, coarse) as video:
        yield from (timed for timed in _timed(video, time) if timed.end > time + video.slack)


def _timed(video: Opened, time: float) -> Iterator[Timed]:
    geometry: Geometry | None = None
    for start, end, frame in decoded_from(video, time):
        if geometry is None:
            geometry = Geometry(*_sizes(video), orientation_of(frame, video.path))
        yield Timed(
            start, end, partial(to_picture, frame, geometry, video.path), partial(_scaled, frame, geometry, video.path)
        )


def _scaled(frame: VideoFrame, geometry: Geometry, path: Path | Loaded, width: int, height: int) -> Scaled:
    return to_scaled_picture(frame, (width, height), geometry, path)


def _timed_images(path: Path | Loaded) -> Iterator[Timed]:
    size: tuple[int, int] | None = None
    for start, end, picture in shown_images(path):
        size = size or picture.size
        same = picture if picture.size == size else picture.resize(size, Image.Resampling.BICUBIC)
        yield Timed(
            start,
            end,
            lambda picture=same: rgb_of(picture, path),
            lambda width, height, picture=same: Scaled(
                np.asarray(Image.fromarray(rgb_of(picture, path)).resize((width, height), Image.Resampling.LANCZOS)),
                path,
            ),
        )


def _sizes(video: Opened) -> tuple[tuple[int, int], tuple[int, int]]:
    """(width, height) as stored and in square pixels, both before turning."""
    context, aspect = video.stream.codec_context, video.stream.sample_aspect_ratio
    stored = (context.width, context.height)
    return stored, square_size(*stored, Fraction(aspect) if aspect else None)


def _shown_at(
    frames: Iterable[Timed], times: Sequence[float], slack: float, path: Path | Loaded
) -> Iterator[np.ndarray]:
    """For each time, the last frame that starts no later; before the first frame of the file, the first."""
    wanted, current, picture = 0, None, None
    for frame in frames:
        while current is not None and times[wanted] + slack < frame.start:
            picture = current.read() if picture is None else picture
            yield picture
            wanted += 1
            if wanted == len(times):
                return
        current, picture = frame, None
    if current is None:
        raise DataError(f"{path}: no frame can be decoded at {times[0]:.3f} s; `video-gen data check` finds such files")
    for time in times[wanted:]:
        if time > current.end + slack:
            raise DataError(
                f"{path}: ends at {current.end:.3f} s, a frame at {time:.3f} s was wanted; the file is truncated, "
                "or the window too long: run `video-gen data check`"
            )
        picture = current.read() if picture is None else picture
        yield picture


# -------------------- what kind of file


def _readable(path: str | File) -> Path | Loaded:
    if isinstance(path, Packed):
        return Loaded(str(path), path.read())
    if isinstance(path, Loaded):
        return path
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path}: no such file" + (" (a link whose target is gone)" if path.is_symlink() else ""))
    if not path.is_file():
        raise DataError(f"{path}: is not a file but a {'folder' if path.is_dir() else 'device'}; give a video or image")
    if path.suffix.lower() not in VIDEO_SUFFIXES | IMAGE_SUFFIXES:
        known = " ".join(sorted(VIDEO_SUFFIXES | IMAGE_SUFFIXES))
        raise DataError(f"{path}: '{path.suffix}' is not a video or image; known are {known}")
    if path.stat().st_size == 0:
        raise DataError(f"{path}: is empty (0 bytes); remove it or copy it again")
    return path


def _is_image(path: Path | Loaded) -> bool:
    """By the first bytes, whatever the file is called. Raises: DataError if they are those of something else altogether."""
    try:
        if isinstance(path, Loaded):
            start = path.content[:512]
        else:
            with path.open("rb") as file:
                start = file.read(512)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); change its rights, or leave it out") from None
    if start.startswith(b"version https://git-lfs"):
        raise DataError(f"{path}: is a git-lfs pointer and not the file itself; fetch it with `git lfs pull`")
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<svg", b"<head")):
        raise DataError(
            f"{path}: is a web page or other marked-up text, as a failed download leaves; download it again"
        )
    brands = start[8:32] if start[4:8] == b"ftyp" else b""
    if any(brand in brands for brand in (b"heic", b"heix", b"hevc", b"heim")) and path.suffix.lower() in IMAGE_SUFFIXES:
        raise DataError(f"{path}: is a HEIC picture, which is not read; save it as JPEG or PNG")
    webp = start[:4] == b"RIFF" and start[8:12] == b"WEBP"
    avif = brands[:4] in (b"avif", b"avis")
    image = start.startswith(IMAGE_STARTS) or webp or avif
    video = (bool(brands) and not avif) or start.startswith(VIDEO_STARTS) or start[8:12] == b"AVI "
    video = video or path.suffix.lower() in (".mjpeg", ".mjpg")  # pictures one after the other
    return not video if image or path.suffix.lower() in IMAGE_SUFFIXES else False
