"""A video file opened through PyAV: which stream is shown, when each of its frames is, and decoding from any time.

What a container says of time is checked against what is in it. Frames are counted, not taken from a rounded duration. The
first frame that is shown is at time 0: what a decoder can only make from frames that are not there, before the first key
frame, is not shown, and neither is what an edit list cuts off. A container that stamps frames in the order of decoding (AVI
with B frames) or not at all (raw streams) is read by count.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from av.stream import Disposition
from av.video.frame import VideoFrame
from PIL import Image

from video_gen.data.packed import Loaded, content_of
from video_gen.errors import DataError, ShapeError

MAX_PIXELS = 89_478_485
"""A frame that declares more than this (Pillow's limit against decompression bombs) is refused before it is decoded."""
HEAD = 32
"""Shown packets from which the first time stamp is taken: more than a decoder reorders."""
ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
"""FFmpeg's own decoders of these leave the alpha out."""
NOT_TO_SEE = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image


class Shown(NamedTuple):
    """A decoded frame, when it comes on the screen and when its own duration ends (seconds)."""

    start: float
    end: float
    frame: VideoFrame


@dataclass(frozen=True)
class Opened:
    """A container, the stream that is shown, and its clock."""

    path: Path | Loaded
    container: Any
    stream: Any
    origin: int
    """Time stamp of the first frame that is shown."""
    counted: bool
    """Frames are numbered as they come: their stamps are those of decoding, or missing."""
    packets: Iterator[Any]
    """Of all streams, from the start on; each comes once."""
    coarse: bool = False
    """Whether it is decoded a little faster, as `opened` says."""

    @property
    def tick(self) -> float:
        """Seconds of a step of the time stamps, to which the container may have rounded."""
        return 0.0 if self.counted else float(self.stream.time_base)

    @property
    def slack(self) -> float:
        return slack_of(self.tick)

    @property
    def step(self) -> float:
        """Seconds of a frame that does not say."""
        return 1 / float(self.stream.average_rate or self.stream.guessed_rate or 25)


def slack_of(tick: float) -> float:
    """Seconds by which a frame may begin late: a tick, where ticks are fine, since 1/30 s must find frame 1 in a container of
    milliseconds."""
    return 1e-6 + (tick if tick <= 0.01 else 0.0)


class Timeline(NamedTuple):
    """What the packets say without decoding: where each shown frame starts and the last one ends (seconds from the first)."""

    starts: list[float]
    duration: float


@contextmanager
def opened(path: Path | Loaded, coarse: bool = False) -> Iterator[Opened]:
    """
    Args: coarse: leave out what smooths the edges of blocks in frames that no other is made from: a twelfth of the time of H.264,
        and not to be seen at half the size or less.
    Raises: DataError if it is no video, or holds no stream to show.
    """
    with _container(path) as container:
        stream, packets, seen = _shown_stream(container, path), container.demux(), []
        if coarse:
            stream.codec_context.options = {"skip_loop_filter": "noref"}
        origin = None
        if not _by_decoding(container, stream):
            origin = _first_stamp(remembered(packets, seen), stream, path)
        # those that were seen come once more: not every container can go back to its start, and opening takes its time
        yield Opened(path, container, stream, origin or 0, origin is None, chain(seen, packets), coarse)


@contextmanager
def explained(path: Path | Loaded) -> Iterator[None]:
    """Turn what the libraries raise into one line that names the file."""
    try:
        yield
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise DataError(f"{path}: declares more than {MAX_PIXELS:,} pixels; remove it or make it smaller") from None
    except PermissionError:
        raise DataError(f"{path}: permission denied; change its rights, or leave it out") from None
    except (av.FFmpegError, OSError, EOFError, SyntaxError, ValueError, MemoryError) as error:
        if isinstance(error, ShapeError):
            raise
        reason = " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__
        raise DataError(f"{path}: unreadable ({reason}); remove it or copy or encode it again") from None


def check_size(width: int, height: int, path: Path | Loaded) -> None:
    """Raises: DataError if a frame is too large to be decoded."""
    if width * height > MAX_PIXELS:
        raise DataError(
            f"{path}: declares {width}x{height}, more than {MAX_PIXELS:,} pixels; remove it or make it smaller"
        )


def timeline(video: Opened) -> Timeline:
    """From the packets alone, or by decoding where they do not tell.

    Raises: DataError if there is no frame, the file ends before its header says, or its time starts again in the middle.
    """
    stream, path = video.stream, video.path
    stamps, steps, decoding, last_of_any, packets, started = [], [], [], 0.0, 0, video.counted
    with explained(path):
        for packet in video.packets:
            stamp = packet.pts if packet.pts is not None else packet.dts
            if not packet.size or (stamp is None and not video.counted):
                continue
            if stamp is not None:
                last_of_any = max(last_of_any, float((stamp + (packet.duration or 0)) * packet.time_base))
            if packet.stream.index != stream.index:
                continue
            packets += not packet.is_corrupt
            started = started or packet.is_keyframe
            if started and not packet.is_discard and (video.counted or (stamp or 0) >= video.origin):
                stamps.append(stamp)
                steps.append(packet.duration or 0)
                decoding.append(packet.dts)
    if not stamps:
        raise DataError(f"{path}: holds no video frames; remove it or encode it again")
    _check_whole(video, packets, last_of_any)
    if video.counted:
        return _counted(path)
    _check_order(video, decoding)
    last = int(np.argmax(stamps))
    step = steps[last] * video.tick or video.step
    starts = [(stamp - video.origin) * video.tick for stamp in sorted(stamps)]
    return Timeline(starts, starts[-1] + step)


def decoded(video: Opened, packets: Iterator[Any] | None = None) -> Iterator[Shown]:
    """Frames in the order shown: of all that comes, or of `packets`. Raises: DataError."""
    index, end, whole = 0, 0.0, False
    with explained(video.path):
        for frame in _frames(video, packets or video.packets):
            if video.counted:
                start, end = index * video.step, (index + 1) * video.step
            else:
                start = end if frame.pts is None else (frame.pts - video.origin) * video.tick
                end = start + ((frame.duration or 0) * video.tick or video.step)
            whole = whole or not frame.is_corrupt
            if start < -1e-9 or not whole:  # made from frames that are not there, or cut off by an edit list
                continue
            if frame.is_corrupt:
                raise DataError(f"{video.path}: corrupt at {start:.2f} s; copy or encode it again")
            yield Shown(start, end, frame)
            index += 1


def decoded_from(video: Opened, time: float) -> Iterator[Shown]:
    """Frames from the last key frame at or before `time`; from the start if the container cannot seek there, and in MPEG program
    streams, whose stamps are those of packs of many frames: after seeking they may be given to the wrong ones."""
    if time > 0 and not video.counted and video.container.format.name != "mpeg":
        target = video.origin + int((time + video.slack) / video.stream.time_base)
        frames: Iterator[Shown] = iter(())
        try:
            video.container.seek(target, stream=video.stream, backward=True)
            frames = decoded(video, video.container.demux(video.stream))
            first = next(frames, None)
        except (av.FFmpegError, DataError):
            first = None
        if first is not None and first.start <= time + video.slack:
            yield first
            yield from frames
            return
        with opened(video.path, video.coarse) as again:
            yield from decoded(again)
        return
    yield from decoded(video)


# -------------------- opening


@contextmanager
def _container(path: Path | Loaded) -> Iterator[Any]:
    with explained(path):
        container = av.open(content_of(path))
    try:
        yield container
    finally:
        container.close()


def _shown_stream(container: Any, path: Path | Loaded) -> Any:
    """The stream that a player shows: the first that is marked as default, else the first, and no cover picture."""
    streams = [s for s in container.streams.video if not s.disposition & NOT_TO_SEE]
    if not streams:
        what = "only a cover picture" if container.streams.video else "no video stream"
        raise DataError(f"{path}: holds {what}; remove it or move it out of the folder")
    stream = next((s for s in streams if s.disposition & Disposition.default), streams[0])
    context = stream.codec_context
    if context is None:
        raise DataError(f"{path}: its video is of a kind that cannot be decoded here; encode it again, as H.264")
    check_size(context.width, context.height, path)
    context.thread_count = 1  # several files at once use the cores better than several threads on one
    return stream


def _by_decoding(container: Any, stream: Any) -> bool:
    """Whether the container has a stamp for decoding a frame, and none for showing it."""
    return container.format.name == "avi" and bool(stream.codec_context.has_b_frames)


def remembered(packets: Iterator[Any], seen: list[Any]) -> Iterator[Any]:
    """Packets, each of which is put into `seen`."""
    for packet in packets:
        seen.append(packet)
        yield packet


def _first_stamp(packets: Iterator[Any], stream: Any, path: Path | Loaded) -> int | None:
    """Time stamp of the first frame that is shown; None if the packets have none."""
    key, shown, every = None, [], []
    with explained(path):
        for packet in packets:
            if not packet.size or packet.stream.index != stream.index:
                continue
            stamp = packet.pts if packet.pts is not None else packet.dts
            if stamp is None:
                return None
            every.append(stamp)
            if key is None and packet.is_keyframe:
                key = stamp
            if key is not None and stamp >= key and not packet.is_discard:
                shown.append(stamp)
            if len(shown) == HEAD:
                break
    if not every:
        raise DataError(f"{path}: holds no video frames; remove it or encode it again")
    return min(shown or every)


def _frames(video: Opened, packets: Iterator[Any]) -> Iterator[VideoFrame]:
    """Decoded with alpha, where the file has it."""
    own = (packet for packet in packets if packet.stream.index == video.stream.index)
    name = ALPHA_DECODERS.get(video.stream.codec_context.name)
    if name is None or video.stream.metadata.get("alpha_mode") != "1" or name not in av.codecs_available:
        for packet in own:
            yield from packet.decode()
        return
    decoder: Any = av.CodecContext.create(name, "r")
    for packet in own:
        if packet.size:
            yield from decoder.decode(packet)
    yield from decoder.decode(None)


# -------------------- checking


def _check_whole(video: Opened, packets: int, last: float) -> None:
    """Compare what was found with what the header promised: frames where it counts them, else seconds.

    A header that counts frames counts those of an edit list, too, so its index, where longer than one entry, decides.
    """
    container, stream = video.container, video.stream
    promised = min(stream.frames, len(stream.index_entries)) if stream.frames else 0
    if packets < promised:
        raise DataError(f"{video.path}: truncated: {packets} of {promised} frames are there; copy or encode it again")
    start = (container.start_time or 0) / av.time_base
    duration = (container.duration or 0) / av.time_base + min(start, 0.0)  # of what lies before 0, too
    allowed = max(0.25, 0.02 * duration)  # headers without a frame count are rounded, and audio may be padded
    if not stream.frames and last < duration - allowed:
        raise DataError(f"{video.path}: truncated: ends at {last:.2f} s of {duration:.2f} s; copy or encode it again")


def _check_order(video: Opened, decoding: list[int | None]) -> None:
    """Raises: DataError if time goes back by more than rounding, as where recordings were joined byte by byte."""
    known = np.array([stamp for stamp in decoding if stamp is not None], dtype=np.int64)
    back = np.flatnonzero(np.diff(known) * video.tick < -0.5)
    if len(back):
        at = (known[back[0]] - video.origin) * video.tick
        raise DataError(
            f"{video.path}: time starts again after {at:.2f} s, as in files that were joined; split it there, or encode it again"
        )


def _counted(path: Path | Loaded) -> Timeline:
    with opened(path) as video:
        starts = [shown.start for shown in decoded(video)]
        return Timeline(starts, len(starts) * video.step)
