"""Guidance of analytic Gaussians ends where it must; its parts are what they say; branches are one call and change nothing."""

import pytest
import torch
from test_pipeline import tiny_pipeline

from video_gen.model.diffusion import Diffusion
from video_gen.model.diffusion_config import DiffusionConfig
from video_gen.sampling.conditioned import TextConditioned
from video_gen.sampling.config import SamplingConfig
from video_gen.sampling.guidance import GuidedDenoiser, limit, needed_branches, optimal_scale, project, rescale
from video_gen.sampling.solvers import SOLVERS, generators_for, sample_noise, timesteps

SHAPE = (2, 3, 4, 5, 6)
STD = 0.4
MEANS = {"full": 0.7, "history": 0.3, "alone": -0.2}
ALL = ("full", "history", "alone")


class Gaussians:
    """Branches whose data are N(mean of the branch, STD^2). Guided they are the denoiser of another Gaussian of that STD,
    since p_full^a p_history^b p_alone^c is one, with a + b + c = 1."""

    def __init__(self, diffusion=None, available=ALL, means=None):
        self.diffusion, self.available, self.means = diffusion or Diffusion(), available, means or MEANS
        self.calls = []

    def branches(self, history):
        return self.available

    def denoiser(self, history, branches):
        def denoise(x, t):
            self.calls.append(branches)
            alpha, sigma = (f(t.flatten()[0]) for f in (self.diffusion.alpha, self.diffusion.sigma))
            share = alpha * STD**2 / (alpha**2 * STD**2 + sigma**2)
            return [self.means[b] + share * (x - alpha * self.means[b]) for b in branches]

        return denoise


def noise(count=16):
    return sample_noise((count, 1, 1, 4, 4), generators_for(list(range(count)), "cpu"))


def sample(model, steps=200, **settings):
    guided = GuidedDenoiser(model, None, SamplingConfig(**settings), model.diffusion)
    return SOLVERS["two_step"](guided, noise(), timesteps(steps), model.diffusion, None)


@pytest.mark.parametrize("path", ["straight", "cosine"])
@pytest.mark.parametrize(("text", "history"), [(1.0, 1.0), (3.0, 1.0), (1.0, 2.5), (3.0, 2.5), (0.0, 1.0), (1.0, 0.0)])
def test_guided_gaussians_end_at_the_guided_mean(path, text, history):
    made = sample(Gaussians(Diffusion(DiffusionConfig(path=path))), guidance_scale=text, history_scale=history)
    mean = 0.7 + (text - 1) * (0.7 - 0.3) + (history - 1) * (0.3 + 0.2)
    torch.testing.assert_close(made, mean + STD * noise(), rtol=0, atol=5e-3)


def test_the_interval_guides_between_its_times():
    """Between two times a standardised place keeps; where the mean changes from a to b it moves by alpha (a - b) / spread."""
    low, high = 0.305, 0.605
    made = sample(Gaussians(), 400, guidance_scale=3.0, guidance_interval=(low, high))
    plain, guided = 0.7, 0.7 + 2 * 0.4

    def moved(t, before, after):
        return (1 - t) * (before - after) / ((1 - t) ** 2 * STD**2 + t**2) ** 0.5

    shift = moved(high - 0.005, plain, guided) + moved(low - 0.005, guided, plain)  # steps switch at 0.6 and 0.3
    torch.testing.assert_close(made, plain + STD * (noise() + shift), rtol=0, atol=1e-2)


def test_another_scale_late():
    """As with the interval: from 3 times to `late` times the difference, at the time where the other expert begins."""
    at, late = 0.605, 1.5
    made = sample(Gaussians(), 400, guidance_scale=3.0, late_scale=(at, late))
    early, after = 0.7 + 2 * 0.4, 0.7 + 0.5 * 0.4
    t = at - 0.005
    moved = (1 - t) * (early - after) / ((1 - t) ** 2 * STD**2 + t**2) ** 0.5
    torch.testing.assert_close(made, after + STD * (noise() + moved), rtol=0, atol=1e-2)
    none, x = Gaussians(), noise(2)
    guided = GuidedDenoiser(none, None, SamplingConfig(guidance_scale=1.0, late_scale=(0.5, 3.0)), none.diffusion)
    for t in (0.7, 0.5, 0.4):
        guided(x, torch.full((2,), t))
    assert none.calls == [("full",), ("full",), ("full", "history")]


