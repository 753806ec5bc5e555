"""What the data part can be told. No torch here."""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from video_gen.config import Config

Bucket = tuple[int, int, int]
"""(frames, height, width) of a clip, in pixels; of latents, in latent units."""


class ClipConfig(Config):
    """How files become clips: windows of `num_frames` at `fps`, resized to cover and centre-cropped to `height` x `width`."""

    folder: Path = Path("data/bounce")
    """Videos and images, at any depth, with captions in metadata.jsonl, metadata.csv, a .txt beside each file, or none."""
    num_frames: int = Field(default=17, ge=1)
    """Frames per clip, in pixels. An image counts as a one-frame video and makes one-frame clips only."""
    fps: float = Field(default=16.0, gt=0)
    """Videos are resampled to this rate by time stamp; nothing is assumed of the file's own rate."""
    height: int = Field(default=64, ge=8)
    width: int = Field(default=64, ge=8)
    buckets: tuple[Bucket, ...] = ()
    """Sizes (frames, height, width) for footage of many forms: each file goes to the one that fits it best. All of them, so
    `num_frames`, `height`, `width` must be one: the size that a model makes unless told otherwise. None = that one only."""
    stride: int | None = Field(default=None, ge=1)
    """Frames between the starts of two windows of one video; default the clip's frames (no overlap)."""
    validation_fraction: float = Field(default=0.05, ge=0, lt=1)
    """Share of files held out, chosen by a hash of their content, so that adding files never moves one across."""
    split_seed: int = 0

    @model_validator(mode="after")
    def _buckets(self):
        for bucket in self.buckets:
            if bucket[0] < 1 or min(bucket[1:]) < 8:
                raise ValueError(
                    f"bucket {bucket_name(bucket)}: frames must be at least 1, height and width at least 8"
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


WorldName = Literal["bounce", "pendulum", "digits", "kicks", "none", "unknown"]
"""What a data set or a model is made of: a built-in world, `none` of them; `unknown` where nobody wrote it down."""


class WorldConfig(Config):
    """A built-in world, rendered to real video files whose true motion is known."""

    kind: Literal["bounce", "pendulum", "digits", "kicks"] = "bounce"
    num_clips: int = Field(default=512, ge=1)
    num_images: int = Field(default=0, ge=0)
    """Further scenes of which one frame is shown, as a PNG: what things look like is learned from stills at a fraction of
    the cost of clips."""
    num_frames: int = Field(default=33, ge=1)
    fps: float = Field(default=16.0, gt=0)
    height: int = Field(default=64, ge=16)
    width: int = Field(default=64, ge=16)
    seed: int = 0
    split: Literal["train", "held_out"] = "train"
    """Which combinations of colour and shape may appear: `train` leaves some out, `held_out` always shows one of those."""

    @model_validator(mode="after")
    def _even(self):
        if self.height % 2 or self.width % 2:
            raise ValueError(f"height and width must be even for H.264, got {self.height}x{self.width}; use e.g. 64x64")
        return self
