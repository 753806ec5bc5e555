"""A world and the page that plays it: the socket by which keys come in and frames go out. No torch.

A page says when it has seen a frame; no more than a few are under way, and of those that wait the newest goes out: a slow page
loses old frames, and neither the connection nor anybody's time. One page plays, another is told so.
"""

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from fastapi import WebSocket, WebSocketDisconnect

from video_gen.vocabulary import Vocabulary
from video_gen.web.shown import Shown, pack

UNDER_WAY = 3
"""Frames sent and not seen yet."""
MESSAGE_BYTES = 1 << 14
"""The longest message that a page may send."""
PATIENCE = 32
"""Messages that make no sense, after which a connection is closed."""
BUSY = 4409
"""Code with which a socket is closed."""


class Played(Protocol):
    """What a page needs of a world: `player.Player`, or one that runs elsewhere."""

    model: str
    prompt: str
    seed: int

    @property
    def vocabulary(self) -> Vocabulary: ...

    @property
    def size(self) -> tuple[int, int]: ...

    @property
    def fps(self) -> float: ...

    @property
    def recording(self) -> bool: ...

    def states(self) -> list[str]: ...

    def hold(self, said: Any, pressed: int) -> None: ...

    def play(self, on: bool) -> None: ...

    def reset(self, prompt: str, seed: int) -> None: ...

    def record(self, on: bool) -> None: ...

    def save(self, name: str) -> None: ...

    def load(self, name: str) -> None: ...

    def change_model(self, name: str) -> None: ...


class Outlet:
    """The newest frame for a page, and what it is to be told, handed from the world's thread to the server's."""

    def __init__(self):
        self.loop: asyncio.AbstractEventLoop | None = None
        self.changed = asyncio.Event()
        self.frame: Shown | None = None
        self.told: list[dict[str, Any]] = []

    def show(self, shown: Shown) -> None:
        self._from_thread(lambda: setattr(self, "frame", shown))

    def tell(self, what: dict[str, Any]) -> None:
        self._from_thread(lambda: self.told.append(what))

    def _from_thread(self, change: Callable[[], None]) -> None:
        def apply() -> None:
            change()
            self.changed.set()

        if self.loop is not None:
            with suppress(RuntimeError):  # the server has ended
                self.loop.call_soon_threadsafe(apply)


async def attend(
    socket: WebSocket, player: Played, outlet: Outlet, models: Callable[[], list[str]], turn: asyncio.Lock
) -> None:
    """Serve a page, whose socket is accepted, until it leaves. Args: models: that it may pick; turn: whose it is to play."""
    if turn.locked():
        with suppress(WebSocketDisconnect, RuntimeError):
            await socket.send_text(json.dumps({"kind": "busy"}))
            await socket.close(BUSY)
        return
    async with turn:
        outlet.frame, outlet.told = None, []
        sender = Sender(socket, outlet)
        try:
            await socket.send_text(json.dumps(hello(player, models())))
            player.play(True)
            send = asyncio.create_task(sender.run(lambda: hello(player, models())))
            try:
                await receive(socket, player, sender, lambda: {player.model, *models()})
            finally:
                send.cancel()
                with suppress(asyncio.CancelledError, WebSocketDisconnect, RuntimeError):
                    await send
        except (WebSocketDisconnect, RuntimeError):
            pass
        finally:
            player.play(False)


class Sender:
    """Frames to one page, no faster than it sees them."""

    def __init__(self, socket: WebSocket, outlet: Outlet):
        self.socket, self.outlet = socket, outlet
        self.sent, self.seen = 0, 0

    def saw(self, number: int) -> None:
        self.seen = max(self.seen, min(number, self.sent))
        self.outlet.changed.set()

    async def run(self, hello: Callable[[], dict[str, Any]]) -> None:
        last = 0
        flying: list[int] = []
        while True:
            await self.outlet.changed.wait()
            self.outlet.changed.clear()
            told, self.outlet.told = self.outlet.told, []
            for what in told:
                await self.socket.send_text(json.dumps(hello() if what["kind"] == "model" else what))
            flying = [number for number in flying if number > self.seen]
            shown = self.outlet.frame
            if shown is None or shown.number == last or len(flying) >= UNDER_WAY:
                continue
            last, self.sent = shown.number, shown.number
            flying.append(shown.number)
            await self.socket.send_bytes(pack(shown))


async def receive(socket: WebSocket, player: Played, sender: Sender, models: Callable[[], set[str]]) -> None:
    """What a page says, until it leaves or talks nonsense for too long."""
    nonsense = 0
    while True:
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            return
        try:
            obey(message.get("text"), player, sender, models)
        except (ValueError, TypeError, KeyError, RecursionError, OverflowError) as error:
            nonsense += 1
            await socket.send_text(json.dumps({"kind": "error", "text": f"not understood: {error}"[:200]}))
            if nonsense >= PATIENCE:
                await socket.close(1008)
                return


def obey(text: str | None, player: Played, sender: Sender, models: Callable[[], set[str]]) -> None:
    """One message of a page; `models` are those that it may pick. Raises: ValueError, TypeError, KeyError if it makes no sense."""
    if text is None or len(text) > MESSAGE_BYTES:
        raise ValueError("a message is JSON text of some bytes")
    said = json.loads(text)
    kind = said["kind"] if isinstance(said, dict) else None
    if kind == "hold":
        player.hold(said["action"], whole(said["pressed"]))
    elif kind == "seen":
        sender.saw(whole(said["number"]))
    elif kind == "reset":
        player.reset(words(said["prompt"]), whole(said["seed"]))
    elif kind == "record":
        player.record(bool(said["on"]))
    elif kind == "save":
        player.save(words(said["name"]))
    elif kind == "load":
        player.load(words(said["name"]))
    elif kind == "model":
        if said["name"] not in models():  # and no other folder of this machine, and nothing of the Hub
            raise ValueError(f"model {said['name']!r:.60} is not among those that can be picked")
        player.change_model(words(said["name"]))
    else:
        raise ValueError(f"no message of kind '{kind}'")


def whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**32:
        raise ValueError(f"{value!r:.40} is no whole number from 0 to 2^32")
    return value


def words(value: Any) -> str:
    if not isinstance(value, str) or len(value) > 2000:
        raise ValueError(f"{value!r:.40} is no text of up to 2000 letters")
    return value


def hello(player: Played, models: list[str]) -> dict[str, Any]:
    """What a page needs to know to draw itself."""
    height, width = player.size
    return {
        "kind": "hello",
        "model": player.model,
        "models": sorted({player.model, *models}),
        "keys": list(player.vocabulary.keys),
        "axes": [axis.model_dump() for axis in player.vocabulary.axes],
        "fps": player.fps,
        "height": height,
        "width": width,
        "prompt": player.prompt,
        "seed": player.seed,
        "states": player.states(),
        "recording": player.recording,
    }
