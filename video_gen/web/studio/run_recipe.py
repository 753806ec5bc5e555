"""A training run as it is asked for: YAML that is checked as the command line checks it, and places that a page may name.

Every mistake is a line with its place in the text. Nothing beyond the studio's folders is read or written by a run that a page
starts, but for models that ship with Video Gen or are asked of the Hub.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError

from video_gen.config import Config, Loc, dotted, merged, mistakes
from video_gen.errors import ConfigError
from video_gen.plain_yaml import Loader, parse_yaml
from video_gen.shipped import find_model, looks_like_hub_id
from video_gen.training.recipes import DiffusionRun, DistillRun, VAERun
from video_gen.web.studio.answers import Missing
from video_gen.web.studio.roots import Roots
from video_gen.web.studio.run_folder import CONFIG_BYTES, OWN, RECIPE, kind_of, refuse_many_aliases

Run = VAERun | DiffusionRun | DistillRun
Kind = Literal["vae", "diffusion", "distill"]
KINDS: dict[Kind, type[VAERun] | type[DiffusionRun] | type[DistillRun]] = {
    "vae": VAERun,
    "diffusion": DiffusionRun,
    "distill": DistillRun,
}
PART = re.compile(r"\w[\w .+=,-]{0,99}")
"""Of a run's name, between slashes."""
MOST_PROBLEMS = 50


class Recipe(Config):
    """What a page would have trained."""

    text: str = Field(max_length=CONFIG_BYTES)
    """YAML, as `video-gen train` takes it."""
    kind: Literal["auto", "vae", "diffusion", "distill"] = "auto"
    """`auto`: what the text fits."""
    root: str = ""
    name: str = ""
    """Of the run's folder in the root, such as a/b."""


@dataclass(frozen=True)
class Problem:
    """A mistake, and where it is."""

    text: str
    line: int | None = None
    """Of the YAML, from 1; None = of none of its lines."""
    field: str = ""


@dataclass(frozen=True)
class Checked:
    """What a recipe comes to."""

    kind: Kind
    run: Run | None = None
    """None if it does not fit."""
    folder: Path | None = None
    """The run's; None if none may be made there."""
    problems: list[Problem] = field(default_factory=list)

    def words(self) -> list[str]:
        """The command that trains it."""
        folder = self.folder or Path("runs/NAME")
        return command(self.kind, folder / RECIPE, folder)

    def told(self) -> dict[str, Any]:
        """For a page."""
        run = self.run
        told = {
            "kind": self.kind,
            "problems": [vars(problem) for problem in self.problems[:MOST_PROBLEMS]],
            "command": shlex.join(self.words()),
            "train_steps": None,
        }
        if run is not None:
            stages = run.stage_runs() if isinstance(run, DiffusionRun) else [run]
            told |= {"train_steps": sum(stage.loop.train_steps for stage in stages), "batch": run.loop.batch_size}
            told |= {"size": [run.data.num_frames, run.data.height, run.data.width], "stages": len(stages)}
        return told


def command(kind: Kind, recipe: Path, folder: Path, *options: str) -> list[str]:
    """The words that train a recipe into a folder; paths as seen from where the studio works, if they lie there."""
    return ["video-gen", "train", kind, _near(recipe), "--run", _near(folder), *options]


def _near(path: Path) -> str:
    return str(path.relative_to(Path.cwd()) if path.is_absolute() and path.is_relative_to(Path.cwd()) else path)


def check(recipe: Recipe, runs: Roots, others: tuple[Roots, ...]) -> Checked:
    """
    Args:
        runs: where runs may be made. others: what else may be read.
    """
    problems: list[Problem] = []
    folder = _folder(recipe, runs, problems)
    try:
        refuse_many_aliases(recipe.text)
        values = parse_yaml(recipe.text, "YAML")
        if not isinstance(values, dict | None):
            raise ConfigError(f"expected a mapping of settings, found {type(values).__name__}")
        values = values or {}
    except (ConfigError, ValueError) as error:
        line = re.search(r"\blines? (\d+)", str(error))
        problems.append(Problem(str(error).removeprefix("YAML: "), int(line[1]) if line else None))
        return Checked("vae" if recipe.kind == "auto" else recipe.kind, None, folder, problems)
    kind: Kind = (kind_of(values) or "vae") if recipe.kind == "auto" else recipe.kind  # type: ignore[assignment]
    run, lines = None, Lines(recipe.text)
    try:
        run = KINDS[kind].model_validate(merged(KINDS[kind](), values))
    except ValidationError as error:
        for loc, text in mistakes(KINDS[kind], error):
            problems.append(Problem(text, lines.of(loc), dotted(loc)))
    except ConfigError as error:  # of a stage
        loc = _stage(str(error))
        problems.append(Problem(str(error), lines.of(loc), dotted(loc)))
    if run is not None:
        roots = (runs, *others)
        for loc, text in _beyond(run, roots):
            problems.append(Problem(text, lines.of(loc), dotted(loc)))
    return Checked(kind, run, folder, problems)


