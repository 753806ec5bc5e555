"""The world that the studio's Play page plays: its process, as a `playing.Played`."""

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any

from video_gen.errors import ConfigError
from video_gen.vocabulary import Action, Vocabulary, parse_action
from video_gen.web.playing import Outlet
from video_gen.web.studio.hub import Hub
from video_gen.web.studio.play_worker import work
from video_gen.web.studio.process import Process, ending


class Remote:
    """A player in another process: what is known of it here, and what it is told. Everything happens in the server's loop.

    Topic `play`: {"status": "none" | "loading" | "ready", "model", "trouble"}.
    """

    model, prompt, seed = "", "", 0
    recording = False
    vocabulary: Vocabulary
    """Known when its world is open."""
    size: tuple[int, int] = (0, 0)
    fps = 0.0

    def __init__(self, folder: Path, hub: Hub, device: str):
        self.folder, self.hub, self.device = folder, hub, device
        self.outlet, self.turn = Outlet(), asyncio.Lock()
        self.status, self.trouble = "none", None
        self._states: list[str] = []
        self._process: Process | None = None
        self._closing = False

    def start(self) -> None:
        self._loop = self.outlet.loop = asyncio.get_running_loop()
        self._tell()

    def close(self) -> None:
        self._closing = True
        if self._process is not None:
            self._process.kill()

    def open_model(self, model: str) -> None:
        """The world of a model; as long as it loads nothing is played."""
        if self._process is None:

            def hear(message: Any) -> None:
                self._from_thread(self._heard, process, message)

            def ended(code: int) -> None:
                self._from_thread(self._ended, process, code)

            process = self._process = Process(work, (self.folder, self.device))
            process.listen(hear, ended)
        if self.status != "ready" or self.model != model:
            self.status, self.trouble, self.model = "loading", None, model
            self._tell()
        self._say("open", model)

    # -------------------- what a page says

    def states(self) -> list[str]:
        return self._states

    def hold(self, said: Any, pressed: int) -> None:
        """Raises: ValueError for keys that the world has not."""
        action = parse_action(said)
        self.vocabulary.row(Action(keys=action.keys, axes={}))
        self._say("hold", said, pressed)

    def play(self, on: bool) -> None:
        self._say("play", on)

    def reset(self, prompt: str, seed: int) -> None:
        self._say("reset", prompt, seed)

    def record(self, on: bool) -> None:
        self._say("record", on)

    def save(self, name: str) -> None:
        self._say("save", name)

    def load(self, name: str) -> None:
        self._say("load", name)

    def change_model(self, name: str) -> None:
        self._say("change_model", name)

    def _say(self, *message: Any) -> None:
        if self._process is not None:
            self._process.send(message)  # if that fails, its end is told

    # -------------------- what the process says

    def _from_thread(self, function: Any, *args: Any) -> None:
        with suppress(RuntimeError):  # the server has ended
            self._loop.call_soon_threadsafe(function, *args)

    def _heard(self, process: Process, message: tuple) -> None:
        if process is not self._process or self._closing:
            return
        kind, what = message
        if kind == "frame":
            self.outlet.show(what)
        elif kind == "facts":
            self._states = what.pop("states")
            vars(self).update(what)
            self.status = "ready"
            self._tell()
        elif kind == "tell":
            if self.status == "loading" and what["kind"] == "error":
                self.status, self.trouble = "none", what["text"]
                self._tell()
            self.outlet.tell(what)

    def _ended(self, process: Process, code: int) -> None:
        if process is self._process and not self._closing:
            self._process, self.status = None, "none"
            self.trouble = f"the world's process ended {ending(code)}; open it again"
            self.outlet.tell({"kind": "error", "text": self.trouble})
            self._tell()

    def _tell(self) -> None:
        self.hub.tell("play", {"status": self.status, "model": self.model, "trouble": self.trouble})

    def check_ready(self) -> None:
        """Raises: ConfigError if there is nothing to play."""
        if self.status != "ready":
            raise ConfigError(self.trouble or "no world is open")
