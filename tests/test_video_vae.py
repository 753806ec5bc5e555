"""The VAE: causal, chunked equals whole, tiled equals whole, image equals first frame, starts at its linear floor."""

import numpy as np
import pytest
import torch

from video_gen.errors import ConfigError, DataError, ShapeError
from video_gen.model import video_vae
from video_gen.model.linear_path import LinearPath
from video_gen.model.vae_config import PRESETS, VAEConfig
from video_gen.model.vae_layers import CausalConv, Stream
from video_gen.model.video_vae import VideoVAE
from video_gen.plan import RandomClips
from video_gen.training.parallel import Mesh
from video_gen.training.recipes import VAERun
from video_gen.training.vae_task import VAETask

STRIDES = [(1, 4), (2, 4), (4, 4), (4, 8), (8, 16)]
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def small(temporal=4, spatial=4, **overrides) -> VideoVAE:
    torch.manual_seed(0)
    settings = dict(temporal_stride=temporal, spatial_stride=spatial, latent_channels=3, widths=(16, 32)) | overrides
    vae = VideoVAE(VAEConfig(**settings)).eval()
    for parameter in vae.parameters():  # zero-initialised layers would hide mistakes
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    vae.fit_linear_path(clip(frames=17, batch=4, spatial=spatial))
    return vae


def clip(frames=17, batch=2, spatial=4, size=2):
    generator = torch.Generator().manual_seed(3)
    return torch.rand(batch, 3, frames, size * spatial, (size + 1) * spatial, generator=generator) * 2 - 1


@pytest.mark.parametrize(("temporal", "spatial"), STRIDES)
def test_chunked_equals_whole_for_every_cut(temporal, spatial):
    vae = small(temporal, spatial)
    video = clip(1 + 4 * temporal, spatial=spatial)
    with torch.no_grad():
        posterior = vae.encode(video)
        decoded = vae.decode(posterior.mean)
        for cut in range(1, 5):
            at = vae.num_frames(cut)
            first, cache = vae.encode_chunk(video[:, :, :at], None)
            second, _ = vae.encode_chunk(video[:, :, at:], cache)
            torch.testing.assert_close(torch.cat([first.mean, second.mean], 2), posterior.mean, **CLOSE)
            torch.testing.assert_close(torch.cat([first.logvar, second.logvar], 2), posterior.logvar, **CLOSE)
            a, cache = vae.decode_chunk(posterior.mean[:, :, :cut], None)
            b, _ = vae.decode_chunk(posterior.mean[:, :, cut:], cache)
            torch.testing.assert_close(torch.cat([a, b], 2), decoded, **CLOSE)


def test_frame_by_frame_equals_whole_and_streams_do_not_touch():
    vae = small()
    one, two = clip(), clip().flip(3)
    with torch.no_grad():
        whole = [vae.decode(vae.encode(v).mean) for v in (one, two)]
        latents = [vae.encode(v).mean for v in (one, two)]
        caches, made = [None, None], [[], []]
        for frame in range(5):
            for stream in (0, 1):
                chunk, caches[stream] = vae.decode_chunk(latents[stream][:, :, frame : frame + 1], caches[stream])
                made[stream].append(chunk)
    for chunks, want in zip(made, whole):
        torch.testing.assert_close(torch.cat(chunks, 2), want, **CLOSE)


@pytest.mark.parametrize(("temporal", "spatial"), STRIDES)
def test_the_future_cannot_change_the_past(temporal, spatial):
    vae = small(temporal, spatial)
    video = clip(1 + 3 * temporal, spatial=spatial)
    other = video.clone()
    other[:, :, 1 + temporal :] = 0.3
    with torch.no_grad():
        a, b = vae.encode(video).mean, vae.encode(other).mean
        torch.testing.assert_close(a[:, :, :2], b[:, :, :2], **CLOSE)
        assert (a[:, :, 2:] - b[:, :, 2:]).abs().max() > 1e-3
        changed = a.clone()
        changed[:, :, 2:] += 1
        x, y = vae.decode(a), vae.decode(changed)
        torch.testing.assert_close(x[:, :, : 1 + temporal], y[:, :, : 1 + temporal], **CLOSE)
        assert (x[:, :, 1 + temporal :] - y[:, :, 1 + temporal :]).abs().max() > 1e-3


