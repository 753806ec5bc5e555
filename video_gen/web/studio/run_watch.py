"""What pages are told of runs: rows and curves, out of memory where nothing has changed; and every second which have changed."""

import asyncio
import json
import threading
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Any

from video_gen.web.studio.hub import Hub
from video_gen.web.studio.roots import Roots
from video_gen.web.studio.run_log import Log
from video_gen.web.studio.run_rows import Folders, Rows

TOPIC = "runs"
SECONDS = 1.0
MOST_LOGS, MOST_BYTES = 512, 256 << 20
"""Of logs that are kept in memory: how many, and how much in all, as bytes of their lines."""


class Logs:
    """Logs by their path, read as far as they go; those that were not asked for longest are forgotten."""

    def __init__(self):
        self._logs: OrderedDict[tuple[Path, int], tuple[Log, threading.Lock]] = OrderedDict()
        self._turn = threading.Lock()

    def curves(self, path: Path, points: int, first: float, last: float, coarse: bool = False) -> dict[str, Any]:
        """Every curve of a log from step `first` to `last`, and what could not be read. Args: coarse: see `Log`."""
        key = (path, points if coarse else 0)
        with self._turn:
            log, turn = self._logs.setdefault(key, (Log(*key), threading.Lock()))
            self._logs.move_to_end(key)
        with turn:
            log.read()
            curves = {name: curve.thin(points, first, last, log.in_order) for name, curve in log.curves.items()}
            told = {"curves": curves, "lines": log.lines, "troubles": log.troubles()}
        with self._turn:
            while len(self._logs) > 1 and (len(self._logs) > MOST_LOGS or self._bytes() > MOST_BYTES):
                self._logs.popitem(last=False)
        return told

    def _bytes(self) -> int:
        return sum(log.held for log, _ in self._logs.values())


class RunWatch:
    """The runs under the roots, for all pages."""

    def __init__(self, roots: Roots, hub: Hub):
        self.roots, self.hub, self.logs = roots, hub, Logs()
        self._folders, self._rows, self._turn = Folders(roots), Rows(), threading.Lock()
        self._versions: dict[str, tuple[str, int]] = {}
        self._task: asyncio.Task | None = None

    def start(self) -> None:
        """In the server's loop."""
        self._task = asyncio.create_task(self._watch())

    def close(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def look(self) -> tuple[list[dict[str, Any]], list[str]]:
        """A row for each run, now, with its "version", and what was left out. May be called in any thread."""
        with self._turn:
            places, troubles = self._folders.find()
            rows = self._rows.rows(places)
            for row in rows:
                row["version"] = self._version(row)
            return rows, troubles

    def _version(self, row: dict[str, Any]) -> int:
        """A number that grows when a row changes, but for what time alone changes."""
        said = json.dumps({name: value for name, value in row.items() if name not in ("quiet", "left")})
        before, number = self._versions.get(row["key"], ("", 0))
        if before != said:
            number += 1
            self._versions[row["key"]] = (said, number)
        return number

    async def _watch(self) -> None:
        told: dict[str, int] = {}
        while True:
            if self.hub.heard(TOPIC):
                with suppress(OSError):
                    rows, _ = await asyncio.to_thread(self.look)
                    versions = {row["key"]: row["version"] for row in rows}
                    if versions != told:
                        self.hub.tell(TOPIC, versions)
                        told = versions
            await asyncio.sleep(SECONDS)
