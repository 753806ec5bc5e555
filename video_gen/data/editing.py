"""Mending a folder by hand: captions, in the way the folder has them, and what is in quarantine. Whole or not at all; no torch.

Each function tells what was there before, so that calling it again with that takes it back.
"""

import codecs
import csv
import io
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from video_gen.data.folder import BY_HAND, is_prepared, quarantined, write_quarantine
from video_gen.data.manifest import MANIFEST, read_manifest, write_manifest
from video_gen.data.metadata import METADATA, key_of
from video_gen.errors import DataError
from video_gen.files import read_text, write_text
from video_gen.plain_json import parse


def set_caption(folder: Path, name: str, text: str) -> str:
    """Give a file another caption, in the place where its caption stands.

    That is its row in metadata.jsonl or metadata.csv, or the .txt beside it. One without gets a row in the nearest metadata
    file above it; where there is none, a .txt. Of prepared footage the manifest is changed, too.
    Args: name: of the file, relative to `folder`; `text`: one line, "" = none.
    Returns: what it was. Raises: DataError if it cannot be written, or stands where nobody could tell which one counts.
    """
    text = " ".join(text.split())
    if is_prepared(folder):
        before = _in_manifest(folder, name, text)
        if (found := _row_of(folder, name)) is not None:
            _write_row(*found, text)
        return before
    beside = folder.joinpath(*name.split("/")).with_suffix(".txt")
    in_text = " ".join(read_text(beside).split()) if beside.is_file() else ""
    found = _row_of(folder, name)
    in_row = "" if found is None else _text_of(*found)
    if in_row and in_text and not text:
        raise DataError(
            f"{beside}: holds a caption, too, and {found[0] if found else ''} another; delete one of the two by hand"
        )
    if found is not None and (in_row or not in_text):
        _write_row(*found, text)
    elif in_text or found is not None or (above := _metadata_above(folder, name)) is None:
        write_text(beside.resolve(), f"{text}\n" if text else "")
    else:
        _append_row(above, _within(above, folder, name), text)
    return in_row or in_text


def set_quarantine(folder: Path, reasons: Mapping[str, str | None]) -> dict[str, str | None]:
    """Put files into quarantine, or out of it: name -> reason, None = out.

    `video-gen data check` leaves those there whose reason begins with `BY_HAND`.
    Returns: how each was before. Raises: DataError if the file is damaged, or cannot be written.
    """
    rows = quarantined(folder)
    before = {name: rows.get(name) for name in reasons}
    for name, reason in reasons.items():
        if reason is None:
            rows.pop(name, None)
        else:
            rows[name] = " ".join(reason.split()) or BY_HAND
    write_quarantine(folder, rows)
    return before


# -------------------- rows of metadata files


def _row_of(folder: Path, name: str) -> tuple[Path, list[str], int] | None:
    """The metadata file that has a row for `name`, its lines as they are, and the row's number."""
    for path in _all_metadata(folder, name):
        key, lines = key_of(_within(path, folder, name)), read_text(path).split("\n")
        header = _header(lines) if path.suffix == ".csv" else None
        for number, line in enumerate(lines):
            row = _cells(line, header) if header else _object(line)
            said = row.get("file_name") if row else None
            if isinstance(said, str) and key_of(said) == key:
                return path, lines, number
    return None


def _all_metadata(folder: Path, name: str) -> list[Path]:
    """Those that can speak of it: in its own folder and in all above, nearest first."""
    parts = name.split("/")[:-1]
    places = [folder.joinpath(*parts[:count]) for count in range(len(parts), -1, -1)]
    return [place / called for place in places for called in METADATA if (place / called).is_file()]


def _metadata_above(folder: Path, name: str) -> Path | None:
    return next(iter(_all_metadata(folder, name)), None)


def _within(path: Path, folder: Path, name: str) -> str:
    """`name` as the metadata file at `path` says it."""
    here = path.parent.relative_to(folder).parts
    return "/".join(name.split("/")[len(here) :])


def _text_of(path: Path, lines: list[str], number: int) -> str:
    row = _cells(lines[number], _header(lines)) if path.suffix == ".csv" else _object(lines[number])
    text = (row or {}).get("text")
    return text.strip() if isinstance(text, str) else ""


def _write_row(path: Path, lines: list[str], number: int, text: str) -> None:
    lines = list(lines)
    if path.suffix == ".csv":
        header = _header(lines)
        if "text" not in header:
            first = next(i for i, line in enumerate(lines) if line.strip())
            lines[first] = _csv_line([*header, "text"], lines[first])
            header = [*header, "text"]
        row = _cells(lines[number], header) or {}
        cells = [text if name == "text" else row.get(name, "") for name in header]
        lines[number] = _csv_line(cells, lines[number])
    else:
        row = _object(lines[number]) or {}
        lines[number] = json.dumps({**row, "text": text}, ensure_ascii=False) + _end(lines[number])
    _write(path, lines)


def _append_row(path: Path, said: str, text: str) -> None:
    lines = read_text(path).split("\n")
    end = "\r" if any(line.endswith("\r") for line in lines) else ""
    while lines and not lines[-1].strip():
        lines.pop()
    if path.suffix == ".csv":
        header = _header(lines)
        if "text" not in header:
            first = next(i for i, line in enumerate(lines) if line.strip())
            header = [*header, "text"]
            lines[first] = _csv_line(header, lines[first])
        lines.append(_csv_line([{"file_name": said, "text": text}.get(name, "") for name in header], end))
    else:
        lines.append(json.dumps({"file_name": said, "text": text}, ensure_ascii=False) + end)
    _write(path, [*lines, ""])


def _write(path: Path, lines: list[str]) -> None:
    """In the encoding that it has, and where it lies, if it is reached by a link."""
    path, content = path.resolve(), "\n".join(lines)
    with path.open("rb") as file:
        start = file.read(3)
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DataError(f"{path}: is UTF-16, which is read and not written; save it as UTF-8")
    write_text(path, f"\ufeff{content}" if start == codecs.BOM_UTF8 else content)


def _object(line: str) -> dict[str, Any] | None:
    try:
        row = parse(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


def _header(lines: list[str]) -> list[str]:
    first = next((line for line in lines if line.strip()), "")
    return [cell.strip() for cell in _split(first) or []]


def _cells(line: str, header: list[str]) -> dict[str, str] | None:
    cells = _split(line)
    return None if not cells or len(cells) > len(header) else dict(zip(header, cells))


def _split(line: str) -> list[str] | None:
    try:
        return next(csv.reader([line.removesuffix("\r")], strict=True, skipinitialspace=True), None)
    except csv.Error:
        return None


def _csv_line(cells: list[str], like: str) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="").writerow(cells)
    return out.getvalue() + _end(like)


def _end(line: str) -> str:
    return "\r" if line.endswith("\r") else ""


# -------------------- prepared footage


def _in_manifest(folder: Path, name: str, text: str) -> str:
    rows = read_manifest(folder / MANIFEST)
    at = next((i for i, row in enumerate(rows) if row.file_name == name and not row.refused), None)
    if at is None:
        raise DataError(f"{folder / MANIFEST}: keeps no clip '{name}'; look at the folder again")
    before = rows[at].caption
    rows[at] = replace(rows[at], caption=text)
    write_manifest(folder, rows)
    return before
