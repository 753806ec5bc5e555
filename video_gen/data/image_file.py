"""Stills and animated pictures through Pillow: upright, on white, in sRGB, with the timing that browsers give them."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageCms, ImageOps

from video_gen.data.container import check_size, explained
from video_gen.data.packed import Loaded, content_of
from video_gen.errors import DataError

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM", "TGA", "JPEG2000", "QOI")
ANIMATED = ("PNG", "WEBP", "GIF", "AVIF")
"""The others' further pictures are pages, previews or channels."""
DEFAULT_SECONDS, SHORTEST_SECONDS = 0.1, 0.01
"""Browsers show a frame that declares no more than the second for the first."""
TICKS = {"GIF": 0.01}
"""Seconds to which a format rounds times; others: 0.001."""


class ShownImage(NamedTuple):
    """A picture, when it comes on the screen and when its own duration ends (seconds)."""

    start: float
    end: float
    picture: Image.Image


@contextmanager
def opened_image(path: Path | Loaded) -> Iterator[Image.Image]:
    """Raises: DataError if Pillow cannot read it."""
    with explained(path), Image.open(content_of(path), formats=FORMATS) as image:
        check_size(*image.size, path)
        yield image


def count_of(image: Image.Image) -> int:
    """Its frames; 1 for a still."""
    return getattr(image, "n_frames", 1) if image.format in ANIMATED else 1


def tick_of(image: Image.Image) -> float:
    return TICKS.get(image.format or "", 0.001)


def shown_images(path: Path | Loaded) -> Iterator[ShownImage]:
    """The one frame of a still, or all frames of an animation, upright. Raises: DataError."""
    with opened_image(path) as image:
        start = 0.0
        for index in range(count_of(image)):
            image.seek(index)
            picture = ImageOps.exif_transpose(image.copy())
            seconds = (image.info.get("duration") or 0) / 1000
            end = start + (seconds if seconds > SHORTEST_SECONDS else DEFAULT_SECONDS)
            yield ShownImage(start, end, picture)
            start = end


def rgb_of(image: Image.Image, path: Path | Loaded) -> np.ndarray:
    """(h, w, 3) uint8. Raises: DataError if its numbers are no colours."""
    if image.mode == "F":
        raise DataError(f"{path}: holds floating-point numbers, whose range nobody states; save it with 8 or 16 bits")
    if image.mode.startswith("I"):  # 16 bits of grey, which Pillow would clip at 255
        grey = (np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=-1)
    image = _in_srgb(image)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.array(image.convert("RGB"))


def _in_srgb(image: Image.Image) -> Image.Image:
    """By the colour profile inside, such as the Display P3 of phones; a profile that cannot be used is left out."""
    profile = image.info.get("icc_profile")
    if not profile or image.mode not in ("RGB", "RGBA", "CMYK", "L"):
        return image
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        to = "RGB" if image.mode in ("CMYK", "L") else image.mode
        made = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode=to)
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image
    return image if made is None else made
