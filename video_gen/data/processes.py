"""Work on many items in several processes, which end with this one: at its end, at Ctrl-C, and when it is killed."""

import multiprocessing
import signal
import sys
from collections.abc import Callable, Generator, Sequence
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
        workers: processes; 1 = this one. They are started afresh: threads, such as torch has, do not survive a fork.
    Raises: VideoGenError if `make` does; DataError if a process was killed, with the item that it was at.
    """
    if workers <= 1:
        yield from ((item, make(item)) for item in items)
        return
    context: Any = multiprocessing.get_context(
        "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else None
    )
    readers: dict[Any, Any] = {}
    left: dict[Any, list[Item]] = {}
    try:
        for number in range(workers):
            reader, writer = context.Pipe(duplex=False)
            left[reader] = list(items[number::workers])
            readers[reader] = context.Process(target=_serve, args=(make, left[reader], writer), daemon=True)
            readers[reader].start()
            writer.close()  # so that the reader meets the end of the pipe when the process ends
        running = dict(readers)
        while running:
            for reader in wait(list(running)):
                try:
                    item, result = reader.recv()  # type: ignore[union-attr]
                except EOFError:
                    _check_end(running.pop(reader), left[reader])
                    continue
                left[reader].pop(0)
                if isinstance(result, VideoGenError):
                    raise result
                yield item, result
    finally:
        for process in readers.values():
            process.terminate()
        for process in readers.values():
            process.join()


def _serve(make: Callable[[Any], Any], items: Sequence[Any], out: Connection) -> None:
    """What one process does: its share, as long as the one that started it is there."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the parent then ends us
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # an exception, so that half-written files are removed
    parent = multiprocessing.parent_process()
    for item in items:
        if parent is not None and not parent.is_alive():
            return
        try:
            out.send((item, make(item)))
        except VideoGenError as error:
            out.send((item, error))
            return
        except BrokenPipeError:
            return


def _check_end(process: Any, left: Sequence[Any]) -> None:
    process.join()
    if process.exitcode:
        at = f" while at {getattr(left[0], 'name', left[0])}" if left else ""
        raise DataError(
            f"process {process.pid} of the work ended with code {process.exitcode}{at}: killed, or out of memory; the same "
            "command goes on"
        )
