"""Typed configuration: frozen pydantic models <-> YAML <-> the command line.

The models themselves live beside what they configure (`model/vae_config.py`, `data/config.py`, ...); none of those files imports
torch, so that `--help` answers at once. What a field's docstring says is its help (`options.py`).
"""

import difflib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Tag, ValidationError

from video_gen.errors import ConfigError
from video_gen.plain_yaml import read_yaml

Loc = tuple[int | str, ...]


@dataclass(frozen=True)
class Said:
    """Beside a field's type in `Annotated`: how it is said on the command line."""

    name: str | None = None
    """In place of the field's own; "" for a part whose fields are said without a name in front."""
    short: str | None = None
    """A second name, such as -n."""
    positional: bool = False
    """A word without a name."""
    hidden: bool = False
    """Not to be set on the command line."""
    repeated: bool = False
    """Of a list: each value has the name in front of it, --lora a --lora b."""


FLAT, POSITIONAL, HIDDEN = Said(name=""), Said(positional=True), Said(hidden=True)


class Config(BaseModel):
    """Base of all configurations: immutable, an unknown key is an error, and so is a number that is not finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    def replace(self, **changes: Any) -> Self:
        """A validated copy with some fields changed."""
        return validate(type(self), self.model_dump() | changes, source="replace()")

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


C = TypeVar("C", bound=Config)


def validate(kind: type[C], values: Any, source: str) -> C:
    """Build `kind` from plain values; a mistake becomes one line that names the key, the value and the nearest known key.

    Raises: ConfigError.
    """
    if not isinstance(values, dict):
        raise ConfigError(f"{source}: expected a mapping of settings, found {type(values).__name__}")
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{source}: {explain(kind, error)}") from None


def check_known(values: Mapping[str, Any], known: Collection[str], source: str) -> None:
    """Of settings that others wrote: what is off (null, false, 0, nothing) changes nothing, and what begins with _ is no setting.

    Raises: ConfigError for the first that is none of `known`.
    """
    for name, value in values.items():
        off = not value or (isinstance(value, list) and not any(value))
        if name not in known and not name.startswith("_") and not off:
            raise ConfigError(
                f"{source}: {name} is {_shown(value)}, which is not known here; take it out, if the model is the same without"
            )


def load_yaml(kind: type[C], path: str | Path) -> C:
    """Read a YAML file into `kind`. Raises: ConfigError if it is missing, not YAML, or does not fit."""
    values = read_yaml(Path(path))
    values = merged(kind(), values) if isinstance(values, dict) else {} if values is None else values
    return validate(kind, values, source=str(path))


def merged(default: Config, changes: Mapping[Any, Any]) -> dict[Any, Any]:
    """What `default` was told, with changes of some fields, as values for its class.

    A part of which some fields are named keeps the rest as `default` has it. `model_fields_set` stays what was said.
    """
    told: dict[Any, Any] = {name: getattr(default, name) for name in default.model_fields_set}
    for name, value in changes.items():
        part = getattr(default, name, None) if name in type(default).model_fields else None
        told[name] = merged(part, value) if isinstance(part, Config) and isinstance(value, Mapping) else value
    return told


def dotted(loc: Loc) -> str:
    return ".".join(str(part) for part in loc)


def explain(kind: type[BaseModel], error: ValidationError, spell: Callable[[Loc], str] = dotted) -> str:
    """What does not fit, in one line: each key as `spell` has it, its value, and what is wrong with it."""
    return "; ".join(dict.fromkeys(text for _, text in mistakes(kind, error, spell)))


def mistakes(
    kind: type[BaseModel], error: ValidationError, spell: Callable[[Loc], str] = dotted
) -> Iterator[tuple[Loc, str]]:
    """Each mistake: where it is, and the line about it."""
    errors = error.errors(include_url=False)
    inner = {e["loc"][:-1] for e in errors}  # a list is also called too short because of the items that do not fit
    for e in errors:
        if not (e["type"] == "too_short" and e["loc"] in inner):
            loc, part = _place(kind, e["loc"])
            yield loc, _explain(part, e | {"loc": loc}, spell)


def _place(kind: Any, loc: Loc) -> tuple[Loc, Any]:
    """A place without the tags by which pydantic tells the kinds of a part that has several; and the class of its last key."""
    plain, part, tagged = [], None, dict[Any, Any]()
    for name in loc:
        if name in tagged:
            kind, tagged = tagged[str(name)], {}
            continue
        plain.append(name)
        field = getattr(kind, "model_fields", {}).get(name)
        part, kind = kind, field.annotation if field else None
        notes = [(each, note) for each in get_args(kind) for note in getattr(each, "__metadata__", ())]
        tagged = {note.tag: each.__origin__ for each, note in notes if isinstance(note, Tag)}
    return tuple(plain), part


def _explain(part: Any, error: Any, spell: Callable[[Loc], str]) -> str:
    loc, value = error["loc"], error["input"]
    where = spell(loc)
    if error["type"] == "extra_forbidden":
        known = list(getattr(part, "model_fields", {}))
        close = difflib.get_close_matches(str(loc[-1]), known, n=1)
        hint = f"perhaps you meant '{close[0]}'" if close else f"known keys are {', '.join(known)}"
        return f"unknown key '{where}'; {hint}"
    if error["type"] == "missing":
        return f"'{where}' is required"
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "too_short":
        message = f"give at least {error['ctx']['min_length']}"
    if isinstance(value, Mapping | BaseModel):  # a rule about several keys names them and their values itself
        return f"{where}: {message}" if where else message
    if error["type"] == "literal_error" and isinstance(value, str):
        known = error["ctx"]["expected"].replace("'", "").replace(" or ", ", ").split(", ")
        close = difflib.get_close_matches(value, known, n=1)
        message += f"; perhaps you meant '{close[0]}'" if close else ""
    return f"'{where or '(top level)'}' is {_shown(value)}: {message}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def differences(was: Any, now: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    """(keys that lead there, value before, value now) of what is not the same in two trees of mappings.

    What only the newer one names, and has off (None, False, 0, nothing), is a setting that came later, and no difference.
    """
    if isinstance(was, Mapping) and isinstance(now, Mapping):
        for key in {**was, **now}:
            if key not in was and not now[key]:
                continue
            before = was.get(key, {} if isinstance(now.get(key), Mapping) else None)
            yield from differences(before, now.get(key), (*path, str(key)))
    elif was != now:
        yield path, was, now
