"""Work in a process of its own: what crashes there, or never ends, takes nothing else down, and what it holds goes with it."""

import asyncio
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, InvalidStateError
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from multiprocessing.connection import Connection
from types import ModuleType
from typing import Any

from video_gen.errors import DataError, VideoGenError, line_of

MEMORY = 4 * 2**30
"""Bytes of address space that work on somebody's file may take."""


class Process:
    """A process that is talked with.

    Args:
        main: a function of a module, `main(line, *args)`, where `line` is a `Connection` with `recv`, `send` and `poll`; it ends at
            EOFError, which comes when this process does.
    """

    def __init__(self, main: Callable[..., None], args: tuple):
        context = multiprocessing.get_context("spawn")  # threads, such as a server has, do not survive a fork
        self._line, theirs = context.Pipe()
        self._process = context.Process(target=_begin, args=(main, theirs, args), daemon=True)
        with _no_program():
            self._process.start()
        theirs.close()  # so that we meet the end of the pipe when the process ends
        self._sending = threading.Lock()

    def listen(self, hear: Callable[[Any], None], ended: Callable[[int], None]) -> None:
        """To be called once; what is sent before waits.

        Args: hear: is called in a thread with each message; ended: with the exit code, once, whatever it died of.
        """
        threading.Thread(target=self._listen, args=(hear, ended), daemon=True, name="studio process").start()

    @property
    def pid(self) -> int | None:
        return self._process.pid

    def send(self, message: Any) -> bool:
        """Whether it could be sent; if not, `ended` is called, or was."""
        with self._sending, suppress(OSError, ValueError):
            self._line.send(message)
            return True
        return False

    def kill(self) -> None:
        self._process.kill()

    def _listen(self, hear: Callable[[Any], None], ended: Callable[[int], None]) -> None:
        with suppress(EOFError, OSError):
            while True:
                hear(self._line.recv())
        self._process.join()
        self._line.close()
        ended(self._process.exitcode or 0)


@contextmanager
def _no_program() -> Iterator[None]:
    """A process that is spawned imports anew the program that we are; ours need nothing of it, and begin half a second sooner."""
    program = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = program


def _begin(main: Callable[..., None], line: Connection, args: tuple) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the server then ends us
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        main(line, *args)


class Apart:
    """Calls of functions in a process beside the server, one after the other: for files that somebody sent, or what takes long.

    Args: seconds: that a call may take; memory: bytes of address space of the process, None = as much as there is.
    """

    def __init__(self, seconds: float = 60, memory: int | None = MEMORY):
        self.seconds, self.memory = seconds, memory
        self._server: _Server | None = None
        self._turn = asyncio.Lock()

    async def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """What `function` of a module returns, a plain value.

        Raises: what it does, of our errors; DataError if it crashes or hangs.
        """
        async with self._turn:
            if self._server is None or self._server.dead:
                self._server = _Server(self.memory)
            answer = self._server.call(function, args)
            try:
                kind, value = await asyncio.wait_for(asyncio.wrap_future(answer), self.seconds)
            except TimeoutError:
                self.close()
                raise DataError(f"took longer than {self.seconds:g} seconds and was given up") from None
            except asyncio.CancelledError:
                self.close()
                raise
        if kind == "error":
            raise value
        return value

    def close(self) -> None:
        if self._server is not None:
            self._server.process.kill()
            self._server = None


class Elsewhere:
    """The functions of a module, for `Apart`: named here, and imported where they are called. The server's start waits for none."""

    def __init__(self, module: str):
        self.module = module

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return _Named(self.module, name)


@dataclass(frozen=True)
class _Named:
    module: str
    name: str

    def __call__(self, *args: Any) -> Any:
        return getattr(import_module(self.module), self.name)(*args)


class _Server:
    """A process that serves calls, and the answer that is waited for."""

    def __init__(self, memory: int | None):
        self.dead = False
        self.answer: Future = Future()
        self.process = Process(_serve_calls, (memory,))
        self.process.listen(self._settle, self._gone)

    def call(self, function: Callable[..., Any], args: tuple) -> Future:
        self.answer = Future()
        if not self.process.send((function, args)):
            self._gone(0)
        return self.answer

    def _gone(self, code: int) -> None:
        self.dead = True
        self._settle(("error", DataError(f"cannot be read: the process that tried ended {ending(code)}")))

    def _settle(self, message: Any) -> None:
        with suppress(InvalidStateError):  # given up, or told, meanwhile
            self.answer.set_result(message)


def ending(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"with code {code}"
    name = signal.Signals(-code).name if -code in signal.valid_signals() else str(-code)
    return f"by signal {name}{' (killed, or out of memory)' if name == 'SIGKILL' else ''}"


def _serve_calls(line: Connection, memory: int | None) -> None:
    if memory is not None and sys.platform.startswith("linux"):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    with suppress(AttributeError, OSError):
        os.nice(5)  # the server and who samples go first
    while True:
        function, args = line.recv()
        try:
            line.send(("value", function(*args)))
        except Exception as error:  # of a file that is not ours; we serve the next call
            known = error if isinstance(error, VideoGenError) else None
            line.send(("error", known or DataError(line_of(error) or f"{type(error).__name__}: {error}")))
