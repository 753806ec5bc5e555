"""The fields of a `Config` as options of a command line, and the words of one as values for these fields. No torch.

`--data.fps 8` sets the field `fps` of the part `data`. Values stay words here: what they mean, and whether they fit, is for the
`Config` to say, so that a mistake reads the same in YAML and on the command line.
"""

import difflib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from video_gen.config import Config, Loc, Said
from video_gen.errors import ConfigError


@dataclass(frozen=True)
class Option:
    path: tuple[str, ...]
    """Of the field, from the command's class on."""
    name: str
    """`--data.fps`; of a positional one `PROMPT`."""
    said: Said
    field: FieldInfo
    kind: Any
    """Its type; of one that may be None, the rest."""
    optional: bool
    owner: type[Config]
    """The class whose field it is."""
    default: Any

    @property
    def flag(self) -> bool:
        return self.kind is bool

    @property
    def off(self) -> str:
        """The name that sets a flag to false."""
        return re.sub(r"^--(.*\.)?", lambda m: f"{m[0]}no-", self.name)

    @property
    def words(self) -> int | None:
        """How many words it takes; None = any number."""
        if get_origin(self.kind) is not tuple or self.said.repeated:
            return 1
        return None if is_list(self.kind) else len(get_args(self.kind))

    def value(self, words: Sequence[str]) -> Any:
        """The words as plain values for pydantic. Raises: ConfigError if a group of them is not whole."""
        if self.optional and list(words) == ["None"]:
            return None
        if self.said.repeated:
            return [*words]
        if self.words == 1:
            return literal(self.kind, words[0])
        kinds = get_args(self.kind)
        if is_list(self.kind):
            if size := len(get_args(kinds[0])) if get_origin(kinds[0]) is tuple else 0:
                return self._groups(words, size)
            kinds = kinds[:1] * len(words)
        return [literal(kind, word) for kind, word in zip(kinds, words)]

    def _groups(self, words: Sequence[str], size: int) -> list[list[str]]:
        if len(words) % size:
            raise ConfigError(f"{self.name} {' '.join(words)}: {len(words)} values, but it takes groups of {size}")
        return [list(words[start : start + size]) for start in range(0, len(words), size)]


def is_list(kind: Any) -> bool:
    return get_args(kind)[1:] == (...,)


def literal(kind: Any, word: str) -> Any:
    """The one of a `Literal`'s values that is written so; other words as they are."""
    return next((x for x in get_args(kind) if str(x) == word), word) if get_origin(kind) is Literal else word


def options_of(kind: type[Config], default: Config | None = None) -> Iterator[Option]:
    """All options of a command, in order."""
    return _options(kind, kind() if default is None else default, (), "")


def _options(kind: type[Config], default: Config, path: tuple[str, ...], prefix: str) -> Iterator[Option]:
    for key, field in kind.model_fields.items():
        said = next((x for x in field.metadata if isinstance(x, Said)), Said())
        if said.hidden:
            continue
        value, own = getattr(default, key), key.replace("_", "-") if said.name is None else said.name
        if isinstance(value, Config):
            yield from _options(type(value), value, (*path, key), f"{prefix}{own}." if own else prefix)
            continue
        rest, optional = without_none(field.annotation)
        name = own.upper() if said.positional else f"--{prefix}{own}"
        yield Option((*path, key), name, said, field, rest, optional, kind, value)


def without_none(kind: Any) -> tuple[Any, bool]:
    """A type without `Annotated` and None, and whether None was one of its members."""
    if get_origin(kind) is Annotated:
        return without_none(get_args(kind)[0])
    if get_origin(kind) not in (Union, UnionType):
        return kind, False
    rest = [x for x in get_args(kind) if x is not NoneType]
    return (without_none(rest[0])[0] if len(rest) == 1 else Union[tuple(rest)]), len(rest) < len(get_args(kind))  # noqa: UP007


