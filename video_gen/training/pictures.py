"""What a public model is told in training of the picture that each clip begins with (`sampling/pictures.py` tells the ways)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from video_gen.data.latents import LatentSet
from video_gen.model.wan.config import WanTransformerConfig
from video_gen.sampling.pictures import with_mask

TOLD = ("beside", "clip_tokens")
"""Entries of a batch that are arguments of `WanTransformer.forward`, too."""


@dataclass(frozen=True)
class Pictures:
    """
    Args:
        config: of the transformer. `stride`: pixel frames of a latent one.
        share: of the samples that begin with their picture, where a model can do without (Wan 2.2's 5B).
        tokens: from a clip to CLIP's tokens of its picture, or of its first and last, where the model takes them.
    """

    config: WanTransformerConfig
    stride: int
    share: float
    tokens: Callable[[str], Tensor] | None = None

    def of(self, clips: LatentSet, indices: Sequence[int], drawn: np.ndarray) -> dict[str, Tensor]:
        """Entries of a batch of clips. Args: drawn: a number in [0, 1) for each."""
        if self.config.first_frame:
            return {"begun": torch.from_numpy(drawn < self.share)}
        if not self.config.beside_channels:
            return {}
        known = torch.stack([clips.picture(i) for i in indices])
        entries = {"beside": with_mask(known, self.stride, self.config.image_positions is not None)}
        if self.tokens is not None:
            entries["clip_tokens"] = torch.stack([self.tokens(clips.clip_id(i)) for i in indices])
        return entries


def begun_at(t: Tensor, begun: Tensor | None) -> Tensor:
    """Diffusion times (b, f), 0 at the first frame of the samples (b,) that begin with their picture, which is clean then."""
    if begun is None:
        return t
    first = torch.arange(t.shape[1], device=t.device) == 0
    return t.masked_fill(begun[:, None] & first, 0.0)


def made(keep: Tensor | None, begun: Tensor | None, frames: int) -> Tensor | None:
    """(b, f), which frames count: of those that did, the ones that are not given. None = all."""
    if begun is None:
        return keep
    first = torch.arange(frames, device=begun.device) == 0
    counts = ~(begun[:, None] & first)
    return counts if keep is None else keep & counts
