"""Actions in the network keep every contract: cached equals full, the future is not seen, a batch equals its samples."""

from typing import Any

import pytest
import torch

from video_gen.errors import ShapeError
from video_gen.model.actions import Actions, latent_actions
from video_gen.model.carry import COPIED, STRETCH
from video_gen.model.diffusion import Diffusion
from video_gen.model.diffusion_config import DiffusionConfig
from video_gen.model.transformer import VideoTransformer
from video_gen.model.transformer_config import TransformerConfig
from video_gen.sampling.conditioned import TextConditioned
from video_gen.sampling.config import SamplingConfig
from video_gen.sampling.guidance import GuidedDenoiser, needed_branches
from video_gen.sampling.rollout import advance, begin
from video_gen.sampling.solvers import generators_for
from video_gen.vocabulary import Vocabulary

WORDS = Vocabulary(keys=("forward", "left", "right"), fps=12)
F = 5


@pytest.fixture(scope="module", params=["", "previous", "warp", "change", "inertia", "noise"])
def model(request):
    torch.manual_seed(0)
    sizes = dict(latent_channels=4, patch_size=1, width=32, depth=3, head_dim=16, text_width=8, window=2)
    moves: dict[str, Any] = {"frame_noise": request.param == "noise"}
    moves |= {"change": request.param in ("change", "inertia"), "inertia": request.param == "inertia"}
    moves |= dict(warp=True, strides=(2, 4)) if request.param in ("warp", "inertia") else {}
    config = TransformerConfig(**sizes, **moves, actions=WORDS, action_frames=2, previous=bool(request.param))
    made = VideoTransformer(config).eval()
    for weights in (*made.parameters(), *made.buffers()):  # last layers start at zero, and would hide everything
        torch.nn.init.normal_(weights, std=0.15)
    return made


@pytest.fixture
def given():
    generator = torch.Generator().manual_seed(1)

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    rows = (draw(2, 1 + 2 * (F - 1), 3) > 0).float()
    return {
        "clean": draw(2, 4, F, 2, 3),
        "noisy": draw(2, 4, F, 2, 3),
        "t": torch.rand(2, F, generator=generator),
        "text": draw(2, 3, 8),
        "acted": latent_actions(rows, 2),
    }


def full(model, given, acted=None, past=None, known=None):
    acted = given["acted"] if acted is None else acted
    return model(
        given["noisy"],
        given["t"],
        given["text"],
        torch.ones(2, 3, dtype=torch.bool),
        clean=given["clean"],
        blocks=(1,) * F,
        actions=Actions(acted, known),
        clean_actions=Actions(acted if past is None else past),
    )


def test_latent_actions_are_what_led_there():
    rows = torch.arange(2 * 7 * 3).reshape(2, 7, 3).float()
    found = latent_actions(rows, 3)
    assert found.shape == (2, 3, 9) and not found[:, 0].any()
    torch.testing.assert_close(found[:, 1], rows[:, 0:3].flatten(1))
    torch.testing.assert_close(found[:, 2], rows[:, 3:6].flatten(1))
    with pytest.raises(ShapeError, match="1 \\+ a multiple of 3"):
        latent_actions(rows[:, :6], 3)


