"""A folder of videos and images as clips: windows of a fixed number of frames, rate and size, with captions.

Nothing is skipped in silence: what `video-gen data check` quarantined, and what is too short, is named in `Clips.messages`;
any other bad file is an error.
"""

import copy
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import torch
from torch import Tensor

from video_gen.data.action_files import FILE
from video_gen.data.actions import actions_of, at_rate, window
from video_gen.data.config import Bucket, ClipConfig, bucket_name
from video_gen.data.container import slack_of
from video_gen.data.folder import Source, content_hash, held_out, look, quarantined, refuse_faults
from video_gen.data.metadata import Changes
from video_gen.data.packed import File, within
from video_gen.data.video_file import iterate_frames, probe, shown_from
from video_gen.data.video_info import VideoInfo, frames_at
from video_gen.data.views import MIDDLE, View, fit, views_of
from video_gen.data.windows import best_bucket, windows
from video_gen.errors import ConfigError, DataError, ShapeError
from video_gen.vocabulary import Vocabulary

Side = Literal["train", "validation"]
Rows = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Clip:
    video: np.ndarray
    """(f, h, w, 3) uint8"""
    caption: str
    clip_id: str
    """Of the file's content, the window, the size and the view: the same frames have the same id, wherever they lie, however
    called."""
    source: File


# -------------------- clips


class Clips:
    """The clips of a folder: `clips[i]` decodes one.

    Args:
        part: `train`, `validation` (held out by content), or `all`.
        progress: is told (done, total) files; each is read whole, for its hash.
    Raises: DataError if a file cannot be read that is not in quarantine, or if no clip is left; ConfigError if it does not fit.
    """

    def __init__(
        self,
        config: ClipConfig,
        part: Literal["train", "validation", "all"] = "all",
        progress: Callable[[int, int], None] | None = None,
    ):
        self.config = config
        self.messages: list[str] = []
        """Files that are left out, and why."""
        self.notes: list[str] = []
        """What else lies in the folder and is not read."""
        self.captions: list[str] = []
        """At the start of each clip."""
        self.changes: list[tuple[tuple[int, str], ...]] = []
        """(frame, caption) of each clip: from that frame on the caption holds."""
        self.led: list[bool] = []
        """Whether training always shows the clip's last frame."""
        self.actions: list[Rows] = []
        """(frames, a) of each clip: row t is what is done between frame t and frame t + 1, in its own units. Empty without any."""
        self.ids: list[str] = []
        self.parts: list[Side] = []
        """On which side of the split each clip is."""
        self.buckets: list[Bucket] = []
        """(frames, height, width) of each clip."""
        self._windows: list[tuple[Source, float, View]] = []
        self._room = 0
        self._kept: dict[int, np.ndarray] = {}
        bad = quarantined(config.folder)
        sources, found = [], look(config.folder)
        refuse_faults(found)
        self.notes, self._vocabulary = found.notes, found.vocabulary
        self.vocabulary: Vocabulary | None = found.vocabulary and at_rate(found.vocabulary, config.fps)
        """What the actions mean, at the rate of the clips."""
        if config.flip and self._vocabulary is not None:
            raise ConfigError(
                f"data.flip: {config.folder} has actions, such as {self._vocabulary.names[0]}, which mirroring would make wrong; "
                "leave it out"
            )
        for source in found.sources:
            if source.name in bad:
                self.messages.append(f"{source.name}: in quarantine ({bad[source.name]})")
            else:
                sources.append(source)
        hashes = {s.name: s.digest or content_hash(s.path) for s in sources}
        origins = {s.name: s.origin or hashes[s.name] for s in sources}
        held = held_out(((s.known_as, origins[s.name]) for s in sources), config)
        for done, source in enumerate(sources, 1):
            side = "validation" if origins[source.name] in held else "train"
            if part in ("all", side):
                self._add(source, hashes[source.name], side)
            if progress:
                progress(done, len(sources))
        self._check_not_empty(part)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Clip:
        video = self._kept.get(index)
        if video is None:
            video = self._decode(index)
            if video.nbytes <= self._room:
                self._room -= video.nbytes
                video.flags.writeable = False  # whoever gets it next must find it as it was
                self._kept[index] = video
        return Clip(video, self.captions[index], self.ids[index], self._windows[index][0].path)

    def _decode(self, index: int) -> np.ndarray:
        source, start, view = self._windows[index]
        config, (frames, height, width) = self.config, self.buckets[index]
        times = [start + i / config.fps for i in range(frames)]
        try:
            video = np.stack([fit(frame, height, width, view) for frame in iterate_frames(source.path, times)])
        except DataError as error:
            raise DataError(f"{error}; `video-gen data check {config.folder}` quarantines such files") from None
        return video

    @property
    def sources(self) -> list[str]:
        """The file of each clip, relative to the folder."""
        return [source.name for source, *_ in self._windows]

    def name(self, index: int) -> str:
        """The file of a clip, relative to the folder."""
        return self._windows[index][0].name

    def only(self, side: Side, keep_bytes: int = 0) -> Self:
        """Those of one side, without reading the files again. Raises: DataError if there is none to train on.

        Args: keep_bytes: keep so much of what is decoded in memory, so that a small folder is decoded once, not every epoch.
        """
        other = copy.copy(self)
        other._room, other._kept = keep_bytes, {}
        kept = [i for i, found in enumerate(self.parts) if found == side]
        for name in ("captions", "changes", "led", "actions", "ids", "parts", "buckets", "_windows"):
            values = getattr(self, name)
            setattr(other, name, [values[i] for i in kept])
        if side == "train":  # that nothing is held out is for the caller to say
            other._check_not_empty(side)
        return other

    def _check_not_empty(self, part: str) -> None:
        if self.ids:
            return
        why = f"; for example: {self.messages[0]}" if self.messages else ""
        frames = min(size[0] for size in self.config.sizes)
        raise DataError(
            f"{self.config.folder}: no clip of {frames} frames at {self.config.fps:g} fps for {part}{why}; lower "
            "num_frames or add files"
        )

    def _add(self, source: Source, digest: str, part: Side) -> None:
        config = self.config
        try:
            info = source.info or probe(source.path)
        except DataError as error:
            raise DataError(f"{error}; `video-gen data check {config.folder}` quarantines such files") from None
        bucket = best_bucket(info, config)
        if bucket is None:
            have, frames = frames_at(info, config.fps), min(size[0] for size in config.sizes)
            self.messages.append(
                f"{source.name}: shorter than one clip ({have} of {frames} frames at {config.fps:g} fps)"
            )
            return
        known = self._actions_of(source, info)
        for start in windows(info, config, bucket):
            name = f"{digest}-{start:.4f}-{config.fps:g}-{bucket_name(bucket)}"
            caption, changes = said_in(source.caption or "", source.changes, start, bucket[0], config.fps)
            done = self._window(known, start, bucket[0])
            for view in views_of(name, info, bucket, config) if part == "train" else [MIDDLE]:
                self._windows.append((source, start, view))
                self.captions.append(caption)
                self.changes.append(changes)
                self.led.append(source.led)
                self.actions.append(done)
                self.ids.append(name + view.suffix)
                self.parts.append(part)
                self.buckets.append(bucket)

    def _actions_of(self, source: Source, info: VideoInfo) -> tuple[np.ndarray, np.ndarray] | None:
        """The actions of a video, and from when on each of its frames is shown; of a still picture nothing is done."""
        if source.actions is None or self._vocabulary is None or info.kind == "image":
            return None
        if source.info is None:
            times = shown_from(source.path)
        else:  # what is prepared has frames at an even rate
            times = np.arange(info.num_frames) * info.duration / info.num_frames - slack_of(info.tick)
        told, fps = within(self.config.folder, FILE), info.fps
        rows = actions_of(
            source.actions, str(source.path), self._vocabulary, info.num_frames, fps, times=times, said_in=told
        )
        return rows, times

    def _window(self, known: tuple[np.ndarray, np.ndarray] | None, start: float, frames: int) -> Rows:
        """The actions of a clip."""
        if self._vocabulary is None:
            return ()
        if known is None:
            return ((0.0,) * self._vocabulary.size,) * frames
        rows, times = known
        found = window(rows, self._vocabulary, start, frames, self.config.fps, times)
        return tuple(tuple(row) for row in found.tolist())


