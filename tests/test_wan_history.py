"""The history of WanTransformer: what is remembered equals what is computed anew, and the stream that is made of it."""

import numpy as np
import pytest
import torch
from torch import Tensor

from video_gen.model.diffusion import Diffusion
from video_gen.model.diffusion_config import DiffusionConfig
from video_gen.model.text import ByteTextEncoder
from video_gen.model.transformer_config import TextConfig
from video_gen.model.vae_config import VAEConfig
from video_gen.model.video_vae import VideoVAE
from video_gen.model.wan.transformer import WanTransformer
from video_gen.sampling.conditioned import TextConditioned
from video_gen.sampling.config import ClipSettings, SamplingConfig
from video_gen.sampling.pipeline import VideoPipeline
from video_gen.sampling.stream import Stream

FRAMES = 6
CLOSE = dict(rtol=1e-5, atol=1e-5)


def small(**overrides) -> WanTransformer:
    torch.manual_seed(0)
    sizes = dict(latent_channels=3, in_channels=3, dim=24, ffn_dim=48, num_heads=2, depth=3, text_width=5, text_len=12)
    model = WanTransformer.from_preset("tiny", **(sizes | overrides)).eval()
    for p in model.parameters():  # zero-initialised layers would hide mistakes
        p.data.add_(0.1 * torch.randn_like(p))
    return model


def inputs(frames: int = FRAMES, channels: int = 3) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    latents, noisy = (torch.randn(2, channels, frames, 4, 6, generator=generator) for _ in range(2))
    visible = torch.tensor([[True] * 4, [True, True, False, False]])
    text = torch.randn(2, 4, 5, generator=generator)
    return latents, noisy, torch.rand(2, frames, generator=generator), text, visible


@pytest.mark.parametrize(("sink", "window"), [(1, None), (1, 2), (0, 3), (2, 1)])
@pytest.mark.parametrize("blocks", [(1, 1, 1, 1, 1, 1), (1, 2, 1, 2), (3, 3)])
@torch.no_grad()
def test_cached_rollout_equals_masked_full_forward(sink, window, blocks):
    model = small(sink=sink, window=window)
    latents, noisy, t, text, visible = inputs()
    clean_t = 0.3 * t
    full = model(noisy, t, text, visible, clean=latents, clean_t=clean_t, blocks=blocks)
    memory, history, start = model.encode_text(text, visible), None, 0
    for size in blocks:
        at = slice(start, start + size)
        block = model.denoise(noisy[:, :, at], t[:, at], memory, history)
        torch.testing.assert_close(block, full[:, :, at], **CLOSE)
        history = model.encode_history(latents[:, :, at], clean_t[:, at], history, text=memory)
        start += size
    if window is not None:
        assert history.frames == min(FRAMES, sink + window)


@torch.no_grad()
def test_cached_rollout_equals_masked_full_forward_with_a_picture():
    model = small(in_channels=7, image_width=9)
    latents, noisy, t, text, visible = inputs()
    generator = torch.Generator().manual_seed(2)
    beside, clip = torch.randn(2, 4, 6, 4, 6, generator=generator), torch.randn(2, 5, 9, generator=generator)
    blocks = (1, 3, 2)
    full = model(noisy, t, text, visible, clean=latents, blocks=blocks, clip_tokens=clip, beside=beside)
    memory, history, start = model.with_picture(model.encode_text(text, visible), clip, beside), None, 0
    for size in blocks:
        at, known = slice(start, start + size), memory.frames(start, start + size)
        torch.testing.assert_close(model.denoise(noisy[:, :, at], t[:, at], known, history), full[:, :, at], **CLOSE)
        history = model.encode_history(latents[:, :, at], history=history, text=known)
        start += size


@pytest.mark.parametrize("seed", range(4))
@torch.no_grad()
def test_cached_rollout_equals_masked_full_forward_long_past_eviction(seed):
    """Blocks, sink and window at random, until every frame of the window was replaced several times."""
    generator = torch.Generator().manual_seed(seed)

    def number(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=generator))

    limits = dict(sink=number(0, 3), window=number(1, 4))
    model = small(depth=2, **limits)
    blocks = (number(1, 3), *(number(1, 4) for _ in range(10)))
    latents, noisy, t, text, visible = inputs(frames=sum(blocks))
    full = model(noisy, t, text, visible, clean=latents, blocks=blocks)
    memory, history, start = model.encode_text(text, visible), None, 0
    for size in blocks:
        at = slice(start, start + size)
        torch.testing.assert_close(model.denoise(noisy[:, :, at], t[:, at], memory, history), full[:, :, at], **CLOSE)
        history = model.encode_history(latents[:, :, at], history=history, text=memory)
        start += size
    assert history.frames == sum(limits.values()) and start > 2 * history.frames


