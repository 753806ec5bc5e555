"""The log of a run, log.jsonl, read as it grows: what was read once stays, and of what came only that is read.

A line is {"kind": "train", "step": 20, "loss": 0.5, ...}; a curve is called "train/loss". Lines that are none, and values that are
no finite number, are left out and counted.
"""

import os
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from math import ceil
from pathlib import Path
from typing import Any, BinaryIO

from pydantic_core import from_json

from video_gen.web.studio.plain_files import open_plain

LARGEST = 128 << 20
"""Bytes of a log that are read: the last ones of a larger one."""
BLOCK = 1 << 20
"""Bytes read at once; a longer line is none of a log's."""
MOST_CURVES, LONGEST_NAME = 200, 120
SKETCH_BYTES = 1 << 13
"""That are read at each place of a sketch: several lines."""


@dataclass
class Curve:
    """Values by step, as they came."""

    steps: array = field(default_factory=lambda: array("d"))
    values: array = field(default_factory=lambda: array("d"))

    def thin(self, points: int, first: float, last: float, in_order: bool = True) -> dict[str, list[float]]:
        """At most `points` of the steps from `first` to `last`: means, with the least and greatest where several are one point.

        Args: in_order: whether steps never go back.
        Returns: "steps" and "values", and "low" and "high" if any point is of several.
        """
        steps, values = self.steps, self.values
        if not in_order:
            pairs = sorted(zip(steps, values), key=lambda pair: pair[0])
            steps, values = array("d", (pair[0] for pair in pairs)), array("d", (pair[1] for pair in pairs))
        begin, end = bisect_left(steps, first), bisect_right(steps, last)
        size = ceil((end - begin) / points) or 1
        starts = range(begin, end, size)
        if size == 1:
            return {"steps": steps[begin:end].tolist(), "values": [_short(x) for x in values[begin:end]]}
        groups = [values[i : min(i + size, end)] for i in starts]
        return {
            "steps": [(steps[i] + steps[min(i + size, end) - 1]) / 2 for i in starts],
            "values": [_short(sum(group) / len(group)) for group in groups],
            "low": [_short(min(group)) for group in groups],
            "high": [_short(max(group)) for group in groups],
        }


class Log:
    """The curves of a log.jsonl as far as it was read; `read` goes on.

    Args: coarse: about so many lines of training are read, evenly spread over what is there at first, and all others: ten times as
        fast, for many runs at once. 0 = every line.
    """

    def __init__(self, path: Path, coarse: int = 0):
        self.path, self.coarse = path, coarse
        self._begin()

    def _begin(self) -> None:
        self.curves: dict[str, Curve] = {}
        self.in_order = True
        self.lines = self.unread = self.first_unread = self.not_finite = self.left_out = self.skipped = 0
        self._last: dict[str, float] = {}
        self._number, self._offset, self._torn, self._every = None, 0, False, 1

    def read(self) -> None:
        """What has come since the last time; all anew if the file is another, or became shorter."""
        file = open_plain(self.path)
        if file is None:
            self._begin()
            return
        with file:
            facts = os.fstat(file.fileno())
            if facts.st_ino != self._number or facts.st_size < self._offset:
                self._begin()
                self._number = facts.st_ino
                self.skipped = self._offset = max(0, facts.st_size - LARGEST)
                self._torn = self._offset > 0
            if facts.st_size > self._offset:
                file.seek(self._offset)
                for lines in self._whole_lines(file):
                    if self.coarse:
                        lines = self._some(lines, facts.st_size)
                    self._take(lines)

    @property
    def held(self) -> int:
        """Bytes of the lines that are in memory, about."""
        return (self._offset - self.skipped) // self._every

    def troubles(self) -> list[str]:
        """What could not be read, a line each."""
        told = []
        if self.skipped:
            told.append(f"the log is larger than {LARGEST >> 20} MB; curves begin {self.skipped >> 20} MB into it")
        if self.unread:
            told.append(
                f"{self.unread:,} of {self.lines:,} lines of the log cannot be read, first line {self.first_unread:,}"
            )
        if self.not_finite:
            told.append(f"{self.not_finite:,} values are no finite number and are left out of the curves")
        if self.left_out:
            told.append(f"the log has more than {MOST_CURVES} figures; {self.left_out:,} values of others are left out")
        if not self.in_order:
            told.append("steps go back on the way; curves are drawn in the order of steps")
        return told

    def _whole_lines(self, file: Any) -> Iterator[list[bytes]]:
        """Lines that end; what is still being written waits for the next time."""
        while block := file.read(BLOCK):
            end = block.rfind(b"\n") + 1
            if not end:
                if len(block) < BLOCK:
                    return
                self._offset, self._torn = self._offset + len(block), True  # longer than any line of ours
                continue
            lines = block[: end - 1].split(b"\n")
            if self._torn:
                self._torn = False
                if not (self.skipped and not self.lines):
                    self._bad()
                lines = lines[1:]
            self._offset += end
            file.seek(self._offset)
            yield lines

    def _some(self, lines: list[bytes], size: int) -> list[bytes]:
        """One of so many lines of training, and all of validation, of which there are few."""
        training = [b'"train"' in line[:40] for line in lines]
        if not self.lines:
            many = sum(training) * size / (sum(map(len, lines)) + len(lines))
            self._every = max(1, ceil(many / self.coarse))
        chosen = set([index for index, yes in enumerate(training) if yes][:: self._every])
        return [line for index, line in enumerate(lines) if index in chosen or not training[index]]

    def _take(self, lines: list[bytes]) -> None:
        """Lines of the same figures, which follow one another as a rule, are taken together: that is three times as fast."""
        for _, group in groupby(self._parsed(lines), key=lambda said: (said["kind"], *said)):
            alike = list(group)
            names, columns = list(alike[0]), zip(*(said.values() for said in alike))
            self._put(alike[0]["kind"], dict(zip(names, columns)))

    def _parsed(self, lines: list[bytes]) -> Iterator[dict[str, Any]]:
        for line in lines:
            said = line_of(line)
            if "step" in said and _number(said["step"]) and isinstance(said.get("kind"), str):
                self.lines += 1
                yield said
            elif line.strip():
                self._bad()

    def _put(self, kind: str, columns: dict[str, tuple]) -> None:
        """Values by name, those of as many lines each."""
        del columns["kind"]
        steps = array("d", columns.pop("step"))
        if list(steps) != sorted(steps) or steps[0] < self._last.get(kind, steps[0]):
            self.in_order = False
        self._last[kind] = steps[-1]
        for name, values in columns.items():
            curve = self._curve(f"{kind}/{name}"[:LONGEST_NAME])
            if curve is None:
                self.left_out += len(values)
            elif (finite := _finite(values)) is not None:
                curve.steps.extend(steps)
                curve.values.extend(finite)
            else:
                good = [i for i, value in enumerate(values) if _number(value)]
                self.not_finite += sum(isinstance(value, int | float) for value in values) - len(good)
                curve.steps.extend(steps[i] for i in good)
                curve.values.extend(values[i] for i in good)

    def _curve(self, name: str) -> Curve | None:
        """None = there are too many."""
        if name not in self.curves and len(self.curves) < MOST_CURVES:
            self.curves[name] = Curve()
        return self.curves.get(name)

    def _bad(self) -> None:
        self.lines += 1
        self.unread += 1
        self.first_unread = self.first_unread or self.lines


