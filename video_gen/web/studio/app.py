"""The studio's server: the pages, their files, and the addresses of each page's module."""

import hashlib
import json
from collections.abc import Callable
from contextlib import asynccontextmanager
from importlib import resources
from importlib.resources.abc import Traversable

from fastapi import APIRouter, FastAPI, Request, Response

from video_gen import look
from video_gen.web.studio import create, data, hub, live, model_pages, play, runs, sending
from video_gen.web.studio.answers import explain_mistakes
from video_gen.web.studio.guard import Guard
from video_gen.web.studio.studio import Studio

PAGES = {"create": "Create", "live": "Live", "play": "Play", "runs": "Runs", "data": "Data", "models": "Models"}
"""In the order of the navigation; one without a file in static/pages/ is left out."""
ROUTES: tuple[Callable[[Studio], APIRouter], ...] = (
    create.routes,
    live.routes,
    play.routes,
    sending.routes,
    runs.routes,
    data.routes,
    model_pages.routes,
)
KINDS = {".js": "text/javascript", ".css": "text/css", ".html": "text/html", ".svg": "image/svg+xml"}


def make_app(studio: Studio, token: str | None = None) -> FastAPI:
    """The server's application. Args: token: what whoever comes has to know; None = whoever is on this machine may come."""

    @asynccontextmanager
    async def life(app: FastAPI):
        studio.start()
        yield
        studio.close()

    app = FastAPI(lifespan=life, docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    app.add_middleware(Guard, token=token)
    explain_mistakes(app)
    app.include_router(pages())
    app.include_router(hub.routes(studio.hub))
    for routes in ROUTES:
        app.include_router(routes(studio))
    return app


def pages() -> APIRouter:
    """The shell, at the address of each page, and the static files, read once: no name that is asked for becomes a path."""
    router = APIRouter()
    files = dict(_read(resources.files("video_gen.web.studio").joinpath("static")))
    files["look/tokens.css"] = look.text("tokens.css").encode()
    found = [name for name in PAGES if f"pages/{name}.js" in files]
    version = hashlib.sha256(b"".join(files[name] for name in sorted(files))).hexdigest()[:12]
    shell = _shell(files, found, version).encode()

    async def page() -> Response:
        return Response(shell, media_type="text/html", headers={"Cache-Control": "no-cache"})

    for name in ("", *found):
        router.add_api_route(f"/{name}", page, methods=["GET"])

    @router.get("/static/{name:path}")
    async def static(name: str, request: Request) -> Response:
        headers = {"Cache-Control": "no-cache", "ETag": f'"{version}"'}
        if name not in files:
            return Response("not found\n", 404, media_type="text/plain")
        if request.headers.get("if-none-match") == headers["ETag"]:
            return Response(status_code=304, headers=headers)
        return Response(files[name], media_type=KINDS.get(name[name.rfind(".") :], "text/plain"), headers=headers)

    @router.get("/favicon.ico")
    async def icon() -> Response:
        return Response(status_code=204)

    return router


def _read(folder: Traversable, prefix: str = ""):
    for item in folder.iterdir():
        if item.is_dir():
            yield from _read(item, f"{prefix}{item.name}/")
        elif item.name.endswith(tuple(KINDS)):
            yield f"{prefix}{item.name}", item.read_bytes()


def _shell(files: dict[str, bytes], found: list[str], version: str) -> str:
    """shell.html with the pages there are, and the styles of each."""
    styles = ["look/tokens.css", "base.css", *(f"pages/{name}.css" for name in found)]
    links = "\n".join(f'<link rel="stylesheet" href="/static/{name}">' for name in styles if name in files)
    known = json.dumps({name: PAGES[name] for name in found}).replace("<", "\\u003c").replace('"', "&quot;")
    text = files["shell.html"].decode()
    return text.replace("<!--styles-->", links).replace("{{pages}}", known).replace("{{version}}", version)
