"""A decoded frame as a person sees it: RGB, upright, of square pixels, without combs, standard dynamic range, on white."""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from av.sidedata.sidedata import Type
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation
from PIL import Image

from video_gen.data.packed import Loaded
from video_gen.errors import DataError

UNSPECIFIED = (0, 2)  # H.273: reserved, and "the file does not say"
READ_MATRICES = {1: "BT.709", 4: "FCC", 5: "BT.470", 6: "BT.601", 7: "SMPTE 240M", 9: "BT.2020"}
PQ, HLG = 16, 18
"""Transfer characteristics of high dynamic range, H.273."""
REFERENCE_WHITE, PEAK = 203.0, 1000.0
"""Nits of white paper (BT.2408) and of the brightest highlight that a grade for HLG's nominal display has."""
KNEE = 0.8
"""Of the range of a standard display: what is darker stays as it is, what is brighter is rolled off."""
BT2020_TO_BT709 = np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]])
"""Linear light, ITU-R BT.2087-0, section 4."""


class Orientation(NamedTuple):
    """How a stored picture comes to be seen: transposed first, then flipped."""

    transposed: bool = False
    flip_x: bool = False
    flip_y: bool = False

    @property
    def mirrored(self) -> bool:
        return self.transposed ^ self.flip_x ^ self.flip_y

    @property
    def turn(self) -> int:
        """Degrees counter-clockwise, but for the mirroring."""
        if self.transposed:
            return 90 if self.flip_y else 270
        return 180 if self.flip_y else 0


def orientation_of(frame: VideoFrame, path: Path | Loaded) -> Orientation:
    """By the display matrix: (x, y) is seen at (a x + c y, b x + d y). Raises: DataError if it is no multiple of 90 degrees."""
    found: Any = frame.side_data  # by number: what its iterator and its keys are depends on the version of PyAV
    sides = (found[index] for index in range(len(found)))
    side: Any = next((side for side in sides if side.type == Type.DISPLAYMATRIX), None)
    if side is None:
        return Orientation()
    a, b, _, c, d = np.frombuffer(bytes(side), np.int32)[:5] / 65536
    straight, crossed = abs(a) + abs(d), abs(b) + abs(c)
    if min(straight, crossed) > 0.01 * max(straight, crossed):
        angle = round(frame.rotation) % 360
        raise DataError(f"{path}: is to be turned by {angle} degrees; only multiples of 90 are read: encode it again")
    return (
        Orientation(True, bool(c < 0), bool(b < 0))
        if crossed > straight
        else Orientation(False, bool(a < 0), bool(d < 0))
    )


def square_size(width: int, height: int, aspect: Fraction | None) -> tuple[int, int]:
    """(width, height) in square pixels of a picture whose pixels are `aspect` times as wide as high: the side that is too
    short is stretched, as browsers do."""
    if not aspect or aspect == 1:
        return width, height
    return (round(width * aspect), height) if aspect > 1 else (width, round(height / aspect))


class Geometry(NamedTuple):
    """How the pictures of a file lie, asked once: a frame that is asked for what lies beside it stays in memory until Python next
    looks for cycles."""

    stored: tuple[int, int]
    """(width, height) that the stream declares; a frame of another size is scaled to that."""
    shown: tuple[int, int]
    """The same in square pixels, before it is turned."""
    orientation: Orientation


def to_picture(frame: VideoFrame, geometry: Geometry, path: Path | Loaded) -> np.ndarray:
    """A decoded frame as (h, w, 3) uint8 RGB. Raises: DataError if its colours cannot be read."""
    stored, shown, orientation = geometry
    array = _rgb(frame, path)
    if frame.interlaced_frame:
        array = without_combs(array)
    if shown != (array.shape[1], array.shape[0]) or stored != (frame.width, frame.height):
        array = np.asarray(Image.fromarray(array).resize(shown, Image.Resampling.BICUBIC))
    return upright(array, orientation)