def videos_of(clips: Clips, indices: Sequence[int], threads: int = 1) -> np.ndarray:
    """(b, f, h, w, 3) uint8 of clips of one size, decoded by so many threads: FFmpeg lets go of the interpreter."""
    if threads == 1:
        return np.stack([clips[i].video for i in indices])
    with ThreadPoolExecutor(threads) as decoders:
        return np.stack(list(decoders.map(lambda i: clips[i].video, indices)))


def said_in(
    caption: str, changes: Changes, start: float, frames: int, fps: float
) -> tuple[str, tuple[tuple[int, str], ...]]:
    """The caption at the start of a window of `frames` at `fps`, and the changes in it by the first frame that shows them."""
    within = []
    for time, text in changes:
        frame = math.ceil((time - start) * fps - 1e-6)
        if frame <= 0:
            caption = text
        elif frame < frames:
            within.append((frame, text))
    return caption, tuple(dict(within).items())


def spread(buckets: list[Bucket], count: int) -> list[int]:
    """At most `count` evenly spread indices of the longest clips, and among those of the most common size: what stands for
    a data set of clips does not become one of stills by adding some."""
    if not buckets:
        return []
    chosen = max(set(buckets), key=lambda bucket: (bucket[0], buckets.count(bucket)))
    indices = [i for i, bucket in enumerate(buckets) if bucket == chosen]
    return [
        indices[i] for i in np.unique(np.linspace(0, len(indices) - 1, min(count, len(indices))).round().astype(int))
    ]


def fit_frames(frames: object, height: int, width: int) -> np.ndarray:
    """`fit` of each of (f, h, w, 3) uint8. Raises: ShapeError if they are something else."""
    return np.stack([fit(frame, height, width) for frame in checked_frames(frames, 4)])


def checked_frames(frames: object, dimensions: int) -> np.ndarray:
    """Frames (..., h, w, 3) uint8 as they are. Raises: ShapeError if they are something else, or there are none."""
    wanted = f"({'n, ' * (dimensions - 4)}f, h, w, 3) uint8 RGB"
    if not isinstance(frames, np.ndarray):
        raise ShapeError(f"frames are {frames!r:.60}; give an array, {wanted}, and of a file what it holds")
    if frames.ndim != dimensions or frames.shape[-1] != 3 or frames.dtype != np.uint8 or not frames.size:
        raise ShapeError(f"frames must be {wanted}, got {frames.shape} {frames.dtype}")
    return frames


def to_video(frames: Tensor) -> Tensor:
    """uint8 (b, f, h, w, 3) to float (b, 3, f, h, w) in [-1, 1]."""
    return frames.movedim(-1, 1).float() / 127.5 - 1


def to_frames(video: Tensor) -> np.ndarray:
    """float (3, f, h, w) in [-1, 1] to uint8 (f, h, w, 3); values outside are clamped."""
    return ((video.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).movedim(0, -1).cpu().numpy()
