"""What a VAE can be trained for, beside pixels: each part hears what it is for, and teaches whom it should."""

import json

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from video_gen.cli import main
from video_gen.config import validate
from video_gen.data.config import WorldConfig
from video_gen.data.worlds import render_world
from video_gen.errors import ConfigError, DataError
from video_gen.evaluation.lpips import LPIPS
from video_gen.evaluation.reconstruction import detail, halved, ssim
from video_gen.training.adversarial import PatchDiscriminator, adversarial_losses
from video_gen.training.recipes import VAELossConfig, VAERun
from video_gen.training.vae_task import reconstruction_loss


@pytest.fixture
def video():
    noise = torch.randn(2, 3, 5, 32, 32, generator=torch.Generator().manual_seed(0))
    return F.avg_pool3d(noise, 3, 1, 1).clamp(-1, 1)


@pytest.fixture
def discriminator():
    torch.manual_seed(1)
    return PatchDiscriminator(4)


def gradients(loss, *of):
    return torch.autograd.grad(loss, of, retain_graph=True, allow_unused=True)


def test_frequency_takes_more_notice_of_texture_than_pixels_do(video):
    config = VAELossConfig(frequency=1.0, spatial_gradient=0, temporal_gradient=0)
    lost = F.interpolate(halved(video), scale_factor=(1, 2, 2)) - video  # its finest texture
    wave = torch.cos(torch.arange(32) * torch.pi / 16).expand_as(video) * lost.square().mean().sqrt() * 2**0.5
    fine, coarse = (reconstruction_loss(video + error, video, config) for error in (lost, wave))
    assert fine["frequency"] / fine["pixels"] > 2 * coarse["frequency"] / coarse["pixels"]
    assert reconstruction_loss(video, video, config)["frequency"] < 1e-7


def test_who_learns_what_of_the_discriminator(video, discriminator):
    made = (0.5 * video).requires_grad_()
    weights = list(discriminator.parameters())
    losses = adversarial_losses(discriminator, made, video, strength=2.0, matching=3.0)
    # the hinge teaches the discriminator, and pushes what made it the other way, twice as hard
    assert all(g is not None for g in gradients(losses["adversarial"], *weights))
    plain = gradients(F.relu(1 + discriminator(made)[0]).mean(), made)[0]
    assert torch.allclose(gradients(losses["adversarial"], made)[0], -2 * plain, atol=1e-8)
    # features teach only who made it, and are none of equal videos
    assert gradients(losses["matching"], *weights) == (None,) * len(weights)
    assert gradients(losses["matching"], made)[0].abs().max() > 0
    assert adversarial_losses(discriminator, video, video, 1.0, 3.0)["matching"] == 0
    # a frozen pass sees the same
    assert torch.equal(discriminator(video)[0], discriminator(video, frozen=True)[0])


def test_before_it_is_listened_to_nobody_but_the_discriminator_learns(video, discriminator):
    made = (0.5 * video).requires_grad_()
    losses = adversarial_losses(discriminator, made, video, strength=0.0, matching=0.0)
    assert losses.keys() == {"adversarial"} and gradients(losses["adversarial"], made) == (None,)


def test_detail_and_likeness(video):
    blurred = F.interpolate(halved(video), scale_factor=(1, 2, 2))
    assert (detail(blurred) < 0.8 * detail(video)).all()
    assert torch.allclose(ssim(video, video), torch.ones(2, 5)) and (ssim(blurred, video) < 0.9).all()


@pytest.mark.parametrize(
    "loss, why",
    [
        ({"lpips": 1.0}, "lpips and lpips_weights belong together"),
        ({"feature_matching": 1.0}, "there is no discriminator; set that, too"),
        ({"scale_equivariance": 0.25}, "must be multiples of 16, and one is 24; choose such sizes, or a crop"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(loss, why):
    with pytest.raises(ConfigError, match=why):
        validate(VAERun, {"loss": loss, "data": {"height": 24, "width": 24}}, "a.yaml")


def test_a_run_with_all_of_them(tmp_path):
    """One command trains with every part, each of which reaches the VAE, and goes on where it was."""
    net, state = LPIPS.drawn(), {}
    for at, layer in net.trunk.items():
        state |= {f"features.{at}.weight": layer.weight.data, f"features.{at}.bias": layer.bias.data}
    state |= {f"lin{i}.model.1.weight": head.data.view(1, -1, 1, 1) for i, head in enumerate(net.heads)}
    save_file(state, tmp_path / "lpips.safetensors")
    render_world(WorldConfig(num_clips=6, num_frames=5, height=32, width=32), tmp_path / "data")
    words = f"""
data: {{folder: {tmp_path}/data, num_frames: 5, height: 32, width: 32, validation_fraction: 0.4}}
vae: {{temporal_stride: 2, spatial_stride: 8, latent_channels: 4, stem: 4, widths: [16]}}
loss: {{frequency: 0.1, scale_equivariance: 0.25, adversarial: 0.1, adversarial_start: 1, feature_matching: 1,
  lpips: 1, lpips_weights: {tmp_path}/lpips.safetensors}}
image_fraction: 0
loop: {{train_steps: 2, batch_size: 2, log_every: 1}}
"""
    (tmp_path / "a.yaml").write_text(words, encoding="utf-8")
    for steps in ("2", "3"):
        more = ("--loop.train-steps", steps)
        assert main(["train", "vae", str(tmp_path / "a.yaml"), "--run", str(tmp_path / "run"), *more]) == 0
    log = (tmp_path / "run" / "log.jsonl").read_text(encoding="utf-8")
    last = [line for line in map(json.loads, log.splitlines()) if "frequency" in line][-1]
    assert {"pixels", "kl", "frequency", "scale", "adversarial", "matching", "lpips"} <= last.keys()
    assert all(last[name] > 0 for name in ("frequency", "scale", "adversarial", "matching", "lpips"))


def test_weights_that_are_no_lpips_are_told_before_the_first_step(tmp_path):
    (tmp_path / "lpips.safetensors").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"lpips\.safetensors"):
        LPIPS.from_file(tmp_path / "lpips.safetensors")
