"""Files that training writes and others may have changed: read as they are, up to a size, never through a link or from a pipe."""

import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

ONLY_FILES = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def open_plain(path: Path) -> BinaryIO | None:
    """The open file; None if there is none, or it is no file of its own: a link may lead anywhere, a pipe may never end."""
    try:
        handle = os.open(path, ONLY_FILES)
    except (OSError, ValueError):
        return None
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        return None
    return os.fdopen(handle, "rb")


def stamp(path: Path) -> tuple[int, int, int] | None:
    """What changes whenever a file does: (its number on the disk, size, time of the last change in ns). None = no such file."""
    try:
        found = os.lstat(path)
    except (OSError, ValueError):
        return None
    return (found.st_ino, found.st_size, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else None


def tail(path: Path, most: int) -> str:
    """The end of a text, up to `most` bytes, of which what is no UTF-8 is shown as such; "" if it cannot be read."""
    file = open_plain(path)
    if file is None:
        return ""
    with file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - most))
        return file.read(most).decode("utf-8", "replace")


def whole(path: Path, most: int) -> bytes | None:
    """All of a file; None if it cannot be read, or is larger than `most` bytes."""
    file = open_plain(path)
    if file is None:
        return None
    with file:
        found = file.read(most + 1)
    return found if len(found) <= most else None


def plain(value: Any, depth: int = 16) -> Any:
    """What was read, as JSON can say it: a number that is none as its name, a text that is none mended, all else as text."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return (
            value if abs(value) < 2**53 else f"{value:.6g}" if abs(value) < 10**300 else "a number of over 300 digits"
        )
    if isinstance(value, float):
        return value if value - value == 0 else str(value)
    if isinstance(value, dict):
        return {_text(key): plain(part, depth - 1) for key, part in value.items()} if depth else "..."
    if isinstance(value, list | tuple):
        return [plain(part, depth - 1) for part in value] if depth else "..."
    return _text(value)


def _text(value: Any) -> str:
    return str(value).encode("utf-8", "replace").decode("utf-8")
