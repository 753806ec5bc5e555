"""What is done with files of a data set, in a process apart: what lies in a folder, what a file is, its pictures. No torch."""

import io
import os
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from video_gen.data.actions import actions_of
from video_gen.data.folder import MANIFEST, QUARANTINE, Folder, is_prepared, look
from video_gen.data.manifest import Row, read_manifest
from video_gen.data.metadata import METADATA
from video_gen.data.packed import File, Packed
from video_gen.data.prepare.preparing import facts_file
from video_gen.data.prepare.report import picture_of
from video_gen.data.video_file import iterate_frames, probe
from video_gen.data.video_info import VIDEO_SUFFIXES, VideoInfo
from video_gen.data.video_writer import write_video
from video_gen.errors import DataError, VideoGenError
from video_gen.files import written
from video_gen.vocabulary import Vocabulary

CELLS, CELL, SECONDS = 8, (160, 120), 3.0
"""A moving thumbnail: frames side by side, of (width, height), out of so much of the video's middle."""
SCREEN = (11, 12, 16)
PREVIEW_SIDE, PREVIEW_SECONDS, PREVIEW_FPS = 512, 20.0, 30.0
OF_INFO = ("kind", "codec", "width", "height", "fps", "num_frames", "duration", "tick", "pixel_format")


def facts_of(info: VideoInfo) -> dict[str, Any]:
    """What a file is, as JSON says it; `info_of` is the inverse."""
    return {name: getattr(info, name) for name in OF_INFO}


def info_of(facts: dict[str, Any]) -> VideoInfo:
    return VideoInfo(**{name: facts[name] for name in OF_INFO}, rotation=0, has_audio=False)


# -------------------- a folder


def index_of(folder: Path, root: Path) -> dict[str, Any]:
    """Everything in a folder of clips, as plain values: "items", "notes", "faults", "vocabulary", "prepared", "watched".

    Args: root: beyond which no link may lead.
    Raises: DataError if it holds none, or a link that leads elsewhere.
    """
    watched = _walk(folder, root.resolve())
    if is_prepared(folder):
        rows = read_manifest(folder / MANIFEST)
        items = [_of_row(row) for row in rows]
        found = look(folder) if any(not row.refused for row in rows) else Folder([], [], [])
    else:
        found = look(folder)
        items = [_of_file(source) for source in found.sources]
    return {
        "items": items,
        "notes": found.notes,
        "faults": found.faults,
        "vocabulary": None if found.vocabulary is None else found.vocabulary.model_dump(mode="json"),
        "prepared": is_prepared(folder),
        "watched": watched,
    }


def _walk(folder: Path, root: Path) -> list[str]:
    """Folders and files whose change means that others are there now, relative to `folder`. Raises: DataError for a link."""
    watched, left, entered = [], [folder], set()
    while left:
        place = left.pop()
        real = os.path.realpath(place)
        if real in entered:
            continue
        entered.add(real)
        watched.append(place.relative_to(folder).as_posix())
        try:
            entries = list(os.scandir(place))
        except OSError:
            continue  # `look` says so
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_symlink() and not Path(os.path.realpath(entry.path)).is_relative_to(root):
                raise DataError(
                    f"{Path(entry.path).relative_to(folder).as_posix()}: is a link that leads out of the folder that may be read; "
                    "name the place that it leads to at the start, with --data"
                )
            if entry.is_dir():
                left.append(Path(entry.path))
            elif entry.name in (*METADATA, MANIFEST, QUARANTINE):
                watched.append(Path(entry.path).relative_to(folder).as_posix())
    return watched


def _of_file(source: Any) -> dict[str, Any]:
    told = source.path.stat()
    return {
        "name": source.name,
        "caption": source.caption or "",
        "changes": [list(change) for change in source.changes],
        "actions": source.actions is not None and source.actions.is_file(),
        "kind": "video" if source.path.suffix.lower() in VIDEO_SUFFIXES else "image",
        "bytes": told.st_size,
        "v": f"{told.st_mtime_ns:x}-{told.st_size:x}",
        "source": source.name.rpartition("/")[0],
    }


