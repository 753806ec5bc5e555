"""`video-gen plan sample`: what sampling takes, by each way to make a model fit; and the cheapest way that fits (`--fit`)."""

import copy
import json
import re
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rich.table import Table
from torch import nn

from video_gen.errors import ConfigError
from video_gen.files import write_text
from video_gen.model.offload import resident_bytes
from video_gen.model.transformer_config import Weights
from video_gen.model.weights import EightBitLinear, keep_in, made_of, with_blocks
from video_gen.progress import duration, plain_console
from video_gen.sampling.config import SamplingConfig
from video_gen.sampling.fit import Fit
from video_gen.sampling.memory import Job, Phase, decoding, denoising, weight_bytes
from video_gen.sampling.pipeline import VideoPipeline
from video_gen.sizes import Sizes, sizes_of
from video_gen.training.memory import heap_holes
from video_gen.training.monitor import memory_mb
from video_gen.training.parallel import pick_device

TOGETHER = 8
"""Videos that `sample` makes at once."""
LINEAR = (nn.Linear, EightBitLinear)
KINDS: tuple[Weights, ...] = ("fp32", "bf16", "int8")
"""Weights to choose from; fp8 takes what int8 does, and rounds more."""
EIGHT = ("int8", "fp8")
SMALL_TILE = 256
VAE_WAYS = ((None, None), (None, 1), (SMALL_TILE, 1))
"""Tiles and chunks to choose from."""
ROUNDED = 1.25
"""So many times as long may a choice take that does not round, before one that does is the cheaper."""
SLOWER = {"offload": 1.05, "branches": 1.05, "vae": 1.1}
"""So many times as long as its operations say takes what is in smaller pieces; by guess, which is to keep it for need."""
DISK, CPU_READS = 1e9, 5e8
"""Bytes a second of a text encoder that is read from the disk, and that a CPU takes to encode two prompts; by guess."""
RESERVE = 0.94
"""Share of a GPU's free memory that is counted on: the rest goes to fragments, kernels and their workspaces."""
KERNELS = 120 * 2**20
"""What a first video brings into a process on a CPU beside what importing does. Of torch 2.13 on Linux."""


@dataclass(frozen=True)
class Rates:
    """How fast a device is."""

    products: float
    """Operations a second, in bfloat16."""
    copies: float
    """Bytes a second from the CPU's memory."""
    matrices: float
    """Weights a second of which matrices are made from eight bits."""

    measured: bool = True


GUESSED = Rates(1e14, 2e10, 2e11, measured=False)
"""Of a GPU that is not here: what consumer cards of 12 to 24 GB are made for, of which kernels reach some."""


@dataclass(frozen=True)
class Choice:
    """A way to sample, and what it takes."""

    fit: Fit
    phases: dict[str, int]
    """Bytes on the device at the peak of each phase, with weights; on a CPU, of the process."""
    host: int
    """Bytes of weights in the CPU's memory, beside a GPU."""
    seconds: float
    """Of a whole video, roughly."""
    step_seconds: float
    """Of a call of the model."""

    @property
    def bytes(self) -> int:
        return max(self.phases.values())

    @property
    def cost(self) -> float:
        """What the cheapest choice has least of: time, in which rounding counts, too."""
        return self.seconds * (ROUNDED if self.fit.weights in ("int8", "fp8") else 1.0)


@dataclass(frozen=True)
class SamplePlan:
    name: str
    device: str
    size: tuple[int, int, int]
    """(frames, height, width)"""
    parts: dict[Weights, dict[str, int]]
    """Bytes of weights: `transformer`, what is on the device of it where blocks are `offloaded`, `text`, `vae`
    with the encoder of pictures; and in bfloat16
    of its largest `matrix`, and of all `matrices` of it that are kept in float32."""
    choices: list[Choice]
    """From the cheapest to the dearest."""
    measured: bool
    """The device is here; the times of another are guesses."""

    def worth(self) -> list[Choice]:
        """Those that take less than all cheaper ones."""
        found: list[Choice] = []
        for choice in self.choices:
            if not found or choice.bytes < found[-1].bytes:
                found.append(choice)
        return found

    def cheapest(self, room: int, fit: Fit = Fit()) -> Choice:
        """The first choice that fits into so many bytes, and is as `fit` says where that says something.

        Raises: ConfigError if there is none.
        """
        asked = {name: getattr(fit, name) for name in fit.model_fields_set}
        able = [c for c in self.choices if all(getattr(c.fit, name) == value for name, value in asked.items())]
        for choice in able:
            if choice.bytes <= room:
                return choice
        if not able:
            raise ConfigError(f"fit: no choice of this device has {', '.join(f'{k} {v}' for k, v in asked.items())}")
        least = min(able, key=lambda choice: choice.bytes)
        raise ConfigError(
            f"fit: {said(room)} are not enough for {self.name} at {'x'.join(map(str, self.size))}: the least is "
            f"{said(least.bytes)}, with {options_of(least.fit)}; make fewer or smaller frames"
        )

    def to_json(self) -> str:
        choices = [asdict(c) | {"fit": c.fit.model_dump(), "bytes": c.bytes} for c in self.choices]
        return json.dumps(asdict(self) | {"choices": choices}, indent=1)