def test_an_image_is_the_first_frame_of_a_clip():
    vae = small()
    video = clip()
    with torch.no_grad():
        torch.testing.assert_close(vae.encode(video[:, :, :1]).mean, vae.encode(video).mean[:, :, :1], **CLOSE)
        latents = vae.encode(video).mean
        torch.testing.assert_close(vae.decode(latents[:, :, :1]), vae.decode(latents)[:, :, :1], **CLOSE)


@pytest.mark.parametrize("tile", [3, 5])
def test_tiles_with_a_halo_equal_the_whole(tile):
    vae = small(spatial=8, temporal=2)
    generator = torch.Generator().manual_seed(0)
    video = torch.rand(1, 3, 3, 8 * 13, 8 * 16, generator=generator) * 2 - 1
    with torch.no_grad():
        whole = vae.encode(video)
        tiled = vae.tiled_encode(video, tile)
        torch.testing.assert_close(tiled.mean, whole.mean, **CLOSE)
        torch.testing.assert_close(tiled.logvar, whole.logvar, **CLOSE)
        torch.testing.assert_close(vae.tiled_decode(whole.mean, tile), vae.decode(whole.mean), **CLOSE)


@pytest.mark.parametrize("tile", [3, None])
@pytest.mark.parametrize("frames", [1, 2])
def test_tiles_of_chunks_equal_the_whole(tile, frames, monkeypatch):
    monkeypatch.setattr(video_vae, "WHOLE_PIXELS", 64)
    monkeypatch.setattr(video_vae, "TILE_PIXELS", 32)  # with tile None: 4 latent pixels
    vae = small(spatial=8, temporal=2)
    video = torch.rand(1, 3, 9, 8 * 9, 8 * 10, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        whole = vae.encode(video)
        parts = list(vae.encode_parts(video, frames, tile))
        assert len(parts) == -(-5 // frames)
        torch.testing.assert_close(torch.cat([part.mean for part in parts], 2), whole.mean, **CLOSE)
        torch.testing.assert_close(torch.cat([part.logvar for part in parts], 2), whole.logvar, **CLOSE)
        decoded = torch.cat(list(vae.decode_parts(whole.mean, frames, tile)), 2)
        torch.testing.assert_close(decoded, vae.decode(whole.mean), **CLOSE)
        _, caches = vae.tiled_decode_chunk(whole.mean, None, 3)
        with pytest.raises(ShapeError, match="12 caches, and 4 are used"):
            vae.tiled_decode_chunk(whole.mean, caches, 5)


def test_what_parts_keep_does_not_grow_with_frames():
    vae = small(spatial=8)
    with torch.no_grad():
        caches, sizes = None, []
        for _ in range(4):
            _, caches = vae.tiled_decode_chunk(torch.zeros(1, 3, 2, 5, 5), caches, 3)
            storages = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for c in caches for x in c}
            sizes.append(sum(storages.values()))
    assert len(set(sizes)) == 1 and sizes[0] > 0


def test_training_starts_at_the_linear_floor():
    vae = VideoVAE(VAEConfig(temporal_stride=4, spatial_stride=4, latent_channels=6, widths=(16,)))
    video = clip(batch=4)
    vae.fit_linear_path(video)
    with torch.no_grad():
        torch.testing.assert_close(vae.decode(vae.encode(video).mean), vae.linear_reconstruction(video), **CLOSE)


def test_linear_path_is_the_best_projection():
    video = clip(batch=8)
    path = LinearPath(4, 4, 10)
    path.fit(video)
    made = path.decode(path.encode(video, True), True)
    patches = path._patches(video[:, :, 1:], 4).flatten(0, 3)
    centred = patches - patches.mean(0)
    rest = torch.linalg.svdvals(centred.double())[10:].square().sum()
    torch.testing.assert_close((made - video)[:, :, 1:].square().sum().double(), rest, rtol=1e-4, atol=1e-4)
    latents = path.encode(video, True)
    torch.testing.assert_close(latents[:, :, 1:].square().mean((0, 2, 3, 4)), torch.ones(10), rtol=1e-3, atol=1e-3)


def test_latent_statistics_normalise_and_keep_the_reconstruction(tmp_path):
    vae = small()
    video = clip(batch=4)
    with torch.no_grad():
        before = vae.encode(video)
        video_before, kl = vae.decode(before.mean), before.kl()
        for _ in range(2):  # a second measurement joins the first
            z = vae.encode(video).mean
            vae.set_latent_statistics(z.mean((0, 2, 3, 4)), z.std((0, 2, 3, 4)))
        z = vae.encode(video)
        torch.testing.assert_close(z.mean.mean((0, 2, 3, 4)), torch.zeros(3), rtol=0, atol=1e-4)
        torch.testing.assert_close(z.mean.std((0, 2, 3, 4)), torch.ones(3), rtol=0, atol=1e-4)
        torch.testing.assert_close(vae.decode(z.mean), video_before, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(z.kl(), kl, rtol=1e-3, atol=1e-3)
        vae.save_pretrained(tmp_path)
        loaded = VideoVAE.from_pretrained(tmp_path)
        assert loaded.config == vae.config
        assert torch.equal(loaded.decode(z.mean), vae.decode(z.mean))


def test_every_parameter_learns():
    vae = small()
    posterior = vae.encode(clip())
    loss = vae.decode(posterior.sample(torch.Generator().manual_seed(0))).square().mean() + posterior.kl().mean()
    loss.backward()
    assert [n for n, p in vae.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


@pytest.mark.parametrize(
    ("preset", "millions"), [("tiny", (2, 6)), ("small", (12, 30)), ("base", (50, 110)), ("large", (130, 260))]
)
def test_presets(preset, millions):
    with torch.device("meta"):
        vae = VideoVAE(VAEConfig.preset(preset))
    assert millions[0] < sum(p.numel() for p in vae.parameters()) / 1e6 < millions[1]
    assert preset in PRESETS


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 3, 16, 8, 8), "nearest are 13 and 17"),
        ((1, 3, 17, 9, 8), "height 9.*8 and 12"),
        ((1, 3, 17, 8, 2), "width 2.*4 and 8"),
        ((1, 4, 17, 8, 8), r"\(b, 3, f, h, w\)"),
    ],
)
def test_wrong_shapes_name_the_nearest(shape, message):
    with pytest.raises(ShapeError, match=message):
        small().encode(torch.zeros(shape))


