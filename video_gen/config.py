"""Typed configuration: frozen pydantic models <-> YAML <-> the command line.

The models themselves live beside what they configure (`model/config.py`, `data/config.py`, ...); none of those files imports torch,
so that `--help` answers at once.
"""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from video_gen.errors import ConfigError


class Config(BaseModel):
    """Base of all configurations: immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")

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


def load_yaml(kind: type[C], path: str | Path) -> C:
    """Read a YAML file into `kind`. Raises: ConfigError if it is missing, not YAML, or does not fit."""
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"{path}: no such configuration file; the ones that ship are in configs/")
    try:
        values = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    return validate(kind, values if values is not None else {}, source=str(path))


def explain(kind: type[BaseModel], error: ValidationError) -> str:
    """What does not fit, in one line: each key, its value, and what is wrong with it."""
    return "; ".join(_explain(kind, e) for e in error.errors())


def _explain(kind: type[BaseModel], error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"]) or "(top level)"
    if error["type"] == "extra_forbidden":
        known = _known_keys(kind, error["loc"][:-1])
        close = difflib.get_close_matches(str(error["loc"][-1]), known, n=1)
        hint = f"perhaps you meant '{close[0]}'" if close else f"known keys are {', '.join(known)}"
        return f"unknown key '{where}'; {hint}"
    if error["type"] == "missing":
        return f"'{where}' is required"
    message = error["msg"].removeprefix("Value error, ")
    if isinstance(error["input"], Mapping | BaseModel):  # a rule about several keys names them and their values itself
        return f"{where}: {message}" if error["loc"] else message
    return f"'{where}' is {error['input']!r}: {message}"


def _known_keys(kind: Any, path: tuple[Any, ...]) -> list[str]:
    for part in path:
        field = kind.model_fields.get(part) if hasattr(kind, "model_fields") else None
        if field is None:
            return []
        kind = field.annotation
    return list(getattr(kind, "model_fields", {}))
