"""LeRobot data sets, version 2 (a file for each episode) and 3 (many episodes in a file, found by offsets of each camera)."""

import json
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from video_gen.data.episodes import Dataset, Episode, axes_of, choose_camera, flat_names
from video_gen.data.video_file import all_frames
from video_gen.errors import DataError
from video_gen.files import read_lines, read_text
from video_gen.vocabulary import Vocabulary

INFO = "meta/info.json"
ACTION, STATE = "action", "observation.state"


def read(folder: Path, camera: str | None, episodes: int | None, fps: float | None) -> Dataset:
    """The episodes whose files are there. Raises: DataError, ConfigError; ImportError without pyarrow."""
    import pyarrow.parquet  # noqa: F401

    info = _info(folder)
    version, notes = str(info.get("codebase_version", "")), []
    if not version.startswith(("v2", "v3")):
        raise DataError(
            f"{folder / INFO}: codebase_version is '{version}'; versions 2 and 3 are read: convert it with LeRobot"
        )
    if missing := [name for name in ("features", "data_path", "video_path") if name not in info]:
        raise DataError(f"{folder / INFO}: has no {missing[0]}; it is damaged: copy it again")
    features = info["features"]
    if ACTION not in features:
        raise DataError(f"{folder / INFO}: has no feature '{ACTION}'; it holds {', '.join(features)}")
    known = [name for name, feature in features.items() if feature.get("dtype") == "video"]
    pictures = [name for name, feature in features.items() if feature.get("dtype") == "image"]
    if not known and pictures:
        raise DataError(f"{folder}: keeps {pictures[0]} as pictures in its tables; convert them to video with LeRobot")
    chosen = choose_camera(known, camera, folder, notes)
    found = (_version_2 if version.startswith("v2") else _version_3)(folder, info, chosen, notes)[:episodes]
    if not found:
        raise DataError(f"{folder}: none of the episodes' files is there; copy data/ and videos/ too")
    names = flat_names(features[ACTION].get("names"), found[0].rows.shape[1], ACTION)
    rate = float(info.get("fps") or 0) or fps
    if not rate:
        raise DataError(f"{folder / INFO}: says no fps; give --fps")
    return Dataset(Vocabulary(axes=axes_of(names, [e.rows for e in found]), fps=rate), found, notes)


def _version_2(folder: Path, info: dict[str, Any], camera: str, notes: list[str]) -> list[Episode]:
    tasks = {row["task_index"]: row["task"] for row in _lines(folder / "meta/tasks.jsonl")}
    found, missing = [], []
    for row in _lines(folder / "meta/episodes.jsonl"):
        index = int(row["episode_index"])
        place = {
            "episode_chunk": index // int(info.get("chunks_size", 1000)),
            "episode_index": index,
            "video_key": camera,
        }
        table, video = folder / info["data_path"].format(**place), folder / info["video_path"].format(**place)
        if not (table.is_file() and video.is_file()):
            missing.append(index)
            continue
        columns = _columns(table)
        own = np.arange(len(columns["frame_index"]))
        found.append(_episode(f"episode_{index:06d}", columns, own, tasks, _Video(video), 0))
    if missing:
        notes.append(f"{len(missing)} episodes have no files there, such as number {missing[0]}; they are left out")
    return found


def _version_3(folder: Path, info: dict[str, Any], camera: str, notes: list[str]) -> list[Episode]:
    tasks = _tasks_3(folder)
    fps, tables, videos = float(info.get("fps") or 0), {}, {}
    if not fps:
        raise DataError(f"{folder / INFO}: says no fps, by which episodes are found in their files; copy meta/ again")
    found, missing = [], []
    files = sorted((folder / "meta/episodes").glob("**/*.parquet"))
    if not files:
        raise DataError(f"{folder / 'meta/episodes'}: holds no tables of episodes; copy meta/ as a whole")
    for row in (row for file in files for row in _rows(file)):
        index = int(row["episode_index"])
        table = folder / info["data_path"].format(
            chunk_index=row["data/chunk_index"], file_index=row["data/file_index"]
        )
        place = {part: row[f"videos/{camera}/{part}"] for part in ("chunk_index", "file_index")}
        video = folder / info["video_path"].format(video_key=camera, **place)
        if not (table.is_file() and video.is_file()):
            missing.append(index)
            continue
        columns = tables[table] if table in tables else tables.setdefault(table, _columns(table))
        own = np.flatnonzero(columns["episode_index"] == index)
        first = round(float(row[f"videos/{camera}/from_timestamp"]) * fps)  # an index, once and for all
        known = videos.setdefault(video, _Video(video))
        found.append(_episode(f"episode_{index:06d}", columns, own, tasks, known, first))
    if missing:
        notes.append(f"{len(missing)} episodes have no files there, such as number {missing[0]}; they are left out")
    return found


