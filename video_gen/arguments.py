"""What can be said to each command of `video-gen`: one class each, whose fields are the options and their help. No torch.

A field's name is that of the argument to which it is handed over (`command_line.handed_over`); what several commands can be told
is a group of `Options`, which stands once.
"""

from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import Field

from video_gen.command_line import Options, rest_of
from video_gen.config import FLAT, POSITIONAL, Config, Said
from video_gen.data.config import LARGEST, LONGEST, ClipConfig, Fps, Frames, RecordConfig, WorldConfig
from video_gen.data.prepare.settings import PrepareConfig
from video_gen.model.lora_config import Dialect
from video_gen.model.transformer_config import TextConfig
from video_gen.sampling.config import SamplingConfig, Solver
from video_gen.sampling.fit import Fit
from video_gen.training.recipes import DiffusionRun, DistillRun, VAERun

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
    """Of the noise that `sde` and `renoise` draw anew."""
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


class Worlds(Config):
    """Render a built-in world, whose true motion is known. Fills a folder with videos and their captions."""

    world: Annotated[WorldConfig, FLAT] = WorldConfig()
    output: Path = Path("data/bounce")
    """Folder to fill; what is there of the same world is kept."""


class DataCheck(Config):
    """Read a folder, and tell what is in it and what is wrong. Reads every frame, and writes its quarantine.jsonl."""

    data: Annotated[ClipConfig, FLAT] = ClipConfig()
    quarantine: tuple[
        Literal["unreadable", "bad actions", "caption too long", "too short", "near-duplicate", "still"], ...
    ] = ("unreadable",)
    """Kinds of trouble that training is to skip."""
    max_tokens: int = Field(default=TextConfig().max_tokens, ge=2, le=100_000)
    """What the text encoder of the training takes: its `text.max_tokens`. Longer captions are named."""
    lines: int = Field(default=20, ge=1)
    """How many lines of each kind to print; the rest is counted."""


class DataPrepare(Config):
    """Make a data set of a pile of footage. Finds shots, drops what is still, black, blurred or there twice, and writes the rest,
    with a manifest that gives the reason for each piece; the same command goes on."""

    pile: Annotated[Path, POSITIONAL] = Path("footage")
    """Videos and images, at any depth."""
    output: Annotated[Path, POSITIONAL] = Path("data/footage")
    """Folder to fill; what was seen before is not looked at again."""
    config: Annotated[PrepareConfig, FLAT] = PrepareConfig()
    caption_model: str | None = None
    """A captioner of `transformers`, a folder or Hub id, for clips whose file has no caption beside it."""
    workers: int | None = Field(default=None, ge=1, le=4096)
    """Processes; without it one a core."""
    ray: str | None = None
    """Address of a Ray cluster to work on, or `auto`; all its machines must see the same folders."""


class DataRecord(Config):
    """Record an environment of gymnasium with what is done in it. Steps it with keys held for all lengths, and writes clips, their
    actions, seeds and state."""

    record: Annotated[RecordConfig, FLAT] = RecordConfig()
    output: Path = Path("data/recorded")
    """Folder to fill; what is there of the same recording is kept."""


class DataImport(Config):
    """Turn a robot data set into a folder of clips with actions. LeRobot's (v2 and v3) or Minari's (HDF5 and Arrow)."""

    kind: Annotated[Literal["lerobot", "minari"], POSITIONAL] = "lerobot"
    """Whose."""
    folder: Annotated[Path, POSITIONAL] = Path("dataset")
    """The data set."""
    output: Annotated[Path, POSITIONAL] = Path("data/imported")
    """Folder to fill; clips that are there are kept."""
    camera: str | None = None
    """Whose pictures; of several cameras without it the first, in alphabetical order, is taken, which is said."""
    episodes: int | None = Field(default=None, ge=1)
    """Only the first so many."""
    height: int | None = Field(default=None, ge=8, le=LARGEST)
    """Of the frames, which are scaled and cropped; even. Without it as they are."""
    width: int | None = Field(default=None, ge=8, le=LARGEST)
    """Likewise."""
    fps: float | None = Field(default=None, gt=0, le=1_000)
    """Frames a second, of a data set that does not say it."""


