"""How a picture moved since the one before it."""

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange

from video_gen.model.motion import motion, moved
from video_gen.model.transformer import VideoTransformer
from video_gen.model.transformer_config import TransformerConfig


def picture(seed: int, height: int = 48, width: int = 64) -> torch.Tensor:
    """Blobs of several pixels, in [-1, 1]."""
    coarse = torch.rand(2, 3, height // 6, width // 6, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1) * 2 - 1


def inner(values: torch.Tensor) -> torch.Tensor:
    """Away from the border, beyond which nobody knows what came in."""
    return values[..., 8:-8, 8:-8]


@pytest.mark.parametrize("down, right", [(1.0, 0.0), (0.0, -2.0), (-1.5, 2.5), (3.0, 3.0)])
def test_a_picture_that_moved_as_a_whole_is_seen_to(down, right):
    before = picture(0)
    flow = torch.tensor([down, right]).expand(2, 48, 64, 2)
    now = moved(before, flow)
    found = motion(now, before)
    wrong = inner((found - flow).norm(dim=-1)).median()
    assert wrong < 0.25 * flow[0, 0, 0].norm()
    assert inner(now - moved(before, found)).square().mean() < 0.1 * inner(now - before).square().mean()


def test_each_place_is_seen_to_move_on_its_own():
    before, flow = picture(1), torch.zeros(2, 48, 64, 2)
    flow[:, :, :32, 1], flow[:, :, 32:, 1] = 2, -2
    found = motion(moved(before, flow), before)[..., 1]
    assert inner(found[:, :, :32]).median() > 1 and inner(found[:, :, 32:]).median() < -1


def test_what_goes_on_as_it_went_is_foreseen():
    """The flow that is seen is the one that makes the next picture of the last."""
    first, flow = picture(2), torch.tensor([1.0, -2.0]).expand(2, 48, 64, 2)
    second = moved(first, flow)
    third = moved(second, flow)
    made = moved(second, motion(second, first))
    assert inner(made - third).square().mean() < 0.1 * inner(second - third).square().mean()


def test_nothing_moves_where_nothing_changes_or_nothing_can_be_told():
    now = picture(3)
    assert motion(now, now).abs().max() < 1e-5
    torch.testing.assert_close(moved(now, motion(now, now)), now, atol=1e-5, rtol=0)
    plain = torch.full_like(now, 0.3)
    assert motion(plain, plain - 0.2).abs().max() < 0.05


@pytest.mark.parametrize("height, width", [(4, 4), (7, 9), (18, 34), (45, 31)])
def test_pictures_of_any_size(height, width):
    now = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(4))
    found = motion(now, now.roll(1, -1))
    assert found.shape == (1, height, width, 2) and found.isfinite().all()


@pytest.fixture(scope="module")
def carrying():
    """A model that says nothing of its own: all that it makes is the frame before, as it goes on. Latents are patches of 2x2."""
    sizes = dict(latent_channels=12, patch_size=2, width=32, depth=1, head_dim=16, text_width=8, strides=(1, 2))
    config = TransformerConfig(**sizes, previous=True, warp=True, change=True, inertia=True)
    torch.manual_seed(0)
    model = VideoTransformer(config).eval()
    films = torch.stack([picture(seed) for seed in range(5, 9)], dim=2)
    carry = model.carry
    assert carry is not None and carry.warp is not None and carry.flow is not None
    carry.warp.fit([(coded(films), films)])
    with torch.no_grad():
        carry.copied.bias.fill_(10.0)
        carry.flow.bias[-4:] = 1.0
    return model


def coded(films: torch.Tensor) -> torch.Tensor:
    return rearrange(films, "b c f (h p) (w q) -> b (c p q) f h w", p=2, q=2)


@torch.no_grad()
def next_frame(model: VideoTransformer, films: torch.Tensor) -> torch.Tensor:
    latents = coded(films)
    text = model.encode_text(torch.zeros(2, 1, 8), torch.ones(2, 1, dtype=torch.bool))
    made = model.denoise(torch.randn_like(latents[:, :, :1]), torch.ones(2), text, model.encode_history(latents))
    return rearrange(made, "b (c p q) f h w -> b c f (h p) (w q)", p=2, q=2)[:, :, 0]


def test_what_moved_goes_on_moving(carrying):
    flow = torch.tensor([1.0, -2.0]).expand(2, 48, 64, 2)
    films = [picture(2)]
    films += [moved(films[-1], flow)]
    true = moved(films[-1], flow)
    made = next_frame(carrying, torch.stack(films, dim=2))
    assert inner(made - true).square().mean() < 0.1 * inner(films[-1] - true).square().mean()


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_what_stood_still_stays(carrying, frames):
    still = picture(3)
    made = next_frame(carrying, torch.stack([still] * frames, dim=2))
    torch.testing.assert_close(made, still, atol=1e-4, rtol=0)
