"""Every solver recovers an analytic Gaussian, in its order."""

import pytest
import torch

from video_gen.errors import ConfigError
from video_gen.model.diffusion import Diffusion
from video_gen.model.diffusion_config import DiffusionConfig
from video_gen.sampling.config import SamplingConfig
from video_gen.sampling.solvers import SOLVERS, generators_for, sample_noise, times_of, timesteps

MEAN, STD = 0.7, 0.4
SHAPE = (2, 1, 2, 2, 2)


def gaussian_denoiser(diffusion, calls=None):
    """The exact estimate for data from N(MEAN, STD^2)."""

    def denoise(x, t):
        if calls is not None:
            calls.append(float(t[0]))
        alpha, sigma = diffusion.alpha(t)[:, None, None, None, None], diffusion.sigma(t)[:, None, None, None, None]
        return MEAN + alpha * STD**2 * (x - alpha * MEAN) / (alpha**2 * STD**2 + sigma**2)

    return denoise


def exact(x, diffusion):
    """The flow's end for data from N(MEAN, STD^2): standardised positions are kept."""
    alpha, sigma = diffusion.alpha(torch.ones(())), diffusion.sigma(torch.ones(()))
    return MEAN + STD * (x - alpha * MEAN) / (alpha**2 * STD**2 + sigma**2).sqrt()


@pytest.mark.parametrize("path", ["straight", "cosine", "ddpm"])
@pytest.mark.parametrize(("solver", "bound"), [("euler", 0.08), ("heun", 0.03), ("two_step", 0.01), ("unipc", 0.02)])
def test_solvers_recover_an_analytic_gaussian(path, solver, bound):
    diffusion = Diffusion(DiffusionConfig(path=path))
    noise = sample_noise((64, 1, 1, 4, 4), generators_for(list(range(64)), "cpu"))
    made = SOLVERS[solver](gaussian_denoiser(diffusion), noise, timesteps(60), diffusion, None)
    assert (made - exact(noise, diffusion)).abs().max() < bound


@pytest.mark.parametrize(("solver", "least"), [("euler", 0.95), ("heun", 1.7), ("two_step", 1.6), ("unipc", 1.6)])
def test_orders(solver, least):
    diffusion = Diffusion()
    noise = sample_noise((16, 1, 1, 4, 4), generators_for(list(range(16)), "cpu")).double()
    errors = []
    for steps in (80, 160):
        made = SOLVERS[solver](gaussian_denoiser(diffusion), noise, timesteps(steps).double(), diffusion, None)
        errors.append((made - exact(noise, diffusion)).square().mean().sqrt())
    assert torch.log2(errors[0] / errors[1]) > least


def test_renoise_recovers_the_distribution():
    diffusion = Diffusion()
    generators = generators_for(list(range(32)), "cpu")
    noise = sample_noise((32, 1, 1, 16, 16), generators)

    def draw(x, t):  # a sample of the posterior, for which renoising is exact
        alpha, sigma = 1 - t[0], t[0]
        variance = STD**2 * sigma**2 / (alpha**2 * STD**2 + sigma**2)
        return gaussian_denoiser(diffusion)(x, t) + variance.sqrt() * torch.randn_like(x)

    torch.manual_seed(0)
    made = SOLVERS["renoise"](draw, noise, timesteps(8), diffusion, generators)
    assert abs(made.mean() - MEAN) < 0.02 and abs(made.std() - STD) < 0.02
    with pytest.raises(ValueError, match="generator"):
        SOLVERS["renoise"](draw, noise, timesteps(8), diffusion, None)


@pytest.mark.parametrize("path", ["straight", "cosine", "ddpm"])
def test_sde_recovers_the_distribution(path):
    diffusion = Diffusion(DiffusionConfig(path=path))
    generators = generators_for(list(range(32)), "cpu")
    noise = sample_noise((32, 1, 1, 16, 16), generators)
    made = SOLVERS["sde"](gaussian_denoiser(diffusion), noise, timesteps(40), diffusion, generators)
    assert abs(made.mean() - MEAN) < 0.02 and abs(made.std() - STD) < 0.02
    with pytest.raises(ValueError, match="generator"):
        SOLVERS["sde"](gaussian_denoiser(diffusion), noise, timesteps(8), diffusion, None)


