"""The built-in worlds as folders: motion that is known exactly, rendered to real video files with captions and the true state.

A folder holds `clip_000000.mp4` ..., `image_000000.png` ..., `metadata.jsonl` with the captions, `state/clip_000000.npz`
with what was drawn, and `world.json`, the configuration. Clip `i` depends on the configuration and `i` alone.
"""

import json
import os
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np

from video_gen.data import maze
from video_gen.data.action_files import write_vocabulary
from video_gen.data.actions import write_actions
from video_gen.data.config import WorldConfig, WorldName
from video_gen.data.drawing import draw, object_mask
from video_gen.data.maze_view import draw_walk
from video_gen.data.metadata import CAPTIONS, add_rows, named_in
from video_gen.data.motion import is_led, simulate, simulate_change
from video_gen.data.processes import in_processes
from video_gen.data.state import PIXELS_PER_FRAME, World, collision_radius, object_radius
from video_gen.data.video_writer import write_video
from video_gen.errors import DataError
from video_gen.files import explained, read_text, write_text, written

CRF = 4
FEW = 64
"""Files up to which starting further processes does not pay."""
COUNTS = ("num_clips", "num_images")
WORLD_FILE = "world.json"
IMAGES = 10**9
"""Image `i` is the first frame of scene IMAGES + i: of none that is shown as a clip."""


def world_of(folder: str | Path) -> WorldName:
    """Which built-in world a folder of clips is: `none` if it is none, `unknown` if nothing is there."""
    folder = Path(folder)
    if not folder.is_dir() or not any(folder.iterdir()):
        return "unknown"
    file = folder / WORLD_FILE
    kind = _read_world(file).get("kind") if file.is_file() else "none"
    return next((name for name in get_args(WorldName) if name == kind), "none")


def maze_of(folder: str | Path) -> tuple[int, int] | None:
    """Seed and number of layouts of a folder of the maze; None if it is none."""
    file = Path(folder) / WORLD_FILE
    if world_of(folder) != "maze":
        return None
    found = _read_world(file)
    return int(found["seed"]), int(found["layouts"])


def render_world(
    config: WorldConfig,
    folder: str | Path,
    progress: Callable[[int, int], None] | None = None,
    workers: int | None = None,
) -> int:
    """Render what the folder does not have yet. Each file has its caption in metadata.jsonl as soon as it is there.

    Args:
        progress: called with (clips and images that are there, all of them).
        workers: processes; default: one per core, and one for few files.
    Returns: how many clips and images were there before.
    Raises: DataError if the folder holds another world or more of this one, or something else, or cannot be written;
        KeyboardInterrupt, which says how much is there, after Ctrl-C: the same call goes on.
    """
    folder = Path(folder)
    _claim(config, folder)
    scenes = [*range(config.num_clips), *range(IMAGES, IMAGES + config.num_images)]
    missing = [i for i in scenes if not _is_there(folder, i)]
    before = len(scenes) - len(missing)
    gaps = set(missing)
    captions = {i: _caption(config, i) for i in scenes if i not in gaps}
    workers = workers or (min(os.cpu_count() or 1, len(missing)) if len(missing) >= FEW else 1)
    if progress:
        progress(before, len(scenes))
    try:
        with explained(folder / CAPTIONS):
            _render_all(config, folder, missing, workers, captions, progress)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"stopped: {len(captions)} of {len(scenes)} files are in {folder}, with their captions; the same command goes on"
        ) from None
    return before


def load_state(folder: str | Path, file_name: str) -> World:
    """The true state of a rendered clip. Raises: DataError if the folder has none for it."""
    path = Path(folder) / "state" / (Path(file_name).stem + ".npz")
    if not path.exists():
        raise DataError(f"{path}: no such state; only folders made by `video-gen worlds` have them")
    with np.load(path) as data:
        values = {name: data[name] for name in data.files}
    looks = tuple((str(c), str(s)) for c, s in values.pop("looks"))
    scalars = {k: values.pop(k).item() for k in ("kind", "caption", "height", "width")}
    anchor = values.pop("anchor")
    changes = tuple((int(frame), str(text)) for frame, text in values.pop("changes", ()))
    return World(**scalars, **values, looks=looks, anchor=tuple(anchor) if len(anchor) else None, changes=changes)


def load_walk(folder: str | Path, file_name: str) -> maze.Walk:
    """The true walk of a rendered clip of the maze. Raises: DataError if the folder has none for it."""
    path = Path(folder) / "state" / (Path(file_name).stem + ".npz")
    if not path.exists():
        raise DataError(f"{path}: no such state; only folders made by `video-gen worlds --kind maze` have them")
    with np.load(path) as data:
        return maze.Walk(layout=int(data["layout"]), **{name: data[name] for name in data.files if name != "layout"})


def _render_all(
    config: WorldConfig,
    folder: Path,
    missing: list[int],
    workers: int,
    captions: dict[int, dict[str, Any]],
    progress: Callable[[int, int], None] | None,
) -> None:
    """Render what is missing, and add its captions to those known and to the file, however this ends."""
    total = len(captions) + len(missing)
    _drop_torn_line(folder / CAPTIONS)
    add_rows(folder, (_row(folder, i, said) for i, said in captions.items()))
    known = named_in(folder)
    try:
        with (
            (folder / CAPTIONS).open("a", encoding="utf-8") as file,
            closing(in_processes(partial(_render, config, folder), missing, workers)) as rendered,
        ):
            for index, said in rendered:
                captions[index], row = said, _row(folder, index, said)
                if row["file_name"] not in known:
                    file.write(json.dumps(row) + "\n")
                    file.flush()  # whoever is killed now has a caption for every file
                if progress:
                    progress(len(captions), total)
    finally:
        unread = (i for i in missing if i not in captions and _is_there(folder, i))  # made as the work was ended
        unread = {i: _caption(config, i) for i in unread}
        captions |= unread
        add_rows(folder, (_row(folder, i, said) for i, said in unread.items()))


