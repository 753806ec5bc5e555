"""The diffusion objective: noise path, what the network predicts, and the space and weight of the loss.

`t` in [0, 1] is 0 for data and 1 for noise, `(b,)` or one per frame `(b, f)`; latents are `(b, c, f, h, w)`. Everything is
computed in float32 whatever the network's precision.

Four quantities stand for the same estimate, given the noisy latents `x = alpha * latents + sigma * noise`:

    denoised    the latents
    noise       the noise
    v           alpha * noise - sigma * latents                  (Salimans & Ho 2022, arXiv:2202.00512)
    velocity    dx/dt = alpha' * latents + sigma' * noise        (flow matching, arXiv:2210.02747); on the straight path
                                                                 noise - latents
"""

import itertools
import math
from collections.abc import Sequence
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from video_gen.model.diffusion_config import DiffusionConfig, Quantity

BETA_MIN, BETA_MAX = 0.1, 20.0
"""DDPM's linear betas in continuous time: 1e-4 to 0.02 over 1000 steps (Ho et al. 2020; Song et al. 2021, eq. 32)."""
EPSILON = 1e-4
"""Smallest divisor: at t = 0 noise cannot be told from data, at t = 1 data cannot be told from noise."""
TINY = 1e-6
"""Square of a distance that counts as none: its root has a slope."""
MIN_SNR = 5.0  # Hang et al. 2023, arXiv:2303.09556


Time = TypeVar("Time", Tensor, float)


