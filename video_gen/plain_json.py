"""JSON as people write it: a key given twice is refused, and whatever cannot be read is a ValueError."""

import json
from pathlib import Path
from typing import Any

from video_gen.errors import DataError
from video_gen.files import read_text


def parse(text: str | bytes) -> Any:
    """What a text says. Raises: ValueError if it is no JSON, or names a key twice."""
    try:
        return json.loads(text, object_pairs_hook=_once)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_object(path: Path, remedy: str = "copy it again") -> dict[str, Any]:
    """A file of names and values. Raises: DataError with the remedy if it is something else."""
    try:
        found = parse(read_text(path))
    except ValueError as error:
        raise DataError(f"{path}: damaged ({error}); {remedy}") from None
    if not isinstance(found, dict):
        raise DataError(f"{path}: damaged (is {type(found).__name__} and no object); {remedy}")
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"'{twice}' is given twice; leave one out")
    return found