def _of_row(row: Row) -> dict[str, Any]:
    """A piece of prepared footage. One that was refused has no file; its name tells where in the pile it lies."""
    item: dict[str, Any] = {
        "name": row.file_name if not row.refused else f"{row.source}, frames {row.start_frame} to {row.end_frame}",
        "caption": row.caption,
        "actions": row.actions,
        "kind": row.kind,
        "bytes": row.size,
        "v": row.digest or row.source_digest,
        "source": row.source,
        "from": [row.start, row.end],
        "figures": {name: getattr(row, name) for name in ("motion", "light", "contrast", "sharpness", "overlay")},
    }
    if row.refused:
        return item | {"refused": row.refused, "frames": [row.start_frame, row.end_frame]}
    packed = [row.shard, row.offset, row.size, row.actions_offset, row.actions_size] if row.shard else None
    return item | {"facts": facts_of(row.info), "packed": packed}


# -------------------- a file


def probe_all(files: Sequence[Path]) -> list[dict[str, Any]]:
    """What each is, or {"error": why it cannot be read}."""
    return [_probed(file) for file in files]


def _probed(file: Path) -> dict[str, Any]:
    try:
        return facts_of(probe(file))
    except VideoGenError as error:
        return {"error": str(error)}


def strip_of(file: File, facts: dict[str, Any] | None) -> bytes:
    """A thumbnail: `CELLS` frames side by side, or one of an image, as WebP. Raises: DataError."""
    info = info_of(facts) if facts else probe(file)
    if info.kind == "image":
        frames: Iterator[np.ndarray] = iterate_frames(file, [0.0])
    else:
        span = min(info.duration, SECONDS)
        start = (info.duration - span) / 2
        last = max(0.0, info.duration - 1 / info.fps)
        frames = iterate_frames(file, [min(last, start + span * i / CELLS) for i in range(CELLS)])
    cells = [_cell(frame) for frame in frames]
    sheet = Image.new("RGB", (CELL[0] * len(cells), CELL[1]), SCREEN)
    for number, cell in enumerate(cells):
        sheet.paste(cell, (number * CELL[0] + (CELL[0] - cell.width) // 2, (CELL[1] - cell.height) // 2))
    return _webp(sheet)


def _cell(frame: np.ndarray) -> Image.Image:
    picture = Image.fromarray(frame)
    scale = min(CELL[0] / picture.width, CELL[1] / picture.height)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    return picture.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BILINEAR)


def refused_picture(folder: Path, source: str, frames: Sequence[int]) -> bytes:
    """What a piece that was not kept looked like, small and grey: `prepare` kept that. Raises: DataError if it is gone."""
    grey = picture_of(folder, source, *frames)
    if grey is None:
        raise DataError(f"{facts_file(folder, source).name}: what was seen of {source} is not kept any more")
    return _webp(Image.fromarray(grey).convert("RGB"))


def _webp(picture: Image.Image) -> bytes:
    out = io.BytesIO()
    picture.save(out, "WEBP", quality=72, method=2)
    return out.getvalue()


def picture_large(file: Path) -> bytes:
    """An image as WebP of at most 1600 a side, upright. Raises: DataError."""
    picture = Image.fromarray(next(iterate_frames(file, [0.0])))
    picture.thumbnail((1600, 1600))
    return _webp(picture)


def write_preview(file: Path, target: Path) -> None:
    """The start of a video, small, as every browser plays it. Raises: DataError."""
    info = probe(file)
    fps = min(PREVIEW_FPS, max(1.0, info.fps))
    count = max(1, int(min(info.duration, PREVIEW_SECONDS) * fps))
    frames = iterate_frames(file, [i / fps for i in range(count)])
    first = next(frames)
    scale = min(1.0, PREVIEW_SIDE / max(first.shape[:2]))
    width, height = (max(2, 2 * round(side * scale / 2)) for side in (first.shape[1], first.shape[0]))
    small = [np.asarray(Image.fromarray(f).resize((width, height))) for f in chain([first], frames)]
    write_video(target, np.stack(small), fps, crf=23)


def unpack(file: Packed, target: Path) -> None:
    """A file of a shard, as one of its own. Raises: DataError."""
    content = file.read()
    with written(target) as temporary:
        temporary.write_bytes(content)


def action_rows(file: Path | Packed, name: str, vocabulary: dict[str, Any], facts: dict[str, Any]) -> list[list[float]]:
    """What is done at each frame, in its own units. Raises: DataError if it does not fit the video."""
    known, info = Vocabulary.model_validate(vocabulary), info_of(facts)
    return actions_of(file, name, known, info.num_frames, info.fps).tolist()
