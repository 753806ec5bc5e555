"""The files that a video begins with, or is made of, as frames at a model's size. No more is decoded than is used."""

from pathlib import Path

import numpy as np

from video_gen.data.video_file import iterate_frames, probe
from video_gen.data.video_info import frames_at
from video_gen.data.views import fit
from video_gen.errors import DataError, ShapeError


def read_picture(path: Path, otherwise: str, size: tuple[int, int]) -> np.ndarray:
    """A still picture, uint8 (h, w, 3). Raises: DataError, which says the option for what moves."""
    if probe(path).kind != "image":
        raise DataError(f"{path}: has several frames; give a still picture, or a video as {otherwise}")
    return fit(next(iterate_frames(path, [0.0])), *size)


def read_start(
    path: Path, fps: float, size: tuple[int, int], stride: int, num_frames: int | None = None
) -> tuple[np.ndarray, str | None]:
    """The end of a video, to go on from: 1 + a multiple of the VAE's `stride` frames at `fps`.

    Args: num_frames: of the whole that is to be made, None = there is no end.
    Returns: uint8 (f, h, w, 3), and what is to be said of frames left out at its start, if there are any.
    Raises: DataError; ShapeError, before anything is decoded, if it is as long as the whole.
    """
    total = count(path, fps)
    left_out = (total - 1) % stride
    if num_frames is not None and num_frames <= total - left_out:
        raise ShapeError(
            f"{path}: has {total} frames at {fps:g} per second and num_frames, the whole with them, is {num_frames}; "
            f"ask for more, such as --num-frames {total - left_out + 4 * stride}, or give a shorter video"
        )
    note = told(path, total, total - left_out, "last", stride) if left_out else None
    return read_at(path, fps, range(left_out, total), size), note


def read_source(
    path: Path, fps: float, size: tuple[int, int], stride: int, num_frames: int | None = None
) -> tuple[np.ndarray, str | None]:
    """The first `num_frames` of a video at `fps`; None = all, but those at the end that the VAE's `stride` has no place for.

    Returns: uint8 (f, h, w, 3), and what is to be said of frames left out, if there are any.
    """
    total = count(path, fps)
    if num_frames is not None:
        return read_at(path, fps, range(min(num_frames, total)), size), None
    left_out = (total - 1) % stride
    note = told(path, total, total - left_out, "first", stride) if left_out else None
    return read_at(path, fps, range(total - left_out), size), note


def count(path: Path, fps: float) -> int:
    """Frames of a file at a rate; one at least."""
    return max(1, frames_at(probe(path), fps))


def read_at(path: Path, fps: float, numbers: range, size: tuple[int, int]) -> np.ndarray:
    """Frames by number at `fps`, each made as large as the model's before the next is decoded: uint8 (f, h, w, 3)."""
    return np.stack([fit(frame, *size) for frame in iterate_frames(path, [i / fps for i in numbers])])


def told(path: Path, total: int, used: int, which: str, stride: int) -> str:
    return (
        f"{path}: the {which} {used} of its {total} frames are used; "
        f"this model's VAE takes 1 + a multiple of {stride} (1, {1 + stride}, {1 + 2 * stride}, ...)"
    )
