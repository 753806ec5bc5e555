"""What changes by itself, told to every open page: the newest value of each topic, at the pace of each reader.

A page that does not read holds up nobody, and neither does what waits for it grow: of each topic it gets the newest when it wakes.
"""

import asyncio
import json
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from fastapi import APIRouter, WebSocket, WebSocketDisconnect

TOPICS = 32
"""That a page may hear at once."""


class Listener:
    """What one page has not been told yet."""

    def __init__(self, topics: Iterable[str]):
        self.topics = frozenset(topics)
        self.waiting: dict[str, Any] = {}
        self.changed = asyncio.Event()

    def put(self, topic: str, value: Any) -> None:
        if topic in self.topics:
            self.waiting[topic] = value
            self.changed.set()

    async def get(self) -> dict[str, Any]:
        await self.changed.wait()
        self.changed.clear()
        waiting, self.waiting = self.waiting, {}
        return waiting


class Hub:
    """Values, which JSON can hold, by topic."""

    def __init__(self):
        self._values: dict[str, Any] = {}
        self._listeners: set[Listener] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """In the server's loop."""
        self._loop = asyncio.get_running_loop()

    def tell(self, topic: str, value: Any) -> None:
        """The newest value of a topic, from the server's own thread."""
        self._values[topic] = value
        for listener in self._listeners:
            listener.put(topic, value)

    def tell_from_thread(self, topic: str, value: Any) -> None:
        if self._loop is not None:
            with suppress(RuntimeError):  # the server has ended
                self._loop.call_soon_threadsafe(self.tell, topic, value)

    def join(self, topics: Iterable[str]) -> Listener:
        """Somebody who hears these topics, and what is known of them at once."""
        listener = Listener(topics)
        for topic in listener.topics & self._values.keys():
            listener.put(topic, self._values[topic])
        self._listeners.add(listener)
        return listener

    def heard(self, topic: str) -> bool:
        """Whether anybody listens to it."""
        return any(topic in listener.topics for listener in self._listeners)

    def leave(self, listener: Listener) -> None:
        self._listeners.discard(listener)


def routes(hub: Hub) -> APIRouter:
    router = APIRouter()

    @router.websocket("/api/events")
    async def events(socket: WebSocket) -> None:
        """`?topics=queue,results`: texts {topic: value}, each with what has changed; what the page says is not listened to."""
        topics = [topic for topic in socket.query_params.get("topics", "").split(",") if topic][:TOPICS]
        await socket.accept()
        listener = hub.join(topics)
        leaving = asyncio.create_task(_until_gone(socket))
        try:
            while not leaving.done():
                news = asyncio.create_task(listener.get())
                await asyncio.wait((news, leaving), return_when=asyncio.FIRST_COMPLETED)
                if not news.done():
                    news.cancel()
                    break
                await socket.send_text(json.dumps(news.result()))
        except (WebSocketDisconnect, RuntimeError):
            pass
        finally:
            hub.leave(listener)
            leaving.cancel()

    return router


async def _until_gone(socket: WebSocket) -> None:
    with suppress(WebSocketDisconnect, RuntimeError):
        while (await socket.receive())["type"] != "websocket.disconnect":
            pass
