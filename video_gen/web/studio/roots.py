"""The folders named at the start, and the files in them: nothing else is found, whatever name is asked for."""

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from video_gen.web.studio.answers import Missing

LONGEST_NAME = 1024


class Roots:
    """Folders by a short name each. They need not be there yet; what lies in one is looked for anew each time.

    Args: folders: as they were given; of equal last names the later ones get a number.
    """

    def __init__(self, folders: tuple[Path, ...]):
        self.folders: Mapping[str, Path] = dict(_named(folders))

    def find(self, root: str, name: str = "") -> Path:
        """The file or folder `name`, as `a/b.mp4`, in a root. Raises: Missing if there is none, or it lies elsewhere."""
        return inside(self.folder(root), name)

    def folder(self, root: str) -> Path:
        """A root itself, there or not yet. Raises: Missing."""
        folder = self.folders.get(root)
        if folder is None:
            raise Missing(f"no folder '{root[:80]}'; there are {', '.join(self.folders) or 'none'}")
        return folder

    def hold(self, path: Path) -> bool:
        """Whether a path, there or yet to be made, lies in one of them, with all links followed."""
        with suppress(OSError, RuntimeError, ValueError):
            whole = path.resolve()
            return any(whole.is_relative_to(folder.resolve()) for folder in self.folders.values())
        return False


def inside(folder: Path, name: str) -> Path:
    """`name` in `folder`, itself or deeper, and there. A link may lead to what is inside, too.

    Raises: Missing.
    """
    parts = name.split("/") if name else []
    odd = len(name) > LONGEST_NAME or "\0" in name or "\\" in name
    if odd or any(part in ("", ".", "..") or (os.name == "nt" and ":" in part) for part in parts):
        raise Missing(f"'{name[:80]}' is no name of a file here")
    with suppress(OSError, RuntimeError, ValueError):  # too long for the system, a circle of links, no text for it
        whole = folder.joinpath(*parts).resolve(strict=True)
        if whole.is_relative_to(folder.resolve(strict=True)):
            return whole
    raise Missing(f"'{name[:80]}' is not there")


def _named(folders: tuple[Path, ...]) -> Iterator[tuple[str, Path]]:
    taken: set[str] = set()
    for folder in dict.fromkeys(folders):
        own = folder.absolute().name or "root"
        name = next(n for n in (own, *(f"{own}-{i}" for i in range(2, len(folders) + 2))) if n not in taken)
        taken.add(name)
        yield name, folder
