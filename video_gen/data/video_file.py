"""One video or image file: what it is, and its frames at given times, as numpy arrays; no torch.

Times are seconds since the first frame that is shown. The frame *at* a time is the one on the screen then, by its time
stamp, so a variable frame rate needs no special case. Videos go through PyAV, which brings its own FFmpeg; stills and
animated gif, webp and png go through Pillow.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace
from PIL import Image, ImageOps

from video_gen.errors import DataError, ShapeError

VIDEO_SUFFIXES = frozenset({".mp4", ".mov", ".webm", ".mkv", ".avi", ".m4v"})
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif"})
MAX_PIXELS = 89_478_485
"""A frame that declares more than this (Pillow's limit against decompression bombs) is refused before it is decoded."""

UNSPECIFIED = 2  # H.273: the file does not say
STILL_SECONDS = 0.1  # how long browsers show a frame of an animation that declares no duration


@dataclass(frozen=True)
class VideoInfo:
    """What a file is. Width and height are as shown, after rotation."""

    kind: Literal["video", "image"]
    codec: str
    width: int
    height: int
    fps: float
    """Mean frames per second; 0 for an image."""
    num_frames: int
    """Frames that are shown, counted from the packets and not taken from the header."""
    duration: float
    """Seconds from the first frame to the end of the last; 0 for an image."""
    rotation: int
    """Degrees counter-clockwise by which the stored frames are turned for display: 0, 90, 180 or 270."""
    has_audio: bool
    pixel_format: str


class _Shown(NamedTuple):
    """A decoded frame, when it comes on the screen and when its own duration ends (seconds)."""

    start: float
    end: float
    picture: Any  # VideoFrame or PIL.Image; turned into RGB only if it is wanted


# -------------------- looking


def probe(path: str | Path) -> VideoInfo:
    """What a file is: decodes its first frame and reads, without decoding, the time stamps of the others.

    Raises: DataError if it is missing, empty, not a video or image, or ends before its header says.
    """
    path = _readable(path)
    return _probe_image(path) if path.suffix.lower() in IMAGE_SUFFIXES else _probe_video(path)


def read_metadata(path: str | Path) -> dict[str, str]:
    """The `metadata` that `write_video` put into the file; empty if another program wrote it. Raises: DataError."""
    path = _readable(path)
    if path.suffix.lower() in IMAGE_SUFFIXES:
        with _image(path) as image:
            comment = image.info.get("comment", "")
    else:
        with _container(path) as container:
            comment = container.metadata.get("comment", "")
    try:
        found = json.loads(comment)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _probe_image(path: Path) -> VideoInfo:
    with _image(path) as image:
        format, mode = (image.format or "").lower(), image.mode
        turn = {3: 180, 6: 270, 8: 90}.get(image.getexif().get(0x0112, 1), 0)
    frames = list(_decode_image(path))
    width, height = frames[0].picture.size
    count, duration = len(frames), frames[-1].end
    if count == 1:
        return VideoInfo("image", format, width, height, 0.0, 1, 0.0, turn, False, mode)
    return VideoInfo("video", format, width, height, count / duration, count, duration, turn, False, mode)


def _probe_video(path: Path) -> VideoInfo:
    with _container(path) as container:
        stream = _video_stream(container, path)
        first = next(_decode_video(container, stream, path), None)
        if first is None:
            raise DataError(f"{path}: holds no frame that can be decoded; remove it or encode it again")
    with _container(path) as container:
        stream = _video_stream(container, path)
        start, count, end = _packet_times(container, stream, path)
        rate = count / (end - start) if end > start else 0.0
        declared = float(stream.average_rate or 0)
        turn = _rotation(first.picture, path)
        size = (first.picture.width, first.picture.height)
        width, height = size if turn % 180 == 0 else size[::-1]
        return VideoInfo(
            kind="video",
            codec=stream.codec_context.name,
            width=width,
            height=height,
            fps=declared if abs(declared - rate) < 0.01 * rate else rate,
            num_frames=count,
            duration=end - start,
            rotation=turn,
            has_audio=bool(container.streams.audio),
            pixel_format=first.picture.format.name,
        )


def _packet_times(container: Any, stream: Any, path: Path) -> tuple[float, int, float]:
    """First time stamp, number of shown frames and end of the last one, in seconds, from the packets alone."""
    tick = float(stream.time_base)
    stamps, steps, last_of_any, packets = [], [], 0.0, 0
    with _explained(path):
        for packet in container.demux():
            stamp = packet.pts if packet.pts is not None else packet.dts
            if stamp is None or not packet.size:
                continue
            last_of_any = max(last_of_any, float((stamp + (packet.duration or 0)) * packet.time_base))
            if packet.stream.index == stream.index:
                packets += not packet.is_corrupt
                if not packet.is_discard:
                    stamps.append(stamp)
                    steps.append(packet.duration or 0)
    if not stamps:
        raise DataError(f"{path}: holds no video frames; remove it or encode it again")
    _check_whole(container, stream, path, packets, last_of_any)
    last = int(np.argmax(stamps))
    step = steps[last] * tick or 1 / float(stream.average_rate or stream.guessed_rate or 25)
    return min(stamps) * tick, len(stamps), stamps[last] * tick + step


def _check_whole(container: Any, stream: Any, path: Path, packets: int, last: float) -> None:
    """Compare what was found with what the header promised: frames where it counts them, else seconds.

    A header that counts frames counts those of an edit list, too, so its index, where longer than one entry, decides.
    """
    promised = min(stream.frames, len(stream.index_entries)) if stream.frames else 0
    if packets < promised:
        raise DataError(f"{path}: truncated: {packets} of {promised} frames are there; copy or encode it again")
    duration = (container.duration or 0) / av.time_base
    allowed = max(0.25, 0.02 * duration)  # headers without a frame count are rounded, and audio may be padded
    if not stream.frames and last < duration - allowed:
        raise DataError(f"{path}: truncated: ends at {last:.2f} s of {duration:.2f} s; copy or encode it again")


# -------------------- reading


def read_frames(path: str | Path, times: Sequence[float]) -> np.ndarray:
    """The frames shown at `times`, as (len(times), h, w, 3) uint8 RGB, turned upright. See `iterate_frames`."""
    frames = list(iterate_frames(path, times))
    if not frames:
        raise ShapeError(f"{path}: no times were asked for; give at least one")
    return np.stack(frames)


def iterate_frames(path: str | Path, times: Sequence[float]) -> Iterator[np.ndarray]:
    """The frames shown at `times`, one by one, so that a caller can shrink each before the next is decoded.

    Decoding starts at the last key frame before the first time, not at the start of the file.

    Args:
        times: seconds since the first frame, ascending; the same frame may be wanted several times.
    Returns: an iterator of (h, w, 3) uint8 RGB frames, turned upright; transparent parts of images are white.
    Raises: DataError if the file is unreadable, corrupt, or ends before a wanted time; ShapeError if `times` descend.
    """
    path = _readable(path)
    if any(b < a for a, b in pairwise(times)) or (len(times) and times[0] < 0):
        raise ShapeError(f"{path}: times must ascend from 0 or later, got {list(times)}; sort them")
    if not len(times):
        return
    if path.suffix.lower() in IMAGE_SUFFIXES:
        yield from _shown_at(_decode_image(path), times, slack=1e-6, path=path)
        return
    with _container(path) as container:
        stream = _video_stream(container, path)
        yield from _shown_at(_decode_from(container, stream, path, times[0]), times, _slack(stream), path)


def all_frames(path: str | Path) -> Iterator[tuple[float, np.ndarray]]:
    """Every frame from start to end with its time in seconds: for checking a file, not for training.

    Raises: DataError where decoding fails, or at the end if it comes before the header says.
    """
    path = _readable(path)
    info = probe(path)
    if path.suffix.lower() in IMAGE_SUFFIXES:
        for shown in _decode_image(path):
            yield shown.start, _rgb(shown.picture, path)
        return
    count = 0
    with _container(path) as container:
        stream = _video_stream(container, path)
        for shown in _decode_video(container, stream, path):
            count += 1
            yield shown.start, _rgb(shown.picture, path)
    if count < info.num_frames:
        raise DataError(f"{path}: corrupt: {count} of {info.num_frames} frames can be decoded; encode it again")


def _shown_at(frames: Iterable[_Shown], times: Sequence[float], slack: float, path: Path) -> Iterator[np.ndarray]:
    """For each time, the last frame that starts no later; before the first frame of the file, the first."""
    wanted, current, picture = 0, None, None
    for frame in frames:
        while current is not None and times[wanted] + slack < frame.start:
            picture = _rgb(current.picture, path) if picture is None else picture
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
        picture = _rgb(current.picture, path) if picture is None else picture
        yield picture


def _slack(stream: Any) -> float:
    """Half a tick where ticks are fine: containers round time stamps (Matroska to 1 ms), and 1/30 s must find frame 1."""
    tick = float(stream.time_base)
    return 1e-6 + (tick / 2 if tick <= 0.01 else 0.0)


def _decode_from(container: Any, stream: Any, path: Path, time: float) -> Iterator[_Shown]:
    """Frames from the last key frame at or before `time`; from the start if the container cannot seek there."""
    if time > 0:
        target = _origin(stream) + int((time + _slack(stream)) / stream.time_base)
        frames: Iterator[_Shown] = iter(())
        try:
            container.seek(target, stream=stream, backward=True)
            frames = _decode_video(container, stream, path)
            first = next(frames, None)
        except (av.FFmpegError, DataError):
            first = None
        if first is not None and first.start <= time + _slack(stream):
            yield first
            yield from frames
            return
        with _explained(path):
            container.seek(_origin(stream), stream=stream, backward=True)
    yield from _decode_video(container, stream, path)


def _decode_video(container: Any, stream: Any, path: Path) -> Iterator[_Shown]:
    """Frames from where the container stands, in the order shown."""
    tick, origin = float(stream.time_base), _origin(stream)
    with _explained(path):
        for frame in container.decode(stream):
            stamp = frame.pts if frame.pts is not None else frame.dts
            if stamp is None:
                raise DataError(f"{path}: a frame has no time stamp; put it into a container that has: mp4 or mkv")
            if frame.is_corrupt:
                raise DataError(f"{path}: corrupt at {(stamp - origin) * tick:.2f} s; copy or encode it again")
            start = (stamp - origin) * tick
            step = (frame.duration or 0) * tick or 1 / float(stream.average_rate or stream.guessed_rate or 25)
            yield _Shown(start, start + step, frame)


def _origin(stream: Any) -> int:
    return stream.start_time or 0


def _decode_image(path: Path) -> Iterator[_Shown]:
    """The one frame of a still, or all frames of an animation, upright."""
    with _image(path) as image:
        count = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)  # MPO: a phone's photo with previews
        start = 0.0
        for index in range(count):
            image.seek(index)
            picture = ImageOps.exif_transpose(image.copy())
            end = start + (image.info.get("duration", 0) / 1000 or STILL_SECONDS)
            yield _Shown(start, end, picture)
            start = end


