"""Parts of the VAE: causal convolutions with an explicit cache, and changes of resolution that keep the first frame alone.

All activations are `(b, f, h, w, c)`, contiguous: channels last, as the convolutions, the norms and the folding of pixels into
channels all want it, so that no step copies them into another layout.
"""

from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

convolution_backward = torch.ops.aten.convolution_backward

Cache = tuple[Tensor, ...]
Caches = tuple[Cache, ...]
"""One of each tile."""


class Stream:
    """One pass over one chunk: hands each causal convolution what it saw last, and collects what it will need next.

    Args:
        cache: what an earlier chunk left, or None at the start of a video.
        keep: collect the next cache (clones of a few frames).
    """

    def __init__(self, cache: Cache | None, keep: bool):
        self.starts = cache is None
        self._old = list(reversed(cache or ()))  # each is let go when it was used
        self._new: list[Tensor] | None = [] if keep else None

    def before(self, x: Tensor, frames: int, zeros: bool = False) -> Tensor:
        """`x` with the `frames` frames before it; before a video's start, its first frame is repeated, or there are zeros."""
        if not self.starts:
            old = [self._old.pop().to(x.dtype)]
        else:
            old = [x.new_zeros(x.shape[0], frames, *x.shape[2:])] if zeros else [x[:, :1]] * frames
        joined = torch.cat([*old, x], dim=1)
        if self._new is not None:
            self._new.append(joined[:, -frames:].clone())
        return joined

    def keep(self) -> None:
        """Collect the next cache from now on: of what is yet to come."""
        self._new = self._new if self._new is not None else []

    def advance(self) -> None:
        """Go on with the next part of the same chunk."""
        self._old, self._new, self.starts = list(reversed(self.cache)), [], False

    @property
    def cache(self) -> Cache:
        assert self._new is not None
        return tuple(self._new)


def working(x: Tensor) -> Tensor:
    """In the number format that convolutions will run in, so that no later step converts more values than these."""
    device = x.device.type
    return x.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else x


class TapwiseGradient(torch.autograd.Function):
    """`F.conv3d` with height and width padded by one, whose weight gradient is made frame tap by frame tap in two dimensions.

    On CPUs with AMX, torch's own in bfloat16 (2.11 to 2.13, oneDNN) is wrong from pictures of about 64 pixels on: off by a tenth,
    NaN, or a crash. The output and the input's gradient are right.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """`x` (b, c, f, h, w) and `weight` (out, c, frames, 3, 3) to (b, out, f - frames + 1, h, w)."""
        ctx.save_for_backward(x, weight)
        return F.conv3d(x, weight, bias, padding=(0, 1, 1))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        out, _, frames, _, _ = weight.shape
        gradient = gradient.contiguous(memory_format=torch.channels_last_3d)
        to_input = None
        if ctx.needs_input_grad[0]:
            to_input = convolution_backward(
                gradient, x, weight, [out], [1, 1, 1], [0, 1, 1], [1, 1, 1], False, [0, 0, 0], 1, [True, False, False]
            )[0]
        pictures, taps = _pictures(gradient), []
        for tap in range(frames):
            seen = _pictures(x[:, :, tap : tap + gradient.shape[2]])
            kernel = weight[:, :, tap]
            taps.append(
                convolution_backward(
                    pictures, seen, kernel, [out], [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [False, True, False]
                )[1]
            )
        return to_input, torch.stack(taps, dim=2), gradient.float().sum((0, 2, 3, 4)).to(gradient.dtype)


def _pictures(video: Tensor) -> Tensor:
    """(b, c, f, h, w) to (b * f, c, h, w), channels last."""
    return video.permute(0, 2, 3, 4, 1).flatten(0, 1).permute(0, 3, 1, 2)


class CausalConv(nn.Module):
    """Convolution over (frames, height, width) that sees no later frame.

    Frames are put in front here and not by the convolution: its bfloat16 weight gradient on a CPU is wrong when it pads a
    depth of two itself.
    """

    def __init__(self, inputs: int, outputs: int, frames: int = 3, zero: bool = False):
        super().__init__()
        self.frames = frames
        self.conv = nn.Conv3d(inputs, outputs, (frames, 3, 3), padding=(0, 1, 1))
        if zero:
            nn.init.zeros_(self.conv.weight)
        assert self.conv.bias is not None
        nn.init.zeros_(self.conv.bias)

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        x = stream.before(x, self.frames - 1) if self.frames > 1 else x
        assert self.conv.bias is not None
        return convolve(x, self.conv.weight, self.conv.bias)


def convolve(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`x` (b, f, h, w, c) and `weight` (out, c, frames, 3, 3) to (b, f - frames + 1, h, w, out); see `TapwiseGradient`."""
    x = x.permute(0, 4, 1, 2, 3)
    if x.is_cpu and torch.is_grad_enabled() and _computes_in_bfloat16(x):
        made: Any = TapwiseGradient.apply(x.bfloat16(), weight.bfloat16(), bias.bfloat16())
    else:
        made = F.conv3d(x, weight, bias, padding=(0, 1, 1))
    return made.permute(0, 2, 3, 4, 1)


