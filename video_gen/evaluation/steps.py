"""Quality against model calls: one set of captions, sampled with each solver at each number of steps."""

from collections.abc import Callable, Sequence
from math import copysign, inf, isnan
from pathlib import Path
from typing import Any

from video_gen.evaluation import report
from video_gen.evaluation.chart import chart
from video_gen.evaluation.physics import measure_video, summarise
from video_gen.evaluation.words import words_of
from video_gen.sampling.config import SamplingConfig
from video_gen.sampling.pipeline import VideoPipeline

HIGHER = ("persistence", "objects_present", "colour_identity", "shape_identity", "caption_accuracy")
"""Measures of which more is better."""
LOWER = ("residual_px", "acceleration_px")
"""Measures of which less is better."""
SHOWN = (*HIGHER, *LOWER, "motion", "speed_drift", "spread_px")
BATCH = 16


def calls_per_block(sampling: SamplingConfig) -> int:
    """Model calls for one block, but for a first one with steps of its own: guidance by text, at all times, takes two for each
    estimate, that by history a third."""
    estimates = 2 * sampling.num_steps - 1 if sampling.solver == "heun" else sampling.num_steps
    return estimates * (3 if sampling.history_scale != 1 else 2 if sampling.guidance_scale != 1 else 1)


def measure_setting(
    pipeline: VideoPipeline,
    captions: Sequence[str],
    seed: int,
    solver: str,
    num_steps: int,
    num_frames: int | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """`solver`, `num_steps`, `calls` per block, `first_calls` of the first one, and the figures of `physics.summarise` of one
    video per caption.

    `num_frames`: default that of the training clips. `settings`: fields of `SamplingConfig`.
    """
    measures = []
    sampling = pipeline.config.sampling.replace(solver=solver, num_steps=num_steps, **settings)
    for start in range(0, len(captions), BATCH):
        chosen = list(captions[start : start + BATCH])
        seeds = [seed + start + i for i in range(len(chosen))]
        videos = pipeline.generate(chosen, seeds=seeds, num_frames=num_frames, sampling=sampling)
        measures += [measure_video(v, c.removesuffix(", kicked")) for v, c in zip(videos, chosen)]
    first = sampling.replace(num_steps=sampling.steps_of(first=True))
    calls = {"calls": calls_per_block(sampling), "first_calls": calls_per_block(first)}
    return {"solver": solver, "num_steps": num_steps} | calls | summarise(measures)


def worsening(row: dict[str, Any], reference: dict[str, Any]) -> dict[str, float]:
    """How much worse each measure is than the reference's, as a share of that; negative = better.

    `motion`, right at the reference's value, counts in both directions; `speed_drift` is a share already, and counts as the
    difference of sizes. A measure that the videos are too bad to have is infinitely worse, unless the reference lacks it too.
    """

    def change(name: str) -> float:
        if reference[name] == 0:
            return row[name] and copysign(inf, row[name])
        return row[name] / reference[name] - 1

    shares = {name: -change(name) for name in HIGHER} | {name: change(name) for name in LOWER}
    shares["motion"] = abs(change("motion"))
    shares["speed_drift"] = abs(row["speed_drift"]) - abs(reference["speed_drift"])
    for name, share in shares.items():
        if isnan(share):
            shares[name] = 0.0 if isnan(reference[name]) else inf
    return shares


def measure_steps(
    pipelines: dict[str, VideoPipeline],
    captions: Sequence[str],
    solvers: Sequence[str],
    steps: Sequence[int],
    seed: int,
    progress: Callable[[int, int], None] | None = None,
    **settings: Any,
) -> list[dict[str, Any]]:
    """A row per model, solver and number of steps, with `worst`: the measure that is most worse than in the reference, and by
    how much. The reference is the row of the first model and solver with the most steps."""
    wanted = [(name, solver, count) for name in pipelines for solver in solvers for count in sorted(steps)]
    rows = []
    for done, (name, solver, count) in enumerate(wanted, 1):
        rows.append({"model": name} | measure_setting(pipelines[name], captions, seed, solver, count, **settings))
        if progress:
            progress(done, len(wanted))
    reference = rows[len(steps) - 1]
    for row in rows:
        shares = worsening(row, reference)
        row["worst"] = max(shares, key=lambda measure: shares[measure])
        row["worse_by"] = shares[row["worst"]]
    return rows


def write_steps_report(path: Path, rows: Sequence[dict[str, Any]], world: str, notes: Sequence[str] = ()) -> None:
    """One page: the table, and each measure by calls. `notes`: what else is to be said of the figures."""
    names = columns(rows)
    head = [words_of(name).name for name in names]
    table = report.table(head, [[words_of(name).say(row[name]) for name in names] for row in rows_in_words(rows)])
    charts = []
    for measure in SHOWN:
        lines: dict[str, list[tuple[float, float]]] = {}
        for row in rows:
            lines.setdefault(f"{row['model']}, {row['solver']}", []).append((row["calls"], row[measure]))
        charts.append(chart(words_of(measure), lines, "model calls a block of frames", log_x=True))
    intro = (
        f"What is lost with fewer model calls: {rows[0]['videos']} videos of the world '{world}' from text, per row. The "
        f"reference is the first model's first solver with the most steps. {' '.join(notes)}"
    )
    sections = [
        report.Section("By model calls", f"<div class='charts'>{''.join(charts)}</div>"),
        report.Section("Figures", table),
    ]
    report.write_report(path, "Quality against model calls", intro, sections)


def rows_in_words(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with their worst figure called as on a page."""
    return [row | {"worst": words_of(row["worst"]).name} for row in rows]


def columns(rows: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """What of a row to show."""
    return ("model", "solver", "num_steps", "calls", "first_calls", *SHOWN, "worst", "worse_by")