def test_branches_called():
    x, t = noise(2), torch.full((2,), 0.5)
    for available, settings, called in (
        (ALL, {"guidance_scale": 1.0}, ("full",)),
        (ALL, {"guidance_scale": 2.0}, ("full", "history")),
        (ALL, {"guidance_scale": 1.0, "history_scale": 2.0}, ALL),
        (("full", "alone"), {"guidance_scale": 2.0, "history_scale": 2.0}, ("full", "alone")),
        (("full",), {"guidance_scale": 2.0, "history_scale": 2.0}, ("full",)),
        (ALL, {"guidance_scale": 2.0, "guidance_interval": (0.6, 1.0)}, ("full",)),
    ):
        model = Gaussians(available=available)
        GuidedDenoiser(model, None, SamplingConfig(**settings), model.diffusion)(x, t)
        assert model.calls == [called]
    assert needed_branches(("full", "alone"), SamplingConfig(history_scale=2.0)) == ("full", "alone")


def test_without_a_prompt_history_guides_from_full():
    made = sample(Gaussians(available=("full", "alone")), guidance_scale=5.0, history_scale=2.0)
    torch.testing.assert_close(made, 0.7 + 0.9 + STD * noise(), rtol=0, atol=5e-3)


def test_a_frame_ahead_guides_too():
    led = (*ALL, "unled")
    model = Gaussians(available=led, means=MEANS | {"unled": 0.1})
    made = sample(model, guidance_scale=3.0, ending_scale=2.0)
    torch.testing.assert_close(made, 0.7 + 2 * 0.4 + 0.6 + STD * noise(), rtol=0, atol=5e-3)
    assert set(model.calls) == {("full", "history", "unled")}
    assert needed_branches(led, SamplingConfig(guidance_scale=1.0)) == ("full",)


# -------------------- the parts


def test_guiding_denoised_and_velocity_is_the_same():
    diffusion, x, t = Diffusion(), torch.randn(SHAPE), torch.tensor([0.3, 0.8])
    estimates = dict(zip(ALL, torch.randn(3, *SHAPE)))
    model = Gaussians()
    model.denoiser = lambda history, branches: lambda x, t: [estimates[b] for b in branches]
    settings = SamplingConfig(guidance_scale=2.5, history_scale=1.5)
    got = diffusion.convert(GuidedDenoiser(model, None, settings, diffusion)(x, t), x, t, "denoised", "velocity")
    full, history, alone = (diffusion.convert(estimates[b], x, t, "denoised", "velocity") for b in ALL)
    torch.testing.assert_close(got, full + 1.5 * (full - history) + 0.5 * (history - alone), rtol=1e-4, atol=1e-4)


def test_projection_splits_a_push_at_a_right_angle():
    push, onto = torch.randn(2, *SHAPE)
    parallel, orthogonal = project(push, onto)
    torch.testing.assert_close(parallel + orthogonal, push)
    assert (orthogonal * onto).sum((1, 3, 4)).abs().max() < 1e-4
    torch.testing.assert_close(project(2 * onto, onto)[0], 2 * onto)
    torch.testing.assert_close(project(orthogonal, onto)[0], torch.zeros(SHAPE), atol=1e-5, rtol=0)


def test_apg_without_the_parallel_part_keeps_a_push_that_only_makes_stronger_out():
    """Means that differ by a factor: guidance only makes the estimate stronger, which APG leaves out."""
    model = Gaussians()
    model.denoiser = lambda history, branches: lambda x, t: [x * {"full": 1.0, "history": 0.6}[b] for b in branches]
    x, t = torch.randn(SHAPE), torch.full((2,), 0.5)
    plain = GuidedDenoiser(model, None, SamplingConfig(guidance_scale=3.0), model.diffusion)(x, t)
    apg = GuidedDenoiser(model, None, SamplingConfig(guidance_scale=3.0, guidance_parallel=0.0), model.diffusion)(x, t)
    torch.testing.assert_close(plain, 1.8 * x)
    torch.testing.assert_close(apg, x)


