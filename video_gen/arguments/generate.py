"""What can be said to `sample`, `stream`, `play` and `studio`."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from video_gen.arguments.groups import (
    DeviceOptions,
    EndingOptions,
    FinerOptions,
    LoraOptions,
    MemoryOptions,
    ModelOptions,
    SamplingOptions,
    SizeOptions,
    SolverOptions,
    StartOptions,
    Steps,
)
from video_gen.config import FLAT, POSITIONAL, Config, Said
from video_gen.data.config import LONGEST
from video_gen.sampling.config import Solver


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
    shift: float | None = Field(default=None, gt=0, le=1_000)
    """Above 1 the steps lie nearer to noise, where it is decided what there is to see."""
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
