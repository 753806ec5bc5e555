"""What came of a pile, to read and to look at: a table of reasons, and pictures of what was kept and what was not."""

from collections import defaultdict
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from video_gen.data.manifest import MANIFEST, Row
from video_gen.data.prepare.facts import THUMB, Facts, load
from video_gen.data.prepare.preparing import Prepared, facts_file
from video_gen.files import written
from video_gen.progress import duration, plain_console

SHEET, COLUMNS, LINE = "pieces.png", 10, 16
KEPT = "kept"


def show(made: Prepared) -> None:
    """Print the table, and write the pictures beside the manifest."""
    from rich.table import Table

    console = plain_console()
    table = Table("pieces", "count", "length", "share", title=str(made.output))
    groups = by_reason(made.rows)
    total = sum(row.end - row.start for row in made.rows) or 1.0
    for reason, rows in groups.items():
        seconds = sum(row.end - row.start for row in rows)
        table.add_row(reason, f"{len(rows):,}", duration(seconds), f"{seconds / total:.1%}")
    console.print(table)
    known = made.files - made.read
    console.print(
        f"{made.files:,} files of {duration(made.seconds)}" + (f", {known:,} of them looked at before" if known else "")
    )
    without = sum(not row.caption for row in made.kept)
    if without:
        console.print(f"without caption: {without:,} of {len(made.kept):,}")
    for row in [*groups.get("unreadable", [])[:10], *groups.get("bad actions", [])[:10]]:
        console.print(f"{row.source}: {row.refused}", highlight=False, soft_wrap=True)
    for note in made.notes:
        console.print(note, highlight=False, soft_wrap=True)
    if made.unused:
        console.print(
            f"{made.unused:,} clips in the folder were kept by an earlier decision, and are not read by training"
        )
    if any(groups.values()):
        write_sheet(made.output, groups)
        print(made.output / SHEET)
    print(made.output / MANIFEST)


def by_reason(rows: list[Row]) -> dict[str, list[Row]]:
    """Rows by the first words of why they are refused, what is kept first, then the most common."""
    found: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        found[row.refused.partition(":")[0] or KEPT].append(row)
    return dict(sorted(found.items(), key=lambda item: (item[0] != KEPT, -len(item[1]))))


def write_sheet(output: Path, groups: dict[str, list[Row]]) -> None:
    """Pictures of evenly spread pieces, a row for each reason."""
    width, height = THUMB
    lines = []
    for reason, rows in groups.items():
        chosen = [
            rows[i] for i in np.unique(np.linspace(0, len(rows) - 1, min(COLUMNS, len(rows))).round().astype(int))
        ]
        pictures = [
            p for row in chosen if (p := picture_of(output, row.source, row.start_frame, row.end_frame)) is not None
        ]
        if pictures:
            lines.append((f"{reason} ({len(rows):,})", pictures))
    if not lines:
        return
    sheet = Image.new("RGB", (COLUMNS * (width + 2), len(lines) * (height + LINE)), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (title, pictures) in enumerate(lines):
        y = number * (height + LINE)
        draw.text((2, y + 2), title, fill="black")
        for column, picture in enumerate(pictures):
            sheet.paste(Image.fromarray(picture), (column * (width + 2), y + LINE))
    with written(output / SHEET) as temporary:
        sheet.save(temporary, "PNG")


def picture_of(output: Path, source: str, start_frame: int, end_frame: int) -> np.ndarray | None:
    """(72, 128) at most, of the middle of a piece."""
    facts: Facts | None = load(facts_file(output, source))
    if facts is None or not len(facts.samples.get("frame", ())):
        return None
    middle = (start_frame + end_frame) / 2
    return facts.samples["grey"][int(np.abs(facts.samples["frame"] - middle).argmin())]
