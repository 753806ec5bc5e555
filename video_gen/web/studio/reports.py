"""Reports of `evaluate` and `demo` that lie under the roots, shown as the pages that they are.

They are HTML that somebody may have changed: the answer forbids them everything but their own style, the videos that are in
them, and the one script that our reports have, whose content is known; and their origin is none, so that nothing of the studio
can be asked from there.
"""

import base64
import hashlib
import html
import os
import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

from video_gen.web.studio.answers import Missing
from video_gen.web.studio.plain_files import open_plain
from video_gen.web.studio.roots import Roots, inside

SUFFIX, START, DEEPEST, MOST, MOST_FOLDERS = ".html", 1 << 14, 4, 500, 3000
OURS = b"<!doctype html><html lang='en'>"
TITLE = re.compile(r"<title>([^<]{0,300})</title>")


def policy() -> str:
    script = files("video_gen.evaluation").joinpath("page.js").read_text(encoding="utf-8")
    known = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"sandbox allow-scripts; default-src 'none'; script-src 'sha256-{known}'; style-src 'unsafe-inline'; img-src data:; "
        "media-src data:; font-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


class Reports:
    """Args: roots: where they are looked for."""

    def __init__(self, roots: Roots):
        self.roots, self.policy = roots, policy()

    def found(self) -> list[dict[str, Any]]:
        """Newest first: {"root", "name", "title", "made", "bytes"}."""
        told = []
        budget = [MOST_FOLDERS]
        for root, folder in self.roots.folders.items():
            for path in self._below(folder, 0, budget):
                name = path.relative_to(folder).as_posix()
                file = open_plain(path)
                if file is None or len(told) >= MOST:
                    continue
                with file:
                    start, about = file.read(START), os.fstat(file.fileno())
                if start.startswith(OURS):
                    title = TITLE.search(start.decode("utf-8", "replace"))
                    said = html.unescape(title[1]) if title else path.stem
                    told.append(
                        {"root": root, "name": name, "title": said, "made": about.st_mtime, "bytes": about.st_size}
                    )
        return sorted(told, key=lambda one: -one["made"])

    def file(self, root: str, name: str) -> Path:
        """Raises: Missing if it is none, or lies elsewhere."""
        folder = self.roots.folder(root)
        path = inside(folder, name)
        file = open_plain(path) if path.suffix == SUFFIX else None
        if file is None:
            raise Missing(f"'{name[:80]}' is no report")
        with file:
            if not file.read(len(OURS)) == OURS:
                raise Missing(f"'{name[:80]}' is no report of this program")
        return path

    def _below(self, folder: Path, depth: int, budget: list[int]) -> Iterator[Path]:
        budget[0] -= 1
        if budget[0] < 0:
            return
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError:
            return
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.name.endswith(SUFFIX) and entry.is_file(follow_symlinks=False):
                yield Path(entry.path)
            elif depth < DEEPEST and entry.is_dir(follow_symlinks=False):
                yield from self._below(Path(entry.path), depth + 1, budget)
