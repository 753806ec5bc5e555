"""Token routing: in training, some places of every frame skip the middle layers, which makes those cheaper.

Whole places over all frames skip, the same in the clean and the noisy stream. So tokens stay `(b, f, s, d)` with a smaller
`s`, masks by frame stay what they are, and attention over time finds the places it had. Where the layers end, skipped tokens
come back as they were.
Source: TREAD (Krause et al. 2025, arXiv:2501.04765), SPRINT (arXiv:2510.21986: dense again at the end of training). Differs:
places, not single tokens.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Route:
    """Which places go through layers `first` to `stop` - 1; all go through the others."""

    places: Tensor
    """(b, kept) indices, ascending."""
    first: int
    stop: int

    def __contains__(self, layer: int) -> bool:
        return self.first <= layer < self.stop

    def take(self, x: Tensor) -> Tensor:
        """`(b, f, s, d)` to `(b, f, kept, d)`."""
        return x.gather(2, self._index(x))

    def put(self, whole: Tensor, x: Tensor) -> Tensor:
        """`whole` (b, f, s, d) with the kept places replaced by `x`."""
        return whole.scatter(2, self._index(x), x)

    def table(self, table: Tensor) -> Tensor:
        """A rotary table (positions, s, n) of the kept places: (b, 1, positions, kept, n)."""
        return table[:, self.places].transpose(0, 1)[:, None]

    def _index(self, x: Tensor) -> Tensor:
        return self.places[:, None, :, None].expand(-1, x.shape[1], -1, x.shape[3])


def draw_places(batch: int, places: int, skip: float, generator: torch.Generator, device: torch.device) -> Tensor:
    """`Route.places` for one step: of each sample's `places` the share `skip` is left out, at least one kept."""
    kept = max(1, round(places * (1 - skip)))
    order = torch.rand(batch, places, generator=generator, device=device).argsort(dim=1)
    return order[:, :kept].sort(dim=1).values
