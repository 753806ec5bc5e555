"""Distilling by matching distributions, on the student's own videos.

The student makes clips as it will be used: block after block, in its few steps, from noise and its own history. A block of
them is right when it is as likely under the student as under the guided teacher. Which way that is, the difference of two
denoisers tells: the teacher, and a critic that is trained along to denoise what the student makes (distribution matching:
Yin et al. 2023, arXiv:2311.18828, eq. 7; in a few steps: arXiv:2405.14867). Since the history is the student's own, it learns
to live with its faults, which is what holds off drift; gradients go through one random step of each block (Self Forcing,
Huang et al. 2025, arXiv:2506.08009).
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from video_gen.data.latents import LatentSet
from video_gen.model.actions import of_frames
from video_gen.model.diffusion import along
from video_gen.model.text import TextEncoder
from video_gen.model.transformer import VideoTransformer
from video_gen.model.wan.transformer import WanTransformer
from video_gen.sampling.pipeline import VideoPipeline
from video_gen.sampling.solvers import timesteps
from video_gen.training.diffusion_task import told
from video_gen.training.distill_task import DistillTask
from video_gen.training.recipes import DiffusionRun, DistillConfig
from video_gen.training.task import normal, sample_generators, uniform

TIMES = 0.02, 0.98
"""Diffusion times at which teacher and critic are compared: at the ends they say little."""


class MatchingTask(DistillTask):
    """A `training.task.Task` of two models: the student, and the critic of what it makes.

    Args:
        critic: a copy of the teacher's transformer; it reads the captions through the teacher's text encoder.
    """

    def __init__(
        self,
        run: DiffusionRun,
        distill: DistillConfig,
        teacher: VideoPipeline,
        student: VideoTransformer | WanTransformer,
        critic: VideoTransformer | WanTransformer,
        text: TextEncoder,
        train: LatentSet,
        validation: LatentSet,
    ):
        super().__init__(run, distill, teacher, student, text, train, validation)
        self.critic = critic

    def modules(self) -> dict[str, nn.Module]:
        return super().modules() | {"critic": self.critic}

    def flops(self, batch: Mapping[str, Any], step: int) -> None:  # type: ignore[override]
        """Not counted: a step is many small passes."""

    def loss(
        self, batch: Mapping[str, Any], step: int, generators: Sequence[torch.Generator]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        blocks = self.blocks(step, batch["latents"].shape[2])
        noisy, t, clip = self.rollout(batch, blocks, generators)
        extra: dict[str, Any] = {"blocks": blocks, "clean": clip}
        moves = step % self.distill.critic_steps == self.distill.critic_steps - 1
        with torch.set_grad_enabled(moves):
            made = self._answer(noisy, t, batch, extra)
        parts = {"loss_critic": self._critic_loss(made.detach(), batch, extra, generators)}
        if moves:
            direction = self.direction(made.detach(), batch, extra, generators)
            parts["loss_matching"] = 0.5 * (made - (made - direction).detach()).square().mean()
            parts["gap"] = direction.square().mean().sqrt()
        return parts["loss_critic"] + parts.get("loss_matching", 0.0), parts

    @torch.no_grad()
    def rollout(
        self, batch: Mapping[str, Any], blocks: tuple[int, ...], generators: Sequence[torch.Generator]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The student makes clips of these captions, in the shape of the batch's latents.

        Returns: noisy latents (b, c, f, h, w) as they were before one step of each block, drawn per sample and block; the
            times (b, f) at which they were; the finished clips.
        """
        b, c, _, h, w = batch["latents"].shape
        sampling, student = self.run.sampling, self.transformer
        memory, history = student.encode_text(*self.text(batch["text"])), None
        inputs, chosen_times, made, at = [], [], [], 0
        for size in blocks:
            num_steps = sampling.steps_of(first=not made)
            times = timesteps(num_steps, sampling.shift).to(batch["latents"].device)
            chosen = (uniform(generators, 1) * num_steps).long()
            x = before = normal(generators, c, size, h, w)
            actions, past = (of_frames(told(batch).get(name), at, size) for name in ("actions", "clean_actions"))
            at += size
            for index, (now, then) in enumerate(pairwise(times)):
                before = torch.where(along(chosen == index, x), x, before)
                output = student.denoise(x, now.expand(b), memory, history, actions=actions)
                x = self.diffusion.to_denoised(output, x, now.expand(b))
                if index < num_steps - 1:  # as the solver `renoise` does
                    noise = sampling.noise_scale * normal(generators, c, size, h, w)
                    x = self.diffusion.add_noise(x, noise, then.expand(b))
            inputs.append(before)
            chosen_times.append(times[chosen].expand(-1, size))
            made.append(x)
            history = student.encode_history(x, history=history, actions=past, text=memory)
        return torch.cat(inputs, dim=2), torch.cat(chosen_times, dim=1), torch.cat(made, dim=2)

    @torch.no_grad()
    def direction(
        self, made: Tensor, batch: Mapping[str, Any], extra: dict[str, Any], generators: Sequence[torch.Generator]
    ) -> Tensor:
        """The critic's estimate less the guided teacher's, of `made` with noise on it, relative to how far the teacher's is
        from `made`: (b, c, f, h, w). On average the gradient of the student's divergence from the teacher."""
        noisy, t, _ = self._noisy(made, extra["blocks"], generators)
        target = self._guided(noisy, t, batch, extra)
        difference = self._critic(noisy, t, batch, extra)[1] - target
        return difference / (made - target).abs().mean(dim=(1, 3, 4), keepdim=True).clamp(min=1e-3)

    def _critic_loss(
        self, made: Tensor, batch: Mapping[str, Any], extra: dict[str, Any], generators: Sequence[torch.Generator]
    ) -> Tensor:
        noisy, t, noise = self._noisy(made, extra["blocks"], generators)
        return self.diffusion.loss(self._critic(noisy, t, batch, extra)[0], made, noise, noisy, t).mean()

    def _noisy(
        self, made: Tensor, blocks: tuple[int, ...], generators: Sequence[torch.Generator]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Clips with noise of one time per block, these times per frame, and the noise."""
        repeats = torch.tensor(blocks, device=made.device)
        t = TIMES[0] + (TIMES[1] - TIMES[0]) * uniform(generators, len(blocks))
        t = t.repeat_interleave(repeats, dim=1, output_size=sum(blocks))
        noise = normal(generators, *made.shape[1:])
        return self.diffusion.add_noise(made, noise, t), t, noise

    def _critic(
        self, noisy: Tensor, t: Tensor, batch: Mapping[str, Any], extra: dict[str, Any]
    ) -> tuple[Tensor, Tensor]:
        """The critic's prediction, and the latents for which it stands."""
        with torch.no_grad():
            text, visible = self.teacher.text(batch["text"])
        output = self.critic(noisy, t, text, visible, **told(batch), **extra)
        return output, self.diffusion.to_denoised(output.float(), noisy, t)

    def _held_out_losses(self, clips: list[int]) -> dict[str, Tensor]:
        """How far teacher and critic are apart on videos from held-out captions."""
        batch = self._held_out(clips)
        blocks = self.blocks(0, batch["latents"].shape[2])
        generators = [sample_generators(0, 0, range(i, i + 1), batch["latents"].device)[0] for i in clips]
        noisy, t, clip = self.rollout(batch, blocks, generators)
        extra: dict[str, Any] = {"blocks": blocks, "clean": clip}
        made = self._answer(noisy, t, batch, extra)
        return {"gap": self.direction(made, batch, extra, generators).square().mean(dim=(1, 2, 3, 4)).sqrt()}