class Lines:
    """Where in a YAML text a setting stands."""

    def __init__(self, text: str):
        try:
            self.root = yaml.compose(text, Loader)
        except (yaml.YAMLError, RecursionError):  # what is no YAML has been told
            self.root = None

    def of(self, loc: Loc) -> int | None:
        """The line, from 1, of the deepest part of `loc` that is named."""
        node, line = self.root, None
        for part in loc:
            found = None
            if isinstance(node, yaml.MappingNode):
                found = next(((key, value) for key, value in node.value if key.value == str(part)), None)
            elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
                found = (node.value[part], node.value[part])
            if found is None:
                break
            line, node = found[0].start_mark.line + 1, found[1]
        return line


def _stage(text: str) -> Loc:
    """Where a mistake of a stage is: its message names the number, from 1, and the part, and perhaps the key."""
    found = re.match(r"stages, number (\d+), (\w+): (?:unknown key )?'?([\w.]*)", text)
    return ("stages", int(found[1]) - 1, found[2], *found[3].split(".")) if found else ("stages",)


def _folder(recipe: Recipe, runs: Roots, problems: list[Problem]) -> Path | None:
    """The run's folder, there or yet to be made."""
    if not recipe.name:
        problems.append(Problem("give the run a name: it becomes its folder", None, "name"))
        return None
    try:
        root = runs.folder(recipe.root)
    except Missing as error:
        problems.append(Problem(str(error), None, "root"))
        return None
    parts = recipe.name.split("/")
    taken = {*OWN, "latents"}
    for part in parts:
        if (
            not PART.fullmatch(part)
            or part.endswith((" ", "."))
            or part in taken
            or re.match(r"(stage|old)-\d+$", part)
        ):
            why = "is a folder within runs" if part in taken or PART.fullmatch(part) else "is no name of a folder"
            problems.append(
                Problem(f"'{part[:80]}' {why}; use letters, digits, - and _, and / between folders", None, "name")
            )
            return None
    folder = root.joinpath(*parts)
    if len(parts) > 4 or not runs.hold(folder):
        problems.append(Problem(f"'{recipe.name[:80]}' would lie outside of {root}, or too deep in it", None, "name"))
        return None
    return folder


def _beyond(run: Run, roots: tuple[Roots, ...]) -> Iterator[tuple[Loc, str]]:
    """Places that the run names and may not use, or that are not there."""
    named = ", ".join(str(folder) for those in roots for folder in those.folders.values())
    for loc, path, use in places(run):
        said = f"'{dotted(loc)}' is {str(path)!r}"
        shipped = use == "model" and not path.exists() and (find_model(path) is not None or looks_like_hub_id(path))
        if shipped:
            continue
        if not any(those.hold(path) for those in roots):
            option = "--data" if use == "data" else "--runs"
            yield (
                loc,
                f"{said}, outside of the studio's folders ({named}); name it at the start of the studio with {option}",
            )
        elif use != "written" and not path.exists():
            yield loc, f"{said}: no such file or folder"


def places(run: Run) -> Iterator[tuple[Loc, Path, Literal["data", "model", "written"]]]:
    """Every place on the disk that a run is told: where in the configuration, the path, and what for."""
    yield ("data", "folder"), run.data.folder, "data"
    if run.init is not None:
        yield ("init",), run.init, "model"
    if isinstance(run, VAERun):
        if run.loss.lpips_weights is not None:
            yield ("loss", "lpips_weights"), run.loss.lpips_weights, "data"
        return
    yield ("latents",), run.latents, "written"
    if isinstance(run, DistillRun):
        yield ("teacher",), run.teacher, "model"
        return
    yield ("vae",), run.vae, "model"
    if run.text.name is not None:
        yield ("text", "name"), Path(run.text.name), "model"
    if run.text.tokeniser is not None and "/" in run.text.tokeniser:
        yield ("text", "tokeniser"), Path(run.text.tokeniser), "model"
    for number, stage in enumerate(run.stage_runs() if run.stages else ()):
        yield ("stages", number, "data", "folder"), stage.data.folder, "data"
