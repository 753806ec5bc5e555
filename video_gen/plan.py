"""`video-gen plan`: what a run will cost, before anything runs: sizes, operations, memory, time.

Only shapes are needed: data are random, of the size that the configuration names. Memory is that of a step on tensors
without content; time is that of a few real steps of the training loop itself, in a process of their own.
"""

import json
import multiprocessing
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from rich.table import Table
from torch import Tensor, nn

from video_gen.data.clips import Clip
from video_gen.errors import ConfigError
from video_gen.files import write_text
from video_gen.model.pretrained import local_folder, read_config
from video_gen.model.text import build_text_encoder
from video_gen.model.transformer import VideoTransformer
from video_gen.model.transformer_config import TextConfig, TransformerConfig
from video_gen.model.vae_config import VAEConfig
from video_gen.model.video_vae import VideoVAE
from video_gen.progress import duration, plain_console
from video_gen.sampling.config import PipelineConfig
from video_gen.sampling.pipeline import VideoPipeline
from video_gen.shipped import find_model
from video_gen.train import run_of_student
from video_gen.training.caches import check_sizes
from video_gen.training.diffusion_task import DiffusionTask
from video_gen.training.distill_task import ConsistencyTask
from video_gen.training.loop import train
from video_gen.training.lora_task import LoraTask
from video_gen.training.matching_task import MatchingTask
from video_gen.training.memory import StepMemory, parameters_by_part, step_memory
from video_gen.training.monitor import memory_mb
from video_gen.training.parallel import pick_device
from video_gen.training.public import is_public, new_transformer, with_init
from video_gen.training.recipes import DiffusionRun, DistillRun, VAERun
from video_gen.training.task import Task
from video_gen.training.vae_task import VAETask
from video_gen.training.warp_fit import warp_sizes
from video_gen.training.watch import group_of

Run = VAERun | DiffusionRun | DistillRun
PARTS: tuple[tuple[Any, str], ...] = ((TransformerConfig, "transformer"), (TextConfig, "text"))
KERNELS_MB = 165
"""What a first step brings in beside what importing does: code of torch's kernels, TensorBoard. A CPU build of torch 2.13."""


@dataclass
class Use:
    """One kind of step that a run makes, and its share of the steps."""

    name: str
    share: float
    flops: int
    seconds: float | None = None


@dataclass
class BucketPlan:
    """One (frames, height, width), in pixels."""

    size: tuple[int, int, int]
    samples: int
    tokens: float | None
    """Per step; None for a VAE."""
    uses: list[Use]
    memory: StepMemory
    memory_of_n: StepMemory | None = None

    @property
    def flops(self) -> float:
        """Per step, on average."""
        return sum(use.share * use.flops for use in self.uses)

    @property
    def seconds(self) -> float | None:
        """Per step, on average."""
        return None if any(u.seconds is None for u in self.uses) else sum(u.share * (u.seconds or 0) for u in self.uses)


@dataclass
class Plan:
    parameters: dict[str, int]
    buckets: list[BucketPlan]
    train_steps: int
    devices: int
    program_mb: float
    """On a CPU, what the process takes before there is a model."""
    memory_mb: float
    """Of the whole process on a CPU, of the tensors on a GPU: what the log of the run will call memory_mb."""
    memory_of_n_mb: float | None = None
    measured_mb: float | None = None
    """The same, measured in the few steps."""
    notes: list[str] = field(default_factory=list)

    @property
    def hours(self) -> float | None:
        """Of training alone, on this device."""
        seconds = [bucket.seconds for bucket in self.buckets]
        if any(s is None for s in seconds):
            return None
        return self.train_steps * sum(s or 0.0 for s in seconds) / len(seconds) / 3600

    def to_json(self) -> str:
        extra = {
            "hours": self.hours,
            "buckets": [asdict(b) | {"flops": b.flops, "seconds": b.seconds} for b in self.buckets],
        }
        return json.dumps(asdict(self) | extra, indent=1)