@dataclass(frozen=True)
class Scaled:
    """A frame at a size of its own, as it is seen. Most stay brightness and colours as they are coded, of limited range: to make
    them smaller still, or to code them again, takes no detour through RGB."""

    content: VideoFrame | np.ndarray
    """yuv420p, or (h, w, 3) uint8 RGB."""
    path: Path | Loaded

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)."""
        content = self.content
        return content.shape[1::-1] if isinstance(content, np.ndarray) else (content.width, content.height)

    def rgb(self, size: tuple[int, int] | None = None) -> np.ndarray:
        """(h, w, 3) uint8; `size`: (width, height) to which it is scaled on the way."""
        if isinstance(self.content, np.ndarray):
            return self.content if size is None else self.scaled(*size).rgb()
        return reformatted(self.content, "rgb24", self.path, size).to_ndarray()

    def scaled(self, width: int, height: int) -> "Scaled":
        if isinstance(self.content, np.ndarray):
            made = Image.fromarray(self.content).resize((width, height), Image.Resampling.BOX)
            return Scaled(np.asarray(made), self.path)
        return Scaled(reformatted(self.content, "yuv420p", self.path, (width, height)), self.path)


def to_scaled_picture(frame: VideoFrame, size: tuple[int, int], geometry: Geometry, path: Path | Loaded) -> Scaled:
    """The same at `size` (width, height), which is as it is seen, of whole pictures: several times as fast as to scale them
    afterwards, since most frames are scaled before their colours are worked out. Raises: DataError, as `to_picture`."""
    orientation = geometry.orientation
    width, height = size[::-1] if orientation.transposed else size
    if frame.interlaced_frame or frame.color_trc in (PQ, HLG) or has_alpha(frame):
        array = to_picture(frame, geometry._replace(shown=geometry.stored), path)
        return Scaled(np.asarray(Image.fromarray(array).resize(size, Image.Resampling.BOX)), path)
    if orientation == Orientation() and _is_plain(frame):
        return Scaled(reformatted(frame, "yuv420p", path, (width, height)), path)
    return Scaled(upright(reformatted(frame, "rgb24", path, (width, height)).to_ndarray(), orientation), path)


def upright(array: np.ndarray, orientation: Orientation) -> np.ndarray:
    """(h, w, 3) as it is to be seen."""
    array = array.swapaxes(0, 1) if orientation.transposed else array
    array = array[:, ::-1] if orientation.flip_x else array
    return np.ascontiguousarray(array[::-1] if orientation.flip_y else array)


def without_combs(array: np.ndarray) -> np.ndarray:
    """The lines of the first field of (h, w, 3) uint8, with the others made from their neighbours: of one moment, where an
    interlaced frame holds two. Of each frame alone, so that it is the same wherever reading starts."""
    array = array.copy()
    below = array[2::2].astype(np.uint16)
    between = array[1 : 2 * len(below) : 2]
    between[:] = (array[0 : 2 * len(below) : 2] + below + 1) // 2
    if len(array) % 2 == 0:
        array[-1] = array[-2]
    return array


def _is_plain(frame: VideoFrame) -> bool:
    """Whether brightness and two colours lie in planes of their own."""
    return frame.format.name.startswith(("yuv4", "yuvj4"))


def has_alpha(frame: VideoFrame) -> bool:
    name = frame.format.name
    return name.startswith(("yuva", "gbrap", "rgba", "bgra", "argb", "abgr", "ya", "pal8"))


def _rgb(frame: VideoFrame, path: Path | Loaded) -> np.ndarray:
    """With the matrix, range and transfer that the file declares; what it does not say is guessed as players do."""
    if frame.color_trc in (PQ, HLG):
        return _from_hdr(frame, path)
    if has_alpha(frame):
        return _on_white(reformatted(frame, "rgba", path).to_ndarray())
    return reformatted(frame, "rgb24", path).to_ndarray()


def reformatted(frame: VideoFrame, format: str, path: Path | Loaded, size: tuple[int, int] | None = None) -> VideoFrame:
    """A frame in another format, yuv420p of limited range or one of RGB, by the matrix and range that it declares.

    Args: size: (width, height) to which it is scaled on the way, each pixel the mean of those that it stands for.
    Raises: DataError if its colours are stored in a way that is not read.
    """
    name, how = frame.format.name, {"format": format, "threads": 1}
    if size is not None:
        larger = size[0] > frame.width or size[1] > frame.height
        interpolation = Interpolation.BICUBIC if larger else Interpolation.AREA
        how |= {"width": size[0], "height": size[1], "interpolation": interpolation}
    if frame.format.is_rgb or name == "pal8":
        return frame.reformat(**how)
    full = name.startswith("yuvj") or frame.color_range == ColorRange.JPEG
    if name.startswith("gray") and frame.color_range != ColorRange.MPEG:
        return frame.reformat(**how)
    to = ColorRange.MPEG if format == "yuv420p" else ColorRange.JPEG
    matrix = frame.colorspace
    if matrix in UNSPECIFIED or name.startswith("gray"):
        matrix = Colorspace.ITU709 if frame.height >= 720 else Colorspace.ITU601
    elif matrix not in READ_MATRICES:
        raise DataError(
            f"{path}: its colours are stored by matrix {int(matrix)} of H.273, of which only "
            f"{', '.join(dict.fromkeys(READ_MATRICES.values()))} are read; encode it again"
        )
    how |= {"src_colorspace": matrix, "src_color_range": ColorRange.JPEG if full else ColorRange.MPEG}
    made = frame.reformat(dst_colorspace=matrix, dst_color_range=to, **how)
    made.colorspace, made.color_range = matrix, to  # it may be the frame itself, and say nothing of either
    return made


def _on_white(rgba: np.ndarray) -> np.ndarray:
    colour, alpha = rgba[..., :3].astype(np.uint16), rgba[..., 3:].astype(np.uint16)
    return ((colour * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


# -------------------- high dynamic range


def _from_hdr(frame: VideoFrame, path: Path | Loaded) -> np.ndarray:
    """Toned down: linear light, highlights rolled off, BT.709 primaries, and the gamma of a screen."""
    coded = reformatted(frame, "rgb48le", path).to_ndarray()
    light = (_pq_light if frame.color_trc == PQ else _hlg_light)(coded) / REFERENCE_WHITE
    if frame.color_primaries in (9, *UNSPECIFIED):
        light = (light @ BT2020_TO_BT709.T.astype(np.float32)).clip(0)
    brightest = light.max(-1, keepdims=True)
    light = light * (rolled_off(brightest) / np.maximum(brightest, 1e-6))
    return (light.clip(0, 1) ** (1 / 2.2) * 255 + 0.5).astype(np.uint8)


def rolled_off(light: np.ndarray) -> np.ndarray:
    """Light as a share of a standard display's white, the part above KNEE pressed into what is left of the range, smoothly."""
    over = np.maximum(light - KNEE, 0) / (1 - KNEE)
    return np.where(light > KNEE, KNEE + (1 - KNEE) * over / (1 + over), light)


