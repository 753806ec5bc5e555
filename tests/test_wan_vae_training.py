"""A public VAE is taught further on clips, and stays the VAE of its models."""

import pytest
import torch
from wan_models import build, save_diffusers

from video_gen.data.config import ClipConfig, WorldConfig
from video_gen.data.worlds import render_world
from video_gen.errors import ConfigError
from video_gen.model.vae_config import VAEConfig
from video_gen.model.wan.vae import WanVAE
from video_gen.sampling.parts import parts_of
from video_gen.train import train_vae
from video_gen.training.config import LoopConfig, OptimConfig
from video_gen.training.recipes import VAERun


def test_a_public_vae_is_taught_and_keeps_its_statistics(tmp_path):
    public = save_diffusers(build(), tmp_path / "public")
    render_world(WorldConfig(num_clips=4, num_frames=12, height=16, width=16), tmp_path / "data")
    data = ClipConfig(folder=tmp_path / "data", num_frames=5, fps=12, height=16, width=16, validation_fraction=0.5)
    loop = LoopConfig(
        train_steps=3, batch_size=2, validate_every=3, log_every=1, tensorboard=False, sample_every=0, compile="off",
        device="cpu", ema_decay=0.0, precision="float32", keep="last",
    )  # fmt: skip
    run = VAERun(data=data, init=public, loop=loop, optim=OptimConfig(learning_rate=1e-3))
    train_vae(run, tmp_path / "run")
    start, taught = parts_of(public).vae(), WanVAE.from_pretrained(tmp_path / "run/model/vae")
    assert taught.config == start.config and taught.config.latent_std is not None
    before, after = start.state_dict(), taught.state_dict()
    assert [name for name, x in after.items() if torch.equal(x, before[name])] == []
    with pytest.raises(ConfigError, match="leave vae out"):
        train_vae(run.replace(vae=VAEConfig(widths=(16,))), tmp_path / "other")
