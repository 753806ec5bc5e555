"""What lies in a folder: the videos and images, their captions, what is not read and why; no torch.

Nothing is passed over in silence: what is not read stands in `Folder.notes`, what does not fit in `Folder.faults`.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from io import BytesIO
from pathlib import Path

from video_gen.data import action_files as actions
from video_gen.data.config import ClipConfig
from video_gen.data.manifest import MANIFEST, place_of, read_manifest
from video_gen.data.metadata import METADATA, Changes, read_captions
from video_gen.data.packed import Packed, address_of, read_whole, within
from video_gen.data.video_info import IMAGE_SUFFIXES, VIDEO_SUFFIXES, VideoInfo
from video_gen.errors import ConfigError, DataError
from video_gen.files import read_lines, read_text, write_text
from video_gen.plain_json import parse
from video_gen.vocabulary import Vocabulary

QUARANTINE = "quarantine.jsonl"
BY_HAND = "by hand"
"""How the reason of a file begins that somebody put into quarantine: a check leaves it there."""
BESIDE = frozenset(
    {".txt", ".json", ".jsonl", ".csv", ".md", ".html", ".yaml", ".yml", ".log", ".py", ".lock", ".npz", ".npy"}
)
"""Suffixes that lie beside clips for other reasons, and are no clips that somebody misses."""


@dataclass(frozen=True)
class Source:
    """A video or image file and its caption."""

    path: Path | Packed
    """Where it is read from."""
    name: str
    """Path relative to the folder, with forward slashes."""
    caption: str | None
    changes: Changes = ()
    """Captions that take its place later."""
    led: bool = False
    """Whether training always shows the last frame."""
    actions: Path | Packed | None = None
    """The file of what is done in it, which a video must have; of a still picture nothing is done."""
    info: VideoInfo | None = None
    """What is in it, if a manifest says so; None = nobody looked yet."""
    digest: str | None = None
    """Of its content, likewise."""
    size: int | None = None
    """Bytes, likewise."""
    origin: str | None = None
    """Of the content of the file that it was cut from: all that comes of one is on the same side of the split."""
    pile: str = ""
    """Path of that file in its pile; empty = it was cut from none."""

    @property
    def known_as(self) -> str:
        """The name by which `held_out` knows it: in the pile, if it comes from one."""
        return self.pile or self.name


@dataclass(frozen=True)
class Folder:
    """What was found."""

    sources: list[Source]
    """Videos and images, sorted by name, those in quarantine included."""
    notes: list[str]
    """What is there and not read, a line each."""
    faults: list[str]
    """What does not fit in metadata, captions and files of actions, a line each."""
    vocabulary: Vocabulary | None = None
    """What can be done in its videos; None = nothing."""


def look(folder: str | Path) -> Folder:
    """Everything in a folder and below it; folders that are links are entered, each folder once.

    Captions come from metadata files (`metadata.py`), or from a .txt of the file's name. Of prepared footage, and of
    what lies at an address such as s3://bucket/set, the manifest tells all, and no file is looked at.
    Raises: DataError if there is no such folder or no video or image in it.
    """
    if is_prepared(folder):
        return _from_manifest(folder)
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(
            f"{folder}: no such folder; give the one that holds your videos and images (`video-gen worlds` makes one to try)"
        )
    notes: list[str] = []
    files = list(_files(folder, notes))
    named = {path: path.relative_to(folder).as_posix() for path in files}
    media = [path for path in files if path.suffix.lower() in VIDEO_SUFFIXES | IMAGE_SUFFIXES]
    others = [path for path in files if path.suffix.lower() not in VIDEO_SUFFIXES | IMAGE_SUFFIXES | BESIDE]
    notes += _unread(others)
    if not media:
        why = f"; {'; '.join(notes)}" if notes else ""
        raise DataError(f"{folder}: holds no videos or images (such as .mp4, .mkv, .gif, .png, .jpg){why}")
    metadata = [path for path in files if path.name in METADATA]
    found = read_captions(folder, metadata, [named[path] for path in media], [named[path] for path in others])
    sources, faults = [], found.faults
    vocabulary = _vocabulary(folder, faults)
    faults += _stray_actions(folder, files, media, vocabulary)
    _nested_actions(folder, files, vocabulary, faults, notes)
    for path in media:
        caption = found.texts.get(named[path])
        try:
            caption = caption if caption is not None else _beside(path)
            changes, led = found.changes.get(named[path], ()), named[path] in found.led
            done = None if vocabulary is None else actions.beside(path)
            sources.append(Source(path, named[path], caption, changes, led, done))
        except DataError as error:
            faults.append(str(error))
    return Folder(sources, notes, faults, vocabulary)


def scan(folder: str | Path) -> list[Source]:
    """The sources of `look`. Raises: DataError at the first fault, with the number of others."""
    found = look(folder)
    refuse_faults(found)
    return found.sources


def refuse_faults(found: Folder) -> None:
    """Raises: DataError if something does not fit."""
    if found.faults:
        more = len(found.faults) - 1
        rest = f" ({more} more such; `video-gen data check` lists all)" if more else ""
        raise DataError(f"{found.faults[0]}{rest}")


def is_prepared(folder: str | Path) -> bool:
    """Whether a manifest says what is in it; what is no folder of this machine must have one."""
    return address_of(folder) is not None or (Path(folder) / MANIFEST).is_file()


def is_there(folder: Path) -> bool:
    """Whether there is any video or image to read."""
    return is_prepared(folder) or bool(media_files(folder))


def manifest_bytes(folder: str | Path) -> bytes:
    """The manifest of prepared footage as it lies there. Raises: DataError if it cannot be read."""
    place = within(folder, MANIFEST)
    if address_of(folder):
        return read_whole(place)
    try:
        return Path(place).read_bytes()
    except OSError as error:
        raise DataError(f"{place}: cannot be read ({error.strerror}); change its rights, or prepare it again") from None


def _from_manifest(folder: str | Path) -> Folder:
    place = within(folder, MANIFEST)
    rows = read_manifest(BytesIO(manifest_bytes(folder)), place)
    kept = [row for row in rows if not row.refused]
    if not kept:
        raise DataError(
            f"{place}: none of its {len(rows)} pieces is kept; change the thresholds of `video-gen data prepare`"
        )
    vocabulary = None
    if any(row.actions for row in kept):
        vocabulary = actions.find_vocabulary(folder)
    sources = []
    for row in kept:
        path, done = place_of(row, folder), None
        if row.actions:
            done = (
                actions.beside(path)
                if isinstance(path, Path)
                else Packed(path.shard, row.actions_offset, row.actions_size, f"{row.file_name}{actions.SUFFIX}")
            )
        changes = tuple((float(time), str(text)) for time, text in json.loads(row.changes or "[]"))
        known = (row.info, row.digest, row.size, row.source_digest, row.source)
        sources.append(Source(path, row.file_name, row.caption or None, changes, row.led, done, *known))
    return Folder(sources, [], [], vocabulary)


def media_files(folder: Path) -> list[Path]:
    """Every video and image under `folder`, sorted; empty if there is no such folder."""
    files = _files(folder, []) if folder.is_dir() else ()
    return [path for path in files if path.suffix.lower() in VIDEO_SUFFIXES | IMAGE_SUFFIXES]


def quarantined(folder: str | Path) -> dict[str, str]:
    """Names and reasons from the folder's quarantine.jsonl. Raises: DataError if it is damaged."""
    path, found = Path(folder) / QUARANTINE, {}
    if address_of(folder) is not None:
        return found
    for number, line in enumerate(read_lines(path) if path.exists() else [], 1):
        if not line.strip():
            continue
        try:
            row = parse(line)
            found[row["file_name"]] = str(row.get("reason", ""))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            why = f"not JSON ({error})" if isinstance(error, ValueError) else "has no file_name"
            raise DataError(f"{path}, line {number}: {why}; correct it, or run `video-gen data check` again") from None
    return found


