"""Clips as latents on disk, so that the transformer's training never waits for a decoder or the VAE.

A latent folder, one per VAE, is a `Store` of tensors (c, f, h, w) float16 by clip id (content hash, window, size), in one whose
name ends in `-ended` with one frame more, the clip's last frame encoded as a still picture; and an
index per data configuration, `index-<its hash>.jsonl`: a first line with the configuration and a stamp of the folder's files,
then a line per clip with its caption, actions, bucket, side of the split and shard. While the stamp fits, or when the files are
gone, the index is all that training reads besides its latents; a file, caption or action that has changed costs but itself.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from video_gen.config import validate
from video_gen.data.actions import scaled
from video_gen.data.clips import Clips, Rows, to_video
from video_gen.data.config import Bucket, ClipConfig
from video_gen.data.folder import is_prepared, is_there, look, manifest_bytes, quarantined, refuse_faults
from video_gen.data.store import Store, fill
from video_gen.errors import DataError
from video_gen.files import write_text
from video_gen.vocabulary import Vocabulary

SHARD_CLIPS, SHARD_PIXELS = 128, 2**28
"""A shard holds at most so many clips, and clips of so many pixels together: what a killed process may lose."""
ENDED = "-ended"
"""What the name of a folder ends in whose latents have the last frame as a still picture behind them."""
PICTURED = "-pictured"
"""And one in which those of the first frame, with nothing behind it, are: as many again."""
LATER = ("held_out", "views", "zoom", "flip")
"""Fields that came later: at their defaults they leave the names of indices as they were, of clips that may be there no more."""
BATCH_PIXELS = 2**23
"""Clips are encoded together up to so many pixels, frames times height times width."""


@dataclass(frozen=True)
class Latent:
    """Where a clip's latents are, and what else training knows of it."""

    clip_id: str
    caption: str
    part: str
    """train or validation"""
    bucket: Bucket
    """(frames, height, width) of the clip in pixels."""
    shape: tuple[int, ...]
    """(c, f, h, w)"""
    shard: str
    changes: tuple[tuple[int, str], ...] = ()
    """(pixel frame, caption): from that frame on the caption holds."""
    led: bool = False
    """Whether training always shows its last frame."""
    actions: Rows = ()
    """(frames, a) what is done between a pixel frame and the next, in its own units; empty without any."""

    @property
    def texts(self) -> list[str]:
        """All captions of the clip."""
        return [self.caption, *(text for _, text in self.changes)]


def fingerprint(*files: Path) -> str:
    """16 hexadecimal digits that change when any of the files does: of an encoder's config and weights."""
    digest = hashlib.blake2b(digest_size=8)
    for file in files:
        with file.open("rb") as stream:
            while piece := stream.read(1 << 22):
                digest.update(piece)
    return digest.hexdigest()


