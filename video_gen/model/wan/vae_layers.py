"""Parts of the WanVAE: causal convolutions, norms, attention within a frame, and changes of resolution, with an explicit cache.

Activations are `(b, f, h, w, c)`, contiguous, as in `model/vae_layers.py`. Parameters have the names and shapes of the original
release. Before a video's start there are zeros; its first frame goes alone through every change of frame rate.
"""

from math import sqrt
from typing import cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from video_gen.model.vae_layers import Stream
from video_gen.model.wan.vae_kernels import causal, doubled

SHORTEST = 1e-12
"""Length of the channels of a position that a norm still divides by, so that zeros stay zeros."""


class CausalConv(nn.Conv3d):
    """3 x 3 x 3, or pointwise: 1 x 1 x 1."""

    def __init__(self, inputs: int, outputs: int, size: int = 3):
        super().__init__(inputs, outputs, size)

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        assert self.bias is not None
        return causal(stream.before(x, 2, zeros=True), self.weight, self.bias, stream.starts)


def pointwise(x: Tensor, conv: nn.Module) -> Tensor:
    """A convolution of one position, as a product along the channels."""
    weight, bias = cast(Tensor, conv.weight), cast(Tensor, conv.bias)
    return F.linear(x, weight.flatten(1), bias)


class Norm(nn.Module):
    """Root mean square norm over the channels of a position, as a length: on a CPU a seventh of the time of `F.rms_norm`."""

    def __init__(self, channels: int, axes: int):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels, *(1,) * axes))

    def forward(self, x: Tensor) -> Tensor:
        if not x.is_cpu:
            return F.rms_norm(x, x.shape[-1:], self.gamma.flatten().to(x.dtype), SHORTEST**2).to(x.dtype)
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32).clamp(min=SHORTEST)
        return x * (sqrt(x.shape[-1]) / length).to(x.dtype) * self.gamma.flatten().to(x.dtype)


def activated(norm: nn.Module, x: Tensor) -> Tensor:
    return F.silu(norm(x), inplace=not torch.is_grad_enabled())


class ResidualBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.residual = nn.ModuleDict(
            {
                "0": Norm(inputs, 3),
                "2": CausalConv(inputs, outputs),
                "3": Norm(outputs, 3),
                "6": CausalConv(outputs, outputs),
            }
        )
        self.shortcut = CausalConv(inputs, outputs, 1) if inputs != outputs else None

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        hidden = self.residual["2"](activated(self.residual["0"], x), stream)
        hidden = self.residual["6"](activated(self.residual["3"], hidden), stream)
        return hidden + (x if self.shortcut is None else pointwise(x, self.shortcut))


