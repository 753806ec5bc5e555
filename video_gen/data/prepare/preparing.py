"""From a pile of footage to a data set: every file is looked at, cut into pieces, judged, and what is good is written.

What is in the output folder:

    facts/            one for each file of the pile: what was seen in it
    clips/            the pieces that are kept, or shards/, tar files of them
    manifest.parquet  a row for each piece, kept or not, with the reason
    prepare.json      how they were written

The same command goes on after Ctrl-C, at a file's grain, and after thresholds were changed: what was seen is not looked at again.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

from video_gen.data import action_files as actions
from video_gen.data.actions import actions_of
from video_gen.data.flow import opencv
from video_gen.data.folder import Folder, Source, content_hash, is_prepared, look, refuse_faults
from video_gen.data.manifest import MANIFEST, Row, read_manifest, write_manifest
from video_gen.data.metadata import said_between
from video_gen.data.prepare.captions import Caption, captioned, write_captions
from video_gen.data.prepare.drafts import Drafts
from video_gen.data.prepare.facts import Facts, load, save
from video_gen.data.prepare.looking import look_at
from video_gen.data.prepare.pieces import Piece, against_others, key_of, pieces_of, told_apart
from video_gen.data.prepare.settings import PrepareConfig
from video_gen.data.prepare.shards import pack, tidy
from video_gen.data.prepare.workers import Progress, Workers
from video_gen.data.prepare.writing import cut_actions, file_name, write_pieces
from video_gen.data.video_file import probe
from video_gen.errors import DataError
from video_gen.files import (
    check_folder,
    explained,
    length_of,
    lock_byte,
    read_text,
    sweep,
    write_text,
)
from video_gen.vocabulary import Vocabulary

FACTS, CLIPS, SETTINGS = "facts", "clips", "prepare.json"
DRAFTS = ".drafts"
"""Clips that were written while files were looked at, until it is known which are kept."""
CLIP_SUFFIXES = (".mp4", ".png")
OF_INFO = ("kind", "codec", "width", "height", "fps", "num_frames", "duration", "tick", "pixel_format")
OF_ACTIONS = ("actions", "actions_offset", "actions_size", "actions_digest")
OF_CLIP = (*OF_INFO, *OF_ACTIONS, "file_name", "shard", "offset", "size", "digest")
"""Fields of a row that tell of the clip, and not of what it was made from."""


@dataclass(frozen=True)
class Prepared:
    """What came of a pile."""

    output: Path
    rows: list[Row] = field(repr=False)
    files: int = 0
    read: int = 0
    """Files that were looked at now; of the others it was known what is in them."""
    seconds: float = 0.0
    """Length of all of them."""
    unused: int = 0
    """Clips in the folder that an earlier decision kept, and this one does not."""
    notes: list[str] = field(default_factory=list)

    @property
    def kept(self) -> list[Row]:
        return [row for row in self.rows if not row.refused]


def prepare(
    pile: Path,
    output: Path,
    config: PrepareConfig,
    workers: Workers | None = None,
    progress: Progress | None = None,
    caption: Caption | None = None,
) -> Prepared:
    """Make `output` a data set of what is good in `pile`.

    Args:
        caption: of clips whose file has none beside it. What it said is kept under its `known_as`, or, of a function, its name.
    Raises: DataError if either folder cannot be used, or `output` was written in another way; ConfigError if a library is missing.
    """
    opencv()
    workers, tell = workers or Workers(), progress or (lambda what, done, total: None)
    check_folder(output)
    if output.resolve().is_relative_to(pile.resolve()):
        raise DataError(f"{output}: lies in the pile, {pile}, and would be prepared itself; write to another place")
    if is_prepared(pile):
        raise DataError(f"{pile}: is prepared already; give the footage that it was prepared from")
    found = look(pile)
    refuse_faults(found)
    if found.vocabulary is not None and config.fps is not None and config.fps < found.vocabulary.fps:
        raise DataError(
            f"fps is {config.fps:g}, and {pile} has actions at {found.vocabulary.fps:g} a second, which are not thinned out here; "
            "leave out --fps"
        )
    _claim(output, pile, config)
    with _alone(output):
        sweep(output)
        return _prepared(found, output, config, workers, tell, caption)


def _prepared(
    found: Folder, output: Path, config: PrepareConfig, workers: Workers, tell: Progress, caption: Caption | None
) -> Prepared:
    sources = {source.name: source for source in found.sources}
    pieces, bad, seconds, read = _look_at_all(list(sources.values()), output, config, found.vocabulary, workers, tell)
    pieces = told_apart(against_others(pieces, config.keep))
    clips = known_clips(output)
    clips |= _write_all(pieces, sources, output, config, found.vocabulary, workers, tell, clips)
    shutil.rmtree(output / DRAFTS, ignore_errors=True)
    rows = [_row(piece, sources[piece.source], clips) for piece in pieces] + bad
    if caption is not None:
        rows = captioned(rows, output, caption, tell)
    if found.vocabulary is not None:
        actions.write_vocabulary(output, found.vocabulary, anew=True)
    if config.format == "shards":
        rows = pack(rows, output, config.shard_megabytes * 2**20, tell)
    write_manifest(output, rows)
    if config.format == "shards":
        tidy(rows, output, CLIPS)
    else:
        write_captions(output, rows)
    return Prepared(output, rows, len(sources), read, seconds, _unused(rows, output), found.notes)


@contextmanager
def _alone(output: Path) -> Iterator[None]:
    """Inside, the folder is this process's own, where its disk has locks. Raises: DataError if another one has it."""
    place = output / ".lock"
    with explained(place):
        file = place.open("ab")
    with file:
        try:
            free = lock_byte(file, 0, wait=False)
        except OSError:
            free = True
        if not free:
            raise DataError(f"{output}: another process prepares it; wait for it, stop it, or choose another folder")
        yield


