"""The page of `video-gen play`: its server, with the studio's files and look."""

import asyncio
from collections.abc import Callable
from contextlib import asynccontextmanager
from importlib import resources

from fastapi import FastAPI, Request, Response, WebSocket
from fastapi.responses import PlainTextResponse

from video_gen.web.access import SAFE, same_origin, welcome
from video_gen.web.playing import Outlet, Played, attend

REFUSED = 4403
"""Code with which a socket is closed."""
SHARED = "video_gen.web.studio"
FILES = {
    "/": ("video_gen.web", "play.html"),
    "/static/look/tokens.css": ("video_gen.look", "tokens.css"),
    **{
        f"/static/{name}": (SHARED, f"static/{name}")
        for name in ("base.css", "pages/play.css", "lib/dom.js", "play/world.js", "play/alone.js")
    },
}
KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
HEADERS = SAFE | {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'",
}


def make_app(
    player: Played,
    outlet: Outlet,
    models: Callable[[], list[str]],
    token: str | None = None,
    close: Callable[[], None] = lambda: None,
) -> FastAPI:
    """The server's application.

    Args:
        models: names that can be picked.
        token: what whoever comes has to know; None = whoever is on this machine may come.
        close: ends the player.
    """

    @asynccontextmanager
    async def life(app: FastAPI):
        outlet.loop = asyncio.get_running_loop()
        yield
        close()

    app = FastAPI(lifespan=life, docs_url=None, redoc_url=None, openapi_url=None)
    playing = asyncio.Lock()

    @app.middleware("http")
    async def guard(request: Request, call_next: Callable) -> Response:
        if not welcome(request.headers, request.query_params.get("token"), request.cookies.get("token"), token):
            return PlainTextResponse("refused: this page is for its own machine, or for whoever has the token\n", 403)
        response = await call_next(request)
        response.headers.update(HEADERS)
        if token is not None:
            response.set_cookie("token", token, httponly=True, samesite="strict")
        return response

    for place, (folder, name) in FILES.items():
        content, kind = resources.files(folder).joinpath(name).read_bytes(), KINDS[name[name.rfind(".") :]]

        async def file(content: bytes = content, kind: str = kind) -> Response:
            return Response(content, media_type=kind)

        app.add_api_route(place, file, methods=["GET"])

    @app.websocket("/play")
    async def play(socket: WebSocket) -> None:
        given = socket.query_params.get("token"), socket.cookies.get("token")
        if not (welcome(socket.headers, *given, token) and same_origin(socket.headers)):
            await socket.close(REFUSED)
            return
        await socket.accept()
        await attend(socket, player, outlet, models, playing)

    return app
