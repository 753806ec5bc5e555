"""A trace of a few steps, to look at in https://ui.perfetto.dev, and on a GPU a picture of its memory."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from video_gen.errors import ConfigError

WARMUP_STEPS = 3
"""Steps that are not traced, since the first ones compile, allocate and fill caches."""


@contextmanager
def profiled(
    folder: Path, steps: int, left: int, device: torch.device, say: Callable[[str], None]
) -> Iterator[Callable[[], None]]:
    """Trace `steps` steps after a few to warm up; yields what to call after each step. 0 steps: nothing happens.

    Args:
        folder: gets trace.json.gz, and on a GPU memory.pickle, for https://pytorch.org/memory_viz.
        left: steps that the run still has.
    Raises: ConfigError if the run has too few steps left.
    """
    if not steps:
        yield lambda: None
        return
    if left < WARMUP_STEPS + steps:
        raise ConfigError(
            f"profile {steps}: needs {WARMUP_STEPS + steps} steps with its warm-up, the run has {left} left"
        )
    cuda = device.type == "cuda"

    def write(trace: profile) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        trace.export_chrome_trace(str(folder / "trace.json.gz"))
        say(f"profile of {steps} steps: {folder / 'trace.json.gz'}, to be opened in https://ui.perfetto.dev")
        if cuda:
            torch.cuda.memory._dump_snapshot(str(folder / "memory.pickle"))
            torch.cuda.memory._record_memory_history(enabled=None)
            say(f"memory snapshot: {folder / 'memory.pickle'}, to be opened in https://pytorch.org/memory_viz")

    if cuda:
        torch.cuda.memory._record_memory_history()
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if cuda else [])
    plan = schedule(wait=0, warmup=WARMUP_STEPS, active=steps, repeat=1)
    with profile(activities=activities, schedule=plan, on_trace_ready=write, profile_memory=True) as trace:
        yield trace.step