def known_clips(output: Path) -> dict[str, dict[str, Any]]:
    """Name of a piece -> what the manifest of an earlier time knows of its clip, of those that are there still, and whole; files
    that are not are removed."""
    if not (output / MANIFEST).is_file():
        return {}
    rows = [row for row in read_manifest(output / MANIFEST) if row.file_name]
    lengths = {row.shard: length_of(output / row.shard) for row in rows if row.shard}
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        there, file = lengths.get(row.shard, -1) >= row.end_in_shard, output / row.file_name
        if not row.shard:
            there = length_of(file) == row.size
            if not there:
                file.unlink(missing_ok=True)
            there = there and (not row.actions or actions.beside(file).is_file())
        if there:
            found[file.stem] = {name: getattr(row, name) for name in OF_CLIP}
    return found


def _unused(rows: Sequence[Row], output: Path) -> int:
    """Clips in the folder that an earlier decision kept, and this one does not."""
    names, folder = {Path(row.file_name).name for row in rows}, output / CLIPS
    return sum(p.suffix in CLIP_SUFFIXES and p.name not in names for p in folder.iterdir()) if folder.is_dir() else 0


# -------------------- looking


def _look_at_all(
    sources: Sequence[Source],
    output: Path,
    config: PrepareConfig,
    vocabulary: Vocabulary | None,
    workers: Workers,
    tell: Progress,
) -> tuple[list[Piece], list[Row], float, int]:
    """The pieces of all files in their order, rows of those that cannot be used, seconds in all, and how many were read now."""
    of: dict[str, tuple[list[Piece], Row | None, float]] = {}
    read = 0
    tell("looking", 0, len(sources))
    large_first = sorted(sources, key=lambda source: -length_of(path_of(source)))  # so that all processes end together
    look_at_one = partial(_look, output=output, config=config, vocabulary=vocabulary)
    for source, (pieces, row, seconds, new) in workers.each(look_at_one, large_first):
        of[source.name], read = (pieces, row, seconds), read + new
        tell("looking", len(of), len(sources))
    ordered = [of[source.name] for source in sources]
    bad = [row for _, row, _ in ordered if row is not None]
    return [p for pieces, _, _ in ordered for p in pieces], bad, sum(s for *_, s in ordered), read


def _look(
    source: Source, output: Path, config: PrepareConfig, vocabulary: Vocabulary | None
) -> tuple[list[Piece], Row | None, float, bool]:
    """Pieces of a file, or a row that says why it cannot be used; its length; and whether it was read now."""
    path, stamp = facts_file(output, source.name), stamp_of(path_of(source))
    facts = load(path)
    if facts is not None and facts.stamp == stamp:
        return *_pieces(facts, source, config, vocabulary), False
    with Drafts(source.name, output / DRAFTS / key_of(source.name), config) as drafts:
        facts = look_at(path_of(source), source.name, stamp, config.short_side, drafts)
        save(facts, path)
        pieces, row, seconds = _pieces(facts, source, config, vocabulary)
        drafts.take(pieces)
    return pieces, row, seconds, True


def _pieces(
    facts: Facts, source: Source, config: PrepareConfig, vocabulary: Vocabulary | None
) -> tuple[list[Piece], Row | None, float]:
    info = facts.info
    if info is None:
        return [], Row(facts.name, facts.digest, f"unreadable: {facts.error}"), 0.0
    pieces = pieces_of(facts, config)
    if vocabulary is not None and info.kind == "video":
        try:
            done = _digest_of(source, vocabulary)
            actions_of(
                actions.beside(path_of(source)),
                str(source.path),
                vocabulary,
                info.num_frames,
                info.fps,
                times=facts.curves["time"],
            )
        except DataError as error:
            return [], Row(facts.name, facts.digest, f"bad actions: {error}"), info.duration
        pieces = [replace(piece, actions=done) for piece in pieces]
    return pieces, None, info.duration


def _digest_of(source: Source, vocabulary: Vocabulary | None) -> str:
    """A hash of what is done in a file, and of what it means; empty if nothing is."""
    place = actions.beside(path_of(source))
    if vocabulary is None or not place.is_file():
        return ""
    return hashlib.blake2b(f"{content_hash(place)} {vocabulary.model_dump_json()}".encode(), digest_size=8).hexdigest()


