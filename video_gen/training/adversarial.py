"""A 3D patch discriminator for the VAE, trained in the same backward pass by reversing the decoder's gradient."""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ReversedGradient(torch.autograd.Function):
    """The identity, whose gradient comes back times `-strength` (Ganin & Lempitsky 2015, arXiv:1409.7495)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * gradient, None


class PatchDiscriminator(nn.Module):
    """Video (b, 3, f, h, w) to a score per patch, higher = more real (PatchGAN, arXiv:1611.07004, in three axes)."""

    def __init__(self, width: int = 32):
        super().__init__()
        widths = (3, width, 2 * width, 4 * width)
        self.blocks = nn.ModuleList(
            nn.Conv3d(a, b, 3, stride=(1 if i == 0 else 2, 2, 2), padding=1)
            for i, (a, b) in enumerate(zip(widths, widths[1:]))
        )
        self.out = nn.Conv3d(widths[-1], 1, 1)

    def forward(self, video: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):  # see `TapwiseGradient`: there bfloat16 gradients are wrong
            x = video.float() if video.is_cpu else video
            for block in self.blocks:
                x = F.leaky_relu(block(x), 0.2)
            return self.out(x)


def hinge_loss(discriminator: nn.Module, made: Tensor, video: Tensor, strength: float) -> Tensor:
    """Hinge loss of the discriminator (Lim & Ye 2017, arXiv:1705.02894); what made `made` is pushed the other way, times
    `strength`, and not at all at 0."""
    made = cast(Tensor, ReversedGradient.apply(made, strength)) if strength else made.detach()
    return F.relu(1 - discriminator(video)).mean() + F.relu(1 + discriminator(made)).mean()