def test_wrong_chunks_latents_and_folders(tmp_path):
    vae = small()
    _, cache = vae.encode_chunk(clip(5), None)
    with pytest.raises(ShapeError, match="multiple of 4 in a later chunk"):
        vae.encode_chunk(clip(5), cache)
    with pytest.raises(ShapeError, match="3, f"):
        vae.decode(torch.zeros(1, 4, 1, 2, 2))
    with pytest.raises(DataError, match=r"config\.json"):
        VideoVAE.from_pretrained(tmp_path)
    small().save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(VAEConfig(widths=(32,)).model_dump_json())
    with pytest.raises(ConfigError, match="does not fit"):
        VideoVAE.from_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"123")
    with pytest.raises(DataError, match="damaged"):
        VideoVAE.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("channels", "size", "frames", "depth"), [(32, 64, 1, 1), (32, 64, 3, 3), (48, 96, 3, 6), (16, 96, 3, 4)]
)
def test_gradients_of_a_bfloat16_convolution_are_those_of_float32(channels, size, frames, depth):
    torch.manual_seed(0)
    conv = CausalConv(channels, channels, frames)
    video = torch.randn(2, depth, size, size, channels)
    found = []
    for enabled in (False, True):
        x = video.clone().requires_grad_()
        conv.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            made = conv(x, Stream(None, keep=False))
        made.float().backward(torch.randn(made.shape, generator=torch.Generator().manual_seed(1)))
        found.append([made.detach().float(), x.grad, *(p.grad.clone() for p in conv.parameters())])
    for exact, rounded in zip(*found, strict=True):
        assert (exact - rounded).norm() < 0.01 * exact.norm()


def test_crops_are_squares_of_their_clips_dealt_out_over_processes():
    run = VAERun(
        data={"height": 32, "width": 48}, crop=16, image_fraction=0.0, loop={"batch_size": 4}, vae={"preset": "tiny"}
    )
    clips, vae = RandomClips((5, 32, 48)), VideoVAE(run.vae)

    def video(step, **place):
        return VAETask(run, vae, clips, clips, Mesh(**place)).batch(step)["video"].numpy()

    whole = video(0)
    assert whole.shape == (4, 5, 16, 16, 3)
    every = np.lib.stride_tricks.sliding_window_view(clips[0].video, (5, 16, 16, 3))[0, :, :, 0]
    places = [np.argwhere((every == crop).all(axis=(2, 3, 4, 5))).tolist() for crop in whole]
    assert all(len(found) == 1 for found in places) and len({str(found) for found in places}) > 1
    assert not np.array_equal(whole, video(1)) and np.array_equal(whole, video(0))
    parts = [video(0, rank=rank, sizes=(1, 2, 1)) for rank in range(2)]
    assert np.array_equal(np.concatenate(parts), whole)