def path_of(source: Source) -> Path:
    """Of a file of the pile, none of which is in a shard."""
    return cast(Path, source.path)


def facts_file(output: Path, name: str) -> Path:
    """Where the facts of a file of the pile are kept: a thousand folders, so that none grows too large."""
    key = key_of(name)
    return output / FACTS / key[:3] / f"{key}.safetensors.z"


def stamp_of(path: Path) -> str:
    """Of a file's size and time; empty if it is gone."""
    try:
        status = path.stat()
    except OSError:
        return ""
    return f"{status.st_size}-{status.st_mtime_ns}"


# -------------------- writing


@dataclass(frozen=True)
class _Work:
    source: Source
    pieces: tuple[Piece, ...]

    @property
    def name(self) -> str:
        return self.source.name


def _write_all(
    pieces: Sequence[Piece],
    sources: dict[str, Source],
    output: Path,
    config: PrepareConfig,
    vocabulary: Vocabulary | None,
    workers: Workers,
    tell: Progress,
    known: dict[str, dict[str, Any]],
) -> dict[str, dict[str, Any]]:
    """Name of a piece that is not `known`, with its actions -> the fields of a row that tell of its clip, or why there is none any
    more."""
    wanted: dict[str, list[Piece]] = {}
    for piece in pieces:
        if not piece.refused and (piece.name not in known or known[piece.name]["actions_digest"] != piece.actions):
            wanted.setdefault(piece.source, []).append(piece)
    items = [_Work(sources[name], tuple(own)) for name, own in wanted.items()]
    make = partial(_write, output=output, config=config, vocabulary=vocabulary)
    clips: dict[str, dict[str, Any]] = {}
    tell("writing", 0, len(items))
    for done, (_, made) in enumerate(workers.each(make, items), 1):
        clips |= made
        tell("writing", done, len(items))
    return clips


def _write(
    work: _Work, output: Path, config: PrepareConfig, vocabulary: Vocabulary | None
) -> dict[str, dict[str, Any]]:
    facts, path = load(facts_file(output, work.name)), path_of(work.source)
    try:
        done = work.pieces[0].actions
        same = facts is not None and facts.stamp == stamp_of(path) and done in ("", _digest_of(work.source, vocabulary))
        if facts is None or facts.info is None or not same:
            raise DataError(f"{path}: changed while it was prepared; prepare it again")
        cut_actions(path, facts, work.pieces, output / CLIPS, config, vocabulary)
        write_pieces(path, facts.info, work.pieces, output / CLIPS, config, output / DRAFTS / key_of(work.name))
    except DataError as error:
        if not str(error).startswith(str(path)):  # it is the output that cannot be written
            raise
        return {piece.name: {"refused": f"unreadable: {error}"} for piece in work.pieces}
    return {piece.name: _clip(output, file_name(piece, facts.info), piece.actions) for piece in work.pieces}


def _clip(output: Path, name: str, done: str) -> dict[str, Any]:
    path = output / CLIPS / name
    info = probe(path)
    known: dict[str, Any] = {field: getattr(info, field) for field in OF_INFO}
    known |= {"file_name": f"{CLIPS}/{name}", "size": path.stat().st_size, "digest": content_hash(path)}
    return known | {"actions": bool(done), "actions_digest": done}


def _row(piece: Piece, source: Source, clips: dict[str, dict[str, Any]]) -> Row:
    top, bottom, left, right = piece.box
    caption, changes = said_between(source.caption or "", source.changes, piece.start_time, piece.end_time)
    row = Row(
        piece.source,
        piece.digest,
        piece.refused,
        piece.shot,
        *(piece.start, piece.end, piece.start_time, piece.end_time),
        *(top, bottom, left, right),
        *(piece.motion, piece.light, piece.contrast, piece.sharpness, piece.overlay),
        caption,
        json.dumps(changes) if changes else "",
        source.led,
    )
    return row if row.refused else replace(row, **clips[piece.name])


def _claim(output: Path, pile: Path, config: PrepareConfig) -> None:
    """The folder is ours if it is empty or holds the same pile, written in the same way. Raises: DataError if not."""
    file = output / SETTINGS
    wanted = {"pile": str(pile.resolve())} | config.model_dump(
        mode="json", exclude={"shots", "keep", "shard_megabytes"}
    )
    if file.is_file():
        try:
            known = json.loads(read_text(file))
            changed = [name for name in wanted if known.get(name) != wanted[name]]
        except (ValueError, AttributeError):
            raise DataError(f"{file}: damaged; delete it if {output} holds what was prepared from {pile}") from None
        if changed:
            name = changed[0]
            raise DataError(
                f"{output}: was prepared with {name} {known.get(name)!r}, and not {wanted[name]!r}; choose another folder, or "
                "delete it (thresholds of shots and keep can be changed)"
            )
        return
    if output.exists() and any(output.iterdir()):
        raise DataError(f"{output}: is not empty and holds nothing prepared; choose another folder")
    write_text(file, json.dumps(wanted, indent=1))
