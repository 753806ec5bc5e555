"""Captions in metadata files, as people and programs write them: what fits is read, what does not is a fault with its line.

`metadata.jsonl` (an object a line) or `metadata.csv` stands in the folder or in any of its folders, and names files relative to
where it lies, as the Hub's VideoFolder does. `file_name` is needed; `text` is the caption; `changes`, in JSON lines, says when
another one takes its place: `[{"time": 2.5, "text": "a blue square"}]`; `led` says that the last frame is to be shown in training
(`modes.endings`). Other columns are left alone.
"""

import csv
import difflib
import json
import math
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from video_gen.errors import DataError
from video_gen.files import check_text, read_lines, read_text, write_text
from video_gen.plain_json import parse

METADATA = ("metadata.jsonl", "metadata.csv")
CAPTIONS = METADATA[0]
"""Where programs write them."""
Changes = tuple[tuple[float, str], ...]
"""(seconds from a file's start, caption that holds from there on), in order."""


@dataclass
class Captions:
    """What the metadata of a folder say."""

    texts: dict[str, str] = field(default_factory=dict)
    """File -> caption."""
    changes: dict[str, Changes] = field(default_factory=dict)
    """File -> later captions, of those that have some."""
    led: set[str] = field(default_factory=set)
    """Files whose last frame is always shown in training."""
    faults: list[str] = field(default_factory=list)
    """What does not fit, a line each, which names the file, the line and the remedy."""
    _where: dict[str, str] = field(default_factory=dict)


def read_captions(folder: Path, metadata: list[Path], names: list[str], others: list[str]) -> Captions:
    """The captions of all metadata files.

    Args:
        names: of the clips, relative to `folder`, with forward slashes.
        others: of the files there that are not read.
    """
    found = Captions()
    by_key = {key_of(name): name for name in names}
    unread = {key_of(name): name for name in others}
    for path in metadata:
        here = path.parent.relative_to(folder).as_posix()
        here = "" if here == "." else f"{here}/"
        for where, row in _rows(path, found.faults):
            _take(row, where, here, by_key, unread, found)
    return found


def _take(
    row: Mapping[str, Any],
    where: str,
    here: str,
    by_key: Mapping[str, str],
    unread: Mapping[str, str],
    found: Captions,
) -> None:
    said, text = row.get("file_name"), row.get("text")
    if not isinstance(said, str) or not said.strip():
        found.faults.append(
            f"{where}: has no file_name, but {', '.join(map(str, row)) or 'nothing'}; name the file it is for"
        )
        return
    if text is not None and not isinstance(text, str):
        found.faults.append(f"{where}: text is {text!r}; a caption is words in quotes")
        return
    name = by_key.get(key_of(here + said))
    if name is None:
        found.faults.append(f"{where}: names '{said}', {_missing(here, said, by_key, unread)}")
        return
    if name in found._where:
        found.faults.append(f"{where}: '{said}' stands in {found._where[name]} already; delete one of the two")
        return
    try:
        changes = _changes(row.get("changes"))
        for caption in (text or "", *(later for _, later in changes)):
            check_text(caption, "the caption")
    except (ValueError, DataError) as error:
        found.faults.append(f"{where}: {error}")
        return
    led = {"": False, "true": True, "false": False}.get(row.get("led") or "", row.get("led"))
    if not isinstance(led, bool):
        found.faults.append(f"{where}: led is {row['led']!r}; it is true or false")
        return
    found._where[name] = where
    if led:
        found.led.add(name)
    if text is not None and text.strip():
        found.texts[name] = text
    if changes:
        found.changes[name] = changes


def _changes(said: Any) -> Changes:
    """Raises: ValueError, which says what a row has in place of changes."""
    found: list[tuple[float, str]] = []
    if said in (None, ""):
        return ()
    for change in said if isinstance(said, list) else [said]:
        time, text = (change.get("time"), change.get("text")) if isinstance(change, dict) else (None, None)
        number = isinstance(time, int | float) and not isinstance(time, bool) and math.isfinite(time) and time > 0
        if not number or not isinstance(text, str):
            raise ValueError(
                f'changes holds {change!r}; each change is such as {{"time": 2.5, "text": "a blue square"}}, its time in '
                "seconds from the file's start, above 0"
            )
        assert time is not None
        if found and time <= found[-1][0]:
            raise ValueError(f"changes has time {time:g} after {found[-1][0]:g}; sort them by time")
        found.append((float(time), text))
    return tuple(found)


