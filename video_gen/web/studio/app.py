"""The studio's server: the pages, their files, and the addresses of each page's module."""

import hashlib
import json
import posixpath
import re
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
ASKED_FIRST = {"create": ("/api/create/form", "/api/results?start=0&count=60&words="), "runs": ("/api/runs",)}
"""What a page asks for as soon as it is drawn: the browser does so while its programs are still on their way."""
STYLES = "styles.css"
IMPORTED = re.compile(r'^(?:im|ex)port [^"]*?"(\.{1,2}/[^"]+)";', re.MULTILINE)
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
    """The shell, at the address of each page, and the static files, read once: no name that is asked for becomes a path.

    Addresses with the version in them are good for ever: of a studio that was open before, a browser asks for the shell alone.
    """
    router = APIRouter()
    files = dict(_read(resources.files("video_gen.web.studio").joinpath("static")))
    files["look/tokens.css"] = look.text("tokens.css").encode()
    found = [name for name in PAGES if f"pages/{name}.js" in files]
    styles = ["look/tokens.css", "base.css", *(f"pages/{name}.css" for name in found)]
    files[STYLES] = b"\n".join(files[name] for name in styles if name in files)
    version = hashlib.sha256(b"".join(files[name] for name in sorted(files))).hexdigest()[:12]

    for name in ("", *found):
        shell = _shell(files, found, name or found[0], version).encode()

        async def page(shell: bytes = shell) -> Response:
            return Response(shell, media_type="text/html", headers={"Cache-Control": "no-cache"})

        router.add_api_route(f"/{name}", page, methods=["GET"])

    @router.get("/static/{name:path}")
    async def static(name: str, request: Request) -> Response:
        headers = {"Cache-Control": "no-cache", "ETag": f'"{version}"'}
        if name.startswith(f"{version}/"):
            name, headers["Cache-Control"] = name.removeprefix(f"{version}/"), "private, max-age=31536000, immutable"
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


def _shell(files: dict[str, bytes], found: list[str], opened: str, version: str) -> str:
    """shell.html with the pages there are, and what the one that is opened needs, for the browser to ask for all of it at once."""
    links = [f'<link rel="stylesheet" href="/static/{STYLES}">']
    links += [
        f'<link rel="modulepreload" href="/static/{name}">' for name in _programs(files, "app.js", f"pages/{opened}.js")
    ]
    links += [
        f'<link rel="preload" as="fetch" crossorigin href="{_quoted(name)}">' for name in ASKED_FIRST.get(opened, ())
    ]
    known = _quoted(json.dumps({name: PAGES[name] for name in found}))
    text = files["shell.html"].decode().replace("<!--links-->", "\n".join(links)).replace("{{pages}}", known)
    return text.replace("/static/", f"/static/{version}/")


def _programs(files: dict[str, bytes], *first: str) -> list[str]:
    """Modules, and all that they import."""
    found, left = [], [*first]
    while left:
        name = left.pop(0)
        if name in files and name not in found:
            found.append(name)
            imported = IMPORTED.findall(files[name].decode())
            left += [posixpath.normpath(posixpath.join(posixpath.dirname(name), other)) for other in imported]
    return found


def _quoted(text: str) -> str:
    """Text as the value of an attribute."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
