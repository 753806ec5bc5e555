"""The actions of clips as numbers, (frames, actions), and how they are read and written (`action_files.py` tells where).

Line t is what was done between frame t and frame t + 1; that of the last frame counts for nothing. No torch.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np

from video_gen.data.action_files import FILE, beside
from video_gen.data.packed import Packed
from video_gen.errors import DataError
from video_gen.files import read_lines, write_text
from video_gen.vocabulary import Vocabulary, read_action

SAME_RATE = 0.01
"""Share by which the rate of a video may differ from that of its actions: what containers round."""
HALF = 0.5
"""Frames by which one may come earlier or later than at an even rate: what containers and clocks round."""


def read_actions(path: Path | Packed, vocabulary: Vocabulary, said_in: str = FILE) -> np.ndarray:
    """The lines of an actions file, (f, a) float64: 0 or 1 for keys, axes in their own units.

    Args: said_in: where the vocabulary stands, for messages.
    Raises: DataError that names the line, what does not fit and what would.
    """
    lines = path.read().decode().split("\n") if isinstance(path, Packed) else read_lines(path)
    while lines and not lines[-1].strip():
        lines.pop()
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(read_action(line, vocabulary))
        except ValueError as error:
            raise DataError(f"{path}, line {number}: {error}; correct the line, or {said_in}") from None
    return np.array(rows, dtype=np.float64).reshape(len(rows), vocabulary.size)


def actions_of(
    path: Path | Packed,
    video: str,
    vocabulary: Vocabulary,
    num_frames: int,
    fps: float,
    *,
    times: Sequence[float] | np.ndarray = (),
    said_in: str = FILE,
) -> np.ndarray:
    """The actions of a video of so many frames.

    Args:
        path: of the actions; `video`: what their video is called; `said_in`: where the vocabulary stands, for messages.
        times: of the frames, in seconds, from which it is seen whether they come at an even rate; empty = they do.
    Raises: DataError if there are none, or they do not fit it.
    """
    if isinstance(path, Path) and not path.is_file():
        raise DataError(
            f"{video}: has no {path.name} beside it, and there is {said_in}; add it, or move the video elsewhere"
        )
    rows = read_actions(path, vocabulary, said_in)
    if len(rows) != num_frames:
        raise DataError(
            f"{path}: has {len(rows)} lines, and {PurePath(video).name} has {num_frames} frames; write a line for each frame, the "
            "last one counts for nothing"
        )
    _check_even(np.asarray(times, dtype=np.float64), video)
    if abs(fps / vocabulary.fps - 1) > SAME_RATE:
        raise DataError(
            f"{video}: has {fps:g} frames a second, and {said_in} says fps {vocabulary.fps:g}; set fps to what the videos have"
        )
    return rows


def _check_even(times: np.ndarray, video: str) -> None:
    """Raises: DataError if a frame comes half a frame or more from where it would at an even rate."""
    if len(times) < 3:
        return
    late = (times - times[0]) * (len(times) - 1) / (times[-1] - times[0]) - np.arange(len(times))
    if np.ptp(late) >= 2 * HALF:  # the first may be early, too
        apart = np.diff(times) * 1000
        raise DataError(
            f"{video}: variable frame rate: its frames are {apart.min():.0f} to {apart.max():.0f} ms apart, and actions are a line "
            "a frame at one rate; encode it at a constant rate, and write a line for each frame of that"
        )


def window(
    rows: np.ndarray, vocabulary: Vocabulary, start: float, frames: int, fps: float, shown_from: np.ndarray
) -> np.ndarray:
    """The actions of a clip of `frames` at `fps` that starts `start` seconds into a video.

    Between two frames of the clip several of the video can lie: keys are or-ed, deltas summed and levels averaged.
    Args: rows: (n, a) of the video; `shown_from`: (n,) seconds from which each of its frames is shown, by its time stamp.
    Returns: (frames, a), the last row zeros.
    """
    times = start + np.arange(frames) / fps
    at = (np.searchsorted(shown_from, times, "right") - 1).clip(0, len(rows) - 1)
    found = np.zeros((frames, vocabulary.size))
    for index, (first, end) in enumerate(zip(at, at[1:])):
        found[index] = merge(rows[first : max(end, first + 1)], vocabulary)
    return found


def merge(rows: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """What several actions (n, a), one after another, are as one (a,)."""
    keys = len(vocabulary.keys)
    merged = np.empty(vocabulary.size)
    merged[:keys] = rows[:, :keys].max(0, initial=0)
    for index, axis in enumerate(vocabulary.axes, keys):
        merged[index] = rows[:, index].sum() if axis.kind == "delta" else rows[:, index].mean()
    return merged


def at_rate(vocabulary: Vocabulary, fps: float) -> Vocabulary:
    """The vocabulary of clips at a rate: a delta can be as large as those of all frames that lie between two of theirs.

    Raises: DataError if the rate is above that of the actions, of which nobody knows what was done in between.
    """
    if fps > vocabulary.fps * (1 + SAME_RATE):
        raise DataError(
            f"fps is {fps:g}, and the actions have {vocabulary.fps:g} a second ({FILE}); set data.fps to that or less"
        )
    most = max(1, int(np.ceil(vocabulary.fps / fps - SAME_RATE)))
    axes = tuple(
        axis.replace(low=min(axis.low, axis.low * most), high=max(axis.high, axis.high * most))
        if axis.kind == "delta"
        else axis
        for axis in vocabulary.axes
    )
    return vocabulary.replace(axes=axes, fps=fps)


def scaled(rows: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """Actions (..., a) as a network sees them, float32: keys as they are, axes from their range to [-1, 1]."""
    low = np.array([0.0] * len(vocabulary.keys) + [axis.low for axis in vocabulary.axes])
    high = np.array([1.0] * len(vocabulary.keys) + [axis.high for axis in vocabulary.axes])
    result = np.array(rows, dtype=np.float64)
    axes = slice(len(vocabulary.keys), None)
    result[..., axes] = 2 * (result[..., axes] - low[axes]) / (high[axes] - low[axes]) - 1
    return result.astype(np.float32)


def write_actions(video: Path, rows: Iterable[Sequence[float] | np.ndarray], vocabulary: Vocabulary) -> Path:
    """Write the actions (f, a) of a video beside it, whole or not at all."""
    lines = []
    for row in rows:
        action = vocabulary.action(list(row))
        axes = {"axes": action.axes} if vocabulary.axes else {}
        lines.append(json.dumps({"keys": list(action.keys)} | axes))
    write_text(beside(video), "".join(f"{line}\n" for line in lines))
    return beside(video)


# -------------------- what a folder's actions are like


@dataclass(frozen=True)
class Usage:
    """How a key is used, or, of no key held, how long nothing is."""

    share: float
    """Of the frames."""
    presses: int
    longest: int
    """Frames."""
    mean: float


def usage(held: Sequence[np.ndarray]) -> Usage:
    """Of the frames (f,) bool of each video in which a key is held."""
    lengths: list[int] = []
    for each in held:
        edges = np.flatnonzero(np.diff(np.concatenate([[0], each.astype(np.int8), [0]])))
        lengths += (edges[1::2] - edges[::2]).tolist()
    frames = sum(len(each) for each in held)
    return Usage(
        sum(lengths) / max(1, frames),
        len(lengths),
        max(lengths, default=0),
        float(np.mean(lengths)) if lengths else 0.0,
    )
