"""YAML as people write it: a key given twice is refused, 1e-3 is a number, and what cannot be read is one line."""

import re
from pathlib import Path
from typing import Any

import yaml

from video_gen.errors import ConfigError
from video_gen.shipped import find_config

LARGEST_BYTES = 1 << 20
"""No configuration is larger; a larger file is another kind of file."""


class Loader(yaml.SafeLoader):
    """YAML's safe loader, but for keys that are given twice, and for numbers such as 1e-3, which YAML 1.1 takes for text."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue
            line = key.start_mark.line + 1
            if key.value in lines:
                twice = f"'{key.value}' is given twice, in lines {lines[key.value]} and {line}; leave one out"
                raise yaml.constructor.ConstructorError(problem=twice)
            lines[key.value] = line
        return super().construct_mapping(node, deep)


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d[\d_]*)(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def read_yaml(path: Path) -> Any:
    """What is in a YAML file; a name that is no file is that of a configuration which ships. Raises: ConfigError."""
    found = find_config(path)
    try:
        raw = found.read_bytes() if found.stat().st_size <= LARGEST_BYTES else b"\0"
        text = raw.decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise ConfigError(f"{path}: is no text in UTF-8; a configuration is a YAML file")
    return parse_yaml(text, str(path))


def parse_yaml(text: str, source: str) -> Any:
    """What a text says. Raises: ConfigError that begins with its `source`."""
    try:
        return yaml.load(text, Loader)
    except RecursionError:
        raise ConfigError(f"{source}: not valid YAML: nested too deeply") from None
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{source}: not valid YAML: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    problem, mark = getattr(error, "problem", None), getattr(error, "problem_mark", None)
    if problem is None:
        return " ".join(str(error).split())
    hint = "; indent with blanks" if "'\\t'" in problem else ""
    return f"{f'line {mark.line + 1}: ' if mark else ''}{problem}{hint}"
