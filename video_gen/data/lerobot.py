"""LeRobot data sets, version 2 (a file for each episode) and 3 (many episodes in a file, found by offsets of each camera)."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from video_gen.config import Config, validate
from video_gen.data.episodes import Dataset, Episode, axes_of, check_rows, choose_camera, flat_names
from video_gen.data.video_file import all_frames
from video_gen.errors import ConfigError, DataError
from video_gen.files import read_lines
from video_gen.plain_json import parse, read_object
from video_gen.vocabulary import Vocabulary

INFO = "meta/info.json"
ACTION, STATE = "action", "observation.state"
Kinds = Mapping[str, type | tuple[type, ...]]
"""What a row must have, by name."""
TASK: Kinds = {"task_index": int, "task": str}


class Feature(Config, extra="ignore"):
    """A column or a camera."""

    dtype: str = ""
    names: Any = None


class Info(Config, extra="ignore"):
    """What `meta/info.json` says, as far as it is used."""

    codebase_version: str = ""
    fps: float | None = Field(default=None, gt=0, le=1_000)
    chunks_size: int = Field(default=1_000, gt=0)
    features: dict[str, Feature]
    data_path: str
    video_path: str


def read(folder: Path, camera: str | None, episodes: int | None, fps: float | None) -> Dataset:
    """The episodes whose files are there. Raises: DataError, ConfigError; ImportError without pyarrow."""
    import pyarrow.parquet  # noqa: F401

    info, notes = _info(folder), list[str]()
    if ACTION not in info.features:
        raise DataError(f"{folder / INFO}: has no feature '{ACTION}'; it holds {', '.join(info.features)}")
    known = [name for name, feature in info.features.items() if feature.dtype == "video"]
    pictures = [name for name, feature in info.features.items() if feature.dtype == "image"]
    if not known and pictures:
        raise DataError(f"{folder}: keeps {pictures[0]} as pictures in its tables; convert them to video with LeRobot")
    if fps and info.fps and fps != info.fps:
        raise ConfigError(f"fps is {fps:g}, and {folder / INFO} says {info.fps:g}; leave it out")
    rate = info.fps or fps
    if not rate:
        raise DataError(f"{folder / INFO}: says no fps; give --fps")
    chosen = choose_camera(known, camera, folder, notes)
    found = (_version_2 if info.codebase_version.startswith("v2") else _version_3)(folder, info, rate, chosen, notes)
    if not found:
        raise DataError(f"{folder}: none of the episodes' files is there; copy data/ and videos/ too")
    rows = [episode.rows for episode in found]
    names = flat_names(info.features[ACTION].names, rows[0].shape[1], ACTION)
    check_rows(rows, names, [f"{episode.source}, {episode.name}" for episode in found])
    words = {"axes": axes_of(names, rows), "fps": rate}
    return Dataset(validate(Vocabulary, words, source=f"{folder / INFO}: actions"), found[:episodes], notes)


def _version_2(folder: Path, info: Info, fps: float, camera: str, notes: list[str]) -> list[Episode]:
    tasks = _tasks(_lines(folder / "meta/tasks.jsonl", TASK))
    found, missing = [], []
    for row in _lines(folder / "meta/episodes.jsonl", {"episode_index": int}):
        index = row["episode_index"]
        place = {"episode_chunk": index // info.chunks_size, "episode_index": index, "video_key": camera}
        table, video = _place(folder, info, "data_path", place), _place(folder, info, "video_path", place)
        if not (table.is_file() and video.is_file()):
            missing.append(index)
            continue
        columns = _columns(table)
        own = np.arange(len(columns["frame_index"]))
        frames = partial(_Video(video).frames, 0, None)
        found.append(_episode(f"episode_{index:06d}", table, columns, own, tasks, frames))
    if missing:
        notes.append(f"{len(missing)} episodes have no files there, such as number {missing[0]}; they are left out")
    return found


def _version_3(folder: Path, info: Info, fps: float, camera: str, notes: list[str]) -> list[Episode]:
    tasks = _tasks_3(folder)
    tables: dict[Path, dict[str, np.ndarray]] = {}
    videos: dict[Path, _Video] = {}
    found, missing = [], []
    files = sorted((folder / "meta/episodes").glob("**/*.parquet"))
    if not files:
        raise DataError(f"{folder / 'meta/episodes'}: holds no tables of episodes; copy meta/ as a whole")
    own_place = ("data/chunk_index", "data/file_index")
    seen_place = tuple(f"videos/{camera}/{part}" for part in ("chunk_index", "file_index"))
    times = tuple(f"videos/{camera}/{part}" for part in ("from_timestamp", "to_timestamp"))
    kinds = dict.fromkeys(("episode_index", *own_place, *seen_place), int) | dict.fromkeys(times, (int, float))
    for row in (row for file in files for row in _rows(file, kinds)):
        index = row["episode_index"]
        place = {name.rpartition("/")[2]: row[name] for name in own_place}
        seen = {name.rpartition("/")[2]: row[name] for name in seen_place} | {"video_key": camera}
        table, video = _place(folder, info, "data_path", place), _place(folder, info, "video_path", seen)
        if not (table.is_file() and video.is_file()):
            missing.append(index)
            continue
        columns = tables[table] if table in tables else tables.setdefault(table, _columns(table, ("episode_index",)))
        own = np.flatnonzero(columns["episode_index"] == index)
        first, end = (max(0, round(row[name] * fps)) for name in times)  # indices, once and for all
        frames = partial(videos.setdefault(video, _Video(video)).frames, first, max(0, end - first))
        found.append(_episode(f"episode_{index:06d}", table, columns, own, tasks, frames))
    if missing:
        notes.append(f"{len(missing)} episodes have no files there, such as number {missing[0]}; they are left out")
    return found


class _Video:
    """A file's frames by number. Episodes that follow one another are read in one go."""

    def __init__(self, path: Path):
        self.path, self._at = path, 0
        self._frames: Iterator[tuple[float, np.ndarray]] | None = None

    def frames(self, first: int, count: int | None) -> Iterator[np.ndarray]:
        """So many; None = all that there are."""
        if self._frames is None or first < self._at:
            self._frames, self._at = all_frames(self.path), 0
        for _, frame in islice(self._frames, None if count is None else first - self._at + count):
            self._at += 1
            if self._at > first:
                yield frame


