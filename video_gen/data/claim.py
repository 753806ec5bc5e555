"""Folders that a command fills, and goes on with when it is asked again: a file there says of what they are."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from video_gen.errors import DataError
from video_gen.files import write_text
from video_gen.plain_json import read_object


def claim(folder: Path, name: str, wanted: Mapping[str, Any], kind: str) -> None:
    """The folder is ours if it is empty, or its file `name` says the same.

    Args: wanted: what the file says, plain values; `kind`: what the folder then holds, for messages.
    Raises: DataError if it is not ours.
    """
    file = folder / name
    if file.is_file():
        found = read_object(file, "choose another folder")
        if changed := [key for key in wanted if found.get(key) != wanted[key]]:
            key = changed[0]
            raise DataError(
                f"{folder}: holds another {kind} ({key} is {found.get(key)!r} and not {wanted[key]!r}); choose another folder"
            )
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder}: is not empty and holds no {kind}; choose another folder")
    else:
        write_text(file, json.dumps(wanted, indent=1))
