"""The data sets under the roots: which there are, what lies in each, and what is known of its files, which is kept.

A folder is read in a process apart. What its files are is found out little by little while somebody looks at it, and their
pictures when they are asked for; of prepared footage the manifest tells all.
"""

import asyncio
import hashlib
import json
import os
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from video_gen.data.action_files import FILE, SUFFIX, beside
from video_gen.data.folder import IMAGE_SUFFIXES, MANIFEST, QUARANTINE, VIDEO_SUFFIXES, quarantined
from video_gen.data.metadata import METADATA
from video_gen.data.packed import Packed
from video_gen.errors import DataError, VideoGenError
from video_gen.files import write_text, written
from video_gen.web.studio.answers import Missing
from video_gen.web.studio.hub import Hub
from video_gen.web.studio.process import Apart, Elsewhere
from video_gen.web.studio.roots import Roots, inside

work = Elsewhere("video_gen.web.studio.data_work")
TOPIC = "data"
MARKS = (*METADATA, MANIFEST, QUARANTINE, FILE)
MOST_SETS, MOST_FOLDERS, DEEPEST = 300, 3000, 4
OPEN = 4
"""Data sets that are kept in memory."""
FRESH, OLD = 2.0, 60.0
"""Seconds for which nobody looks whether a folder has changed, and after which it is read again in any case."""
BATCH, KEEP_EVERY = 16, 5.0
"""Files that are looked at in one go; seconds after which what was found is written down."""
PLAYED = {".mp4": "video/mp4", ".m4v": "video/mp4", ".webm": "video/webm", ".mov": "video/mp4"}
"""What browsers may play as it is."""


@dataclass
class DataSet:
    """A folder as it was when it was read."""

    ref: str
    """As a page names it: root/name."""
    folder: Path
    kept: Path
    """Where what is known of it is kept."""
    items: dict[str, dict[str, Any]]
    told: dict[str, Any]
    """The rest of what `index_of` tells."""
    stamp: tuple
    facts: dict[str, list[Any]] = field(default_factory=dict)
    """Name -> [version, what it is]"""
    read: float = field(default_factory=time.monotonic)
    looked: float = field(default_factory=time.monotonic)

    def item(self, name: str) -> dict[str, Any]:
        """Raises: Missing."""
        item = self.items.get(name)
        if item is None:
            raise Missing(f"'{name[:80]}' is not in {self.ref}")
        return item

    def facts_of(self, item: dict[str, Any]) -> dict[str, Any] | None:
        """What a file is; None = nobody has looked yet. {"error"} = it cannot be read."""
        if "facts" in item:
            return item["facts"]
        version, facts = self.facts.get(item["name"], (None, None))
        return facts if version == item["v"] else None

    def file(self, item: dict[str, Any]) -> Path | Packed:
        """Where a clip is read from. Raises: Missing if it has gone, was not kept, or lies elsewhere."""
        if item.get("refused"):
            raise Missing(f"{item['name'][:120]}: was not kept, there is no file of it")
        if packed := item.get("packed"):
            return Packed(str(inside(self.folder, packed[0])), packed[1], packed[2], item["name"])
        return inside(self.folder, item["name"])

    def actions(self, item: dict[str, Any]) -> Path | Packed:
        """Where its actions are. Raises: Missing."""
        if not item["actions"]:
            raise Missing(f"{item['name'][:120]}: has no actions beside it")
        if packed := item.get("packed"):
            shard = str(inside(self.folder, packed[0]))
            return Packed(shard, packed[3], packed[4], f"{item['name']}{SUFFIX}")
        return inside(self.folder, beside(Path(item["name"])).as_posix())


