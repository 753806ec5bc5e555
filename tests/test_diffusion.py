"""The objective: conversions, identities between parametrisations, distributions of t."""

import math

import pytest
import torch

from video_gen.config import load_yaml, validate
from video_gen.errors import ConfigError
from video_gen.model.diffusion import Diffusion, shift_time
from video_gen.model.diffusion_config import DiffusionConfig
from video_gen.training.diffusion_task import still_counts
from video_gen.training.recipes import ModeConfig

PATHS = ["straight", "cosine", "ddpm"]
QUANTITIES = ["velocity", "v", "denoised", "noise"]


def tensors(shape=(4, 3, 5, 2, 2)):
    g = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(shape, generator=g), torch.randn(shape, generator=g)
    return latents, noise, torch.rand(shape[0], shape[2], generator=g) * 0.8 + 0.1


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("source", QUANTITIES)
@pytest.mark.parametrize("to", QUANTITIES)
def test_conversions_of_the_truth_are_the_truth(path, source, to):
    diffusion = Diffusion(DiffusionConfig(path=path))
    latents, noise, t = tensors()
    noisy = diffusion.add_noise(latents, noise, t)
    made = diffusion.convert(diffusion.target(latents, noise, t, source), noisy, t, source, to)
    torch.testing.assert_close(made, diffusion.target(latents, noise, t, to), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("path", PATHS)
def test_velocity_is_the_slope_of_the_path(path):
    diffusion = Diffusion(DiffusionConfig(path=path))
    latents, noise, t = (x.double() for x in tensors())
    h = 1e-3
    slope = (diffusion.add_noise(latents, noise, t + h) - diffusion.add_noise(latents, noise, t - h)) / (2 * h)
    torch.testing.assert_close(diffusion.target(latents, noise, t, "velocity"), slope.float(), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("prediction", QUANTITIES)
@pytest.mark.parametrize("space", QUANTITIES)
def test_loss_in_a_space_is_the_squared_error_there(path, prediction, space):
    diffusion = Diffusion(DiffusionConfig(path=path, prediction=prediction, loss_space=space))
    latents, noise, t = tensors()
    noisy = diffusion.add_noise(latents, noise, t)
    output = diffusion.target(latents, noise, t) + 0.1 * torch.randn(
        latents.shape, generator=torch.Generator().manual_seed(1)
    )
    inside = diffusion.convert(output, noisy, t, prediction, space)
    want = (inside - diffusion.target(latents, noise, t, space)).square().flatten(1).mean(1)
    torch.testing.assert_close(diffusion.loss(output, latents, noise, noisy, t), want, rtol=1e-2, atol=1e-4)


def test_the_papers_loss_is_one_config():
    config = DiffusionConfig(path="ddpm", prediction="noise", loss_space="noise", time_distribution="uniform")
    diffusion = Diffusion(config)
    latents, noise, t = tensors()
    output = torch.randn_like(noise)
    noisy = diffusion.add_noise(latents, noise, t)
    want = (output - noise).square().flatten(1).mean(1)
    torch.testing.assert_close(diffusion.loss(output, latents, noise, noisy, t), want)
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    alphas = (1 - betas).cumprod(0).sqrt()  # the discrete chain of Ho et al. 2020
    continuous = diffusion.alpha((torch.arange(1000) + 1) / 1000)
    torch.testing.assert_close(continuous.double(), alphas, rtol=0.02, atol=1e-3)


@pytest.mark.parametrize("path", PATHS)
def test_ends_of_the_path(path):
    diffusion = Diffusion(DiffusionConfig(path=path))
    latents, noise, _ = tensors()
    torch.testing.assert_close(diffusion.add_noise(latents, noise, torch.zeros(4)), latents)
    assert diffusion.alpha(torch.ones(())) < 0.01
    for quantity in QUANTITIES:
        for t in (torch.zeros(4), torch.ones(4)):
            noisy = diffusion.add_noise(latents, noise, t)
            assert diffusion.to_denoised(noise, noisy, t, quantity).isfinite().all()


def test_min_snr_weighs_the_error_of_denoised():
    config = DiffusionConfig(weight="min_snr")
    latents, noise, _ = tensors()
    for value in (0.1, 0.5, 0.9):
        t = torch.full((4,), value)
        diffusion = Diffusion(config)
        noisy = diffusion.add_noise(latents, noise, t)
        output = torch.zeros_like(latents)
        error = (diffusion.to_denoised(output, noisy, t) - latents).square().flatten(1).mean(1)
        snr = ((1 - value) / value) ** 2
        torch.testing.assert_close(
            diffusion.loss(output, latents, noise, noisy, t), min(snr, 5.0) * error, rtol=1e-4, atol=1e-5
        )


def test_frames_that_do_not_count():
    diffusion = Diffusion()
    latents, noise, t = tensors()
    noisy, output = diffusion.add_noise(latents, noise, t), torch.zeros_like(latents)
    keep = torch.zeros(4, 5)
    keep[:, 2] = 1
    only = diffusion.loss(output[:, :, 2:3], latents[:, :, 2:3], noise[:, :, 2:3], noisy[:, :, 2:3], t[:, 2:3])
    torch.testing.assert_close(diffusion.loss(output, latents, noise, noisy, t, keep), only)


def test_distributions_of_t():
    g = torch.Generator().manual_seed(0)
    t = Diffusion(DiffusionConfig(time_mean=0.5, time_std=2.0)).sample_t((200_000,), g)
    assert abs(t.logit().mean() - 0.5) < 0.02 and abs(t.logit().std() - 2.0) < 0.02
    uniform = Diffusion(DiffusionConfig(time_distribution="uniform")).sample_t((200_000,), g)
    assert abs(uniform.mean() - 0.5) < 0.01 and abs(uniform.std() - math.sqrt(1 / 12)) < 0.01
    shifted = Diffusion(DiffusionConfig(time_distribution="uniform", shift=3.0)).sample_t((200_000,), g)
    assert abs((shifted > 0.75).float().mean() - 0.5) < 0.01
    torch.testing.assert_close(shift_time(torch.tensor([0.0, 1.0]), 3.0), torch.tensor([0.0, 1.0]))


def test_mistyped_settings_are_named(tmp_path):
    file = tmp_path / "d.yaml"
    file.write_text("predicton: noise\n")
    with pytest.raises(ConfigError, match="perhaps you meant 'prediction'"):
        load_yaml(DiffusionConfig, file)
    file.write_text("path: curved\n")
    with pytest.raises(ConfigError, match="'path' is 'curved'"):
        load_yaml(DiffusionConfig, file)


def test_frames_that_stand_still_count_more_and_all_together_the_same():
    torch.manual_seed(0)
    latents = torch.randn(2, 3, 4, 5, 6)
    latents[0, :, 2] = latents[0, :, 1] + 0.1
    counts = still_counts(latents, ModeConfig(still_frames=0.01))
    assert still_counts(latents, ModeConfig()) is None
    assert counts is not None and counts.mean() == pytest.approx(1) and counts[0, 2] == counts.max()
    change = (latents[1, :, 3] - latents[1, :, 2]).square().mean()
    assert counts[0, 2] / counts[1, 3] == pytest.approx(float((change + 0.01) / 0.02), rel=1e-4)
    diffusion, t = Diffusion(DiffusionConfig()), torch.full((2, 4), 0.5)
    noise, output = torch.randn_like(latents), torch.randn_like(latents)
    noisy = diffusion.add_noise(latents, noise, t)
    frames = [
        diffusion.loss(*(x[:, :, i : i + 1] for x in (output, latents, noise, noisy)), t[:, i : i + 1])
        for i in range(4)
    ]
    weighted = diffusion.loss(output, latents, noise, noisy, t, counts=counts)
    torch.testing.assert_close(weighted, (torch.stack(frames, dim=1) * counts).mean(1))


def test_clips_that_stand_still_count_more_and_their_frames_alike():
    torch.manual_seed(0)
    latents = torch.randn(2, 3, 4, 5, 6)
    latents[0] = latents[0, :, :1] + 0.1 * latents[0]
    counts = still_counts(latents, ModeConfig(still_clips=0.01))
    assert counts is not None and counts.mean() == pytest.approx(1)
    assert (counts[:, 1:] == counts[:, 1:2]).all()
    change = latents.diff(dim=2).square().mean(dim=(1, 2, 3, 4)) + 0.01
    torch.testing.assert_close(counts[0, 1] / counts[1, 1], change[1] / change[0])
    torch.testing.assert_close(counts[0, 0] / counts[1, 1], change[1] / (latents[0, :, 0].square().mean() + 0.01))
    one = still_counts(latents[:, :, :1], ModeConfig(still_clips=0.01))
    assert one is not None and one.shape == (2, 1) and one.isfinite().all()
    with pytest.raises(ConfigError, match="set one of them to 0"):
        validate(ModeConfig, {"still_clips": 0.1, "still_frames": 0.1}, "modes")


@pytest.mark.parametrize("scale, shift", [(0.0, 0.0), (0.6, 0.0), (1.4, 0.0), (1.0, 0.4)])
def test_the_energy_of_draws_is_least_where_they_are_as_truths_are(scale, shift):
    """All of one value, too alike, too different, and beside it: each scores worse than draws of the truth's distribution."""
    g, diffusion = torch.Generator().manual_seed(0), Diffusion(DiffusionConfig())
    truth, one, other = (torch.randn(20_000, 2, 1, 4, 4, generator=g) for _ in range(3))
    right = diffusion.energy([one, other], truth, side=2).mean()
    wrong = diffusion.energy([scale * one + shift, scale * other + shift], truth, side=2).mean()
    assert wrong > right + 0.01


def test_the_energy_of_draws_that_are_all_right_has_a_slope():
    truth = torch.randn(1, 2, 1, 4, 4)
    draws = [truth.clone().requires_grad_() for _ in range(2)]
    Diffusion(DiffusionConfig()).energy(draws, truth, side=2).sum().backward()
    assert all(draw.grad is not None and not draw.grad.isnan().any() for draw in draws)


def test_draws_want_times_of_nothing_but_noise():
    with pytest.raises(ConfigError, match=r"draws 2 .* set times to \[0.999, 1\]"):
        validate(DiffusionConfig, {"draws": 2}, source="diffusion")
