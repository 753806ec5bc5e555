"""What can be said to `evaluate`."""

from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import Field

from video_gen.arguments.groups import (
    DeviceOptions,
    EndingOptions,
    ModelOptions,
    ModelsOptions,
    SamplingOptions,
    SolverOptions,
    Steps,
)
from video_gen.command_line import Options
from video_gen.config import FLAT, Config, Said
from video_gen.data.config import LARGEST, LONGEST, Fps, Frames
from video_gen.sampling.config import Solver


class MeasuredOptions(Options):
    """The clips, of which those are measured that are held out; what is not given is as the VAE was trained."""

    folder: Path | None = None
    """Videos and images."""
    num_frames: Frames | None = None
    """Frames per clip, in pixels."""
    fps: Fps | None = None
    """Frames a second to which videos are resampled."""
    height: int | None = Field(default=None, ge=8, le=LARGEST)
    """Of a clip, in pixels."""
    width: int | None = Field(default=None, ge=8, le=LARGEST)
    """Of a clip, in pixels."""
    stride: int | None = Field(default=None, ge=1, le=LONGEST)
    """Frames between the starts of two windows of one video."""
    validation_fraction: float | None = Field(default=None, ge=0, lt=1)
    """Share of files held out: with another one than in training, the VAE may know what it is measured on."""
    split_seed: int | None = None
    """Another number holds out other files."""
    held_out: tuple[str, ...] | None = None
    """Files to hold out by name, in place of a share: patterns such as dashcam/*."""


class EvaluateVAE(Config):
    """Measure a VAE's reconstructions of held-out clips."""

    clips: Annotated[MeasuredOptions, FLAT] = MeasuredOptions()
    vae: Path | None = None
    """The VAE's folder. Default: runs/vae/model/vae if it is there, else that of the model which ships, bounce/vae."""
    num_clips: int = Field(default=128, ge=1, le=1_000_000)
    """How many held-out clips, evenly spread."""
    output: Path | None = None
    """A JSON file for the figures."""
    where: Annotated[DeviceOptions, FLAT] = DeviceOptions()


class EvaluateMotion(Config):
    """Measure whether objects persist, match their captions and move right. Samples captions of the built-in world `bounce`."""

    given: Annotated[ModelOptions, FLAT] = ModelOptions()
    num_videos: int = Field(default=64, ge=1, le=1_000_000)
    """How many videos."""
    num_frames: int | None = Field(default=None, ge=1, le=LONGEST)
    """Default: that of the training clips."""
    split: Literal["train", "held_out"] = "train"
    """`held_out` captions have combinations of colour and shape that training never showed."""
    seed: int = Field(default=10_000, ge=0, lt=2**63)
    """Of the captions and of the noise."""
    any_world: bool = False
    """Measure a model of another world, too; it is said what the figures then mean."""
    output: Path | None = None
    """A JSON file for the figures."""
    solving: Annotated[SolverOptions, FLAT] = SolverOptions()
    sampling: Annotated[SamplingOptions, FLAT] = SamplingOptions()


class EvaluateDrift(Config):
    """Measure how long videos of a built-in world change with the frame index. Makes a report to look at."""

    given: Annotated[ModelsOptions, FLAT] = ModelsOptions()
    world: Literal["bounce", "kicks", "digits", "pendulum"] | None = None
    """Default: the one that the first model was trained on."""
    any_world: bool = False
    """Measure models of another world, too; it is said what the figures then mean."""
    frames: int = Field(default=1024, ge=16, le=LONGEST)
    """Index of the last frame; figures are for windows that end at 16, 32, 64, ... and there."""
    num_videos: int = Field(default=32, ge=1, le=1_000_000)
    """How many videos of each model."""
    seed: int = Field(default=10_000, ge=0, lt=2**63)
    """Of the world's captions and of the noise."""
    output: Path = Path("runs/drift")
    """Folder for drift.html, drift.json and videos."""
    solving: Annotated[SolverOptions, FLAT] = SolverOptions()
    sampling: Annotated[SamplingOptions, FLAT] = SamplingOptions()


