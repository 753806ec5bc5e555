"""Files on disk: each appears whole or not at all, with the rights that the umask gives, and a full disk is one line."""

import codecs
import errno
import os
import re
import shutil
import struct
import sys
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from video_gen.errors import DataError

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None

HALF_WRITTEN = re.compile(r"\.[0-9a-f]{32}(\.|$)")
"""What `written` calls a file until it is whole, and whoever has a folder in the making."""
REASONS = {
    errno.ENOSPC: "no space left on the disk; free some, and run it again",
    errno.EDQUOT: "the disk quota is used up; free some space, and run it again",
    errno.EFBIG: "it would be larger than a file may be here; raise the limit (ulimit -f), and run it again",
    errno.EACCES: "permission denied; change the folder's rights, or write to another place",
    errno.EPERM: "permission denied; change the folder's rights, or write to another place",
    errno.EROFS: "the disk is read-only; write to another place",
}


@contextmanager
def written(path: Path) -> Iterator[Path]:
    """A hidden file beside `path` to write, which takes its place at the end, and is gone if something went wrong.

    Raises: DataError if it cannot be written, saying why.
    """
    temporary = path.with_name(f".{uuid.uuid4().hex}{path.suffix}")  # as in HALF_WRITTEN
    with explained(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.touch()
            rights = temporary.stat().st_mode  # those of the umask; safetensors gives its files to their owner alone
            yield temporary
            temporary.chmod(rights)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Remove what processes that were killed left half-written in a folder and below; nobody else may be writing there."""
    for place, folders, names in os.walk(folder):
        for name in (*folders, *names):
            if HALF_WRITTEN.match(name):
                path = Path(place, name)
                with suppress(OSError):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
        folders[:] = [name for name in folders if not HALF_WRITTEN.match(name)]


def length_of(path: Path) -> int:
    """Bytes of a file; -1 if it is not there."""
    try:
        return path.stat().st_size
    except OSError:
        return -1


def write_text(path: Path, text: str) -> None:
    """`text` as UTF-8, its newlines as they are. Raises: DataError, as `written`."""
    with written(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_tensors(path: Path, tensors: Mapping[str, Any], metadata: dict[str, str] | None = None) -> None:
    """Tensors by name as safetensors, held by the disk when this returns. Raises: DataError, as `written`."""
    from safetensors.torch import save_file

    with written(path) as temporary:
        save_file({name: x.detach().cpu().contiguous() for name, x in tensors.items()}, temporary, metadata=metadata)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())


def check_folder(folder: Path) -> None:
    """Whether files can be written into a folder, there or yet to be made: to be asked before the work for them begins.

    Leaves nothing behind. Raises: DataError, which says why not.
    """
    whole = folder.absolute()
    with explained(folder), suppress(FileNotFoundError, NotADirectoryError):
        whole.stat()  # which says if the name itself is impossible
    there = next(place for place in (whole, *whole.parents) if os.path.lexists(place))
    if not there.is_dir():
        raise DataError(f"{folder}: cannot be a folder, since {there} is a file; give another place")
    with explained(folder), tempfile.TemporaryFile(dir=there):
        pass


def check_empty(folder: Path) -> None:
    """Whether a new folder can be written. Raises: as `check_folder`; DataError if there is something in it."""
    check_folder(folder)
    if folder.is_dir() and any(folder.iterdir()):
        raise DataError(f"{folder}: is there already, and is no empty folder; give another place")


def check_new(file: Path) -> None:
    """Whether a new file can be written. Raises: as `check_folder`; DataError if it is there."""
    check_folder(file.parent)
    if file.exists():
        raise DataError(f"{file}: is there already; give another place")


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Around the writing of `path`: what the system or safetensors says against it becomes one line.

    Raises: DataError; BrokenPipeError, as it comes, since a reader that goes is no fault.
    """
    from safetensors import SafetensorError

    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        why = REASONS.get(error.errno or 0, error.strerror or str(error))
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        why = REASONS.get(int(number[1]) if number else 0, str(error))
    else:
        return
    raise DataError(f"{path}: cannot be written: {why}")


def lock_byte(file: IO, place: int, wait: bool) -> bool:
    """Lock a byte of an open file for this process alone; the system unlocks it when the process ends, however it ends.

    Args:
        place: which byte, of 60 bits; the file need not be so long.
        wait: until whoever has it lets go of it.
    Returns: whether it is locked. On a system without such locks it always is.
    Raises: OSError if the file system has no locks.
    """
    if fcntl is None:
        return True
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB), 1, place)
    except (BlockingIOError, PermissionError):
        return False
    return True


def unlock_byte(file: IO, place: int) -> None:
    if fcntl is not None:
        fcntl.lockf(file, fcntl.LOCK_UN, 1, place)


def byte_holder(file: IO, place: int) -> int | None:
    """The number of the other process that has a byte locked, without touching the lock; 0 where the system does not tell who has
    it, such as a process of another machine. None = nobody, or no such locks."""
    if fcntl is None:
        return None
    mac = sys.platform == "darwin"
    form = "qqihh" if mac else "hhqqi4x"  # struct flock: l_type and l_whence stand last there, and first here
    fields = (place, 1, 0, fcntl.F_WRLCK, 0) if mac else (fcntl.F_WRLCK, 0, place, 1, 0)
    try:
        found = struct.unpack(form, fcntl.fcntl(file, fcntl.F_GETLK, struct.pack(form, *fields)))
    except OSError:
        return None
    kind, pid = (found[3], found[2]) if mac else (found[0], found[4])
    return None if kind == fcntl.F_UNLCK else max(pid, 0)


def read_text(path: Path) -> str:
    """A text file as editors write it: UTF-8 with or without a byte order mark, or UTF-16 with one.

    Raises: DataError if it is none of these, or cannot be read.
    """
    try:
        content = path.read_bytes()
        wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        return content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: no readable UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); change its rights, or remove it") from None


def plain(text: str) -> str:
    """What can be written as UTF-8: half a surrogate pair, as of a file whose name is none, is spelled out."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def check_text(text: str, what: str) -> None:
    """Args: what: what is said of the text, before the fault. Raises: DataError if it cannot be written as UTF-8."""
    if plain(text) != text:
        raise DataError(
            f"{what} '{plain(text)[:80]}' holds half of a surrogate pair, which is no character; write the whole character, or none"
        )


def read_lines(path: Path) -> list[str]:
    """The lines of `read_text`, which end at newlines only: a caption may hold other separators, such as U+2028."""
    return [line.removesuffix("\r") for line in read_text(path).split("\n")]
