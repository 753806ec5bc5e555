"""What a model was trained on, written down beside its VAE, so that whoever uses it next holds out the same clips.

What one of two models holds out the other must not train on: the transformer takes the VAE's split, a student its teacher's,
and a measurement that of the run.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from video_gen.config import validate
from video_gen.data.config import ClipConfig
from video_gen.errors import DataError
from video_gen.files import write_text

FILE = "data.json"
SPLIT = ("validation_fraction", "split_seed", "held_out")
FEW_FILES = 8
"""Clips of one file are alike: figures of fewer files than this say little of others."""


def remember_data(folder: Path, data: ClipConfig) -> None:
    """Write down the clips that the model in `folder` was trained on."""
    write_text(folder / FILE, data.model_dump_json(indent=1))


def known_data(folder: Path) -> ClipConfig | None:
    """The clips that the model in `folder` was trained on; None if nobody wrote it down. Raises: DataError, ConfigError."""
    file = folder / FILE
    if not file.exists():
        return None
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: cannot be read ({error}); copy it again, or delete it") from None
    return validate(ClipConfig, values, str(file))


def inherited(data: ClipConfig, known: dict[str, Any], whose: str, say: Callable[[str], None]) -> ClipConfig:
    """`data` with the `known` values for what neither a file nor the command line has said; what was said and differs is named.

    Args: whose: such as "the VAE's".
    """
    taken = {}
    for name, value in known.items():
        if getattr(data, name) == value:
            continue
        if name in data.model_fields_set:
            say(f"data.{name} is {getattr(data, name)}, {whose} is {value}{_consequence(name)}")
        else:
            taken[name] = value
    if taken:
        say(f"as {whose}: {', '.join(f'data.{name} {value}' for name, value in taken.items())}")
    return data.replace(**taken)


def say_held_out(clips: int, files: int, say: Callable[[str], None]) -> None:
    """Tell whoever will read held-out figures where these are rough, or will not be."""
    if not clips:
        say(
            "nothing is held out, so no figure will tell how well the model does on other clips, and its last weights are kept"
        )
    elif files < FEW_FILES:
        counted = f"{clips} {'clip' if clips == 1 else 'clips'} of {files} {'file' if files == 1 else 'files'}"
        say(f"only {counted} held out: held-out figures are rough")


def split_of(data: ClipConfig) -> dict[str, Any]:
    return {name: getattr(data, name) for name in SPLIT}


def _consequence(name: str) -> str:
    return ": what is held out here, the other may have been trained on" if name in SPLIT else ""
