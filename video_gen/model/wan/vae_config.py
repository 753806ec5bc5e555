"""Sizes of the public Wan VAEs, and what their latents measure. No torch here."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from video_gen.config import HIDDEN, Config, validate
from video_gen.errors import ConfigError

Width = Annotated[int, Field(ge=1, le=16_384)]


class WanVAEConfig(Config):
    """Sizes of a WanVAE; the defaults are those of Wan 2.1."""

    latent_channels: int = Field(default=16, ge=1, le=4096)
    """Channels of the latents."""
    width: Width = 96
    """Channels of the encoder at the finest resolution."""
    decoder_width: Width | None = None
    """The decoder's; None = as the encoder."""
    multipliers: tuple[Annotated[int, Field(ge=1, le=64)], ...] = Field(
        default=(1, 2, 4, 4), min_length=1, max_length=8
    )
    """Of the width at each resolution, finest first; between two of them, height and width are halved."""
    temporal: tuple[bool, ...] = (False, True, True)
    """Which of these halvings join pairs of frames too."""
    blocks: int = Field(default=2, ge=1, le=64)
    """Residual blocks per resolution of the encoder; the decoder has one more."""
    patch: Literal[1, 2] = 1
    """Pixels along a side that are folded into channels before the first convolution."""
    shortcuts: bool = False
    """Averages past each halving and copies past each doubling, as in Wan 2.2."""
    latent_mean: Annotated[tuple[float, ...] | None, HIDDEN] = None
    """Per channel of the network's own latents, which a WanVAE's are normalised by; None = 0."""
    latent_std: Annotated[tuple[float, ...] | None, HIDDEN] = None
    """The same; None = 1."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for name in ("latent_mean", "latent_std"):
            values = getattr(self, name)
            if values is not None and len(values) != self.latent_channels:
                raise ValueError(f"{name} has {len(values)} values for {self.latent_channels} latent_channels")
        if self.latent_std is not None and min(self.latent_std) <= 0:
            raise ValueError(f"latent_std has {min(self.latent_std):g}; every deviation must be above 0")
        if len(self.temporal) != len(self.multipliers) - 1:
            raise ValueError(
                f"temporal has {len(self.temporal)} values for {len(self.multipliers)} multipliers; give one fewer"
            )
        if not self.shortcuts and any(width % 2 for width in self.decoder_widths[1:-1]):
            raise ValueError(f"decoder widths {self.decoder_widths} must be even: each doubling halves them")
        if self.shortcuts:
            self._check_shortcuts()
        return self

    def _check_shortcuts(self) -> None:
        for down, (fine, coarse) in zip((*self.temporal, None), zip(self.encoder_widths, self.encoder_widths[1:])):
            cells = 1 if down is None else 8 if down else 4
            if fine * cells % coarse:
                raise ValueError(f"encoder widths {fine} and {coarse}: the second must divide {cells} times the first")
        for up, (coarse, fine) in zip(reversed(self.temporal), zip(self.decoder_widths, self.decoder_widths[1:])):
            cells = 8 if up else 4
            if fine * cells % coarse:
                raise ValueError(f"decoder widths {coarse} and {fine}: the first must divide {cells} times the second")

    @property
    def encoder_widths(self) -> tuple[int, ...]:
        """Channels that go into the first resolution's blocks, and that come out of each one's, finest first."""
        return tuple(self.width * m for m in (1, *self.multipliers))

    @property
    def decoder_widths(self) -> tuple[int, ...]:
        """Channels that go into the first resolution's blocks, and that come out of each one's, coarsest first."""
        widths = tuple((self.decoder_width or self.width) * m for m in reversed(self.multipliers))
        return (widths[0], *widths)

    @property
    def temporal_stride(self) -> int:
        """Pixel frames per latent frame; the first frame stands alone."""
        return 2 ** sum(self.temporal)

    @property
    def spatial_stride(self) -> int:
        """Pixels per latent pixel, along height and width."""
        return self.patch * 2 ** len(self.temporal)

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> Self:
        """`2.1`, `2.2` (of the 5B model), `tiny-2.1` or `tiny-2.2`, of the same shape and small. Raises: ConfigError."""
        if name not in PRESETS:
            raise ConfigError(f"no Wan VAE preset '{name}'; there are {', '.join(PRESETS)}")
        return validate(cls, PRESETS[name] | overrides, source=f"Wan VAE preset '{name}'")


MEAN_21 = (
    -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508, 0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497,
    0.2503, -0.2921,
)  # fmt: skip
STD_21 = (
    2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743, 3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251,
    1.9160,
)  # fmt: skip
MEAN_22 = (
    -0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557, -0.1382, 0.0542, 0.2813, 0.0891, 0.1570, -0.0098,
    0.0375, -0.1825, -0.2246, -0.1207, -0.0698, 0.5109, 0.2665, -0.2108, -0.2158, 0.2502, -0.2055, -0.0322, 0.1109, 0.1567,
    -0.0729, 0.0899, -0.2799, -0.1230, -0.0313, -0.1649, 0.0117, 0.0723, -0.2839, -0.2083, -0.0520, 0.3748, 0.0152, 0.1957,
    0.1433, -0.2944, 0.3573, -0.0548, -0.1681, -0.0667,
)  # fmt: skip
STD_22 = (
    0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.4990, 0.4818, 0.5013, 0.8158, 1.0344, 0.5894, 1.0901, 0.6885, 0.6165, 0.8454,
    0.4978, 0.5759, 0.3523, 0.7135, 0.6804, 0.5833, 1.4146, 0.8986, 0.5659, 0.7069, 0.5338, 0.4889, 0.4917, 0.4069, 0.4999,
    0.6866, 0.4093, 0.5709, 0.6065, 0.6415, 0.4944, 0.5726, 1.2042, 0.5458, 1.6887, 0.3971, 1.0600, 0.3943, 0.5537, 0.5444,
    0.4089, 0.7468, 0.7744,
)  # fmt: skip
"""Of the latents of both releases, per channel. Source: Wan-Video/Wan2.1 wan/modules/vae.py, Wan2.2 wan/modules/vae2_2.py."""

STATISTICS_21: dict[str, Any] = dict(latent_mean=MEAN_21, latent_std=STD_21)
STATISTICS_22: dict[str, Any] = dict(latent_mean=MEAN_22, latent_std=STD_22)
SHAPE_22: dict[str, Any] = dict(latent_channels=48, patch=2, shortcuts=True, **STATISTICS_22)
PRESETS: dict[str, dict[str, Any]] = {
    "2.1": STATISTICS_21,
    "2.2": dict(width=160, decoder_width=256, **SHAPE_22),
    "tiny-2.1": dict(width=8, blocks=1, **STATISTICS_21),
    "tiny-2.2": dict(width=8, decoder_width=16, blocks=1, **SHAPE_22),
}
