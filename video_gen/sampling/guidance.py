"""Guidance of estimates of the denoised latents, by text, by history, by a frame that lies ahead and by what is done.

A model gives up to five estimates of one block, called branches:

    alone      the block by itself
    history    with the history
    full       with history and text
    unled      the same without the frame that lies ahead, which the others see if there is one
    untold     the same without the actions that lead to the block, which the others are told if there are some

Guidance goes past `full`, by the differences that the text, the history, the frame ahead and the actions make:

    full + (guidance_scale - 1) * (full - history) + (history_scale - 1) * (history - alone)
         + (ending_scale - 1) * (full - unled) + (action_scale - 1) * (full - untold)

`guidance_scale` is that of the time. Where there is a negative prompt, the branches `history` and `alone` have it for their text.
With `history_scale` 1 that is classifier-free guidance (Ho & Salimans 2022, arXiv:2207.12598); the second difference is
history guidance (Song et al. 2025, arXiv:2502.06764). Each difference, here a *push*, may be changed on its way by the
functions below. They take norms and inner products per frame, over `(c, h, w)`: so a frame is guided alike whatever block
it is made in, and whatever time the frames beside it are at.

Guiding `denoised`, `velocity` or `noise` gives the same step: given the noisy latents they are affine in each other, and
the weights of the branches add up to one. (Only `optimal_scale` breaks that, and says in which space it works.)
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from video_gen.model.diffusion import Diffusion
from video_gen.sampling.config import SamplingConfig

Denoiser = Callable[[Tensor, Tensor], Tensor]
"""(noisy (b, c, f, h, w), t (b,) or (b, f)) to the estimate of the denoised latents."""
Branch = Literal["full", "history", "alone", "unled", "untold"]
BY_TEXT: tuple[Branch, ...] = ("full", "history")
"""The branches where nothing but text guides."""
BranchDenoiser = Callable[[Tensor, Tensor], Sequence[Tensor]]
"""The same, with one estimate for each branch that it was made for."""
PER_FRAME = (1, 3, 4)
"""The axes (c, h, w) of (b, c, f, h, w)."""


class Branches(Protocol):
    """What guidance needs of a model. `history` is a value of the model's own, None = there is none."""

    def branches(self, history: Any) -> tuple[Branch, ...]:
        """Those that differ: without a prompt `history` is left out, being `full`; without history `alone`, being `history`;
        without a frame ahead `unled`, and without actions `untold`, being `full`."""
        ...

    def denoiser(self, history: Any, branches: tuple[Branch, ...]) -> BranchDenoiser:
        """The estimates of these branches, in this order."""
        ...


class GuidedDenoiser:
    """The branches of a model as one `Denoiser`, for one block. Without guidance, or outside its interval, only `full` is
    asked for, and during the zero-initialised part nothing is."""

    def __init__(self, model: Branches, history: Any, sampling: SamplingConfig, diffusion: Diffusion):
        self.sampling, self.diffusion = sampling, diffusion
        self.branches = needed_branches(model.branches(history), sampling)
        self.plain = model.denoiser(history, ("full",))
        self.all = self.plain if self.branches == ("full",) else model.denoiser(history, self.branches)

    def __call__(self, noisy: Tensor, t: Tensor) -> Tensor:
        sampling, latest = self.sampling, float(t.max())
        if latest > 1 - sampling.guidance_zero_init:
            return self.diffusion.to_denoised(torch.zeros_like(noisy), noisy, t, "velocity")
        low, high = sampling.guidance_interval
        scale = sampling.guidance_at(latest)
        if self.branches == ("full",) or not low <= latest <= high or (self.branches == BY_TEXT and scale == 1):
            return self.plain(noisy, t)[0]
        found = dict(zip(self.branches, self.all(noisy, t)))
        full = found["full"]
        with_history = found.get("history", full)
        guided = full
        if "history" in found and scale != 1:
            guided = guided + (scale - 1) * self._push(full, with_history, full, noisy, t)
        if "alone" in found:
            guided = guided + (sampling.history_scale - 1) * self._push(with_history, found["alone"], full, noisy, t)
        if "unled" in found:
            guided = guided + (sampling.ending_scale - 1) * self._push(full, found["unled"], full, noisy, t)
        if "untold" in found:
            guided = guided + (sampling.action_scale - 1) * self._push(full, found["untold"], full, noisy, t)
        return rescale(guided, full, sampling.guidance_rescale) if sampling.guidance_rescale else guided

    def _push(self, strong: Tensor, weak: Tensor, full: Tensor, noisy: Tensor, t: Tensor) -> Tensor:
        """From the weaker branch to the stronger one, as the settings have it."""
        sampling = self.sampling
        if sampling.guidance_optimal_scale:
            weak = optimal_scale(strong, weak, noisy, t, self.diffusion)
        push = strong - weak
        if sampling.guidance_limit is not None:
            push = limit(push, sampling.guidance_limit)
        if sampling.guidance_parallel != 1:
            parallel, orthogonal = project(push, full)
            push = orthogonal + sampling.guidance_parallel * parallel
        return push


