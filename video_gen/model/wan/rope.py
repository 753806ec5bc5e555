"""Rotary positions of the Wan family (RoFormer, arXiv:2104.09864): each axis has frequencies of its own."""

import torch
from torch import Tensor


def rotary_sizes(head_dim: int) -> tuple[int, int, int]:
    """Features of a head that turn with frame, height and width: a sixth each in pairs, and what is left to the frames."""
    place = 2 * (head_dim // 6)
    return head_dim - 2 * place, place, place


def rotary_tables(
    head_dim: int, theta: float, frames: int, height: int, width: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Cosine and sine `(frames, height * width, head_dim / 2)`, float32, of positions counted from zero."""
    angles = []
    for count, size in zip((frames, height, width), rotary_sizes(head_dim)):
        powers = torch.arange(0, size, 2, device=device, dtype=torch.float64) / size
        angles.append(torch.arange(count, device=device, dtype=torch.float64)[:, None] * theta**-powers)
    frame, row, column = angles
    shape = (frames, height, width, -1)
    grid = [frame[:, None, None].expand(shape), row[None, :, None].expand(shape), column[None, None].expand(shape)]
    whole = torch.cat(grid, dim=-1).flatten(1, 2)
    return whole.cos().float(), whole.sin().float()
