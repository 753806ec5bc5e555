"""Reading a whole folder to find what is wrong with it, before training does."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from video_gen.data.action_files import FILE
from video_gen.data.actions import actions_of, usage
from video_gen.data.config import Bucket, ClipConfig, bucket_name
from video_gen.data.duplicates import SIDE, near_duplicates
from video_gen.data.folder import (
    BY_HAND,
    Source,
    content_hash,
    held_out,
    is_prepared,
    look,
    quarantined,
    write_quarantine,
)
from video_gen.data.packed import Packed, address_of, cut_short, lengths, within
from video_gen.data.processes import in_processes
from video_gen.data.video_file import all_frames, probe
from video_gen.data.video_info import VideoInfo
from video_gen.data.windows import best_bucket, windows
from video_gen.errors import DataError
from video_gen.vocabulary import Vocabulary

STILL = 0.5
"""Mean difference of successive looked-at frames, in grey levels of 255, below which nothing moves."""
LOOKED_AT = 4
"""Frames of a file that are compared with those of others."""
CUT = 30.0
"""Mean grey levels by which a frame differs from the one before, where that is also CUT_RATIO times what it does around."""
CUT_RATIO = 5.0
BLACK = 20
"""Grey levels up to which a border counts as black."""
LEAST_BAR = 0.03
"""Share of the picture that a black bar takes on each of two sides to be named."""
PROBLEMS = ("unreadable", "bad actions", "caption too long", "too short", "near-duplicate", "still")
SHOWN = 20
"""Lines of a kind that are printed."""


@dataclass(frozen=True)
class FileReport:
    """What was found in one file."""

    name: str
    size: int
    caption: str | None
    later: tuple[str, ...] = ()
    """Captions that take its place."""
    digest: str = ""
    """Of its content."""
    origin: str | None = None
    """Of the file that it was cut from."""
    known_as: str = ""
    """In the pile, if it comes from one: see `Source.known_as`."""
    info: VideoInfo | None = None
    error: str | None = None
    bucket: Bucket | None = None
    """The size of its clips; None if it is unreadable or too short for any."""
    clips: int = 0
    still: bool = False
    remarks: tuple[str, ...] = ()
    """What is worth a word and no trouble: how it is read, cuts, black bars."""
    pictures: np.ndarray = field(default_factory=lambda: np.zeros((0, SIDE, SIDE), np.uint8), compare=False, repr=False)
    """(k, SIDE, SIDE) uint8, grey, of the looked-at frames."""
    actions: np.ndarray | None = field(default=None, compare=False, repr=False)
    """(f, a) what is done in it; None = nothing, or it does not fit."""
    bad_actions: str | None = None
    """What does not fit."""


@dataclass(frozen=True)
class CheckReport:
    """What was found in a folder; `problems` maps a kind of PROBLEMS to (file, reason)."""

    config: ClipConfig
    files: list[FileReport]
    problems: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    clips: dict[Bucket, int] = field(default_factory=dict)
    """Clips of each size of the config, and of one frame where there are images; without those now in quarantine."""
    held_out: tuple[int, int] = (0, 0)
    """Files and clips that training will hold out."""
    notes: list[str] = field(default_factory=list)
    """What lies in the folder and is not read."""
    faults: list[str] = field(default_factory=list)
    """What does not fit in metadata and captions: training refuses the folder until it does."""
    unwritten: str | None = None
    """Why quarantine.jsonl could not be written."""
    vocabulary: Vocabulary | None = None
    """What can be done in the folder's videos."""

    @property
    def folder(self) -> Path:
        return self.config.folder