class _Video:
    """A file's frames by number. Episodes that follow one another are read in one go."""

    def __init__(self, path: Path):
        self.path, self._at = path, 0
        self._frames: Iterator[tuple[float, np.ndarray]] | None = None

    def frames(self, first: int, count: int) -> Iterator[np.ndarray]:
        if self._frames is None or first < self._at:
            self._frames, self._at = all_frames(self.path), 0
        for _, frame in islice(self._frames, first - self._at + count):
            self._at += 1
            if self._at > first:
                yield frame


def _episode(
    name: str, columns: dict[str, np.ndarray], own: np.ndarray, tasks: dict[int, str], video: _Video, first: int
) -> Episode:
    own = own[np.argsort(columns["frame_index"][own], kind="stable")]
    if not np.array_equal(columns["frame_index"][own], np.arange(len(own))):
        raise DataError(
            f"{name}: its frame_index does not count from 0 without a gap; the table is damaged: copy it again"
        )
    rows = np.stack(list(columns[ACTION][own])).astype(np.float64).reshape(len(own), -1)
    state = {STATE: np.stack(list(columns[STATE][own]))} if STATE in columns else {}
    caption = tasks.get(int(columns["task_index"][own[0]]), "") if "task_index" in columns else ""
    return Episode(name, caption, rows, partial(video.frames, first, len(own)), state)


def _tasks_3(folder: Path) -> dict[int, str]:
    path = folder / "meta/tasks.parquet"
    if not path.is_file():
        return {row["task_index"]: row["task"] for row in _lines(folder / "meta/tasks.jsonl")}
    rows = _rows(path)  # the task's text is a column, or the index that pandas wrote
    return {int(row["task_index"]): str(row.get("task", row.get("__index_level_0__", ""))) for row in rows}


def _info(folder: Path) -> dict[str, Any]:
    path = folder / INFO
    if not path.is_file():
        raise DataError(f"{folder}: has no {INFO}; give the folder of a LeRobot data set")
    try:
        found = json.loads(read_text(path))
    except ValueError as error:
        raise DataError(f"{path}: damaged ({error}); copy it again") from None
    return found if isinstance(found, dict) else {}


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        raise DataError(f"{path}: is not there; copy meta/ as a whole")
    try:
        return [json.loads(line) for line in read_lines(path) if line.strip()]
    except ValueError as error:
        raise DataError(f"{path}: damaged ({error}); copy it again") from None


def _table(path: Path) -> Any:
    import pyarrow
    from pyarrow import parquet

    try:
        return parquet.read_table(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{path}: cannot be read ({' '.join(str(error).split())[:120]}); copy it again") from None


def _rows(path: Path) -> list[dict[str, Any]]:
    return _table(path).to_pylist()


def _columns(path: Path) -> dict[str, np.ndarray]:
    table = _table(path)
    wanted = [
        name for name in (ACTION, STATE, "frame_index", "episode_index", "task_index") if name in table.column_names
    ]
    if missing := {ACTION, "frame_index"} - set(wanted):
        raise DataError(f"{path}: has no column {sorted(missing)[0]}; it is no table of LeRobot's, or damaged")
    found: dict[str, np.ndarray] = {}
    for name in wanted:
        values = table[name].to_pylist()
        if values and isinstance(values[0], list):
            array = np.empty(len(values), dtype=object)
            array[:] = [np.asarray(value, dtype=np.float64) for value in values]
            found[name] = array
        else:
            found[name] = np.asarray(values)
    return found
