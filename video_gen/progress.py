"""A progress bar with rate and time left, for work that reports `(done, total)`."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


def duration(seconds: float) -> str:
    """Such as 40 s, 12 min 5 s, 2 h 18 min or 3 d 4 h."""
    total = round(seconds)
    for unit, large, part, small in (("d", 86_400, 3_600, "h"), ("h", 3_600, 60, "min"), ("min", 60, 1, "s")):
        if total >= large:
            return f"{total // large} {unit} {total % large // part} {small}"
    return f"{total} s"


@contextmanager
def bar(what: str, unit: str = "") -> Iterator[Callable[[int, int], None]]:
    """A bar named `what`, shown from the callback's first call on; yields the callback. What was done before that call does not
    count in the rate."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    progress = Progress(*columns)
    task = progress.add_task(what, total=None, rate="")
    started: tuple[float, int] | None = None

    def update(done: int, total: int) -> None:
        nonlocal started
        now = time.monotonic()
        if started is None:
            started = now, done
            progress.start()
        rate = (done - started[1]) / (now - started[0]) if now > started[0] else 0.0
        progress.update(task, completed=done, total=total, rate=f"{rate:.1f} {unit}/s" if rate else "")

    try:
        yield update
    finally:
        if started is not None:
            progress.stop()
