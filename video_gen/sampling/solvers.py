"""Solvers: from noise at t = 1 to latents at t = 0, given a denoiser.

All have the signature `solver(denoiser, noisy, times, diffusion, generators) -> latents`; `times` fall from 1 to 0, one more
than steps. Between two times they move along `x = a * x + b * denoised`, the exact solution of the probability-flow
equation while the estimate stays constant (DPM-Solver++, Lu et al. 2022, arXiv:2211.01095), which is Euler on the straight
path. The last step gives the estimate itself.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from video_gen.model.diffusion import Diffusion, shift_time
from video_gen.sampling.guidance import Denoiser

Solver = Callable[[Denoiser, Tensor, Tensor, Diffusion, Sequence[torch.Generator] | None], Tensor]


def timesteps(num_steps: int, shift: float = 1.0) -> Tensor:
    """`num_steps + 1` times from 1 to 0, float32."""
    return shift_time(torch.linspace(1, 0, num_steps + 1), shift)


def generators_for(seeds: Sequence[int], device: torch.device | str) -> list[torch.Generator]:
    """One generator per sample, so that a sample depends on its own seed and not on its batch."""
    return [torch.Generator(device).manual_seed(seed) for seed in seeds]


def sample_noise(shape: tuple[int, ...], generators: Sequence[torch.Generator]) -> Tensor:
    """Standard normal `shape`, whose first axis has one generator each."""
    return torch.stack([torch.randn(shape[1:], generator=g, device=g.device) for g in generators])


def euler(
    denoiser: Denoiser,
    noisy: Tensor,
    times: Tensor,
    diffusion: Diffusion,
    generators: Sequence[torch.Generator] | None = None,
) -> Tensor:
    """First order, one call per step; on another path than the straight one, exponential Euler (DDIM)."""
    x = noisy
    for now, then in zip(times, times[1:]):
        x = diffusion.move(x, _call(denoiser, x, now), now, then)
    return x


def heun(
    denoiser: Denoiser,
    noisy: Tensor,
    times: Tensor,
    diffusion: Diffusion,
    generators: Sequence[torch.Generator] | None = None,
) -> Tensor:
    """Second order, two calls per step and one in the last: the mean of the estimates at both ends of a step."""
    x = noisy
    for now, then in zip(times, times[1:]):
        first = _call(denoiser, x, now)
        moved = diffusion.move(x, first, now, then)
        if then > 0:
            moved = diffusion.move(x, (first + _call(denoiser, moved, then)) / 2, now, then)
        x = moved
    return x


def two_step(
    denoiser: Denoiser,
    noisy: Tensor,
    times: Tensor,
    diffusion: Diffusion,
    generators: Sequence[torch.Generator] | None = None,
) -> Tensor:
    """Second order, one call per step: the estimate is extrapolated in `logsnr` from that of the step before
    (DPM-Solver++ 2M, arXiv:2211.01095, algorithm 2). The first step, and the one to t = 0, are plain."""
    x, before, step_before = noisy, None, None
    for now, then in zip(times, times[1:]):
        estimate = _call(denoiser, x, now)
        step = (diffusion.logsnr(then) - diffusion.logsnr(now)) / 2 if then > 0 and now < 1 else None
        used = estimate
        if before is not None and step is not None and step_before is not None:
            used = estimate + step / (2 * step_before) * (estimate - before)
        x = diffusion.move(x, used, now, then)
        before, step_before = estimate, step
    return x


def renoise(
    denoiser: Denoiser,
    noisy: Tensor,
    times: Tensor,
    diffusion: Diffusion,
    generators: Sequence[torch.Generator] | None = None,
) -> Tensor:
    """Stochastic, one call per step: fresh noise on the estimate (multistep consistency sampling, arXiv:2303.01469,
    algorithm 1). Samples a deterministic world well in four steps; in others it narrows what is likely."""
    if generators is None:
        raise ValueError("the solver 'renoise' draws noise: it needs one generator per sample")
    x = noisy
    for now, then in zip(times, times[1:]):
        x = _call(denoiser, x, now)
        if then > 0:
            x = diffusion.add_noise(x, sample_noise(tuple(x.shape), generators), then.expand(len(x)))
    return x


SOLVERS: dict[str, Solver] = {"euler": euler, "heun": heun, "two_step": two_step, "renoise": renoise}


def _call(denoiser: Denoiser, x: Tensor, t: Tensor) -> Tensor:
    return denoiser(x, t.expand(len(x))).float()
