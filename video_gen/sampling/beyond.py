"""Beyond text: blocks of which something is known before they are made.

    a last frame, a loop    the last blocks see a picture that lies ahead (`TextConditioned.towards`)
    a source, at a strength the block starts from the source with noise on it, at a time below 1 (SDEdit, Meng et al. 2021,
                            arXiv:2108.01073)
    a higher frame rate     the same, from a linear blend of the frames given
    first frames            the block holds them, and the model is told that they are clean (`holding`)

What a block starts from is a `Draft`, which `rollout.advance` takes; text, history and block are the model's three streams as ever.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from video_gen.errors import ShapeError
from video_gen.model.diffusion import Diffusion
from video_gen.sampling.guidance import Denoiser

# -------------------- a source, at a strength


@dataclass(frozen=True)
class Draft:
    """What a block starts from."""

    latents: Tensor
    """(b, c, f, h, w)."""
    strength: float = 1.0
    """Diffusion time at which the block starts from `latents`, with noise on them; 1 = from noise alone."""

    def start(self, noise: Tensor, diffusion: Diffusion) -> Tensor:
        """The noisy latents at `strength`."""
        if self.strength == 1:  # where DDPM's path would leave some signal
            return noise
        t = torch.full((len(noise),), self.strength, device=noise.device)
        return diffusion.add_noise(self.latents.expand_as(noise), noise, t)

    def times(self, times: Tensor) -> Tensor:
        """Of a falling schedule from 1 to 0 the part below `strength`, which comes first."""
        return torch.cat([times.new_tensor([self.strength]), times[times < self.strength]])


def check(source: np.ndarray | None, strength: float, others: dict[str, Any]) -> None:
    """Raises: ShapeError for what does not go together; `others` are the values that are given beside a source."""
    clashing = [name for name, value in others.items() if value is not None and value is not False]
    if source is not None and clashing:
        raise ShapeError(f"both source and {clashing[0]}; a source gives every frame: leave the other out")
    if source is None and strength != 1:
        raise ShapeError(f"strength is {strength}, but there is no source to start from; give source=")
    if not 0 <= strength <= 1:
        raise ShapeError(f"strength is {strength}; it must be from 0, the source itself, to 1, nothing of it")
    if "last_image" in clashing and "loop" in clashing:
        raise ShapeError("both last_image and loop; a loop ends with its first frame: leave last_image out")


def cut(source: np.ndarray, num_frames: int | None, stride: int) -> np.ndarray:
    """The first `num_frames` of a source; None = as many of the first as the VAE takes.

    Raises: ShapeError, with the nearest numbers that fit.
    """
    if num_frames is None:
        return source[: 1 + (len(source) - 1) // stride * stride]
    if num_frames > len(source) or num_frames < 1 or (num_frames - 1) % stride:
        below = 1 + (max(1, min(num_frames, len(source))) - 1) // stride * stride
        near = [n for n in (below, below + stride) if n <= len(source)]
        raise ShapeError(
            f"num_frames is {num_frames}, of a source of {len(source)}: it must be 1 + a multiple of {stride} and no more "
            f"than there are; give num_frames {' or '.join(str(n) for n in near)}"
        )
    return source[:num_frames]


# -------------------- frames of a block that are known


def holding(denoiser: Denoiser, held: Tensor) -> Denoiser:
    """The same, for a block whose first frames are `held` (b, c, k, h, w): they go in clean and at time 0, and so they come out."""
    k = held.shape[2]

    def denoise(noisy: Tensor, t: Tensor) -> Tensor:
        times = (t[:, None] if t.ndim == 1 else t).repeat(1, noisy.shape[2] if t.ndim == 1 else 1)
        times[:, :k] = 0
        estimate = denoiser(torch.cat([held.to(noisy.dtype), noisy[:, :, k:]], dim=2), times)
        return torch.cat([held.to(estimate.dtype), estimate[:, :, k:]], dim=2)

    return denoise


# -------------------- a higher frame rate


def blend(frames: np.ndarray, factor: int) -> np.ndarray:
    """uint8 (f, h, w, 3) to (1 + (f - 1) * factor, h, w, 3): between two frames the weighted means of both."""
    share = np.arange(factor, dtype=np.float32)[:, None, None, None] / factor
    first, second = frames[:-1, None].astype(np.float32), frames[1:, None].astype(np.float32)
    between = (first + share * (second - first)).round().astype(np.uint8)
    return np.concatenate([between.reshape(-1, *frames.shape[1:]), frames[-1:]])
