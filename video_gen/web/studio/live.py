"""The addresses of the Live page."""

import asyncio
from contextlib import suppress
from typing import Any

from fastapi import APIRouter, Request, WebSocket, WebSocketDisconnect
from fastapi.responses import PlainTextResponse
from pydantic import Field

from video_gen.config import Config
from video_gen.errors import ConfigError
from video_gen.web.studio.answers import Missing, plain, said
from video_gen.web.studio.live_stream import Viewer, script
from video_gen.web.studio.studio import Studio

LONGEST = 2_000
"""Letters of a prompt."""


class Begin(Config):
    """What a stream begins with."""

    prompt: str = Field(default="", max_length=LONGEST)
    seed: int = Field(default=0, ge=0, lt=2**63)
    image: str | None = Field(default=None, max_length=100)
    """A picture that was sent."""
    guidance_scale: float | None = Field(default=None, ge=0, le=1_000)
    num_steps: int | None = Field(default=None, ge=1, le=1_000)
    speed: float | None = Field(default=None, ge=0.01, le=100)


class Change(Config):
    """What changes while it runs; what is left out stays."""

    prompt: str | None = Field(default=None, max_length=LONGEST)
    guidance_scale: float | None = Field(default=None, ge=0, le=1_000)
    speed: float | None = Field(default=None, ge=0.01, le=100)


class Picked(Config):
    model: str


class Switch(Config):
    on: bool


class Place(Config):
    seconds: float = Field(ge=0, le=1e9)


class Named(Config):
    name: str


def routes(studio: Studio) -> APIRouter:
    live, router = studio.live, APIRouter(prefix="/api/live")

    @router.post("/open")
    async def open(request: Request) -> dict[str, Any]:
        """The model to stream with, loaded before anybody presses start."""
        name = studio.models.check((await said(request, Picked)).model)
        live.open_model(name)
        return {"model": name}

    @router.post("/start")
    async def start(request: Request) -> dict[str, Any]:
        begin = await said(request, Begin)
        options = begin.model_dump(exclude_none=True, exclude={"prompt", "image"})
        if begin.image is not None:
            options["image"] = studio.uploads.file(begin.image)
        live.say("start", begin.prompt, options)
        return {}

    @router.post("/steer")
    async def steer(request: Request) -> dict[str, Any]:
        change = (await said(request, Change)).model_dump(exclude_none=True)
        if not change:
            raise ConfigError("nothing to change: give a prompt, a guidance_scale or a speed")
        live.say("steer", change.pop("prompt", None), change)
        return {}

    @router.post("/run")
    async def run(request: Request) -> dict[str, Any]:
        live.say("run", (await said(request, Switch)).on)
        return {}

    @router.post("/back")
    async def back(request: Request) -> dict[str, Any]:
        live.say("back", (await said(request, Place)).seconds)
        return {}

    @router.post("/record")
    async def record(request: Request) -> dict[str, Any]:
        live.record((await said(request, Switch)).on)
        return {}

    @router.post("/stop")
    async def stop(request: Request) -> dict[str, Any]:
        await plain(request)
        live.say("stop")
        return {}

    @router.post("/save")
    async def save(request: Request) -> dict[str, Any]:
        live.say("save", live.state_file((await said(request, Named)).name))
        return {}

    @router.post("/resume")
    async def resume(request: Request) -> dict[str, Any]:
        file = live.state_file((await said(request, Named)).name)
        if not file.is_file():
            raise Missing(f"no state '{file.stem}'; there are {', '.join(live.states()[:20]) or 'none'}")
        live.say("resume", file)
        return {}

    @router.get("/script")
    def told() -> PlainTextResponse:
        return PlainTextResponse(script(live.known))

    @router.websocket("/frames")
    async def frames(socket: WebSocket) -> None:
        """Blocks, as `live_worker.packed` has them; what the page says is not listened to."""
        await socket.accept()
        viewer = Viewer()
        live.join(viewer)

        async def send() -> None:
            while True:
                await socket.send_bytes(await viewer.get())

        sending = asyncio.create_task(send())
        try:
            while (await socket.receive())["type"] != "websocket.disconnect":
                pass
        except (WebSocketDisconnect, RuntimeError):
            pass
        finally:
            live.leave(viewer)
            sending.cancel()
            with suppress(asyncio.CancelledError, WebSocketDisconnect, RuntimeError):
                await sending

    return router
