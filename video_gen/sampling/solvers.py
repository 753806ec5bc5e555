"""Solvers: from noise at t = 1 to latents at t = 0, given a denoiser.

All have the signature `solver(denoiser, noisy, times, diffusion, generators, noise_scale) -> latents`; `times` fall from 1 to
0, one more than steps; the last two are for solvers that draw noise. Between two times they move along
`x = a * x + b * denoised`, the exact solution of the probability-flow equation while the estimate stays constant
(DPM-Solver++, Lu et al. 2022, arXiv:2211.01095), which is Euler on the straight path. The last step gives the estimate itself.
"""

import math
from collections.abc import Callable, Sequence
from numbers import Integral

import torch
from torch import Tensor

from video_gen.errors import ConfigError
from video_gen.model.diffusion import Diffusion, shift_time
from video_gen.sampling.config import SamplingConfig, Spacing
from video_gen.sampling.guidance import Denoiser

Solver = Callable[[Denoiser, Tensor, Tensor, Diffusion, Sequence[torch.Generator] | None, float], Tensor]


PARTS = 1000
"""Parts of the way from noise to data in the schedulers of public models."""
BELOW_ONE = 1e-6
"""How far below 1 UniPC's scheduler begins, since it takes the logarithm of the latents' share."""


def timesteps(num_steps: int, shift: float = 1.0, spacing: Spacing = "even") -> Tensor:
    """`num_steps + 1` times from 1 to 0, float32.

    Source: of the spacings `unipc` and `flow_match`: diffusers' UniPCMultistepScheduler with flow sigmas, and its
    FlowMatchEulerDiscreteScheduler, which shifts the last time twice.
    """
    if spacing == "even":
        return shift_time(torch.linspace(1, 0, num_steps + 1), shift)
    if spacing == "unipc":
        times = shift_time(torch.linspace(1, 1 / PARTS, num_steps + 1, dtype=torch.double)[:-1], shift)
        times = times.clamp(max=1 - BELOW_ONE)
    else:
        last = float(shift_time(torch.tensor(1 / PARTS), shift))
        times = shift_time(torch.linspace(1, last, num_steps, dtype=torch.double), shift)
    return torch.cat([times, times.new_zeros(1)]).float()


def times_of(sampling: SamplingConfig, first: bool = False) -> Tensor:
    """The times of a block's steps, from the first of them to 0; `first`: of a video's first block."""
    if sampling.times is not None:
        return torch.tensor([*sampling.times, 0.0])
    return timesteps(sampling.steps_of(first), sampling.shift, sampling.spacing)


def generators_for(seeds: Sequence[int], device: torch.device | str) -> list[torch.Generator]:
    """One generator per sample, so that a sample depends on its own seed and not on its batch.

    Raises: ConfigError for a seed that is no whole number of 64 bits.
    """
    if wrong := [seed for seed in seeds if not isinstance(seed, Integral) or not -(2**63) <= seed < 2**64]:
        raise ConfigError(f"seed is {wrong[0]!r:.60}; a seed is a whole number from 0 to {2**64 - 1}")
    return [torch.Generator(device).manual_seed(int(seed)) for seed in seeds]


def sample_noise(shape: tuple[int, ...], generators: Sequence[torch.Generator]) -> Tensor:
    """Standard normal `shape`, whose first axis has one generator each."""
    return torch.stack([torch.randn(shape[1:], generator=g, device=g.device) for g in generators])


def euler(
    denoiser: Denoiser,
    noisy: Tensor,
    times: Tensor,
    diffusion: Diffusion,
    generators: Sequence[torch.Generator] | None = None,
    noise_scale: float = 1.0,
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
    noise_scale: float = 1.0,
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
    noise_scale: float = 1.0,
) -> Tensor:
    """Second order, one call per step: the estimate is extrapolated in `logsnr` from that of the step before
    (DPM-Solver++ 2M, arXiv:2211.01095, algorithm 2). The first step, and the one to t = 0, are plain."""
    x, extrapolated = noisy, _Extrapolation(diffusion)
    for now, then in zip(times, times[1:]):
        x = diffusion.move(x, extrapolated(_call(denoiser, x, now), now, then), now, then)
    return x


