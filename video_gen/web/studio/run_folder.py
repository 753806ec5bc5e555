"""What is in a run folder: its configuration, held-out figures, samples and files. Whatever is in them, nothing here raises."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from video_gen.web.studio.plain_files import stamp, whole

OWN = frozenset(("checkpoints", "tensorboard", "best", "samples", "profile", "model"))
"""Folders of a run in which there are no further runs."""
CONFIG, RECIPE = "config.yaml", "recipe.yaml"
CONFIGS = (CONFIG, RECIPE)
"""The whole settings, which training writes; what a page has asked for."""
CONFIG_BYTES = 1 << 18
MOST_SETTINGS = 2_000
MOST_SAMPLES, MOST_VIDEOS = 2_000, 256
SAMPLE = re.compile(r"step_(\d{1,12})")
VIDEO = re.compile(r"[\w.-]{1,80}\.mp4")
ALIAS, MOST_ALIASES = re.compile(r"(?:^|[\s\[{,:-])\*[^\s\],}]", re.MULTILINE), 20
Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_config(folder: Path) -> tuple[dict[str, Any], str]:
    """A run's settings, as plain values, or those it was asked for until training has written them; and what is wrong with the
    file, "" if nothing is."""
    name = next((name for name in CONFIGS if os.path.lexists(folder / name)), None)
    raw = None if name is None else whole(folder / name, CONFIG_BYTES)
    if raw is None:
        return {}, "" if name is None else f"{name} cannot be read, or is too large for one"
    try:
        text = raw.decode()
        refuse_many_aliases(text)
        values = yaml.load(text, Loader)
        settings = dict(flat(values)) if isinstance(values, dict) else None
    except (yaml.YAMLError, ValueError, RecursionError, TypeError, AttributeError, OverflowError) as error:
        return {}, f"{name} is no configuration: {' '.join(str(error).split())[:200]}"
    if settings is None:
        return {}, f"{name} is no configuration: it holds no settings"
    return values, ""


def refuse_many_aliases(text: str) -> None:
    """A few lines of YAML whose aliases name one another stand for more than any memory holds. Raises: ValueError."""
    count = len(ALIAS.findall(text))
    if count > MOST_ALIASES:
        raise ValueError(f"it has {count} aliases (*name), and {MOST_ALIASES} are taken; write them out")


def flat(values: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Settings by dotted names, in order. Raises: ValueError if there are more than any configuration has."""
    left, count = [(path, values)], 0
    while left:
        name, value = left.pop()
        count += 1
        if count > MOST_SETTINGS:
            raise ValueError(f"it holds more than {MOST_SETTINGS:,} settings")
        if isinstance(value, dict) and value:
            left += [(f"{name}.{key}" if name else str(key), part) for key, part in reversed(value.items())]
        elif isinstance(value, list) and any(isinstance(part, dict) for part in value):
            left += [(f"{name}.{index}", part) for index, part in reversed([*enumerate(value, 1)])]
        else:
            yield name[:200], value


def kind_of(config: dict[str, Any]) -> str | None:
    """What a configuration trains; None if it tells nothing."""
    if "teacher" in config or "distill" in config:
        return "distill"
    if isinstance(config.get("vae"), dict) or {"loss", "crop", "image_fraction"} & config.keys():
        return "vae"
    return "diffusion" if {"transformer", "vae", "latents", "modes", "diffusion", "text"} & config.keys() else None


def steps_of(config: dict[str, Any]) -> int | None:
    """Of all its stages, where it has such."""
    own, stages = _steps(config, None), config.get("stages")
    if not isinstance(stages, list) or not stages:
        return own
    steps = [_steps(stage, own) if isinstance(stage, dict) else None for stage in stages]
    return None if None in steps else sum(n for n in steps if n)


def _steps(config: dict[str, Any], default: int | None) -> int | None:
    loop = config.get("loop")
    steps = loop.get("train_steps", default) if isinstance(loop, dict) else default
    return steps if type(steps) is int and 0 < steps < 2**53 else None


def best_of(folder: Path) -> dict[str, float]:
    """The held-out figures of the best weights, and their "step"; {} if there are none."""
    try:
        found = json.loads(whole(folder / "best" / "figures.json", CONFIG_BYTES) or b"{}")
        return {str(name)[:80]: float(value) for name, value in found.items() if abs(float(value)) < 1e300}
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        return {}


def samples_of(folder: Path) -> list[dict[str, Any]]:
    """What was sampled on the way: "step", "name" of the folder, "videos", "sheet", "captions"; in order of steps."""
    found = []
    try:
        with os.scandir(folder / "samples") as entries:
            named = [(int(match[1]), entry) for entry in entries if (match := SAMPLE.fullmatch(entry.name))]
            named = sorted((step, entry.name) for step, entry in named if entry.is_dir(follow_symlinks=False))
    except OSError:
        return []
    for step, name in named[-MOST_SAMPLES:]:
        try:
            files = sorted(os.listdir(folder / "samples" / name))
        except OSError:
            continue
        raw = whole(folder / "samples" / name / "captions.txt", CONFIG_BYTES) or b""
        found.append(
            {
                "step": step,
                "name": name,
                "videos": [file for file in files if VIDEO.fullmatch(file)][:MOST_VIDEOS],
                "sheet": "sheet.png" in files,
                "captions": raw.decode("utf-8", "replace").splitlines()[:MOST_VIDEOS],
            }
        )
    return found


def sizes_of(folder: Path) -> dict[str, int]:
    """Bytes on the disk: "checkpoints", "best", "model", "samples", "log", and "all"."""
    found = {
        "checkpoints": 0,
        "best": 0,
        "model": 0,
        "samples": 0,
        "log": (stamp(folder / "log.jsonl") or (0, 0, 0))[1],
    }
    found["all"] = found["log"]
    for part in OWN:
        size = _size(folder / part)
        found["all"] += size
        if part in found:
            found[part] = size
    return found


def _size(folder: Path, most: int = 20_000) -> int:
    total, left = 0, [folder]
    while left and most:
        try:
            with os.scandir(left.pop()) as entries:
                for entry in entries:
                    most -= 1
                    if entry.is_dir(follow_symlinks=False):
                        left.append(Path(entry.path))
                    elif entry.is_file(follow_symlinks=False):
                        total += entry.stat(follow_symlinks=False).st_size
                    if not most:
                        break
        except OSError:
            continue
    return total


def checkpoint_of(folder: Path) -> int | None:
    """The step of the newest checkpoint; None if there is none."""
    try:
        names = os.listdir(folder / "checkpoints")
    except OSError:
        return None
    return max((int(match[1]) for name in names if (match := SAMPLE.fullmatch(name))), default=None)
