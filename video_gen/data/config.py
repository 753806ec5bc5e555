"""What the data part can be told. No torch here."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from video_gen.config import Config

LONGEST, LARGEST, FASTEST = 1_000_000, 16_384, 1_000
"""Frames of a clip, pixels of a side and frames a second beyond which a number is a slip of the hand."""
Frames = Annotated[int, Field(ge=1, le=LONGEST)]
Fps = Annotated[float, Field(gt=0, le=FASTEST)]
Bucket = tuple[int, int, int]
"""(frames, height, width) of a clip, in pixels; of latents, in latent units."""


class ClipConfig(Config):
    """How files become clips: windows of `num_frames` at `fps`, resized to cover `height` x `width` and cropped."""

    folder: Path = Path("data/bounce")
    """Videos and images, at any depth, with captions in metadata.jsonl, metadata.csv, a .txt beside each file, or none."""
    num_frames: Frames = 17
    """Frames per clip, in pixels. An image counts as a one-frame video and makes one-frame clips only."""
    fps: Fps = 16.0
    """Videos are resampled to this rate by time stamp; nothing is assumed of the file's own rate."""
    height: int = Field(default=64, ge=8, le=LARGEST)
    """Of a clip, in pixels."""
    width: int = Field(default=64, ge=8, le=LARGEST)
    """Of a clip, in pixels."""
    buckets: tuple[Bucket, ...] = ()
    """Sizes (frames, height, width) for footage of many forms: each file goes to the one that fits it best. All of them, so
    `num_frames`, `height`, `width` must be one: the size that a model makes unless told otherwise. None = that one only."""
    stride: int | None = Field(default=None, ge=1, le=LONGEST)
    """Frames between the starts of two windows of one video; default the clip's frames (no overlap)."""
    views: int = Field(default=1, ge=1, le=1_000)
    """Of each clip to train on: 1 = what fits of it, in the middle. The others are cut out at other places, and drawn from the
    clip's content, so they are the same every time and are encoded and cached as clips are."""
    zoom: float = Field(default=1.5, ge=1, le=100)
    """How much closer a view comes at most, as far as the file has more pixels than the clip."""
    flip: bool = False
    """Whether every second view is mirrored. Not for letters, captions that say left and right, or actions."""
    validation_fraction: float = Field(default=0.05, ge=0, lt=1)
    """Share of files held out, chosen by a hash of their content, so that adding files never moves one across."""
    split_seed: int = 0
    """Another number holds out other files."""
    held_out: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Files to hold out by name, in place of a share by content: patterns of their path in the folder, such as `dashcam/*`, or
    in the pile of which it was prepared. So a whole source is held out, and figures tell of footage unlike that of training."""

    @model_validator(mode="after")
    def _views(self):
        if self.flip and self.views == 1:
            raise ValueError("flip mirrors every second view, and views is 1; set it to 2 or more")
        return self

    @model_validator(mode="after")
    def _buckets(self):
        for bucket in self.buckets:
            if not (1 <= bucket[0] <= LONGEST and 8 <= min(bucket[1:]) <= max(bucket[1:]) <= LARGEST):
                raise ValueError(
                    f"bucket {bucket_name(bucket)}: frames must be 1 to {LONGEST:,}, height and width 8 to {LARGEST:,}"
                )
        if len(set(self.buckets)) < len(self.buckets):
            raise ValueError("buckets lists a size twice; list each once")
        main = (self.num_frames, self.height, self.width)
        if self.buckets and main not in self.buckets:
            raise ValueError(
                f"num_frames, height and width say {bucket_name(main)}, which is none of the buckets "
                f"{', '.join(map(bucket_name, self.buckets))}; set them to the one that the model is to make by default"
            )
        return self

    @property
    def sizes(self) -> tuple[Bucket, ...]:
        """Every (frames, height, width) that a clip may have; images make one-frame clips of the same heights and widths."""
        return self.buckets or ((self.num_frames, self.height, self.width),)


def bucket_name(bucket: Bucket) -> str:
    """Such as 17x64x64."""
    return "x".join(map(str, bucket))


WorldName = Literal["bounce", "pendulum", "digits", "kicks", "maze", "none", "unknown"]
"""What a data set or a model is made of: a built-in world, `none` of them; `unknown` where nobody wrote it down."""


MAZE = {"fps": 12.0, "height": 48, "width": 64, "num_frames": 129}
"""What a `maze` is unless told otherwise."""


class WorldConfig(Config):
    """A built-in world, rendered to real video files whose true motion is known."""

    kind: Literal["bounce", "pendulum", "digits", "kicks", "maze"] = "bounce"
    """`bounce`: shapes that bounce off walls and each other; `kicks`: the same, and now and then one is kicked; `pendulum`:
    one that swings; `digits`: digits in the place of shapes; `maze`: rooms that are walked through, with the keys held at each
    frame, of 64x48 at 12 frames a second unless told otherwise."""
    num_clips: int = Field(default=512, ge=1, le=10_000_000)
    """How many clips."""
    num_images: int = Field(default=0, ge=0, le=10_000_000)
    """Further scenes of which one frame is shown, as a PNG: what things look like is learned from stills at a fraction of
    the cost of clips."""
    num_frames: Frames = 33
    """Per clip."""
    fps: Fps = 16.0
    """Frames a second of the files."""
    height: int = Field(default=64, ge=16, le=LARGEST)
    """In pixels."""
    width: int = Field(default=64, ge=16, le=LARGEST)
    """In pixels."""
    seed: int = Field(default=0, ge=0)
    """Another number makes other clips."""
    changes: int = Field(default=0, ge=0, le=100)
    """Captions that change on the way (data/changes.py), in `bounce`: each clip has up to so many changes."""
    led: float = Field(default=0.0, ge=0, le=1)
    """Share of the clips, in `bounce`, whose objects are kicked now and then and whose rows say so, `"led": true`: where things go
    there is told by the clip's last frame alone, which training then shows (docs/sampling.md)."""
    layouts: int = Field(default=4, ge=1, le=1_000)
    """Maps of the world `maze`, which clips take in turn."""
    split: Literal["train", "held_out"] = "train"
    """Which combinations of colour and shape may appear: `train` leaves some out, `held_out` always shows one of those."""

    @model_validator(mode="before")
    @classmethod
    def _of_a_maze(cls, values: Any) -> Any:
        return MAZE | values if isinstance(values, dict) and values.get("kind") == "maze" else values

    @model_validator(mode="after")
    def _changing(self):
        for name, value in (("changes", self.changes), ("led", self.led)):
            if value and self.kind != "bounce":
                raise ValueError(
                    f"{name} is {value}, but the kind is '{self.kind}'; only 'bounce' has such clips: set it to 0"
                )
        if self.kind == "maze":
            if self.fps != MAZE["fps"]:
                raise ValueError(
                    f"fps is {self.fps:g}, but the world 'maze' is walked at {MAZE['fps']:g}; leave fps out"
                )
            if self.num_images:
                raise ValueError(f"num_images is {self.num_images}, but the world 'maze' has clips only; leave it out")
        return self

    @model_validator(mode="after")
    def _even(self):
        if self.height % 2 or self.width % 2:
            raise ValueError(f"height and width must be even for H.264, got {self.height}x{self.width}; use e.g. 64x64")
        return self


class RecordConfig(Config):
    """What is recorded of an environment."""

    env: str = ""
    """Its id in gymnasium; one of another package as module:id, such as vizdoom.gymnasium_wrapper:VizdoomMyWayHome-v1."""
    options: str = "{}"
    """Further arguments of `gymnasium.make`, as JSON, such as {"frame_skip": 3}."""
    clips: int = Field(default=64, ge=1, le=10_000_000)
    """How many clips; an episode that ends makes a shorter one."""
    frames: int = Field(default=129, ge=2, le=LONGEST)
    """Frames of a clip, at most."""
    skip: int = Field(default=1, ge=1, le=1_000)
    """Steps of the environment for which an action is held and after which a frame is kept."""
    fps: float | None = Field(default=None, gt=0, le=1_000)
    """Frames a second; without it what the environment says of itself, divided by `skip`."""
    height: int | None = Field(default=None, ge=8, le=LARGEST)
    """Of the frames, which are scaled and cropped; even. Without it as they are."""
    width: int | None = Field(default=None, ge=8, le=LARGEST)
    """Likewise."""
    caption: str = ""
    """Of all clips."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Clip i is that of seed + i, and of its policy."""
