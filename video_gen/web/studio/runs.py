"""The page of runs: what trains and has trained, its curves, samples and settings; and training that is started and stopped."""

import asyncio
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import FileResponse
from pydantic import Field

from video_gen.config import Config
from video_gen.errors import ConfigError, TrainingError
from video_gen.evaluation.words import words_of_training
from video_gen.files import write_text
from video_gen.shipped import CONFIGS as SHIPPED
from video_gen.shipped import about, config_names
from video_gen.web.studio.answers import Missing, said
from video_gen.web.studio.plain_files import plain, tail, whole
from video_gen.web.studio.roots import Roots
from video_gen.web.studio.run_folder import (
    CONFIG,
    CONFIG_BYTES,
    CONFIGS,
    RECIPE,
    SAMPLE,
    VIDEO,
    best_of,
    checkpoint_of,
    flat,
    kind_of,
    read_config,
    samples_of,
    sizes_of,
)
from video_gen.web.studio.run_plan import Planner
from video_gen.web.studio.run_process import start, stop
from video_gen.web.studio.run_recipe import KINDS, Checked, Problem, Recipe, check, command
from video_gen.web.studio.run_rows import is_run
from video_gen.web.studio.run_state import ALIVE, CONSOLE, condition
from video_gen.web.studio.studio import Studio

MOST_ALIVE = 8
"""Runs at work at once, beyond which none is started."""
CONSOLE_BYTES = 1 << 15
Points = Query(400, ge=10, le=5000)


class Start(Recipe):
    """A run to begin, or to go on with."""

    resume: Literal["auto", "never"] = "auto"
    """`never` sets an earlier run of the folder aside."""


class Named(Config):
    """A run."""

    root: str
    name: str = ""


class Stop(Named):
    again: bool = False
    """At once, as a second Ctrl-C."""


class Resume(Named):
    train_steps: int | None = Field(default=None, ge=1, le=1_000_000_000)
    """To go on to; None = as many as it was to have."""


def routes(studio: Studio) -> APIRouter:
    router, watch = APIRouter(prefix="/api/runs"), studio.watch
    trainer, planner = Trainer(studio), Planner(studio.output / "runs")

    @router.get("")
    def rows() -> Response:
        found, troubles = watch.look()
        folders = studio.runs.folders
        roots = [{"name": name, "folder": str(folder), "there": folder.is_dir()} for name, folder in folders.items()]
        return _json({"runs": found, "troubles": troubles, "roots": roots})

    @router.get("/curves")
    def curves(
        root: str,
        name: str = "",
        points: int = Points,
        first: float = -1e300,
        last: float = 1e300,
        coarse: bool = False,
    ) -> Response:
        """Every curve of a run from step `first` to `last`, in so many points, with the words for them."""
        told = watch.logs.curves(_run(studio.runs, root, name) / "log.jsonl", points, first, last, coarse)
        figures = {curve.partition("/")[2] for curve in told["curves"]}
        return _json(told | {"words": {figure: vars(words_of_training(figure)) for figure in figures}})

    @router.get("/about")
    def one(root: str, name: str = "") -> Response:
        return _json(_about(_run(studio.runs, root, name)))

    @router.get("/file")
    def file(root: str, step: str, file: str, name: str = "") -> FileResponse:
        """A video or the sheet of a step's samples."""
        folder = _run(studio.runs, root, name)
        sheet = file == "sheet.png"
        if not SAMPLE.fullmatch(step) or not (sheet or VIDEO.fullmatch(file)):
            raise Missing(f"'{step[:40]}/{file[:40]}' is no sample")
        path = studio.runs.find(root, "/".join(filter(None, (name, "samples", step, file))))
        if not path.is_relative_to(folder) or not path.is_file():
            raise Missing(f"'{step}/{file}' is not there")
        return FileResponse(
            path, media_type="image/png" if sheet else "video/mp4", headers={"Cache-Control": "no-cache"}
        )

    @router.get("/recipes")
    def recipes() -> Response:
        """The configurations that ship, to begin with."""
        paths = {name: SHIPPED / f"{name}.yaml" for name in config_names()}
        return _json(
            [
                {"name": name, "about": about(path), "text": path.read_text(encoding="utf-8")}
                for name, path in paths.items()
            ]
        )

    @router.get("/help")
    def help(kind: Literal["vae", "diffusion", "distill"]) -> Response:
        """Every setting of a kind of run: what it means, and what it is unless told."""
        return _json(list(_settings(KINDS[kind]())))

    @router.post("/check")
    async def checked(request: Request) -> Response:
        recipe = await said(request, Recipe)
        return _json(await asyncio.to_thread(trainer.check, recipe))

    @router.post("/plan")
    async def plan(request: Request) -> Response:
        """What a recipe would cost; it takes some real steps to tell."""
        recipe = await said(request, Recipe)
        kind = await asyncio.to_thread(trainer.fitting_kind, recipe)
        return _json(await planner.plan(recipe.text, kind))

    @router.post("/start")
    async def begin(request: Request) -> Response:
        wanted = await said(request, Start)
        return _json(await asyncio.to_thread(trainer.start, wanted))

    @router.post("/resume")
    async def go_on(request: Request) -> Response:
        wanted = await said(request, Resume)
        return _json(await asyncio.to_thread(trainer.resume, wanted))

    @router.post("/stop")
    async def end(request: Request) -> Response:
        wanted = await said(request, Stop)
        folder = _run(studio.runs, wanted.root, wanted.name)
        await asyncio.to_thread(stop, condition(folder), folder, wanted.again)
        return _json({"stopping": True})

    return router


