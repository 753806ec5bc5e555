"""Training that a page starts and stops: the ordinary command in a process group of its own, which outlives the studio."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

import video_gen
from video_gen.errors import DataError, TrainingError
from video_gen.files import explained, write_text
from video_gen.web.studio.run_state import CONSOLE, STARTED, Condition, fcntl, read_started

PACKAGE = Path(video_gen.__file__).resolve().parents[1]
PATIENCE = 0.5
"""Seconds to wait for the lock of the console, which who looks whether it is held has for a moment."""
QUIET = 0x08000200 if sys.platform == "win32" else 0
"""There: a process group of its own, without a window."""


def start(words: list[str], folder: Path) -> int:
    """Run a `video-gen` command whose output goes to the run folder's console.txt, which the process holds locked to its end.

    Returns: the process's number.
    Raises: TrainingError if one runs there; DataError if the folder cannot be written.
    """
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        console = (folder / CONSOLE).open("ab")
    with console:
        if not _held(console):
            raise TrainingError(f"{folder}: something trains there already; stop it first, or give another name")
        shown = " ".join(words)
        with explained(folder / CONSOLE):
            console.write(f"$ {shown}\n".encode())
            console.flush()
        began = time.time()
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "video_gen.cli", *words[1:]],  # -P: no module of the folder where one works
            stdin=subprocess.DEVNULL, stdout=console, stderr=subprocess.STDOUT,
            env=environment(), start_new_session=True, creationflags=QUIET,
        )  # fmt: skip
    facts = {"command": words, "pid": process.pid, "began": began}
    with suppress(DataError):  # it runs; on a full disk it will say so itself
        write_text(folder / STARTED, json.dumps(facts))
    threading.Thread(target=_wait, args=(process, folder, facts), daemon=True, name="studio run").start()
    return process.pid


def environment() -> dict[str, str]:
    """For a command of this very package, whose lines are to be seen as they come."""
    paths = [str(PACKAGE), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}


def stop(condition: Condition, folder: Path, again: bool) -> None:
    """As Ctrl-C does: the step is finished and saved. `again`, as a second one: at once.

    Raises: TrainingError if there is no process to stop on this machine.
    """
    if condition.pid is None:
        where = f", but {condition.note}" if condition.note else ""
        raise TrainingError(f"{folder}: no process of this machine trains there{where}")
    try:
        os.kill(condition.pid, signal.SIGTERM if again else signal.SIGINT)
    except ProcessLookupError:
        raise TrainingError(f"{folder}: its process has ended meanwhile") from None
    except OSError as error:
        raise TrainingError(f"{folder}: process {condition.pid} cannot be stopped: {error.strerror}") from None


def _held(console: IO[bytes]) -> bool:
    """Whether the file could be locked, for whoever has it open from here on. Where there are no such locks it always is."""
    if fcntl is None:
        return True
    end = time.monotonic() + PATIENCE
    while True:
        try:
            fcntl.flock(console, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > end:
                return False
            time.sleep(0.02)
        except OSError:
            return True


def _wait(process: subprocess.Popen, folder: Path, facts: dict) -> None:
    """Note how it ended, unless another was started since."""
    code = process.wait()
    if read_started(folder).get("pid") == process.pid:
        with suppress(DataError):
            write_text(folder / STARTED, json.dumps(facts | {"code": code}))
