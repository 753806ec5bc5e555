"""What was done, and its way into the network: a vector per latent frame beside that of the diffusion time.

So it reaches every layer by modulation. A frame carries the actions that led to *it*, which are facts and never change: so history
can be remembered. That the actions are added to the embedding of the noise is as in Oasis and DIAMOND (Alonso et al. 2024,
arXiv:2405.12399, section 3).
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from video_gen.errors import ShapeError


@dataclass(frozen=True)
class Actions:
    """The actions that led to latent frames."""

    values: Tensor
    """(b, f, n), as `latent_actions` makes them."""
    known: Tensor | None = None
    """(b,), False where nothing is known of them; None = all are."""


class ActionEmbedding(nn.Module):
    """(b, f, n) to (b, f, d); at the start of training, and where actions are not known, zero."""

    def __init__(self, size: int, width: int):
        super().__init__()
        self.size = size
        self.hidden = nn.Linear(size, width)
        self.out = nn.Linear(width, width)

    def forward(self, actions: Actions) -> Tensor:
        """Raises: ShapeError if they are others than the model's."""
        if actions.values.shape[-1] != self.size:
            raise ShapeError(
                f"actions have {actions.values.shape[-1]} numbers a latent frame, the model takes {self.size}; are they those "
                "of the model's own keys and axes?"
            )
        embedded = self.out(F.silu(self.hidden(actions.values)))
        return embedded if actions.known is None else embedded * actions.known[:, None, None]


def latent_actions(rows: Tensor, temporal_stride: int) -> Tensor:
    """The actions of clips frame by frame to those of their latent frames.

    Args: rows: (b, f, a) with f = 1 + k * temporal_stride; row t is what was done between frame t and frame t + 1.
    Returns: (b, 1 + k, a * temporal_stride), what led to the pixel frames of each latent frame; zeros for the first one.
    """
    b, f, a = rows.shape
    if (f - 1) % temporal_stride:
        raise ShapeError(
            f"{f} actions for latent frames of {temporal_stride}; give 1 + a multiple of {temporal_stride}"
        )
    led = rows[:, :-1].reshape(b, (f - 1) // temporal_stride, temporal_stride * a)
    return F.pad(led, (0, 0, 1, 0))


def of_frames(actions: Actions | None, first: int, count: int) -> Actions | None:
    """Those of some frames."""
    return actions and Actions(actions.values[:, first : first + count], actions.known)
