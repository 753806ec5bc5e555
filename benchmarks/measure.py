"""Time, floating-point work and memory, measured so that figures of several models can be compared."""

import ctypes
import os
import platform
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from video_gen.data.config import ClipConfig
from video_gen.progress import duration

Job = Callable[[], Any]
Row = tuple[str, str]
"""Model and form, "eager" or "compiled"."""
PEAK_SIZES = {"cpu": (1024, 2048, 4096), "cuda": (4096, 8192)}
"""Sides of the square products whose best rate counts as the machine's."""


@dataclass(frozen=True)
class Setting:
    """How a table is measured."""

    device: torch.device
    quick: bool = False
    """Tiny sizes, one round: shows that a table works, and no more."""
    seconds: float = 240.0
    """Stop adding rounds to a table's group of rows after so long; each is measured at least twice (once if quick)."""
    compiled: bool = True
    """Measure compiled models too."""
    rounds: int = 7
    optimizers: tuple[str, ...] = ("adamw", "muon")
    """With which a model trains, where it does."""
    footage: ClipConfig | None = None
    """What it trains on, in place of the built-in world."""

    @property
    def forms(self) -> tuple[str, ...]:
        return ("eager", "compiled") if self.compiled else ("eager",)

    def generator(self) -> torch.Generator:
        return torch.Generator(self.device).manual_seed(0)


@dataclass
class Timing:
    """One row's measurement: the best of its rounds, or why there is none."""

    milliseconds: float | None = None
    flops: float | None = None
    """Of products, convolutions and attention, by counting one run; elementwise work does not count."""
    reason: str = ""
    rounds: list[float] = field(default_factory=list)


def interleaved(jobs: Mapping[Row, Job], setting: Setting, flops: bool = True) -> dict[Row, Timing]:
    """Time jobs in turns, so that a load that comes and goes falls on all alike.

    A job that raises is not measured again, and its `reason` says why. The first, untimed run of each warms up, and counts
    the work of an eager model or compiles a compiled one; a line says how long that took.
    """
    results = {row: Timing() for row in jobs}
    for row, job in jobs.items():
        began = time.monotonic()
        warm_up = partial(_compile if row[1] == "compiled" else _warm_up, job, results[row], flops, setting)
        attempt(results[row], warm_up)
        said = results[row].reason or f"ready after {duration(time.monotonic() - began)}"
        print(f"{', '.join(row)}: {said}", file=sys.stderr, flush=True)
    started, minimum = time.monotonic(), 1 if setting.quick else 2
    for number in range(1 if setting.quick else setting.rounds):
        if number >= minimum and time.monotonic() - started > setting.seconds:
            break
        for name, job in jobs.items():
            result = results[name]
            if not result.reason:
                attempt(result, lambda job=job, result=result: result.rounds.append(_timed(job, setting.device)))
    for result in results.values():
        result.milliseconds = 1e3 * min(result.rounds) if result.rounds and not result.reason else None
    return results


def attempt(result: Timing, work: Job) -> None:
    """Do `work`; if it fails, note the reason. A peer may raise anything."""
    try:
        work()
    except Exception as error:
        result.reason = reason(error)


def reason(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:160]}" if lines else type(error).__name__


def _warm_up(job: Job, result: Timing, flops: bool, setting: Setting) -> None:
    if flops:
        result.flops = count_flops(job)
    if not flops or not setting.quick:
        job()
    synchronise(setting.device)


def _compile(job: Job, result: Timing, flops: bool, setting: Setting) -> None:
    """Not watched by a counter, under which torch would take the eager way, and keep to it. Twice, as shapes settle; once on
    a GPU, whose time is dear and whose models have static shapes."""
    for _ in range(1 if setting.quick or setting.device.type == "cuda" else 2):
        job()
    synchronise(setting.device)


def _timed(job: Job, device: torch.device) -> float:
    synchronise(device)
    start = time.perf_counter()
    job()
    synchronise(device)
    return time.perf_counter() - start


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def count_flops(job: Job) -> float:
    """Floating-point operations of products, convolutions and attention in one run; 2 per multiply-add."""
    aten = torch.ops.aten
    extra = {
        aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward_flops,
    }
    with FlopCounterMode(display=False, custom_mapping=extra) as counter:
        job()
    return float(counter.get_total_flops())


def _attention_flops(query, key, value, *args, out_shape=None, **kwargs) -> int:
    return sdpa_flop_count(query, key, value)


def _attention_backward_flops(gradient, query, key, value, *args, out_shape=None, **kwargs) -> int:
    return sdpa_backward_flop_count(gradient, query, key, value)


def matrix_peak(setting: Setting) -> float:
    """Operations per second of the fastest square bfloat16 product: what 100% stands for."""
    best = 0.0
    sizes = PEAK_SIZES[setting.device.type]
    for size in sizes[:1] if setting.quick else sizes:
        a, b = (torch.randn(size, size, device=setting.device, dtype=torch.bfloat16) for _ in range(2))
        repeats = 8 if setting.device.type == "cuda" else 1  # the start of a kernel is nothing against several
        products = lambda a=a, b=b, n=repeats: [a @ b for _ in range(n)]  # noqa: E731
        seconds = [_timed(products, setting.device) for _ in range(3 if setting.quick else 12)]
        best = max(best, repeats * 2 * size**3 / min(seconds))
    return best


# -------------------- memory


class Peak:
    """Filled when the `with` block of `peak_memory` ends."""

    mebibytes: float | None = None


@contextmanager
def peak_memory(device: torch.device) -> Iterator[Peak]:
    """The most memory that was held within the block beyond what was held at its start.

    On a CPU the process's resident set (Linux: its high-water mark is set back first); None where it cannot be told.
    """
    peak = Peak()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield peak
        peak.mebibytes = (torch.cuda.max_memory_allocated(device) - before) / 2**20
        return
    give_back_memory()
    before = _reset_resident_peak()
    yield peak
    after = _resident("VmHWM")
    peak.mebibytes = None if before is None or after is None else (after - before) / 1024


def give_back_memory() -> None:
    """Have glibc return what is free to the system, so that it does not hide what comes next."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def _reset_resident_peak() -> int | None:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    return _resident("VmRSS")


def _resident(name: str) -> int | None:
    """KiB of a line of this process's status."""
    try:
        found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    except OSError:
        return None
    return int(found[1]) if found else None


# -------------------- the machine


def machine(device: torch.device) -> dict[str, str]:
    """What figures are worth nothing without."""
    cpu = platform.processor() or platform.machine()
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
        cpu = found[1] if found else cpu
    except OSError:
        pass
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    amx = torch.cpu._is_amx_tile_supported()
    named = {
        "CPU": f"{cpu}{', AMX' if amx else ''}",
        "cores": f"{cores}, {torch.get_num_threads()} threads used",
        "torch": torch.__version__,
        "system": f"{platform.system()} {platform.release().split('-')[0]}, {platform.machine()}",
    }
    named["GPU"] = torch.cuda.get_device_name(device) if device.type == "cuda" else "none used"
    return named