class Diffusion:
    """The functions of a `DiffusionConfig`; holds no state."""

    def __init__(self, config: DiffusionConfig | None = None):
        self.config = config or DiffusionConfig()

    # -------------------- the path

    def alpha(self, t: Tensor) -> Tensor:
        """Share of the latents, 1 at t = 0."""
        return self._path(t)[0]

    def sigma(self, t: Tensor) -> Tensor:
        """Share of the noise, 0 at t = 0."""
        return self._path(t)[1]

    def logsnr(self, t: Tensor) -> Tensor:
        """log(alpha^2 / sigma^2): +inf at t = 0; at t = 1 -inf, or about -10 with DDPM's betas, which leave some signal."""
        alpha, sigma = self._path(t)
        return 2 * (alpha.log() - sigma.log())

    def _path(self, t: Tensor) -> tuple[Tensor, Tensor]:
        t = t.float()
        if self.config.path == "straight":
            return 1 - t, t
        if self.config.path == "cosine":
            return (math.pi / 2 * (1 - t)).sin(), (math.pi / 2 * t).sin()  # sin(pi/2 (1 - t)): exactly 0 at t = 1
        log_alpha = -0.25 * t**2 * (BETA_MAX - BETA_MIN) - 0.5 * t * BETA_MIN
        return log_alpha.exp(), (-torch.expm1(2 * log_alpha)).sqrt()

    def _slopes(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """d alpha / dt and d sigma / dt."""
        t = t.float()
        if self.config.path == "straight":
            return -torch.ones_like(t), torch.ones_like(t)
        if self.config.path == "cosine":
            return -math.pi / 2 * (math.pi / 2 * (1 - t)).cos(), math.pi / 2 * (math.pi / 2 * t).cos()
        alpha, sigma = self._path(t)
        slope = -0.5 * (t * (BETA_MAX - BETA_MIN) + BETA_MIN) * alpha
        return slope, -alpha * slope / sigma.clamp(min=EPSILON)

    def add_noise(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """The noisy latents at `t`."""
        alpha, sigma = (along(x, latents) for x in self._path(t))
        return alpha * latents.float() + sigma * noise.float()

    def move(self, noisy: Tensor, denoised: Tensor, now: Tensor, then: Tensor) -> Tensor:
        """From time `now` along the probability-flow equation to `then`, exactly if the estimate stays what it is (DDIM; Euler
        on the straight path): the noise that `noisy` holds, if `denoised` is right, is kept and scaled.

        `now` above 0 and `then` are (), (b,) or (b, f).
        """
        ratio = self.sigma(then) / self.sigma(now)
        share = self.alpha(then) - ratio * self.alpha(now)
        if now.ndim:
            ratio, share = along(ratio, noisy), along(share, noisy)
        return ratio * noisy + share * denoised

    def sample_t(
        self,
        shape: tuple[int, ...],
        generator: torch.Generator,
        device: torch.device | str = "cpu",
        tokens: int | None = None,
    ) -> Tensor:
        """Training times of the configured distribution, float32 in (0, 1). `tokens`: see `shift`."""
        config = self.config
        if config.time_distribution == "uniform":
            t = torch.rand(shape, generator=generator, device=device)
        else:
            z = torch.randn(shape, generator=generator, device=device)
            t = torch.sigmoid(config.time_mean + config.time_std * z)
        return self.within(shift_time(t, self.shift(tokens)))

    def within(self, t: Time) -> Time:
        """Times in [0, 1] squeezed into those that are trained."""
        low, high = self.config.times
        return t if (low, high) == (0.0, 1.0) else low + (high - low) * t  # type: ignore[return-value]

    def shift(self, tokens: int | None = None) -> float:
        """The configured shift, for clips of so many video tokens. Raises: ValueError if it depends on them and is not told."""
        if self.config.shift != "auto":
            return self.config.shift
        if tokens is None:
            raise ValueError("diffusion.shift is 'auto', which needs the number of tokens; give it, or set a number")
        return math.sqrt(tokens / self.config.shift_tokens)

    # -------------------- what stands for what

    def target(self, latents: Tensor, noise: Tensor, t: Tensor, quantity: Quantity | None = None) -> Tensor:
        """The true value of `quantity` (default: of what the network predicts)."""
        quantity = quantity or self.config.prediction
        if quantity == "denoised":
            return latents.float()
        if quantity == "noise":
            return noise.float()
        if quantity == "v":
            alpha, sigma = (along(x, latents) for x in self._path(t))
            return alpha * noise.float() - sigma * latents.float()
        alpha_slope, sigma_slope = (along(x, latents) for x in self._slopes(t))
        return alpha_slope * latents.float() + sigma_slope * noise.float()

    def to_denoised(self, output: Tensor, noisy: Tensor, t: Tensor, source: Quantity | None = None) -> Tensor:
        """A network's output, or an estimate of `source`, as an estimate of the latents."""
        source, output, noisy = source or self.config.prediction, output.float(), noisy.float()
        if source == "denoised":
            return output
        alpha, sigma = (along(x, noisy) for x in self._path(t))
        if source == "noise":
            return (noisy - sigma * output) / alpha.clamp(min=EPSILON)
        if source == "v":
            return (alpha * noisy - sigma * output) / (alpha**2 + sigma**2)
        alpha_slope, sigma_slope = (along(x, noisy) for x in self._slopes(t))
        wronskian = alpha * sigma_slope - sigma * alpha_slope  # 1 on the straight path
        return (sigma_slope * noisy - sigma * output) / wronskian

    def convert(self, output: Tensor, noisy: Tensor, t: Tensor, source: Quantity, to: Quantity) -> Tensor:
        """One quantity as another. Where that means dividing by nothing (noise at t = 0, latents from noise at t = 1) the
        divisor is held at 1e-4."""
        if source == to:
            return output.float()
        denoised = self.to_denoised(output, noisy, t, source)
        if to == "denoised":
            return denoised
        alpha, sigma = (along(x, noisy) for x in self._path(t))
        noise = output.float() if source == "noise" else (noisy.float() - alpha * denoised) / sigma.clamp(min=EPSILON)
        return self.target(denoised, noise, t, to)

    # -------------------- the loss

    def loss(
        self,
        output: Tensor,
        latents: Tensor,
        noise: Tensor,
        noisy: Tensor,
        t: Tensor,
        keep: Tensor | None = None,
        counts: Tensor | None = None,
    ) -> Tensor:
        """Weighted squared error in the configured space, the mean over each sample: (b,).

        The error in another space is the error of the output times a factor of `t` alone, since all four quantities are
        affine in one another; so nothing is divided that should not be.

        Args:
            keep: (b, f), False where a frame does not count; None = all count.
            counts: (b, f), how much each does; None = all alike.
        """
        config = self.config
        error = (output.float() - self.target(latents, noise, t)).square()
        factor = self._scale(config.loss_space, t) / self._scale(config.prediction, t)
        weight = factor.square()
        if config.weight == "min_snr":
            snr = self.logsnr(t).exp()
            weight = weight * snr.clamp(max=MIN_SNR) * self._scale(config.loss_space, t).square().reciprocal()
        return _over_frames((error * along(weight, error)).mean(dim=(1, 3, 4)), keep, counts)

    def energy(
        self,
        made: Sequence[Tensor],
        latents: Tensor,
        side: int,
        keep: Tensor | None = None,
        counts: Tensor | None = None,
    ) -> Tensor:
        """Energy score of several estimates of the latents, (b,): how far they are from the truth, less half of how far they are
        from each other. Its expectation is least where they are distributed as truths are (Gneiting & Raftery 2007, eq. 22).

        Distances are root mean squares: of whole frames, and of squares of `side` latent pixels, the mean of both.
        Args: keep, counts: as of `loss`.
        """
        made, latents = [x.float() for x in made], latents.float()
        near = torch.stack([_distance(x, latents, side) for x in made]).mean(0)
        apart = [_distance(x, y, side) for x, y in itertools.combinations(made, 2)]
        return _over_frames(near - torch.stack(apart).mean(0) / 2, keep, counts)

    def _scale(self, quantity: Quantity, t: Tensor) -> Tensor:
        """|error of `quantity`| / |error of denoised|, for the same estimate."""
        alpha, sigma = self._path(t)
        if quantity == "denoised":
            return torch.ones_like(alpha)
        if quantity == "noise":
            return alpha / sigma.clamp(min=EPSILON)
        if quantity == "v":
            return (alpha**2 + sigma**2) / sigma.clamp(min=EPSILON)
        alpha_slope, sigma_slope = self._slopes(t)
        return (alpha * sigma_slope - sigma * alpha_slope) / sigma.clamp(min=EPSILON)


def _over_frames(error: Tensor, keep: Tensor | None, counts: Tensor | None) -> Tensor:
    """(b, f) to (b,): the mean over frames that count."""
    if counts is not None:
        error = error * counts
    if keep is None:
        return error.mean(dim=1)
    return (error * keep).sum(dim=1) / keep.sum(dim=1).clamp(min=1)


def _distance(x: Tensor, y: Tensor, side: int) -> Tensor:
    """Of (b, c, f, h, w), (b, f)."""
    square = (x - y).square().mean(dim=1)
    b, f, h, w = square.shape
    cells = F.avg_pool2d(square.view(b * f, 1, h, w), side).view(b, f, -1)
    return ((cells + TINY).sqrt().mean(2) + (cells.mean(2) + TINY).sqrt()) / 2


def shift_time(t: Tensor, shift: float) -> Tensor:
    """Stretch times towards 1 (Esser et al. 2024, arXiv:2403.03206, eq. 23)."""
    return shift * t / (1 + (shift - 1) * t)


def along(x: Tensor, latents: Tensor) -> Tensor:
    """`(b,)` or `(b, f)` so that it broadcasts over `(b, c, f, h, w)`."""
    return x[:, None, None, None, None] if x.ndim == 1 else x[:, None, :, None, None]