def _missing(here: str, said: str, by_key: Mapping[str, str], unread: Mapping[str, str]) -> str:
    key = key_of(here + said)
    if key in unread:
        suffix = Path(unread[key]).suffix or "its kind"
        return f"a file of a kind that is not read ({suffix}); encode it as mp4 or png, or delete the line"
    folded = {other.casefold(): name for other, name in by_key.items()}
    if key.casefold() in folded:
        return f"the folder has '{folded[key.casefold()]}': capitals differ; write it as the file is called"
    near = difflib.get_close_matches(key, by_key, n=1, cutoff=0.85)
    hint = f"; perhaps '{by_key[near[0]]}' is meant" if near else ""
    return f"which is not in the folder{hint}; add the file or delete the line"


def key_of(name: str) -> str:
    """The same for all ways in which a name is written: backslashes, ./ in front, blanks around it, composed letters or not."""
    parts = [part for part in name.strip().replace("\\", "/").split("/") if part not in ("", ".")]
    return unicodedata.normalize("NFC", "/".join(parts))


def add_rows(folder: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Add rows to the folder's metadata.jsonl, but for files of which its metadata say something: what stands there stays as it is.

    Args: rows: as they are written, each with `file_name`.
    Raises: DataError if the file cannot be read or written.
    """
    path, known = folder / CAPTIONS, named_in(folder)
    new = [json.dumps(row) + "\n" for row in rows if key_of(row["file_name"]) not in known]
    text = read_text(path) if path.is_file() else ""
    gap = "\n" if text and not text.endswith("\n") else ""
    if new:
        write_text(path, f"{text}{gap}{''.join(new)}")


def named_in(folder: Path) -> set[str]:
    """The files of which the folder's own metadata have a row, each as `key_of` has it."""
    there = [folder / name for name in METADATA if (folder / name).is_file()]
    return {key_of(str(row.get("file_name"))) for path in there for _, row in _rows(path, [])}


# -------------------- rows


def _rows(path: Path, faults: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each row with where it stands; what is no row becomes a fault."""
    try:
        lines = read_lines(path)
    except DataError as error:
        faults.append(str(error))
        return
    yield from (_json_rows if path.suffix == ".jsonl" else _csv_rows)(path, lines, faults)


def _json_rows(path: Path, lines: list[str], faults: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    if lines and lines[0].lstrip().startswith("["):
        faults.append(f"{path}: is one JSON list; write an object a line, without brackets and commas around them")
        return
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = parse(line)
        except ValueError as error:
            faults.append(f"{where}: not JSON ({error}); correct or delete it")
            continue
        if not isinstance(row, dict):
            faults.append(
                f"{where}: expected an object with file_name, found {type(row).__name__}; correct or delete it"
            )
            continue
        yield where, row


def _csv_rows(path: Path, lines: list[str], faults: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    header: list[str] | None = None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            cells = next(csv.reader([line], strict=True, skipinitialspace=True))
        except csv.Error as error:
            why = "a quote is opened and not closed on the line" if "unexpected end" in str(error) else str(error)
            faults.append(f"{where}: {why}; correct the line, or use metadata.jsonl")
            continue
        if header is None:
            header = [cell.strip() for cell in cells]
            if "file_name" not in header:
                faults.append(
                    f"{where}: wants the column file_name, has '{line.strip()[:80]}'; separate columns by commas"
                )
                return
        elif len(cells) > len(header):
            faults.append(
                f"{where}: has {len(cells)} cells for {len(header)} columns; put text with a comma into quotes"
            )
        else:
            yield where, dict(zip(header, cells))


def said_between(caption: str, changes: Changes, start: float, end: float) -> tuple[str, Changes]:
    """The caption at `start`, and those that take its place before `end`, with seconds since `start`."""
    for time, text in changes:
        caption = text if time <= start + 1e-6 else caption
    return caption, tuple((time - start, text) for time, text in changes if start + 1e-6 < time < end)