def needed_branches(available: tuple[Branch, ...], sampling: SamplingConfig) -> tuple[Branch, ...]:
    """Of the branches that differ those that the settings ask for; `full` comes first and is always one."""
    history_guided = sampling.history_scale != 1 and "alone" in available
    text_guided = sampling.guided and "history" in available
    wanted: dict[Branch, bool] = {
        "full": True,
        "history": "history" in available and (text_guided or history_guided),
        "alone": history_guided,
        "unled": "unled" in available and sampling.ending_scale != 1,
        "untold": "untold" in available and sampling.action_scale != 1,
    }
    return tuple(branch for branch, needed in wanted.items() if needed)


def rescale(guided: Tensor, full: Tensor, by: float) -> Tensor:
    """Bring the standard deviation of each frame back to that of the unguided estimate, by a share of 0 to 1
    (Lin et al. 2023, arXiv:2305.08891, eq. 15 and 16; there it is that of a whole image)."""
    ratio = full.std(PER_FRAME, keepdim=True) / guided.std(PER_FRAME, keepdim=True).clamp(min=1e-8)
    return guided * (1 + by * (ratio - 1))


def limit(push: Tensor, largest: float) -> Tensor:
    """Shorten a frame's push to the root mean square `largest` where it is longer (APG's rescaling, Sadat et al. 2024,
    arXiv:2410.02416, section 4; there the norm is a sum, which grows with the size of the picture)."""
    size = push.square().mean(PER_FRAME, keepdim=True).sqrt()
    return push * (largest / size.clamp(min=1e-8)).clamp(max=1)


def project(push: Tensor, onto: Tensor) -> tuple[Tensor, Tensor]:
    """The parts of a push along the estimate `onto` and at a right angle to it, frame by frame; they add up to it.

    The part along an estimate makes it stronger, and at a high scale oversaturated; the other part makes it different.
    APG (arXiv:2410.02416, section 4) keeps less of the first. Its momentum is left out: it makes an estimate depend on
    the calls before it, and so on the solver.
    """
    length = onto.square().sum(PER_FRAME, keepdim=True).clamp(min=1e-8)
    parallel = (push * onto).sum(PER_FRAME, keepdim=True) / length * onto
    return parallel, push - parallel


def optimal_scale(strong: Tensor, weak: Tensor, noisy: Tensor, t: Tensor, diffusion: Diffusion) -> Tensor:
    """The weaker estimate with its *velocity* scaled to be nearest to the stronger one's, frame by frame (CFG-Zero*, Fan et
    al. 2025, arXiv:2503.18886, eq. 7 to 9)."""
    v_strong = diffusion.convert(strong, noisy, t, "denoised", "velocity")
    v_weak = diffusion.convert(weak, noisy, t, "denoised", "velocity")
    dot = (v_strong * v_weak).sum(PER_FRAME, keepdim=True)
    scale = dot / v_weak.square().sum(PER_FRAME, keepdim=True).clamp(min=1e-8)
    return diffusion.to_denoised(scale * v_weak, noisy, t, "velocity")
