"""Floating-point operations in closed form, against what torch counts as it runs."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from video_gen.model.flops import (
    denoise_flops,
    layer_kinds,
    text_flops,
    transformer_flops,
    vae_decode_flops,
    vae_encode_flops,
    vae_training_flops,
)
from video_gen.model.text import ByteTextEncoder
from video_gen.model.transformer import VideoTransformer
from video_gen.model.transformer_config import TextConfig, TransformerConfig
from video_gen.model.vae_config import VAEConfig
from video_gen.model.video_vae import VideoVAE

VAES = {
    "default": VAEConfig(widths=(8, 16)),
    "demo": VAEConfig(spatial_stride=4, stem=4, widths=(8,), latent_channels=4),
    "deep": VAEConfig(temporal_stride=8, widths=(8, 16, 32), blocks=2, linear_path=False),
}


def counted(function) -> int:
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()


def model_and_inputs(attention: str, window: int | None, frames: int, text_tokens: int):
    config = TransformerConfig(
        latent_channels=4, width=32, depth=6, head_dim=16, attention=attention, joint_every=3, text_width=24,
        sink=0, window=window, mlp_ratio=3.0,
    )  # fmt: skip
    latents, t = torch.randn(3, 4, frames, 4, 6), torch.rand(3, frames)
    text, visible = torch.randn(3, text_tokens, 24), torch.ones(3, text_tokens, dtype=torch.bool)
    return VideoTransformer(config), config, (latents, t, text, visible)


@pytest.mark.parametrize("attention", ["joint", "factorised"])
def test_a_clip_in_one_block_equals_the_count(attention):
    model, config, inputs = model_and_inputs(attention, None, 5, 7)
    found = transformer_flops(config, 3, (5, 4, 6), 7)
    assert found == counted(lambda: model(*inputs))


MOVED = {"warp": True, "strides": (2, 4)}


@pytest.mark.parametrize(
    "moves",
    [{"change": True}, {"frame_noise": True}, MOVED, MOVED | {"change": True, "inertia": True}],
    ids=["copied", "noise", "moved", "inertia"],
)
def test_the_frame_before_counts(moves):
    """But for how a flow goes on between its places."""
    config = TransformerConfig(
        latent_channels=4, width=64, depth=2, head_dim=16, window=1 + ("inertia" in moves), previous=True, **moves
    )
    model, latents, visible = VideoTransformer(config), torch.randn(3, 4, 5, 4, 6), torch.ones(3, 7, dtype=torch.bool)
    given = (latents, torch.rand(3, 5), torch.randn(3, 7, 128), visible)
    found = transformer_flops(config, 3, (5, 4, 6), 7, (1,) * 5, history=True)
    ran = counted(lambda: model(*given, clean=latents, blocks=(1,) * 5))
    assert found == ran if "warp" not in moves else 0.97 * ran < found < ran


@pytest.mark.parametrize("attention", ["joint", "factorised"])
@pytest.mark.parametrize("blocks", [(1, 2, 2, 2), (1, 1, 1, 4), (2, 2, 1, 2)])
def test_teacher_forcing_equals_the_count(attention, blocks):
    """With a window, so that the blocks run one by one, and nothing hidden is computed."""
    model, config, inputs = model_and_inputs(attention, 1, 7, 5)
    found = transformer_flops(config, 3, (7, 4, 6), 5, blocks, history=True)
    assert found == counted(lambda: model(*inputs, clean=inputs[0], blocks=blocks))


@pytest.mark.parametrize("attention", ["joint", "factorised"])
def test_a_block_after_history_equals_the_count(attention):
    model, config, (latents, t, text, visible) = model_and_inputs(attention, None, 5, 7)
    memory, history = model.encode_text(text, visible), model.encode_history(latents[:, :, :3])
    found = denoise_flops(config, 3, (2, 4, 6), 7, past=3)
    assert found == counted(lambda: model.denoise(latents[:, :, 3:], t[:, 3:], memory, history))


def test_what_a_mask_hides_is_not_counted():
    """All blocks in one masked product cost more than they ask for."""
    model, config, inputs = model_and_inputs("joint", None, 7, 5)
    blocks = (1, 2, 2, 2)
    found = transformer_flops(config, 3, (7, 4, 6), 5, blocks, history=True)
    assert found < counted(lambda: model(*inputs, clean=inputs[0], blocks=blocks)) < 1.5 * found


@pytest.mark.parametrize("attention", ["joint", "factorised"])
def test_a_training_step_is_three_forward_passes(attention):
    """But for the gradients of the inputs, and of what no later layer reads of the text."""
    model, config, (_, t, text, visible) = model_and_inputs(attention, 1, 7, 2)
    latents, blocks = torch.randn(3, 4, 7, 8, 8), (1, 2, 2, 2)
    step = counted(lambda: model(latents, t, text, visible, clean=latents, blocks=blocks).sum().backward())
    assert 3 * transformer_flops(config, 3, (7, 8, 8), 2, blocks, history=True) == pytest.approx(step, rel=0.02)


def test_the_kinds_are_the_models():
    for attention in ("joint", "factorised"):
        model, config, _ = model_and_inputs(attention, None, 1, 1)
        assert layer_kinds(config) == [block.attention.kind for block in model.blocks]


def test_text_equals_the_count():
    config = TextConfig(width=16, hash_buckets=32)
    encoder = ByteTextEncoder(config)
    tokens = encoder.tokenise(["one two three", "four"])
    assert text_flops(config, 2, 4) == counted(lambda: encoder(tokens)) > 0


@pytest.mark.parametrize("name", VAES)
@pytest.mark.parametrize("frames", [1, 9])
def test_the_vae_is_the_count_but_for_its_shortcuts(name, frames):
    """The shortcuts' means and copies are written as products, of a hundredth of the work at real widths."""
    config, size = VAES[name], (frames, 16, 24)
    vae = VideoVAE(config)
    video = torch.rand(2, 3, *size)
    with torch.no_grad():
        assert vae_encode_flops(config, 2, size) == pytest.approx(counted(lambda: vae.encode(video)), rel=0.03)
        latents = vae.encode(video).mean
        assert vae_decode_flops(config, 2, size) == pytest.approx(counted(lambda: vae.decode(latents)), rel=0.03)
    step = counted(lambda: vae.decode(vae.encode(video).sample()).sum().backward())
    assert vae_training_flops(config, 2, size) == pytest.approx(step, rel=0.03)
