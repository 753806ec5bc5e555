"""Tensors on disk by key: each made once, by any number of processes that share the work.

A store is a folder with shards/*.safetensors, whose tensors are named by their keys, and the empty file claims. Work comes in
units, a shard each. A process claims a unit by locking a byte of claims, which the kernel unlocks when the process ends,
however it ends; makes what is not there of it; and moves the shard into its place whole. So nothing is made twice, and a
process that is killed loses no more than the shard that it was at.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from video_gen.errors import DataError
from video_gen.files import lock_byte, unlock_byte, write_tensors

Make = Callable[[list[str]], Iterable[tuple[str, Tensor]]]
"""Keys to (key, tensor), one after the other, in any order."""


class Store:
    """What is in a store, and reading it: tensors are read when asked for, and no others."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.shard_of: dict[str, str] = {}
        """The shard of each key; see `refresh`."""
        self._seen: set[str] = set()
        self._open: dict[str, Any] = {}

    def refresh(self) -> None:
        """Read the names in shards that are new. Raises: DataError if one is damaged."""
        for shard in sorted(self.shards() - self._seen):
            with self._opened(shard) as opened:
                self.shard_of |= dict.fromkeys(opened.keys(), shard)
            self._seen.add(shard)

    def shards(self) -> set[str]:
        """The names of the shards that are there."""
        return {path.name for path in (self.folder / "shards").glob("[!.]*.safetensors")}

    def read(self, key: str, shard: str | None = None) -> Tensor:
        """A tensor. Raises: DataError if its shard is missing or damaged; KeyError if the key is unknown."""
        shard = shard or self.shard_of[key]
        if shard not in self._open:
            self._open[shard] = self._opened(shard)  # maps the file, and holds no handle
        return self._open[shard].get_tensor(key)

    def _opened(self, shard: str) -> Any:
        path = self.folder / "shards" / shard
        try:
            return safe_open(path, "pt")
        except PermissionError:
            raise DataError(
                f"{path}: permission denied; change its rights, or encode into a folder of your own"
            ) from None
        except (OSError, SafetensorError) as error:
            raise DataError(f"{path}: unreadable ({error}); delete it, and encode again") from None


def fill(
    folder: str | Path, units: Sequence[Sequence[str]], make: Make, progress: Callable[[int, int], None] | None = None
) -> Store:
    """Make every tensor that the store does not have, sharing the units with other processes that do the same.

    Returns when all are there: units that others have claimed are waited for, and made here if their process dies.

    Args:
        units: keys, cut into shards; in all processes alike.
        progress: called with (done, total) tensors.
    Raises: DataError if a shard is damaged, or the file system has no locks; and what `make` raises.
    """
    store = Store(folder)
    (store.folder / "shards").mkdir(parents=True, exist_ok=True)
    store.refresh()
    waiting = [unit for unit in units if not all(key in store.shard_of for key in unit)]
    total, left = sum(map(len, units)), sum(map(len, waiting))
    with (store.folder / "claims").open("ab") as claims:
        for wait in (False, True):
            for unit in list(waiting):
                with _claimed(claims, unit, wait) as mine:
                    if not mine:
                        continue
                    store.refresh()
                    missing = [key for key in unit if key not in store.shard_of]
                    made: dict[str, Tensor] = {}
                    try:
                        for key, tensor in make(missing) if missing else ():
                            made[key] = tensor.detach().cpu().contiguous()
                            if progress:
                                progress(total - left + len(unit) - len(missing) + len(made), total)
                    finally:  # also after an error or Ctrl-C
                        if made:
                            write_tensors(store.folder / "shards" / f"{unit_name(made)}.safetensors", made)
                waiting.remove(unit)
                left -= len(unit)
    store.refresh()
    if progress:
        progress(total, total)
    return store


def unit_name(keys: Iterable[str]) -> str:
    """16 hexadecimal digits that name a set of keys in their order."""
    return hashlib.blake2b("\n".join(keys).encode(), digest_size=8).hexdigest()


@contextmanager
def _claimed(claims: Any, unit: Sequence[str], wait: bool) -> Iterator[bool]:
    """Whether the unit is this process's own, inside; with `wait`, after waiting for whoever has it."""
    place = int(unit_name(unit)[:15], 16)  # of 60 bits
    try:
        mine = lock_byte(claims, place, wait)
    except OSError as error:
        raise DataError(
            f"{claims.name}: cannot be locked ({error.strerror}); use a folder on a disk that can"
        ) from None
    try:
        yield mine
    finally:
        if mine:
            unlock_byte(claims, place)