class EvaluateSteering(Config):
    """Measure whether streams follow a caption that changes. And whether those keep what they show whose caption stays. Of the
    built-in world `bounce`; makes a report to look at."""

    given: Annotated[ModelsOptions, FLAT] = ModelsOptions()
    any_world: bool = False
    """Measure models of another world, too; it is said what the figures then mean."""
    switches: int = Field(default=60, ge=6, le=1_000_000)
    """How many switches: of colour, shape, both, an object more, one less and speed, in turn."""
    streams: int = Field(default=40, ge=1, le=1_000_000)
    """How many streams whose caption stays."""
    seconds: Annotated[tuple[Annotated[float, Field(ge=1, le=1e6)], ...], Said(name="seconds")] = (10.0, 60.0)
    """After how many seconds these are looked at."""
    seed: int = Field(default=10_000, ge=0, lt=2**63)
    """Of the captions and of the noise."""
    output: Path = Path("runs/steering")
    """Folder for steering.html, steering.json and videos."""
    solving: Annotated[SolverOptions, FLAT] = SolverOptions()
    sampling: Annotated[SamplingOptions, FLAT] = SamplingOptions()


class EvaluateEndings(Config):
    """Measure loops and videos that lead to a given last frame. Of the built-in world `bounce`; makes a report to look at."""

    given: Annotated[ModelsOptions, FLAT] = ModelsOptions()
    any_world: bool = False
    """Measure models of another world, too; it is said what the figures then mean."""
    num_videos: int = Field(default=48, ge=1, le=1_000_000)
    """How many of each kind."""
    num_frames: int | None = Field(default=None, ge=2, le=LONGEST)
    """Default: that of the training clips."""
    seed: int = Field(default=10_000, ge=0, lt=2**63)
    """Of the world's clips and of the noise."""
    output: Path = Path("runs/endings")
    """Folder for endings.html, endings.json and videos."""
    solving: Annotated[SolverOptions, FLAT] = SolverOptions()
    sampling: Annotated[SamplingOptions, FLAT] = SamplingOptions()
    ending: Annotated[EndingOptions, FLAT] = EndingOptions()


class EvaluateControl(Config):
    """Measure whether a world that is played does what it is told. And whether it stays the place it was; makes a report."""

    model: Path = Path("maze")
    """A model folder, or a name (maze ships with Video Gen); one that was trained on clips with actions."""
    folder: Path | None = None
    """Clips with actions, of which those are measured that are held out. Default: those of the training; of the built-in maze,
    walks that are in no data set."""
    episodes: int = Field(default=48, ge=2, le=100_000)
    """How many rollouts with true actions."""
    frames: int = Field(default=257, ge=17, le=LONGEST)
    """Frames of a rollout; as many as there are, if the clips are shorter."""
    trials: int = Field(default=64, ge=2, le=100_000)
    """How many full turns, and half as many places where each thing is done that can be."""
    idle_seconds: float = Field(default=60.0, gt=0, le=86_400)
    """For how long nothing is done."""
    seed: int = Field(default=10_000, ge=0, lt=2**31)
    """Of the noise."""
    output: Path = Path("runs/control")
    """Folder for control.html, control.json and videos."""
    where: Annotated[DeviceOptions, FLAT] = DeviceOptions()
    solver: Solver | None = None
    """How a step is made; without it the model's own way."""
    num_steps: Steps | None = None
    """Solver steps per latent frame."""
    shift: float | None = Field(default=None, gt=0, le=1_000)
    """Above 1 the steps lie nearer to noise, where it is decided what there is to see."""
    action_scale: float | None = Field(default=None, ge=0, le=1_000)
    """How closely to follow what is done; 1 = guidance by it off."""
    sampling: Annotated[SamplingOptions, FLAT] = SamplingOptions()


