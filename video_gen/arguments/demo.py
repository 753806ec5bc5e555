"""What can be said to `demo` and `bench`."""

from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import Field

from video_gen.arguments.groups import DeviceOptions
from video_gen.config import FLAT, Config

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


class Demo(Config):
    """The whole of it, from nothing to a report. Renders a world, trains a VAE and a transformer, samples and measures."""

    output: Path = Path("runs/demo")
    """Folder for everything; a second run goes on from what is there."""
    steps: float = Field(default=1.0, gt=0, le=10)
    """How much of the training, both models': 0.4 is quicker, 2 is better."""
    short: bool = False
    """A minute's run that shows that all parts work; what it makes is noise."""


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