def test_the_limit_shortens_long_pushes_only():
    push = torch.randn(SHAPE) * torch.tensor([0.1, 1.0, 2.0, 5.0])[:, None, None]
    limited = limit(push, 0.5)
    size = limited.square().mean((1, 3, 4)).sqrt()
    torch.testing.assert_close(size[:, 1:], torch.full((2, 3), 0.5))
    assert torch.equal(limited[:, :, 0], push[:, :, 0])


def test_optimal_scale_is_the_nearest_multiple_of_the_weaker_velocity():
    diffusion, x, t = Diffusion(), torch.randn(SHAPE), torch.tensor([0.3, 0.9])
    strong, weak = torch.randn(2, *SHAPE)

    def velocity(estimate):
        return diffusion.convert(estimate, x, t, "denoised", "velocity")

    scaled = velocity(optimal_scale(strong, weak, x, t, diffusion))
    left = ((velocity(strong) - scaled) * velocity(weak)).sum((1, 3, 4))
    assert left.abs().max() < 1e-3 * velocity(strong).square().sum((1, 3, 4)).max()
    multiple = diffusion.to_denoised(3 * velocity(strong), x, t, "velocity")
    torch.testing.assert_close(optimal_scale(strong, multiple, x, t, diffusion), strong, rtol=1e-3, atol=1e-3)


def test_optimal_scale_adds_nothing_where_velocities_are_parallel():
    """A weaker branch that only moves too slowly is put right: guidance adds nothing, where plain guidance overshoots."""
    diffusion, x, t = Diffusion(), torch.randn(SHAPE), torch.full((2,), 0.5)
    v = torch.randn(SHAPE)
    estimates = {"full": diffusion.to_denoised(v, x, t), "history": diffusion.to_denoised(0.7 * v, x, t)}
    model = Gaussians()
    model.denoiser = lambda history, branches: lambda x, t: [estimates[b] for b in branches]
    settings = SamplingConfig(guidance_scale=4.0, guidance_optimal_scale=True)
    torch.testing.assert_close(GuidedDenoiser(model, None, settings, diffusion)(x, t), estimates["full"])


def test_zero_init_stands_still_and_calls_nothing():
    model = Gaussians()
    guided = GuidedDenoiser(model, None, SamplingConfig(guidance_zero_init=0.12), model.diffusion)
    times = timesteps(20)  # 1, 0.95, 0.9 lie above 0.88
    made = SOLVERS["euler"](guided, noise(), times, model.diffusion, None)
    calls = len(model.calls)
    plain = GuidedDenoiser(model, None, SamplingConfig(), model.diffusion)
    torch.testing.assert_close(made, SOLVERS["euler"](plain, noise(), times[3:], model.diffusion, None))
    assert calls == 17


def test_rescale_brings_back_the_spread_of_each_frame():
    full, guided = torch.randn(SHAPE), 3 * torch.randn(SHAPE)
    torch.testing.assert_close(rescale(guided, full, 1.0).std((1, 3, 4)), full.std((1, 3, 4)))
    assert torch.equal(rescale(guided, full, 0.0), guided)


def test_frames_are_guided_one_by_one():
    """A frame's guidance does not depend on the frames beside it, whatever is switched on."""
    diffusion, x, t = Diffusion(), torch.randn(SHAPE), torch.tensor([0.4, 0.7])
    settings = SamplingConfig(
        guidance_scale=3.0,
        history_scale=2.0,
        guidance_rescale=0.7,
        guidance_parallel=0.2,
        guidance_limit=0.5,
        guidance_optimal_scale=True,
    )
    estimates = dict(zip(ALL, torch.randn(3, *SHAPE)))

    def guided(frames):
        model = Gaussians()
        model.denoiser = lambda history, branches: lambda x, t: [estimates[b][:, :, frames] for b in branches]
        return GuidedDenoiser(model, None, settings, diffusion)(x[:, :, frames], t)

    whole = guided(slice(None))
    for i in range(SHAPE[2]):
        torch.testing.assert_close(guided(slice(i, i + 1)), whole[:, :, i : i + 1])


