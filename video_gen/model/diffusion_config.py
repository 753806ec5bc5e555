"""The choices of the diffusion objective. No torch here."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from video_gen.config import Config

Quantity = Literal["velocity", "v", "denoised", "noise"]
LEAST_NOISE = 0.999
"""Diffusion time from which on what is below the noise cannot be made out."""


class DiffusionConfig(Config):
    """Path, prediction, loss space, weight and distribution of `t`: independent of each other.

    The paper's loss is `path: ddpm, prediction: noise, loss_space: noise, time_distribution: uniform`.
    """

    path: Literal["straight", "cosine", "ddpm"] = "straight"
    """How latents turn into noise: straight line (rectified flow), cosine (variance preserving), DDPM's linear betas."""
    prediction: Quantity = "velocity"
    """What the network outputs."""
    loss_space: Quantity = "velocity"
    """In which quantity the squared error is taken, whatever the network outputs."""
    weight: Literal["uniform", "min_snr"] = "uniform"
    """`min_snr` caps the weight of the squared error of `denoised` at an SNR of 5, whatever the loss space."""
    time_distribution: Literal["logit_normal", "uniform"] = "logit_normal"
    """How training draws `t`."""
    time_mean: float = 0.0
    """Mean of logit(t), with `logit_normal`; above 0 trains more on noise."""
    time_std: float = Field(default=1.0, gt=0)
    """Standard deviation of logit(t), with `logit_normal`."""
    shift: Annotated[float, Field(gt=0)] | Literal["auto"] = 1.0
    """Training's t becomes shift * t / (1 + (shift - 1) * t): above 1 for many tokens, where the same noise hides less.
    `auto` is sqrt(tokens of the clip / shift_tokens), for each bucket (Esser et al. 2024, arXiv:2403.03206, eq. 23)."""
    shift_tokens: int = Field(default=256, ge=1)
    """With `auto`: the video tokens at which the shift is 1; 256 are a 256x256 image's at stride 8 and patch 2."""
    times: tuple[float, float] = (0.0, 1.0)
    """The diffusion times that are trained: all that is drawn is squeezed into them. For one of two experts its own."""

    draws: int = Field(default=1, ge=1, le=8)
    """How often each sample is made in a training step. Once, the loss is squared error, and one call makes the mean of what may
    come. More, it is the energy score of what is made (De Bortoli et al. 2025, arXiv:2502.02483), and one call makes one of the
    things that may come. What is made then depends on a frame's noise as a whole: see `VideoTransformer.embed_noise`."""

    @model_validator(mode="after")
    def _draws(self):
        if self.draws > 1 and self.times[0] < LEAST_NOISE:
            raise ValueError(
                f"draws {self.draws} differ by their noise, which must hide all else: set times to [{LEAST_NOISE}, 1], not "
                f"{list(self.times)}"
            )
        return self

    @model_validator(mode="after")
    def _times(self):
        if not 0 <= self.times[0] < self.times[1] <= 1:
            raise ValueError(f"times {self.times} must rise, from 0 at the least to 1 at the most")
        return self
