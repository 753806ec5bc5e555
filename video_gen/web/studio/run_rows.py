"""The runs under the roots, and a row of facts for each: how it is, how far, how fast and how good.

What is found out of a folder is kept until one of its files changes, so that a look at a hundred runs costs a hundred glances.
"""

import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from video_gen.training.judge import JUDGES
from video_gen.web.studio.plain_files import plain, stamp
from video_gen.web.studio.roots import Roots
from video_gen.web.studio.run_folder import OWN, best_of, checkpoint_of, kind_of, read_config, steps_of
from video_gen.web.studio.run_log import first_of, last_lines, sketch
from video_gen.web.studio.run_state import ALIVE, CONSOLE, LOCK, STARTED, Condition, condition

MARKS = frozenset(("config.yaml", "log.jsonl", STARTED))
"""A folder with one of these is a run."""
DEEPEST, MOST_RUNS, MOST_FOLDERS = 6, 2_000, 50_000


@dataclass(frozen=True)
class Place:
    """Where a run is: the root's name, the path in it, and the folder itself."""

    root: str
    name: str
    folder: Path

    @property
    def key(self) -> str:
        return f"{self.root}/{self.name}" if self.name else self.root


@dataclass
class Folders:
    """The runs under the roots. Used from several threads: what is kept is only ever replaced whole."""

    roots: Roots
    _seen: dict[str, tuple[int, list[str], bool]] = field(default_factory=dict)
    """Of each folder: its time of change, the folders in it, and whether it is a run."""

    def find(self) -> tuple[list[Place], list[str]]:
        """All runs, and what was left out, a line each. Links are not followed."""
        found: list[Place] = []
        troubles: list[str] = []
        seen: dict[str, tuple[int, list[str], bool]] = {}
        for root, folder in self.roots.folders.items():
            for name in self._walk(folder, "", seen):
                if len(found) >= MOST_RUNS or len(seen) >= MOST_FOLDERS:
                    troubles.append(f"{folder}: holds too many folders; the first {len(found):,} runs are shown")
                    break
                found.append(Place(root, name, folder / name if name else folder))
        self._seen = seen
        return found, troubles

    def _walk(self, folder: Path, name: str, seen: dict, depth: int = 0) -> Iterator[str]:
        path = os.path.join(folder, name) if name else str(folder)
        try:
            changed = os.stat(path).st_mtime_ns
            known = self._seen.get(path)
            if known is None or known[0] != changed:
                known = (changed, *_look(path))
        except OSError:
            return
        seen[path] = known
        if known[2]:
            yield name
        if depth < DEEPEST and len(seen) < MOST_FOLDERS:
            for inner in known[1]:
                yield from self._walk(folder, f"{name}/{inner}" if name else inner, seen, depth + 1)


def is_run(folder: Path) -> bool:
    return any(os.path.lexists(folder / name) for name in (*MARKS, LOCK))


def _look(path: str) -> tuple[list[str], bool]:
    """The folders in one that may hold runs, and whether it is one itself."""
    inner, run = [], False
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.name in MARKS or entry.name == LOCK:
                run = True
            elif entry.name[:1] != "." and entry.is_dir(follow_symlinks=False) and _sayable(entry.name):
                inner.append(entry.name)
    if run:
        inner = [name for name in inner if name not in OWN and not name.startswith("nan_step_")]
    return sorted(inner, key=_natural), run


