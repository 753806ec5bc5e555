"""What can be said to `worlds` and `data`."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from video_gen.config import FLAT, POSITIONAL, Config
from video_gen.data.config import LARGEST, ClipConfig, RecordConfig, WorldConfig
from video_gen.data.prepare.settings import PrepareConfig
from video_gen.model.transformer_config import TextConfig
from video_gen.training.recipes import DiffusionRun


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
