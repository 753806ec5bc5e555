"""Learning from a model: the exact consistency function of a Gaussian has no loss, guidance is that of sampling."""

import json
from copy import deepcopy

import pytest
import torch
from test_drift import tiny_pipeline
from torch import nn

from video_gen.cli import main
from video_gen.model.diffusion import Diffusion, along
from video_gen.model.diffusion_config import DiffusionConfig
from video_gen.model.transformer_config import TransformerConfig
from video_gen.sampling.pipeline import VideoPipeline
from video_gen.training.diffusion_task import DiffusionTask
from video_gen.training.distill_task import ConsistencyTask, pseudo_huber
from video_gen.training.matching_task import MatchingTask
from video_gen.training.recipes import DiffusionRun, DistillConfig, DistillRun, ModeConfig
from video_gen.training.task import normal, sample_generators

DEVIATION = 0.5
"""Of the Gaussian data of one test."""


class Latents:
    """A latent set of Gaussian clips."""

    vocabulary = None

    def __init__(self, frames=3, size=4):
        self.shape = (4, frames, size, size)
        self.buckets = [(frames, size, size)] * 8

    def __len__(self):
        return len(self.buckets)

    def __getitem__(self, index):
        return DEVIATION * torch.randn(self.shape, generator=torch.Generator().manual_seed(index))

    def caption(self, index):
        return "a red circle, fast"

    def captions(self, index):
        return [(0, self.caption(index))]

    def frames(self, index):
        return self.buckets[index][0]

    def led(self, index):
        return False


class Exact(nn.Module):
    """A transformer whose prediction (velocity) stands for `answer(noisy, alpha, sigma)`, an estimate of the latents."""

    def __init__(self, answer):
        super().__init__()
        self.answer, self.diffusion = answer, Diffusion()
        self.config = TransformerConfig(latent_channels=4, patch_size=1)

    def forward(self, noisy, t, text, visible, blocks=None, **history):
        alpha, sigma = (along(x, noisy) for x in (self.diffusion.alpha(t), self.diffusion.sigma(t)))
        return (noisy - self.answer(noisy, alpha, sigma)) / sigma


def generators(count=4):
    return sample_generators(0, 0, range(count), torch.device("cpu"))


def posterior_mean(noisy, alpha, sigma):
    """What a teacher knows: E[latents | noisy]."""
    return alpha * DEVIATION**2 / (alpha**2 * DEVIATION**2 + sigma**2) * noisy


def end_of_trajectory(noisy, alpha, sigma):
    """What a student is to know: deviations grow along the flow as the marginal's does."""
    return DEVIATION / (alpha**2 * DEVIATION**2 + sigma**2).sqrt() * noisy


def task(teacher=None, student=None, **distill):
    pipeline, copy = tiny_pipeline(), tiny_pipeline()
    if teacher is not None:
        pipeline.transformer = teacher
    run = DiffusionRun(
        modes=ModeConfig(history_dropout=0.0, text_dropout=0.0),
        diffusion=DiffusionConfig(time_distribution="uniform"),
        loop={"batch_size": 4},
    )
    model = copy.transformer if student is None else student
    return ConsistencyTask(run, DistillConfig(**distill), pipeline, model, copy.text, Latents(), Latents())


def loss_of(made, blocks=(3,)):
    batch = made.batch(0)
    t = torch.linspace(0.05, 1, 12).view(4, 3)
    return float(made._losses_at(batch, t, blocks, generators(), history=len(blocks) > 1).mean())


def test_the_exact_consistency_function_has_no_loss():
    losses = {
        steps: loss_of(task(Exact(posterior_mean), Exact(end_of_trajectory), teacher_steps=steps, guidance_scale=1.0))
        for steps in (16, 256)
    }
    wrong = loss_of(task(Exact(posterior_mean), Exact(posterior_mean), teacher_steps=256, guidance_scale=1.0))
    assert losses[256] < losses[16] / 50 and losses[256] < wrong / 20


def test_the_teacher_is_guided_as_in_sampling():
    """One block without history: the same estimate as `pipeline` would sample by."""
    made = task(guidance_scale=3.0)
    batch = made.batch(0)
    noisy, t = torch.randn(4, 4, 3, 4, 4, generator=torch.Generator().manual_seed(1)), torch.full((4, 3), 0.7)
    with torch.no_grad():
        guided = made._guided(noisy, t, batch, {"blocks": (3,)})
        texts = [made.teacher.encode_text(captions) for captions in (["a red circle, fast"] * 4, [""] * 4)]
        full, empty = (
            made.diffusion.to_denoised(made.teacher.transformer.denoise(noisy, t, text).float(), noisy, t)
            for text in texts
        )
    torch.testing.assert_close(guided, empty + 3 * (full - empty), rtol=1e-4, atol=1e-5)
    assert (full - empty).abs().max() > 0.01


def test_the_scale_is_the_teachers_unless_given():
    assert task().guidance_scale == 2.0 and task(guidance_scale=1.0).guidance_scale == 1.0