class Trainer:
    """What starts runs, within the studio's folders."""

    def __init__(self, studio: Studio):
        self.studio, self.readable = studio, (studio.data, Roots((studio.output,)))

    def check(self, recipe: Recipe) -> dict[str, Any]:
        """What it comes to, whether there is a run in its folder, and whether that is at work."""
        found = check(recipe, self.studio.runs, self.readable)
        there = found.folder is not None and is_run(found.folder)
        alive = there and found.folder is not None and condition(found.folder).state in ALIVE
        return found.told() | {"there": there, "alive": alive}

    def fitting_kind(self, recipe: Recipe) -> str:
        """What a recipe trains, wherever. Raises: ConfigError that names its first mistake."""
        found = check(recipe, self.studio.runs, self.readable)
        _refuse([problem for problem in found.problems if problem.field not in ("name", "root")])
        return found.kind

    def start(self, wanted: Start) -> dict[str, Any]:
        """Write the recipe into the run's folder, and train it. Raises: ConfigError that names the first mistake; TrainingError."""
        folder, found = self._fitting(wanted)
        if folder.is_dir() and any(folder.iterdir()) and not is_run(folder):
            raise ConfigError(f"{folder}: holds other files; give the run another name")
        self._refuse_more(folder)
        write_text(folder / RECIPE, wanted.text)
        return self._begin([*found.words(), *(["--resume", "never"] if wanted.resume == "never" else [])], folder)

    def resume(self, wanted: Resume) -> dict[str, Any]:
        """Go on with a run as its config.yaml has it, or begin again with what it was asked for if it never came so far."""
        folder = _run(self.studio.runs, wanted.root, wanted.name)
        if re.fullmatch(r"stage-\d+", folder.name) and read_config(folder.parent)[0].get("stages"):
            raise ConfigError(f"{folder}: is a stage of {folder.parent}; go on with that")
        name = next((name for name in CONFIGS if whole(folder / name, CONFIG_BYTES)), None)
        if name is None:
            raise ConfigError(f"{folder}: has no config.yaml to go on with")
        text = (whole(folder / name, CONFIG_BYTES) or b"").decode("utf-8", "replace")
        kind = kind_of(read_config(folder)[0]) or "auto"
        found = check(Recipe(text=text, kind=kind, root=wanted.root, name="x"), self.studio.runs, self.readable)  # type: ignore[arg-type]
        if found.problems:
            raise ConfigError(f"{folder / name}: {found.problems[0].text}")
        self._refuse_more(folder)
        steps = ["--loop.train-steps", str(wanted.train_steps)] if wanted.train_steps else []
        return self._begin(command(found.kind, folder / name, folder, *steps), folder)

    def _fitting(self, recipe: Recipe) -> tuple[Path, Checked]:
        found = check(recipe, self.studio.runs, self.readable)
        _refuse(found.problems)
        assert found.folder is not None  # else there was a problem
        return found.folder, found

    def _refuse_more(self, folder: Path) -> None:
        alive = [row for row in self.studio.watch.look()[0] if row["state"] in ALIVE]
        if len(alive) >= MOST_ALIVE:
            raise TrainingError(f"{len(alive)} runs are at work; stop one, or start this by its command line")
        if condition(folder).state in ALIVE:
            raise TrainingError(f"{folder}: something trains there already; stop it first, or give another name")

    def _begin(self, words: list[str], folder: Path) -> dict[str, Any]:
        return {"pid": start(words, folder), "command": shlex.join(words)}


def _refuse(problems: list[Problem]) -> None:
    if problems:
        first = problems[0]
        raise ConfigError(f"{f'line {first.line}: ' if first.line else ''}{first.text}")


def _run(roots: Roots, root: str, name: str) -> Path:
    """A run's folder. Raises: Missing if there is none."""
    folder = roots.find(root, name)
    if not folder.is_dir() or not is_run(folder):
        raise Missing(f"'{name[:80] or root[:80]}' is no run")
    return folder


def _about(folder: Path) -> dict[str, Any]:
    """What is told of one run that is looked at."""
    config, trouble = read_config(folder)
    kind, best = kind_of(config), best_of(folder)
    name = next((name for name in CONFIGS if whole(folder / name, CONFIG_BYTES)), CONFIG)
    text = (whole(folder / name, CONFIG_BYTES) or b"").decode("utf-8", "replace")
    console = tail(folder / CONSOLE, CONSOLE_BYTES).replace("\r", "\n").splitlines()
    return plain(
        {
            "folder": str(folder),
            "kind": kind,
            "settings": dict(flat(config)) if config else {},
            "yaml": text,
            "trouble": trouble,
            "best": best,
            "words": {name: vars(words_of_training(name)) for name in best if name != "step"},
            "samples": samples_of(folder),
            "sizes": sizes_of(folder),
            "saved": checkpoint_of(folder),
            "console": [line[:2000] for line in console][-200:],
            "command": shlex.join(command(kind or "vae", folder / name, folder)),  # type: ignore[arg-type]
        }
    )


def _settings(config: Config, path: str = "") -> Iterator[dict[str, Any]]:
    for name, field in type(config).model_fields.items():
        value, dotted = getattr(config, name), f"{path}{name}"
        if isinstance(value, Config):
            yield from _settings(value, f"{dotted}.")
        else:
            default = plain(list(value) if isinstance(value, tuple) else value)
            yield {"name": dotted, "help": " ".join((field.description or "").split()), "default": default}


def _json(value: Any) -> Response:
    return Response(json.dumps(value, separators=(",", ":"), allow_nan=False), media_type="application/json")
