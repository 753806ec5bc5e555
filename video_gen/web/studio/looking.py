"""What is done with somebody's file, in a process apart: find out what it is, and make a picture of it. No torch."""

import io
from pathlib import Path
from typing import Any

from PIL import Image

from video_gen.data.video_file import iterate_frames, probe
from video_gen.errors import DataError

POSTER_SIDE = 320
START = 4096
"""Bytes by which a file's kind is known."""


def kind_of(start: bytes) -> str:
    """The suffix of a file that begins so, as `.mp4`. Raises: DataError if it is nothing that is taken.

    By content alone, and of few kinds: a play list that calls itself a video would have other files read in its place.
    """
    for suffix, at, magic in MAGIC:
        if start[at : at + len(magic)] == magic:
            return suffix
    raise DataError(
        "is no picture or video that is known by its content; send PNG, JPEG, WebP, GIF, AVIF, MP4, MOV, WebM, AVI"
    )


MAGIC = (
    (".png", 0, b"\x89PNG\r\n\x1a\n"),
    (".jpg", 0, b"\xff\xd8\xff"),
    (".gif", 0, b"GIF8"),
    (".webp", 8, b"WEBP"),
    (".bmp", 0, b"BM"),
    (".avif", 4, b"ftypavif"),
    (".avif", 4, b"ftypavis"),
    (".mov", 4, b"ftypqt"),
    (".mp4", 4, b"ftyp"),
    (".mov", 4, b"moov"),
    (".mov", 4, b"wide"),
    (".mkv", 0, b"\x1a\x45\xdf\xa3"),
    (".avi", 8, b"AVI "),
)


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
