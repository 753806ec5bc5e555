"""Convolutions of the WanVAE with less arithmetic than is written: the same values up to rounding.

Activations are `(b, f, h, w, c)`, contiguous. On these CPUs a convolution runs at the rate of a matrix product, so what saves time
is to multiply less.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from video_gen.model.vae_layers import convolve

PAIRS_CHANNELS, PAIRS_POSITIONS = 128, 4096
"""From so many channels, and positions of all frames, on, pairs of frames are worth their sums, and the weights'."""


def causal(x: Tensor, weight: Tensor, bias: Tensor, starts: bool) -> Tensor:
    """3 x 3 x 3: `x` with two frames in front, (b, 2 + f, h, w, c), to (b, f, h, w, out); at a video's start they are zeros,
    which are not multiplied for its first frame."""
    if not starts:
        return _frames(x, weight, bias)
    first = convolve(x[:, 2:3], weight[:, :, 2:], bias)
    return torch.cat([first, _frames(x[:, 1:], weight, bias)], dim=1) if x.shape[1] > 3 else first


def _frames(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    frames = x.shape[1] - 2
    large = weight.shape[1] >= PAIRS_CHANNELS and x[:, 2:, :, :, 0].numel() >= PAIRS_POSITIONS
    if x.is_cpu and large and frames % 2 == 0 and not torch.is_grad_enabled():
        return in_pairs(x, weight, bias)
    return convolve(x, weight, bias)


def in_pairs(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`convolve` of an even number of frames: two of them with four convolutions of pictures in place of six.

    Source: Winograd's F(2, 3), along time; Lavin and Gray 2015, arXiv:1509.09308.
    """
    frames = x.shape[1] - 2
    a, b, c, d = x[:, 0:frames:2], x[:, 1 : frames + 1 : 2], x[:, 2 : frames + 2 : 2], x[:, 3::2]
    early, now, late = weight.float().unbind(2)
    ends = (early + late) / 2
    outer = _pictures(a - c, early), _pictures(b - d, late)
    even, odd = _pictures(b + c, ends + now / 2, bias), _pictures(c - b, ends - now / 2)
    return torch.stack([even + odd + outer[0], even - odd - outer[1]], dim=2).flatten(1, 2)


def _pictures(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A convolution of each frame of (b, f, h, w, c), padded by one."""
    b, dtype = x.shape[0], x.dtype
    kernel = weight.to(dtype).contiguous(memory_format=torch.channels_last)
    made = F.conv2d(x.flatten(0, 1).permute(0, 3, 1, 2), kernel, bias, padding=1)
    return made.permute(0, 2, 3, 1).unflatten(0, (b, -1))


def doubled(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The convolution, 3 x 3, of each frame after each pixel became 2 x 2: four of 2 x 2 of the frame as it is, one for each
    of the four, which see its neighbours on their side."""
    b, _, h, w, _ = x.shape
    up, here, down = weight.float().unbind(2)
    rows = torch.stack([up, here + down, up + here, down], dim=2).unflatten(2, (2, 2))  # out, c, side, row, column
    left, here, right = rows.unbind(-1)
    cells = torch.stack([left, here + right, left + here, right], dim=-1).unflatten(
        -1, (2, 2)
    )  # out, c, p, row, q, column
    kernel = cells.permute(2, 4, 0, 1, 3, 5).flatten(0, 2).to(x.dtype).contiguous(memory_format=torch.channels_last)
    made = F.conv2d(x.flatten(0, 1).permute(0, 3, 1, 2), kernel, bias.repeat(4), padding=1)
    made = made.permute(0, 2, 3, 1).unflatten(-1, (2, 2, -1))  # frame, h + 1, w + 1, p, q, out
    sides = [torch.stack([made[:, p : p + h, q : q + w, p, q] for q in (0, 1)], dim=3) for p in (0, 1)]
    return torch.stack(sides, dim=2).reshape(b, -1, 2 * h, 2 * w, made.shape[-1])