class DataEncode(Config):
    """Encode a folder's clips and captions ahead of `train diffusion`. It does it, too, where they are missing. Clips are encoded
    with a VAE, captions with a frozen text encoder. Several of these at once, in several shells or by torchrun, share the work."""

    run: Annotated[DiffusionRun, FLAT] = DiffusionRun()


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


class Sample(Config):
    """Make videos from a text, an image or a video."""

    prompt: Annotated[str, POSITIONAL] = ""
    """What to show; may be empty."""
    given: Annotated[ModelOptions, FLAT] = ModelOptions()
    learned: Annotated[LoraOptions, FLAT] = LoraOptions()
    start: Annotated[StartOptions, FLAT] = StartOptions()
    size: Annotated[SizeOptions, FLAT] = SizeOptions()
    last_image: Path | None = None
    """A picture to end with; it becomes the last frame."""
    loop: bool = False
    """Lead back to the first frame, so that the video closes when it is played round; one frame less than asked for."""
    source: Path | None = None
    """A video to change; its first --num-frames, default all."""
    strength: float | None = Field(default=None, ge=0, le=1)
    """How much to change the source, from 0, its reconstruction, to 1, nothing of it; default 0.6."""
    interpolate: int | None = Field(default=None, ge=2, le=1_000)
    """Factor by which to raise the source's frame rate: its frames are kept, and others made between them."""
    num_frames: int | None = Field(default=None, ge=1, le=LONGEST)
    """Frames of the whole video, with what is given; default that of the training clips."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Of the first video; the next have the next. The same seed gives the same video, whatever else is made with it."""
    count: Annotated[int, Said(name="num-videos", short="-n")] = Field(default=1, ge=1, le=1_000_000)
    """How many videos."""
    output: Path = Path("out")
    """Folder for the videos, their settings and a contact sheet."""
    format: Literal["mp4", "gif", "png"] = "mp4"
    """Of the video files; `png` is animated."""
    enlarge: int = Field(default=1, ge=1, le=64)
    """Whole factor by which the pictures are enlarged."""
    compile: bool = False
    """Compile the transformer's blocks at their first use, for each length of the history anew: for many or large videos."""
    memory: Annotated[MemoryOptions, FLAT] = MemoryOptions()
    solving: Annotated[SolverOptions, FLAT] = SolverOptions()
    sampling: Annotated[SamplingOptions, FLAT] = SamplingOptions()
    ending: Annotated[EndingOptions, FLAT] = EndingOptions()
    finer: Annotated[FinerOptions, FLAT] = FinerOptions()


class StreamVideo(Config):
    """Make a video without end, into a file or a player. Block after block, until Ctrl-C."""

    prompt: Annotated[str | None, POSITIONAL] = None
    """What to show."""
    given: Annotated[ModelOptions, FLAT] = ModelOptions()
    learned: Annotated[LoraOptions, FLAT] = LoraOptions()
    start: Annotated[StartOptions, FLAT] = StartOptions()
    size: Annotated[SizeOptions, FLAT] = SizeOptions()
    output: Path = Path("out/stream.mp4")
    """An mp4 file; or - for standard output: video-gen stream ... --output - | ffplay -"""
    format: Literal["mp4", "raw"] = "mp4"
    """`raw`: RGB bytes, on standard output."""
    seconds: float | None = Field(default=None, gt=0, le=1e9)
    """How much to make, up to the end of a block; default: until Ctrl-C, which closes the file properly."""
    script: Path | None = None
    """A file of lines such as {"time": 2.5, "prompt": "a blue square", "guidance_scale": 3.0, "speed": 0.5}."""
    seed: int | None = Field(default=None, ge=0, lt=2**63)
    """Default 0."""
    save: Path | None = None
    """A file for the state at the end, to go on from with --resume."""
    resume: Path | None = None
    """A saved state to go on from; its model is the one it was made with, unless --model says where that is."""
    enlarge: int = Field(default=1, ge=1, le=64)
    """Whole factor by which the pictures are enlarged."""
    speed: float | None = Field(default=None, ge=0.01, le=100)
    """Of playback; default 1."""
    memory: Annotated[MemoryOptions, FLAT] = MemoryOptions()
    solving: Annotated[SolverOptions, FLAT] = SolverOptions()
    sampling: Annotated[SamplingOptions, FLAT] = SamplingOptions()
    finer: Annotated[FinerOptions, FLAT] = FinerOptions()


