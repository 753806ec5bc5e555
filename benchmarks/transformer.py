"""Table 1: one pass through a transformer, forward, and forward with backward."""

import torch

from benchmarks.measure import Job, Setting, Timing, interleaved, reason
from benchmarks.models import ENTRIES, Entry, Size, build, equal, parameters
from benchmarks.tables import Table

TOKENS, QUICK_TOKENS = (512, 2048, 8192), (64,)
COLUMNS = (
    "tokens", "pass", "model", "form", "M parameters", "ms", "GFLOP", "GFLOP/s", "% of peak", "ours of its size",
    "ours is faster by",
)  # fmt: skip


def transformer_table(setting: Setting, peak: float) -> Table:
    sizes = [Size.of(tokens, setting) for tokens in (QUICK_TOKENS if setting.quick else TOKENS)]
    table = Table("transformer", "Transformer, one pass", COLUMNS, equal(sizes[0]))
    for size in sizes:
        for name, backward in (("forward", False), ("forward and backward", True)):
            torch.compiler.reset()  # a fresh limit of recompilations for each size
            rows = measure(size, backward, setting, peak)
            tokens = size.grid[0] * size.grid[1] * size.grid[2]
            table.rows += [{"tokens": tokens, "pass": name, **row} for row in rows]
            table.findings += findings(f"{name}, {tokens} tokens", rows)
    return table


def measure(size: Size, backward: bool, setting: Setting, peak: float) -> list[dict]:
    jobs, sizes, failed = {}, {}, {}
    for entry in ENTRIES:
        for form in setting.forms:
            try:
                jobs[entry.name, form], sizes[entry.name, form] = make_job(entry, size, form, backward, setting)
            except Exception as error:  # a peer may raise anything; its row says what
                failed[entry.name, form] = Timing(reason=reason(error))
    timings = {**interleaved(jobs, setting), **failed}
    return compare(timings, sizes, peak, setting)


def make_job(entry: Entry, size: Size, form: str, backward: bool, setting: Setting) -> tuple[Job, float]:
    """The job, and the model's parameters in millions."""
    module = build(entry, size, form, setting, torch.float32 if backward else torch.bfloat16)
    latents, t, text = size.inputs(setting)

    def forward() -> (
        None
    ):  # peers run in plain bfloat16, as their pipelines do, and ours under autocast, as its own does
        with torch.no_grad(), torch.autocast(setting.device.type, torch.bfloat16, enabled=not entry.ours):
            module(latents.bfloat16(), t, text.bfloat16())

    def train() -> None:
        module.zero_grad(set_to_none=True)
        with torch.autocast(setting.device.type, torch.bfloat16):
            loss = module(latents, t, text).float().square().mean()
        loss.backward()

    return train if backward else forward, parameters(module)


def compare(timings: dict, sizes: dict, peak: float, setting: Setting) -> list[dict]:
    """Rows with rates, and how much faster ours of the same size and form is."""
    rows = []
    for entry in ENTRIES:
        for form in setting.forms:
            timing = timings[entry.name, form]
            ours = timings[entry.ours, form].milliseconds if entry.ours else None
            flops = timings[entry.name, "eager"].flops
            row = {"model": entry.name, "form": form, "M parameters": sizes.get((entry.name, form))}
            row["ms"] = timing.milliseconds if timing.milliseconds else f"not measured: {timing.reason}"
            if timing.milliseconds and flops:
                rate = flops / timing.milliseconds * 1e3
                row |= {"GFLOP": flops / 1e9, "GFLOP/s": rate / 1e9, "% of peak": 100 * rate / peak}
            if timing.milliseconds and ours:
                row |= {"ours of its size": entry.ours, "ours is faster by": timing.milliseconds / ours}
            rows.append(row)
    return rows


def findings(what: str, rows: list[dict]) -> list[str]:
    """The least favourable ratio of each form."""
    made = []
    for form in ("eager", "compiled"):
        chosen = [row for row in rows if row["form"] == form and "ours is faster by" in row]
        ratios = [(row["ours is faster by"], row["model"]) for row in chosen]
        if ratios:
            ratio, model = min(ratios)
            made.append(f"{what}: {ratio:.2f} times as fast as the best {form} peer ({model}), both {form}")
    return made