def check(
    config: ClipConfig,
    quarantine: Iterable[str] = ("unreadable",),
    progress: Callable[[int, int], None] | None = None,
    workers: int | None = None,
    read_caption: Callable[[str], object] = lambda text: None,
) -> CheckReport:
    """Decode every frame of every file of `config.folder`, and write its quarantine.jsonl anew, but for what is there by hand.

    Args:
        quarantine: which kinds of PROBLEMS go into quarantine; the others are only reported.
        read_caption: raises DataError for a caption that the text encoder does not take.
    Raises: DataError if the folder cannot be read, or a process of the work is killed.
    """
    found = look(config.folder)
    by_hand = _by_hand(config.folder)
    files: dict[str, FileReport] = {}
    count = min(workers or os.cpu_count() or 1, len(found.sources))
    prepared = is_prepared(config.folder)
    read = partial(_read, config=config, vocabulary=found.vocabulary)
    if prepared:
        shards = list({source.path.shard for source in found.sources if isinstance(source.path, Packed)})
        known = dict(zip(shards, lengths(shards)))
        read = partial(_known, config=config, vocabulary=found.vocabulary, shards=known)
    for source, report in in_processes(read, found.sources, 1 if prepared else count):
        files[source.name] = report
        if progress:
            progress(len(files), len(found.sources))
    ordered = [files[source.name] for source in found.sources]
    problems = _problems(ordered, config, read_caption)
    rows = {name: f"{kind}: {why}" for kind in quarantine for name, why in problems[kind]}
    rows |= {name: why for name, why in by_hand.items() if name in files}
    kept = [file for file in ordered if file.name not in rows]
    held = held_out(((file.known_as or file.name, file.origin or file.digest) for file in kept), config)
    out = [file for file in kept if (file.origin or file.digest) in held and file.bucket is not None]
    clips = dict.fromkeys(config.sizes, 0)
    for file in kept:
        if file.bucket is not None:
            clips[file.bucket] = clips.get(file.bucket, 0) + file.clips
    unwritten = _write_quarantine(config.folder, rows)
    sides = (len(out), sum(file.clips for file in out))
    return CheckReport(config, ordered, problems, clips, sides, found.notes, found.faults, unwritten, found.vocabulary)


def _problems(
    files: list[FileReport], config: ClipConfig, read_caption: Callable[[str], object]
) -> dict[str, list[tuple[str, str]]]:
    problems: dict[str, list[tuple[str, str]]] = {kind: [] for kind in PROBLEMS}
    for file in files:
        if file.error is not None:
            problems["unreadable"].append((file.name, file.error))
        elif file.bucket is None:
            frames = min(size[0] for size in config.sizes)
            problems["too short"].append((file.name, f"fewer than {frames} frames at {config.fps:g} fps"))
        if file.bad_actions is not None:
            problems["bad actions"].append((file.name, file.bad_actions))
        if file.still:
            problems["still"].append((file.name, "nothing moves"))
        try:
            for text in (file.caption or "", *file.later):
                read_caption(text)
        except DataError as error:
            problems["caption too long"].append((file.name, str(error)))
    seen = [file for file in files if file.info is not None and not file.still]
    pairs = near_duplicates([f.pictures for f in seen], [f.info.duration for f in seen if f.info])
    problems["near-duplicate"] = [(seen[later].name, f"looks like {seen[first].name}") for later, first in pairs]
    return problems


def _write_quarantine(folder: Path, rows: dict[str, str]) -> str | None:
    """Returns: why it could not be written, if it could not."""
    if address_of(folder):
        return "it lies at an address" if rows else None
    try:
        write_quarantine(folder, rows)
    except (DataError, OSError) as error:
        return str(error)
    return None


def _by_hand(folder: Path) -> dict[str, str]:
    """What somebody put into quarantine; nothing if the file is damaged, which is about to be written anew."""
    try:
        return {name: why for name, why in quarantined(folder).items() if why.startswith(BY_HAND)}
    except DataError:
        return {}