@pytest.mark.parametrize("window", [None, 2])
@torch.no_grad()
def test_the_future_cannot_change_the_past(window):
    model = small(window=window)
    latents, noisy, t, text, visible = inputs()
    blocks = (1, 2, 1, 2)
    before = model(noisy, t, text, visible, clean=latents, blocks=blocks)
    for start, stop in ((1, 3), (3, 4), (4, 6)):
        changed, other_noisy, other_t = latents.clone(), noisy.clone(), t.clone()
        changed[:, :, start:] += 1.0
        other_noisy[:, :, stop:] += 1.0
        other_t[:, stop:] = 0.1
        after = model(other_noisy, other_t, text, visible, clean=changed, blocks=blocks)
        torch.testing.assert_close(after[:, :, :stop], before[:, :, :stop], **CLOSE)
        if stop < FRAMES:
            assert (after[:, :, stop:] - before[:, :, stop:]).abs().max() > 1e-3


@torch.no_grad()
def test_history_in_pieces_equals_history_at_once():
    model = small(window=2)
    latents, _, _, text, visible = inputs()
    memory = model.encode_text(text, visible)
    whole = model.encode_history(latents, blocks=(1, 2, 1, 2), text=memory)
    parts = model.encode_history(latents[:, :, :3], blocks=(1, 2), text=memory)
    parts = model.encode_history(latents[:, :, 3:], history=parts, blocks=(1, 2), text=memory)
    assert whole.frames == parts.frames == 3
    for a, b in zip(whole.layers, parts.layers):
        torch.testing.assert_close(a.k, b.k, **CLOSE)
        torch.testing.assert_close(a.v, b.v, **CLOSE)


@torch.no_grad()
def test_history_reads_the_text():
    model = small()
    latents, noisy, t, text, visible = inputs()
    memory, other = model.encode_text(text, visible), model.encode_text(text + 1, visible)
    read = [model.encode_history(latents[:, :, :2], text=known) for known in (memory, other)]
    torch.testing.assert_close(read[0].layers[0].k, read[1].layers[0].k)  # before the first layer reads it
    made = [model.denoise(noisy[:, :, 2:], t[:, 2:], memory, history) for history in read]
    assert (made[0] - made[1]).abs().max() > 1e-3


@torch.no_grad()
def test_hidden_history_is_not_seen():
    model = small()
    latents, noisy, t, text, visible = inputs()
    seen = torch.tensor([True, False])
    mixed = model(noisy, t, text, visible, clean=latents, blocks=(1, 5), history_visible=seen)
    full = model(noisy, t, text, visible, clean=latents, blocks=(1, 5))
    memory = model.encode_text(text, visible)
    alone = model.denoise(noisy[:, :, 1:], t[:, 1:], memory)
    history = model.encode_history(latents[:, :, :1], text=memory)
    cached = model.denoise(noisy[:, :, 1:], t[:, 1:], memory, history, seen)
    torch.testing.assert_close(mixed[0], full[0])
    torch.testing.assert_close(mixed[:, :, 1:], cached, **CLOSE)
    assert (full[1] - mixed[1]).abs().max() > 1e-3
    # positions are those behind the history: a rotation of all of them, which changes no distance
    torch.testing.assert_close(mixed[1, :, 1:], alone[1], **CLOSE)


@torch.no_grad()
def test_a_batch_equals_its_samples():
    model = small(in_channels=7, image_width=9)
    latents, noisy, t, text, visible = inputs()
    generator = torch.Generator().manual_seed(2)
    beside, clip = torch.randn(2, 4, 6, 4, 6, generator=generator), torch.randn(2, 5, 9, generator=generator)
    extra = dict(clip_tokens=clip, beside=beside)
    both = model(noisy, t, text, visible, clean=latents, blocks=(1, 2, 3), **extra)
    memory = model.with_picture(model.encode_text(text, visible), clip, beside)
    bidirectional = model.denoise(noisy, t, memory)
    for i, words in ((0, 4), (1, 2)):
        of = slice(i, i + 1)
        own = {name: x[of] for name, x in extra.items()}
        inputs_of = (noisy[of], t[of], text[of, :words], visible[of, :words])
        torch.testing.assert_close(model(*inputs_of, clean=latents[of], blocks=(1, 2, 3), **own), both[of], **CLOSE)
        torch.testing.assert_close(model(*inputs_of, **own), bidirectional[of], **CLOSE)
        torch.testing.assert_close(
            model.denoise(noisy[of], t[of], memory.select(torch.tensor([i]))), bidirectional[of], **CLOSE
        )


@torch.no_grad()
def test_texts_joined_equal_texts_alone():
    model = small()
    _, noisy, t, text, visible = inputs()
    one, other = model.encode_text(text, visible), model.encode_text(text[:, :1], visible[:, :1])
    joined = one.joined([other])
    made = model.denoise(torch.cat([noisy] * 2), torch.cat([t] * 2), joined)
    for memory, part in zip((one, other), made.chunk(2)):
        torch.testing.assert_close(part, model.denoise(noisy, t, memory), **CLOSE)