class ModelMerge(Config):
    """Write a model with LoRAs in it. From then on they cost nothing, and cannot be taken out."""

    base: Annotated[Path, POSITIONAL] = Path("model")
    """A model folder, a name, or OWNER/NAME on the Hub."""
    output: Annotated[Path, POSITIONAL] = Path("merged")
    """The new model's folder."""
    learned: Annotated[LoraOptions, FLAT] = LoraOptions()


class ModelExport(Config):
    """Write a model of the Wan family, or a LoRA, as another tool reads it. As a folder of diffusers or as ComfyUI's files; a LoRA
    in any dialect."""

    model: Annotated[Path, POSITIONAL] = Path("model")
    """A model folder, a public model, OWNER/NAME on the Hub; or a LoRA's file."""
    output: Annotated[Path, POSITIONAL] = Path("exported")
    """A folder to make; or a .safetensors file, for a LoRA, and for ComfyUI's transformer alone."""
    to: Dialect = "diffusers"
    """Whose; `kohya` names the parts of a LoRA as sd-scripts and musubi-tuner do."""
    dtype: Literal["bf16", "fp32"] = "bf16"
    """Of the transformer's numbers, or the LoRA's."""
    learned: Annotated[LoraOptions, FLAT] = LoraOptions()
    base: Path | None = None
    """Of a LoRA that is not of a Wan model: the model that it is for."""


class ModelCard(Config):
    """Write the card of a model or a LoRA. What it is, how it is used, and how it was trained, for whoever it is shared with."""

    path: Annotated[Path, POSITIONAL] = Path("model")
    """A model folder, such as runs/demo/diffusion/model; or a LoRA."""
    output: Path | None = None
    """Default: README.md beside it; what is there is kept."""


class ModelPush(Config):
    """Share a model or a LoRA on the Hub, with its card. As whoever is logged in there (`hf auth login`)."""

    path: Annotated[Path, POSITIONAL] = Path("model")
    """A model folder, or a LoRA."""
    repo: Annotated[str, POSITIONAL] = "OWNER/NAME"
    """Where to; it is made if it is not there."""
    private: bool = False
    """Make it one that others cannot see."""
    message: str = "A model of Video Gen"
    """What the upload is called."""


class PlayWorld(Config):
    """Play a model's world in the browser. Keys go in and frames come out, until Ctrl-C."""

    prompt: Annotated[str, POSITIONAL] = ""
    """What to show, of a model that was trained with captions."""
    model: Path = Path("maze")
    """A model folder, a name (maze ships with Video Gen), or OWNER/NAME on the Hub; one that was trained on clips with actions."""
    start: Annotated[StartOptions, FLAT] = StartOptions()
    resume: Path | None = None
    """A saved state to go on from, of the same model."""
    seed: int | None = Field(default=None, ge=0, lt=2**32)
    """Of the first frame, where none is given, and of all that is made; default 0."""
    output: Annotated[Path, Said(name="output")] = Path("out/play")
    """Folder for recordings/, a data set with actions, and states/, from which one can go on."""
    host: str = "127.0.0.1"
    """Address to listen at. Any other than this machine's own asks whoever comes for a token, which is printed."""
    port: int = Field(default=8000, ge=0, le=65_535)
    """0 = a free one."""
    browser: bool = True
    """Open the page."""
    where: Annotated[DeviceOptions, FLAT] = DeviceOptions()
    memory: Annotated[MemoryOptions, FLAT] = MemoryOptions()
    solver: Solver | None = None
    """How a step is made; without it the model's own way."""
    num_steps: Steps | None = None
    """Solver steps per latent frame: fewer are faster."""
    action_scale: float | None = Field(default=None, ge=0, le=1_000)
    """How closely to follow what is done; 1 = guidance by it off."""
    sampling: Annotated[SamplingOptions, FLAT] = SamplingOptions()


