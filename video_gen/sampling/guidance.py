"""Classifier-free guidance (Ho & Salimans 2022, arXiv:2207.12598) of estimates of the denoised latents.

Guiding `denoised`, `velocity` or `noise` gives the same step: given the noisy latents they are affine in each other, and
the two weights of guidance add up to one.
"""

from collections.abc import Callable

from torch import Tensor

Denoiser = Callable[[Tensor, Tensor], Tensor]
"""(noisy (b, c, f, h, w), t (b,)) to the estimate of the denoised latents."""


class GuidedDenoiser:
    """Two denoisers as one. With scale 1, or outside the interval, only the conditional one is called.

    Args:
        scale: 1 = off.
        interval: diffusion times (low, high) at which to guide (Kynkäänniemi et al. 2024, arXiv:2404.07724).
        rescale_by: see `rescale`.
    """

    def __init__(
        self,
        conditional: Denoiser,
        unconditional: Denoiser,
        scale: float = 1.0,
        interval: tuple[float, float] = (0.0, 1.0),
        rescale_by: float = 0.0,
    ):
        self.conditional, self.unconditional = conditional, unconditional
        self.scale, self.interval, self.rescale_by = scale, interval, rescale_by

    def __call__(self, noisy: Tensor, t: Tensor) -> Tensor:
        estimate = self.conditional(noisy, t)
        low, high = self.interval
        if self.scale == 1 or not low <= float(t.flatten()[0]) <= high:
            return estimate
        guided = guide(estimate, self.unconditional(noisy, t), self.scale)
        return rescale(guided, estimate, self.rescale_by) if self.rescale_by else guided


def guide(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """From the unconditional estimate towards the conditional one, and past it when `scale` is above 1."""
    return unconditional + scale * (conditional - unconditional)


def rescale(guided: Tensor, conditional: Tensor, by: float) -> Tensor:
    """Bring the standard deviation of each sample back to that of the conditional estimate, by a share of 0 to 1
    (Lin et al. 2023, arXiv:2305.08891, eq. 15 and 16)."""
    axes = tuple(range(1, guided.ndim))
    ratio = conditional.std(axes, keepdim=True) / guided.std(axes, keepdim=True).clamp(min=1e-8)
    return guided * (1 + by * (ratio - 1))
