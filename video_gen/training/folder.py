"""The run folder: whose it is, and how things appear in it whole or not at all."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import yaml

from video_gen.config import differences
from video_gen.errors import TrainingError
from video_gen.files import explained, write_text
from video_gen.training.monitor import say

RUN_ENTRIES = (
    "config.yaml",
    "clips.json",
    "log.jsonl",
    "tensorboard",
    "checkpoints",
    "best",
    "samples",
    "profile",
    "model",
)
"""What training writes into a run folder, besides nan_step_*/ and the stage-*/ of a curriculum."""

MAY_CHANGE = {
    "": ("parallel", "num_samples", "sampling", "latents", "init"),
    "data": ("folder",),
    "lora": ("start", "trigger", "merged"),
    "text": ("name", "tokeniser"),
    "loop": (
        "train_steps", "accumulation", "log_every", "validate_every", "sample_every", "checkpoint_every", "keep_checkpoints",
        "keep", "compile", "checkpointing", "device", "tensorboard",
    ),
    "optim": ("learning_rate", "adam_learning_rate", "final_lr", "schedule", "warmup_steps", "clip_norm"),
}  # fmt: skip
"""Settings with which a run may go on: how long, how fast, on which machine, and what is looked at on the way."""
WHERE = ("vae", "teacher")
"""Settings that may change where they name a place: what lies there is compared by content, as a text encoder's is."""
REASONS = {
    "data": "the clips would be others",
    "loop.batch_size": "the place in the data is counted in batches",
    "loop.seed": "every random number comes from it",
    "optim": "the optimiser's state belongs to it",
    "vae": "the weights belong to it",
    "transformer": "the weights belong to it",
    "text": "the weights belong to it",
}


def open_run_folder(run_dir: Path, config_yaml: str, resume: Literal["auto", "never"]) -> None:
    """Make the folder, or see that it belongs to this configuration, and say what has changed of it that may.

    Raises: TrainingError if something else has changed; DataError if the folder cannot be written.
    """
    with explained(run_dir):
        run_dir.mkdir(parents=True, exist_ok=True)
    file = run_dir / "config.yaml"
    if resume == "never":
        _move_aside(run_dir)
    if file.exists():
        _see_what_changed(file, config_yaml)
    write_text(file, config_yaml)


def _see_what_changed(file: Path, config_yaml: str) -> None:
    try:
        known = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise TrainingError(
            f"{file}: cannot be read ({' '.join(str(error).split())}); use a new run folder, or --resume never"
        ) from None
    new = yaml.safe_load(config_yaml)
    if difference := next(differences(fixed_part(known), fixed_part(new)), None):
        keys, was, now = difference
        key = ".".join(keys) or "config"
        reason = next((why for start, why in REASONS.items() if key.startswith(start)), "it would be another run")
        raise TrainingError(
            f"{file.parent}: {key} was {was!r} and is now {now!r}: {reason}. Use a new run folder (--run; --init starts it from "
            "the weights of a model), or --resume never to set the old run aside"
        )
    for keys, was, now in differences(known, new):
        key = ".".join(keys)
        length = "; the learning rate follows the new length from here on" if key == "loop.train_steps" else ""
        say(f"{file.parent}: goes on with {key} {now!r} (was {was!r}){length}")


def remember_clips(run_dir: Path, clips: dict[str, str], made_of: dict[str, str], say: Callable[[str], None]) -> None:
    """Write down what is trained on, and say in one line what has changed of it since the run was last started.

    Args: clips, made_of: of `training.task.Task`.
    Raises: TrainingError if a part that the weights belong to is another.
    """
    file = run_dir / "clips.json"
    new = {"made_of": made_of, "clips": {clip: _short(facts) for clip, facts in clips.items()}}
    if file.exists():
        try:
            old = json.loads(file.read_text(encoding="utf-8"))
            known, before = dict(old["clips"]), dict(old["made_of"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise TrainingError(f"{file}: cannot be read ({error}); delete it, and run this again") from None
        for part, was in before.items():
            if made_of.get(part) != was:
                raise TrainingError(
                    f"{run_dir}: its {part} is not the one that the run began with ({was} and {made_of.get(part)}); give that "
                    "one, or use a new run folder"
                )
        gone, come = known.keys() - new["clips"].keys(), new["clips"].keys() - known.keys()
        changed = sum(known[clip] != facts for clip, facts in new["clips"].items() if clip in known)
        if gone or come or changed:
            say(
                f"{run_dir}: the clips are not those of before: {len(gone)} went, {len(come)} came, {changed} have another caption "
                f"or side of the split; {len(clips)} in all. It goes on with these"
            )
    write_text(file, json.dumps(new))


def fixed_part(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration without what may change while a run goes on (MAY_CHANGE, WHERE)."""
    kept = {key: value for key, value in config.items() if key not in MAY_CHANGE[""]}
    kept = {key: value for key, value in kept.items() if not (key in WHERE and isinstance(value, str))}
    for part in ("data", "text", "lora", "loop", "optim"):
        if isinstance(kept.get(part), dict):
            kept[part] = {key: value for key, value in kept[part].items() if key not in MAY_CHANGE[part]}
    if kept.get("stages"):
        kept["stages"] = [fixed_part(stage) for stage in kept["stages"]]
    return kept


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A temporary sibling to fill; on success it takes `path`'s place in one rename, on failure `path` stays as it was.

    A leftover of a killed process is removed by the next call for the same path.
    """
    new, old = path.with_name(f".new-{path.name}"), path.with_name(f".old-{path.name}")
    for leftover in (new, old):
        shutil.rmtree(leftover, ignore_errors=True)
    with explained(path):
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


def _short(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


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


def _fsync(path: Path) -> None:
    """Have the disk hold a file's content, or a folder's list of names (where the system can do that)."""
    if os.name == "nt" and path.is_dir():
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
