"""What several commands can be told: a group of options stands once."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from video_gen.command_line import Options, rest_of
from video_gen.config import FLAT, Said
from video_gen.data.config import LARGEST, LONGEST
from video_gen.sampling.config import SamplingConfig, Solver
from video_gen.sampling.fit import Fit

Device = Literal["auto", "cpu", "cuda"]
Steps = Annotated[int, Field(ge=1, le=10_000)]


class DeviceOptions(Options):
    """Where to compute."""

    device: Device = "auto"
    """`auto` takes a GPU where there is one."""


class ModelOptions(Options):
    """The model."""

    model: Path | None = None
    """A model folder, a name (bounce ships with Video Gen), OWNER/NAME on the Hub, or a public model: its folder, or its
    transformer's file. Default: runs/demo/diffusion/model if it is there, else bounce."""
    where: Annotated[DeviceOptions, FLAT] = DeviceOptions()


class MemoryOptions(Options):
    """How the model is made to fit into the device's memory."""

    room: Annotated[str | None, Said(name="fit")] = None
    """A size such as 12GiB, or auto for what is free: take the cheapest way that fits, as `plan sample` finds it. What is said of
    the following holds."""
    fit: Annotated[Fit, FLAT] = Fit()


class LoraOptions(Options):
    """What the model has learned besides."""

    loras: Annotated[tuple[str, ...], Said(name="lora", repeated=True)] = ()
    """A LoRA, FILE or FILE:SCALE, a folder that holds one, or OWNER/NAME or OWNER/NAME/FILE on the Hub; of any tool's naming.
    Can be said several times: they add up."""


class ModelsOptions(Options):
    """The models that are compared."""

    models: Annotated[tuple[Path, ...], Said(name="model")] = ()
    """Model folders or names, as `sample` takes one; several are compared, the first one is the reference."""
    where: Annotated[DeviceOptions, FLAT] = DeviceOptions()


class SamplingOptions(Options):
    """How to sample; what is not given is the model's own."""

    guidance_scale: float | None = Field(default=None, ge=0, le=1_000)
    """How closely to follow the text; 1 = guidance off."""
    first_steps: Steps | None = None
    """Solver steps of the first block, where it is decided what there is to see; without it as many as of the others."""
    noise_scale: float | None = Field(default=None, ge=0, le=2)
    """Of the noise that `sde` and `renoise` draw anew, and of all noise of a model that was trained with `diffusion.draws`."""
    history_noise: float | None = Field(default=None, ge=0, le=1)
    """Noise on made frames as they become history, of which the network is told: against drift."""


class SolverOptions(Options):
    """The solver; what is not given is the model's own."""

    solver: Solver | None = None
    """How a step is made; docs/sampling.md compares them."""
    num_steps: Steps | None = None
    """Solver steps per block."""
    block_frames: int | None = Field(default=None, ge=1, le=LONGEST)
    """Latent frames made at once. A short clip is one block, a longer one and a stream go on in blocks of half a clip."""


class StartOptions(Options):
    """What the video begins with."""

    image: Path | None = None
    """A picture to start from; it becomes the first frame."""
    video: Path | None = None
    """A video to continue."""


class SizeOptions(Options):
    """How large the video is."""

    height: int | None = Field(default=None, ge=8, le=LARGEST)
    """Pixels; default that of the training clips."""
    width: int | None = Field(default=None, ge=8, le=LARGEST)
    """Pixels; default that of the training clips."""


class EndingOptions(Options):
    """How a video ends, where its last frame is known."""

    ending_frames: int | None = Field(default=None, ge=1, le=LONGEST)
    """Latent frames of the end that lead there; without it as many as a clip of training has."""
    ending_scale: float | None = Field(default=None, ge=0, le=1_000)
    """How closely to lead there, as --guidance-scale for text; 1 = off."""


class FinerOptions(rest_of(SamplingConfig, SamplingOptions, SolverOptions, EndingOptions, but=("action_scale",))):
    """Finer settings of how to sample; what is not given is the model's own."""


class TrainOptions(Options):
    """The run."""

    run_dir: Annotated[Path, Said(name="run")] = Path("runs/vae")
    """The run's folder; its model/ is the result."""
    resume: Literal["auto", "never"] = "auto"
    """`never` sets an earlier run of the folder aside."""
    profile: int = Field(default=0, ge=0, le=10_000)
    """Trace so many steps, after a few to warm up, into the run folder's profile/."""


class PlanOptions(Options):
    """The plan."""

    devices: int = Field(default=1, ge=1, le=1_000_000)
    """Tell the memory for so many devices, too, between which weights, gradients and states are divided."""
    steps: int = Field(default=3, ge=0, le=10_000)
    """Real steps to measure, of each kind that the run makes; 0 = measure nothing."""
    output: Path | None = None
    """A JSON file for the figures."""