class Attention(nn.Module):
    """One head over the places of a frame; frames do not see each other."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = Norm(channels, 2)
        self.to_qkv = nn.Conv2d(channels, channels * 3, 1)
        self.proj = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        b, f, h, w, c = x.shape
        q, k, v = pointwise(self.norm(x), self.to_qkv).view(b * f, 1, h * w, 3 * c).chunk(3, dim=-1)
        mixed = F.scaled_dot_product_attention(q, k, v)
        return x + pointwise(mixed.view(b, f, h, w, c), self.proj)


def middle(channels: int) -> nn.ModuleList:
    return nn.ModuleList([ResidualBlock(channels, channels), Attention(channels), ResidualBlock(channels, channels)])


def head(inputs: int, outputs: int) -> nn.ModuleDict:
    return nn.ModuleDict({"0": Norm(inputs, 3), "2": CausalConv(inputs, outputs)})


# -------------------- changes of resolution


class Downsample(nn.Module):
    """Halve height and width, and with `temporal` join pairs of frames after the first."""

    def __init__(self, channels: int, temporal: bool):
        super().__init__()
        self.resample = nn.ModuleDict({"1": nn.Conv2d(channels, channels, 3, stride=2)})
        self.time_conv = nn.Conv3d(channels, channels, (3, 1, 1), stride=(2, 1, 1)) if temporal else None

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        x = in_pictures(F.pad(x, (0, 0, 0, 1, 0, 1)), self.resample["1"])
        if self.time_conv is None:
            return x
        seen = stream.before(x, 1, zeros=True)
        if not stream.starts:
            return in_time(seen, self.time_conv)
        return torch.cat([x[:, :1], in_time(seen[:, 1:], self.time_conv)], dim=1) if x.shape[1] > 1 else x


class Upsample(nn.Module):
    """Double height and width, and with `temporal` make two frames of each but the first, which the others' do not see."""

    def __init__(self, channels: int, outputs: int, temporal: bool):
        super().__init__()
        self.resample = nn.ModuleDict({"1": nn.Conv2d(channels, outputs, 3, padding=1)})
        self.time_conv = nn.Conv3d(channels, 2 * channels, (3, 1, 1)) if temporal else None

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        if self.time_conv is not None:
            first, later = (x[:, :1], x[:, 1:]) if stream.starts else (x[:, :0], x)
            seen = stream.before(later, 2, zeros=True)
            if later.shape[1]:
                later = rearrange(in_time(seen, self.time_conv), "b f h w (t c) -> b (f t) h w c", t=2)
            x = torch.cat([first, later], dim=1) if stream.starts else later
        conv = self.resample["1"]
        return doubled(x, cast(Tensor, conv.weight), cast(Tensor, conv.bias))


def in_pictures(x: Tensor, conv: nn.Module) -> Tensor:
    """A two-dimensional convolution of each frame."""
    b = x.shape[0]
    return conv(x.flatten(0, 1).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).unflatten(0, (b, -1))


def in_time(x: Tensor, conv: nn.Module) -> Tensor:
    """A convolution of each place along time."""
    return conv(x.permute(0, 4, 1, 2, 3)).permute(0, 2, 3, 4, 1)


# -------------------- Wan 2.2: past a change of resolution


class DownLevel(nn.Module):
    """The blocks of one resolution and what follows, beside averages of what comes in."""

    def __init__(self, inputs: int, outputs: int, blocks: int, temporal: bool | None):
        super().__init__()
        layers: list[nn.Module] = [ResidualBlock(inputs if i == 0 else outputs, outputs) for i in range(blocks)]
        self.downsamples = nn.ModuleList(layers + ([] if temporal is None else [Downsample(outputs, temporal)]))
        self.t, self.p, self.outputs = 2 if temporal else 1, 1 if temporal is None else 2, outputs

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        hidden = x
        for layer in self.downsamples:
            hidden = layer(hidden, stream)
        if self.t == 2 and stream.starts:
            x = F.pad(x, (0, 0, 0, 0, 0, 0, 1, 0))  # the first frame makes a pair with zeros
        cells = rearrange(x, "b (f t) (h p) (w q) c -> b f h w (c t p q)", t=self.t, p=self.p, q=self.p)
        return hidden + cells.unflatten(-1, (self.outputs, -1)).mean(-1)


class UpLevel(nn.Module):
    """The blocks of one resolution and what follows, beside copies of what comes in."""

    def __init__(self, inputs: int, outputs: int, blocks: int, temporal: bool | None):
        super().__init__()
        layers: list[nn.Module] = [ResidualBlock(inputs if i == 0 else outputs, outputs) for i in range(blocks)]
        self.upsamples = nn.ModuleList(layers + ([] if temporal is None else [Upsample(outputs, outputs, temporal)]))
        self.t, self.copies = 2 if temporal else 1, temporal is not None
        self.repeats = outputs * self.t * 4 // inputs

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        hidden = x
        for layer in self.upsamples:
            hidden = layer(hidden, stream)
        if not self.copies:
            return hidden
        cells = x.repeat_interleave(self.repeats, dim=-1)
        cells = rearrange(cells, "b f h w (c t p q) -> b (f t) (h p) (w q) c", t=self.t, p=2, q=2)
        return hidden + (cells[:, 1:] if self.t == 2 and stream.starts else cells)
