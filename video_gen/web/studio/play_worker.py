"""The process in which a world is played: a `player.Player`, and what its page says. torch is imported here.

Said to it:  ("open", model)  ("hold", action, pressed)  ("play", on)  and the other orders of a player, each with its arguments
It says:     ("loading", model)  ("facts", values)  ("frame", Shown)  ("tell", values)
"""

import threading
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from video_gen.web.studio.worker import told

ORDERS = ("hold", "play", "reset", "record", "save", "load", "change_model")


def work(line: Connection, folder: Path, device: str) -> None:
    """Serve until the studio ends."""
    world = World(line, folder, device)
    while True:
        world.obey(line.recv())


class World:
    """A player, and its end of the pipe, at which the world's thread speaks, too."""

    def __init__(self, line: Connection, folder: Path, device: str):
        self.line, self.folder, self.device = line, folder, device
        self.player: Any = None
        self._speaking = threading.Lock()

    def send(self, *message: Any) -> None:
        with self._speaking:
            self.line.send(message)

    def obey(self, message: tuple) -> None:
        kind, *rest = message
        try:
            if kind == "open":
                self.open_model(*rest)
            elif kind in ORDERS and self.player is not None:
                getattr(self.player, kind)(*rest)
        except Exception as error:  # of what a page wants; the world goes on
            self.send("tell", {"kind": "error", "text": told(error)})

    def open_model(self, model: str) -> None:
        """The world of a model, from its own beginning."""
        from video_gen.training.parallel import pick_device
        from video_gen.web.player import Player, beginning, leave_a_core, opener

        if self.player is not None and self.player.model == model:
            self.tell_facts()
            return
        self.send("loading", model)
        if self.player is not None:
            self.player.close()
            self.player = None  # there may be memory for one only
        on = pick_device(self.device)  # type: ignore[arg-type]
        leave_a_core(on)
        load = opener(on)
        first = {model: load(model)}
        start = beginning(first[model], model)

        def once(name: str) -> Any:
            return first.pop(name, None) or load(name)

        self.player = Player(once, model, self.folder, start, self.show, self.hear)
        self.tell_facts()

    def show(self, shown: Any) -> None:
        self.send("frame", shown)

    def hear(self, what: dict[str, Any]) -> None:
        if self.player is not None:
            self.tell_facts()  # another model, other states
        self.send("tell", what)

    def tell_facts(self) -> None:
        """What `Remote` knows of the player."""
        player = self.player
        names = ("model", "prompt", "seed", "vocabulary", "size", "fps", "recording")
        self.send("facts", {name: getattr(player, name) for name in names} | {"states": player.states()})
