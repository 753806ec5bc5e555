"""What can be said to `train`, and to `plan`, which tells what it would take."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from video_gen.arguments.groups import (
    MemoryOptions,
    ModelOptions,
    PlanOptions,
    SamplingOptions,
    SolverOptions,
    TrainOptions,
)
from video_gen.config import FLAT, Config, Said
from video_gen.data.config import LARGEST, LONGEST
from video_gen.training.recipes import DiffusionRun, DistillRun, VAERun


class TrainVAE(Config):
    """Train a VAE. Go on after an interruption with the same command."""

    run: Annotated[VAERun, FLAT] = VAERun()
    options: Annotated[TrainOptions, FLAT] = TrainOptions(run_dir=Path("runs/vae"))


class TrainDiffusion(Config):
    """Train a transformer on the latents of a VAE. Go on after an interruption with the same command."""

    run: Annotated[DiffusionRun, FLAT] = DiffusionRun()
    options: Annotated[TrainOptions, FLAT] = TrainOptions(run_dir=Path("runs/diffusion"))


class TrainDistill(Config):
    """Distil a trained model into one that takes 1 to 4 steps. It needs no guidance."""

    run: Annotated[DistillRun, FLAT] = DistillRun()
    options: Annotated[TrainOptions, FLAT] = TrainOptions(run_dir=Path("runs/distill"))


class PlanVAE(Config):
    """Tell what `train vae` would cost in memory and time. The options are the same."""

    run: Annotated[VAERun, FLAT] = VAERun()
    plan: Annotated[PlanOptions, FLAT] = PlanOptions()


class PlanDiffusion(Config):
    """Tell what `train diffusion` would cost in memory and time. The options are the same."""

    run: Annotated[DiffusionRun, FLAT] = DiffusionRun()
    plan: Annotated[PlanOptions, FLAT] = PlanOptions()
    vae_yaml: Path | None = None
    """The YAML of the VAE's training, where the VAE is not trained yet."""


class PlanDistill(Config):
    """Tell what `train distill` would cost in memory and time. The options are the same."""

    run: Annotated[DistillRun, FLAT] = DistillRun()
    plan: Annotated[PlanOptions, FLAT] = PlanOptions()


class PlanSample(Config):
    """Tell what `sample` would take in memory, by each way to make the model fit. And which is the cheapest that fits."""

    given: Annotated[ModelOptions, FLAT] = ModelOptions()
    num_frames: int | None = Field(default=None, ge=1, le=LONGEST)
    """Frames of a video; default that of the model's clips."""
    height: int | None = Field(default=None, ge=8, le=LARGEST)
    """In pixels; default that of the model's clips."""
    width: int | None = Field(default=None, ge=8, le=LARGEST)
    """Likewise."""
    count: Annotated[int, Said(name="num-videos", short="-n")] = Field(default=1, ge=1, le=8)
    """Videos at once; `sample` makes up to 8 together."""
    stream: bool = False
    """Of a stream, which decodes a block while it makes the next one."""
    output: Path | None = None
    """A JSON file for the figures."""
    memory: Annotated[MemoryOptions, FLAT] = MemoryOptions()
    solving: Annotated[SolverOptions, FLAT] = SolverOptions()
    sampling: Annotated[SamplingOptions, FLAT] = SamplingOptions()


class PlanLora(Config):
    """Tell what a training step of a LoRA takes on a GPU, by each way to make it fit. Of a model here, or of a public size."""

    model: Path | None = None
    """As `sample` takes one; or the name of a public size, such as 2.1-t2v-14b."""
    num_frames: int | None = Field(default=None, ge=1, le=LONGEST)
    """Frames of a clip; default that of the model's clips."""
    height: int | None = Field(default=None, ge=8, le=LARGEST)
    """In pixels; default that of the model's clips."""
    width: int | None = Field(default=None, ge=8, le=LARGEST)
    """Likewise."""
    rank: int = Field(default=16, ge=1, le=4096)
    """Of the LoRA: `lora.rank` of `train diffusion`."""
    targets: Annotated[tuple[str, ...], Said(name="targets")] = ("blocks.*",)
    """Its `lora.targets`."""
    batch_size: int = Field(default=1, ge=1, le=100_000)
    """Clips of a step."""
    accumulation: int = Field(default=1, ge=1, le=100_000)
    """Micro-batches of a step."""
    rooms: Annotated[tuple[str, ...], Said(name="fit")] = ()
    """Sizes of GPUs, such as 12GiB 24GiB: tell the cheapest way that fits each."""
    output: Path | None = None
    """A JSON file for the figures."""
