"""Clips as latents on disk, so that the transformer's training never waits for a decoder or the VAE.

A latent folder holds shards of one shape each, `00000.safetensors` ... with a tensor `latents` (n, c, f, h, w) float16, and
`index.jsonl`: per clip its id (content hash and window), caption, shard and row. Where the latents come from is told by
the folder's name, which the caller makes of the encoder's fingerprint, and by the ids: the same clip is never encoded twice.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from video_gen.data.clips import Clips, to_video
from video_gen.errors import DataError

SHARD_CLIPS = 512


@dataclass(frozen=True)
class Latent:
    """Where a clip's latents are."""

    clip_id: str
    caption: str
    shard: str
    row: int
    shape: tuple[int, ...]
    """(c, f, h, w)"""


def fingerprint(*files: Path) -> str:
    """16 hexadecimal digits that change when any of the files does: of an encoder's config and weights."""
    digest = hashlib.blake2b(digest_size=8)
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def read_index(folder: Path) -> list[Latent]:
    """The clips of a latent folder, in order of encoding; empty if there are none. Raises: DataError if it is damaged."""
    path = folder / "index.jsonl"
    if not path.exists():
        return []
    entries = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        try:
            row = json.loads(line)
            entries.append(Latent(**row | {"shape": tuple(row["shape"])}))
        except (ValueError, TypeError, KeyError):
            raise DataError(f"{path}, line {number}: not an entry; delete the folder and encode again") from None
    return entries


def encode_clips(
    clips: Clips,
    encode: Callable[[Tensor], Tensor],
    folder: Path,
    batch_size: int = 16,
    progress: Callable[[int, int], None] | None = None,
) -> list[Latent]:
    """Encode every clip that the folder does not have yet.

    Args:
        encode: video (b, c, f, h, w) in [-1, 1] to latents (b, c, f', h', w').
        progress: called with (done, total) clips.
    Returns: the entries of `clips`, in their order.
    Raises: DataError if a file cannot be read; what was encoded before stays.
    """
    folder.mkdir(parents=True, exist_ok=True)
    known = {entry.clip_id: entry for entry in read_index(folder)}
    missing = [i for i, clip_id in enumerate(clips.ids) if clip_id not in known]
    done = len(clips) - len(missing)
    pending: list[tuple[str, str, Tensor]] = []
    for indices in _batches(clips, missing, batch_size):
        chosen = [clips[i] for i in indices]
        latents = encode(to_video(torch.stack([torch.from_numpy(clip.video) for clip in chosen]))).half().cpu()
        if pending and pending[0][2].shape != latents.shape[1:]:
            known |= _write_shard(folder, pending, len(known))
            pending = []
        pending += [(clip.clip_id, clip.caption, z) for clip, z in zip(chosen, latents)]
        if len(pending) >= SHARD_CLIPS:
            known |= _write_shard(folder, pending, len(known))
            pending = []
        done += len(indices)
        if progress:
            progress(done, len(clips))
    if pending:
        known |= _write_shard(folder, pending, len(known))
    return [known[clip_id] for clip_id in clips.ids]


class LatentSet:
    """Latents by index: a map-style data set over a latent folder.

    Args:
        entries: which clips, or None for all of the folder.
    Raises: DataError if the folder holds none, or a shard is missing or damaged.
    """

    def __init__(self, folder: str | Path, entries: Sequence[Latent] | None = None):
        self.folder = Path(folder)
        self.entries = list(read_index(self.folder) if entries is None else entries)
        if not self.entries:
            raise DataError(f"{self.folder}: no latents; run `video-gen data encode` first")
        self._open = ExitStack()
        self._shards: dict[str, Any] = {}
        for shard in {entry.shard for entry in self.entries}:
            try:
                opened = self._open.enter_context(safe_open(self.folder / shard, "pt"))
                self._shards[shard] = opened.get_slice("latents")
            except (OSError, SafetensorError) as error:
                raise DataError(
                    f"{self.folder / shard}: unreadable ({error}); delete the folder, encode again"
                ) from None

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> Tensor:
        """(c, f, h, w) float32."""
        entry = self.entries[index]
        return self._shards[entry.shard][entry.row].float()

    def caption(self, index: int) -> str:
        return self.entries[index].caption

    @property
    def buckets(self) -> list[tuple[int, int, int]]:
        """(f, h, w) of each clip."""
        return [(e.shape[1], e.shape[2], e.shape[3]) for e in self.entries]


def _batches(clips: Clips, indices: list[int], size: int) -> Iterator[list[int]]:
    """Runs of neighbours of one shape, at most `size` long."""
    run: list[int] = []
    for index in indices:
        if run and (len(run) == size or clips.buckets[run[0]] != clips.buckets[index]):
            yield run
            run = []
        run.append(index)
    if run:
        yield run


def _write_shard(folder: Path, items: list[tuple[str, str, Tensor]], before: int) -> dict[str, Latent]:
    """Shard first, index after: a kill in between leaves an orphan that the next shard of that number replaces."""
    shard = f"{before:08d}.safetensors"
    latents = torch.stack([z for _, _, z in items])
    temporary = folder / f".new-{shard}"
    save_file({"latents": latents}, temporary)
    os.replace(temporary, folder / shard)
    entries = [
        Latent(clip_id, text, shard, row, tuple(latents.shape[1:])) for row, (clip_id, text, _) in enumerate(items)
    ]
    with (folder / "index.jsonl").open("a") as file:
        file.writelines(json.dumps(vars(entry)) + "\n" for entry in entries)
        file.flush()
        os.fsync(file.fileno())
    return {entry.clip_id: entry for entry in entries}
