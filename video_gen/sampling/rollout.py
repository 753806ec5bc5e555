"""Clip, block after block, endless: one loop over blocks, each denoised given the history of those before it."""

from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor

from video_gen.model.diffusion import Diffusion
from video_gen.sampling.config import SamplingConfig
from video_gen.sampling.guidance import Denoiser, GuidedDenoiser
from video_gen.sampling.solvers import SOLVERS, sample_noise, timesteps


class BlockModel(Protocol):
    """What a rollout needs of a model: estimates for a block, and a history to append to. A history is a plain value."""

    def conditional(self, history: Any) -> Denoiser:
        """(noisy (b, c, f, h, w), t (b,)) to the denoised estimate, given the prompt and the history."""
        ...

    def unconditional(self, history: Any) -> Denoiser:
        """The same without the prompt."""
        ...

    def append(self, history: Any, latents: Tensor) -> Any:
        """The history with finished frames (b, c, f, h, w) at its end; `history` None is the empty one."""
        ...


def rollout(
    model: BlockModel,
    blocks: Iterable[int],
    shape: tuple[int, int, int],
    given: Tensor | None,
    diffusion: Diffusion,
    sampling: SamplingConfig,
    generators: list[torch.Generator],
) -> Iterator[Tensor]:
    """Blocks of latents, one by one; `blocks` may be endless.

    Args:
        blocks: frames of each block.
        shape: (c, h, w) of a latent frame.
        given: (b, c, f, h, w) latents that come before the first block, or None.
        generators: one per sample, so that a sample does not depend on its batch.
    Returns: an iterator of (b, c, frames of the block, h, w).
    """
    history = None if given is None else model.append(None, given)
    times = timesteps(sampling.num_steps, sampling.shift)
    c, h, w = shape
    pending: Tensor | None = None
    for size in blocks:
        if pending is not None:
            history = model.append(history, pending)
        denoiser = GuidedDenoiser(
            model.conditional(history),
            model.unconditional(history),
            sampling.guidance_scale,
            sampling.guidance_interval,
            sampling.guidance_rescale,
        )
        noise = sample_noise((len(generators), c, size, h, w), generators)
        pending = SOLVERS[sampling.solver](denoiser, noise, times.to(noise.device), diffusion, generators)
        yield pending