def read_words(
    options: Sequence[Option], words: Sequence[str], program: str, first: str | None = None
) -> dict[str, Any]:
    """The values that a command line names, by the paths of their fields.

    Args: first: the option whose name can be left out.
    Raises: ConfigError.
    """
    named = {name: option for option in options if not option.said.positional for name in names_of(option)}
    open_ones = [option for option in options if option.said.positional or option.name == first]
    found: dict[str, Any] = {}
    rest, end = list(words), False
    while rest:
        word = rest.pop(0)
        if word == "--" and not end:
            end = True
            continue
        if word.startswith("-") and not end and word != "-":
            name, equals, value = word.partition("=")
            name = name.replace("_", "-") if name.startswith("--") else name
            if name in named:
                option = named[name]
                taken = _take(option, name, [value] if equals else None, rest, named)
                put(
                    found, option.path, [*told(found, option.path), *taken] if option.said.repeated and taken else taken
                )
                continue
            if not (open_ones and " " in word):  # a text, and no option that was mistyped
                raise ConfigError(unknown_option(word, named, program, bool(open_ones)))
        if not open_ones:
            raise ConfigError(too_many(word, any(o.said.positional for o in options), program))
        option = open_ones.pop(0)
        put(found, option.path, word)
    return found


def names_of(option: Option) -> list[str]:
    return [option.name, *([option.said.short] if option.said.short else []), *([option.off] if option.flag else [])]


def _take(option: Option, name: str, given: list[str] | None, rest: list[str], named: Mapping[str, Option]) -> Any:
    """The value of an option, whose words are taken from the `rest`."""
    if option.flag:
        return given[0] if given else name == option.name
    taken: list[str] = given or []
    while given is None and rest and len(taken) != option.words and not _is_option(rest[0], named, option):
        taken.append(rest.pop(0))
    if option.words is not None and len(taken) != option.words:
        raise ConfigError(
            f"{name} needs {'a value' if option.words == 1 else f'{option.words} values'}: {metavar(option)}"
        )
    return option.value(taken)


def _is_option(word: str, named: Mapping[str, Option], option: Option) -> bool:
    """Whether a word is the next option. A dash is none where one value is owed, nor a number's sign anywhere."""
    if word.partition("=")[0].replace("_", "-") in named or word == "--":
        return True
    return option.words is None and word.startswith("-") and not re.fullmatch(r"-|-[\d.].*|-inf|-nan", word)


def put(values: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    for part in path[:-1]:
        values = values.setdefault(part, {})
    values[path[-1]] = value


def told(values: Mapping[str, Any], path: tuple[str, ...]) -> Sequence[Any]:
    """What a list was told so far."""
    for part in path:
        values = values.get(part) or {}
    return [*values]


def too_many(word: str, takes_text: bool, program: str) -> str:
    """The line for a word that belongs to nothing."""
    hint = "; a YAML file comes first" if word.endswith((".yaml", ".yml")) else ""
    hint = "; put a text of several words in quotes" if takes_text else hint
    return f"'{word}' is one word too many{hint}; {program} --help tells what there is"


def unknown_option(word: str, named: Mapping[str, Option], program: str, takes_text: bool) -> str:
    """The line for an option that there is not, with the nearest one."""
    name = word.partition("=")[0].replace("_", "-")
    last = [known for known in named if known.endswith(f".{name.lstrip('-')}")]
    close = last or difflib.get_close_matches(name, named, n=1, cutoff=0.5)
    close = close or difflib.get_close_matches(name.lstrip("-"), [n.lstrip("-") for n in named], n=1)
    hint = f"perhaps you meant {' or '.join(close[:3])}" if close else f"{program} --help lists those there are"
    text = f"; a text that begins with a dash goes last, after --: {program} ... -- '{word}'" if takes_text else ""
    return f"{program} has no option {name}; {hint}{text}"


def spelling(options: Sequence[Option]) -> Callable[[Loc], str]:
    """From where pydantic found a mistake to the option's name, for `config.explain`; "" where a rule names its fields."""
    names = {option.path: option.name for option in options}

    def spell(loc: Loc) -> str:
        parts = tuple(part for part in loc if isinstance(part, str))
        return next((names[parts[:n]] for n in range(len(parts), 0, -1) if parts[:n] in names), "")

    return spell


WORDS = {int: "INT", float: "NUMBER", Path: "PATH", str: "TEXT"}


def metavar(option: Option) -> str:
    """What stands for the value in the help."""
    if option.flag:
        return ""
    if get_origin(option.kind) is tuple:
        args = get_args(option.kind)
        item = args[:1] if is_list(option.kind) else args
        if get_origin(item[0]) is tuple:
            item = get_args(item[0])
        if option.said.repeated:
            return _word(item[0])
        return " ".join(_word(x) for x in item) + (" ..." if is_list(option.kind) else "")
    return _word(option.kind)


def _word(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return "|".join(str(x) for x in get_args(kind))
    if get_origin(kind) in (Union, UnionType):
        return "|".join(_word(without_none(x)[0]) for x in get_args(kind))
    return WORDS.get(kind, "VALUE")