def test_the_last_step_learns_the_teachers_own_estimate():
    """Where one step reaches t = 0, the target does not depend on the student."""
    made = task(teacher_steps=4)
    batch, t = made.batch(0), torch.full((4, 3), 0.2)
    noisy = made.diffusion.add_noise(batch["latents"], normal(generators(), 4, 3, 4, 4), t)
    with torch.no_grad():
        target = made._guided(noisy, t, batch, {"blocks": (3,)})
        answer = made._answer(noisy, t, batch, {"blocks": (3,)})
        losses = made._losses_at(batch, t, (3,), generators(), history=False)
    torch.testing.assert_close(losses, pseudo_huber(answer, target, made.distill.huber).mean(1))


def test_below_its_stop_it_learns_the_teachers_own_estimate_too():
    made, plain = task(teacher_steps=16, stop=0.5), task(teacher_steps=16)
    batch = made.batch(0)
    t = torch.tensor([0.2, 0.55, 0.8]).expand(4, 3)
    found, other = (each._losses_at(batch, t, (3,), generators(), history=False) for each in (made, plain))
    noisy = made.diffusion.add_noise(batch["latents"], normal(generators(), 4, 3, 4, 4), t)
    with torch.no_grad():
        guided = made._guided(noisy, t, batch, {"blocks": (3,)})
        then = t - 1 / 16
        later = made._answer(made.diffusion.move(noisy, guided, t, then), then, batch, {"blocks": (3,)})
        target = torch.where(along(t == 0.8, guided), later, guided)
        expected = pseudo_huber(made._answer(noisy, t, batch, {"blocks": (3,)}), target, made.distill.huber).mean(1)
    torch.testing.assert_close(found, expected)
    assert (other - expected).abs().max() > 1e-4


def test_gradients_reach_the_student_and_not_the_teacher():
    made = task()
    loss, parts = made.loss(batch := made.batch(0), 0, generators(len(batch["latents"])))
    loss.backward()
    assert all(p.grad is not None for p in made.transformer.blocks.parameters()) and parts
    assert all(p.grad is None for p in made.teacher.transformer.parameters())
    assert set(made.modules()) == {"transformer", "text"}


# -------------------- matching distributions


def matching(student=None, critic=None, teacher=None, **distill):
    pipeline, copy = tiny_pipeline(), tiny_pipeline()
    for p in copy.transformer.parameters():
        p.data += 0.02 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel()))
    pipeline.transformer = teacher or pipeline.transformer
    run = DiffusionRun(
        modes=ModeConfig(history_dropout=0.0, teacher_forcing=1.0, block_sizes=(1,)),
        sampling=DistillRun().sampling,
        loop={"batch_size": 4},
    )
    models = (student or copy.transformer, critic or deepcopy(copy.transformer), copy.text)
    return MatchingTask(run, DistillConfig(method="matching", **distill), pipeline, *models, Latents(), Latents())


@pytest.mark.parametrize("blocks", [(1, 1, 1), (1, 2), (3,)])
def test_a_rollout_is_what_one_pass_over_its_own_history_makes(blocks):
    """Where the step drawn is a block's last, its estimate is the finished block."""
    made = matching()
    batch = made.batch(0)
    noisy, t, clip = made.rollout(batch, blocks, generators())
    answer = made._answer(noisy, t, batch, {"blocks": blocks, "clean": clip})
    last = along(t == 0.25, clip).expand_as(clip)
    assert 0 < last.float().mean() < 1 and set(t.unique().tolist()) <= {0.25, 0.5, 0.75, 1.0}
    torch.testing.assert_close(answer[last], clip[last], rtol=1e-4, atol=1e-5)
    assert (answer - clip)[~last].abs().mean() > 0.01
    again = made.rollout(batch, blocks, generators())[2]
    assert torch.equal(clip, again) and clip.std() > 0.1


def test_what_is_made_moves_towards_the_teachers_distribution():
    """Gaussians of too much and of too little spread, with exact critics."""

    def known(deviation):
        return lambda noisy, alpha, sigma: alpha * deviation**2 / (alpha**2 * deviation**2 + sigma**2) * noisy

    for deviation in (0.25, DEVIATION, 1.0):
        task = matching(critic=Exact(known(deviation)), teacher=Exact(known(DEVIATION)), guidance_scale=1.0)
        noise = normal(generators(), 4, 3, 4, 4)
        direction = task.direction(deviation * noise, task.batch(0), {"blocks": (1, 2)}, generators())
        slope = float((direction * noise).mean())  # of the loss as the spread grows
        assert (slope > 0.05) - (slope < -0.05) == (deviation > DEVIATION) - (deviation < DEVIATION)


def test_the_student_moves_at_some_steps_and_the_critic_at_each():
    made = matching(critic_steps=2)
    for step in range(2):
        batch = made.batch(step)
        loss, parts = made.loss(batch, step, generators(len(batch["latents"])))
        loss.backward()
        reached = {
            name: any(p.grad is not None and p.grad.abs().max() > 0 for p in module.parameters())
            for name, module in made.modules().items()
        }
        assert reached == {"transformer": step == 1, "text": step == 1, "critic": True}
        assert ("gap" in parts) == (step == 1)
        for module in made.modules().values():
            module.zero_grad()
    assert all(p.grad is None for p in made.teacher.transformer.parameters())