def make_plan(
    run: Run,
    vae: VAEConfig | None = None,
    buckets: list[tuple[int, int, int]] | None = None,
    devices: int = 1,
    steps: int = 3,
    caption: str = "two red circles and a blue square, fast",
) -> Plan:
    """
    Args:
        vae: of a diffusion run; None = the config of the run's `vae` folder.
        buckets: (frames, height, width) in pixels; None = the one that `run.data` names.
        devices: memory is told for so many, too. `steps`: to measure of each use of each bucket; 0 = measure nothing.
        caption: how long the texts are.
    Raises: ConfigError if there is no VAE, or `devices` does not divide the batch; ShapeError for sizes it cannot take.
    """
    if isinstance(run, DiffusionRun) and run.init is not None:
        if is_public(run.init):
            raise ConfigError(
                f"init: {run.init} is a public model; `video-gen plan lora --model {run.init}` plans a LoRA of one"
            )
        if run.lora.offload != "off":
            raise ConfigError(
                f"lora.offload is {run.lora.offload}; `video-gen plan lora --model {run.init}` plans each way to offload, and "
                "this command a run without: set it to off"
            )
        run = with_init(run, print)
    vae = vae_of(run, vae)
    if devices > 1 and isinstance(run, DistillRun):
        raise ConfigError(f"devices {devices}: `train distill` works on one device; leave it out")
    if run.loop.batch_size % (devices * run.loop.accumulation):
        raise ConfigError(
            f"devices {devices}: loop.batch_size {run.loop.batch_size} must be a multiple of devices times accumulation, "
            f"{devices} x {run.loop.accumulation}; change one of them"
        )
    cpu = pick_device(run.loop.device).type == "cpu"
    program = (memory_mb(torch.device("cpu")) + KERNELS_MB) if cpu else 0.0
    parameters: dict[str, int] = {}
    planned, measured = [], []
    for bucket in buckets or [(run.data.num_frames, run.data.height, run.data.width)]:
        uses, memories, of_n = [], [], []
        for name, share, only in uses_of(run):
            task = _on_meta(only, bucket, vae, caption)
            parameters = parameters_by_part(task.modules(), group_of)
            batch = task.batch(0)
            uses.append(Use(name, share, task.flops(batch, 0) or 0))
            memories.append(step_memory(task, batch, run.loop, run.optim, cpu=cpu, frozen=frozen(task)))
            if devices > 1:
                task, part = _on_meta(only, bucket, vae, caption), run.loop.batch_size // devices
                batch = {k: v[:part] for k, v in batch.items()}
                of_n.append(step_memory(task, batch, run.loop, run.optim, devices, cpu))
        largest = max(memories, key=lambda m: m.total)
        tokens = task.tokens_per_step  # type: ignore[possibly-unbound]  # a run has at least one use
        planned.append(BucketPlan(bucket, run.loop.batch_size, tokens, uses, largest))
        planned[-1].memory_of_n = max(of_n, key=lambda m: m.total, default=None)
        if steps:
            seconds, peak = measure(run, bucket, vae, caption, steps)
            measured.append(peak)
            for use in uses:
                use.seconds = seconds[use.name]
    most = max(b.memory.total for b in planned) / 2**20
    most_of_n = max((b.memory_of_n.total for b in planned if b.memory_of_n), default=None)
    return Plan(
        parameters, planned, run.loop.train_steps, devices, program, program + most,
        None if most_of_n is None else program + most_of_n / 2**20, max(measured, default=None),
    )  # fmt: skip


def vae_of(run: Run, vae: VAEConfig | None) -> VAEConfig:
    """The VAE's configuration, which alone is needed of it. Raises: ConfigError if there is none."""
    if isinstance(run, VAERun):
        return run.vae
    if vae is not None:
        return vae
    folder = find_model(run.vae)
    if folder is not None and (folder / "config.json").is_file():
        return read_config(VAEConfig, folder / "config.json")
    if isinstance(run, DistillRun):
        raise ConfigError(
            f"teacher: '{run.teacher}' is no model folder; a plan needs the sizes of one: --teacher bounce"
        )
    raise ConfigError(
        f"vae: '{run.vae}' holds no config.json; give the YAML that it will be trained with: --vae-yaml demo-vae"
    )


