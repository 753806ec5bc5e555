"""The frame before, moved as its pixels move."""

import pytest
import torch
from einops import rearrange

from video_gen.config import validate
from video_gen.errors import ConfigError, ShapeError
from video_gen.model.transformer import VideoTransformer
from video_gen.model.transformer_config import TransformerConfig
from video_gen.model.vae_config import VAEConfig
from video_gen.model.video_vae import VideoVAE
from video_gen.model.warp import Warp


def film(seed: int, side: int = 4) -> torch.Tensor:
    return torch.rand(3, 3, 1 + 2 * 4, 3 * side, 5 * side, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def coded():
    """A linear code that keeps every pixel, other for the first frame: (latents, video), and what shows latents."""
    side, generator = 2, torch.Generator().manual_seed(0)
    bases = [torch.linalg.qr(torch.randn(n, n, generator=generator))[0] for n in (12, 24)]
    video = film(1, side)
    first = rearrange(video[:, :, :1], "b c f (h p) (w q) -> b f h w (c p q)", p=side, q=side) @ bases[0]
    later = (
        rearrange(video[:, :, 1:], "b c (f t) (h p) (w q) -> b f h w (t c p q)", t=2, p=side, q=side) @ bases[1] + 0.5
    )
    first = torch.cat([first, torch.zeros_like(first)], dim=-1)
    latents = torch.cat([first, later], dim=1).movedim(-1, 1)

    def show(z):
        pixels = (z.movedim(1, -1) - 0.5) @ bases[1].T
        return rearrange(pixels, "b f h w (t c p q) -> b c (f t) (h p) (w q)", t=2, p=side, q=side)

    warp = Warp(24, (2, side))
    warp.fit([(latents, video)])
    return warp, latents, video, show


@pytest.mark.parametrize("down, right", [(0, 0), (1, 0), (0, -1), (-2, 3)])
def test_a_flow_of_whole_pixels_moves_the_frame_before_by_so_many(coded, down, right):
    warp, latents, video, show = coded
    flow = torch.zeros(3, 5, 3, 5, 4)
    flow[..., 0::2], flow[..., 1::2] = down / 2, right / 2  # a latent pixel is two
    made = show(warp(warp.shown(latents, [True, False, False, False, False]), flow))
    shown = video[:, :, 0::2].repeat_interleave(2, dim=2)  # the last pixel frame of each latent frame, twice
    height, width = shown.shape[-2:]
    rows = (torch.arange(height) + down).clamp(0, height - 1)
    columns = (torch.arange(width) + right).clamp(0, width - 1)
    torch.testing.assert_close(made, shown[..., rows, :][..., columns], atol=5e-3, rtol=0)


def test_both_pixel_frames_move_by_their_own_flow_and_what_lies_between_pixels_is_their_mean(coded):
    warp, latents, video, show = coded
    flow = torch.zeros(3, 1, 3, 5, 4)
    flow[..., 3] = 0.25  # half a pixel to the right in the second frame
    made = show(warp(warp.shown(latents[:, :, 2:3], [False]), flow))
    last = video[:, :, 4]
    torch.testing.assert_close(made[:, :, 0], last, atol=5e-3, rtol=0)
    between = (last[..., :-1] + last[..., 1:]) / 2
    torch.testing.assert_close(made[:, :, 1, :, :-1], between, atol=5e-3, rtol=0)


def test_what_a_vae_makes_is_moved_nearly_as_its_pixels_are():
    """The maps are fitted, not known: to a VAE of a linear path and a network, on other clips."""
    torch.manual_seed(0)
    vae = VideoVAE(VAEConfig(temporal_stride=2, spatial_stride=4, stem=2, widths=(8, 8), latent_channels=16))
    smooth = torch.nn.functional.interpolate(torch.rand(4, 3, 4, 6, 8), (9, 48, 64), mode="trilinear")
    vae.fit_linear_path(smooth[:3])
    warp = Warp(16, (2, 4))
    with torch.no_grad():
        latents = vae.encode(smooth).mean
        video = vae.decode(latents)
        warp.fit([(latents[:3], video[:3])])
        flow = torch.zeros(1, 4, 12, 16, 4)
        flow[..., 1::2] = 0.5  # two pixels to the right
        made = warp(warp.shown(latents[3:, :, :4], [True, False, False, False]), flow)
        moved = vae.decode(torch.cat([latents[3:, :, :1], made], dim=2))[:, :, 1:]
    last = video[3:, :, 0:7:2].repeat_interleave(2, dim=2)
    wrong, change = ((x[..., :-2] - last[..., 2:]).square().mean() for x in (moved, last))
    assert wrong < 0.1 * change


def test_gradients_reach_the_flow_and_no_map():
    config = TransformerConfig(
        latent_channels=4,
        patch_size=1,
        width=32,
        depth=1,
        head_dim=16,
        text_width=8,
        previous=True,
        warp=True,
        strides=(2, 4),
    )
    torch.manual_seed(0)
    model = VideoTransformer(config)
    for buffer in model.buffers():
        torch.nn.init.normal_(buffer)
    clean, visible = torch.randn(2, 4, 3, 2, 3), torch.ones(2, 3, dtype=torch.bool)
    made = model(
        torch.randn(2, 4, 3, 2, 3), torch.rand(2, 3), torch.randn(2, 3, 8), visible, clean=clean, blocks=(1, 1, 1)
    )
    made.square().mean().backward()
    flow = model.carry and model.carry.flow
    assert flow is not None and flow.weight.grad is not None and flow.weight.grad[4:].any()
    assert not any("warp" in name for name, _ in model.named_parameters())


def test_a_model_that_moves_frames_needs_those_before():
    with pytest.raises(ConfigError, match="set previous to true"):
        validate(TransformerConfig, {"warp": True}, "transformer")
    with pytest.raises(ConfigError, match="set previous to true"):
        validate(TransformerConfig, {"change": True}, "transformer")
    with pytest.raises(ConfigError, match="set both to true"):
        validate(TransformerConfig, {"previous": True, "warp": True, "inertia": True}, "transformer")
    with pytest.raises(ConfigError, match="set it to 2"):
        moves = {"previous": True, "warp": True, "change": True, "inertia": True}
        validate(TransformerConfig, {**moves, "window": 1}, "transformer")
    with pytest.raises(ShapeError, match="those of the VAE"):
        VideoTransformer(TransformerConfig(previous=True, warp=True))
    with pytest.raises(ConfigError, match="set sink to 1"):
        validate(TransformerConfig, {"warp": True, "previous": True, "sink": 0}, "transformer")
