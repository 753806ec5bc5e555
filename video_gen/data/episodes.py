"""Episodes of robot data sets, whatever they are read from, and what their readers have in common."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from video_gen.errors import ConfigError, DataError
from video_gen.vocabulary import Vocabulary


@dataclass(frozen=True)
class Episode:
    """What an importer tells of an episode."""

    name: str
    source: Path
    """The file that holds its rows."""
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
    """The ranges of its axes are those of all episodes, whichever are imported."""
    episodes: Sequence[Episode]
    notes: list[str]


def check_rows(rows: Sequence[np.ndarray], names: Sequence[str], told: Sequence[str]) -> None:
    """Raises: DataError for an episode without rows (f, a), with other columns than `names`, or with a number that is none.

    Args: told: the file and the name of each episode.
    """
    for each, where in zip(rows, told):
        if not len(each):
            raise DataError(f"{where}: has no rows of actions; copy it again, or take it out of the data set")
        if each.shape[1] != len(names):
            raise DataError(
                f"{where}: has {each.shape[1]} numbers an action, and the first episode {len(names)}; it is damaged: copy it again"
            )
        if len(wrong := np.argwhere(~np.isfinite(each))):
            row, column = wrong[0]
            raise DataError(
                f"{where}: '{names[column]}' of action {row} is {each[row, column]}, and no number; mend the data set, or take "
                "that episode out of it"
            )


def axes_of(names: Sequence[str], rows: Sequence[np.ndarray]) -> list[dict[str, Any]]:
    """Levels whose ranges are those of all rows (f, a), as `Vocabulary` takes them."""
    low, high = np.min([each.min(0) for each in rows], 0), np.max([each.max(0) for each in rows], 0)
    still = high <= low
    low, high = np.where(still, low - 1, low), np.where(still, high + 1, high)
    return [{"name": name, "low": float(a), "high": float(b)} for name, a, b in zip(names, low, high)]


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
