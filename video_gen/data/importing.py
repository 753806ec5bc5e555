"""Robot data sets as folders of clips with actions: LeRobot's and Minari's. `lerobot.py` and `minari.py` read them.

A frame is known by its index, never by a time stamp in floating point: a frame's time is its index over the rate, by design.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from video_gen.data.actions import beside, write_actions, write_vocabulary
from video_gen.data.clips import fit
from video_gen.data.video_writer import write_video
from video_gen.errors import ConfigError, DataError
from video_gen.files import explained, write_text, written
from video_gen.vocabulary import Axis, Vocabulary

CAPTIONS = "metadata.jsonl"


@dataclass(frozen=True)
class Episode:
    """What an importer tells of an episode."""

    name: str
    caption: str
    rows: np.ndarray
    """(f, a), a row for each frame; what the last one says counts for nothing."""
    frames: Callable[[], Iterator[np.ndarray]]
    """Its pictures in order, (h, w, 3) uint8, one for each row."""
    state: dict[str, np.ndarray] = field(default_factory=dict)
    """(f, ...) what else is known of each frame."""


@dataclass(frozen=True)
class Dataset:
    """What an importer found."""

    vocabulary: Vocabulary
    episodes: Sequence[Episode]
    notes: list[str]


def import_folder(
    kind: Literal["lerobot", "minari"],
    folder: Path,
    output: Path,
    camera: str | None = None,
    episodes: int | None = None,
    height: int | None = None,
    width: int | None = None,
    fps: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[int, list[str]]:
    """Write the episodes that `output` does not have yet as clips with actions, captions and state.

    Returns: how many clips there are, and what is to be said.
    Raises: DataError if it is no such data set, or damaged; ConfigError if an option does not fit it, or a library is missing.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; give that of the data set")
    try:
        if kind == "lerobot":
            from video_gen.data.lerobot import read
        else:
            from video_gen.data.minari import read
        found = read(folder, camera, episodes, fps)
    except ImportError as error:
        raise ConfigError(
            f"data import {kind}: {error.name} is not installed; pip install 'video-gen[robots]'"
        ) from None
    with explained(output):
        output.mkdir(parents=True, exist_ok=True)
    write_vocabulary(output, found.vocabulary)
    captions = []
    for done, episode in enumerate(found.episodes, 1):
        video = output / f"{episode.name}.mp4"
        if not (video.exists() and beside(video).exists()):
            _write(video, episode, found.vocabulary, height, width)
        captions.append(json.dumps({"file_name": video.name, "text": episode.caption}) + "\n")
        if progress:
            progress(done, len(found.episodes))
    write_text(output / CAPTIONS, "".join(captions))
    return len(found.episodes), found.notes


def _write(video: Path, episode: Episode, vocabulary: Vocabulary, height: int | None, width: int | None) -> None:
    frames = []
    with closing(episode.frames()) as pictures:  # type: ignore[type-var]
        for picture in pictures:
            h, w = height or picture.shape[0] // 2 * 2, width or picture.shape[1] // 2 * 2
            frames.append(fit(picture, h, w))
    if len(frames) != len(episode.rows):
        raise DataError(
            f"{episode.name}: has {len(frames)} pictures and {len(episode.rows)} rows of actions; the data set is damaged, or "
            "still being written: copy it again"
        )
    if episode.state:
        state = video.parent / "state" / f"{video.stem}.npz"
        with written(state) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **episode.state)  # type: ignore[arg-type]
    write_actions(video, episode.rows, vocabulary)
    write_video(video, np.stack(frames), vocabulary.fps, crf=8, metadata={"caption": episode.caption})


def axes_of(names: Sequence[str], rows: Sequence[np.ndarray]) -> tuple[Axis, ...]:
    """Levels whose ranges are those of all rows (f, a). Raises: DataError if there is a number that is none."""
    every = np.concatenate([np.asarray(each, dtype=np.float64) for each in rows])
    if not np.isfinite(every).all():
        column = int(np.argwhere(~np.isfinite(every))[0][1])
        raise DataError(
            f"actions of '{names[column]}' hold numbers that are not finite; mend or leave out that episode"
        )
    low, high = every.min(0), every.max(0)
    still = high <= low
    low, high = np.where(still, low - 1, low), np.where(still, high + 1, high)
    return tuple(Axis(name=name, low=float(a), high=float(b)) for name, a, b in zip(names, low, high))


def flat_names(said: Any, count: int, otherwise: str) -> list[str]:
    """Names of so many numbers, however they are nested; numbered where they don't say as many. Each is there once."""
    flat: list[str] = []

    def collect(part: Any) -> None:
        if isinstance(part, str):
            flat.append(part)
        elif isinstance(part, dict):
            collect(list(part.values()) if not all(isinstance(v, int) for v in part.values()) else list(part))
        elif isinstance(part, list | tuple):
            for each in part:
                collect(each)

    collect(said)
    if len(flat) != count or len(set(flat)) != count:
        return [f"{otherwise} {i}" for i in range(count)]
    return flat


def choose_camera(cameras: Sequence[str], wanted: str | None, folder: Path, notes: list[str]) -> str:
    """The camera wanted, or the first. Raises: ConfigError, DataError if there is none such."""
    known = sorted(cameras)
    if not known:
        raise DataError(f"{folder}: holds no pictures: none of its features is a video")
    if wanted is None:
        if len(known) > 1:
            notes.append(f"camera {known[0]} of {', '.join(known)}; --camera takes another one")
        return known[0]
    chosen = [name for name in known if wanted in (name, name.rpartition(".")[2])]
    if not chosen:
        raise ConfigError(f"camera '{wanted}': there is {', '.join(known)}")
    return chosen[0]