@pytest.mark.parametrize("scale", [0.0, 0.7, 1.0])
def test_noise_drawn_anew_is_scaled(scale):
    """Two steps of the exact consistency function: the second starts from what the first made and so much noise."""
    diffusion = Diffusion()
    generators = generators_for(list(range(32)), "cpu")

    def end(x, t):
        alpha, sigma = 1 - t[0], t[0]
        return MEAN + STD * (x - alpha * MEAN) / (alpha**2 * STD**2 + sigma**2).sqrt()

    noise = sample_noise((32, 1, 1, 16, 16), generators)
    made = SOLVERS["renoise"](end, noise, torch.tensor([1.0, 0.5, 0.0]), diffusion, generators, scale)
    spread = STD * ((STD**2 + scale**2) / (STD**2 + 1)) ** 0.5
    assert abs(made.mean() - MEAN) < 0.02 and abs(made.std() - spread) < 0.01

    def through(solver, scale):
        generators = generators_for([0, 1], "cpu")
        start, times = sample_noise(SHAPE, generators), timesteps(6)
        return SOLVERS[solver](gaussian_denoiser(diffusion), start, times, diffusion, generators, scale)

    for solver in SOLVERS:
        assert torch.equal(through(solver, scale), through(solver, 1.0)) == (
            scale == 1 or solver not in ("sde", "renoise")
        )


@pytest.mark.parametrize(
    ("solver", "calls"), [("euler", 5), ("heun", 9), ("two_step", 5), ("unipc", 5), ("sde", 5), ("renoise", 5)]
)
def test_calls_per_solver(solver, calls):
    diffusion, seen = Diffusion(), []
    generators = generators_for([0, 1], "cpu")
    SOLVERS[solver](
        gaussian_denoiser(diffusion, seen), sample_noise(SHAPE, generators), timesteps(5), diffusion, generators
    )
    assert len(seen) == calls and seen[0] == 1.0 and min(seen) > 0


def test_a_seed_gives_its_noise_whatever_the_batch():
    alone = sample_noise((1, 2, 3, 4, 4), generators_for([7], "cpu"))
    among = sample_noise((3, 2, 3, 4, 4), generators_for([5, 7, 9], "cpu"))
    assert torch.equal(alone[0], among[1]) and not torch.equal(among[0], among[1])


def test_settings_are_checked():
    with pytest.raises(ConfigError, match="guidance_interval"):
        SamplingConfig().replace(guidance_interval=(0.8, 0.2))
    with pytest.raises(ConfigError, match="perhaps you meant 'num_steps'"):
        SamplingConfig().replace(num_step=3)


@pytest.mark.parametrize("steps", [1, 2, 3, 8, 20])
@pytest.mark.parametrize("shift", [1.0, 3.0, 12.0])
@pytest.mark.parametrize("name", ["unipc", "flow_match"])
def test_public_schedulers(name, shift, steps):
    """diffusers' two schedulers, on a network that is no Gaussian's: same times, same latents."""
    diffusers = pytest.importorskip("diffusers")
    if name == "unipc":
        scheduler = diffusers.UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift
        )
    else:
        scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(steps)
    times = timesteps(steps, shift, name)
    torch.testing.assert_close(times, scheduler.sigmas, rtol=0, atol=2e-7)

    def velocity(x, t):
        return torch.sin(3 * x) + t * x.flip(-1) - 0.4

    start = sample_noise((2, 3, 2, 4, 4), generators_for([0, 1], "cpu"))
    x = start
    for t, sigma in zip(scheduler.timesteps, scheduler.sigmas):
        x = scheduler.step(velocity(x, sigma), t, x, return_dict=False)[0]

    def denoiser(x, t):
        return x - t[:, None, None, None, None] * velocity(x, t[0])

    made = SOLVERS["unipc" if name == "unipc" else "euler"](denoiser, start, times, Diffusion())
    torch.testing.assert_close(made, x, rtol=1e-5, atol=1e-5)


def test_times_are_told_as_the_scheduler_of_public_models_tells_them():
    diffusers = pytest.importorskip("diffusers")
    from video_gen.sampling.conditioned import whole

    for shift, steps in ((1.0, 8), (3.0, 50), (5.0, 40), (12.0, 30)):
        scheduler = diffusers.UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift
        )
        scheduler.set_timesteps(steps)
        told = 1000 * whole(timesteps(steps, shift, "unipc")[:-1], 1000)
        torch.testing.assert_close(told, scheduler.timesteps.float(), rtol=0, atol=1e-4)


def test_a_list_of_times_replaces_the_schedule():
    few = SamplingConfig(num_steps=3, times=(1.0, 0.9, 0.4), shift=7.0)
    torch.testing.assert_close(times_of(few), torch.tensor([1.0, 0.9, 0.4, 0.0]))
    with pytest.raises(ConfigError, match="times are 3 and num_steps is 4"):
        few.replace(num_steps=4)
    with pytest.raises(ConfigError, match="must fall"):
        few.replace(times=(1.0, 0.4, 0.4))
    with pytest.raises(ConfigError, match="late_scale"):
        few.replace(late_scale=(1.2, 3.0))