def test_a_move_per_frame_is_that_of_each_frame():
    diffusion = Diffusion(DiffusionConfig(path="cosine"))
    noisy, denoised = torch.randn(2, 2, 4, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    now, then = torch.tensor([[0.9, 0.5, 0.3], [1.0, 0.7, 0.2]]), torch.tensor([[0.5, 0.5, 0.0], [0.9, 0.1, 0.1]])
    moved = diffusion.move(noisy, denoised, now, then)
    for b in range(2):
        for f in range(3):
            alone = diffusion.move(noisy[b, :, f], denoised[b, :, f], now[b, f], then[b, f])
            torch.testing.assert_close(moved[b, :, f], alone)
    torch.testing.assert_close(moved[0, :, 1], noisy[0, :, 1])
    torch.testing.assert_close(moved[0, :, 2], denoised[0, :, 2])


def test_the_loss_is_quadratic_and_then_linear():
    zeros = torch.zeros(1, 1, 2, 1, 1)
    far = zeros + torch.tensor([1e-3, 100.0]).view(1, 1, 2, 1, 1)
    small, large = pseudo_huber(far, zeros, 0.1)[0].tolist()
    assert small == pytest.approx(1e-6 / 0.2, rel=1e-2) and large == pytest.approx(99.9, rel=1e-3)


def test_resampled_history_is_what_the_model_makes_of_the_noisy_truth():
    """With an exact teacher as the model, two solver steps from the noise that was drawn, in closed form."""
    seen = []

    class Watched(Exact):
        def forward(self, noisy, t, text, visible, **extra):
            seen.append((noisy, t, extra.get("clean"), extra.get("clean_t"), torch.is_grad_enabled()))
            return super().forward(noisy, t, text, visible)

    modes = ModeConfig(noisy_history=1.0, resampled_history=1.0, history_dropout=0.0)
    pipeline, latents = tiny_pipeline(), Latents()
    run = DiffusionRun(modes=modes, loop={"batch_size": 4})
    task = DiffusionTask(run, Watched(posterior_mean), pipeline.text, pipeline.vae, latents, latents)
    task._losses_at(task.batch(0), torch.full((4, 3), 0.5), (1, 2), generators(), history=True)
    (x, start, past, told, grad), _, (_, t, clean, clean_t, _) = seen
    assert not grad and told.min() >= 0 and told.max() > 0 and float(start.max()) <= modes.resampled_noise
    diffusion = Diffusion()
    for now, then in ((start, start / 2), (start / 2, start * 0)):
        alpha, sigma = (along(v, x) for v in (diffusion.alpha(now), diffusion.sigma(now)))
        x = diffusion.move(x, posterior_mean(x, alpha, sigma), now, then)
    torch.testing.assert_close(clean[:, :, 1:], x[:, :, 1:], rtol=1e-4, atol=1e-5)
    assert torch.equal(clean[:, :, :1], past[:, :, :1])  # what a video begins with is given
    assert (
        torch.equal(clean_t, told * torch.tensor([1.0, 0.0, 0.0]))
        and not torch.equal(past, clean)
        and torch.equal(t, torch.full((4, 3), 0.5))
    )


@pytest.mark.parametrize("method", ["consistency", "matching"])
def test_distilling_from_the_command_line(tmp_path, method, capsys):
    tiny_pipeline().save_pretrained(tmp_path / "teacher")
    size = ["--height", "16", "--width", "16"]
    world = [
        "worlds",
        "--kind",
        "kicks",
        "--num-clips",
        "6",
        "--num-frames",
        "9",
        "--fps",
        "8",
        *size,
        "--output",
        str(tmp_path / "d"),
    ]
    assert main(world) == 0
    data = {"folder": str(tmp_path / "d"), "num_frames": 9, "height": 16, "width": 16, "validation_fraction": 0.4}
    loop = {"train_steps": 2, "batch_size": 2, "checkpoint_every": 1, "log_every": 1, "tensorboard": False}
    recipe = {"teacher": str(tmp_path / "teacher"), "data": data, "latents": str(tmp_path / "z"), "loop": loop}
    recipe |= {"distill": {"method": method}, "init": str(tmp_path / "teacher")}
    (tmp_path / "distill.yaml").write_text(json.dumps(recipe))  # JSON is YAML
    assert main(["train", "distill", str(tmp_path / "distill.yaml"), "--run", str(tmp_path / "run")]) == 0
    assert "as the teacher's: data.fps 8.0" in capsys.readouterr().out
    student = VideoPipeline.from_pretrained(tmp_path / "run" / "model")
    sampling = student.config.sampling
    assert (sampling.solver, sampling.num_steps, sampling.guidance_scale) == ("renoise", 4, 1.0)
    assert student("a red circle, fast", seed=1).shape == (9, 16, 16, 3)
    text = (tmp_path / "run" / "log.jsonl").read_text()
    expected = {"consistency": ("loss_t0.75-1.00", "loss_causal"), "matching": ("loss_critic", "gap")}
    assert all(f'"{name}"' in text for name in expected[method])
