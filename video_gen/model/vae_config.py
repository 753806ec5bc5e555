"""Sizes of the video VAE. No torch here."""

from math import log2
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from video_gen.config import HIDDEN, Config, validate
from video_gen.errors import ConfigError


class VAEConfig(Config):
    """Compression and sizes of the VideoVAE; the defaults are the preset `tiny`."""

    temporal_stride: Literal[1, 2, 4, 8] = 4
    """Pixel frames per latent frame; the first frame stands alone."""
    spatial_stride: Literal[4, 8, 16] = 8
    """Pixels per latent pixel, along height and width."""
    latent_channels: int = Field(default=16, ge=1, le=4096)
    """Channels of the latents: more keep more, and are harder to model."""
    stem: Literal[2, 4] = 2
    """Pixels along a side that are folded into channels before the first convolution: 4 is faster, 2 finer."""
    widths: tuple[Annotated[int, Field(ge=1, le=16_384)], ...] = Field(default=(32, 64, 128), min_length=1)
    """Channels at each resolution, finest first; the last one serves all further ones."""
    blocks: int = Field(default=1, ge=1, le=256)
    """Residual blocks per resolution."""
    linear_path: bool = True
    """Add a closed-form PCA of patches to encoder and decoder: training starts at its quality."""
    latent_mean: Annotated[tuple[float, ...] | None, HIDDEN] = None
    """Per channel, measured after training; None = not measured yet, taken as 0."""
    latent_std: Annotated[tuple[float, ...] | None, HIDDEN] = None
    """The same; 1 before it is measured."""

    @model_validator(mode="after")
    def _fits(self):
        for name in ("latent_mean", "latent_std"):
            values = getattr(self, name)
            if values is not None and len(values) != self.latent_channels:
                raise ValueError(f"{name} has {len(values)} values for {self.latent_channels} latent_channels")
        for (t, p), fine, coarse in zip(self.stages, self.stage_widths, self.stage_widths[1:]):
            n = t * p * p
            if (fine * n) % coarse or coarse % n:
                raise ValueError(
                    f"widths {fine} and {coarse}: the second must divide {n} times the first; use powers of 2"
                )
        return self

    @property
    def stages(self) -> tuple[tuple[int, int], ...]:
        """(frames, pixels) that each downsampling joins, finest first: space as early, time as late as possible."""
        space, time = int(log2(self.spatial_stride // self.stem)), int(log2(self.temporal_stride))
        count = max(space, time)
        return tuple((2 if i >= count - time else 1, 2 if i < space else 1) for i in range(count))

    @property
    def stage_widths(self) -> tuple[int, ...]:
        """Channels at each of the `len(stages) + 1` resolutions."""
        return tuple(self.widths[min(i, len(self.widths) - 1)] for i in range(len(self.stages) + 1))

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> "VAEConfig":
        """`tiny` (about 4 M parameters), `small` (20 M), `base` (80 M) or `large` (170 M). Raises: ConfigError."""
        if name not in PRESETS:
            raise ConfigError(f"no VAE preset '{name}'; there are {', '.join(PRESETS)}")
        return validate(cls, PRESETS[name] | overrides, source=f"VAE preset '{name}'")


PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {},
    "small": dict(widths=(64, 128, 256), blocks=2),
    "base": dict(widths=(128, 256, 512), blocks=2),
    "large": dict(widths=(256, 512, 512), blocks=2),
}
