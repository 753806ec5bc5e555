"""One process at a time in a run folder: a lock that goes with its process, however that ends.

The file says who has it: "process 12 on host (since ...)". A process that ends by itself leaves there how: "finished (...)", or
"ended (...) KIND: message". Where it is free and still says "process", the process was killed, or its machine went down.
"""

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from video_gen.errors import TrainingError
from video_gen.files import explained, lock_byte

NAME = ".lock"


@contextmanager
def locked(run_dir: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Inside, the run folder is this process's own. Where the disk has no locks that is said, and the run goes on.

    Raises: TrainingError if another process has it, with its number and host; DataError if the folder cannot be made.
    """
    path = run_dir / NAME
    with explained(path):
        run_dir.mkdir(parents=True, exist_ok=True)
        file = path.open("a+", encoding="utf-8")
    with file:
        try:
            free = lock_byte(file, 0, wait=False)
        except OSError as error:
            say(f"{run_dir}: its disk has no locks ({error.strerror}); see to it that no other process trains there")
            free = True
        if not free:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise TrainingError(
                f"{run_dir}: {holder} trains there; wait for it, stop it, or give another folder as --run"
            )
        with explained(path):
            _say(file, f"process {os.getpid()} on {socket.gethostname()} (since {_now()})")
        try:
            yield
        except BaseException as error:
            with suppress(OSError):  # the error itself is what counts
                _say(file, f"ended ({_now()}) {type(error).__name__}: {' '.join(str(error).split())}")
            raise
        with suppress(OSError):
            _say(file, f"finished ({_now()})")


def _say(file: IO[str], text: str) -> None:
    file.truncate(0)
    file.write(f"{text}\n")
    file.flush()


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M")