def plan_sample(
    sizes: Sizes, job: Job, device: torch.device, kinds: tuple[Weights, ...] = KINDS, pieces: bool = True
) -> SamplePlan:
    """All choices there are on a device.

    Args: pieces: those, too, that compute branches apart, or let the VAE work on less at a time; all others are cheaper.
    Raises: ShapeError if the job does not fit the model.
    """
    program = int(memory_mb(torch.device("cpu")) * 2**20) + KERNELS if device.type == "cpu" else 0
    rates = measure_rates(device) if device.type == "cpu" or torch.cuda.is_available() else GUESSED
    fresh = sizes.model()
    parts: dict[Weights, dict[str, int]] = {kind: _weights(kept_in(fresh, kind), sizes.vision) for kind in kinds}
    model, clip = kept_in(fresh, "bf16"), sizes.config.clip
    ways = VAE_WAYS[: 2 + (max(clip.height, clip.width) > SMALL_TILE)] if pieces else VAE_WAYS[:1]
    denoise, decode = {}, {}
    for branches in ("together", "apart") if pieces else ("together",):
        model.fitted = Fit(branches=branches)
        denoise[branches] = denoising(model, job)
    for tile, chunk in ways:
        model.fitted = Fit(vae_tile=tile, vae_chunk=chunk)
        decode[tile, chunk] = decoding(model, job)
    apart = device.type != "cpu"  # else all is in one memory
    choices = []
    for kind, offload, text, branches, way in product(
        kinds, ("off", "blocks")[: 1 + apart], ("device", "freed", "cpu")[: 2 + apart], denoise, decode
    ):
        given = dict(
            weights=kind, offload=offload, text_encoder=text, branches=branches, vae_tile=way[0], vae_chunk=way[1]
        )
        fit = Fit.model_validate(given)
        choices.append(_choice(fit, job, parts[kind], denoise[branches], decode[way], rates, program))
    choices.sort(key=lambda choice: (choice.cost, choice.bytes, choice.host))
    size = (job.num_frames, clip.height, clip.width)
    return SamplePlan(sizes.name, str(device), size, parts, choices, rates.measured)


def kept_in(model: VideoPipeline, kind: Weights) -> VideoPipeline:
    """A copy of a model on "meta" with its weights kept so."""
    other = copy.copy(model)
    other.transformer = copy.deepcopy(model.transformer)
    for part in with_blocks(other.transformer):
        keep_in(part, kind)
    return other


def _weights(model: VideoPipeline, vision: int) -> dict[str, int]:
    blocks = with_blocks(model.transformer.requires_grad_(False))
    largest = max(layer.weight.numel() for part in blocks for layer in part.modules() if isinstance(layer, LINEAR))
    return {
        "transformer": weight_bytes(model.transformer),
        "offloaded": sum(map(resident_bytes, blocks))
        + weight_bytes(model.transformer)
        - sum(map(weight_bytes, blocks)),
        "matrix": 2 * largest,
        "matrices": 2
        * sum(p.numel() for part in blocks for p in part.parameters() if p.dtype == torch.float32 and p.ndim > 1),
        "text": weight_bytes(model.text),
        "vae": weight_bytes(model.vae) + vision,
    }


