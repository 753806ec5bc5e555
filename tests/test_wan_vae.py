"""The Wan VAEs: equal to diffusers', chunked and tiled equal to whole, names and sizes complete."""

import pytest
import torch
import torch.nn.functional as F

from video_gen.errors import ConfigError, ShapeError
from video_gen.model.vae_layers import convolve
from video_gen.model.wan import vae as wan_vae
from video_gen.model.wan import vae_kernels
from video_gen.model.wan.vae import WanVAE
from video_gen.model.wan.vae_config import PRESETS, WanVAEConfig
from video_gen.model.wan.vae_kernels import causal, doubled, in_pairs
from video_gen.model.wan.vae_layers import SHORTEST, Norm
from video_gen.model.wan.vae_names import (
    config_from_diffusers,
    config_of,
    config_to_diffusers,
    in_our_names,
    to_diffusers,
)

TINY = ["tiny-2.1", "tiny-2.2"]
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def small(preset: str, **overrides) -> WanVAE:
    torch.manual_seed(0)
    vae = WanVAE.from_preset(preset, **overrides).eval().requires_grad_(False)
    for parameter in vae.parameters():
        parameter.data.add_(0.03 * torch.randn_like(parameter))
    return vae


def clip(vae: WanVAE, frames=13, batch=1, height=2, width=3):
    s = vae.config.spatial_stride
    return torch.rand(batch, 3, frames, height * s, width * s, generator=torch.Generator().manual_seed(3)) * 2 - 1


def peer(config: WanVAEConfig):
    return pytest.importorskip("diffusers").AutoencoderKLWan.from_config(config_to_diffusers(config)).eval()


def apart(x, y) -> float:
    return ((x - y).norm() / y.norm()).item()


@pytest.mark.parametrize("preset", TINY)
@pytest.mark.parametrize("frames", [1, 5, 13])
def test_equal_to_diffusers(preset, frames):
    vae = small(preset)
    config = vae.config
    other = peer(config)
    other.load_state_dict(to_diffusers(vae.state_dict(), config.blocks, config.shortcuts))
    video = clip(vae, frames, batch=2)
    unit, centre = vae._statistics(torch.device("cpu"))
    with torch.no_grad():
        ours, theirs = vae.encode(video), other.encode(video).latent_dist
        assert apart(ours.mean * unit + centre, theirs.mean) < 1e-5
        assert apart(ours.logvar + 2 * unit.log(), theirs.logvar) < 1e-5
        latents = torch.randn(ours.mean.shape, generator=torch.Generator().manual_seed(0))
        video = other.decode(latents * unit + centre).sample
        assert 0.1 < video.abs().mean() < 0.8  # not all at the limits
        assert apart(vae.decode(latents).clamp(-1, 1), video) < 1e-5


@pytest.mark.parametrize("preset", PRESETS)
def test_names_shapes_and_sizes_are_those_of_diffusers(preset):
    config = WanVAEConfig.preset(preset)
    with torch.device("meta"):
        vae, other = WanVAE(config), peer(config)
    ours = {name: tuple(x.shape) for name, x in vae.state_dict().items()}
    theirs = {name: tuple(x.shape) for name, x in other.state_dict().items()}
    assert to_diffusers(ours, config.blocks, config.shortcuts) == theirs
    assert in_our_names(theirs) == ours and in_our_names(ours) == ours
    assert config_of(theirs) == config and config_of(ours) == config
    read = config_from_diffusers(dict(other.config), "config.json")
    assert read.replace(decoder_width=config.decoder_width) == config


def test_of_other_sizes_too():
    config = WanVAEConfig.preset("2.1", multipliers=(1, 2, 2), temporal=(True, False), blocks=3, width=4)
    with torch.device("meta"):
        vae, other = WanVAE(config), peer(config)
    theirs = {name: tuple(x.shape) for name, x in other.state_dict().items()}
    assert in_our_names(theirs) == {name: tuple(x.shape) for name, x in vae.state_dict().items()}
    assert config_of(theirs) == config


def test_what_is_unknown_is_said():
    vae = small("tiny-2.1", latent_channels=4, latent_mean=None, latent_std=None)
    with pytest.raises(ConfigError, match="4 latent channels"):
        config_of({name: x.shape for name, x in vae.state_dict().items()})
    with pytest.raises(ConfigError, match=r"no Wan VAE.*blocks\.0"):
        config_of({"blocks.0.weight": (1,)})
    state = vae.state_dict()
    state["decoder.extra"] = torch.zeros(1)
    with pytest.raises(ConfigError, match=r"it holds decoder\.extra"):
        WanVAE.from_state(vae.config, state)
    with pytest.raises(ConfigError, match="attn_scales"):
        config_from_diffusers({"attn_scales": [0.5]}, "config.json")
    with pytest.raises(ConfigError, match="give one fewer"):
        WanVAEConfig.preset("2.1", temporal=(True, True))