def _episode(
    name: str,
    table: Path,
    columns: dict[str, np.ndarray],
    own: np.ndarray,
    tasks: dict[int, str],
    frames: Callable[[], Iterator[np.ndarray]],
) -> Episode:
    own = own[np.argsort(columns["frame_index"][own], kind="stable")]
    if not np.array_equal(columns["frame_index"][own], np.arange(len(own))):
        raise DataError(
            f"{table}, {name}: its frame_index does not count from 0 without a gap; the table is damaged: copy it again"
        )
    rows = columns[ACTION][own].reshape(len(own), -1) if len(own) else np.zeros((0, 0))
    state = {STATE: columns[STATE][own]} if STATE in columns else {}
    caption = tasks.get(columns["task_index"][own[0]].item(), "") if "task_index" in columns and len(own) else ""
    return Episode(name, table, caption, rows, frames, state)


# -------------------- its files


def _info(folder: Path) -> Info:
    path = folder / INFO
    if not path.is_file():
        raise DataError(f"{folder}: has no {INFO}; give the folder of a LeRobot data set")
    said = read_object(path)
    version = str(said.get("codebase_version", ""))
    if not version.startswith(("v2", "v3")):
        raise DataError(f"{path}: codebase_version is '{version}'; versions 2 and 3 are read: convert it with LeRobot")
    return validate(Info, said, source=str(path))


def _place(folder: Path, info: Info, kind: Literal["data_path", "video_path"], values: Mapping[str, Any]) -> Path:
    """Where a file is. Raises: DataError if the pattern names something else than `values`."""
    pattern = getattr(info, kind)
    try:
        return folder / pattern.format(**values)
    except (LookupError, ValueError, AttributeError, TypeError) as error:
        raise DataError(
            f"{folder / INFO}: {kind} is '{pattern}' ({type(error).__name__}: {error}); it is a path with {', '.join(values)} in "
            "braces: copy it again"
        ) from None


def _tasks_3(folder: Path) -> dict[int, str]:
    path = folder / "meta/tasks.parquet"
    if not path.is_file():
        return _tasks(_lines(folder / "meta/tasks.jsonl", TASK))
    rows = _table(path).to_pylist()  # the task's text is a column, or the index that pandas wrote
    return _tasks(_checked(path, [{"task": row.get("__index_level_0__")} | row for row in rows], TASK))


def _tasks(rows: Sequence[Mapping[str, Any]]) -> dict[int, str]:
    return {row["task_index"]: row["task"] for row in rows}


def _lines(path: Path, kinds: Kinds) -> list[dict[str, Any]]:
    if not path.is_file():
        raise DataError(f"{path}: is not there; copy meta/ as a whole")
    try:
        rows = [parse(line) for line in read_lines(path) if line.strip()]
    except ValueError as error:
        raise DataError(f"{path}: damaged ({error}); copy it again") from None
    return _checked(path, rows, kinds)


def _rows(path: Path, kinds: Kinds) -> list[dict[str, Any]]:
    return _checked(path, _table(path).to_pylist(), kinds)


def _checked(path: Path, rows: list[Any], kinds: Kinds) -> list[dict[str, Any]]:
    """The rows. Raises: DataError for one that has not what `kinds` says."""
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise DataError(f"{path}, row {number}: is {type(row).__name__} and no object; copy it again")
        for name, kind in kinds.items():
            value = row.get(name)
            if not isinstance(value, kind) or (isinstance(value, float) and not math.isfinite(value)):
                raise DataError(f"{path}, row {number}: {name} is {value!r}; it is damaged: copy it again")
    return rows


def _table(path: Path) -> Any:
    import pyarrow
    from pyarrow import parquet

    try:
        return parquet.read_table(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{path}: cannot be read ({' '.join(str(error).split())[:120]}); copy it again") from None


def _columns(path: Path, needed: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """Columns as numbers (n, ...)."""
    table = _table(path)
    wanted = [
        name for name in (ACTION, STATE, "frame_index", "episode_index", "task_index") if name in table.column_names
    ]
    if missing := {ACTION, "frame_index", *needed} - set(wanted):
        raise DataError(f"{path}: has no column {sorted(missing)[0]}; it is no table of LeRobot's, or damaged")
    found: dict[str, np.ndarray] = {}
    for name in wanted:
        try:
            found[name] = np.asarray(table[name].to_pylist(), dtype=np.float64)
        except (ValueError, TypeError):
            raise DataError(
                f"{path}: column {name} holds no rows of as many numbers each; it is damaged: copy it again"
            ) from None
    return found