def render(report: CheckReport, most: int = SHOWN) -> None:
    """Print the report: a table, then what is wrong, kind by kind, then what is worth a word; of each kind `most` lines."""
    from rich.table import Table

    from video_gen.progress import plain_console

    console, config = plain_console(), report.config
    good = [f.info for f in report.files if f.info is not None]
    table = Table("what", "found", title=str(report.folder))
    videos = [info for info in good if info.kind == "video"]
    table.add_row("files", f"{len(report.files)} ({len(videos)} videos, {len(good) - len(videos)} images)")
    table.add_row("hours", f"{sum(i.duration for i in good) / 3600:.3f}")
    table.add_row("bytes", f"{sum(f.size for f in report.files):,}")
    table.add_row("sizes", _counted(f"{i.width}x{i.height}" for i in good))
    table.add_row("frames per second", _counted(f"{i.fps:.4g}" for i in videos))
    table.add_row("codecs", _counted(i.codec for i in good))
    table.add_row("with audio", str(sum(i.has_audio for i in good)))
    windows_of = f"at {config.fps:g} fps, a window every {config.stride or 'clip of'} frames"
    windows_of += f"; training takes up to {config.views} views of each" if config.views > 1 else ""
    for bucket, clips in report.clips.items():
        table.add_row(f"clips of {bucket_name(bucket)}", f"{clips:,} ({windows_of})")
    files, clips = report.held_out
    share = ", ".join(config.held_out) or f"fraction {config.validation_fraction:g}, seed {config.split_seed}"
    table.add_row("held out", f"{clips:,} clips of {files:,} {'file' if files == 1 else 'files'} ({share})")
    table.add_row("without caption", str(sum(not f.caption for f in report.files)))
    if changing := sum(bool(f.later) for f in report.files):
        table.add_row("with captions that change", str(changing))
    for kind in PROBLEMS:
        table.add_row(kind, str(len(report.problems[kind])))
    table.add_row("faults in metadata", str(len(report.faults)))
    console.print(table)
    if report.vocabulary is not None:
        table, lines = _actions_table(report.files, report.vocabulary)
        console.print(table)
        _print(console, lines, len(lines))
    _print(console, [f"metadata: {fault}" for fault in report.faults], most)
    for kind in PROBLEMS:
        _print(console, [f"{kind}: {name}: {why}" for name, why in report.problems[kind]], most)
    _print(console, report.notes, most)
    _print(console, [f"note: {file.name}: {remark}" for file in report.files for remark in file.remarks], most)
    if report.unwritten:
        _print(console, [f"quarantine.jsonl was not written: {report.unwritten}"], most)


def _actions_table(files: list[FileReport], vocabulary: Vocabulary) -> tuple[Any, list[str]]:
    """How each key is used, and how long nothing is done; and a line for what of its range each axis has."""
    from rich.table import Table

    rows = [file.actions[:-1] for file in files if file.actions is not None and len(file.actions) > 1]
    table = Table(
        "action", "share of frames", "times", "longest", "mean", title=f"actions at {vocabulary.fps:g} a second"
    )
    idle = np.array(vocabulary.row(vocabulary.action([0.0] * vocabulary.size)))
    held = [(key, [each[:, i] > 0 for each in rows]) for i, key in enumerate(vocabulary.keys)]
    for name, frames in [*held, ("nothing is done", [(each == idle).all(1) for each in rows])]:
        found = usage(frames)
        lengths = (f"{found.longest} frames", f"{found.mean:.1f} frames")
        table.add_row(name, f"{100 * found.share:.1f}%", f"{found.presses:,}", *lengths)
    lines = []
    for index, axis in enumerate(vocabulary.axes, len(vocabulary.keys)):
        values = np.concatenate([each[:, index] for each in rows]) if rows else np.zeros(0)
        seen = f"{values.min():.4g} to {values.max():.4g}" if len(values) else "nothing"
        lines.append(f"{axis.name}: {seen}, of {axis.low:g} to {axis.high:g} {axis.unit}".rstrip() + f" ({axis.kind})")
    return table, lines


def _print(console: Any, lines: list[str], most: int) -> None:
    for line in lines[:most]:
        console.print(line, highlight=False, soft_wrap=True)
    if len(lines) > most:
        console.print(f"... and {len(lines) - most} more such lines (--lines)", highlight=False)


def _read(source: Source, config: ClipConfig, vocabulary: Vocabulary | None) -> FileReport:
    caption, later = source.caption, tuple(text for _, text in source.changes)
    assert isinstance(source.path, Path)
    try:
        size, digest = source.path.stat().st_size, content_hash(source.path)
    except (DataError, OSError) as error:
        return FileReport(source.name, 0, caption, later, error=str(error))
    try:
        info = probe(source.path)
        marks = set(np.linspace(0, info.num_frames - 1, min(LOOKED_AT, info.num_frames)).round().astype(int))
        pictures: list[np.ndarray] = []
        steps: list[float] = []
        lit: np.ndarray | None = None
        before: np.ndarray | None = None
        times: list[float] = []
        for index, (time, frame) in enumerate(all_frames(source.path)):
            small = np.asarray(Image.fromarray(frame).convert("L").resize((SIDE, SIDE), Image.Resampling.BOX))
            if before is not None:
                steps.append(float(np.abs(small.astype(np.int16) - before).mean()))
            before = small.astype(np.int16)
            times.append(time)
            if index in marks:
                pictures.append(small)
                bright = frame.max(-1)
                lit = bright if lit is None or lit.shape != bright.shape else np.maximum(lit, bright)
    except DataError as error:
        return FileReport(source.name, size, caption, later, digest, error=str(error))
    moved = max((float(np.abs(a.astype(float) - b).mean()) for a, b in pairwise(pictures)), default=0.0)
    bucket = best_bucket(info, config)
    rows, bad = None, None
    if source.actions is not None and vocabulary is not None and info.kind == "video":
        try:
            told = within(config.folder, FILE)
            rows = actions_of(
                source.actions, str(source.path), vocabulary, info.num_frames, info.fps, times=times, said_in=told
            )
        except DataError as error:
            bad = str(error)
    return FileReport(
        source.name,
        size,
        caption,
        later,
        digest,
        info=info,
        bucket=bucket,
        clips=len(windows(info, config, bucket)) if bucket else 0,
        still=info.kind == "video" and moved < STILL,
        remarks=(*info.notes, *_cuts(steps, times), *_bars(lit)),
        pictures=np.stack(pictures),
        actions=rows,
        bad_actions=bad,
    )


