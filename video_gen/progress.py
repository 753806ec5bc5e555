"""Progress of work that reports `(done, total)`, on standard error: a bar on a terminal, a line now and then in a log."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

LOG_SECONDS = 30.0
"""Between two lines in a log."""
WORTH_SECONDS = 2.0
"""What takes less needs no line in a log."""


def duration(seconds: float) -> str:
    """Such as 40 s, 12 min 5 s, 2 h 18 min or 3 d 4 h."""
    total = round(seconds)
    for unit, large, part, small in (("d", 86_400, 3_600, "h"), ("h", 3_600, 60, "min"), ("min", 60, 1, "s")):
        if total >= large:
            return f"{total // large} {unit} {total % large // part} {small}"
    return f"{total} s"


def plain_console(width: int | None = None, stderr: bool = False) -> Console:
    """Prints text as it is: brackets and colons in names are no markup."""
    return Console(width=width, stderr=stderr, markup=False, emoji=False)


@contextmanager
def bar(what: str, unit: str = "") -> Iterator[Callable[[int, int], None]]:
    """Progress of the work `what`, shown from the callback's first call on; yields the callback. What was done before that call
    does not count in the rate."""
    console = plain_console(stderr=True)
    with _on_terminal(console, what, unit) if console.is_terminal else _in_log(console, what, unit) as update:
        yield update


@contextmanager
def bars(unit: str = "") -> Iterator[Callable[[str, int, int], None]]:
    """Progress of several works, one after the other, each told with its name; yields the callback."""
    with ExitStack() as stack:
        now: dict[str, Callable[[int, int], None]] = {}

        def update(what: str, done: int, total: int) -> None:
            if not total:
                return
            if what not in now:
                stack.close()
                now.clear()
                now[what] = stack.enter_context(bar(what, unit))
            now[what](done, total)

        yield update


@dataclass
class Pace:
    """How fast it goes, since the first report."""

    unit: str
    started: float | None = None
    before: int = 0
    done: int = 0
    total: int = 0

    def report(self, done: int, total: int) -> None:
        if self.started is None:
            self.started, self.before = time.monotonic(), done
        self.done, self.total = done, total

    @property
    def taken(self) -> float:
        return 0.0 if self.started is None else time.monotonic() - self.started

    @property
    def rate(self) -> float:
        """Per second; 0 = not known yet."""
        return (self.done - self.before) / self.taken if self.taken > 0 else 0.0

    def __str__(self) -> str:
        """Rate and time left."""
        if not self.rate:
            return ""
        rate = f"{self.rate:.1f} {self.unit}/s" if self.rate >= 1 else f"{duration(1 / self.rate)} each"
        return f"{rate}, {duration((self.total - self.done) / self.rate)} left"


@contextmanager
def _on_terminal(console: Console, what: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[pace]}"),
    )
    progress, pace = Progress(*columns, console=console), Pace(unit)
    task = progress.add_task(what, total=None, pace="")

    def update(done: int, total: int) -> None:
        if pace.started is None:
            progress.start()
        pace.report(done, total)
        progress.update(task, completed=done, total=total, pace=str(pace))

    try:
        yield update
        progress.update(task, pace=f"in {duration(pace.taken)}")
    finally:
        if pace.started is not None:
            progress.stop()


@contextmanager
def _in_log(console: Console, what: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    pace, said = Pace(unit), 0.0

    def say(text: str) -> None:
        print(f"{what}: {pace.done:,} of {pace.total:,} {unit}".rstrip() + text, file=console.file, flush=True)

    def update(done: int, total: int) -> None:
        nonlocal said
        pace.report(done, total)
        if pace.taken - said >= LOG_SECONDS and done < total:
            said = pace.taken
            say(f", {pace}" if str(pace) else "")

    yield update
    if pace.taken >= WORTH_SECONDS:
        say(f" in {duration(pace.taken)}")
