"""Parts of the transformer: patches, positions, modulation, and the block's two sublayers.

Tokens are `(b, f, s, d)`: frames by places within a frame, so that a diffusion time per frame broadcasts over its places.
"""

import math
from typing import Any, cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn


def patchify(latents: Tensor, patch_size: int) -> Tensor:
    """`(b, c, f, h, w)` to `(b, f, s, c * patch_size**2)`, places in raster order."""
    return rearrange(latents, "b c f (h p) (w q) -> b f (h w) (c p q)", p=patch_size, q=patch_size)


def unpatchify(tokens: Tensor, patch_size: int, height: int) -> Tensor:
    """Inverse of `patchify`; `height` in patches."""
    return rearrange(tokens, "b f (h w) (c p q) -> b c f (h p) (w q)", h=height, p=patch_size, q=patch_size)


def layer_norm(x: Tensor) -> Tensor:
    """Layer norm without parameters; the modulation that follows has the scale and shift."""
    return F.layer_norm(x, x.shape[-1:], eps=1e-6).to(x.dtype)  # autocast on a GPU answers in float32


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return torch.addcmul(shift, x, 1 + scale)


def sinusoids(x: Tensor, width: int, max_period: float = 10_000.0) -> Tensor:
    """Sine and cosine features of `x` (...) as (..., width), in float32 (Vaswani et al. 2017, section 3.5)."""
    half = width // 2
    frequencies = torch.exp(-math.log(max_period) * torch.arange(half, device=x.device) / half)
    angles = x.float()[..., None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class TimeEmbedding(nn.Module):
    """Diffusion time in [0, 1], `(b, f)`, to `(b, f, d)`."""

    FEATURES = 256

    def __init__(self, width: int):
        super().__init__()
        self.hidden = nn.Linear(self.FEATURES, width)
        self.out = nn.Linear(width, width)

    def forward(self, t: Tensor) -> Tensor:
        return self.out(F.silu(self.hidden(sinusoids(1000 * t, self.FEATURES))))


class NoiseEmbedding(nn.Module):
    """The noise of frames, `(b, c, f, h, w)`, as a whole: its mean over places, which has a deviation of 1 again, to `(b, f, d)`.

    A few numbers that all places share make things that are whole, where a loss looks at places alone (FGN, Alet et al. 2025,
    arXiv:2506.10772).
    """

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.hidden = nn.Linear(channels, width)
        self.out = nn.Linear(width, width)

    def forward(self, noise: Tensor) -> Tensor:
        places = noise.shape[3] * noise.shape[4]
        return self.out(F.silu(self.hidden(noise.mean(dim=(3, 4)).transpose(1, 2) * math.sqrt(places))))


class PlaceEmbedding(nn.Module):
    """Where a patch lies in its frame, relative to the frame's borders: rotary positions know only distances between
    tokens, but a wall is a place. `(height * width, d)` for any size."""

    FEATURES = 16

    def __init__(self, width: int):
        super().__init__()
        self.out = nn.Linear(2 * self.FEATURES, width)

    def forward(self, height: int, width: int) -> Tensor:
        device = self.out.weight.device
        y = (torch.arange(height, device=device) + 0.5) / height
        x = (torch.arange(width, device=device) + 0.5) / width
        grid = torch.stack(torch.meshgrid(y, x, indexing="ij"), dim=-1)  # (h, w, 2)
        features = sinusoids(2 * math.pi * grid, self.FEATURES, max_period=1 / self.FEATURES)
        return self.out(features.flatten(0, 1).flatten(1))


class SquaredReLU(torch.autograd.Function):
    """relu(x)**2 (Primer, arXiv:2109.08668). Written out, since autograd's backward of `square` makes four passes over
    the widest tensor of a block, and a sixth of a training step on a CPU."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        positive = F.relu(x)
        ctx.save_for_backward(positive)
        return positive * positive

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (positive,) = ctx.saved_tensors
        return (gradient * positive).mul_(2)


class FeedForward(nn.Module):
    """Two linear maps with a squared ReLU between, the cheapest activation on a CPU."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(cast(Tensor, SquaredReLU.apply(self.up(x))))


class RotaryEmbedding(nn.Module):
    """Rotary positions over three axes (RoFormer, arXiv:2104.09864): a quarter of the pairs turn with the frame, the
    others with height and width."""

    def __init__(self, head_dim: int, theta: float):
        super().__init__()
        pairs = head_dim // 2
        frame = max(1, round(pairs / 4))
        self.sizes = (frame, (pairs - frame) // 2, pairs - frame - (pairs - frame) // 2)
        self.theta = theta

    def forward(self, frames: int, height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Cosine and sine `(frames, height * width, head_dim / 2)` of frame positions counted from zero, float32."""
        axes = [torch.arange(n, device=device).float() for n in (frames, height, width)]
        grid = torch.meshgrid(*axes, indexing="ij")
        angles = torch.cat([g.flatten()[:, None] * self._frequencies(n, device) for g, n in zip(grid, self.sizes)], -1)
        angles = angles.reshape(frames, height * width, -1)
        return angles.cos(), angles.sin()

    def _frequencies(self, pairs: int, device: torch.device) -> Tensor:
        return self.theta ** (-torch.arange(pairs, device=device) / max(pairs, 1))


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the pairs (i, i + head_dim/2) of `x` (..., head_dim) by the angles (..., head_dim / 2)."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)
