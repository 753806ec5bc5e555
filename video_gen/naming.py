"""Names of files that are made: after a prompt, and never one that is taken. No torch."""

import re
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from video_gen.files import explained

SLUG = 40
"""Letters of a prompt in a file's name, at most."""


def stem(prompt: str, what: str) -> str:
    """A file's name after a prompt: its letters and digits of any script, with hyphens between the words."""
    words = "-".join(re.findall(r"\w+", unicodedata.normalize("NFC", prompt).casefold()))
    short = words if len(words) <= SLUG else words[: SLUG + 1].rpartition("-")[0] or words[:SLUG]
    return f"{short}_{what}" if short else what


def free_name(folder: Path, stem: str) -> str:
    """The name, or with the first number from 2 on under which nothing is in the folder, whatever its suffix."""
    taken = {path.stem for path in folder.iterdir()} if folder.is_dir() else set()
    numbered = (f"{stem}_{number}" for number in range(2, len(taken) + 3))
    return stem if stem not in taken else next(name for name in numbered if name not in taken)


@contextmanager
def claimed(folder: Path, stem: str, suffix: str) -> Iterator[Path]:
    """A file of a name that nothing has, taken at once, so that two programs that run together do not write the same; it goes
    if what is done with it fails. Raises: DataError if the folder cannot be written."""
    while True:
        path = folder / f"{free_name(folder, stem)}.{suffix}"
        with explained(path):
            folder.mkdir(parents=True, exist_ok=True)
            try:
                path.open("xb").close()
                break
            except FileExistsError:
                continue
    try:
        yield path
    except BaseException:
        path.unlink(missing_ok=True)
        path.with_suffix(".json").unlink(missing_ok=True)
        raise