def test_every_parameter_learns():
    model = small(in_channels=7, image_width=9, image_positions=10)
    latents, noisy, t, text, visible = inputs()
    extra = dict(clip_tokens=torch.randn(2, 10, 9), beside=torch.randn(2, 4, 6, 4, 6))
    model(noisy, t, text, visible, clean=latents, blocks=(1, 5), **extra).square().mean().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


# -------------------- sampling


@torch.no_grad()
def test_guided_branches_have_histories_of_their_own():
    """With guidance each branch equals the model that is given its own text from the start."""
    model = small(sink=1, window=2)
    latents, noisy, _, text, visible = inputs()
    full, empty = model.encode_text(text, visible), model.encode_text(text[:, :1] * 0.5, visible[:, :1])
    guided = TextConditioned(model, Diffusion(DiffusionConfig()), full, empty, window=2)
    history, alone = None, {"full": None, "history": None}
    zero = torch.zeros(2)
    for part in latents.split((1, 2, 1, 2), dim=2):
        history = guided.append(history, part, zero)
        for name, memory in (("full", full), ("history", empty)):
            alone[name] = model.encode_history(part, zero, alone[name], text=memory)
    assert len(history.layers[0].k) == 4
    block, t = noisy[:, :, :2], torch.tensor([0.5, 0.7])
    made = dict(zip(("full", "history", "alone"), guided.denoiser(history, ("full", "history", "alone"))(block, t)))
    for name, memory in (("full", full), ("history", empty)):
        wanted = guided.diffusion.to_denoised(model.denoise(block, t, memory, alone[name]), block, t)
        torch.testing.assert_close(made[name], wanted, **CLOSE)
    wanted = guided.diffusion.to_denoised(model.denoise(block, t, empty), block, t)
    torch.testing.assert_close(made["alone"], wanted, **CLOSE)
    # guidance that ends, and guidance that begins
    plain = TextConditioned(model, guided.diffusion, full, None, window=2)
    torch.testing.assert_close(plain.denoiser(history, ("full",))(block, t)[0], made["full"], **CLOSE)
    unguided = plain.append(None, latents, zero)
    torch.testing.assert_close(
        guided.denoiser(unguided, ("full", "history"))(block, t)[0],
        plain.denoiser(unguided, ("full",))(block, t)[0],
        **CLOSE,
    )
    assert len(guided.append(unguided, block, zero).layers[0].k) == 4
    assert len(plain.append(history, block, zero).layers[0].k) == 2


@pytest.fixture(scope="module")
def pipe() -> VideoPipeline:
    torch.manual_seed(0)
    vae = VideoVAE(VAEConfig(spatial_stride=4, latent_channels=4, widths=(16,), stem=4)).eval()
    vae.fit_linear_path(torch.rand(4, 3, 9, 16, 16) * 2 - 1)
    model = small(latent_channels=4, in_channels=4, text_width=16, text_len=64, depth=2, sink=1, window=2)
    clip = ClipSettings(num_frames=17, fps=8, height=16, width=16)
    text = ByteTextEncoder(TextConfig(width=16)).eval()
    return VideoPipeline(vae, model, text, DiffusionConfig(), clip, SamplingConfig(num_steps=2, solver="renoise"))


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_a_stream_equals_a_clip(pipe, guidance_scale):
    settings = dict(seed=3, block_frames=2, guidance_scale=guidance_scale)
    with pipe.stream("a red circle, fast", **settings) as stream:
        chunks = [next(stream) for _ in range(5)]
    whole = pipe("a red circle, fast", num_frames=33, **settings)
    assert np.array_equal(np.concatenate(chunks), whole)


@pytest.mark.parametrize("first", [0, 1, 3])
def test_a_first_block_may_have_as_many_frames_as_the_others(pipe, first):
    settings = dict(seed=3, block_frames=2, first_block_frames=first)
    with pipe.stream("a red circle, fast", **settings) as stream:
        begins = stream.begins_at
        chunks = [next(stream) for _ in range(4)]
    size = 1 + 4 * ((first or 2) - 1)
    assert [len(chunk) for chunk in chunks] == [size, 8, 8, 8] and begins == size / 8
    assert np.array_equal(np.concatenate(chunks), pipe("a red circle, fast", num_frames=size + 24, **settings))
    given = np.concatenate(chunks[:2])
    with pipe.stream("a red circle, fast", video=given, **settings) as stream:
        assert len(next(stream)) == 8


def test_a_saved_stream_goes_on_as_one_that_was_not(pipe, tmp_path):
    with pipe.stream("a red circle, fast", seed=3, block_frames=2, guidance_scale=3.0) as stream:
        for _ in range(4):
            next(stream)
        stream.save(tmp_path / "state.safetensors")
        wanted = [next(stream) for _ in range(3)]
    with Stream.load(tmp_path / "state.safetensors", pipe) as again:
        for frames in wanted:
            assert np.array_equal(next(again), frames)