def _choice(
    fit: Fit, job: Job, parts: dict[str, int], found: dict[str, Phase], decode: Phase, rates: Rates, program: int
) -> Choice:
    blocks, whole, offloaded, rounded = (
        found["blocks"],
        parts["transformer"],
        fit.offload == "blocks",
        fit.weights in EIGHT,
    )
    weights = parts["vae"] + (parts["offloaded"] if offloaded else whole)
    weights += parts["text"] if fit.text_encoder == "device" else 0
    # autocast keeps its copies of float32 weights, unless these come and go; of others a matrix is made at a time, or none
    weights += 0 if fit.weights == "bf16" else parts["matrix"] if rounded or offloaded else parts["matrices"]
    working = {
        "text": found["text"].bytes,
        "blocks": max(blocks.bytes, found["history"].bytes),
        "decode": decode.bytes + blocks.held,
    }
    if job.stream:
        working["blocks"] += decode.bytes
    elif job.block_frames is not None:
        working["blocks"] += decode.held
    phases = {name: program + weights + size + (heap_holes(size) if program else 0) for name, size in working.items()}
    if fit.text_encoder == "freed":
        phases["text"] = max(phases["text"], program + parts["text"])
    step = blocks.flops / blocks.times / rates.products
    step += whole / rates.matrices if rounded else 0
    if offloaded:
        step = max(step, whole / rates.copies) * SLOWER["offload"]
    seconds = step * blocks.times * (SLOWER["branches"] if fit.branches == "apart" else 1)
    seconds += (found["text"].flops + found["history"].flops) / rates.products
    seconds += (
        decode.flops / rates.products * SLOWER["vae"] ** sum(x is not None for x in (fit.vae_tile, fit.vae_chunk))
    )
    seconds += {"device": 0.0, "freed": parts["text"] / DISK, "cpu": parts["text"] / CPU_READS}[fit.text_encoder]
    host = whole * offloaded + parts["text"] * (fit.text_encoder == "cpu")
    return Choice(fit, phases, host, seconds, step)


# -------------------- asked for


def plan_of(
    model: str | Path,
    device: str,
    room: str | None = None,
    fit: Fit = Fit(),
    num_frames: int | None = None,
    height: int | None = None,
    width: int | None = None,
    count: int = 1,
    stream: bool = False,
    pieces: bool = True,
    **settings: Any,
) -> tuple[SamplePlan, int | None, Fit]:
    """What `video-gen plan sample` was told. Returns: the plan, the room in bytes, and what of the fit is given.

    Args: device: "cuda" may be one that is not here. Raises: ConfigError, DataError, ShapeError.
    """
    on = torch.device("cuda") if device == "cuda" else pick_device("auto")
    sizes = sizes_of(model).at(height, width)
    kinds = (*KINDS, "fp8") if fit.weights == "fp8" else KINDS
    plan = plan_sample(sizes, sizes.job(num_frames, count, stream, **settings), on, kinds, pieces)
    return plan, None if room is None else room_of(room, on), fit


def fit_into(
    room: str,
    model: str | Path,
    device: torch.device,
    fit: Fit,
    offload: bool = True,
    num_frames: int | None = None,
    height: int | None = None,
    width: int | None = None,
    count: int = 1,
    stream: bool = False,
    **options: Any,
) -> Fit:
    """The cheapest way to sample that fits, which is said.

    Args: offload: whether blocks may stay on the CPU. options: of `sample` or `stream`. Raises: ConfigError if none fits.
    """
    names = {*SamplingConfig.model_fields, "block_frames"}
    settings = {name: value for name, value in options.items() if name in names}
    if not offload:
        fit = fit.model_copy(update={"offload": "off"})
        fit.model_fields_set.add("offload")
    job = dict(num_frames=num_frames, height=height, width=width, count=min(count, TOGETHER), stream=stream)
    size = room_of(room, device)
    plan, _, _ = plan_of(model, device.type, None, fit, pieces=False, **job, **settings)
    if fit.model_fields_set & {"branches", "vae_tile", "vae_chunk"} or plan.choices[0].bytes > size:
        plan, _, _ = plan_of(model, device.type, None, fit, **job, **settings)
    choice = plan.cheapest(size, fit)
    print(f"fit: {options_of(choice.fit)}; {said(choice.bytes)} of {said(size)}", file=sys.stderr)
    return choice.fit


# -------------------- the device