def _render(config: WorldConfig, folder: Path, index: int) -> dict[str, Any]:
    """Write one scene's files. Returns: its caption, as its row has it."""
    if config.kind == "maze":
        return _render_walk(config, folder, index)
    world = simulate(config if index < IMAGES else config.replace(num_frames=1), index)
    *state, video = _files(folder, index)
    for file in state:
        _write_state(file, world)
    write_video(video, draw(world), config.fps, crf=CRF, metadata={"caption": world.caption, "world": config.kind})
    return _said(config, index, world)


def _render_walk(config: WorldConfig, folder: Path, index: int) -> dict[str, Any]:
    walk = maze.walk(config.seed, config.layouts, index, config.num_frames)
    state, video = _files(folder, index)
    with written(state) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **vars(walk))
    write_actions(video, walk.keys, maze.VOCABULARY)
    said = _caption(config, index)
    frames = draw_walk(config.seed, config.layouts, walk, config.height, config.width)
    write_video(video, frames, config.fps, crf=CRF, metadata={"caption": said["text"], "world": config.kind})
    return said


def _write_state(path: Path, world: World) -> None:
    arrays: dict[str, Any] = {k: v for k, v in vars(world).items() if v is not None}
    arrays |= {"looks": np.array(world.looks), "anchor": np.array(world.anchor or ())}
    arrays["changes"] = np.array(world.changes).reshape(-1, 2)
    with written(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)


def _claim(config: WorldConfig, folder: Path) -> None:
    """The folder is ours if it is empty or holds the same world; more clips and images may be added to it."""
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder}: is a file; choose a folder for the clips")
    file = folder / WORLD_FILE
    wanted = config.model_dump(mode="json")
    if file.exists():
        found = _read_world(file)
        keys = [k for k in wanted if k not in COUNTS and found.get(k) != wanted[k]]
        if keys:
            named = ", ".join(f"{k} {found.get(k)!r} and not {wanted[k]!r}" for k in keys)
            raise DataError(f"{folder}: holds another world ({named}); choose another folder, or delete this one")
        for count, pattern in zip(COUNTS, ("clip_*.mp4", "image_*.png")):
            numbers = [p.stem.rpartition("_")[2] for p in folder.glob(pattern)]
            there = [int(number) + 1 for number in numbers if number.isdecimal()]
            if max(there, default=0) > wanted[count]:
                raise DataError(
                    f"{folder}: holds {len(there)} {count.removeprefix('num_')} of this world already, the last of them "
                    f"number {max(there)}, more than {count} {wanted[count]}; ask for {max(there)} or more, or choose "
                    "another folder"
                )
    elif folder.exists() and any(folder.iterdir()):
        raise DataError(f"{folder}: is not empty and holds no world; choose another folder")
    write_text(file, json.dumps(wanted, indent=1))
    if config.kind == "maze":
        write_vocabulary(folder, maze.VOCABULARY)


def _read_world(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise DataError(
            f"{file}: damaged ({error}); it says which world the folder holds: render the folder anew"
        ) from None
    if not isinstance(found, dict):
        raise DataError(f"{file}: damaged (no object); it says which world the folder holds: render the folder anew")
    return {"num_images": 0, "changes": 0, "led": 0.0, "layouts": 4} | found


def _caption(config: WorldConfig, index: int) -> dict[str, Any]:
    """What a scene's row says besides the file."""
    if config.kind == "maze":
        return {"text": f"maze {index % config.layouts}"}
    changes = config.changes and index < IMAGES
    return _said(config, index, simulate(config if changes else config.replace(num_frames=1), index))


def _said(config: WorldConfig, index: int, world: World) -> dict[str, Any]:
    changes = [{"time": frame / config.fps, "text": text} for frame, text in world.changes]
    led = index < IMAGES and is_led(config, index)
    return {"text": world.caption} | ({"changes": changes} if changes else {}) | ({"led": True} if led else {})


def _row(folder: Path, index: int, said: dict[str, Any]) -> dict[str, Any]:
    return {"file_name": _files(folder, index)[-1].name} | said


def _drop_torn_line(path: Path) -> None:
    """Of an end that no newline closes and that is no JSON a killed process wrote a part: its row is written again."""
    whole, _, last = (read_text(path) if path.is_file() else "").rpartition("\n")
    try:
        json.loads(last or "{}")
    except ValueError:
        write_text(path, f"{whole}\n" if whole else "")


def _files(folder: Path, index: int) -> tuple[Path, ...]:
    """An image; or a clip's state and its video, in the order in which they are written."""
    if index >= IMAGES:
        return (folder / f"image_{index - IMAGES:06d}.png",)
    name = f"clip_{index:06d}"
    return folder / "state" / f"{name}.npz", folder / f"{name}.mp4"


def _is_there(folder: Path, index: int) -> bool:
    return all(file.exists() for file in _files(folder, index))


__all__ = [
    "PIXELS_PER_FRAME",
    "World",
    "collision_radius",
    "draw",
    "load_state",
    "load_walk",
    "maze_of",
    "object_mask",
    "object_radius",
    "render_world",
    "simulate",
    "simulate_change",
    "world_of",
]
