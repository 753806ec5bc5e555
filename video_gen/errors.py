"""The errors a user can meet. Every message names the field or file, the value found, and the remedy."""

import sys
from collections.abc import Callable


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


def exit_code(program: str, run: Callable[[], object]) -> int:
    """Run a program. Returns: 0, or, after one line about what was wrong with the input, 2; 130 after Ctrl-C."""
    try:
        run()
    except VideoGenError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stopped:
        print(f"{program}: {str(stopped) or 'stopped'}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 1
    return 0