def unipc(
    denoiser: Denoiser,
    noisy: Tensor,
    times: Tensor,
    diffusion: Diffusion,
    generators: Sequence[torch.Generator] | None = None,
    noise_scale: float = 1.0,
) -> Tensor:
    """Second order with a corrector, one call per step: a step's estimate is extrapolated from the one before, and once the
    estimate at its end is there the step is made again with it. First step and last are of first order.

    Source: UniPC (Zhao et al. 2023, arXiv:2302.04867, algorithms 1 and 2), order 2, with B(h) = e^h - 1, as the public Wan
    models are sampled; with `spacing` unipc it is diffusers' UniPCMultistepScheduler.
    """
    on_cpu = times.cpu()
    alphas, sigmas = diffusion.alpha(on_cpu).double().tolist(), diffusion.sigma(on_cpu).double().tolist()
    halves = [math.log(a / s) if a * s > 0 else math.inf if a else -math.inf for a, s in zip(alphas, sigmas)]
    x, steps = noisy, len(alphas) - 1
    moved, before, bend = noisy, noisy, torch.zeros_like(noisy)  # of the step before, for its corrector
    weight = share = old_share = 0.0
    for i in range(steps):
        estimate = _call(denoiser, x, times[i])
        if i:
            x = moved + weight * (old_share * bend + share * (estimate - before))
        ratio = sigmas[i + 1] / sigmas[i]
        weight = alphas[i + 1] - ratio * alphas[i]  # = alpha * (1 - e^-h), h the step in logsnr / 2
        moved = ratio * x + weight * estimate
        if 0 < i < steps - 1:
            h = halves[i + 1] - halves[i]
            reach = (halves[i - 1] - halves[i]) / h
            bend = (before - estimate) / reach
            linear = math.expm1(-h) / -h - 1
            b = linear / math.expm1(-h), 2 * (linear / -h - 0.5) / math.expm1(-h)
            old_share = (b[1] - b[0]) / (reach - 1)
            share, x = b[0] - old_share, moved + weight * bend / 2
        else:
            bend, old_share, share, x = torch.zeros_like(noisy), 0.0, 0.5, moved
        before = estimate
    return x


def sde(
    denoiser: Denoiser,
    noisy: Tensor,
    times: Tensor,
    diffusion: Diffusion,
    generators: Sequence[torch.Generator] | None = None,
    noise_scale: float = 1.0,
) -> Tensor:
    """Stochastic, one call per step, as exact as its steps are many: `two_step` for the reverse stochastic equation
    (DPM-Solver++ SDE 2M, arXiv:2211.01095, section 6). New noise lets later steps mend what earlier ones got wrong: a scene's
    count and colours come out right more often than by any solver of the flow, given 50 steps or more (docs/sampling.md)."""
    if generators is None:
        raise ValueError("the solver 'sde' draws noise: it needs one generator per sample")
    x, extrapolated = noisy, _Extrapolation(diffusion)
    for now, then in zip(times, times[1:]):
        estimate = extrapolated(_call(denoiser, x, now), now, then)
        ratio = diffusion.sigma(then) / diffusion.sigma(now)
        kept = ratio * diffusion.alpha(now) / diffusion.alpha(then)  # exp(-h), h the step in logsnr / 2
        fresh = 1 - kept**2
        x = ratio * kept * x + diffusion.alpha(then) * fresh * estimate
        if then > 0:
            noise = noise_scale * sample_noise(tuple(x.shape), generators)
            x = x + diffusion.sigma(then) * fresh.sqrt() * noise
    return x


def renoise(
    denoiser: Denoiser,
    noisy: Tensor,
    times: Tensor,
    diffusion: Diffusion,
    generators: Sequence[torch.Generator] | None = None,
    noise_scale: float = 1.0,
) -> Tensor:
    """Stochastic, one call per step: fresh noise on the estimate (multistep consistency sampling, arXiv:2303.01469,
    algorithm 1). Samples a deterministic world well in four steps; in others it narrows what is likely."""
    if generators is None:
        raise ValueError("the solver 'renoise' draws noise: it needs one generator per sample")
    x = noisy
    for now, then in zip(times, times[1:]):
        x = _call(denoiser, x, now)
        if then > 0:
            noise = noise_scale * sample_noise(tuple(x.shape), generators)
            x = diffusion.add_noise(x, noise, then.expand(len(x)))
    return x


SOLVERS: dict[str, Solver] = {
    "euler": euler,
    "heun": heun,
    "two_step": two_step,
    "unipc": unipc,
    "sde": sde,
    "renoise": renoise,
}


def _call(denoiser: Denoiser, x: Tensor, t: Tensor) -> Tensor:
    return denoiser(x, t.expand(len(x))).float()


class _Extrapolation:
    """A step's estimate, carried on in `logsnr` from that of the step before to the middle of this one."""

    def __init__(self, diffusion: Diffusion):
        self.diffusion = diffusion
        self.before: Tensor | None = None
        self.step_before: Tensor | None = None

    def __call__(self, estimate: Tensor, now: Tensor, then: Tensor) -> Tensor:
        logsnr = self.diffusion.logsnr
        step = (logsnr(then) - logsnr(now)) / 2 if then > 0 and now < 1 else None
        used = estimate
        if self.before is not None and step is not None and self.step_before is not None:
            used = estimate + step / (2 * self.step_before) * (estimate - self.before)
        self.before, self.step_before = estimate, step
        return used
