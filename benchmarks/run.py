"""`video-gen bench`: the tables by name, printed and written."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import diffusers
import torch

from benchmarks.fit import fit_table
from benchmarks.growth import decode_memory_table, growth_table
from benchmarks.measure import Setting, machine, matrix_peak
from benchmarks.mfu import mfu_table
from benchmarks.step import sampling_table, training_table
from benchmarks.tables import Table, write
from benchmarks.transformer import transformer_table
from benchmarks.vae import vae_table
from benchmarks.vae_quality import vae_quality_table
from benchmarks.wan import wan_table
from benchmarks.wan_vae import wan_decode_table, wan_encode_table
from video_gen.training.loop import keep_freed_memory

TABLES: dict[str, Callable[[Setting, float], Table]] = {
    "transformer": transformer_table,
    "training": training_table,
    "sampling": sampling_table,
    "vae": vae_table,
    "vae_quality": vae_quality_table,
    "decode_memory": decode_memory_table,
    "growth": growth_table,
    "mfu": mfu_table,
    "fit": fit_table,
    "wan": wan_table,
    "wan_decode": wan_decode_table,
    "wan_encode": wan_encode_table,
}
MEMORY = ("vae", "decode_memory")
"""Measured first, before freed memory is kept: a process that keeps it hides what a table needs."""


def run(names: Sequence[str], setting: Setting, output: Path, command: str) -> list[Path]:
    """Measure the tables, print each when it is done, and write it at once. Returns: the files."""
    diffusers.utils.logging.set_verbosity_error()  # it warns of casts that these models allow
    about = machine(setting.device)
    for key, value in about.items():
        print(f"{key}: {value}")
    peak = matrix_peak(setting)
    print(f"matrix peak: {peak / 1e9:,.0f} GFLOP/s in bfloat16\n", flush=True)
    paths: list[Path] = []
    for name in sorted(names, key=lambda name: name not in MEMORY):
        if name not in MEMORY and setting.device.type == "cpu":
            keep_freed_memory()  # as in training and for every model alike
        torch.compiler.reset()
        torch._dynamo.config.recompile_limit = 64  # one model of many blocks and shapes; the default gives up at 8
        print(f"table {name}", file=sys.stderr, flush=True)
        table = TABLES[name](setting, peak)
        print(table.markdown(), flush=True)
        paths += write(output, [table], about, peak, command)
    return paths