class DataSets:
    """Args: roots: that may be read and mended; kept: folder for what is found out; hub: is told of progress."""

    def __init__(self, roots: Roots, kept: Path, hub: Hub):
        self.roots, self.kept, self.hub = roots, kept, hub
        self.looking, self.pictures = Apart(seconds=180), Apart()
        self._open: OrderedDict[str, DataSet] = OrderedDict()
        self._turn = asyncio.Lock()
        self._probing: asyncio.Task | None = None
        self._probed: str | None = None
        self._failed: dict[Path, str] = {}
        self._making: dict[Path, asyncio.Lock] = {}
        self.writing = asyncio.Lock()

    def close(self) -> None:
        if self._probing is not None:
            self._probing.cancel()
        self.looking.close()
        self.pictures.close()

    # -------------------- finding

    def names(self) -> list[dict[str, Any]]:
        """Folders with clips, or with what goes with clips, in the order of their names."""
        budget = [MOST_FOLDERS]
        found = (name for root, folder in self.roots.folders.items() for name in self._below(folder, root, 0, budget))
        return [{"ref": name, "prepared": prepared} for name, prepared in _first(found, MOST_SETS)]

    def _below(self, folder: Path, name: str, depth: int, budget: list[int]) -> Iterator[tuple[str, bool]]:
        budget[0] -= 1
        if budget[0] < 0:
            return
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError:
            return
        shown = [entry for entry in entries if not entry.name.startswith(".")]
        if any(_is_clip(entry) or entry.name in MARKS for entry in shown):
            yield name, any(entry.name == MANIFEST for entry in shown)
        elif depth < DEEPEST:
            for entry in shown:
                if entry.is_dir(follow_symlinks=False):
                    yield from self._below(Path(entry.path), f"{name}/{entry.name}", depth + 1, budget)

    def folder(self, ref: str) -> Path:
        """The folder that a page names. Raises: Missing."""
        root, _, name = ref.partition("/")
        folder = self.roots.find(root, name)
        if not folder.is_dir():
            raise Missing(f"'{ref[:80]}' is no folder")
        return folder

    async def opened(self, ref: str) -> DataSet:
        """A data set as it is now. Raises: Missing; DataError if it cannot be read."""
        folder = await asyncio.to_thread(self.folder, ref)
        async with self._turn:
            known = self._open.get(ref)
            if known is not None and await asyncio.to_thread(_is_current, known):
                self._open.move_to_end(ref)
                return known
            root = self.roots.folder(ref.partition("/")[0])
            stamp_before = time.monotonic()
            told = await self.looking.run(work.index_of, folder, root)
            items = {item["name"]: item for item in told.pop("items")}
            kept = self.kept / hashlib.blake2b(os.fsencode(folder), digest_size=8).hexdigest()
            facts = known.facts if known is not None else await asyncio.to_thread(_read_facts, kept)
            stamp = await asyncio.to_thread(_stamp, folder, told["watched"])
            found = DataSet(ref, folder, kept, items, told, stamp, facts, stamp_before, stamp_before)
            self._open[ref] = found
            self._open.move_to_end(ref)
            while len(self._open) > OPEN:
                self._open.popitem(last=False)
            return found

    def forget(self, ref: str) -> None:
        """That it was read: something in it was changed."""
        self._open.pop(ref, None)

    # -------------------- finding out

    def probe(self, found: DataSet) -> int:
        """Find out what the files are of which nobody knows, in the background. Returns: how many."""
        missing = [item for item in found.items.values() if found.facts_of(item) is None and not item.get("refused")]
        busy = self._probing is not None and not self._probing.done()
        if missing and not (busy and self._probed == found.ref):
            if self._probing is not None:
                self._probing.cancel()
            self._probed = found.ref
            self._probing = asyncio.create_task(self._probe(found, missing))
        return len(missing)

    async def _probe(self, found: DataSet, missing: list[dict[str, Any]]) -> None:
        kept = time.monotonic()
        for at in range(0, len(missing), BATCH):
            files, items = [], []
            for item in missing[at : at + BATCH]:
                with suppress(Missing):
                    if isinstance(path := found.file(item), Path):
                        files.append(path)
                        items.append(item)
            for item, facts in zip(items, await self._probe_all(files)):
                found.facts[item["name"]] = [item["v"], facts]
            self.hub.tell(TOPIC, {"set": found.ref, "known": at + len(items), "of": len(missing)})
            if time.monotonic() - kept > KEEP_EVERY:
                kept = time.monotonic()
                await asyncio.to_thread(_write_facts, found)
        await asyncio.to_thread(_write_facts, found)
        self.hub.tell(TOPIC, {"set": found.ref, "known": len(missing), "of": len(missing)})

    async def _probe_all(self, files: list[Path]) -> list[dict[str, Any]]:
        """In one go, or one by one if one of them brings the process down."""
        try:
            return await self.looking.run(work.probe_all, files)
        except DataError as error:
            if len(files) == 1:
                return [{"error": str(error)}]
            return [(await self._probe_all([file]))[0] for file in files]

    async def facts(self, found: DataSet, item: dict[str, Any]) -> dict[str, Any]:
        """What one file is, now. Raises: DataError if it cannot be read."""
        facts = found.facts_of(item)
        if facts is None:
            file = found.file(item)
            facts = (await self._probe_all([file]))[0] if isinstance(file, Path) else {"error": "nobody knows"}
            found.facts[item["name"]] = [item["v"], facts]
        if "error" in facts:
            raise DataError(facts["error"])
        return facts

    # -------------------- pictures

    async def thumbnail(self, found: DataSet, item: dict[str, Any]) -> Path:
        """A strip of frames, kept. Raises: DataError if the file cannot be read; Missing."""
        if item.get("refused"):
            call = (work.refused_picture, found.folder, item["source"], item["frames"])
        else:
            known = found.facts_of(item)
            if known is not None and "error" in known:
                raise DataError(known["error"])
            call = (work.strip_of, found.file(item), known)
        return await self._kept(found, item, "thumbs", ".webp", call)

    async def large(self, found: DataSet, item: dict[str, Any]) -> Path:
        """An image as browsers show it. Raises: DataError, Missing."""
        return await self._kept(found, item, "pictures", ".webp", (work.picture_large, found.file(item)))

    async def preview(self, found: DataSet, item: dict[str, Any]) -> Path:
        """The start of a video as browsers play it. Raises: DataError, Missing."""
        return await self._kept(found, item, "previews", ".mp4", (work.write_preview, found.file(item)))

    async def played(self, found: DataSet, item: dict[str, Any]) -> tuple[Path, str]:
        """The file itself, and its kind, if browsers may play it. Raises: Missing if they do not."""
        file = found.file(item)
        kind = PLAYED.get(file.suffix.lower())
        if kind is None:
            raise Missing(f"{item['name'][:120]}: is of no kind that browsers play; ask for its preview")
        if isinstance(file, Path):
            return file, kind
        return await self._kept(found, item, "clips", file.suffix.lower(), (work.unpack, file)), kind

    async def _kept(self, found: DataSet, item: dict[str, Any], kind: str, suffix: str, call: tuple) -> Path:
        digest = hashlib.blake2b(
            f"{item['name']}\0{item['v']}".encode("utf-8", "surrogatepass"), digest_size=10
        ).hexdigest()
        path = found.kept / kind / digest[:2] / f"{digest}{suffix}"
        if path.is_file():
            return path
        if path in self._failed:
            raise DataError(self._failed[path])
        lock = self._making.setdefault(path, asyncio.Lock())
        try:
            async with lock:
                if not path.is_file():
                    function, *args = call
                    whole = function in (work.write_preview, work.unpack)  # these write it themselves
                    content = await self.pictures.run(function, *args, *([path] if whole else []))
                    if not whole:
                        await asyncio.to_thread(_write_bytes, path, content)
        except VideoGenError as error:
            if len(self._failed) < 10_000:
                self._failed[path] = str(error)
            raise
        finally:
            self._making.pop(path, None)
        return path