def _rgb(picture: Any, path: Path) -> np.ndarray:
    """A decoded picture as (h, w, 3) uint8 RGB, upright."""
    if isinstance(picture, Image.Image):
        return _rgb_of_image(picture)
    array = _to_rgb24(picture).to_ndarray()
    return np.ascontiguousarray(np.rot90(array, _rotation(picture, path) // 90))


def _rgb_of_image(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I"):  # 16 bits of grey, which Pillow would clip at 255
        grey = (np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=-1)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.array(image.convert("RGB"))


def _to_rgb24(frame: VideoFrame) -> VideoFrame:
    """Convert with the matrix and range that the file declares; a silent file gets the usual guess by its height."""
    name = frame.format.name
    if frame.format.is_rgb or name.startswith("gray"):
        return frame.reformat(format="rgb24")
    matrix = frame.colorspace
    if matrix in (0, UNSPECIFIED):
        matrix = Colorspace.ITU709 if frame.height >= 720 else Colorspace.ITU601
    full = name.startswith("yuvj") or frame.color_range == ColorRange.JPEG
    return frame.reformat(
        format="rgb24",
        src_colorspace=matrix,
        dst_colorspace=matrix,
        src_color_range=ColorRange.JPEG if full else ColorRange.MPEG,
        dst_color_range=ColorRange.JPEG,
    )


def _rotation(frame: VideoFrame, path: Path) -> int:
    turn = round(frame.rotation) % 360
    if turn % 90:
        raise DataError(f"{path}: is to be turned by {turn} degrees; only multiples of 90 are read: encode it again")
    return turn


# -------------------- opening


def _readable(path: str | Path) -> Path:
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path}: no such file")
    if not path.is_file():
        raise DataError(f"{path}: is not a file but a {'folder' if path.is_dir() else 'device'}; give a video or image")
    if path.suffix.lower() not in VIDEO_SUFFIXES | IMAGE_SUFFIXES:
        known = " ".join(sorted(VIDEO_SUFFIXES | IMAGE_SUFFIXES))
        raise DataError(f"{path}: '{path.suffix}' is not a video or image; known are {known}")
    if path.stat().st_size == 0:
        raise DataError(f"{path}: is empty (0 bytes); remove it or copy it again")
    return path


@contextmanager
def _explained(path: Path):
    """Turn what the libraries raise into one line that names the file."""
    try:
        yield
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise DataError(f"{path}: declares more than {MAX_PIXELS:,} pixels; remove it or make it smaller") from None
    except (av.FFmpegError, OSError, EOFError, SyntaxError, ValueError, MemoryError) as error:
        if isinstance(error, ShapeError):
            raise
        reason = " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__
        raise DataError(f"{path}: unreadable ({reason}); remove it or copy or encode it again") from None


@contextmanager
def _container(path: Path) -> Iterator[Any]:
    with _explained(path):
        container = av.open(str(path))
    try:
        yield container
    finally:
        container.close()


def _video_stream(container: Any, path: Path) -> Any:
    if not container.streams.video:
        raise DataError(f"{path}: holds no video stream; remove it or move it out of the folder")
    stream = container.streams.video[0]
    _check_size(stream.codec_context.width, stream.codec_context.height, path)
    stream.codec_context.thread_count = 1  # several files at once use the cores better than several threads on one
    return stream


@contextmanager
def _image(path: Path) -> Iterator[Image.Image]:
    with _explained(path), Image.open(path, formats=("PNG", "JPEG", "WEBP", "GIF")) as image:
        _check_size(*image.size, path)
        yield image


def _check_size(width: int, height: int, path: Path) -> None:
    if width * height > MAX_PIXELS:
        raise DataError(
            f"{path}: declares {width}x{height}, more than {MAX_PIXELS:,} pixels; remove it or make it smaller"
        )
