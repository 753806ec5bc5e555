"""The addresses of the Play page."""

import json
from contextlib import suppress
from typing import Any

from fastapi import APIRouter, Request, WebSocket, WebSocketDisconnect

from video_gen.config import Config
from video_gen.errors import VideoGenError
from video_gen.shipped import find_model
from video_gen.web.playing import attend
from video_gen.web.studio.answers import Missing, said
from video_gen.web.studio.plain_files import whole
from video_gen.web.studio.studio import Studio

LARGEST = 1 << 20
"""Bytes of a model's settings."""


class Picked(Config):
    model: str


def routes(studio: Studio) -> APIRouter:
    router, world = APIRouter(prefix="/api/play"), studio.world

    def playable() -> list[str]:
        """Models that know actions."""
        return [name for name in studio.models.names() if knows_actions(name)]

    @router.get("/models")
    def models() -> dict[str, Any]:
        found = playable()
        return {"models": found, "model": world.model if world.model in found else next(iter(found), None)}

    @router.post("/open")
    async def open(request: Request) -> dict[str, Any]:
        name = (await said(request, Picked)).model
        if name not in playable():
            raise Missing(f"no world '{name[:80]}' among those that can be played")
        world.open_model(name)
        return {"model": name}

    @router.websocket("/socket")
    async def socket(socket: WebSocket) -> None:
        await socket.accept()
        try:
            world.check_ready()
        except VideoGenError as error:
            with suppress(WebSocketDisconnect, RuntimeError):
                await socket.send_text(json.dumps({"kind": "error", "text": str(error)}))
                await socket.close()
            return
        await attend(socket, world, world.outlet, playable, world.turn)

    return router


def knows_actions(name: str) -> bool:
    folder = find_model(name)
    if folder is None:
        return False
    with suppress(ValueError, RecursionError):
        config = json.loads(whole(folder / "transformer" / "config.json", LARGEST) or b"{}")
        return isinstance(config, dict) and config.get("actions") is not None
    return False