def _pq_light(coded: np.ndarray) -> np.ndarray:
    """uint16 RGB by SMPTE ST 2084 to nits, (h, w, 3) float32."""
    return _table("pq")[coded]


def _hlg_light(coded: np.ndarray) -> np.ndarray:
    """uint16 RGB by ARIB STD-B67 to nits on a display of PEAK nits, with that display's gamma of 1.2 (ITU-R BT.2100, table 5)."""
    scene = _table("hlg")[coded]
    luminance = scene @ np.array([0.2627, 0.6780, 0.0593], np.float32)
    return PEAK * scene * np.maximum(luminance, 1e-6)[..., None] ** 0.2


@cache
def _table(transfer: str) -> np.ndarray:
    """The light of each of 65,536 codes, float32."""
    curve: Callable[[np.ndarray], np.ndarray] = {"pq": pq_eotf, "hlg": hlg_inverse_oetf}[transfer]
    return curve(np.arange(65536) / 65535).astype(np.float32)


def pq_eotf(signal: np.ndarray) -> np.ndarray:
    """Signal in [0, 1] to nits. Source: ITU-R BT.2100-2, table 4."""
    m1, m2 = 2610 / 16384, 2523 / 4096 * 128
    c1, c2, c3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
    power = signal ** (1 / m2)
    return 10000 * (np.maximum(power - c1, 0) / (c2 - c3 * power)) ** (1 / m1)


def hlg_inverse_oetf(signal: np.ndarray) -> np.ndarray:
    """Signal in [0, 1] to the light of the scene in [0, 1]. Source: ITU-R BT.2100-2, table 5."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
