"""Minari data sets whose observations are pictures, as HDF5 or Arrow. An observation more than actions: before and after each."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from video_gen.config import validate
from video_gen.data.episodes import Dataset, Episode, axes_of, check_rows, choose_camera
from video_gen.errors import ConfigError, DataError
from video_gen.plain_json import parse, read_object
from video_gen.vocabulary import Vocabulary

METADATA, HDF5 = "metadata.json", "main_data.hdf5"


def read(folder: Path, camera: str | None, episodes: int | None, fps: float | None) -> Dataset:
    """Raises: DataError, ConfigError; ImportError without h5py, or pyarrow."""
    place = folder / "data" if (folder / "data").is_dir() else folder
    if not (place / METADATA).is_file():
        raise DataError(f"{folder}: has no data/{METADATA}; give the folder of a Minari data set")
    metadata = read_object(place / METADATA)
    if (form := metadata.get("data_format", "hdf5")) not in ("hdf5", "arrow"):
        raise DataError(f"{place / METADATA}: data_format is '{form}'; hdf5 and arrow are read: convert it with Minari")
    if fps is None:
        raise ConfigError(
            f"{folder}: Minari's data say no frames a second; give --fps, such as that of the environment"
        )
    notes: list[str] = []
    seen, done = (_space(place / METADATA, metadata, name) for name in ("observation_space", "action_space"))
    found = _hdf5(place / HDF5, camera, notes) if (place / HDF5).is_file() else _arrow(place, seen, camera, notes)
    if not found:
        raise DataError(f"{folder}: holds no episodes")
    words, rows = _actions(done, found, place / METADATA)
    vocabulary = validate(Vocabulary, words | {"fps": fps}, source=f"{place / METADATA}: actions")
    made = []
    for each, row in zip(found[:episodes], rows):
        last = np.zeros((1, row.shape[1])) if not vocabulary.axes else row[-1:]
        made.append(Episode(each.name, each.source, "", np.concatenate([row, last]), each.frames))
    return Dataset(vocabulary, made, notes)


@dataclass(frozen=True)
class Found:
    """An episode as it lies there."""

    name: str
    source: Path
    actions: np.ndarray
    """(f - 1, ...)"""
    frames: Callable[[], Iterator[np.ndarray]]

    @property
    def told(self) -> str:
        return f"{self.source}, {self.name}"


def _hdf5(path: Path, camera: str | None, notes: list[str]) -> list[Found]:
    import h5py

    try:
        file: Any = h5py.File(path, "r")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({' '.join(str(error).split())[:120]}); copy it again") from None
    with file:
        numbers = sorted(int(name[8:]) for name in file if name.startswith("episode_") and name[8:].isdecimal())
        found: list[Found] = []
        for number in numbers:
            name = f"episode_{number}"
            group: Any = file[name]
            if missing := [part for part in ("observations", "actions") if part not in group]:
                raise DataError(f"{path}: {name} has no {missing[0]}; it is damaged: copy it again")
            pictures: dict[str, Any] = {}

            def look(place: str, item: Any, pictures: dict[str, Any] = pictures) -> None:
                if isinstance(item, h5py.Dataset) and _is_picture(item.dtype, item.shape[1:]):
                    pictures[place] = item

            if isinstance(group["observations"], h5py.Dataset):
                look("observations", group["observations"])
            else:
                group["observations"].visititems(look)
            chosen = choose_camera(sorted(pictures), camera, path, notes if not found else [])
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
            frames = partial(_hdf5_frames, path, pictures[chosen].name)
            found.append(Found(f"episode_{number:06d}", path, actions, frames))
        return found


def _hdf5_frames(path: Path, name: str) -> Iterator[np.ndarray]:
    import h5py

    with h5py.File(path, "r") as file:
        pictures: Any = file[name]
        for picture in pictures:
            yield _rgb(np.asarray(picture))


def _arrow(place: Path, space: dict[str, Any], camera: str | None, notes: list[str]) -> list[Found]:
    try:
        shapes = dict(_pictures_in(space))
    except (TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{place / METADATA}: observation_space is damaged ({error}); copy it again") from None
    chosen = choose_camera(list(shapes), camera, place, notes)
    found = []
    folders = sorted(
        (path for path in place.iterdir() if path.is_dir() and path.name.isdecimal()), key=lambda p: int(p.name)
    )
    for folder in folders:
        try:
            actions = np.array(_column(folder, "actions").to_pylist()[:-1])  # the last row is padding
        except ValueError:
            raise DataError(f"{folder}: its actions are not alike in shape; it is damaged: copy it again") from None
        frames = partial(_arrow_frames, folder, chosen, shapes[chosen])
        found.append(Found(f"episode_{int(folder.name):06d}", folder, actions, frames))
    return found


def _arrow_frames(folder: Path, camera: str, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    column = _column(folder, "observations")
    for part in camera.split("/")[1:]:
        column = column.combine_chunks().field(part) if hasattr(column, "combine_chunks") else column.field(part)
    for value in column:
        try:
            picture = np.asarray(value.as_py(), dtype=np.uint8).reshape(shape)
        except (TypeError, ValueError) as error:
            raise DataError(f"{folder}: holds a picture that is not {shape} ({error}); copy it again") from None
        yield _rgb(picture)


def _column(folder: Path, name: str) -> Any:
    import pyarrow
    import pyarrow.dataset as arrow

    try:
        found = arrow.dataset(folder, format="arrow", ignore_prefixes=["_", ".", METADATA])
        return found.to_table(columns=[name])[name]
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{folder}: cannot be read ({' '.join(str(error).split())[:120]}); copy it again") from None


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


def _space(path: Path, metadata: dict[str, Any], name: str) -> dict[str, Any]:
    said = metadata.get(name)
    try:
        found = parse(said) if isinstance(said, str) else said
    except ValueError as error:
        raise DataError(f"{path}: {name} is no JSON ({error}); copy it again") from None
    return found if isinstance(found, dict) else {}


def _actions(space: dict[str, Any], found: list[Found], path: Path) -> tuple[dict[str, Any], list[np.ndarray]]:
    """Keys or axes as `Vocabulary` takes them, and the rows of each episode. Raises: DataError that names file and episode."""
    kind, actions = space.get("type"), [each.actions for each in found]
    try:
        start, n = int(space.get("start", 0)), int(space.get("n", 0))
        low, high = (np.asarray(space.get(side, [np.inf]), dtype=float).reshape(-1) for side in ("low", "high"))
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: action_space is damaged ({error}); copy it again") from None
    for each in found:
        if not len(each.actions):
            raise DataError(f"{each.told}: has no actions; copy it again, or take it out of the data set")
        if each.actions.dtype.kind not in "biuf":
            raise DataError(f"{each.told}: its actions are no numbers; it is damaged: copy it again")
    if kind == "Discrete" or (kind is None and actions[0].ndim == 1 and actions[0].dtype.kind in "iu"):
        count = n or 1 + max(int(each.max()) for each in actions)
        for each in found:
            if len(wrong := each.actions[~((each.actions >= start) & (each.actions < start + count))]):
                raise DataError(
                    f"{each.told}: has action {wrong[0]}, and there are {start} to {start + count - 1} ({path})"
                )
        keys = [f"action {start + i}" for i in range(count)]
        return {"keys": keys}, [np.eye(count)[each.reshape(-1).astype(int) - start] for each in actions]
    if kind not in ("MultiBinary", "Box", None):
        raise DataError(f"{path}: actions are {kind}; Discrete, MultiBinary and Box are read")
    rows = [each.reshape(len(each), -1).astype(np.float64) for each in actions]
    names = [f"{'key' if kind == 'MultiBinary' else 'axis'} {i}" for i in range(rows[0].shape[1])]
    check_rows(rows, names, [each.told for each in found])
    if kind == "MultiBinary":
        return {"keys": names}, rows
    axes = axes_of(names, rows)
    if np.isfinite(low).all() and np.isfinite(high).all() and len(low) == len(high) == len(names):
        for axis, a, b in zip(axes, low, high):  # what was done may lie outside of what the space says
            axis |= {"low": min(float(a), axis["low"]), "high": max(float(b), axis["high"])}
    return {"axes": axes}, rows
