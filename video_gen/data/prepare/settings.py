"""What `video-gen data prepare` can be told. No torch here."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from video_gen.config import Config
from video_gen.data.config import LARGEST, Fps

Share = Annotated[float, Field(ge=0, le=1)]
Grey = Annotated[float, Field(ge=0, le=255)]
"""Grey levels of 255."""


class ShotSettings(Config):
    """Where one shot ends and the next begins."""

    cut: Grey = 14.0
    """A cut changes the picture by at least so many grey levels, on average over colours and places."""
    cut_ratio: float = Field(default=3.0, ge=1)
    """And by so many times what frames around it change."""
    cut_colours: Share = 0.45
    """Or it changes so large a share of the colours, that too by `cut_ratio` times what frames around it do."""
    flash: Share = 0.5
    """No cut where, within a third of a second, a picture comes back that differs by less than this share of the change."""
    blend: Share = 0.5
    """A frame of a fade or dissolve is a blend of what was and what comes, but for this share of how far it is from either."""
    blend_change: Grey = 16.0
    """And by so many grey levels what was and what comes differ."""
    blend_alike: Share = 0.6
    """And their correlation falls to this, where a slow camera shows the same thing moved a little."""


class KeepSettings(Config):
    """Which pieces are kept. The rest is written down with its reason; other thresholds need no frame to be read again."""

    min_seconds: float = Field(default=1.0, gt=0, le=3600)
    """Shorter shots are refused."""
    max_seconds: float = Field(default=10.0, gt=0, le=3600)
    """Longer shots become several pieces."""
    min_side: int = Field(default=0, ge=0, le=LARGEST)
    """Smaller pictures, by their short side after bars are cropped, are refused; 0 = none."""
    min_motion: float = Field(default=0.15, ge=0)
    """Speed of what moves fastest in the picture, in percent of its diagonal a second, below which a piece is still."""
    max_motion: float = Field(default=400.0, gt=0)
    """Above it, it is a blur of movement."""
    min_light: Grey = 14.0
    """Mean grey levels below which a piece is black."""
    min_contrast: Grey = 4.0
    """Standard deviation of grey levels below which there is nothing to see."""
    min_sharpness: float = Field(default=0.1, ge=0)
    """Energy of the finest detail over that of detail twice as coarse, at 256 pixels of the short side; less is blurred."""
    max_overlay: Share = 0.0015
    """Share of the picture taken by what stands still before a moving background: captions, logos, frames."""
    max_frozen: Share = 0.6
    """Share of a file's pieces that are still pictures, above which all of it is a slide show."""
    duplicates: bool = False
    """Keep pieces that look like another one."""

    @model_validator(mode="after")
    def _ordered(self):
        if self.max_seconds < self.min_seconds:
            raise ValueError(f"max_seconds {self.max_seconds:g} is below min_seconds {self.min_seconds:g}")
        if self.max_motion <= self.min_motion:
            raise ValueError(f"max_motion {self.max_motion:g} is not above min_motion {self.min_motion:g}")
        return self


class PrepareConfig(Config):
    """From a pile of footage to a data set."""

    shots: ShotSettings = ShotSettings()
    keep: KeepSettings = KeepSettings()
    short_side: int | None = Field(default=None, ge=16, le=LARGEST)
    """Pixels to which the short side is scaled; smaller pictures stay as they are. None = all do."""
    fps: Fps | None = None
    """Frames a second above which pieces are thinned out; None = as they are."""
    crf: int = Field(default=20, ge=0, le=51)
    """H.264 quality of what is written, 0 (best) to 51."""
    crop: bool = True
    """Crop black bars."""
    format: Literal["files", "shards"] = "files"
    """`files`: a folder of .mp4 with captions beside them; `shards`: tar files as webdataset reads them."""
    shard_megabytes: int = Field(default=256, ge=1, le=100_000)
    """Size of a shard."""

    @model_validator(mode="after")
    def _even(self):
        if self.short_side and self.short_side % 2:
            raise ValueError(f"short_side {self.short_side} is odd; H.264 needs an even one: {self.short_side + 1}")
        return self
