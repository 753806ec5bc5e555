"""The run folder: whose it is, and how things appear in it whole or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import yaml

from video_gen.errors import TrainingError
from video_gen.training.monitor import say

RUN_ENTRIES = ("config.yaml", "log.jsonl", "tensorboard", "checkpoints", "samples", "profile", "model")
"""What training writes into a run folder, besides nan_step_*/ and the stage-*/ of a curriculum."""


def open_run_folder(run_dir: Path, config_yaml: str, resume: Literal["auto", "never"]) -> None:
    """Make the folder, or see that it belongs to this configuration. Raises: TrainingError if it does not."""
    run_dir.mkdir(parents=True, exist_ok=True)
    file = run_dir / "config.yaml"
    if resume == "never":
        _move_aside(run_dir)
    elif file.exists():
        difference = _first_difference(what_is_trained(file.read_text()), what_is_trained(config_yaml))
        if difference:
            raise TrainingError(
                f"{run_dir} holds a run of another configuration: {difference}; "
                "use a new run folder, or --resume never to set the old run aside"
            )
        return
    new = file.with_name(".new-config.yaml")
    new.write_text(config_yaml)
    new.replace(file)


def what_is_trained(config_yaml: str) -> dict[str, Any]:
    """A configuration without what says only on which machines it runs: that may change when a run goes on."""
    config = yaml.safe_load(config_yaml)
    loop = config.get("loop")
    kept = {k: v for k, v in config.items() if k != "parallel"}
    return kept | ({"loop": {k: v for k, v in loop.items() if k != "accumulation"}} if isinstance(loop, dict) else {})


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A temporary sibling to fill; on success it takes `path`'s place in one rename, on failure `path` stays as it was.

    A leftover of a killed process is removed by the next call for the same path.
    """
    new, old = path.with_name(f".new-{path.name}"), path.with_name(f".old-{path.name}")
    for leftover in (new, old):
        shutil.rmtree(leftover, ignore_errors=True)
    new.mkdir(parents=True)
    try:
        yield new
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    put_in_place(new, path)


def put_in_place(new: Path, path: Path) -> None:
    """Have the disk hold all of a filled folder, then give it the name `path`."""
    for file in sorted(new.rglob("*"), reverse=True):
        _fsync(file)
    _fsync(new)
    old = path.with_name(f".old-{path.name}")
    if path.exists():
        os.replace(path, old)  # a folder cannot be replaced by a rename while it holds files
    os.replace(new, path)
    _fsync(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def _move_aside(run_dir: Path) -> None:
    found = [run_dir / name for name in RUN_ENTRIES if (run_dir / name).exists()] + sorted(run_dir.glob("stage-*"))
    if not found:
        return
    number = next(n for n in range(1, len(list(run_dir.glob("old-*"))) + 2) if not (run_dir / f"old-{n}").exists())
    aside = run_dir / f"old-{number}"
    aside.mkdir()
    for path in found:
        path.rename(aside / path.name)
    say(f"{run_dir}: the earlier run is now in {aside}")


def _first_difference(old: Any, new: Any, where: str = "") -> str | None:
    """The first key in which two nested mappings differ, with both values."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [*old, *(k for k in new if k not in old)]
        found = (_first_difference(old.get(k), new.get(k), f"{where}.{k}".lstrip(".")) for k in keys)
        return next((difference for difference in found if difference), None)
    return None if old == new else f"{where or 'config'} was {old!r} and is now {new!r}"


def _fsync(path: Path) -> None:
    """Have the disk hold a file's content, or a folder's list of names (where the system can do that)."""
    if os.name == "nt" and path.is_dir():
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
