"""Minari data sets whose observations are pictures, as HDF5 or Arrow. An observation more than actions: before and after each."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from video_gen.data.episodes import Dataset, Episode, axes_of, choose_camera
from video_gen.errors import ConfigError, DataError
from video_gen.files import read_text
from video_gen.vocabulary import Axis, Vocabulary

METADATA, HDF5 = "metadata.json", "main_data.hdf5"


def read(folder: Path, camera: str | None, episodes: int | None, fps: float | None) -> Dataset:
    """Raises: DataError, ConfigError; ImportError without h5py, or pyarrow."""
    place = folder / "data" if (folder / "data").is_dir() else folder
    if not (place / METADATA).is_file():
        raise DataError(f"{folder}: has no data/{METADATA}; give the folder of a Minari data set")
    try:
        metadata = json.loads(read_text(place / METADATA))
    except ValueError as error:
        raise DataError(f"{place / METADATA}: damaged ({error}); copy it again") from None
    if (form := metadata.get("data_format", "hdf5")) not in ("hdf5", "arrow"):
        raise DataError(f"{place / METADATA}: data_format is '{form}'; hdf5 and arrow are read: convert it with Minari")
    if fps is None:
        raise ConfigError(
            f"{folder}: Minari's data say no frames a second; give --fps, such as that of the environment"
        )
    notes: list[str] = []
    spaces = {name: _space(metadata.get(name)) for name in ("observation_space", "action_space")}
    if (place / HDF5).is_file():
        cameras, found = _hdf5(place / HDF5, camera, episodes, notes)
    else:
        cameras, found = _arrow(place, spaces["observation_space"], camera, episodes, notes)
    del cameras
    if not found:
        raise DataError(f"{folder}: holds no episodes")
    vocabulary, rows = _actions(spaces["action_space"], [actions for _, actions, _ in found], fps)
    made = []
    for (name, _, frames), row in zip(found, rows):
        last = np.zeros((1, row.shape[1])) if not vocabulary.axes else row[-1:]
        made.append(Episode(name, "", np.concatenate([row, last]), frames))
    return Dataset(vocabulary, made, notes)


Found = list[tuple[str, np.ndarray, Any]]
"""(name, actions (f - 1, ...), a function to pictures) of each episode."""


def _hdf5(path: Path, camera: str | None, episodes: int | None, notes: list[str]) -> tuple[list[str], Found]:
    import h5py

    try:
        file: Any = h5py.File(path, "r")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({' '.join(str(error).split())[:120]}); copy it again") from None
    with file:
        groups = sorted((name for name in file if name.startswith("episode_")), key=lambda name: int(name[8:]))[
            :episodes
        ]
        found: Found = []
        cameras: list[str] = []
        for name in groups:
            group: Any = file[name]
            pictures: dict[str, Any] = {}

            def look(place: str, item: Any, pictures: dict[str, Any] = pictures) -> None:
                if isinstance(item, h5py.Dataset) and _is_picture(item.dtype, item.shape[1:]):
                    pictures[place] = item

            if isinstance(group["observations"], h5py.Dataset):
                look("observations", group["observations"])
            else:
                group["observations"].visititems(look)
            cameras = sorted(pictures)
            chosen = choose_camera(cameras, camera, path, notes if not found else [])
            if not isinstance(group["actions"], h5py.Dataset):
                raise DataError(
                    f"{path}: the actions of {name} are a {type(group['actions']).__name__}; flat ones are read"
                )
            actions = group["actions"][()]
            count = len(pictures[chosen])
            if len(actions) == count:  # padded
                actions = actions[:-1]
            if len(actions) != count - 1:
                raise DataError(f"{path}: {name} has {count} observations and {len(actions)} actions; it is damaged")
            inner = pictures[chosen].name
            found.append((f"episode_{int(name[8:]):06d}", actions, partial(_hdf5_frames, path, inner)))
        return cameras, found


def _hdf5_frames(path: Path, name: str) -> Iterator[np.ndarray]:
    import h5py

    with h5py.File(path, "r") as file:
        pictures: Any = file[name]
        for picture in pictures:
            yield _rgb(np.asarray(picture))


def _arrow(
    place: Path, space: dict[str, Any], camera: str | None, episodes: int | None, notes: list[str]
) -> tuple[list[str], Found]:
    import pyarrow.dataset as arrow

    shapes = dict(_pictures_in(space))
    chosen = choose_camera(list(shapes), camera, place, notes)
    found: Found = []
    folders = sorted(
        (path for path in place.iterdir() if path.is_dir() and path.name.isdecimal()), key=lambda p: int(p.name)
    )
    for folder in folders[:episodes]:
        table = arrow.dataset(folder, format="arrow", ignore_prefixes=["_", ".", METADATA]).to_table()
        batch = table.combine_chunks()
        actions = np.stack(
            [np.asarray(value) for value in batch["actions"].to_pylist()[:-1]]
        )  # the last row is padding
        frames = partial(_arrow_frames, folder, chosen, shapes[chosen])
        found.append((f"episode_{int(folder.name):06d}", actions, frames))
    return list(shapes), found


def _arrow_frames(folder: Path, camera: str, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    import pyarrow.dataset as arrow

    column = arrow.dataset(folder, format="arrow", ignore_prefixes=["_", ".", METADATA]).to_table()["observations"]
    for part in camera.split("/")[1:]:
        column = column.combine_chunks().field(part) if hasattr(column, "combine_chunks") else column.field(part)
    for value in column:
        yield _rgb(np.asarray(value.as_py(), dtype=np.uint8).reshape(shape))


def _pictures_in(space: dict[str, Any], path: str = "observations") -> Iterator[tuple[str, tuple[int, ...]]]:
    if space.get("type") == "Dict":
        for name, inner in space.get("subspaces", {}).items():
            yield from _pictures_in(inner, f"{path}/{name}")
    elif space.get("type") == "Box" and _is_picture(
        np.dtype(space.get("dtype", "float32")), tuple(space.get("shape", ()))
    ):
        yield path, tuple(space["shape"])


def _is_picture(dtype: Any, shape: tuple[int, ...]) -> bool:
    return dtype == np.uint8 and (len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3))) and min(shape[:2]) >= 8


def _rgb(picture: np.ndarray) -> np.ndarray:
    picture = picture if picture.ndim == 3 else picture[..., None]
    return np.repeat(picture, 3, axis=2) if picture.shape[2] == 1 else picture


def _space(said: Any) -> dict[str, Any]:
    found = json.loads(said) if isinstance(said, str) else said
    return found if isinstance(found, dict) else {}


def _actions(space: dict[str, Any], actions: list[np.ndarray], fps: float) -> tuple[Vocabulary, list[np.ndarray]]:
    """The vocabulary, and the rows of each episode."""
    kind = space.get("type")
    if kind == "Discrete" or (kind is None and actions[0].ndim == 1 and actions[0].dtype.kind in "iu"):
        start = int(space.get("start", 0))
        count = int(space.get("n", 1 + max(int(each.max()) for each in actions)))
        keys = tuple(f"action {start + i}" for i in range(count))
        return Vocabulary(keys=keys, fps=fps), [np.eye(count)[each.reshape(-1).astype(int) - start] for each in actions]
    if kind == "MultiBinary":
        rows = [each.reshape(len(each), -1).astype(float) for each in actions]
        return Vocabulary(keys=tuple(f"key {i}" for i in range(rows[0].shape[1])), fps=fps), rows
    if kind in ("Box", None) and all(each.dtype.kind in "fiu" for each in actions):
        rows = [each.reshape(len(each), -1).astype(np.float64) for each in actions]
        names = [f"axis {i}" for i in range(rows[0].shape[1])]
        low, high = (np.asarray(space.get(side, [np.inf]), dtype=float).reshape(-1) for side in ("low", "high"))
        if np.isfinite(low).all() and np.isfinite(high).all() and len(low) == len(names):
            seen = axes_of(names, rows)  # what was done may lie outside of what the space says
            axes = tuple(
                Axis(name=n, low=min(float(a), s.low), high=max(float(b), s.high))
                for n, a, b, s in zip(names, low, high, seen)
            )
        else:
            axes = axes_of(names, rows)
        return Vocabulary(axes=axes, fps=fps), rows
    raise DataError(f"actions are {kind}; Discrete, MultiBinary and Box are read")