def measure_rates(device: torch.device) -> Rates:
    """By a few operations on it, in a second or less."""
    x, w = (torch.ones(n, 2048, dtype=torch.bfloat16, device=device) for n in (1024, 2048))
    eight, scale = torch.ones(2048, 2048, dtype=torch.int8, device=device), torch.ones(2048, 1, device=device)
    host = torch.ones(64 * 2**20, dtype=torch.uint8, pin_memory=device.type == "cuda")
    return Rates(
        2 * 1024 * 2048 * 2048 / _seconds(lambda: F.linear(x, w), device),
        host.nbytes / _seconds(lambda: host.to(device, copy=True), device),
        eight.numel() / _seconds(lambda: made_of(eight, scale, torch.bfloat16), device),
    )


def _seconds(work: Callable[[], Any], device: torch.device) -> float:
    """The least of some."""
    found = []
    for _ in range(6):
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        found.append(time.perf_counter() - start)
    return min(found)


def room_of(told: str, device: torch.device) -> int:
    """Bytes: those that are free on a device, for "auto", or as told, such as 12GiB. Raises: ConfigError."""
    if told == "auto":
        if device.type == "cuda":
            return int(torch.cuda.mem_get_info(device)[0] * RESERVE)
        return free_memory()
    if not (found := re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?([GM])(i?)B", told)):
        raise ConfigError(f"fit '{told}': give auto, or a size such as 12GiB or 800MB")
    base = 1024 if found[3] else 1000
    return int(float(found[1]) * base ** (3 if found[2] == "G" else 2))


def free_memory() -> int:
    """Bytes that this process could have on a CPU, with those that it has. Raises: ConfigError where the system does not tell."""
    try:
        text = Path("/proc/meminfo").read_text(encoding="utf-8")
    except OSError:
        raise ConfigError(
            "fit auto: this system does not tell how much memory is free; give a size, such as 12GiB"
        ) from None
    free = re.search(r"MemAvailable:\s+(\d+) kB", text)
    assert free is not None
    return int(free[1]) * 1024 + int(memory_mb(torch.device("cpu")) * 2**20)


# -------------------- saying it


def said(size: int) -> str:
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


def options_of(fit: Fit) -> str:
    """A choice as words of the command line."""
    words = [f"--{name.replace('_', '-')} {getattr(fit, name)}" for name in Fit.model_fields if _told(fit, name)]
    return " ".join(words) or "everything as it is"


def _told(fit: Fit, name: str) -> bool:
    return getattr(fit, name) != Fit.model_fields[name].default


def show(plan: SamplePlan, room: int | None, fit: Fit, output: Path | None) -> None:
    """Tables for the person, the cheapest choice if there is a room to fit into, and a JSON file if asked for."""
    console = plain_console()
    if not console.is_terminal:
        console = plain_console(width=132)
    console.print(_parts_table(plan))
    console.print(_choices_table(plan, room))
    if room is not None:
        choice = plan.cheapest(room, fit)
        console.print(f"into {said(room)} fits: {options_of(choice.fit)}, with {said(choice.bytes)}", highlight=False)
    if output:
        write_text(output, plan.to_json())


def _parts_table(plan: SamplePlan) -> Table:
    table = Table("weights", "transformer", "of it with offload blocks", "text encoder", "VAE", title=plan.name)
    for kind, sizes in plan.parts.items():
        table.add_row(kind, *(said(sizes[name]) for name in ("transformer", "offloaded", "text", "vae")))
    return table


def _choices_table(plan: SamplePlan, room: int | None) -> Table:
    """Choices of which each takes less than all above it."""
    where = "of the process" if plan.device == "cpu" else f"on {plan.device}"
    times = "by rates measured here" if plan.measured else "guessed, since the device is not here"
    table = Table(title=f"{'x'.join(map(str, plan.size))}: memory {where}; times {times}")
    for name in ("choice", "text", "blocks", "decode", "most", "host", "call, s", "all"):
        table.add_column(name, justify="left" if name == "choice" else "right")
    for choice in plan.worth():
        size = said(choice.bytes)
        marked = f"{size} *" if room is not None and choice.bytes <= room else size
        sizes = [said(choice.phases[name]) for name in ("text", "blocks", "decode")]
        host = said(choice.host) if choice.host else "-"
        table.add_row(
            options_of(choice.fit), *sizes, marked, host, f"{choice.step_seconds:.3g}", duration(choice.seconds)
        )
    return table