def uses_of(run: Run) -> Iterator[tuple[str, float, Run]]:
    """The kinds of steps that a run makes: name, share of the steps, and the run that makes only such."""
    if isinstance(run, VAERun):
        for name, share, images in (("videos", 1 - run.image_fraction, 0.0), ("images", run.image_fraction, 1.0)):
            if share:
                yield name, share, run.replace(image_fraction=images)
        return
    modes = run.modes
    if modes.teacher_forcing < 1:
        yield "bidirectional", 1 - modes.teacher_forcing, run.replace(modes=modes.replace(teacher_forcing=0.0))
    for size in sorted(set(modes.block_sizes)) if modes.teacher_forcing else ():
        share = modes.teacher_forcing * modes.block_sizes.count(size) / len(modes.block_sizes)
        only = modes.replace(teacher_forcing=1.0, block_sizes=(size,))
        yield f"blocks of {size}", share, run.replace(modes=only)


def random_task(run: Run, bucket: tuple[int, int, int], vae_config: VAEConfig, caption: str) -> Task:
    """The task of a run on random data of a bucket's size."""
    vae = VideoVAE(vae_config)
    if isinstance(run, VAERun):
        return VAETask(run, vae, RandomClips(bucket), RandomClips(bucket))  # type: ignore[arg-type]
    if isinstance(run, DistillRun):
        return distill_task(run, vae, RandomLatents(vae.latent_shape(*bucket), caption))
    check_sizes(run, vae)
    text = build_text_encoder(run.text)
    sizes = {"latent_channels": vae_config.latent_channels, "text_width": text.width}
    transformer = new_transformer(run.transformer.replace(**sizes, **warp_sizes(run, vae_config)))
    latents: Any = RandomLatents(vae.latent_shape(*bucket), caption)
    return (LoraTask if run.lora.rank else DiffusionTask)(run, transformer, text, vae, latents, latents)


def distill_task(run: DistillRun, vae: VideoVAE, latents: Any) -> Task:
    """The task of a distillation, with a teacher of fresh weights and the real one's sizes."""
    folder = local_folder(run.teacher)
    config = read_config(PipelineConfig, folder / "model.json")
    sizes, text = (read_config(kind, folder / part / "config.json") for kind, part in PARTS)
    real, student, critic = (VideoTransformer(sizes) for _ in range(3))
    parts = (config.diffusion, config.clip, config.sampling)
    teacher = VideoPipeline(vae, real.requires_grad_(False), build_text_encoder(text).requires_grad_(False), *parts)
    given = (run_of_student(run, teacher), run.distill, teacher, student)
    if run.distill.method == "matching":
        return MatchingTask(*given, critic, build_text_encoder(text), latents, latents)
    return ConsistencyTask(*given, build_text_encoder(text), latents, latents)


def frozen(task: Task) -> list[nn.Module]:
    """The teacher, whose weights a step reads and does not train."""
    teacher = getattr(task, "teacher", None)
    return [] if teacher is None else [teacher.transformer, teacher.text]


