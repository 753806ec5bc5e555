"""What is told of a video while it is made, after each call of the network. Who is told may stop it, by raising."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from video_gen.sampling.guidance import Denoiser


@dataclass(frozen=True)
class Step:
    """Where a video stands."""

    block: int
    """From 0 on, of `blocks` that are made."""
    blocks: int
    step: int
    """From 1 on, of the block's `steps`."""
    steps: int
    start: int
    """Latent frames before the block."""
    estimate: Tensor
    """(b, c, f, h, w) of the block's denoised latents."""

    @property
    def done(self) -> float:
        """The part of the work that is behind, 0 to 1; blocks count alike."""
        return (self.block + self.step / self.steps) / self.blocks


Watch = Callable[[Step], None]
Look = Callable[[int, int, Tensor], None]
"""(step, steps, estimate) of one block."""


def watched(denoiser: Denoiser, times: Tensor, look: Look) -> Denoiser:
    """The same, which tells each of its estimates. Args: times: of the steps, from the first down to 0."""
    known = times.tolist()
    steps = len(known) - 1

    def denoise(noisy: Tensor, t: Tensor) -> Tensor:
        estimate = denoiser(noisy, t)
        now = float(t.max())
        look(max(1, sum(time >= now for time in known[:-1])), steps, estimate)
        return estimate

    return denoise
