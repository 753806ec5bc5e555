"""Frames cut into tiles, and joined again."""

import torch
from torch import Tensor

from video_gen.errors import ShapeError
from video_gen.model.vae_layers import Cache, Caches

Places = list[tuple[tuple[int, int, int], tuple[int, int, int]]]
"""((start, start with halo, end with halo) of rows, the same of columns) of each tile, row by row."""


def tiles(height: int, width: int, tile: int, halo: int) -> Places:
    def along(size: int) -> list[tuple[int, int, int]]:
        return [(at, max(0, at - halo), min(size, at + tile + halo)) for at in range(0, size, tile)]

    return [(row, column) for row in along(height) for column in along(width)]


def cache_of(caches: Caches | None, index: int, count: int) -> Cache | None:
    if caches is not None and len(caches) != count:
        raise ShapeError(
            f"{len(caches)} caches, and {count} are used; keep the frame size and the tile of the first chunk"
        )
    return None if caches is None else caches[index]


def stitch(parts: list[tuple[int, Tensor]]) -> Tensor:
    """(Start of the row, tile (b, c, f, h, w)) of each, row by row, to the whole frames."""
    rows: dict[int, list[Tensor]] = {}
    for y, part in parts:
        rows.setdefault(y, []).append(part)
    return torch.cat([torch.cat(row, dim=4) for row in rows.values()], dim=3)
