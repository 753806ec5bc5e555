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
        first: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if key.value in first and key.tag != "tag:yaml.org,2002:merge":
                raise ConfigError(
                    f"'{key.value}' is given twice, in lines {first[key.value]} and {line}; leave one out"
                )
            if isinstance(key, yaml.ScalarNode):
                first[key.value] = line
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
        if "\0" in text:
            raise ConfigError(f"{path}: is no text; a configuration is a YAML file")
        return yaml.load(text, Loader)
    except ConfigError as error:
        raise ConfigError(str(error) if str(error).startswith(str(path)) else f"{path}: {error}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is no text in UTF-8; a configuration is a YAML file") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())
        tabs = "; indent with blanks, not tabs" if "\\t" in reason else ""
        raise ConfigError(f"{path}: not valid YAML: {reason}{tabs}") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