def write_quarantine(folder: Path, rows: Mapping[str, str]) -> None:
    """Names and reasons, whole or not at all; without any there is no file. Raises: DataError if it cannot be written."""
    path = folder / QUARANTINE
    if rows:
        write_text(path, "".join(json.dumps({"file_name": n, "reason": r}) + "\n" for n, r in rows.items()))
        return
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(f"{path}: cannot be removed ({error.strerror}); change its rights") from None


def content_hash(path: Path | Packed) -> str:
    """16 hexadecimal digits of the file's bytes. Raises: DataError if they cannot be read."""
    if isinstance(path, Packed):
        return hashlib.blake2b(path.read(), digest_size=8).hexdigest()
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=8)).hexdigest()
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}); `video-gen data check` quarantines such files"
        ) from None


def split(hashes: list[str], fraction: float, seed: int) -> set[str]:
    """The content hashes that are held out: those whose seeded hash lies below `fraction`, and at least one of two.

    A file's side depends on its own content, so that adding files never moves one across; only a folder so small that
    nothing would be held out gives its lowest one.
    """
    rank = {h: int(hashlib.blake2b(f"{seed}:{h}".encode(), digest_size=8).hexdigest(), 16) / 2**64 for h in set(hashes)}
    held = {h for h, r in rank.items() if r < fraction}
    if fraction > 0 and len(rank) > 1:
        held = held or {min(rank, key=rank.__getitem__)}
        if len(held) == len(rank):
            held.discard(max(rank, key=rank.__getitem__))
    return held