@pytest.mark.parametrize("preset", TINY)
def test_chunked_equals_whole_for_every_cut(preset):
    vae = small(preset)
    video = clip(vae, 17)
    whole = vae.encode(video)
    decoded = vae.decode(whole.mean)
    for cut in range(1, 5):
        at = vae.num_frames(cut)
        first, cache = vae.encode_chunk(video[:, :, :at], None)
        second, _ = vae.encode_chunk(video[:, :, at:], cache)
        torch.testing.assert_close(torch.cat([first.mean, second.mean], 2), whole.mean, **CLOSE)
        torch.testing.assert_close(torch.cat([first.logvar, second.logvar], 2), whole.logvar, **CLOSE)
        a, cache = vae.decode_chunk(whole.mean[:, :, :cut], None)
        b, _ = vae.decode_chunk(whole.mean[:, :, cut:], cache)
        torch.testing.assert_close(torch.cat([a, b], 2), decoded, **CLOSE)


@pytest.mark.parametrize("preset", TINY)
def test_parts_within_equal_the_whole(preset, monkeypatch):
    vae = small(preset)
    video = clip(vae)
    latents = vae.encode(video).mean
    whole = vae.decode(latents)
    for pixels in (1, 2 * 4 * video[0, 0, 0].numel()):  # one latent frame at a time, two
        monkeypatch.setattr(wan_vae, "PART_PIXELS", pixels)
        torch.testing.assert_close(vae.encode(video).mean, latents, **CLOSE)
        torch.testing.assert_close(vae.decode(latents), whole, **CLOSE)


@pytest.mark.parametrize("preset", TINY)
def test_frame_by_frame_streams_do_not_touch(preset):
    vae = small(preset)
    latents = [vae.encode(video).mean for video in (clip(vae), clip(vae).flip(3))]
    caches, made = [None, None], [[], []]
    for frame in range(4):
        for stream in (0, 1):
            chunk, caches[stream] = vae.decode_chunk(latents[stream][:, :, frame : frame + 1], caches[stream])
            made[stream].append(chunk)
    for chunks, value in zip(made, latents):
        torch.testing.assert_close(torch.cat(chunks, 2), vae.decode(value), **CLOSE)


@pytest.mark.parametrize("preset", TINY)
def test_the_future_cannot_change_the_past_and_an_image_is_a_first_frame(preset):
    vae = small(preset)
    video = clip(vae)
    other = video.clone()
    other[:, :, 5:] = 0.3
    a, b = vae.encode(video).mean, vae.encode(other).mean
    torch.testing.assert_close(a[:, :, :2], b[:, :, :2], **CLOSE)
    assert (a[:, :, 2:] - b[:, :, 2:]).abs().max() > 1e-3
    changed = a.clone()
    changed[:, :, 2:] += 1
    x, y = vae.decode(a), vae.decode(changed)
    torch.testing.assert_close(x[:, :, :5], y[:, :, :5], **CLOSE)
    assert (x[:, :, 5:] - y[:, :, 5:]).abs().max() > 1e-3
    torch.testing.assert_close(vae.encode(video[:, :, :1]).mean, a[:, :, :1], **CLOSE)
    torch.testing.assert_close(vae.decode(a[:, :, :1]), x[:, :, :1], **CLOSE)


@pytest.mark.parametrize(("preset", "frames"), [("tiny-2.1", 1), ("tiny-2.1", 2), ("tiny-2.2", 1)])
def test_tiles_of_chunks_equal_the_whole(preset, frames):
    vae = small(preset)
    video = clip(vae, 5, batch=2, height=10, width=19)
    whole = vae.encode(video)
    parts = list(vae.encode_parts(video, frames, tile=9))
    torch.testing.assert_close(torch.cat([part.mean for part in parts], 2), whole.mean, **CLOSE)
    torch.testing.assert_close(torch.cat([part.logvar for part in parts], 2), whole.logvar, **CLOSE)
    decoded = torch.cat(list(vae.decode_parts(whole.mean, frames, tile=9)), 2)
    torch.testing.assert_close(decoded, vae.decode(whole.mean), **CLOSE)
    _, caches = vae.tiled_decode_chunk(whole.mean, None, 9)
    with pytest.raises(ShapeError, match="7 caches, and 3 are used"):
        vae.tiled_decode_chunk(whole.mean, caches, 13)


@pytest.mark.parametrize(("preset", "tile"), [("tiny-2.1", 96), ("tiny-2.2", 48)])
def test_large_frames_are_cut_into_tiles(preset, tile):
    vae = small(preset)
    assert vae.tile_for(720, 1280) * vae.config.spatial_stride >= 1280
    assert vae.tile_for(1088, 1920) == tile


@pytest.mark.parametrize("tile", [2, 9])
def test_what_chunks_keep_does_not_grow_with_frames(tile):
    vae = small("tiny-2.1")
    caches, sizes = None, []
    for _ in range(4):
        _, caches = vae.tiled_decode_chunk(torch.zeros(1, 16, 2, 4, 4), caches, tile)
        storages = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for cache in caches for x in cache}
        sizes.append(sum(storages.values()))
    assert len(set(sizes)) == 1 and sizes[0] > 0


