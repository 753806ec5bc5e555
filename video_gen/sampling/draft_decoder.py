"""A draft of a video from its latents in a moment: the linear map nearest to what the VAE's decoder makes of them."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor

from video_gen.data.clips import to_frames
from video_gen.model.video_vae import VideoVAE

LATENTS, CLIPS, GROUPS = 12, 4, 3
"""Of what it is fitted to: latents a side, clips, and groups of frames after the first one."""
RIDGE = 1e-4


@dataclass(frozen=True)
class DraftDecoder:
    """One map for the first latent frame and one for the others, from (c + 1) numbers, the last being 1, to a patch."""

    first: Tensor
    """(c + 1, 1, s, s, 3)"""
    later: Tensor
    """(c + 1, t, s, s, 3), `t` the temporal stride"""

    @classmethod
    @torch.no_grad()
    def fit(cls, vae: VideoVAE, device: torch.device | str = "cpu") -> Self:
        """By least squares, to the VAE's own decoding of moving clouds of colour."""
        t, s = vae.config.temporal_stride, vae.config.spatial_stride
        video = clouds(CLIPS, 1 + GROUPS * t, LATENTS * s).to(device)
        latents = vae.encode(video).mean
        decoded = vae.decode(latents).float()
        z = rearrange(latents.float(), "b c f h w -> b f h w c")
        maps = [
            _fit(z[:, :1], rearrange(decoded[:, :, :1], "b c (f t) (h p) (w q) -> b f h w (t p q c)", t=1, p=s, q=s)),
            _fit(z[:, 1:], rearrange(decoded[:, :, 1:], "b c (f t) (h p) (w q) -> b f h w (t p q c)", t=t, p=s, q=s)),
        ]
        first, later = (rearrange(m, "n (t p q c) -> n t p q c", p=s, q=s, c=3) for m in maps)
        return cls(first, later)

    @torch.no_grad()
    def __call__(self, latents: Tensor, start: int = 0, side: int = 128, most: int = 24) -> np.ndarray:
        """Frames to be looked at, of latents (c, f, h, w) whose first is the video's latent frame `start`.

        Args: side: pixels that a frame's longer side may have; most: frames, evenly spread over those there are.
        Returns: uint8 (f', h', w', 3), f' at most `most`.
        """
        s, (_, _, h, w) = self.first.shape[2], latents.shape
        wide = next(k for k in (*_divisors(s), 1) if k * max(h, w) <= side or k == 1)
        shown, stride = self._frames(latents.shape[1], start), self.later.shape[1]
        picked = [shown[i] for i in np.linspace(0, len(shown) - 1, min(most, len(shown))).round().astype(int)]
        made = []
        for frame, within in picked:
            whole = self.first if start + frame == 0 else self.later
            patch = reduce(whole[:, min(within, stride - 1)], "n (p a) (q b) c -> n p q c", "mean", p=wide, q=wide)
            z = F.pad(latents[:, frame].float(), (0, 0, 0, 0, 0, 1), value=1.0).to(patch.device)
            made.append(torch.einsum("nhw,npqc->chpwq", z, patch).reshape(3, h * wide, w * wide))
        return to_frames(torch.stack(made, dim=1))

    def _frames(self, count: int, start: int) -> list[tuple[int, int]]:
        """(latent frame, frame within its patch) of each pixel frame."""
        sizes = [1 if start + i == 0 else self.later.shape[1] for i in range(count)]
        return [(i, j) for i, many in enumerate(sizes) for j in range(many)]


def _fit(z: Tensor, patches: Tensor) -> Tensor:
    """(c + 1, n): from latents (..., c) to patches (..., n)."""
    a = F.pad(z.flatten(0, -2).double(), (0, 1), value=1.0)
    b = patches.flatten(0, -2).double()
    square = a.T @ a + RIDGE * len(a) * torch.eye(a.shape[1], dtype=a.dtype, device=a.device)
    return torch.linalg.solve(square, a.T @ b).float()


def _divisors(s: int) -> list[int]:
    return [k for k in range(s, 0, -1) if s % k == 0]


def clouds(count: int, frames: int, side: int) -> Tensor:
    """Coloured noise of several sizes that moves, (b, 3, f, h, w) in [-1, 1]; the same at each call."""
    generator = torch.Generator().manual_seed(0)
    video = torch.zeros(count, 3, frames, side, side)
    for cells in (2, 4, 8, side // 2):
        coarse = torch.randn(count, 3, max(2, frames // 4), cells, cells, generator=generator)
        video += F.interpolate(coarse, (frames, side, side), mode="trilinear", align_corners=True)
    return (0.6 * video).clamp(-1, 1)
