"""What was made: an mp4 each, its settings as .json and a picture as .webp beside it, newest first; and a bin.

A name is only ever looked up among those that the folder holds; none becomes a path.
"""

import json
import os
import secrets
import shutil
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from video_gen.errors import DataError
from video_gen.files import explained, write_text
from video_gen.naming import free_name
from video_gen.web.studio.answers import Missing

SUFFIXES = (".webp", ".json", ".mp4")
"""Of the files of a result; the video goes last where they are moved, and makes it one."""
PLACE = "place"
"""In a folder whose video is on its way: the name that it gets."""


SETTLED = 100_000_000
"""Nanoseconds after a change until another one has another time for sure, whatever clock the disk keeps."""
UNSEEN = -2


class Entry(NamedTuple):
    made: int
    """Nanoseconds since 1970."""
    name: str
    bytes: int


class Gallery:
    """Args: folder: of the results, made when the first one comes; binned: of those that were deleted."""

    def __init__(self, folder: Path, binned: Path):
        self.folder, self.binned = folder, binned
        self._lock = threading.Lock()
        self._entries: list[Entry] = []
        self._by_name: dict[str, Entry] = {}
        self._seen = UNSEEN
        self._facts: dict[str, tuple[int, dict[str, Any]]] = {}

    def entries(self) -> list[Entry]:
        """All, newest first. The folder is read only if something in it came or went."""
        with self._lock:
            try:
                seen = self.folder.stat().st_mtime_ns
            except OSError:
                seen = -1
            if seen != self._seen:
                self._entries = sorted(_scan(self.folder), reverse=True) if seen >= 0 else []
                self._by_name = {entry.name: entry for entry in self._entries}
                self._seen = seen if time.time_ns() - seen > SETTLED else UNSEEN
            return self._entries

    def find(self, name: str) -> Entry:
        """Raises: Missing."""
        self.entries()
        if (entry := self._by_name.get(name)) is None:
            raise Missing(f"no result '{name[:80]}'; it may have been deleted")
        return entry

    def file(self, name: str, suffix: str = ".mp4") -> Path:
        """A file of a result. Raises: Missing."""
        return self.folder / f"{self.find(name).name}{suffix}"

    def facts(self, entry: Entry) -> dict[str, Any]:
        """What its .json says; read once."""
        made, facts = self._facts.get(entry.name, (0, {}))
        if made != entry.made:
            facts = {}
            with suppress(OSError, ValueError, RecursionError):
                found = json.loads((self.folder / f"{entry.name}.json").read_text(encoding="utf-8"))
                facts = found if isinstance(found, dict) else {}
            self._facts[entry.name] = (entry.made, facts)
        return facts

    def matching(self, words: str) -> list[Entry]:
        """Those whose prompt, model or name hold all of the words, newest first."""
        wanted = words.casefold().split()
        entries = self.entries()
        return [entry for entry in entries if all(word in self._text(entry) for word in wanted)] if wanted else entries

    def _text(self, entry: Entry) -> str:
        facts = self.facts(entry)
        of_model = facts.get("studio", {}) if isinstance(facts.get("studio"), dict) else {}
        return f"{entry.name} {facts.get('prompt', '')} {of_model.get('model', '')}".casefold()

    # -------------------- coming and going

    def take(self, folder: Path) -> str:
        """Move the finished video of a folder here. If that was interrupted, calling it again goes on.

        Returns: the name it has here. Raises: DataError if it cannot be written.
        """
        place = folder / PLACE
        with explained(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            if place.is_file():
                name = place.read_text(encoding="utf-8")
            else:
                name = free_name(self.folder, next(folder.glob("*.mp4")).stem)
                write_text(place, name)
            for suffix in SUFFIXES:
                for found in folder.glob(f"*{suffix}"):
                    os.replace(found, self.folder / f"{name}{suffix}")
        return name

    def delete(self, names: Sequence[str]) -> str:
        """Put results into the bin. Returns: what brings them back. Raises: Missing, before anything is moved; DataError."""
        found = [self.find(name).name for name in names]
        if not found:
            raise Missing("no results are named")
        ticket = f"{time.time_ns():x}-{secrets.token_hex(4)}"
        place = self.binned / ticket
        with explained(place):
            place.mkdir(parents=True)
            for name in found:
                _move(self.folder, name, place, name)
        return ticket

    def bins(self) -> list[dict[str, Any]]:
        """What is in the bin, newest first: {"ticket", "names", "bytes"}."""
        places = sorted(self.binned.iterdir(), reverse=True) if self.binned.is_dir() else []
        return [
            {"ticket": place.name, "names": sorted(e.name for e in entries), "bytes": sum(e.bytes for e in entries)}
            for place in places
            if (entries := list(_scan(place)))
        ]

    def restore(self, ticket: str) -> list[str]:
        """Bring back what was deleted together, under free names. Raises: Missing, DataError."""
        place = self._place(ticket)
        back = []
        with explained(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            for entry in _scan(place):
                name = free_name(self.folder, entry.name)
                _move(place, entry.name, self.folder, name)
                back.append(name)
            shutil.rmtree(place, ignore_errors=True)
        return back

    def empty(self) -> int:
        """Delete what is in the bin for good. Returns: bytes."""
        found = self.bins()
        for one in found:
            shutil.rmtree(self.binned / one["ticket"], ignore_errors=True)
        return sum(one["bytes"] for one in found)

    def _place(self, ticket: str) -> Path:
        places = list(self.binned.iterdir()) if self.binned.is_dir() else []
        if (place := next((place for place in places if place.name == ticket), None)) is None:
            raise Missing("that is not in the bin any more")
        return place


def _scan(folder: Path):
    with suppress(FileNotFoundError), os.scandir(folder) as found:
        for item in found:
            if item.name.endswith(".mp4") and not item.name.startswith(".") and item.is_file(follow_symlinks=False):
                with suppress(OSError):
                    told = item.stat(follow_symlinks=False)
                    if told.st_size:  # a name that is claimed has no content yet
                        yield Entry(told.st_mtime_ns, item.name.removesuffix(".mp4"), told.st_size)


def _move(here: Path, name: str, there: Path, as_name: str) -> None:
    """A result's files; the video first, since without it there is none. Raises: DataError if it has gone."""
    for suffix in reversed(SUFFIXES):
        try:
            os.replace(here / f"{name}{suffix}", there / f"{as_name}{suffix}")
        except FileNotFoundError:
            if suffix == ".mp4":
                raise DataError(f"{name}: has gone meanwhile") from None
