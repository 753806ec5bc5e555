"""Parts of the VAE: causal convolutions with an explicit cache, and changes of resolution that keep the first frame alone.

All activations are `(b, c, f, h, w)` in the channels-last memory format.
"""

import torch
import torch.nn.functional as F
from einops import rearrange, reduce, repeat
from torch import Tensor, nn

Cache = tuple[Tensor, ...]


class Stream:
    """One pass over one chunk: hands each causal convolution what it saw last, and collects what it will need next.

    Args:
        cache: what an earlier chunk left, or None at the start of a video.
        keep: collect the next cache (clones of a few frames).
    """

    def __init__(self, cache: Cache | None, keep: bool):
        self.starts = cache is None
        self._old = iter(cache or ())
        self._new: list[Tensor] | None = [] if keep else None

    def before(self, x: Tensor, frames: int) -> Tensor:
        """`x` with the `frames` frames before it; a video's first frame is repeated before its start."""
        old = x[:, :, :1].expand(-1, -1, frames, -1, -1) if self.starts else next(self._old).to(x.dtype)
        joined = torch.cat([old, x], dim=2)
        if self._new is not None:
            self._new.append(joined[:, :, -frames:].clone())
        return joined

    @property
    def cache(self) -> Cache:
        assert self._new is not None
        return tuple(self._new)


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
        return self.conv(stream.before(x, self.frames - 1) if self.frames > 1 else x)


class PositionNorm(nn.Module):
    """Layer norm over channels at each position: nothing is pooled over time or space."""

    def __init__(self, channels: int):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        last = x.permute(0, 2, 3, 4, 1)  # contiguous in channels-last, where this costs a third of a norm over axis 1
        return F.layer_norm(last, self.gain.shape, self.gain.to(x.dtype)).permute(0, 4, 1, 2, 3)


class ResidualBlock(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.norm_in, self.conv_in = PositionNorm(channels), CausalConv(channels, channels)
        self.norm_out, self.conv_out = PositionNorm(channels), CausalConv(channels, channels, frames=1, zero=True)

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        hidden = self.conv_in(F.silu(self.norm_in(x)), stream)
        return x + self.conv_out(F.silu(self.norm_out(hidden)), stream)


class Downsample(nn.Module):
    """Join `t` frames and `p` x `p` pixels: a convolution and space-time to channels, plus the same of the input with
    channels averaged (DC-AE, arXiv:2410.10733)."""

    def __init__(self, inputs: int, outputs: int, t: int, p: int):
        super().__init__()
        self.t, self.p, self.outputs = t, p, outputs
        self.conv = CausalConv(inputs, outputs // (t * p * p))

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        hidden = self._fold(self.conv(x, stream), stream.starts)
        return hidden + reduce(self._fold(x, stream.starts), "b (o g) f h w -> b o f h w", "mean", o=self.outputs)

    def _fold(self, x: Tensor, starts: bool) -> Tensor:
        if self.t == 2 and starts:
            x = torch.cat([x[:, :, :1], x], dim=2)  # the first frame makes a pair with itself
        return rearrange(x, "b c (f t) (h p) (w q) -> b (t p q c) f h w", t=self.t, p=self.p, q=self.p)


class Upsample(nn.Module):
    """The reverse: a convolution and channels to space-time, plus the same of the input with channels repeated."""

    def __init__(self, inputs: int, outputs: int, t: int, p: int):
        super().__init__()
        self.t, self.p, self.copies = t, p, outputs * t * p * p // inputs
        self.conv = CausalConv(inputs, outputs * t * p * p)

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        copied = repeat(x, "b c f h w -> b (c g) f h w", g=self.copies)
        return self._unfold(self.conv(x, stream) + copied, stream.starts)

    def _unfold(self, x: Tensor, starts: bool) -> Tensor:
        x = rearrange(x, "b (t p q c) f h w -> b c (f t) (h p) (w q)", t=self.t, p=self.p, q=self.p)
        return x[:, :, 1:] if self.t == 2 and starts else x
