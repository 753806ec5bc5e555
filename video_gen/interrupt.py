"""Ctrl-C and SIGTERM as a question that long work asks between its steps."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def stop_signals(
    first: Callable[[str], None] = lambda name: None, echo_seconds: float = 0.0
) -> Iterator[threading.Event]:
    """An event that Ctrl-C or SIGTERM sets; a second one stops at once. Outside the main thread it is never set.

    Args:
        first: told the name of the first signal.
        echo_seconds: a second signal within this time is the first one again.
    """
    stop, since = threading.Event(), 0.0

    def handle(number: int, frame: object) -> None:
        nonlocal since
        if not stop.is_set():
            since = time.monotonic()
            stop.set()
            first(signal.Signals(number).name)
        elif time.monotonic() - since >= echo_seconds:
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
