"""Which kind a file is, by its content."""

from video_gen.errors import DataError

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
