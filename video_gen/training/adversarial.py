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
    """Video (b, 3, f, h, w) to a score per patch, higher = more real (PatchGAN, arXiv:1611.07004, in three axes), and what its
    layers see. `frozen`: its weights learn nothing of it."""

    def __init__(self, width: int = 32):
        super().__init__()
        widths = (3, width, 2 * width, 4 * width)
        self.blocks = nn.ModuleList(
            nn.Conv3d(a, b, 3, stride=(1 if i == 0 else 2, 2, 2), padding=1)
            for i, (a, b) in enumerate(zip(widths, widths[1:]))
        )
        self.out = nn.Conv3d(widths[-1], 1, 1)

    def forward(self, video: Tensor, frozen: bool = False) -> tuple[Tensor, list[Tensor]]:
        with torch.autocast("cpu", enabled=False):  # see `TapwiseGradient`: there bfloat16 gradients are wrong
            x, seen = video.float() if video.is_cpu else video, []
            for block in self.blocks:
                x = F.leaky_relu(_convolved(cast(nn.Conv3d, block), x, frozen), 0.2)
                seen.append(x)
            return _convolved(self.out, x, frozen), seen


def adversarial_losses(
    discriminator: nn.Module, made: Tensor, video: Tensor, strength: float, matching: float
) -> dict[str, Tensor]:
    """What the discriminator and who made `made` learn of each other.

    Args:
        strength: by how much the hinge loss pushes `made` the other way; 0 = not at all.
        matching: weight of the distance of what the discriminator's layers see; 0 leaves it out.
    Returns: `adversarial`, the discriminator's hinge loss (Lim & Ye 2017, arXiv:1705.02894); `matching`, the mean distance of
        features (Wang et al. 2018, arXiv:1711.11585, section 3.2), from which the discriminator learns nothing.
    """
    turned = cast(Tensor, ReversedGradient.apply(made, strength)) if strength else made.detach()
    real, true = discriminator(video)
    losses = {"adversarial": F.relu(1 - real).mean() + F.relu(1 + discriminator(turned)[0]).mean()}
    if matching:
        seen = discriminator(made, frozen=True)[1]
        apart = [(a - b.detach()).abs().mean() for a, b in zip(seen, true)]
        losses["matching"] = matching * sum(apart, start=torch.zeros_like(apart[0])) / len(apart)
    return losses


def _convolved(layer: nn.Conv3d, x: Tensor, frozen: bool) -> Tensor:
    if not frozen:
        return layer(x)
    assert layer.bias is not None
    return F.conv3d(x, layer.weight.detach(), layer.bias.detach(), layer.stride, layer.padding)
