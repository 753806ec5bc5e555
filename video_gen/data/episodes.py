"""Episodes of robot data sets, whatever they are read from, and what their readers have in common."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from video_gen.errors import ConfigError, DataError
from video_gen.vocabulary import Axis, Vocabulary


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