def held_out(files: Iterable[tuple[str, str]], config: ClipConfig) -> set[str]:
    """The content hashes that are held out: those of the files that `config.held_out` names, or a share of all.

    A copy of a held-out file under another name is held out, too.

    Args: files: (known_as, content hash) of each.
    Raises: DataError for a pattern that names no file, and if nothing is left to train on.
    """
    known = list(files)
    if not config.held_out:
        return split([digest for _, digest in known], config.validation_fraction, config.split_seed)
    held: set[str] = set()
    for pattern in config.held_out:
        found = {digest for name, digest in known if fnmatchcase(name, pattern)}
        if not found:
            raise DataError(
                f"data.held_out: '{pattern}' names no file of {config.folder}; paths there are such as '{known[0][0]}'"
            )
        held |= found
    if held >= {digest for _, digest in known}:
        raise DataError(f"data.held_out: {', '.join(config.held_out)}: every file of {config.folder} is held out")
    return held


def _files(folder: Path, notes: list[str]) -> Iterator[Path]:
    """Files in the order of their names; what cannot be entered or reached becomes a note. Names with a dot are left alone."""
    entered: set[str] = set()

    def enter(place: Path) -> Iterator[Path]:
        real = os.path.realpath(place)
        if real in entered:
            return
        entered.add(real)
        try:
            entries = sorted(os.scandir(place), key=lambda entry: entry.name)
        except OSError as error:
            notes.append(f"{place}: cannot be entered ({error.strerror}); change its rights, or move it away")
            return
        for entry in entries:
            if entry.name.startswith("."):
                continue
            path = place / entry.name
            try:
                if entry.is_dir():
                    yield from enter(path)
                elif entry.is_file():
                    yield path
                elif entry.is_symlink():
                    notes.append(f"{path}: is a link to {os.readlink(path)}, which is not there; restore or remove it")
            except OSError as error:
                notes.append(f"{path}: cannot be reached ({error.strerror})")

    files = list(enter(folder))
    yield from sorted(files, key=lambda path: path.relative_to(folder).parts)


def _unread(others: list[Path]) -> list[str]:
    """A line that counts the files of kinds that are not read."""
    kinds = Counter(path.suffix.lower() or "no suffix" for path in others).most_common()
    if not kinds:
        return []
    counted = ", ".join(f"{kind} ({count})" for kind, count in kinds)
    return [f"{len(others)} {'file' if len(others) == 1 else 'files'} of kinds that are not read: {counted}"]


def _vocabulary(folder: Path, faults: list[str]) -> Vocabulary | None:
    try:
        return actions.find_vocabulary(folder)
    except (ConfigError, DataError) as error:
        faults.append(str(error))
        return None


def _stray_actions(folder: Path, files: list[Path], media: list[Path], vocabulary: Vocabulary | None) -> list[str]:
    """A line for files of actions of no video, or of which nothing says what they mean."""
    found = [path for path in files if path.name.endswith(actions.SUFFIX)]
    if found and vocabulary is None and not (folder / actions.FILE).is_file():
        return [
            f"{found[0]}: holds actions, as do {len(found) - 1} more files, and the folder has no {actions.FILE}; write one, with "
            "keys, axes and fps (docs/worlds.md)"
        ]
    known = {actions.beside(path) for path in media}
    return [f"{path}: holds the actions of no video; add that, or delete it" for path in found if path not in known]


def _nested_actions(
    folder: Path, files: list[Path], vocabulary: Vocabulary | None, faults: list[str], notes: list[str]
) -> None:
    """That of the folder itself holds for all below: another one is a fault where it says something else."""
    for path in files:
        if path.name != actions.FILE or path.parent == folder:
            continue
        if vocabulary is None:
            notes.append(f"{path}: is not read, since {actions.FILE} stands in the folder itself; move it to {folder}")
        elif _vocabulary(path.parent, faults) not in (vocabulary, None):
            faults.append(
                f"{path}: says other keys, axes or rate than {folder / actions.FILE}, which holds for all below; give "
                f"{path.parent} as a data set of its own, or make both the same"
            )


def _beside(path: Path) -> str | None:
    text = path.with_suffix(".txt")
    return (" ".join(read_text(text).split()) or None) if text.is_file() else None