@pytest.mark.parametrize(
    ("preset", "shape", "message"),
    [
        ("tiny-2.1", (1, 3, 8, 16, 16), "nearest are 5 and 9"),
        ("tiny-2.1", (1, 3, 10, 16, 16), "nearest are 9 and 13"),
        ("tiny-2.1", (1, 3, 0, 16, 16), "nearest are 1 and 5"),
        ("tiny-2.2", (1, 3, 9, 24, 16), "height 24.*16 and 32"),
        ("tiny-2.1", (1, 4, 9, 16, 16), r"\(b, 3, f, h, w\)"),
    ],
)
def test_wrong_shapes_name_the_nearest(preset, shape, message):
    with pytest.raises(ShapeError, match=message):
        small(preset).encode(torch.zeros(shape))


@pytest.mark.parametrize("preset", TINY)
def test_every_parameter_learns(preset):
    vae = small(preset).requires_grad_(True)
    posterior = vae.encode(clip(vae, 9))
    loss = vae.decode(posterior.sample(torch.Generator().manual_seed(0))).square().mean() + posterior.kl().mean()
    loss.backward()
    assert [n for n, p in vae.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


@pytest.mark.parametrize("preset", TINY)
def test_bfloat16_is_close(preset):
    vae = small(preset)
    video = clip(vae)
    latents = vae.encode(video).mean
    decoded = vae.decode(latents)
    with torch.autocast("cpu", torch.bfloat16):
        assert apart(vae.encode(video).mean, latents) < 0.05
        assert apart(vae.decode(latents), decoded) < 0.05
    vae.bfloat16()
    assert apart(vae.encode(video).mean, latents) < 0.05 and vae.encode(video).mean.dtype == torch.float32
    assert apart(vae.decode(latents), decoded) < 0.05 and vae.decode(latents).dtype == torch.float32


def test_saved_and_loaded(tmp_path):
    vae = small("tiny-2.2")
    vae.save_pretrained(tmp_path)
    loaded = WanVAE.from_pretrained(tmp_path).requires_grad_(False)
    assert loaded.config == vae.config
    latents = torch.randn(1, 48, 2, 2, 2)
    assert torch.equal(loaded.decode(latents), vae.decode(latents))


@pytest.mark.parametrize(("dtype", "far"), [(torch.float32, 1e-5), (torch.bfloat16, 0.01)])
def test_convolutions_with_less_arithmetic_are_the_same(dtype, far):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 6, 5, 7, 16, generator=generator).to(dtype)
    weight, bias = (
        torch.randn(8, 16, 3, 3, 3, generator=generator).to(dtype) / 20,
        torch.randn(8, generator=generator).to(dtype),
    )
    plain = convolve(x, weight, bias)
    assert apart(in_pairs(x, weight, bias).float(), plain.float()) < far
    x[:, :2] = 0
    assert apart(causal(x, weight, bias, starts=True).float(), convolve(x, weight, bias).float()) < far
    big = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    plain = torch.stack([F.conv2d(p.permute(0, 3, 1, 2), weight[:, :, 0], bias, padding=1) for p in big.unbind(1)], 1)
    assert apart(doubled(x, weight[:, :, 0], bias).float(), plain.permute(0, 1, 3, 4, 2).float()) < far


def test_a_norm_by_its_length_is_that_of_other_devices():
    norm, x = Norm(6, 3), torch.randn(2, 3, 4, 5, 6)
    norm.gamma.data.normal_()
    x[0, 0, 0, 0] = 0
    torch.testing.assert_close(norm(x), F.rms_norm(x, (6,), norm.gamma.flatten(), SHORTEST**2), **CLOSE)


def test_in_pairs_chunked_equals_whole(monkeypatch):
    vae = small("tiny-2.1")
    latents = torch.randn(1, 16, 6, 2, 3, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain = vae.decode(latents)
    for name in ("PAIRS_CHANNELS", "PAIRS_POSITIONS"):
        monkeypatch.setattr(vae_kernels, name, 0)
    monkeypatch.setattr(vae_kernels, "in_pairs", counted := Counted(in_pairs))
    with torch.no_grad():
        first, cache = vae.decode_chunk(latents[:, :, :3], None)
        second, _ = vae.decode_chunk(latents[:, :, 3:], cache)
    assert counted.calls > 10
    torch.testing.assert_close(torch.cat([first, second], 2), plain, **CLOSE)


@pytest.mark.slow
@pytest.mark.parametrize("tile", [pytest.param(9, marks=pytest.mark.slow), 32])
def test_the_rest_of_a_video_is_that_of_the_whole(tile):
    vae = small("tiny-2.1")
    latents = torch.randn(1, 16, 5, 10, 19, generator=torch.Generator().manual_seed(0))
    whole = vae.decode(latents)
    torch.testing.assert_close(torch.cat(list(vae.decode_last(latents, None, 2, tile)), 2), whole, **CLOSE)
    first, caches = vae.tiled_decode_chunk(latents[:, :, :2], None, tile)
    rest = vae.decode_last(latents[:, :, 2:], caches, 2, tile)
    torch.testing.assert_close(torch.cat([first, *rest], 2), whole, **CLOSE)


class Counted:
    def __init__(self, function):
        self.function, self.calls = function, 0

    def __call__(self, *args):
        self.calls += 1
        return self.function(*args)