def _computes_in_bfloat16(x: Tensor) -> bool:
    autocast = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
    return autocast or x.dtype == torch.bfloat16


class PositionNorm(nn.Module):
    """Layer norm over channels at each position, then SiLU: nothing is pooled over time or space."""

    def __init__(self, channels: int):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        normed = F.layer_norm(x, self.gain.shape, self.gain.to(x.dtype)).to(x.dtype)  # see `layers.layer_norm`
        return F.silu(normed, inplace=not torch.is_grad_enabled())


class ResidualBlock(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.norm_in, self.conv_in = PositionNorm(channels), CausalConv(channels, channels)
        self.norm_out, self.conv_out = PositionNorm(channels), CausalConv(channels, channels, frames=1, zero=True)

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        hidden = self.conv_in(self.norm_in(x), stream)
        return self.conv_out(self.norm_out(hidden), stream) + x


class Downsample(nn.Module):
    """Join `t` frames and `p` x `p` pixels: a convolution and space-time to channels, plus the same of the input with
    channels averaged (DC-AE, arXiv:2410.10733). Averaging first is the same, and moves fewer values."""

    def __init__(self, inputs: int, outputs: int, t: int, p: int):
        super().__init__()
        self.t, self.p = t, p
        self.conv = CausalConv(inputs, outputs // (t * p * p))

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        hidden = self.conv(x, stream)
        hidden = add_product(hidden, x, averaging(x.shape[-1], hidden.shape[-1], x))
        if self.t == 2 and stream.starts:
            hidden = torch.cat([hidden[:, :1], hidden], dim=1)  # the first frame makes a pair with itself
        return rearrange(hidden, "b (f t) (h p) (w q) c -> b f h w (t p q c)", t=self.t, p=self.p, q=self.p)


class Upsample(nn.Module):
    """The reverse: a convolution and channels to space-time, plus the same of the input with channels repeated."""

    def __init__(self, inputs: int, outputs: int, t: int, p: int):
        super().__init__()
        self.t, self.p = t, p
        self.conv = CausalConv(inputs, outputs * t * p * p)

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        hidden = self.conv(x, stream)
        hidden = add_product(hidden, x, copying(x.shape[-1], hidden.shape[-1], x))
        hidden = rearrange(hidden, "b f h w (t p q c) -> b (f t) (h p) (w q) c", t=self.t, p=self.p, q=self.p)
        return hidden[:, 1:] if self.t == 2 and stream.starts else hidden


def add_product(x: Tensor, y: Tensor, matrix: Tensor) -> Tensor:
    """`x + y @ matrix` along the channels, in one pass over `x`: a tenth of the time of averaging or repeating a few
    neighbouring channels by themselves."""
    return torch.addmm(x.flatten(0, 3), y.flatten(0, 3), matrix).view(x.shape)


def averaging(inputs: int, outputs: int, like: Tensor) -> Tensor:
    """(inputs, outputs), by which each output is the mean of as many neighbouring inputs."""
    return copying(outputs, inputs, like).T * (outputs / inputs)


def copying(inputs: int, outputs: int, like: Tensor) -> Tensor:
    """(inputs, outputs), by which each input becomes as many neighbouring outputs."""
    return torch.eye(inputs, dtype=like.dtype, device=like.device).repeat_interleave(outputs // inputs, dim=1)
