"""Small odd files, as cameras, editors and the web make them, whose frames carry their number."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

BITS = 6


KR_KB = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 6: (0.299, 0.114), 7: (0.212, 0.087), 9: (0.2627, 0.0593)}
"""Weights of red and blue in brightness, by the matrix of H.273."""


def numbered(frames: int = 40, height: int = 48, width: int = 64) -> np.ndarray:
    """(f, h, w, 3) uint8: six bars that spell the frame's index, and a mark that moves."""
    video = np.full((frames, height, width, 3), 40, np.uint8)
    for index in range(frames):
        for bit in range(BITS):
            if index >> bit & 1:
                video[index, 8:24, 4 + bit * 10 : 12 + bit * 10] = 230
        video[index, 32:40, (index * 2) % width : (index * 2) % width + 6] = 200
    return video


def number(frame: np.ndarray) -> int:
    """The index that a frame of `numbered` carries, at any size of the same form."""
    height, width = frame.shape[:2]
    y, x = height / 48, width / 64
    bars = [frame[int(10 * y) : int(22 * y), int((6 + b * 10) * x) : int((10 + b * 10) * x)] for b in range(BITS)]
    return sum(1 << bit for bit, bar in enumerate(bars) if bar.mean() > 130)


def encode(
    path: Path,
    frames: np.ndarray | list[av.VideoFrame],
    codec: str = "libx264",
    rate: Fraction | int = 20,
    pixels: str = "yuv420p",
    format: str | None = None,
    options: dict[str, str] | None = None,
    stamps: list[int] | None = None,
    container_options: dict[str, str] | None = None,
    **context,
) -> Path:
    """Frames, uint8 RGB or made ones, into a file; `context` sets fields of the codec's, `stamps` are in frames."""
    with av.open(str(path), "w", format=format, options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        first = frames[0]
        size = first.shape[:2] if isinstance(first, np.ndarray) else (first.height, first.width)
        stream.height, stream.width, stream.pix_fmt = *size, pixels
        for name, value in context.items():
            setattr(stream.codec_context, name, value)
        for index, each in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(each, format="rgb24") if isinstance(each, np.ndarray) else each
            frame.pts, frame.time_base = stamps[index] if stamps else index, 1 / Fraction(rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def remux(source: Path, target: Path, first_packet: int = 0, shift: int = 0, **options) -> Path:
    """Copy packets without coding them anew, from one on, `shift` ticks of the source earlier."""
    with av.open(str(source)) as a, av.open(str(target), "w", options=options) as b:
        stream = b.add_stream_from_template(a.streams.video[0])
        packets = [packet for packet in a.demux(a.streams.video[0]) if packet.dts is not None]
        for packet in packets[first_packet:]:
            packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, stream
            b.mux(packet)
    return target


def flat(pixels: str, planes: tuple[int, ...], height: int = 32, width: int = 32, **facts) -> av.VideoFrame:
    """A frame of one colour by its coded values, of 8 bits or of 10 in two bytes."""
    frame = av.VideoFrame(width, height, pixels)
    for plane, value in zip(frame.planes, planes):
        wide = "10" in pixels
        count = plane.buffer_size // (2 if wide else 1)
        plane.update(np.full(count, value, np.uint16 if wide else np.uint8).tobytes())
    for name, value in facts.items():
        setattr(frame, name, value)
    return frame


def coded(rgb, matrix: int, full: bool, bits: int = 8) -> tuple[int, ...]:
    """Y, Cb, Cr of a colour by the formulas of H.273."""
    kr, kb = KR_KB[matrix]
    r, g, b = (value / 255 for value in rgb)
    y = kr * r + (1 - kr - kb) * g + kb * b
    cb, cr = (b - y) / (2 - 2 * kb), (r - y) / (2 - 2 * kr)
    scale = 1 << (bits - 8)
    if full:
        most = (256 * scale) - 1
        return round(y * most), round(cb * most + 128 * scale), round(cr * most + 128 * scale)
    return tuple(round(scale * value) for value in (16 + 219 * y, 128 + 224 * cb, 128 + 224 * cr))
