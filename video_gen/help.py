"""The help pages: what a command does, and each option with its text and default, made from the options themselves. No torch."""

import inspect
import shutil
import textwrap
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from video_gen.config import Config
from video_gen.options import Option, metavar

WIDEST = 110
INDENT = 26


def command_help(
    program: str, kind: type[Config], options: Sequence[Option], before: str = "", notes: Sequence[str] = ()
) -> str:
    """The page of one command; `before` the options comes what has no name."""
    positional = [option for option in options if option.said.positional]
    usage = " ".join([program, *([f"[{before}]"] if before else []), *(f"[{o.name}]" for o in positional), "[options]"])
    lines = [f"usage: {usage}", "", *_filled(inspect.cleandoc(kind.__doc__ or "")), ""]
    if positional:
        lines += [line for option in positional for line in _entry(option.name, option)] + [""]
    named = [option for option in options if not option.said.positional]
    order = {owner: number for number, owner in enumerate(dict.fromkeys(o.owner for o in named))}
    named.sort(key=lambda option: order[option.owner])  # a part's own fields stand together
    for owner, group in groupby(named, key=lambda option: option.owner):
        lines += [*_filled("Options:" if owner is kind else heading(owner)), *_entries(group), ""]
    for note in notes:
        lines += _filled(note)
    return "\n".join(lines)


def heading(owner: type[Config]) -> str:
    """The first sentence of a part's docstring, as a heading."""
    return inspect.cleandoc(owner.__doc__ or owner.__name__).split("\n\n")[0].split(". ")[0].rstrip(".") + ":"


def _entries(options: Any) -> Iterator[str]:
    for option in options:
        off = f", {option.off}" if option.flag else ""
        short = f"{option.said.short}, " if option.said.short else ""
        yield from _entry(f"{short}{option.name}{off} {metavar(option)}".rstrip(), option)


def _entry(left: str, option: Option) -> Iterator[str]:
    text = " ".join((option.field.description or "").split())
    right = _filled(f"{text}{shown_default(option)}", INDENT)
    if len(left) + 4 > INDENT:
        yield f"  {left}"
    else:
        yield f"  {left:{INDENT - 2}}{right.pop(0).strip()}"
    yield from right


def shown_default(option: Option) -> str:
    value = option.default
    if value is None or value in ("", ()):
        return ""
    if option.flag:
        return f" (default: {'on' if value else 'off'})"
    items = value if isinstance(value, tuple) else (value,)
    words = " ".join(f"{x:g}" if isinstance(x, float) else str(x) for item in items for x in _flat(item))
    return f" (default: {words})"


def _flat(item: Any) -> tuple[Any, ...]:
    return item if isinstance(item, tuple) else (item,)


def commands_help(program: str, about: str, entries: Sequence[tuple[str, str]], notes: Sequence[str] = ()) -> str:
    """The page of several commands, a line or two each."""
    lines = [*_filled(about), "", f"usage: {program} COMMAND [--help] ...", ""]
    for name, text in entries:
        right = _filled(" ".join(text.split()), 22)
        lines += [f"  {name:20}{right[0].strip()}", *right[1:]]
    return "\n".join([*lines, "", *(line for note in notes for line in _filled(note))])


def _filled(text: str, indent: int = 0) -> list[str]:
    width = min(WIDEST, shutil.get_terminal_size((100, 24)).columns)
    text = " ".join(text.split())
    filled = textwrap.wrap(text, max(width, indent + 30), initial_indent=" " * indent, subsequent_indent=" " * indent,
                           break_long_words=False, break_on_hyphens=False)  # fmt: skip
    return filled or [""]