@torch.no_grad()
def test_cached_equals_full(model, given):
    whole, history, made = full(model, given), None, []
    text = model.encode_text(given["text"], torch.ones(2, 3, dtype=torch.bool))
    for f in range(F):
        acted = Actions(given["acted"][:, f : f + 1])
        made.append(
            model.denoise(given["noisy"][:, :, f : f + 1], given["t"][:, f : f + 1], text, history, actions=acted)
        )
        history = model.encode_history(given["clean"][:, :, f : f + 1], history=history, actions=acted)
    torch.testing.assert_close(torch.cat(made, dim=2), whole, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_future_cannot_change_the_past_and_every_action_matters(model, given):
    before = full(model, given)
    for f in range(1, F):
        acted = given["acted"].clone()
        acted[:, f] = 1 - acted[:, f]
        after = full(model, given, acted)
        torch.testing.assert_close(after[:, :, :f], before[:, :, :f], atol=0, rtol=0)
        assert (after[:, :, f] - before[:, :, f]).abs().max() > 1e-3


@torch.no_grad()
def test_tokens_hold_the_frame_before_and_none_where_history_is_hidden(given):
    torch.manual_seed(0)
    sizes = dict(latent_channels=4, patch_size=1, width=32, depth=2, head_dim=16, text_width=8, previous=True)
    held = VideoTransformer(TransformerConfig(**sizes)).eval()
    torch.nn.init.normal_(held.unembed.weight)
    for block in held.blocks:  # nothing comes by attention
        torch.nn.init.zeros_(block.attention.out.weight)
    visible = torch.ones(2, 3, dtype=torch.bool)
    sees = torch.tensor([True, False])

    def make(clean):
        rest = dict(clean=clean, blocks=(1,) * F, history_visible=sees)
        return held(given["noisy"], given["t"], given["text"], visible, **rest)

    changed = given["clean"].clone()
    changed[:, :, 1, 1, 2] += 1
    difference = (make(changed) - make(given["clean"])).abs()
    assert not difference[1].any() and not difference[0, :, [0, 1, 3, 4]].any()
    assert difference[0, :, 2, 1, 2].max() > 1e-3
    difference[0, :, 2, 1, 2] = 0
    assert not difference.any()


@torch.no_grad()
def test_a_new_model_repeats_most_of_the_frame_before_where_there_is_one(given):
    torch.manual_seed(0)
    sizes = dict(latent_channels=4, patch_size=1, width=32, depth=2, head_dim=16, text_width=8)
    fresh = VideoTransformer(TransformerConfig(**sizes, previous=True)).eval()
    visible, sees = torch.ones(2, 3, dtype=torch.bool), torch.tensor([True, False])
    rest = dict(clean=given["clean"], blocks=(1,) * F, history_visible=sees)
    made = fresh(given["noisy"], given["t"], given["text"], visible, **rest)
    share = STRETCH * torch.sigmoid(torch.tensor(COPIED))
    torch.testing.assert_close(made[0, :, 1:], share * given["clean"][0, :, :-1])
    assert not made[:, :, 0].any() and not made[1].any()
    assert fresh.carry is not None
    torch.nn.init.constant_(fresh.carry.copied.bias, 100.0)  # all of it, whatever is made
    torch.nn.init.normal_(fresh.unembed.weight)
    made = fresh(given["noisy"], given["t"], given["text"], visible, **rest)
    assert torch.equal(made[0, :, 1:], given["clean"][0, :, :-1])
    assert made[:, :, 0].any() and made[1].any()  # nothing is there to be copied


@torch.no_grad()
def test_what_is_copied_has_no_noise_of_history_on_it(given):
    """Noise on history, which a model is told, is no part of what stands still; trained and rolled out alike."""
    torch.manual_seed(0)
    sizes = dict(latent_channels=4, patch_size=1, width=32, depth=2, head_dim=16, text_width=8)
    model = VideoTransformer(TransformerConfig(**sizes, previous=True)).eval()
    assert model.carry is not None
    torch.nn.init.constant_(model.carry.copied.bias, 100.0)
    clean, visible = given["clean"], torch.ones(2, 3, dtype=torch.bool)
    noisy = clean + torch.randn(clean.shape)
    rest = dict(clean=noisy, clean_t=torch.full((2, F), 0.3), blocks=(1,) * F, before=clean)
    made = model(given["noisy"], given["t"], given["text"], visible, **rest)
    assert torch.equal(made[:, :, 1:], clean[:, :, :-1])
    text = model.encode_text(given["text"], visible)
    conditioned = TextConditioned(model, Diffusion(DiffusionConfig(prediction="denoised")), text, None, window=3)
    state = begin(conditioned, clean[:, :, :1], (1,), generators_for([0, 1], "cpu"))
    settings = SamplingConfig(num_steps=1, history_noise=0.3, solver="renoise", guidance_scale=1.0)
    for _ in range(3):
        state = advance(conditioned, state, (4, 1, *clean.shape[3:]), conditioned.diffusion, settings)
        assert torch.equal(state.block, clean[:, :, :1])


@torch.no_grad()
def test_history_carries_what_led_to_it(model, given):
    past = given["acted"].clone()
    past[:, 1] = 1 - past[:, 1]
    changed = full(model, given, past=past) - full(model, given)
    assert not changed[:, :, :2].any() and changed[:, :, 2].abs().max() > 1e-4


@torch.no_grad()
def test_a_batch_equals_its_samples(model, given):
    whole = full(model, given)
    for index in range(2):
        one = {name: x[index : index + 1].repeat(2, *[1] * (x.ndim - 1)) for name, x in given.items()}
        torch.testing.assert_close(full(model, one)[0], whole[index], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_not_known_is_as_if_there_were_none(model, given):
    known = torch.tensor([True, False])
    mixed, told = full(model, given, known=known), full(model, given)
    torch.testing.assert_close(mixed[0], told[0])
    untold = model(
        given["noisy"],
        given["t"],
        given["text"],
        torch.ones(2, 3, dtype=torch.bool),
        clean=given["clean"],
        blocks=(1,) * F,
        clean_actions=Actions(given["acted"]),
    )
    torch.testing.assert_close(mixed[1], untold[1])
    assert (mixed[1] - told[1]).abs().max() > 1e-3


def test_at_the_start_of_training_actions_change_nothing(given):
    torch.manual_seed(0)
    sizes = dict(latent_channels=4, patch_size=1, width=32, depth=2, head_dim=16, text_width=8)
    fresh = VideoTransformer(TransformerConfig(**sizes, actions=WORDS, action_frames=2))
    torch.nn.init.normal_(fresh.unembed.weight)
    torch.nn.init.normal_(fresh.modulation.weight, std=0.1)
    assert fresh.embed_actions is not None and not fresh.embed_actions.out.weight.any()
    torch.testing.assert_close(full(fresh, given), full(fresh, given, 1 - given["acted"]))


def test_a_model_without_actions_takes_none_and_others_are_refused(model, given):
    sizes = dict(latent_channels=4, patch_size=1, width=32, depth=2, head_dim=16, text_width=8)
    with pytest.raises(ShapeError, match="trained without"):
        full(VideoTransformer(TransformerConfig(**sizes)), given)
    with pytest.raises(ShapeError, match="the model takes 6"):
        full(model, given, given["acted"][..., :4])


@torch.no_grad()
def test_guidance_by_action_is_one_more_branch(model, given):
    from video_gen.model.diffusion import Diffusion
    from video_gen.model.diffusion_config import DiffusionConfig

    diffusion = Diffusion(DiffusionConfig())
    text = model.encode_text(given["text"], torch.ones(2, 3, dtype=torch.bool))
    plain = TextConditioned(model, diffusion, text, None, window=2)
    history = plain.append(None, given["clean"][:, :, :1], torch.zeros(2), given["acted"][:, :1])
    acting = plain.doing(given["acted"][:, 1:2])
    assert "untold" in acting.branches(history) and "untold" not in plain.branches(history)
    settings = SamplingConfig(guidance_scale=1.0, action_scale=2.5)
    assert needed_branches(acting.branches(history), settings) == ("full", "untold")
    noisy, t = given["noisy"][:, :, 1:2], torch.tensor([0.7, 0.7])
    told, untold = acting.denoiser(history, ("full", "untold"))(noisy, t)
    torch.testing.assert_close(untold, plain.denoiser(history, ("full",))(noisy, t)[0], atol=1e-5, rtol=1e-5)
    guided = GuidedDenoiser(acting, history, settings, diffusion)(noisy, t)
    torch.testing.assert_close(guided, told + 1.5 * (told - untold), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_places_share_the_noise_of_their_frame(given):
    """What is made depends on the mean of the noise over places alone; so one draw decides for all of a frame."""
    torch.manual_seed(0)
    sizes = dict(latent_channels=4, patch_size=1, width=32, depth=2, head_dim=16, text_width=8)
    model = VideoTransformer(TransformerConfig(**sizes, frame_noise=True)).eval()
    for layer in (model.unembed, model.modulation):  # which start at zero
        torch.nn.init.normal_(layer.weight)
    visible, noise = torch.ones(2, 3, dtype=torch.bool), given["noisy"]
    first, mirrored, other = (
        model(x, torch.ones(2, F), given["text"], visible, clean=given["clean"], blocks=(1,) * F)
        for x in (noise, noise.flip(3, 4), noise + 1)
    )
    torch.testing.assert_close(first, mirrored)
    assert not torch.isclose(first, other).all(dim=(1, 3, 4)).any()