class Studio(Config):
    """Create, steer, watch and look through videos, runs, data and models in the browser. Until Ctrl-C."""

    model: Path | None = None
    """The model that is picked first, as `sample` takes one. Default: runs/demo/diffusion/model if it is there, else bounce."""
    output: Path = Path("out/studio")
    """Folder for what is made: results, uploads and the queue, which goes on where it stood."""
    runs: tuple[Path, ...] = (Path("runs"),)
    """Folders whose runs are shown, and where new ones are started."""
    data: tuple[Path, ...] = (Path("data"),)
    """Folders whose data sets are looked through and mended. Beside these three nothing is read or written."""
    host: str = "127.0.0.1"
    """Address to listen at. Any other than this machine's own asks whoever comes for a token, which is printed."""
    port: int = Field(default=8000, ge=0, le=65_535)
    """0 = a free one."""
    browser: bool = True
    """Open the page."""
    where: Annotated[DeviceOptions, FLAT] = DeviceOptions()


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
    samples: int = Field(default=2, ge=1, le=1_000)
    """Continuations of each clip; of two or more their mean is measured, too."""
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
    repeats: int = Field(default=1, ge=1, le=1_000)
    """Videos generated of each caption; VBench wants 5."""
    vbench: Path | None = None
    """A folder for what is generated, named as VBench reads it."""
    seed: int = Field(default=10_000, ge=0, lt=2**62)
    """Of the noise."""
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


class Demo(Config):
    """The whole of it, from nothing to a report. Renders a world, trains a VAE and a transformer, samples and measures."""

    output: Path = Path("runs/demo")
    """Folder for everything; a second run goes on from what is there."""
    steps: float = Field(default=1.0, gt=0, le=10)
    """How much of the training, both models': 0.4 is quicker, 2 is better."""
    short: bool = False
    """A minute's run that shows that all parts work; what it makes is noise."""


BenchTable = Literal[
    "transformer",
    "training",
    "sampling",
    "vae",
    "vae_quality",
    "decode_memory",
    "growth",
    "mfu",
    "fit",
    "wan",
    "wan_decode",
    "wan_encode",
]


class Bench(Config):
    """Measure Video Gen beside diffusers' models. Works in a checkout; writes tables."""

    tables: tuple[BenchTable, ...] = Field(default=get_args(BenchTable), min_length=1)
    """Which tables; all of them take well over an hour on two cores, most of it for compiling the peers."""
    quick: bool = False
    """Tiny sizes and one round: shows that the tables work, and no more."""
    compile: bool = True
    """Measure compiled models too."""
    seconds: float = Field(default=60.0, gt=0, le=1e6)
    """No more rounds are added to a group of rows after so long; at least two are measured. Of `vae_quality`: what each
    model trains."""
    optimizers: tuple[Literal["adamw", "muon"], ...] = Field(default=("adamw", "muon"), min_length=1)
    """Of `vae_quality`: with which optimisers each model trains."""
    footage: Path | None = None
    """Of `vae_quality`: a folder of clips to learn from, 17 frames of 128x128 at 8 a second. None = the built-in world."""
    held_out: tuple[str, ...] = ()
    """With `footage`: which of its files judge, as `data.held_out`. None = a share of the files."""
    output: Path = Path("benchmarks/results")
    """Folder for the tables, as Markdown and JSON."""
    where: Annotated[DeviceOptions, FLAT] = DeviceOptions()
