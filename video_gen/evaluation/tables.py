"""Figures as tables in the terminal, in the words of the pages and with the names that they have in JSON."""

import json
from pathlib import Path
from typing import Any

from rich.table import Column, Table

from video_gen.evaluation.control_report import NAMES
from video_gen.evaluation.footage_report import PARTS, distance_rows, figure_rows
from video_gen.evaluation.steering_report import KINDS, say
from video_gen.evaluation.steps import columns
from video_gen.evaluation.words import SETS, words_of
from video_gen.files import write_text
from video_gen.progress import plain_console

SETTINGS_SHOWN = 4
"""Settings side by side."""


def show(found: dict[str, Any], output: Path | None) -> None:
    """Print figures as a table, and write all of it as JSON if asked to. Raises: DataError if it cannot be written."""
    table = Table(
        Column("figure", no_wrap=True), Column("value", overflow="fold"), Column("name in JSON", no_wrap=True)
    )
    aims = "figures" in found  # those are for the built-in world; of other clips nobody knows what can be had
    for name, value in found.get("figures", found).items():
        words = words_of(name)
        aim = f" (aim: {words.say_aim()})" if aims and words.aim is not None else ""
        table.add_row(words.name, words.say(value) + aim, name)
    plain_console().print(table)
    if output is not None:
        write_text(output, json.dumps(found, indent=1))


def show_drift(found: dict[str, Any]) -> None:
    """Print a table per figure, by index, of each model and the floors."""
    for figure in found["curves"]["true"]:
        words = words_of(figure)
        table = Table(f"{words.name} ({figure})", *map(str, found["indices"]))
        for name, values in found["curves"].items():
            table.add_row(SETS.get(name, name), *map(words.say, values[figure]))
        plain_console().print(table)


def show_steering(found: dict[str, Any]) -> None:
    """Print who follows after how many seconds, and who keeps all, of each model and the floors."""
    words = words_of("followed")
    for name, kinds in found["followed"].items():
        table = Table(Column(no_wrap=True), *(f"{t} s" for t in kinds["all"]), title=SETS.get(name, name))
        for kind, row in kinds.items():
            if name not in SETS or kind == "all":
                table.add_row(KINDS[kind], *(say(words, e) for e in row.values()))
        plain_console().print(table)
    first = next(iter(found["staying"].values()))["there"]
    table = Table(Column(no_wrap=True), *(f"{t} s" for t in first), title="without a switch")
    for name, figures in found["staying"].items():
        for key, row in figures.items():
            words = words_of(key)
            table.add_row(f"{SETS.get(name, name)}: {words.name}", *(say(words, e) for e in row.values()))
    plain_console().print(table)


def show_endings(found: dict[str, Any]) -> None:
    """Print the figures of each set of videos."""
    figures = found["figures"]
    table = Table(Column(no_wrap=True), *(Column(SETS.get(name, name), overflow="fold") for name in figures))
    for key in next(iter(figures.values())):
        table.add_row(words_of(key).name, *(say(words_of(key), figures[name][key]) for name in figures))
    plain_console().print(table)


def show_control(found: dict[str, Any]) -> None:
    """Print the figures, those by frame, and what a turn leads to."""
    show({"figures": found["figures"]}, None)
    for what, sets in found["at"].items():
        words = words_of(f"control_{what}")
        table = Table(Column(no_wrap=True), *next(iter(sets.values())), title=f"{words.name}, frames after the first")
        for name, row in sets.items():
            table.add_row(NAMES[name], *map(words.say, row.values()))
        plain_console().print(table)
    for turns, row in found["circles"].items():
        print(f"{turns} full turns: " + ", ".join(f"{name} {value:.3g}" for name, value in row.items()))


def show_footage(found: dict[str, Any]) -> None:
    """Print the figures of each part, and the distances."""
    for part, values in found["parts"].items():
        head, rows = figure_rows(values["figures"])
        table = Table("", "of", Column("", no_wrap=True), title=PARTS[part])
        for words, cells in rows:
            for place, (name, cell) in enumerate((name, cell) for name, cell in zip(head, cells) if cell):
                table.add_row("" if place else words.name, name, cell)
        plain_console().print(table)
    head, lines = distance_rows(found["distances"])
    table = Table(*(Column(name, overflow="fold") for name in head), title="Distances")
    for line in lines:
        table.add_row(*line)
    plain_console().print(table)
    for note in found["notes"]:
        print(note)


def show_steps(rows: list[dict[str, Any]]) -> None:
    """Print the table: a row per measure, a column per setting, in pieces of few columns."""
    for start in range(0, len(rows), SETTINGS_SHOWN):
        chosen = rows[start : start + SETTINGS_SHOWN]
        heads = (Column(f"{row['model']}\n{row['solver']}", overflow="fold") for row in chosen)
        table = Table(Column(no_wrap=True), *heads)
        for name in columns(rows)[2:]:
            values = (words_of(row[name]).name if name == "worst" else words_of(name).say(row[name]) for row in chosen)
            table.add_row(words_of(name).name, *values)
        plain_console().print(table)