# -------------------- the transformer's branches


def conditioned(pipe, prompts=("a red circle and a blue square, fast", "a dog")):
    empty = pipe.encode_text([""] * len(prompts))
    return TextConditioned(pipe.transformer, pipe.diffusion, pipe.encode_text(prompts), empty, 4)


@torch.no_grad()
def test_branches_in_one_pass_equal_separate_passes():
    pipe = tiny_pipeline()
    model = conditioned(pipe)
    latents = torch.randn(2, 4, 6, 4, 4)
    history = model.append(None, latents[:, :, :4], torch.zeros(2))
    noisy, t = latents[:, :, 4:], torch.tensor([0.3, 0.9])
    separate = [model.denoiser(history, (branch,))(noisy, t)[0] for branch in ALL]
    for one, other in zip(model.denoiser(history, ALL)(noisy, t), separate, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    assert (separate[0] - separate[1]).abs().max() > 1e-3 and (separate[1] - separate[2]).abs().max() > 1e-3


@torch.no_grad()
def test_which_branches_differ():
    pipe = tiny_pipeline()
    model = conditioned(pipe)
    history = model.append(None, torch.randn(2, 4, 1, 4, 4), torch.zeros(2))
    assert model.branches(history) == ALL and model.branches(None) == ("full", "history")
    no_prompt = TextConditioned(pipe.transformer, pipe.diffusion, pipe.encode_text([""]), None, 4)
    assert no_prompt.branches(history) == ("full", "alone") and no_prompt.branches(None) == ("full",)


def test_a_negative_prompt_stands_where_the_empty_one_does():
    pipe = tiny_pipeline()
    made = {
        (prompt, negative, scale): pipe(
            prompt, seed=1, negative_prompt=negative, guidance_scale=scale, num_frames=1
        ).astype(int)
        for prompt in ("a red circle", "")
        for negative in ("", "a blue square")
        for scale in (1.0, 3.0, 0.0)
    }
    assert abs(made["a red circle", "a blue square", 3.0] - made["a red circle", "", 3.0]).max() > 2
    assert abs(made["", "a blue square", 3.0] - made["", "", 3.0]).max() > 2  # without a prompt, too
    assert (made["a red circle", "a blue square", 1.0] == made["a red circle", "", 1.0]).all()
    # at scale 0 nothing is left but the negative prompt, as if it were the prompt
    assert (
        abs(
            made["a red circle", "a blue square", 0.0] - pipe("a blue square", seed=1, guidance_scale=1.0, num_frames=1)
        ).max()
        <= 1
    )


def test_the_transformer_is_called_once_a_step_whatever_the_guidance():
    pipe, batches = tiny_pipeline(), []
    hook = pipe.transformer.unembed.register_forward_hook(lambda module, args, output: batches.append(len(output)))
    made = {}
    for text, history in ((1.0, 1.0), (3.0, 1.0), (3.0, 2.0)):
        settings = {"guidance_scale": text, "history_scale": history, "block_frames": 2}
        made[text, history] = pipe("a red circle, fast", seed=1, **settings).astype(int)
    hook.remove()
    # three steps for each of the blocks 1 and 2; the first block has no history to be guided by
    assert batches == [1] * 6 + [2] * 6 + [2] * 3 + [3] * 3
    assert abs(made[1.0, 1.0] - made[3.0, 1.0]).max() > 2 and abs(made[3.0, 1.0] - made[3.0, 2.0]).max() > 2
    assert abs(made[3.0, 1.0] - made[3.0, 2.0])[0].max() <= 2