def encode_clips(
    clips: Clips,
    encode: Callable[[Tensor], Tensor],
    folder: str | Path,
    stamp: str,
    progress: Callable[[int, int], None] | None = None,
    shard_clips: int = SHARD_CLIPS,
) -> list[Latent]:
    """Encode every clip that the folder does not have yet, together with whoever else does so, and write the index.

    Args:
        encode: video (b, c, f, h, w) in [-1, 1] to latents (b, c, f', h', w').
        stamp: `stamp_of` the configuration, taken before `clips` was made: what changes afterwards is looked at again.
        progress: called with (done, total) clips.
    Returns: the entries of `clips`, in their order.
    Raises: DataError if a file cannot be read; what was encoded before stays.
    """
    place = {clip_id: index for index, clip_id in enumerate(clips.ids)}

    def decode(clip_id: str) -> Tensor:
        return torch.from_numpy(clips[place[clip_id]].video)

    def make(ids: list[str]) -> Iterator[tuple[str, Tensor]]:
        size = max(1, BATCH_PIXELS // _pixels(clips.buckets[place[ids[0]]]))
        for start in range(0, len(ids), size):
            chosen = ids[start : start + size]
            videos = list(decoders.map(decode, chosen))
            yield from zip(chosen, encode(to_video(torch.stack(videos))).half().cpu().unbind())

    with ThreadPoolExecutor(os.cpu_count()) as decoders:  # FFmpeg lets go of the interpreter
        store = fill(folder, _units(clips, shard_clips), make, progress)
    one_of = dict(zip(clips.buckets, clips.ids))
    shapes = {bucket: tuple(store.read(clip_id).shape) for bucket, clip_id in one_of.items()}
    entries = [
        Latent(clip_id, caption, part, bucket, shapes[bucket], store.shard_of[clip_id], changes, led, rows)
        for clip_id, caption, part, bucket, changes, led, rows in zip(
            clips.ids, clips.captions, clips.parts, clips.buckets, clips.changes, clips.led, clips.actions
        )
    ]
    _write_index(_index_file(Path(folder), clips.config), stamp, clips.config, entries, clips.vocabulary)
    return entries


def known_latents(folder: str | Path, config: ClipConfig) -> list[Latent] | None:
    """The clips of a data configuration that are all encoded and whose files are as they were, or gone; else None.

    Raises: DataError if the files are gone, and some latents too.
    """
    path = _index_file(Path(folder), config)
    if not path.exists():
        return None
    stamp, entries = read_index(path)
    gone = not is_there(config.folder)
    if not gone and stamp != stamp_of(config):
        return None
    missing = {entry.shard for entry in entries} - Store(folder).shards()
    if missing and gone:
        raise DataError(
            f"{path.parent}: lacks {len(missing)} shards, and {config.folder} holds no videos to encode anew; restore either"
        )
    return None if missing else entries


def read_index(path: Path) -> tuple[str, list[Latent]]:
    """The stamp and the clips of an index. Raises: DataError if it is damaged."""
    try:
        first, *rows = map(json.loads, path.read_text(encoding="utf-8").rstrip("\n").split("\n"))
        stamp = first["stamp"]
        entries = [
            Latent(
                **row
                | {name: tuple(row[name]) for name in ("shape", "bucket")}
                | {"changes": tuple((int(frame), str(text)) for frame, text in row.get("changes", ()))}
                | {"actions": tuple(tuple(map(float, done)) for done in row.get("actions", ()))}
            )
            for row in rows
        ]
    except (ValueError, TypeError, KeyError):
        raise DataError(f"{path}: damaged; delete the file and encode again") from None
    return stamp, entries


def known_vocabulary(folder: str | Path, config: ClipConfig) -> Vocabulary | None:
    """What the actions of clips that are encoded mean; None if they have none. Raises: DataError, ConfigError if it is damaged."""
    path = _index_file(Path(folder), config)
    with path.open(encoding="utf-8") as file:
        found = json.loads(file.readline()).get("vocabulary")
    return found and validate(Vocabulary, found, source=str(path))


def stamp_of(config: ClipConfig) -> str:
    """Changes when a file of the folder is added, removed or written, or its caption, actions or quarantine change."""
    digest = hashlib.blake2b(digest_size=8)
    if is_prepared(config.folder):
        digest.update(manifest_bytes(config.folder))
        digest.update(json.dumps(sorted(quarantined(config.folder))).encode())
        return digest.hexdigest()
    found = look(config.folder)
    refuse_faults(found)
    if found.vocabulary:
        digest.update(found.vocabulary.model_dump_json().encode())
    for source in found.sources:
        if isinstance(source.actions, Path) and source.actions.is_file():
            done = source.actions.stat()
            digest.update(json.dumps([source.actions.name, done.st_size, done.st_mtime_ns]).encode())
        status = cast(Path, source.path).stat()  # in shards lies what is prepared alone
        said = [source.caption, *([source.changes] if source.changes else []), *(["led"] if source.led else [])]
        digest.update(json.dumps([source.name, *said, status.st_size, status.st_mtime_ns]).encode())
    digest.update(json.dumps(sorted(quarantined(config.folder))).encode())
    return digest.hexdigest()


class LatentSet:
    """Latents by index: a map-style data set."""

    def __init__(self, folder: str | Path, entries: Sequence[Latent], vocabulary: Vocabulary | None = None):
        self.folder, self.entries = Path(folder), list(entries)
        self.vocabulary = vocabulary
        """What the clips' actions mean; None = they have none."""
        self.ended = self.folder.name.endswith(ENDED)
        """Whether there is an `ending` of each clip."""
        self.pictured = self.folder.name.endswith(PICTURED)
        """Whether there are latents of what is known of each clip: its `picture`."""
        self._store = Store(self.folder)

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> Tensor:
        """(c, f, h, w) float32."""
        return self._read(index)[:, : self.frames(index)]

    def ending(self, index: int) -> Tensor:
        """(c, 1, h, w) float32, the clip's last frame as a still picture; of a set that is `ended`."""
        return self._read(index)[:, -1:]

    def clip_id(self, index: int) -> str:
        return self.entries[index].clip_id

    def picture(self, index: int) -> Tensor:
        """(c, f, h, w) float32, of the clip's first frame with nothing behind it; of a set that is `pictured`."""
        return self._read(index)[:, self.frames(index) :]

    def actions(self, index: int) -> Tensor:
        """(pixel frames, a) float32, keys 0 or 1 and axes in [-1, 1]; of a set with a `vocabulary`."""
        assert self.vocabulary is not None
        return torch.from_numpy(scaled(np.array(self.entries[index].actions), self.vocabulary))

    def led(self, index: int) -> bool:
        """Whether training always shows the clip's ending."""
        return self.entries[index].led

    def caption(self, index: int) -> str:
        """At the clip's start."""
        return self.entries[index].caption

    def captions(self, index: int) -> list[tuple[int, str]]:
        """(latent frame, caption), each of which holds from that frame on; the first from frame 0."""
        entry, f = self.entries[index], self.frames(index)
        stride = (entry.bucket[0] - 1) // max(1, f - 1) or 1
        # a change holds from the first latent frame all of whose pixel frames show it
        later = [(-(-(frame - 1) // stride) + 1, text) for frame, text in entry.changes]
        return list(dict([(0, entry.caption), *((at, text) for at, text in later if at < f)]).items())

    def frames(self, index: int) -> int:
        """Latent frames of a clip."""
        return self._bucket(self.entries[index])[0]

    @property
    def buckets(self) -> list[Bucket]:
        """(f, h, w) of each clip's latents."""
        return [self._bucket(entry) for entry in self.entries]

    def _bucket(self, entry: Latent) -> Bucket:
        f, h, w = entry.shape[1:]
        return (f // 2 if self.pictured else f - self.ended), h, w

    def _read(self, index: int) -> Tensor:
        entry = self.entries[index]
        return self._store.read(entry.clip_id, entry.shard).float()


def _units(clips: Clips, shard_clips: int) -> list[list[str]]:
    """The clips, each once, as shards of one size each."""
    units = []
    for bucket in dict.fromkeys(clips.buckets):
        ids = list(dict.fromkeys(clip_id for clip_id, b in zip(clips.ids, clips.buckets) if b == bucket))
        size = max(1, min(shard_clips, SHARD_PIXELS // _pixels(bucket)))
        units += [ids[start : start + size] for start in range(0, len(ids), size)]
    return units


def _pixels(bucket: Bucket) -> int:
    return bucket[0] * bucket[1] * bucket[2]


def _index_file(folder: Path, config: ClipConfig) -> Path:
    later = {name for name in LATER if getattr(config, name) == ClipConfig.model_fields[name].default}
    digest = hashlib.blake2b(config.model_dump_json(exclude=later).encode(), digest_size=8).hexdigest()
    return folder / f"index-{digest}.jsonl"


def _write_index(
    path: Path, stamp: str, config: ClipConfig, entries: list[Latent], vocabulary: Vocabulary | None
) -> None:
    """Whole or not at all; of several processes that end at once, the last one's stays, which is the same."""
    head = {"stamp": stamp, "data": config.model_dump(mode="json")}
    if vocabulary is not None:
        head["vocabulary"] = vocabulary.model_dump(mode="json")
    rows = [head, *map(asdict, entries)]
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
