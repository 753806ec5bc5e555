"""The errors a user can meet. Every message names the field or file, the value found, and the remedy."""

import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class VideoGenError(Exception):
    """Base of all expected errors: the command line prints them as one line and exits with code 2."""


class ConfigError(VideoGenError):
    """A configuration key or value is unknown, ill-typed or out of range."""


class DataError(VideoGenError):
    """A file or folder of data is missing, unreadable, truncated or not what its name says."""


class ShapeError(VideoGenError, ValueError):
    """A tensor, frame count or size does not fit the model; the message gives the nearest valid ones."""


class TrainingError(VideoGenError):
    """Training cannot go on: a NaN, a checkpoint that does not fit, an interrupted stage that is missing."""


class VideoGenWarning(UserWarning):
    """Something of the input is used otherwise than it was given: the message says what and how."""


TRACEBACK = "VIDEO_GEN_TRACEBACK"
"""The environment variable that has every error shown with its traceback."""


def exit_code(program: str, run: Callable[[], object]) -> int:
    """Run a program.

    Returns: 0, or, after one line about what was wrong with the input or gave out (disk, memory), 2; 130 after Ctrl-C.
    Raises: mistakes of the program itself, whose traceback is wanted; with VIDEO_GEN_TRACEBACK set, everything.
    """
    try:
        with warnings_in_a_line(program):
            run()
    except BrokenPipeError:
        return 1
    except KeyboardInterrupt as stopped:
        print(f"{program}: {str(stopped) or 'stopped'}", file=sys.stderr)
        return 130
    except Exception as error:
        line = line_of(error)
        if line is None or os.environ.get(TRACEBACK):
            raise
        print(f"{program}: {line}", file=sys.stderr)
        return 2
    return 0


@contextmanager
def warnings_in_a_line(program: str) -> Iterator[None]:
    """Show this package's warnings as errors are shown, and others as ever."""
    with warnings.catch_warnings():
        shown = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
            if issubclass(category, VideoGenWarning):
                print(f"{program}: {message}", file=sys.stderr)
            else:
                shown(message, category, *where, **more)

        warnings.showwarning = show
        yield


def line_of(error: Exception) -> str | None:
    """What to tell a user of an error, in one line; None = it is a mistake of the program."""
    text = " ".join(line.strip() for line in str(error).splitlines())
    if isinstance(error, VideoGenError):
        return text
    where = f"; {TRACEBACK}=1 shows where"
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}{where}" if error.filename and error.strerror else f"{text}{where}"
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in text:
        return f"not enough memory ({text.split('. ')[0] or 'for Python'}); take smaller sizes or batches{where}"
    if type(error).__name__ == "ValidationError":  # pydantic's, of a file whose reader did not expect it
        told = (f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_url=False))  # type: ignore[attr-defined]
        return f"{'; '.join(told)}{where}"
    if isinstance(error, RecursionError):
        return f"nested too deeply ({text}){where}"
    return None
