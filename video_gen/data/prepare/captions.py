"""Captions of the pieces that are kept: those that a captioner says where a file has none, and all of them as other programs
read them."""

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from video_gen.data.manifest import Row, place_of
from video_gen.data.packed import Packed
from video_gen.data.prepare.workers import Progress
from video_gen.files import explained, plain, read_lines, write_text

Caption = Callable[[Path | Packed], str]
"""Says what a clip shows."""


def captioned(rows: list[Row], output: Path, caption: Caption, tell: Progress) -> list[Row]:
    """Those that are kept and of which nothing is said, with what the captioner says; kept in a file as it goes."""
    store = output / "captions.jsonl"
    by = str(getattr(caption, "known_as", getattr(caption, "__qualname__", type(caption).__qualname__)))
    said = _said_before(store, by)
    wanted = [row for row in rows if not row.refused and not row.caption]
    tell("captioning", 0, len(wanted))
    with explained(store), store.open("a", encoding="utf-8") as file:
        for done, row in enumerate(wanted, 1):
            if row.digest not in said:
                said[row.digest] = caption(place_of(row, output))
                file.write(
                    "\n" + json.dumps([row.digest, said[row.digest], by])
                )  # whatever a killed process left there
                file.flush()
            tell("captioning", done, len(wanted))
    return [row if row.refused or row.caption else replace(row, caption=said[row.digest]) for row in rows]


def _said_before(store: Path, by: str) -> dict[str, str]:
    """Captions that one captioner gave, by the clips' content; a line that was not finished is left out."""
    found: dict[str, str] = {}
    for line in read_lines(store) if store.exists() else []:
        with suppress(ValueError, TypeError):
            digest, text, who = json.loads(line)
            if who == by:
                found[digest] = text
    return found


def write_captions(output: Path, rows: Sequence[Row]) -> None:
    """As other programs read them, too."""
    lines = []
    for row in rows:
        if not row.refused:
            said: dict[str, Any] = {"file_name": row.file_name, "text": row.caption, "source": plain(row.source)}
            if row.changes:
                said["changes"] = [{"time": time, "text": text} for time, text in json.loads(row.changes)]
            if row.led:
                said["led"] = True
            lines.append(json.dumps(said, ensure_ascii=False) + "\n")
    write_text(output / "metadata.jsonl", "".join(lines))
