"""What a run measures of itself: where a step's time goes, how much of the device's peak it uses, gradients per group."""

import time
from collections import defaultdict
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from video_gen.training.parallel import whole

PEAK_SECONDS = 0.2
"""About how long the measurement of a device's peak may take."""
STARVED = 0.2
"""A run that waits for batches for more than this share of its time is told so."""
GROUPS = (
    ("text", ("text.", ".embed_text.")),
    ("attention", (".attention.",)),
    ("feed_forward", (".feed_forward.",)),
    ("modulation", (".table", "modulation.", ".embed_time.")),
    ("embeddings", (".embed_", ".stream", ".unembed.")),
    ("encoder", (".encoder.",)),
    ("decoder", (".decoder.",)),
)
"""Groups of parameters by what their names contain, the first that fits; the rest goes by its module's name."""


class Watch:
    """The measurements between two lines of the log; nothing in it waits for the device but `line`.

    Args:
        dtype: of the matrix products, whose peak utilisation is told against.
        say: prints one line for the person.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype, say: Callable[[str], None]):
        self.device, self.dtype, self.say = device, dtype, say
        self.clock = StepClock(device)
        self.flops, self.peak, self.starved = 0, 0.0, False

    def count(self, flops: int | None) -> None:
        """Add a step's work; the first time, measure and tell the peak. None: not known, and no utilisation is told."""
        if flops is None:
            return
        if not self.peak:
            self.peak = matrix_peak(self.device, self.dtype)
            name = str(self.dtype).removeprefix("torch.")
            self.say(
                f"matrix peak of this device in {name}, measured: {self.peak / 1e12:.3g} TFLOP/s; mfu is against it"
            )
        self.flops += flops

    def line(self) -> dict[str, float]:
        """Seconds per step of each part, and utilisation `mfu` (0 to 1), since the last call; names a starving loader."""
        parts, steps = self.clock.read()
        flops, self.flops = self.flops, 0
        total = sum(parts.values())
        if not steps or not total:
            return {}
        values = {f"{part}_s": seconds / steps for part, seconds in parts.items()}
        if flops:
            values["mfu"] = flops / total / self.peak
        self._name_starvation(parts.get("data", 0.0) / total, total / steps)
        return values

    def _name_starvation(self, share: float, step: float) -> None:
        if share > STARVED and not self.starved:
            self.starved = True
            self.say(
                f"the loader starves the trainer: {share:.0%} of a step's {step:.3g} s is spent waiting for its batch; keep the "
                "data on a faster disk, give the process more cores, or have the clips at the size of training with a key "
                "frame every 16 frames"
            )


class StepClock:
    """Splits time into named parts: each `lap` gives what passed since the one before to its part.

    On a GPU the laps are events in its stream: work counts where the GPU does it, and waiting for data is what the GPU idles.
    """

    def __init__(self, device: torch.device):
        self.cuda = device.type == "cuda"
        self.last: float | torch.cuda.Event | None = None
        self.laps: list[tuple[str, float | torch.cuda.Event, float | torch.cuda.Event]] = []

    def start(self) -> None:
        """What passed since the last lap counts for nothing."""
        self.last = self._now()

    def lap(self, part: str) -> None:
        """Nothing is counted before the first `start` or `lap`."""
        now = self._now()
        if self.last is not None:
            self.laps.append((part, self.last, now))
        self.last = now

    def read(self) -> tuple[dict[str, float], int]:
        """Seconds of each part since the last read, and how often the most frequent one came: the steps."""
        if self.cuda and self.laps:
            self.laps[-1][2].synchronize()  # type: ignore[union-attr]
        seconds: defaultdict[str, float] = defaultdict(float)
        counts: defaultdict[str, int] = defaultdict(int)
        for part, begin, end in self.laps:
            seconds[part] += begin.elapsed_time(end) / 1000 if self.cuda else end - begin  # type: ignore
            counts[part] += 1
        self.laps = []
        return dict(seconds), counts["optimiser"]

    def _now(self) -> "float | torch.cuda.Event":
        if not self.cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


def matrix_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second of the fastest square matrix product found in about PEAK_SECONDS; sizes from 1024 up."""
    generator = torch.Generator(device).manual_seed(0)
    size, best, end = 1024, 0.0, time.perf_counter() + PEAK_SECONDS
    while True:
        a, b = (torch.randn(size, size, generator=generator, device=device).to(dtype) for _ in range(2))
        _product_seconds(a, b)
        seconds = min(_product_seconds(a, b) for _ in range(3))
        best = max(best, 2 * size**3 / seconds)
        if time.perf_counter() + 5 * 8 * seconds > end:  # the next size, eight times the work, would not fit
            return best
        size *= 2


def group_norms(parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """The gradient's norm over each group of parameters, () each; see GROUPS. All processes together."""
    grads: defaultdict[str, list[Tensor]] = defaultdict(list)
    for name, p in parameters.items():
        if p.grad is not None:
            grads[group_of(name)].append(p.grad)
    return {f"grad_norm_{group}": whole(torch.nn.utils.get_total_norm(of_group)) for group, of_group in grads.items()}


def group_of(name: str) -> str:
    """The group of the parameter "module.path.to.weight"."""
    found = (group for group, parts in GROUPS if any(name.startswith(p) or p in name for p in parts))
    return next(found, name.split(".")[0])


def _product_seconds(a: Tensor, b: Tensor) -> float:
    repeats = 8 if a.is_cuda else 1  # the start of a kernel is nothing against several
    _settle(a.device)
    begin = time.perf_counter()
    for _ in range(repeats):
        torch.mm(a, b)
    _settle(a.device)
    return (time.perf_counter() - begin) / repeats


def _settle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
