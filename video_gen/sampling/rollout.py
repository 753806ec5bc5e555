"""Clip, block after block, endless: a state, and the step from one block to the next, given the history before it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from video_gen.model.diffusion import Diffusion
from video_gen.sampling.beyond import Draft, holding
from video_gen.sampling.config import SamplingConfig
from video_gen.sampling.guidance import Branches, Denoiser, GuidedDenoiser
from video_gen.sampling.solvers import SOLVERS, sample_noise, times_of
from video_gen.sampling.watching import Look, watched


class BlockModel(Branches, Protocol):
    """What a rollout needs of a model: estimates for a block, and a history to append to. A history is a plain value."""

    def append(
        self,
        history: Any,
        latents: Tensor,
        t: Tensor,
        actions: Tensor | None = None,
        before: Tensor | None = None,
    ) -> Any:
        """The history with finished frames (b, c, f, h, w) at its end, which have noise of time `t` (b,) on them; `history`
        None is the empty one. `actions` (b, f, n) led to them; None = nothing is known of that. `before`: the frames without
        the noise; None = there is none."""
        ...

    def doing(self, actions: Tensor) -> Self:
        """The same, for a block to whose frames the actions (b, f, n) lead."""
        ...


@dataclass(frozen=True)
class RolloutState:
    """Where a rollout stands: all that is needed to go on as if it had never stopped. `advance` makes a new one and leaves
    the old one as it was."""

    history: Any
    """What the model's `append` returned last; None = no frames yet. It does not hold `block` yet."""
    block: Tensor | None
    """(b, c, f, h, w) the latents made last; None = no block was made yet."""
    randomness: tuple[Tensor, ...]
    """State of each sample's generator, bytes."""
    actions: Tensor | None = None
    """(b, f, n) that led to `block`; None = nothing is known of that."""


def begin(
    model: BlockModel,
    given: Tensor | None,
    sizes: Iterable[int],
    generators: Sequence[torch.Generator],
    actions: Tensor | None = None,
) -> RolloutState:
    """The state before the first block.

    Args:
        given: (b, c, f, h, w) latents that come before it, in blocks of `sizes` frames, or None.
        generators: one per sample, so that a sample does not depend on its batch.
        actions: (b, f, n) that led to the frames given; None = nothing is known of that.
    """
    history, at = None, 0
    if given is not None:
        for part in given.split(list(sizes), dim=2):
            done = None if actions is None else actions[:, at : at + part.shape[2]]
            history = model.append(history, part, part.new_zeros(len(part)), done)
            at += part.shape[2]
    return RolloutState(history, None, tuple(generator.get_state() for generator in generators))


def advance(
    model: BlockModel,
    state: RolloutState,
    shape: tuple[int, int, int, int],
    diffusion: Diffusion,
    sampling: SamplingConfig,
    device: torch.device | str = "cpu",
    draft: Draft | None = None,
    actions: Tensor | None = None,
    look: Look | None = None,
    held: Tensor | None = None,
) -> RolloutState:
    """Make one block: the one loop body of clips, longer videos and streams.

    Args:
        shape: (c, f, h, w) of the block, f being its own choice each time.
        draft: what it starts from, None = noise alone.
        actions: (b, f, n) that lead to its frames; None = nothing is known of that.
        look: is told each estimate; see `watching`.
        held: (b, c, k, h, w) its first frames, which are known: the model sees them clean, at time 0.
    Returns: the state after it, whose `block` it is.
    """
    generators = [torch.Generator(device) for _ in state.randomness]
    for generator, randomness in zip(generators, state.randomness):
        generator.set_state(randomness)
    history = _history(model, state, diffusion, sampling.history_noise, generators)
    acting = model if actions is None else model.doing(actions)
    denoiser: Denoiser = GuidedDenoiser(acting, history, sampling, diffusion)
    first = state.history is None and state.block is None
    times = times_of(sampling, first).to(device)
    noisy = sample_noise((len(generators), *shape), generators)
    if diffusion.config.draws > 1:  # one call, and all that is drawn
        noisy = sampling.noise_scale * noisy
    if draft is not None:
        noisy, times = draft.start(noisy, diffusion), draft.times(times)
    if held is not None:
        denoiser = holding(denoiser, held)
    if look is not None:
        denoiser = watched(denoiser, times, look)
    block = SOLVERS[sampling.solver](denoiser, noisy, times, diffusion, generators, sampling.noise_scale)
    return RolloutState(history, block, tuple(generator.get_state() for generator in generators), actions)


def _history(
    model: BlockModel,
    state: RolloutState,
    diffusion: Diffusion,
    noise_time: float,
    generators: Sequence[torch.Generator],
) -> Any:
    """The history with the block made last, with noise on it unless it is the first of all."""
    latents = state.block
    if latents is None:
        return state.history
    if not noise_time or state.history is None:
        return model.append(state.history, latents, latents.new_zeros(len(latents)), state.actions)
    t = latents.new_full((len(latents),), noise_time)
    noisy = diffusion.add_noise(latents, sample_noise(latents.shape, generators), t)
    return model.append(state.history, noisy, t, state.actions, before=latents)
