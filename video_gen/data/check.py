"""Reading a whole folder to find what is wrong with it, before training does."""

import json
import multiprocessing
import os
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image

from video_gen.data.clips import QUARANTINE, Source, best_bucket, scan, windows
from video_gen.data.config import Bucket, ClipConfig, bucket_name
from video_gen.data.video_file import VideoInfo, all_frames, probe
from video_gen.errors import DataError

STILL = 0.5
"""Mean difference of successive looked-at frames, in grey levels of 255, below which nothing moves."""
HASH_FRAMES = 4
NEAR = 6
"""Bits of 64 in which the hashes of near-duplicates may differ, per frame."""
PROBLEMS = ("unreadable", "too short", "near-duplicate", "still")


@dataclass(frozen=True)
class FileReport:
    """What was found in one file."""

    name: str
    size: int
    caption: bool
    info: VideoInfo | None = None
    error: str | None = None
    bucket: Bucket | None = None
    """The size of its clips; None if it is unreadable or too short for any."""
    clips: int = 0
    still: bool = False
    hashes: tuple[int, ...] = ()


@dataclass(frozen=True)
class CheckReport:
    """What was found in a folder; `problems` maps a kind of PROBLEMS to (file, reason)."""

    folder: Path
    files: list[FileReport]
    problems: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    clips: dict[Bucket, int] = field(default_factory=dict)
    """Clips of each size of the config, and of one frame where there are images; without those now in quarantine."""


def check(
    config: ClipConfig,
    quarantine: Iterable[str] = ("unreadable",),
    progress: Callable[[int, int], None] | None = None,
    workers: int | None = None,
) -> CheckReport:
    """Decode every frame of every file of `config.folder`, and write its quarantine.jsonl anew.

    Args:
        quarantine: which kinds of PROBLEMS go into quarantine; the others are only reported.
    Raises: DataError if the folder or its metadata cannot be read.
    """
    sources = scan(config.folder)
    files: dict[str, FileReport] = {}
    context = multiprocessing.get_context(
        "forkserver" if os.name == "posix" else "spawn"
    )  # threads do not survive a fork
    with ProcessPoolExecutor(workers or os.cpu_count() or 1, mp_context=context) as pool:
        for future in as_completed([pool.submit(_read, source, config) for source in sources]):
            files[future.result().name] = future.result()
            if progress:
                progress(len(files), len(sources))
    ordered = [files[source.name] for source in sources]
    problems: dict[str, list[tuple[str, str]]] = {kind: [] for kind in PROBLEMS}
    for file in ordered:
        if file.error is not None:
            problems["unreadable"].append((file.name, file.error))
        elif file.bucket is None:
            frames = min(size[0] for size in config.sizes)
            problems["too short"].append((file.name, f"fewer than {frames} frames at {config.fps:g} fps"))
        if file.still:
            problems["still"].append((file.name, "nothing moves"))
    problems["near-duplicate"] = _near_duplicates(ordered)
    rows = {name: f"{kind}: {why}" for kind in quarantine for name, why in problems[kind]}
    path = config.folder / QUARANTINE
    temporary = path.with_name(f".{path.name}")
    temporary.write_text("".join(json.dumps({"file_name": n, "reason": r}) + "\n" for n, r in rows.items()))
    os.replace(temporary, path)
    clips = dict.fromkeys(config.sizes, 0)
    for file in ordered:
        if file.bucket is not None and file.name not in rows:
            clips[file.bucket] = clips.get(file.bucket, 0) + file.clips
    return CheckReport(config.folder, ordered, problems, clips)


def render(report: CheckReport) -> None:
    """Print the report as tables."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
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
    for bucket, clips in report.clips.items():
        table.add_row(f"clips of {bucket_name(bucket)}", f"{clips:,}")
    table.add_row("without caption", str(sum(not f.caption for f in report.files)))
    for kind in PROBLEMS:
        table.add_row(kind, str(len(report.problems[kind])))
    console.print(table)
    for kind in PROBLEMS:
        for name, why in report.problems[kind]:
            console.print(f"{kind}: {name}: {why}", markup=False, highlight=False)


def _read(source: Source, config: ClipConfig) -> FileReport:
    size, caption = source.path.stat().st_size, source.caption is not None
    try:
        info = probe(source.path)
        marks = set(np.linspace(0, info.num_frames - 1, min(HASH_FRAMES, info.num_frames)).round().astype(int))
        thumbs: list[np.ndarray] = []
        for index, (_, frame) in enumerate(all_frames(source.path)):
            if index in marks:
                grey = Image.fromarray(frame).convert("L").resize((64, 64), Image.Resampling.BOX)
                thumbs.append(np.asarray(grey, dtype=np.float64))
    except DataError as error:
        return FileReport(source.name, size, caption, error=str(error))
    moved = max((float(abs(b - a).mean()) for a, b in pairwise(thumbs)), default=0.0)
    still = info.kind == "video" and moved < STILL
    hashes = tuple(_hash(thumb) for thumb in thumbs)
    bucket = best_bucket(info, config)
    clips = len(windows(info, config, bucket)) if bucket else 0
    return FileReport(source.name, size, caption, info, None, bucket, clips, still, hashes)


def _hash(thumb: np.ndarray) -> int:
    """64 bits: whether a cell is brighter than its right neighbour (difference hash)."""
    small = np.asarray(Image.fromarray(thumb.astype(np.float32)).resize((9, 8), Image.Resampling.BOX))
    return int("".join("1" if bit else "0" for bit in (np.diff(small, axis=1) > 0).flatten()), 2)


def _near_duplicates(files: list[FileReport]) -> list[tuple[str, str]]:
    """Files whose looked-at frames all have nearly the hashes of an earlier file, and the same length within 5%."""
    kept: list[FileReport] = []
    found = []
    for file in (f for f in files if f.info is not None and not f.still):
        for other in kept:
            assert file.info and other.info
            alike = len(file.hashes) == len(other.hashes) and abs(file.info.duration - other.info.duration) <= (
                0.05 * other.info.duration
            )
            if alike and all((a ^ b).bit_count() <= NEAR for a, b in zip(file.hashes, other.hashes)):
                found.append((file.name, f"looks like {other.name}"))
                break
        else:
            kept.append(file)
    return found


def _counted(values: Iterable[str], most: int = 4) -> str:
    counts = Counter(values).most_common()
    shown = ", ".join(f"{value} ({n})" for value, n in counts[:most])
    return shown + (f", and {len(counts) - most} more" if len(counts) > most else "") or "none"
