"""What `video-gen sample` can be told, for a page: fields with their help and bounds, and a page's values as its options.

The page has no settings of its own. What it sends is checked as a command line is, and can be said as one.
"""

import shlex
from collections.abc import Mapping
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import ValidationError

from video_gen.arguments.generate import Sample
from video_gen.command_line import handed_over
from video_gen.config import explain
from video_gen.errors import ConfigError
from video_gen.help import heading
from video_gen.options import Option, is_list, options_of, put
from video_gen.sampling.fit import Fit

APART = ("model", "device", "output", "format", "compile", "room")
"""Options that are no fields of a form: where, and in which kind of file."""
FILES = ("image", "video", "last_image", "source")
"""Options that name files; a page names what it has sent or made."""
EACH = ("count", "seed")
"""Options of several videos: one job makes them one by one."""


def options() -> dict[str, Option]:
    """By the names that a page uses."""
    return {option.path[-1]: option for option in options_of(Sample)}


@cache
def fields() -> list[dict[str, Any]]:
    """Groups of fields for a page: {"title", "fields": [{"name", "help", "kind", ...}]}."""
    schema = Sample.model_json_schema()
    shown = [option for name, option in options().items() if name not in APART]
    order = list(dict.fromkeys(option.owner for option in shown))
    shown.sort(key=lambda option: order.index(option.owner))
    return [
        {"title": "" if owner is Sample else heading(owner).rstrip(":"), "fields": [_field(o, schema) for o in group]}
        for owner, group in groupby(shown, key=lambda option: option.owner)
    ]


def _field(option: Option, schema: Mapping[str, Any]) -> dict[str, Any]:
    said = _schema_of(option, schema)
    told = {
        "name": option.path[-1],
        "option": option.name,
        "help": " ".join((option.field.description or "").split()),
        "kind": _kind(option),
        "default": option.default if isinstance(option.default, int | float | str | None) else None,
    }
    bounds = {"minimum": "low", "exclusiveMinimum": "above", "maximum": "high", "exclusiveMaximum": "below"}
    told |= {ours: said[theirs] for theirs, ours in bounds.items() if theirs in said}
    if get_origin(option.kind) is Literal:
        told["choices"] = list(get_args(option.kind))
    if told["kind"] == "numbers" and not is_list(option.kind):
        told["many"] = len(get_args(option.kind))
    return told


def _kind(option: Option) -> str:
    if option.path[-1] in FILES:
        return "file"
    if get_origin(option.kind) is Literal:
        return "choice"
    if get_origin(option.kind) is tuple:
        return "names" if get_args(option.kind)[0] is str else "numbers"
    return {bool: "flag", int: "whole", float: "number"}.get(option.kind, "text")


def _schema_of(option: Option, schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """What JSON schema says of a field's values, without None."""
    found: Any = schema
    for part in option.path:
        while "$ref" in found:
            found = schema["$defs"][found["$ref"].rpartition("/")[2]]
        found = found["properties"][part]
    kinds = [kind for kind in found.get("anyOf", [found]) if kind.get("type") != "null"]
    return kinds[0] if len(kinds) == 1 else found


def sample_of(values: Mapping[str, Any]) -> Sample:
    """The options that a page's values say. Raises: ConfigError, one line, in the page's names."""
    known, nested = options(), {}
    for name, value in values.items():
        if name not in known:
            raise ConfigError(f"no setting '{str(name)[:40]}'")
        if isinstance(value, str) and "\0" in value:
            raise ConfigError(f"{name.replace('_', ' ')}: holds a character that no text has (NUL); leave it out")
        put(nested, known[name].path, value)
    names = {option.path: name.replace("_", " ") for name, option in known.items()}

    def spell(loc: tuple[int | str, ...]) -> str:
        parts = tuple(part for part in loc if isinstance(part, str))
        return next((names[parts[:n]] for n in range(len(parts), 0, -1) if parts[:n] in names), "")

    try:
        return Sample.model_validate(nested)
    except ValidationError as error:
        raise ConfigError(explain(Sample, error, spell)) from None


def said(sample: Sample) -> dict[str, Any]:
    """What differs from the defaults, by the names of a page, as plain values."""
    found = {}
    for name, option in options().items():
        value: Any = sample
        for part in option.path:
            value = getattr(value, part)
        if value != option.default:
            found[name] = str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value
    return found


def command(sample: Sample) -> str:
    """The words of a command line that says the same."""
    words, last, known = ["video-gen", "sample"], [], options()
    for name, value in said(sample).items():
        option = known[name]
        if option.said.positional:
            words, last = (words, ["--", value]) if value.startswith("-") else ([*words, value], [])
        elif option.said.repeated:
            words += [word for part in value for word in (option.name, str(part))]
        elif option.flag:
            words.append(option.name if value else option.off)
        else:
            words += [option.name, *(str(part) for part in (value if isinstance(value, list) else [value]))]
    return shlex.join(words + last)


def python(sample: Sample, device: str = "cpu") -> str:
    """A program that makes the same file."""
    told = said(sample)
    given = {name: value for name, value in handed_over(sample).items() if name in told}
    model, prompt, loras = str(given.pop("model", "")), given.pop("prompt", ""), list(given.pop("loras", ()))
    output = given.pop("output", Path("out"))
    for name in APART:
        given.pop(name, None)
    fit = ", ".join(f"{name}={told[name]!r}" for name in Fit.model_fields if name in told)
    rest = "".join(f", {name}={_shown(value)}" for name, value in given.items())
    lines = ["from pathlib import Path", ""]
    if fit or loras:
        lines += ["import torch", "", "from video_gen.sample import load_model, sample_to_files"]
        lines += ["from video_gen.sampling.fit import Fit", ""]
        lines += [
            f'pipeline = load_model(Path("{_quoted(model)}"), torch.device("{device}"), Fit({fit}), (), {loras!r})'
        ]
    else:
        on = "" if device == "cpu" else f', "{device}"'
        lines += ["from video_gen import VideoPipeline", "from video_gen.sample import sample_to_files", ""]
        lines += [f'pipeline = VideoPipeline.from_pretrained("{_quoted(model)}"{on})']
    return "\n".join([*lines, f"sample_to_files(pipeline, {prompt!r}, {_shown(output)}{rest})", ""])


def _shown(value: Any) -> str:
    return f'Path("{_quoted(value)}")' if isinstance(value, Path) else repr(value)


def _quoted(text: Any) -> str:
    return str(text).replace("\\", "\\\\").replace('"', '\\"')
