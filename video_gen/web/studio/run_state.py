"""How a run is: at work, done, stopped, or ended by a fault; told from its lock, what it said, and what it has left.

`.lock` is held while the loop runs and says afterwards how it ended (training/lock.py). A run that was started from the page writes
what it says into console.txt, which it holds locked from its first to its last moment, in whichever process the studio is by then;
started.json beside it says what was started.
"""

import json
import re
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from video_gen.files import byte_holder
from video_gen.web.studio.plain_files import open_plain, stamp, tail, whole
from video_gen.web.studio.process import ending

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None

LOCK, CONSOLE, STARTED = ".lock", "console.txt", "started.json"
SMALL = 1 << 16
State = Literal["starting", "running", "finished", "stopped", "crashed", "killed", "resting"]
ALIVE: tuple[State, ...] = ("starting", "running")
STOPS = ("TrainingInterrupted", "KeyboardInterrupt")


@dataclass(frozen=True)
class Condition:
    """A run's state now."""

    state: State
    note: str = ""
    """Of a run that ended by a fault, its last line; of one that is alive on another machine, where."""
    pid: int | None = None
    """The process to send a signal to; None = there is none, or it is not on this machine."""


def condition(folder: Path) -> Condition:
    """How the run in a folder is, by its own files alone; see `finished` for what it has made."""
    said = tail(folder / LOCK, SMALL).strip()
    if (held := _holder(folder / LOCK)) is not None:
        owner = re.match(r"process (\d+) on (\S+)", said)
        here = owner is not None and owner[2] == socket.gethostname()
        return Condition("running", "" if here else f"on {owner[2]}" if owner else "", held if here and held else None)
    started = read_started(folder)
    if is_held(folder / CONSOLE):
        return Condition("starting", pid=started.get("pid"))
    began, locked = started.get("began", 0.0), stamp(folder / LOCK)
    if began and (locked is None or began > locked[2] / 1e9):
        return _by_console(folder, started)
    if said.startswith("finished"):
        return Condition("finished")
    if ended := re.match(r"ended \([^)]*\) (\w+): ?(.*)", said, re.DOTALL):
        return Condition("stopped" if ended[1] in STOPS else "crashed", one_line(ended[2]) or ended[1])
    if said.startswith("process"):
        code = started.get("code")
        how = (
            ending(code)
            if isinstance(code, int) and code < 0
            else "without a word: it was killed, or the machine went down"
        )
        return Condition("killed", f"its process ended {how}")
    return Condition("resting")


def read_started(folder: Path) -> dict[str, Any]:
    """What a run was started as from the page: "command", "pid", "began", and once it is known "code"; {} if it was not."""
    try:
        found = json.loads(whole(folder / STARTED, SMALL) or b"{}")
        return {
            "command": [str(word) for word in found["command"]],
            "pid": int(found["pid"]),
            "began": float(found["began"]),
            "code": found.get("code"),
        }
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return {}


def is_held(console: Path) -> bool:
    """Whether a process has a file as its output that it was given locked."""
    file = open_plain(console) if fcntl is not None else None
    if file is None or fcntl is None:
        return False
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # let go of when it is closed
        except BlockingIOError:
            return True
        except OSError:  # a disk without such locks
            return False
    return False


def last_words(folder: Path) -> str:
    """The last line that a run started from the page has said, since it was last started."""
    for line in reversed(tail(folder / CONSOLE, SMALL).replace("\r", "\n").splitlines()):
        if line.startswith("$ "):
            break
        if line.strip():
            return one_line(line.removeprefix("video-gen: "))
    return ""


def one_line(text: str, most: int = 600) -> str:
    """Text as one line that is not too long."""
    flat = " ".join(text.split())
    return flat if len(flat) <= most else f"{flat[: most - 3]}..."


def _by_console(folder: Path, started: dict[str, Any]) -> Condition:
    """Of a run that ended before its loop began: while it read its data, say."""
    code, words = started["code"], last_words(folder)
    if code in (130, -2, -15) or words.startswith("stopped"):  # the code is not known where the studio ended meanwhile
        return Condition("stopped", words)
    if isinstance(code, int) and code < 0:
        return Condition("killed", f"its process ended {ending(code)}")
    return Condition("finished" if code == 0 else "crashed", words or "it ended without a word")


def _holder(lock: Path) -> int | None:
    file = open_plain(lock)
    if file is None:
        return None
    with file:
        return byte_holder(file, 0)