class EvaluateFootage(Config):
    """Measure a VAE, continuations and videos from captions beside real footage. Or a folder of videos beside another; makes a
    report."""

    model: Path | None = None
    """A model folder, a name, or OWNER/NAME on the Hub."""
    vae: Path | None = None
    """In place of a model: a VAE's folder."""
    real: Path | None = None
    """In place of both: a folder of real videos, with --made."""
    made: Path | None = None
    """A folder of videos that any program made; clips are as long, large and fast as its first one unless told."""
    what: tuple[Literal["vae", "continuation", "generation"], ...] = ()
    """What to measure of a model. Default: all three."""
    clips: Annotated[MeasuredOptions, FLAT] = MeasuredOptions()
    num_clips: int = Field(default=128, ge=2, le=1_000_000)
    """How many clips, evenly spread; distances compare two halves of them, which share no file."""
    given: int | None = Field(default=None, ge=1, le=LONGEST)
    """Frames that a continuation goes on from: 1 + a multiple of the VAE's temporal stride. Default: about half of the clip."""
    samples: int | None = Field(default=None, ge=1, le=1_000)
    """Continuations of each clip, default 2; of two or more their mean is measured, too."""
    features: Annotated[tuple[str, ...], Said(name="features")] = Field(default=("drawn",), min_length=1)
    """Networks for the distances: `drawn` needs no weights and is not FVD; `vae`: latents; a TorchScript file of I3D, whose
    code is run when it is loaded, so take it from whom you trust; a folder or Hub id of VideoMAE or V-JEPA 2."""
    distances: Annotated[tuple[Literal["frechet", "kernel"], ...], Said(name="distances")] = ("frechet", "kernel")
    """Which; Frechet distance takes two clips for each feature in each half."""
    lpips: Path | None = None
    """Weights of LPIPS (AlexNet) as .safetensors; docs/footage.md says how to make them. Default: a network with drawn ones, which
    is not LPIPS and is called otherwise."""
    consistency: Annotated[tuple[str, ...], Said(name="consistency")] = ()
    """Folders or Hub ids of DINO or CLIP, by which it is told whether a video stays what it is."""
    prompts: Path | None = None
    """A text file for generation, a caption a line. Default: the captions of half of the clips."""
    repeats: int | None = Field(default=None, ge=1, le=1_000)
    """Videos generated of each caption, default 1; VBench wants 5."""
    vbench: Path | None = None
    """A folder for what is generated, named as VBench reads it."""
    seed: int | None = Field(default=None, ge=0, lt=2**62)
    """Of the noise. Default: 10,000."""
    output: Path = Path("runs/footage")
    """Folder for footage.html, footage.json and videos."""
    where: Annotated[DeviceOptions, FLAT] = DeviceOptions()
    solving: Annotated[SolverOptions, FLAT] = SolverOptions()
    sampling: Annotated[SamplingOptions, FLAT] = SamplingOptions()


class EvaluateSteps(Config):
    """Measure quality against model calls, each solver at each number of steps. Of one or several models."""

    given: Annotated[ModelsOptions, FLAT] = ModelsOptions()
    world: Literal["bounce", "kicks"] | None = None
    """Default: the one that the first model was trained on."""
    any_world: bool = False
    """Measure models of another world, too; it is said what the figures then mean."""
    solvers: Annotated[tuple[Solver, ...], Said(name="solver")] = Field(default=get_args(Solver), min_length=1)
    """Solvers to compare; the first one at the most steps is the reference."""
    steps: Annotated[tuple[Steps, ...], Said(name="num-steps")] = Field(default=(1, 2, 4, 8, 16, 32), min_length=1)
    """Numbers of solver steps to compare."""
    num_videos: int = Field(default=64, ge=1, le=1_000_000)
    """How many videos at each setting."""
    num_frames: int | None = Field(default=None, ge=1, le=LONGEST)
    """Default: that of the training clips."""
    prompt: str | None = None
    """One caption for all videos, in place of the world's: then `spread_px` tells how they vary."""
    seed: int = Field(default=10_000, ge=0, lt=2**63)
    """Of the captions and of the noise."""
    output: Path = Path("runs/steps")
    """Folder for steps.html and steps.json."""
    sampling: Annotated[SamplingOptions, FLAT] = SamplingOptions()