def quarantine_of(folder: Path) -> dict[str, str]:
    """Names and reasons; none if the file is damaged or leads elsewhere."""
    with suppress(VideoGenError):
        inside(folder, QUARANTINE)
        return quarantined(folder)
    return {}


def _first(found: Iterator, count: int) -> Iterator:
    for _, one in zip(range(count), found):
        yield one


def _is_clip(entry: os.DirEntry) -> bool:
    suffix = os.path.splitext(entry.name)[1].lower()
    return suffix in VIDEO_SUFFIXES or suffix in IMAGE_SUFFIXES


def _is_current(known: DataSet) -> bool:
    now = time.monotonic()
    if now - known.looked < FRESH:
        return True
    if now - known.read > OLD or _stamp(known.folder, known.told["watched"]) != known.stamp:
        return False
    known.looked = now
    return True


def _stamp(folder: Path, watched: list[str]) -> tuple:
    found = []
    for name in watched:
        with suppress(OSError):
            told = os.stat(folder / name)
            found.append((name, told.st_mtime_ns, told.st_size))
    return tuple(found)


def _read_facts(kept: Path) -> dict[str, list[Any]]:
    with suppress(OSError, ValueError, RecursionError):
        found = json.loads((kept / "facts.json").read_text(encoding="utf-8"))
        if isinstance(found, dict):
            return {name: row for name, row in found.items() if isinstance(row, list) and len(row) == 2}
    return {}


def _write_facts(found: DataSet) -> None:
    facts = {name: row for name, row in list(found.facts.items()) if name in found.items}
    write_text(found.kept / "facts.json", json.dumps(facts))


def _write_bytes(path: Path, content: bytes) -> None:
    with written(path) as temporary:
        temporary.write_bytes(content)
