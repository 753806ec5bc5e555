"""A table of figures, as Markdown for people and JSON for programs."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

Row = dict[str, Any]


@dataclass
class Table:
    """Rows of one measurement, each a value per column; a missing value shows as an empty cell."""

    name: str
    title: str
    columns: tuple[str, ...]
    equal: str
    """What was held equal between the rows, and what was not."""
    rows: list[Row] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    """Sentences that the figures give, made from them."""

    def markdown(self) -> str:
        lines = [f"## {self.title}", "", self.equal, "", _line(self.columns), _line(["---"] * len(self.columns))]
        lines += [_line([_cell(row.get(column)) for column in self.columns]) for row in self.rows]
        if self.findings:
            lines += ["", *(f"- {finding}" for finding in self.findings)]
        return "\n".join([*lines, ""])


def _line(cells) -> str:
    return "| " + " | ".join(cells) + " |"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return str(value).replace("|", "/")


def write(folder: Path, tables: list[Table], machine: dict[str, str], peak: float | None, command: str) -> list[Path]:
    """One `.md` and one `.json` per table. Returns: the Markdown files."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for table in tables:
        about = machine | ({} if peak is None else {"matrix peak": f"{peak / 1e9:,.0f} GFLOP/s in bfloat16"})
        head = "\n".join([f"# {table.name}", "", f"`{command}`", "", *(f"- {k}: {v}" for k, v in about.items()), ""])
        path = folder / f"{table.name}.md"
        path.write_text(head + "\n" + table.markdown())
        values = {"machine": machine, "matrix_peak_flops": peak, "command": command, **asdict(table)}
        path.with_suffix(".json").write_text(json.dumps(values, indent=1) + "\n")
        paths.append(path)
    return paths
