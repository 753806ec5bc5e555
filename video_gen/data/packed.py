"""Bytes that lie in the middle of a larger file, a shard, on a disk or at an address: what stands in for a path."""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from video_gen.errors import ConfigError, DataError
from video_gen.files import length_of

ADDRESS = re.compile(r"^([a-z][a-z0-9+.-]+):/{1,2}(?=[^/])")
"""How the address of a place that is no folder of this machine begins: s3://bucket, or s3:/bucket, as `Path` spells it."""


@dataclass(frozen=True)
class Packed:
    """A file in a shard."""

    shard: str
    """Path or address."""
    offset: int
    size: int
    name: str

    def __str__(self) -> str:
        return f"{self.shard}: {self.name}"

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.name).suffix

    def read(self) -> bytes:
        """Raises: DataError if the shard cannot be read, or is cut short."""
        return read_part(self.shard, self.offset, self.size)


@dataclass(frozen=True)
class Loaded:
    """A file whose bytes are in memory; it goes where a path goes in reading videos."""

    name: str
    content: bytes

    def __str__(self) -> str:
        return self.name

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.name).suffix


File = Path | Packed | Loaded
"""What a video or image can be read from."""


def content_of(file: Path | Loaded) -> Any:
    """What PyAV and Pillow open: a path, or a stream of what is in memory."""
    return io.BytesIO(file.content) if isinstance(file, Loaded) else str(file)


def address_of(folder: Path | str) -> str | None:
    """The address that a folder is, such as s3://bucket/set; None if it is one of this machine."""
    found = ADDRESS.match(str(folder))
    return f"{found[1]}://{str(folder)[found.end() :]}" if found else None


def within(folder: Path | str, name: str) -> str:
    """Path or address of a file in a folder."""
    address = address_of(folder)
    return f"{address.rstrip('/')}/{name}" if address else str(Path(folder) / name)


def read_part(place: str, offset: int, size: int) -> bytes:
    """`size` bytes of a file, from `offset` on. Raises: DataError if they are not there; ConfigError if a library is missing."""
    try:
        if address_of(place):
            system, path = file_system(place)
            content = system.cat_file(path, start=offset, end=offset + size)
        else:
            with open(place, "rb") as file:
                file.seek(offset)
                content = file.read(size)
    except (OSError, ValueError) as error:
        raise DataError(f"{place}: cannot be read ({' '.join(str(error).split())[:160]}); copy it again") from None
    if len(content) < size:
        raise DataError(cut_short(place, offset + len(content), offset + size))
    return content


def cut_short(place: str, there: int, wanted: int) -> str:
    return f"{place}: cut short: {there:,} of at least {wanted:,} bytes; copy it again, or prepare it again"


def lengths(places: Sequence[str]) -> list[int | None]:
    """Bytes of files, all on this machine or all at one kind of address; None where it is not known, -1 of one that is not there.

    Raises: DataError, ConfigError, as `read_part`.
    """
    if not places or address_of(places[0]) is None:
        return [length_of(Path(place)) for place in places]
    system, _ = file_system(places[0])
    found: list[int | None] = []
    for place in places:
        try:
            found.append(system.size(file_system(place)[1]))
        except FileNotFoundError:
            found.append(-1)
        except (OSError, ValueError) as error:
            raise DataError(f"{place}: cannot be read ({' '.join(str(error).split())[:160]})") from None
    return found


def read_whole(place: str) -> bytes:
    """All bytes of a file at an address. Raises: DataError, ConfigError, as `read_part`."""
    system, path = file_system(place)
    try:
        return system.cat_file(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{place}: cannot be read ({' '.join(str(error).split())[:160]})") from None


def file_system(address: str) -> tuple[Any, str]:
    """fsspec's file system for an address, and the path there. Raises: ConfigError if a library is missing."""
    try:
        import fsspec

        return fsspec.core.url_to_fs(address)
    except ImportError as error:
        missing = error.name or str(error)
        raise ConfigError(
            f"{address}: needs {missing}, which is not installed; pip install 'video-gen[footage]' {missing}"
        ) from None
    except ValueError as error:
        raise ConfigError(
            f"{address}: no such kind of address ({error}); give a folder, or e.g. s3://bucket/set"
        ) from None
