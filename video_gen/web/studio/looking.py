"""What is done with somebody's file, in a process apart: find out what it is, and make a picture of it. No torch."""

import io
from pathlib import Path
from typing import Any

from PIL import Image

from video_gen.data.video_file import iterate_frames, probe

POSTER_SIDE = 320


def look_at(path: Path) -> dict[str, Any]:
    """What a file is, and its first frame as WebP. Raises: DataError if it cannot be read."""
    info = probe(path)
    first = next(iterate_frames(path, [0.0]))
    return {
        "kind": info.kind,
        "width": info.width,
        "height": info.height,
        "frames": info.num_frames,
        "fps": info.fps,
        "poster": webp(Image.fromarray(first)),
    }


def frame_of(path: Path, number: int) -> tuple[bytes, int]:
    """A frame of a video as PNG, and the number it has: the last one if `number` lies beyond. Raises: DataError."""
    info = probe(path)
    number = max(0, min(number, info.num_frames - 1))
    time = number / info.fps if info.fps else 0.0
    out = io.BytesIO()
    Image.fromarray(next(iterate_frames(path, [time]))).save(out, "PNG")
    return out.getvalue(), number


def poster_of(path: Path) -> bytes:
    """The first frame as WebP. Raises: DataError."""
    return webp(Image.fromarray(next(iterate_frames(path, [0.0]))))


def webp(picture: Image.Image) -> bytes:
    """Of at most `POSTER_SIDE` a side; small pictures as they are."""
    out = io.BytesIO()
    small = max(picture.size) <= POSTER_SIDE // 2
    picture.thumbnail((POSTER_SIDE, POSTER_SIDE))
    picture.save(out, "WEBP", lossless=small, quality=82)
    return out.getvalue()
