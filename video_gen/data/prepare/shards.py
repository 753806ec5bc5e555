"""Clips in tar files, as webdataset reads them: of each clip its video or picture, caption and actions, one behind the other.

    key.mp4  key.txt  key.json  key.actions.jsonl

The manifest says where in which shard each lies, so that one is read without the others.
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from video_gen.data.action_files import beside
from video_gen.data.manifest import Row
from video_gen.data.prepare.workers import Progress
from video_gen.files import written

SHARDS = "shards"
BLOCK = tarfile.BLOCKSIZE


def pack(rows: Sequence[Row], output: Path, most: int, tell: Progress) -> list[Row]:
    """The rows with their places in shards of at most `most` bytes. Clips that are in none yet are written into new ones, each of
    which is there whole or not at all."""
    placed: dict[str, Row] = {}
    groups = list(_groups([row for row in rows if not row.refused and not row.shard], most))
    for number, group in enumerate(groups, 1):
        for row in _write_shard(group, output, f"{SHARDS}/{_name_of(group)}.tar"):
            placed[row.file_name] = row
        tell("packing", number, len(groups))
    return [row if row.refused or row.shard else placed[Path(row.file_name).name] for row in rows]


def tidy(rows: Sequence[Row], output: Path, clips: str) -> None:
    """Remove what is in shards now, and shards that an interrupted packing left."""
    known = {row.shard for row in rows if row.shard}
    for path in (output / SHARDS).glob("*.tar"):
        if f"{SHARDS}/{path.name}" not in known:
            path.unlink()
    for row in rows:
        if row.shard:
            file = output / clips / row.file_name
            file.unlink(missing_ok=True)
            beside(file).unlink(missing_ok=True)


def _groups(rows: Sequence[Row], most: int) -> Iterator[list[Row]]:
    group: list[Row] = []
    total = 0
    for row in rows:
        if group and total + row.size > most:
            yield group
            group, total = [], 0
        group.append(row)
        total += row.size + 4 * BLOCK
    if group:
        yield group


def _name_of(group: Sequence[Row]) -> str:
    said = "\n".join(f"{row.digest} {row.caption} {row.changes} {row.led} {row.actions_digest}" for row in group)
    return hashlib.blake2b(said.encode(), digest_size=8).hexdigest()


def _write_shard(group: Sequence[Row], output: Path, name: str) -> list[Row]:
    path, placed = output / name, []
    with written(path) as temporary, tarfile.TarFile(temporary, "w", format=tarfile.USTAR_FORMAT) as tar:
        for row in group:
            file = output / row.file_name
            key = file.stem
            offset = _add(tar, f"{key}{file.suffix}", file.read_bytes())
            new = replace(row, file_name=file.name, shard=name, offset=offset)
            if row.caption:
                _add(tar, f"{key}.txt", row.caption.encode("utf-8"))
            if row.actions:
                said = beside(file).read_bytes()
                new = replace(new, actions_offset=_add(tar, f"{key}.actions.jsonl", said), actions_size=len(said))
            about = {k: v for k, v in asdict(row).items() if k not in ("file_name", "shard", "offset", "caption")}
            _add(tar, f"{key}.json", json.dumps(about).encode("utf-8"))
            placed.append(new)
    return placed


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> int:
    """Returns: where the content begins in the file."""
    head = tarfile.TarInfo(name)
    head.size = len(content)
    start = tar.offset
    tar.addfile(head, io.BytesIO(content))
    return start + BLOCK
