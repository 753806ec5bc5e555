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
        workers: processes; 1 = this one.
    Raises: VideoGenError if `make` does; DataError if a process was killed.
    """
    if workers <= 1:
        yield from ((item, make(item)) for item in items)
        return
    readers: dict[Any, multiprocessing.Process] = {}
    try:
        for number in range(workers):
            reader, writer = multiprocessing.Pipe(duplex=False)
            share = items[number::workers]
            readers[reader] = multiprocessing.Process(target=_serve, args=(make, share, writer), daemon=True)
            readers[reader].start()
            writer.close()  # so that the reader meets the end of the pipe when the process ends
        running = dict(readers)
        while running:
            for reader in wait(list(running)):
                try:
                    item, result = reader.recv()  # type: ignore[union-attr]
                except EOFError:
                    _check_end(running.pop(reader))
                    continue
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


def _check_end(process: multiprocessing.Process) -> None:
    process.join()
    if process.exitcode:
        raise DataError(
            f"process {process.pid} of the work ended with code {process.exitcode}, killed or out of memory; the same "
            "command goes on"
        )
