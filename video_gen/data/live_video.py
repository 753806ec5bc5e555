"""Writing a video whose end is not known: it can be watched while it grows, and is whole up to wherever it stops."""

import json
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO, Protocol, Self

import av
import numpy as np

from video_gen.data.video_writer import check_frames, check_writable, h264_stream, to_yuv420
from video_gen.files import explained

TICK = Fraction(1, 90_000)
"""Of time stamps, in seconds: MPEG's, which all usual frame rates divide, or nearly so."""
FRAGMENT = "250000"  # microseconds of video that a reader waits for at most, besides encoding


class LiveWriter(Protocol):
    def write(self, frames: np.ndarray, fps: float) -> None:
        """Append frames (f, h, w, 3) uint8 RGB, to be shown at `fps`. Raises: BrokenPipeError if nobody reads any more."""
        ...

    def close(self) -> None: ...


class LiveMP4:
    """H.264 in a fragmented mp4: every quarter of a second becomes a fragment that plays by itself, so the file can be
    watched while it grows, plays up to the last fragment after a kill, and takes no memory that grows with it.

    Args:
        target: a file, written in place, or an open binary file such as standard output.
        height, width: of the frames, even. `fps`: of the first ones; each `write` may have its own.
        metadata: kept as JSON in the file's comment; see `read_metadata`.
    Raises: DataError if the file cannot be written.
    """

    def __init__(
        self,
        target: Path | BinaryIO,
        height: int,
        width: int,
        fps: float,
        *,
        crf: int = 16,
        preset: str = "veryfast",
        metadata: dict[str, str] | None = None,
    ):
        self._path = target if isinstance(target, Path) else Path("standard output")
        self._clock, self._pts, self._failed = 0.0, -1, False
        check_writable(self._path.with_suffix(".mp4"), height, width, fps)
        # flush_packets: bytes are not held back until 32 kB are there
        flags = {"movflags": "empty_moov+default_base_moof", "frag_duration": FRAGMENT, "flush_packets": "1"}
        with explained(self._path):
            if isinstance(target, Path):
                target.parent.mkdir(parents=True, exist_ok=True)
            file: Any = str(target) if isinstance(target, Path) else _Flushed(target)
            self._container = av.open(file, "w", format="mp4", options=flags)
        self._container.metadata["comment"] = json.dumps(metadata or {}, ensure_ascii=True)
        # without zerolatency x264 holds dozens of frames back
        options = {"crf": str(crf), "preset": preset, "tune": "zerolatency"}
        rate = Fraction(fps).limit_denominator(10_000)
        self._stream = h264_stream(self._container, height, width, rate, options)
        self._stream.time_base = self._stream.codec_context.time_base = TICK

    def write(self, frames: np.ndarray, fps: float) -> None:
        """See `LiveWriter`. Raises: DataError if the disk is full; the file then ends with its last whole fragment."""
        check_frames(self._path, frames)
        with self._guarded():
            for array in frames:
                pts = max(self._pts + 1, round(self._clock / TICK))
                for packet in self._stream.encode(to_yuv420(array, pts, TICK)):
                    packet.duration = round(1 / fps / TICK)  # the encoder's is that of the first rate
                    self._container.mux(packet)
                self._clock, self._pts = self._clock + 1 / fps, pts

    def close(self) -> None:
        """Write the last fragment. Raises: DataError, as `write`; nothing after an error."""
        if not self._failed:
            with self._guarded():
                self._container.mux(self._stream.encode())
                self._container.close()

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        with explained(self._path):
            try:
                yield
            except (av.FFmpegError, OSError):
                self._failed = True
                with suppress(av.FFmpegError, OSError):
                    self._container.close()
                if self._path.is_file():
                    cut_to_whole_fragments(self._path)
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def cut_to_whole_fragments(path: Path) -> None:
    """Take off what a full disk left of the last fragment: an mp4 is boxes, each with its length and name in front, and
    `mdat`, the pictures, ends a fragment."""
    size, place, whole = path.stat().st_size, 0, 0
    with path.open("r+b") as file:
        while place + 8 <= size:
            file.seek(place)
            length, name = struct.unpack(">I4s", file.read(8))
            if length < 8 or place + length > size:
                break
            place += length
            whole = place if name in (b"mdat", b"moov") else whole
        file.truncate(whole)


class _Flushed:
    """A binary file whose buffer holds nothing back; all that PyAV needs of one."""

    def __init__(self, file: BinaryIO):
        self._file = file

    def write(self, data: Any) -> int:
        self._file.write(data)
        self._file.flush()
        return len(data)


class LiveRaw:
    """Bare RGB bytes, frame after frame; the reader must know size and rate."""

    def __init__(self, target: BinaryIO):
        self._target = target

    def write(self, frames: np.ndarray, fps: float) -> None:
        """See `LiveWriter`; the rate is not written."""
        with explained(Path("standard output")):
            self._target.write(np.ascontiguousarray(frames).tobytes())
            self._target.flush()

    def close(self) -> None:
        self._target.flush()
