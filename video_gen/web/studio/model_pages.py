"""The addresses of the Models page: what is in each model that can be picked, reports, and a grid of models and settings."""

import json
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse
from pydantic import Field

from video_gen.config import Config
from video_gen.errors import ConfigError
from video_gen.shipped import find_model, model_names
from video_gen.web.studio.answers import said
from video_gen.web.studio.create import shown
from video_gen.web.studio.form import APART, FILES, sample_of
from video_gen.web.studio.form import said as told_by
from video_gen.web.studio.model_facts import facts_of
from video_gen.web.studio.plain_files import plain
from video_gen.web.studio.reports import Reports
from video_gen.web.studio.roots import Roots
from video_gen.web.studio.studio import Studio

MOST_CELLS = 64


class Grid(Config):
    """Videos, as `POST /api/jobs` takes each; "model" is among the settings of a cell."""

    cells: tuple[dict[str, Any], ...] = Field(max_length=MOST_CELLS)


def routes(studio: Studio) -> APIRouter:
    router = APIRouter(prefix="/api/models")
    _facts(router, studio)
    _reports(router, studio)
    _grid(router, studio)
    return router


def _facts(router: APIRouter, studio: Studio) -> None:
    @router.get("/list")
    def names() -> dict[str, Any]:
        shipped = set(model_names())
        found = [{"name": name, "shipped": name in shipped, **_run_of(studio, name)} for name in studio.models.names()]
        return plain({"models": found, "loras": studio.models.loras(), "model": studio.model})

    @router.get("/one")
    def one(name: str) -> dict[str, Any]:
        """All that its folder says. What is on the Hub and not here says nothing."""
        settings = studio.models.settings(name)
        folder = find_model(name)
        facts = None if folder is None or not folder.is_dir() else facts_of(folder)
        return plain(settings | {"facts": facts, **_run_of(studio, name)})


def _run_of(studio: Studio, name: str) -> dict[str, Any]:
    """The run that a model came of, as the Runs page names it; none of one that came from elsewhere."""
    folder = find_model(name)
    if folder is not None and folder.name == "model":
        for root, place in studio.runs.folders.items():
            try:
                run = folder.resolve().relative_to(place.resolve()).parent.as_posix()
            except (ValueError, OSError, RuntimeError):
                continue
            return {"run": f"{root}/{run}" if run != "." else root}
    return {"run": None}


def _reports(router: APIRouter, studio: Studio) -> None:
    reports = Reports(Roots((*studio.runs.folders.values(), studio.output)))

    @router.get("/reports")
    def found() -> dict[str, Any]:
        return plain({"reports": reports.found()})

    @router.get("/report")
    def one(root: str, name: str) -> FileResponse:
        """The page itself; see `reports` for what it may do."""
        headers = {"Content-Security-Policy": reports.policy}
        return FileResponse(reports.file(root, name), media_type="text/html; charset=utf-8", headers=headers)


def _grid(router: APIRouter, studio: Studio) -> None:
    @router.post("/grid")
    async def results(request: Request) -> dict[str, Any]:
        """The newest result of each cell, told by its settings: {"results": [result or None, ...]}."""
        asked = await said(request, Grid)
        wanted = [_key(studio, cell) for cell in asked.cells]
        missing, found = set(wanted), {}
        for entry in studio.gallery.entries():
            if not missing:
                break
            own = studio.gallery.facts(entry).get("studio")
            own = own if isinstance(own, dict) else {}
            options = own.get("options")
            if isinstance(options, dict) and (key := _text(own.get("model"), options)) in missing:
                missing.discard(key)
                found[key] = shown(studio, entry)
        return plain({"results": [found.get(key) for key in wanted]})


def _key(studio: Studio, cell: dict[str, Any]) -> str:
    """A cell's settings in the one way in which a result keeps them. Raises: ConfigError, Missing."""
    values = {name: value for name, value in cell.items() if value is not None}
    name = values.pop("model", studio.model)
    if wrong := [key for key in values if key in (*APART, *FILES, "loras")]:
        raise ConfigError(f"{wrong[0]} is not for a cell of a grid to say")
    if not isinstance(name, str):
        raise ConfigError("model: expected a name")
    return _text(name, told_by(sample_of({**values, "model": studio.models.check(name)})))


def _text(model: Any, options: dict[str, Any]) -> str:
    rest = {name: value for name, value in options.items() if name not in APART}
    return json.dumps([model, rest], sort_keys=True, default=str)