def sketch(path: Path, name: str = "loss", places: int = 48) -> list[tuple[float, float]]:
    """A curve of training's lines in so few points that a hundred logs are looked at in no time: of a long log a line at each of
    so many places is read, and the rest is not."""
    file = open_plain(path)
    if file is None:
        return []
    with file:
        size = os.fstat(file.fileno()).st_size
        if size <= places * SKETCH_BYTES:
            lines = [line for line in file.read(size).split(b"\n")[:-1] if b'"train"' in line]
            chosen = [lines[i * len(lines) // places] for i in range(places)] if len(lines) > places else lines
        else:
            starts = (place * (size - SKETCH_BYTES) // (places - 1) for place in range(places))
            chosen = [line for start in starts if (line := _train_line(file, start))]
    said = [line_of(line) for line in chosen]
    points = {s.get("step"): s.get(name) for s in said if _number(s.get("step")) and _number(s.get(name))}
    return sorted((float(step), _short(float(value))) for step, value in points.items())  # type: ignore[arg-type]


def _train_line(file: BinaryIO, start: int) -> bytes:
    """The first whole line of training from a place on."""
    for most in (SKETCH_BYTES // 4, SKETCH_BYTES):  # two lines are there as a rule
        file.seek(start)
        lines = file.read(most).split(b"\n")[1 if start else 0 : -1]
        if found := next((line for line in lines if b'"train"' in line), b""):
            return found
    return b""


def last_lines(path: Path, most: int = 1 << 16) -> list[bytes]:
    """The last whole lines of a log, of up to `most` bytes, in order, as `line_of` reads them."""
    file = open_plain(path)
    if file is None:
        return []
    with file:
        start = max(0, os.fstat(file.fileno()).st_size - most)
        file.seek(start)
        return file.read(most).split(b"\n")[1 if start else 0 : -1]


def first_of(kind: str, lines: Iterable[bytes]) -> dict[str, Any]:
    """The first line of a kind, and no more than that is read; {} if there is none."""
    mark = f'"{kind}"'.encode()
    return next((said for line in lines if mark in line and (said := line_of(line)).get("kind") == kind), {})


def line_of(line: bytes) -> dict[str, Any]:
    """A line's values; {} if it is none."""
    try:
        said = from_json(line)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _finite(values: tuple) -> array | None:
    """The values, if all are finite numbers."""
    try:
        found = array("d", values)
    except (TypeError, OverflowError):
        return None
    total = sum(found)
    return found if total - total == 0 else None


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


def _short(value: float) -> float:
    return float(f"{value:.5g}")
