"""From the words of a command line to a call: which command they name, its options, and how these are handed over. No torch."""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, TypeVar

from pydantic import Field, ValidationError, create_model

from video_gen import __version__
from video_gen.config import Config, explain, load_yaml, merged
from video_gen.errors import ConfigError
from video_gen.help import command_help, commands_help
from video_gen.options import options_of, read_words, spelling
from video_gen.shipped import config_names

C = TypeVar("C", bound=Config)
PROGRAM = "video-gen"
ABOUT = "Train, sample and measure latent video diffusion models."
RUN = "run"
"""The field that a YAML file may fill, where a command has it: the configuration of a training run."""


class Options(Config):
    """Base of groups of options that several commands have."""


def rest_of(kind: type[Config], *groups: type[Options], but: tuple[str, ...] = ()) -> Any:
    """A group of options for the fields of `kind` that none of the groups has, each None until it is given; without `but`."""
    known = {*but, *(name for group in groups for name in group.model_fields)}
    left = {name: field for name, field in kind.model_fields.items() if name not in known}
    fields: dict[str, Any] = {
        name: (Annotated[field.annotation | None, Field(description=field.description), *field.metadata], None)
        for name, field in left.items()
    }
    return create_model(f"Rest of {kind.__name__}", __base__=Options, **fields)


@dataclass(frozen=True)
class Command:
    """What can be said, and the function that takes it as keywords."""

    kind: type[Config]
    function: Callable[..., Any]
    first: str | None = None
    """An option whose name can be left out."""

    @property
    def about(self) -> str:
        """What it does, for the list of commands."""
        return " ".join((self.kind.__doc__ or "").split()).split(". ")[0].rstrip(".")


Commands = Mapping[tuple[str, ...], Command]
"""By the words that name a command."""


def run_command(commands: Commands, words: list[str]) -> None:
    """Run the command that `words` name. Raises: what `find`, `parse` and the command raise."""
    names, command = find(commands, words)
    command.function(**handed_over(parse(names, command, words[len(names) :])))


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


def find(commands: Commands, words: list[str]) -> tuple[tuple[str, ...], Command]:
    """The command that `words` begin with. Raises: ConfigError; SystemExit after --help or --version."""
    for names, command in commands.items():
        if tuple(words[: len(names)]) == names:
            return names, command
    group = {names: command for names, command in commands.items() if words and names[0] == words[0]}
    asked = words[1:] if group else words
    if words[:1] in (["--version"], ["-V"]):
        print(f"{PROGRAM} {__version__}")
        raise SystemExit(0)
    if not asked or asked[0] in ("-h", "--help", "help"):
        print(overview(group or commands, words[0] if group else ""))
        raise SystemExit(0)
    raise ConfigError(unknown_command(words, list(group or commands), 2 if group else 1))


def unknown_command(words: list[str], known: list[tuple[str, ...]], said: int) -> str:
    """The line for a command that there is not, which the first `said` words name, with the nearest one, else with all."""
    names = [" ".join(name) for name in known]
    near = partial(difflib.get_close_matches, n=1)
    close = near(words[0], [name[0] for name in known if len(name) == 1]) or near(" ".join(words[:2]), names)
    close = close or near(words[0], [name[0] for name in known])
    hint = f"perhaps you meant '{close[0]}'" if close else f"there are {', '.join(names)}"
    return f"no command '{' '.join(words[:said])}'; {hint} ({PROGRAM} --help lists them)"


def parse(names: tuple[str, ...], command: Command, words: list[str]) -> Any:
    """The arguments of a command, over the defaults of its YAML file if one is given first.

    Raises: ConfigError; SystemExit after --help.
    """
    program = " ".join([PROGRAM, *names])
    kind, default = command.kind, command.kind()
    if RUN in kind.model_fields and is_config(words):
        run = load_yaml(type(getattr(default, RUN)), words[0])
        default, words = default.model_copy(update={RUN: run}), words[1:]
    return read(kind, words, program, default, command.first, yaml_notes(program) if RUN in kind.model_fields else ())


def is_config(words: list[str]) -> bool:
    """Whether the first word is a YAML file or the name of a shipped configuration: a command with a run takes no other."""
    return bool(words) and not words[0].startswith("-")


def read(
    kind: type[C],
    words: list[str],
    program: str,
    default: C | None = None,
    first: str | None = None,
    notes: tuple[str, ...] = (),
) -> C:
    """A `Config` from words alone, over `default`.

    Args: first: the option whose name can be left out. `notes`: what the help says at its end.
    Raises: ConfigError; SystemExit after --help.
    """
    default = kind() if default is None else default
    options = list(options_of(kind, default))
    if {"-h", "--help"} & {*words[: words.index("--") if "--" in words else None]}:
        print(command_help(program, kind, options, "FILE.yaml" if notes else (first or "").lstrip("-").upper(), notes))
        raise SystemExit(0)
    values = merged(default, read_words(options, words, program, first))
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise ConfigError(explain(kind, error, spelling(options))) from None


def yaml_notes(program: str) -> tuple[str, ...]:
    return (
        f"A YAML file may come first, whose values are then the defaults: {program} FILE.yaml [options]. `None` takes back what it "
        f"sets. These ship with Video Gen and are found by name: {', '.join(config_names())}.",
    )


def overview(commands: Commands, group: str = "") -> str:
    """The list of commands, a line each; of one group, such as `train`."""
    entries = [(" ".join(names), command.about) for names, command in commands.items()]
    notes = (
        f"{PROGRAM} COMMAND --help tells the options of a command; {PROGRAM} --version the version.",
        f"The `train` commands, `plan` and `data encode` take a YAML file first: {PROGRAM} train vae demo-vae",
    )
    return commands_help(f"{PROGRAM} {group}".rstrip(), ABOUT, entries, notes if not group else notes[:1])
