"""From the words of a command line to a call: which command they name, its options, and how these are handed over. No torch."""

import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import tyro
from pydantic import ValidationError

from video_gen.config import Config, explain, load_yaml
from video_gen.errors import ConfigError, exit_code

C = TypeVar("C", bound=Config)
Commands = Mapping[tuple[str, ...], tuple[type[Config], Callable[..., Any]]]
"""By the command's words: the class of its options, and the function that takes them as keywords."""
RUN = "run"
"""The field that a YAML file may fill, where a command has it: the configuration of a training run."""


class Options(Config):
    """Base of groups of options that several commands have."""


def run_command(commands: Commands, words: list[str] | None = None) -> int:
    """Run the command that `words` name, by default those the program was started with. Returns: see `errors.exit_code`."""
    words = sys.argv[1:] if words is None else words

    def run() -> None:
        names, kind, function = find(commands, words)
        function(**handed_over(parse(names, kind, words[len(names) :])))

    return exit_code("video-gen", run)


def handed_over(args: Config) -> dict[str, Any]:
    """Options as keywords: those of groups one by one, a part with its own function whole, and none that is None."""
    given: dict[str, Any] = {}
    for name in type(args).model_fields:
        value = getattr(args, name)
        if isinstance(value, Options):
            given |= handed_over(value)
        elif value is not None:
            given[name] = value
    return given


def find(commands: Commands, words: list[str]) -> tuple[tuple[str, ...], type[Config], Callable[..., Any]]:
    """The command that `words` begin with. Raises: ConfigError; SystemExit after a general --help."""
    if not words or words[0] in ("-h", "--help"):
        print(overview(commands))
        raise SystemExit(0)
    for names, (kind, function) in commands.items():
        if tuple(words[: len(names)]) == names:
            return names, kind, function
    known = ", ".join(" ".join(names) for names in commands)
    raise ConfigError(f"no command '{' '.join(words[:2])}'; there are {known}")


def parse(names: tuple[str, ...], kind: type[C], words: list[str]) -> C:
    """The arguments of a command, over the defaults of its YAML file if one is given first."""
    default = kind()
    if RUN in kind.model_fields and words and words[0].endswith((".yaml", ".yml")):
        run = load_yaml(type(getattr(default, RUN)), words[0])
        default, words = default.model_copy(update={RUN: run}), words[1:]
    if names == ("data", "check") and words and not words[0].startswith("-"):
        words = ["--folder", *words]
    try:
        return tyro.cli(
            kind, prog=f"video-gen {' '.join(names)}", args=words, default=default, description=kind.__doc__
        )
    except ValidationError as error:
        raise ConfigError(explain(kind, error)) from None


def overview(commands: Commands) -> str:
    lines = [
        "Train, sample and measure latent video diffusion models.",
        "",
        "usage: video-gen COMMAND [--help] ...",
        "",
    ]
    lines += [f"  {' '.join(names):17} {(kind.__doc__ or '').splitlines()[0]}" for names, (kind, _) in commands.items()]
    lines += [
        "",
        "The `train` commands, `plan` and `data encode` take a YAML file first: video-gen train vae configs/demo-vae.yaml",
    ]
    return "\n".join(lines)