def measure(
    run: Run, bucket: tuple[int, int, int], vae: VAEConfig, caption: str, steps: int
) -> tuple[dict[str, float], float]:
    """Seconds per step of each use, and the peak memory in MB, in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(train_a_little, run, bucket, vae, caption, steps).result()


def train_a_little(
    run: Run, bucket: tuple[int, int, int], vae: VAEConfig, caption: str, steps: int
) -> tuple[dict[str, float], float]:
    """The training loop on random data, for one step to warm up and `steps` more of each use."""
    few = {
        "train_steps": steps + 1,
        "log_every": 1,
        "validate_every": 0,
        "sample_every": 0,
        "checkpoint_every": steps + 1,
    }
    loop = run.loop.replace(**few)
    seconds, peak = {}, 0.0
    for name, _, only in uses_of(run):
        with tempfile.TemporaryDirectory() as folder:
            task = random_task(only, bucket, vae, caption)
            with Path(folder, "said").open("w", encoding="utf-8") as said, redirect_stdout(said), redirect_stderr(said):
                train(task, loop, run.optim, folder, only.to_yaml())  # what it says is of a run that nobody asked for
            lines = [json.loads(line) for line in (Path(folder) / "log.jsonl").read_text(encoding="utf-8").splitlines()]
        parts = [sum(line[f"{p}_s"] for p in ("data", "forward", "backward", "optimiser")) for line in lines[1:]]
        seconds[name], peak = median(parts), max(peak, lines[-1]["memory_mb"])
    return seconds, peak


class RandomClips:
    """In the place of `Clips`: noise of one size, of no file."""

    ids: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()

    def __init__(self, bucket: tuple[int, int, int]):
        self.buckets = [bucket]

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Clip:
        pixels = np.random.default_rng(index).integers(0, 256, (*self.buckets[0], 3), dtype=np.uint8)
        return Clip(pixels, "", "noise", Path("noise"))


class RandomLatents:
    """In the place of `LatentSet`: noise of one shape (c, f, h, w), and one caption, of no clip."""

    entries: tuple[Any, ...] = ()
    folder = Path("noise")
    vocabulary = None

    def __init__(self, shape: tuple[int, int, int, int], caption: str):
        self.shape, self.text, self.buckets = shape, caption, [shape[1:]]

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Tensor:
        return torch.randn(self.shape, generator=torch.Generator().manual_seed(index))

    def clip_id(self, index: int) -> str:
        return "noise"

    def picture(self, index: int) -> Tensor:
        return self[index]

    def caption(self, index: int) -> str:
        return self.text

    def captions(self, index: int) -> list[tuple[int, str]]:
        return [(0, self.text)]

    def frames(self, index: int) -> int:
        return self.shape[1]

    def led(self, index: int) -> bool:
        return False

    def ending(self, index: int) -> Tensor:
        return self[index][:, -1:]


def show(plan: Plan, output: Path | None) -> None:
    """Tables for the person, and a JSON file if asked for."""
    console = plain_console()
    if not console.is_terminal:
        console = plain_console(width=120)  # nobody's window cuts a log
    total = sum(plan.parameters.values())
    parts = ", ".join(f"{name} {count / 1e6:.2f} M" for name, count in plan.parameters.items())
    console.print(f"parameters: {total / 1e6:.2f} M ({parts})", soft_wrap=True, highlight=False)
    console.print(_step_table(plan))
    console.print(_memory_table(plan))
    if plan.measured_mb is not None:
        console.print(
            f"memory: {plan.memory_mb:.0f} MB planned, {plan.measured_mb:.0f} MB in the steps that were measured"
        )
    if plan.hours is not None:
        console.print(
            f"time: {plan.train_steps:,} steps, {duration(plan.hours * 3600)}; validation and samples come on top"
        )
    if output:
        write_text(output, plan.to_json())


def _step_table(plan: Plan) -> Table:
    table = Table(title="a step")
    for name in ("bucket", "use", "share", "samples", "tokens", "TFLOP", "seconds", "TFLOP/s"):
        table.add_column(name, justify="left" if name in ("bucket", "use") else "right")
    for bucket in plan.buckets:
        for use in bucket.uses:
            rate = f"{use.flops / use.seconds / 1e12:.3g}" if use.seconds and use.flops else "-"
            seconds = f"{use.seconds:.3g}" if use.seconds else "not measured"
            size, tokens = "x".join(map(str, bucket.size)), str(bucket.tokens or "-")
            row = (
                size,
                use.name,
                f"{use.share:.0%}",
                str(bucket.samples),
                tokens,
                f"{use.flops / 1e12:.4g}" if use.flops else "-",
                seconds,
                rate,
            )
            table.add_row(*row)
    return table


def _memory_table(plan: Plan) -> Table:
    """Of the bucket that takes most."""
    most = max(plan.buckets, key=lambda b: b.memory.total)
    columns = {"this device": most.memory}
    if most.memory_of_n:
        columns[f"each of {plan.devices} devices"] = most.memory_of_n
    table = Table("memory in MB", *columns)
    for part in StepMemory.__dataclass_fields__:
        table.add_row(part, *(f"{getattr(memory, part) / 2**20:.1f}" for memory in columns.values()))
    if plan.program_mb:
        table.add_row("program", *(f"{plan.program_mb:.1f}" for _ in columns))
    table.add_row("together", *(f"{plan.program_mb + memory.total / 2**20:.1f}" for memory in columns.values()))
    return table


def _on_meta(run: Run, bucket: tuple[int, int, int], vae: VAEConfig, caption: str) -> Task:
    with torch.device("meta"):
        return random_task(run, bucket, vae, caption)
