"""What the loop does for a VideoTransformer: noise on latents, blocks with clean history, captions dropped at times."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from video_gen.model.actions import Actions
from video_gen.model.diffusion import EPSILON
from video_gen.model.routing import Route, draw_places
from video_gen.model.spans import starts
from video_gen.training.judge import JUDGES, Judge
from video_gen.training.latent_task import VALIDATION_CLIPS, LatentTask, block_sizes
from video_gen.training.pictures import TOLD, begun_at, made
from video_gen.training.recipes import ModeConfig
from video_gen.training.task import normal, sample_generators, uniform

BANDS = 4
"""Equal bands of diffusion time for which the held-out loss is told apart."""
RESAMPLING_STEPS = 2
"""Solver steps by which history is made again."""


def told(batch: Mapping[str, Any]) -> dict[str, Any]:
    """What of a batch says what was done, and where its clips lead: arguments of `VideoTransformer.forward`, if it does."""
    found: dict[str, Any] = {name: batch[name] for name in ("ending", "ending_visible", *TOLD) if name in batch}
    if "actions" in batch:
        found["actions"] = Actions(batch["actions"], batch.get("actions_known"))
        found["clean_actions"] = Actions(batch["actions"], batch.get("past_known"))
    return found


def counted(batch: Mapping[str, Any], blocks: tuple[int, ...]) -> Tensor | None:
    """(b, f), which frames count: those that show what the caption says, of blocks that begin with such a frame, since a caption
    changes between blocks. None = all."""
    shown = batch.get("shown")
    if shown is None:
        return None
    return shown & shown[:, starts(blocks)]


def still_counts(latents: Tensor, modes: ModeConfig) -> Tensor | None:
    """(b, f), how much each frame of latents (b, c, f, h, w) counts, 1 on average: `ModeConfig.still_frames`, `still_clips`. The
    first one, with none before it, as if it were all new. None = all count alike."""
    floor = modes.still_frames or modes.still_clips
    if not floor:
        return None
    new, change = (x.square().mean(dim=(1, 3, 4)) for x in (latents[:, :, :1], latents.diff(dim=2)))
    if modes.still_clips:
        change = change.mean(1, keepdim=True).expand_as(change)
    counts = 1 / (torch.cat([new, change], dim=1) + floor)
    return counts / counts.mean()


class DiffusionTask(LatentTask):
    """A `training.task.Task`: the transformer and its text encoder on latents; for the arguments see `LatentTask`."""

    judge: Judge | None = JUDGES["diffusion"]

    def loss(
        self, batch: Mapping[str, Any], step: int, generators: Sequence[torch.Generator]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        frames = batch["latents"].shape[2]
        blocks = self.blocks(step, frames)
        loss = self._loss(batch, blocks, step, generators, history=len(blocks) > 1)
        if frames == 1:
            return loss, {}
        return loss, {"loss_causal" if len(blocks) > 1 else "loss_bidirectional": loss}

    def _loss(
        self,
        batch: Mapping[str, Any],
        blocks: tuple[int, ...],
        step: int,
        generators: Sequence[torch.Generator],
        history: bool = False,
    ) -> Tensor:
        """One t per block and sample; see `VideoTransformer.forward` for the rest."""
        latents = batch["latents"]
        tokens = self.transformer.config.tokens(*latents.shape[2:])
        drawn = [self.diffusion.sample_t((1, len(blocks)), g, latents.device, tokens) for g in generators]
        t = torch.cat([of.expand(-1, n) for of, n in zip(torch.cat(drawn).split(1, dim=1), blocks)], dim=1)
        route, rounds = self._route(latents, step, generators), self._rounds(step)
        return self._losses_at(batch, t, blocks, generators, history, route, rounds).mean()

    def _route(self, latents: Tensor, step: int, generators: Sequence[torch.Generator]) -> Route | None:
        """The places that go through all layers at this step; None = all."""
        routing, config = self.run.routing, self.transformer.config
        if not routing.skip or step >= (1 - routing.dense_share) * self.run.loop.train_steps:
            return None
        count = latents.shape[3] * latents.shape[4] // config.patch_size**2
        places = torch.cat([draw_places(1, count, routing.skip, g, latents.device) for g in generators])
        return Route(places, routing.first, config.depth - routing.last)

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
        """Each sample's loss, (b,); `rounds`: how often history is made again, where it is."""
        latents, begun = batch["latents"], batch.get("begun")
        noise, t = normal(generators, *latents.shape[1:]), begun_at(t, begun)
        noisy = self.diffusion.add_noise(latents, noise, t)
        text, visible = self.text(batch["text"])
        extra: dict[str, Any] = {"blocks": blocks, "route": route, "context": self.context} | told(batch)
        extra |= self._history(batch, blocks, generators, rounds) if history else {}
        output = self.transformer(noisy, t, text, visible, **extra)
        keep = made(counted(batch, blocks), begun, latents.shape[2])
        counts = still_counts(latents, self.run.modes) if history else None
        if self.run.diffusion.draws == 1:
            return self.diffusion.loss(output, latents, noise, noisy, t, keep, counts)
        draws = [self.diffusion.to_denoised(output, noisy, t)]
        for _ in range(1, self.run.diffusion.draws):
            noisy = self.diffusion.add_noise(latents, normal(generators, *latents.shape[1:]), t)
            output = self.transformer(noisy, t, text, visible, **extra)
            draws.append(self.diffusion.to_denoised(output, noisy, t))
        return self.diffusion.energy(draws, latents, self.transformer.config.patch_size, keep, counts)

    def _history(
        self, batch: Mapping[str, Any], blocks: tuple[int, ...], generators: Sequence[torch.Generator], rounds: int = 1
    ) -> dict[str, Tensor | None]:
        """Clean frames, for some samples with noise that the network is told, as it would make them itself, or hidden."""
        modes, latents = self.run.modes, batch["latents"]
        f, shape = latents.shape[2], latents.shape[1:]

        t = modes.history_noise * uniform(generators, f) * (uniform(generators, 1) < modes.noisy_history)
        clean, before = self.diffusion.add_noise(latents, normal(generators, *shape), t), latents
        drawn = uniform(generators)
        visible = drawn >= modes.history_dropout if modes.history_dropout else None  # known to hide nothing: no mask
        if modes.resampled_history:
            chosen, start = (
                uniform(generators, 1) < modes.resampled_history,
                modes.resampled_noise * uniform(generators, 1),
            )
            start = self.diffusion.within(start.clamp(min=EPSILON)).expand(-1, f)
            noisy = self.diffusion.add_noise(latents, normal(generators, *shape), start)
            made, made_t, made_before = self._resample(noisy, start, batch, blocks, clean, t, rounds)
            which = chosen[:, None, :, None, None]
            clean, before = torch.where(which, made, clean), torch.where(which, made_before, before)
            t = torch.where(chosen, made_t, t)
        return {"clean": clean, "clean_t": t, "history_visible": visible} | self._copied(before)

    def _copied(self, before: Tensor) -> dict[str, Tensor]:
        """What a model copies from that does so (`transformer.previous`): of history, the frames without noise."""
        return {"before": before} if getattr(self.transformer.config, "previous", False) else {}

    def _rounds(self, step: int) -> int:
        """How often step `step` makes its history again."""
        rng = np.random.default_rng([self.run.loop.seed, step, 2])
        return int(rng.integers(1, self.run.modes.resampled_rounds, endpoint=True))

    @torch.no_grad()
    def _resample(
        self,
        noisy: Tensor,
        start: Tensor,
        batch: Mapping[str, Any],
        blocks: tuple[int, ...],
        clean: Tensor,
        clean_t: Tensor,
        rounds: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What the model makes of noisy latents in a few steps: close to the truth, with the model's own faults.

        History with such faults, of which the network is told nothing, is what it meets in a long video (Resampling Forcing,
        Guo et al. 2025, arXiv:2512.15702; there block after block, here all blocks at once). The first round goes on from a
        true past, each other from what the one before made: after n, a block's past has the faults of n blocks in a row.

        Returns: the history, its first block as it was, the noise (b, f) of which the network is told, and the history without it.
        """
        steps = 1 if self.run.diffusion.draws > 1 else RESAMPLING_STEPS
        before, given = batch["latents"], blocks[0]
        text, visible = self.text(batch["text"])
        known = {name: done for name, done in told(batch).items() if name.endswith("actions") or name in TOLD}
        for _ in range(rounds):
            made = noisy
            for step in range(steps):
                now, then = (start * (1 - k / steps) for k in (step, step + 1))
                extra = {"blocks": blocks, "clean": clean, "clean_t": clean_t} | self._copied(before) | known
                output = self.transformer(made, now, text, visible, context=self.context, **extra)
                made = self.diffusion.move(made, self.diffusion.to_denoised(output, made, now), now, then)
            clean, before = (torch.cat([past[:, :, :given], made[:, :, given:]], dim=2) for past in (clean, before))
            clean_t = torch.cat([clean_t[:, :given], torch.zeros_like(clean_t[:, given:])], dim=1)
        return clean, clean_t, before

    def validate(self, step: int) -> dict[str, float]:
        """Loss on held-out clips with the same noise each time: in bands of t for whole clips, and block after block.

        With actions also how much larger the latter is with those of other clips: 1 = they are ignored.
        """
        longest = max(self.validation.buckets, default=None)
        indices = [i for i, bucket in enumerate(self.validation.buckets) if bucket == longest]
        own = indices[:VALIDATION_CLIPS][self.mesh.data_rank :: self.mesh.data_ranks]
        size = self.run.loop.batch_size // (self.run.loop.accumulation * self.mesh.data_ranks)
        figures: dict[str, list[float]] = {}
        for start in range(0, len(own), size):
            for name, losses in self._held_out_losses(own[start : start + size]).items():
                figures.setdefault(name, []).extend(losses.tolist())
        every = self.mesh.gather(figures)
        names = {name for found in every for name in found}
        means = {n: float(np.mean(np.concatenate([found.get(n, []) for found in every]))) for n in sorted(names)}
        shuffled = means.pop("loss_shuffled", None)
        if shuffled and means["loss_causal"]:
            means["shuffle_ratio"] = shuffled / means["loss_causal"]
        whole = any(name.startswith("loss_t") for name in means)
        return ({"loss": self._as_trained(means)} if whole else {}) | means

    def _as_trained(self, figures: Mapping[str, float]) -> float:
        """The mean of the held-out losses, weighted as training has both uses of the model."""
        whole = float(np.mean([value for name, value in figures.items() if name.startswith("loss_t")]))
        share = self.run.modes.teacher_forcing if "loss_causal" in figures else 0.0
        return share * figures.get("loss_causal", 0.0) + (1 - share) * whole

    def _held_out_losses(self, clips: list[int]) -> dict[str, Tensor]:
        """Figure -> losses of some held-out clips of one shape."""
        batch = self._held_out(clips)
        f, device = batch["latents"].shape[2], batch["latents"].device
        blocks = block_sizes(f, min(self.run.modes.block_sizes))
        figures, causal, shuffled = {}, [], []
        for band in range(BANDS):
            generators = [sample_generators(band, 0, range(i, i + 1), device)[0] for i in clips]
            t = self.diffusion.within((band + uniform(generators, 1)) / BANDS).expand(-1, f)
            low, high = (self.diffusion.within(edge / BANDS) for edge in (band, band + 1))
            figures[f"loss_t{low:.2f}-{high:.2f}"] = self._losses_at(batch, t, (f,), generators, history=False)
            if f > 1:
                causal.append(self._losses_at(batch, t, blocks, generators, history=True))
            if f > 1 and "actions" in batch and len(clips) > 1:
                others = batch | {"actions": batch["actions"].roll(len(clips) // 2, dims=0)}
                again = [sample_generators(band, 0, range(i, i + 1), device)[0] for i in clips]
                uniform(again, 1)
                normal(again, *batch["latents"].shape[1:])
                shuffled.append(self._losses_at(others, t, blocks, again, history=True))
        for name, losses in (("loss_causal", causal), ("loss_shuffled", shuffled)):
            figures |= {name: torch.stack(losses).mean(0)} if losses else {}
        return figures
