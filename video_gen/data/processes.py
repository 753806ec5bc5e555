"""Work on many items in several processes, which end with this one: at its end, at Ctrl-C, and when it is killed."""

import multiprocessing
import signal
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from video_gen.errors import DataError, VideoGenError

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_processes(
    make: Callable[[Item], Result], items: Sequence[Item], workers: int
) -> Generator[tuple[Item, Result], None, None]:
    """Items and what `make` makes of them, as they are done. Closing the iterator ends the work at once.

    Args:
        make: a function of a module, or a `functools.partial` of one.
        workers: processes; 1 = this one. None is forked from this one: threads, such as torch has, do not survive that.
    Raises: VideoGenError if `make` does; DataError if a process was killed, with the item that it was at.
    """
    if workers <= 1:
        yield from ((item, make(item)) for item in items)
        return
    context = _context()
    started: dict[Any, Any] = {}
    at: dict[Any, Any] = {}
    left = iter(items)

    def hand_out(connection: Any) -> None:
        """The next item, to a process that has none; without one, word that it may end."""
        given = next(left, _END)
        at[connection] = given
        with suppress(BrokenPipeError):  # it was killed, and is about to be met
            connection.send(() if given is _END else (given,))

    try:
        for _ in range(workers):
            here, there = context.Pipe()
            started[here] = context.Process(target=_serve, args=(make, there), daemon=True)
            started[here].start()
            there.close()  # so that this side meets the end of the pipe when the process ends
            hand_out(here)
        running = dict(started)
        while running:
            for connection in wait(list(running)):
                try:
                    item, result = connection.recv()  # type: ignore[union-attr]
                except (EOFError, ConnectionResetError):
                    _check_end(running.pop(connection), at[connection])
                    continue
                if isinstance(result, VideoGenError):
                    raise result
                hand_out(connection)  # first: it works on while this one is looked at
                yield item, result
    finally:
        for process in started.values():
            process.terminate()
        for process in started.values():
            process.join()


def _context() -> Any:
    """Of processes forked from one that has this project's modules and no threads; elsewhere of such as start from nothing."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context()
    context = multiprocessing.get_context("forkserver")
    if "torch" not in sys.modules:  # a second of imports, once, and not for each process
        context.set_forkserver_preload([name for name in sys.modules if name.startswith("video_gen.")])
    return context


_END = object()
"""In the place of an item where there is none left."""


def _serve(make: Callable[[Any], Any], asked: Connection) -> None:
    """What one process does: items as they are handed to it, as long as the one that started it is there."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the parent then ends us
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # an exception, so that half-written files are removed
    try:
        while given := asked.recv():
            try:
                asked.send((given[0], make(given[0])))
            except VideoGenError as error:
                asked.send((given[0], error))
                return
    except (BrokenPipeError, ConnectionResetError, EOFError):  # nobody is there any more
        return


def _check_end(process: Any, item: Any) -> None:
    process.join()
    if process.exitcode:
        at = "" if item is _END else f" while at {getattr(item, 'name', item)}"
        raise DataError(
            f"process {process.pid} of the work ended with code {process.exitcode}{at}: killed, or out of memory; the same "
            "command goes on"
        )