def _sayable(name: str) -> bool:
    """Whether a page can ask for it: UTF-8, and no sign that separates."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return "\\" not in name


def _natural(name: str) -> list[tuple[int, int | str]]:
    """stage-2 before stage-10."""
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in re.split(r"(\d{1,18})", name) if part]


@dataclass
class Rows:
    """A row of facts for each run; kept until what they are read from changes."""

    _kept: dict[str, tuple[Any, dict[str, Any]]] = field(default_factory=dict)

    def row(self, place: Place) -> dict[str, Any]:
        """What is told of a run in a list of many; plain values."""
        now = condition(place.folder)
        stamps = _stamps(place.folder)
        known = self._kept.get(place.key)
        if known is None or known[0] != stamps:
            known = (stamps, facts(place.folder))
            self._kept[place.key] = known
        return _told(place, now, known[1])

    def rows(self, places: list[Place]) -> list[dict[str, Any]]:
        """The rows of all runs there are; others are forgotten."""
        rows = {place.key: self.row(place) for place in places}
        for key, row in rows.items():
            stages = [rows[at] for n in range(1, row["stages"] + 1) if (at := f"{key}/stage-{n}") in rows]
            if stages:
                _of_stages(row, stages)
        for key in [key for key in self._kept if key not in rows]:
            self._kept.pop(key, None)
        return list(rows.values())


def _stamps(folder: Path) -> tuple:
    files = ("config.yaml", "recipe.yaml", "log.jsonl", "best/figures.json", LOCK, CONSOLE, STARTED, "model/model.json")
    dirs = tuple(_changed(folder / name) for name in ("model", "samples", "checkpoints"))
    return (*(stamp(folder / name) for name in files), *dirs)


def _changed(path: Path) -> int:
    try:
        return os.lstat(path).st_mtime_ns
    except OSError:
        return 0


def facts(folder: Path) -> dict[str, Any]:
    """What a run's files say in little time: how far it is, how fast, how good, how large."""
    config, trouble = read_config(folder)
    kind, lines = kind_of(config), last_lines(folder / "log.jsonl")
    last = first_of("train", reversed(lines))
    best, judge = best_of(folder), JUDGES.get(kind or "")
    found = {
        "kind": kind,
        "train_steps": steps_of(config),
        "batch": part.get("batch_size") if isinstance(part := config.get("loop"), dict) else None,
        "step": last.get("step"),
        "loss": last.get("loss"),
        "seconds": last.get("time"),
        "memory_mb": last.get("memory_mb"),
        "samples_per_s": last.get("samples_per_s"),
        "pace": pace(first_of("train", lines), last),
        "best": None,
        "floor": best.get("psnr_linear"),
        "worse": None,
        "keep": part.get("keep", "best") if isinstance(part := config.get("loop"), dict) else "best",
        "waits": waits(last),
        "saved": checkpoint_of(folder),
        "made": _changed(folder / "model") > 0,
        "stages": len(config.get("stages") or ()) if isinstance(config.get("stages"), list) else 0,
        "logged": (stamp(folder / "log.jsonl") or (0, 0, 0))[2] / 1e9,
        "changed": max([at[2] for at in _stamps(folder)[:8] if at] or [_changed(folder)]) / 1e9,
        "trouble": trouble,
    }
    if judge and judge.figure in best and "step" in best:
        value = best[judge.figure]
        found["best"] = {"figure": judge.figure, "higher": judge.higher, "value": value, "step": best["step"]}
        held = first_of("validation", reversed(lines))
        now = held.get(judge.figure)
        if isinstance(now, float) and judge.clearly_worse(now, value):
            found["worse"] = {"value": now, "step": held.get("step"), "remedy": judge.remedy}
    return plain(found) | {"sketch": sketch(folder / "log.jsonl")}


def waits(line: dict[str, Any]) -> float | None:
    """The part of a step's time that is spent waiting for its batch, 0 to 1; None if the line does not tell."""
    parts = [
        value
        for name, value in line.items()
        if name.endswith("_s") and not name.endswith("per_s") and isinstance(value, float)
    ]
    data = line.get("data_s")
    return data / sum(parts) if isinstance(data, float) and sum(parts) > 0 else None


def pace(first: dict[str, Any], last: dict[str, Any]) -> float | None:
    """Steps a second from one line to another, with all that comes between: validation, samples, checkpoints."""
    try:
        steps, seconds = last["step"] - first["step"], last["time"] - first["time"]
        if steps > 0 and seconds > 0:
            return steps / seconds
        return last["step"] / last["time"] if last["step"] > 0 and last["time"] > 0 else None
    except (KeyError, TypeError, OverflowError):
        return None


def _told(place: Place, now: Condition, known: dict[str, Any]) -> dict[str, Any]:
    state, step, total = now.state, known["step"], known["train_steps"]
    done = known["made"] and isinstance(step, int | float) and total is not None and step >= total
    if done and state not in (*ALIVE, "crashed"):  # also where an older version's lock does not say so
        state = "finished"
    elif state == "finished" and not known["made"]:
        state = "resting"
    note = "" if state == "finished" else now.note
    row = {"root": place.root, "name": place.name, "key": place.key, "state": state, "note": note} | known
    row["left"] = row["quiet"] = None
    if state in ALIVE and total and known["pace"] and isinstance(step, int | float):
        row["left"] = max(0.0, (total - step) / known["pace"])
        row["quiet"] = max(0.0, time.time() - known["logged"])
    return row


def _of_stages(row: dict[str, Any], stages: list[dict[str, Any]]) -> None:
    """What a curriculum's row says is what its stages say: it has no log of its own."""
    now = next((stage for stage in stages if stage["state"] in ALIVE), stages[-1])
    row["note"] = row["note"] or f"stage {stages.index(now) + 1} of {row['stages']}"
    row["step"] = sum(stage["step"] or 0 for stage in stages)
    row["logged"] = row["changed"] = max(stage["changed"] for stage in stages)
    row["seconds"] = sum(stage["seconds"] or 0 for stage in stages)
    for name in ("loss", "memory_mb", "samples_per_s", "pace", "best", "floor", "worse", "waits", "sketch", "quiet"):
        row[name] = now[name]
    if now["state"] in ALIVE:
        row["state"], row["left"] = "running", now["left"] if len(stages) == row["stages"] else None
    elif row["made"] and len(stages) == row["stages"] and now["state"] == "finished":
        row["state"], row["note"] = "finished", ""
    elif row["state"] not in (*ALIVE, "crashed"):
        row["state"] = "stopped" if now["state"] == "finished" else now["state"]
        row["note"] = f"{row['note']}: {now['note']}" if now["note"] else row["note"]
