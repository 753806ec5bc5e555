"""How a picture moved since the one before it: dense optical flow by least squares, on any device and without weights."""

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

LEVELS = 3
"""Pictures of half the size each, from the smallest on: the last sees motion of up to some pixels of its own."""
SMALLEST = 8
"""Pixels of a side, of the smallest."""
ROUNDS = 2
"""At each size."""
REACH = 3
"""Pixels around each, which move as it does."""
DAMPING = 0.2
"""Beside squared differences between neighbours, of pixels in [-1, 1] and three colours: what is too plain to tell how it moves
stands still, and what moves is thought to be a little slower than it is. By how far what was seen goes on in footage."""


@torch.no_grad()
def motion(now: Tensor, before: Tensor) -> Tensor:
    """Where what each pixel shows was one picture before, by least squares around it (Lucas and Kanade 1981), from coarse to fine
    (Bouguet 2001). Nothing moves where pictures are equal.

    Args: now, before: (n, c, h, w) in [-1, 1].
    Returns: (n, h, w, 2), relative to the pixel, in pixels down and right.
    """
    now, before = now.float(), before.float()
    sizes = [(now, before)]
    while len(sizes) < LEVELS and min(sizes[-1][0].shape[2:]) >= 2 * SMALLEST:
        a, b = sizes[-1]
        sizes.append((F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)))
    found = now.new_zeros(len(now), 2, *sizes[-1][0].shape[2:])
    for a, b in reversed(sizes):
        if found.shape[2:] != a.shape[2:]:
            found = 2 * F.interpolate(found, size=a.shape[2:], mode="bilinear", align_corners=False)
        down, right = slopes(a)
        dd, dr, rr = around((down * down, down * right, right * right))
        dd, rr = dd + DAMPING, rr + DAMPING
        for _ in range(ROUNDS):
            left = a - moved(b, found.movedim(1, -1))
            d, r = around((down * left, right * left))
            step = torch.stack([rr * d - dr * r, dd * r - dr * d], dim=1) / (dd * rr - dr * dr)[:, None]
            found = found + step.clamp(-1, 1)
    return found.movedim(1, -1)


def moved(pictures: Tensor, flow: Tensor) -> Tensor:
    """Pictures (n, c, h, w) as each pixel of (n, h', w, 2) shows them, of k * h rows: h' / h of them in one column, each of which
    begins anew; bilinear between pixels, beyond the border its nearest."""
    h, w = pictures.shape[2:]
    grid = flow * flow.new_tensor([2 / h, 2 / w])
    grid = grid.flip(-1) + centres(flow.shape[1] // h, h, w, flow)
    return F.grid_sample(pictures, grid, padding_mode="border", align_corners=False)


def centres(times: int, height: int, width: int, like: Tensor) -> Tensor:
    """(times * height, width, 2): where each pixel lies, right and down, of a picture that reaches from -1 to 1; `times` over."""
    y, x = ((2 * torch.arange(n, device=like.device, dtype=like.dtype) + 1) / n - 1 for n in (height, width))
    return torch.stack(torch.broadcast_tensors(x, y.repeat(times)[:, None]), dim=-1)


def slopes(pictures: Tensor) -> tuple[Tensor, Tensor]:
    """How much the next pixel down, and to the right, differs from the one on the other side, by pixel of distance."""
    p = F.pad(pictures, (1, 1, 1, 1), mode="replicate")
    return (p[:, :, 2:, 1:-1] - p[:, :, :-2, 1:-1]) / 2, (p[:, :, 1:-1, 2:] - p[:, :, 1:-1, :-2]) / 2


def around(values: Sequence[Tensor]) -> Iterable[Tensor]:
    """Their sums over colours, means over what is near: each (n, c, h, w) to (n, h, w)."""
    size = 2 * REACH + 1
    summed = F.pad(torch.stack([each.sum(1) for each in values], dim=1), (REACH,) * 4, mode="replicate")
    return F.avg_pool2d(F.avg_pool2d(summed, (size, 1), 1), (1, size), 1).unbind(1)  # in turn: 14 numbers, not 49
