"""Distilling a trained model into one that takes few steps: causal consistency distillation, guidance folded in.

What all ways of distilling have in common is here too; the other way is in `matching_task.py`.

A consistency model maps noisy latents at any `t` to the point at t = 0 of the probability-flow trajectory through them
(Song et al. 2023, arXiv:2303.01469). Its target at `t` is its own answer a little later, after one guided step of the
teacher along the trajectory (LCM, arXiv:2310.04378, which also folds guidance into the student). All blocks of a clip are
distilled at once, given clean history, as the teacher was trained (teacher forcing). The student's own weights, without
gradient, answer for the target: an average of them lags and is no better (arXiv:2310.14189, section 3.2).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from video_gen.data.latents import LatentSet
from video_gen.model.diffusion import EPSILON, along
from video_gen.model.flops import BACKWARD
from video_gen.model.routing import Route
from video_gen.model.text import TextEncoder
from video_gen.model.transformer import VideoTransformer
from video_gen.model.wan.transformer import WanTransformer
from video_gen.sampling.pipeline import VideoPipeline
from video_gen.training.diffusion_task import DiffusionTask, counted, told
from video_gen.training.judge import JUDGES, Judge
from video_gen.training.recipes import DiffusionRun, DistillConfig
from video_gen.training.task import normal


class DistillTask(DiffusionTask):
    """What a student and its teacher need, whatever the one learns from the other.

    Args:
        run: of the student: its `sampling` is what the student is for, its `diffusion` says how `t` is drawn.
        teacher: on the device that the student will be trained on; left as it is.
        student, text: copies of the teacher's parts, or of an earlier student's.
    """

    judge: Judge | None = JUDGES["distill"]

    def __init__(
        self,
        run: DiffusionRun,
        distill: DistillConfig,
        teacher: VideoPipeline,
        student: VideoTransformer | WanTransformer,
        text: TextEncoder,
        train: LatentSet,
        validation: LatentSet,
    ):
        super().__init__(run, student, text, teacher.vae, train, validation)
        self.distill, self.teacher = distill, teacher
        scale = distill.guidance_scale
        self.guidance_scale = teacher.config.sampling.guidance_scale if scale is None else scale

    def _answer(self, noisy: Tensor, t: Tensor, batch: Mapping[str, Any], extra: dict) -> Tensor:
        """The student's estimate of where the trajectory ends."""
        text, visible = self.text(batch["text"])
        output = self.transformer(noisy, t, text, visible, **told(batch), **extra)
        return self.diffusion.to_denoised(output.float(), noisy, t)

    def _guided(self, noisy: Tensor, t: Tensor, batch: Mapping[str, Any], extra: dict) -> Tensor:
        """The teacher's guided estimate, away from its negative prompt; a sample without caption is guided by nothing more."""
        teacher = self.teacher
        empty = teacher.text.tokenise([teacher.config.sampling.negative_prompt] * len(noisy)).to(noisy.device)

        def estimate(texts: Tensor) -> Tensor:
            text, visible = teacher.text(texts)
            output = teacher.transformer(noisy, t, text, visible, **told(batch), **extra)
            return self.diffusion.to_denoised(output.float(), noisy, t)

        full = estimate(batch["text"])
        if self.guidance_scale == 1:
            return full
        return full + (self.guidance_scale - 1) * (full - estimate(empty))


class ConsistencyTask(DistillTask):
    """A `training.task.Task`: the student answers alike at two neighbouring times of the teacher's trajectory."""

    def flops(self, batch: Mapping[str, Any], step: int) -> int:
        """The student's step, its answer for the target, and the teacher's estimates."""
        estimates = 1 if self.guidance_scale == 1 else 2
        return super().flops(batch, step) * (1 + BACKWARD + 1 + estimates) // (1 + BACKWARD)

    def _losses_at(
        self,
        batch: Mapping[str, Any],
        t: Tensor,
        blocks: tuple[int, ...],
        generators: Sequence[torch.Generator],
        history: bool,
        route: Route | None = None,
        rounds: int = 1,
    ) -> Tensor:
        """Each sample's distance, (b,), between the student's answers at `t`, (b, f), and one teacher's step later, or from the
        teacher's estimate where that step leads to `distill.stop` or below."""
        latents, t = batch["latents"], t.clamp(min=EPSILON)
        noise = normal(generators, *latents.shape[1:])
        noisy = self.diffusion.add_noise(latents, noise, t)
        extra = {"blocks": blocks} | (self._history(batch, blocks, generators, rounds) if history else {})
        then = (t - 1 / self.distill.teacher_steps).clamp(min=0)
        with torch.no_grad():
            guided = self._guided(noisy, t, batch, extra)
            moved = self.diffusion.move(noisy, guided, t, then)
            goes_on = along(then, moved) > self.distill.stop
            target = torch.where(goes_on, self._answer(moved, then, batch, extra), guided)
        distance = pseudo_huber(self._answer(noisy, t, batch, extra), target, self.distill.huber)
        keep = counted(batch, blocks)
        return distance.mean(dim=1) if keep is None else (distance * keep).sum(dim=1) / keep.sum(dim=1).clamp(min=1)


def pseudo_huber(made: Tensor, target: Tensor, size: float) -> Tensor:
    """sqrt(d^2 + size^2) - size of the root mean square distance d of each frame, (b, f): quadratic well below `size`, linear
    above, so that frames whose end is open yet do not drown the others (arXiv:2310.14189, section 3.3, per frame here)."""
    square = (made - target).square().mean(dim=(1, 3, 4))
    return (square + size**2).sqrt() - size