def _known(
    source: Source, config: ClipConfig, vocabulary: Vocabulary | None, shards: Mapping[str, int | None]
) -> FileReport:
    """What a manifest says of a clip; of the clip itself no more than that it is there and as long as it should be.

    Args: shards: their lengths, where known.
    """
    info, later = source.info, tuple(text for _, text in source.changes)
    assert info is not None
    size, error = 0, None
    if isinstance(source.path, Packed):
        size = source.path.size
        there, end = shards[source.path.shard], source.path.offset + size
        if there is not None and there < end:
            error = f"{source.path.shard}: is not there; copy it again, or prepare it again"
            error = error if there < 0 else cut_short(source.path.shard, there, end)
    else:
        try:
            size = source.path.stat().st_size
            if size != source.size:
                error = (
                    f"{source.path}: has {size:,} bytes, and not {source.size:,}; copy it again, or prepare it again"
                )
        except OSError as reason:
            error = f"{source.path}: {reason.strerror}; prepare it again"
    bucket = best_bucket(info, config)
    rows, bad = None, None
    if source.actions is not None and vocabulary is not None:
        try:
            told = within(config.folder, FILE)
            rows = actions_of(source.actions, str(source.path), vocabulary, info.num_frames, info.fps, said_in=told)
        except DataError as reason:
            bad = str(reason)
    return FileReport(
        source.name,
        size,
        source.caption,
        later,
        source.digest or "",
        source.origin,
        source.known_as,
        info,
        error,
        bucket,
        clips=len(windows(info, config, bucket)) if bucket else 0,
        actions=rows,
        bad_actions=bad,
    )


def _cuts(steps: list[float], times: list[float]) -> list[str]:
    """A line if a video jumps from one picture to another: a clip across such a place shows two scenes."""
    found = []
    for index, step in enumerate(steps):
        around = steps[max(0, index - 4) : index] + steps[index + 1 : index + 5]
        if step > CUT and step > CUT_RATIO * (float(np.median(around)) if around else 0.0):
            found.append(times[index + 1])
    if not found:
        return []
    first = ", ".join(f"{time:.2f}" for time in found[:3]) + (", ..." if len(found) > 3 else "")
    return [f"{len(found)} {'cut' if len(found) == 1 else 'cuts'}, at {first} s: split it there"]


def _bars(lit: np.ndarray | None) -> list[str]:
    """A line if two opposite sides are black in all looked-at frames. `lit`: (h, w), the brightest that each pixel was."""
    if lit is None or lit.max() <= 2 * BLACK:
        return []
    found = []
    for axis, name in ((1, "above and below"), (0, "left and right")):
        bright = np.flatnonzero((lit > BLACK).mean(axis=axis) > 0.01)
        length = lit.shape[1 - axis]
        shares = bright[0] / length, (length - 1 - bright[-1]) / length
        if min(shares) >= LEAST_BAR:
            found.append(f"black bars {name}, {sum(shares):.0%} of the picture: crop them")
    return found


def _counted(values: Iterable[str], most: int = 4) -> str:
    counts = Counter(values).most_common()
    shown = ", ".join(f"{value} ({n})" for value, n in counts[:most])
    return shown + (f", and {len(counts) - most} more" if len(counts) > most else "") or "none"
