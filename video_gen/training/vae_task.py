"""What the loop does for a VAE: reconstruct clips and images."""

import copy
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from video_gen.data.batches import BatchSampler
from video_gen.data.clips import Clips, spread, to_frames, to_video, videos_of
from video_gen.data.video_writer import contact_sheet, write_video
from video_gen.errors import ConfigError
from video_gen.evaluation.lpips import LPIPS
from video_gen.evaluation.reconstruction import halved, psnr
from video_gen.model.flops import vae_training_flops
from video_gen.model.vae_config import VAEConfig
from video_gen.model.vae_contract import Posterior
from video_gen.model.wan.vae import WanVAE
from video_gen.sampling.parts import VAE
from video_gen.training.adversarial import PatchDiscriminator, adversarial_losses
from video_gen.training.judge import JUDGES, Judge
from video_gen.training.known_data import remember_data
from video_gen.training.parallel import Mesh, pick_device
from video_gen.training.recipes import VAELossConfig, VAERun
from video_gen.training.task import normal

VALIDATION_CLIPS = 48
DECODERS = 8
SHEET_CLIPS = 6


def charbonnier(difference: Tensor, epsilon: float) -> Tensor:
    """Mean of sqrt(x^2 + eps^2) - eps: the absolute value, rounded off at zero (Charbonnier et al. 1994)."""
    return (difference.square() + epsilon**2).sqrt().mean() - epsilon


def reconstruction_loss(made: Tensor, video: Tensor, config: VAELossConfig) -> dict[str, Tensor]:
    """Weighted parts of the loss that need no learned weights; `made` and `video` (b, c, f, h, w) in [-1, 1]."""
    difference = made - video
    parts = {"pixels": charbonnier(difference, config.charbonnier_epsilon)}
    if config.mse:
        parts["mse"] = config.mse * difference.square().mean()
    if config.spatial_gradient:
        steps = (difference.diff(dim=axis) for axis in (3, 4))
        parts["spatial"] = config.spatial_gradient * sum(
            (charbonnier(step, config.charbonnier_epsilon) for step in steps), start=torch.zeros_like(parts["pixels"])
        )
    if config.frequency:
        waves = torch.fft.rfft2(difference, norm="ortho").abs()
        parts["frequency"] = config.frequency * charbonnier(waves, config.charbonnier_epsilon)
    if config.temporal_gradient and video.shape[2] > 1:
        step = difference.diff(dim=2)
        parts["temporal"] = config.temporal_gradient * charbonnier(step, config.charbonnier_epsilon)
    return parts


GAIN_NOISE = 0.3
"""Of a channel's deviation, by which it is changed to see what that does."""


class VAETask:
    """A `training.task.Task`.

    Raises: ConfigError, DataError if LPIPS is asked for and cannot be loaded, or with a context: videos are not shared.
    """

    tokens_per_step: float | None = None
    judge: Judge | None = JUDGES["vae"]

    def __init__(self, run: VAERun, vae: VAE, train: Clips, validation: Clips, mesh: Mesh | None = None):
        self.run, self.vae, self.train, self.validation = run, vae, train, validation
        self.mesh = mesh or Mesh()
        if self.mesh.context is not None:
            raise ConfigError(f"parallel.context {self.mesh.sizes[2]}: a VAE trains with context 1; use shard instead")
        ranks = (self.mesh.data_rank, self.mesh.data_ranks)
        self.sampler = BatchSampler(
            train.buckets, run.loop.batch_size, run.loop.seed, *ranks, accumulation=run.loop.accumulation
        )
        on_gpu = pick_device(run.loop.device).type == "cuda"
        self.decoders = min(DECODERS, os.cpu_count() or 1) if on_gpu else 1
        """Threads that decode a batch: a CPU that trains has no core to spare."""
        self.discriminator = PatchDiscriminator() if run.loss.adversarial else None
        self.lpips = LPIPS.from_file(run.loss.lpips_weights) if run.loss.lpips_weights else None

    def clips(self) -> dict[str, str]:
        return {clip: side for part in (self.train, self.validation) for clip, side in zip(part.ids, part.parts)}

    def made_of(self) -> dict[str, str]:
        return {}

    def modules(self) -> dict[str, nn.Module]:
        extra = {"discriminator": self.discriminator} if self.discriminator is not None else {}
        return {"vae": self.vae, **extra}

    def batch(self, step: int) -> Mapping[str, Any]:
        videos = videos_of(self.train, self.sampler.indices(step), self.decoders)
        rng = np.random.default_rng([self.run.loop.seed, step])
        if videos.shape[1] > 1 and rng.random() < self.run.image_fraction:  # one frame of each clip, as an image
            size = len(videos) * self.mesh.data_ranks
            frame = rng.integers(videos.shape[1], size=size)[self.mesh.share(size)]
            videos = videos[np.arange(len(videos)), frame][:, None]
        if self.run.crop is not None:
            videos = self._cropped(videos, rng)
        return {"video": torch.from_numpy(videos)}

    def _cropped(self, videos: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A square of each, of side `crop`, anywhere; this process's share of the places that are drawn for all."""
        side, (height, width), size = self.run.crop, videos.shape[2:4], len(videos) * self.mesh.data_ranks
        assert side is not None
        places = rng.integers((height - side + 1, width - side + 1), size=(size, 2))[self.mesh.share(size)]
        return np.stack([video[:, y : y + side, x : x + side] for video, (y, x) in zip(videos, places)])

    def loss(
        self, batch: Mapping[str, Any], step: int, generators: Sequence[torch.Generator]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        video, config = to_video(batch["video"]), self.run.loss
        posterior = self.vae.encode(video)
        latents = sampled(posterior, generators)
        made = self.vae.decode(latents).float()
        parts = reconstruction_loss(made, video, config)
        if config.scale_equivariance:
            apart = self.vae.decode(halved(latents)).float() - halved(video)
            parts["scale"] = config.scale_equivariance * charbonnier(apart, config.charbonnier_epsilon)
        parts["kl"] = config.kl * posterior.kl().mean()
        if self.lpips is not None:
            parts["lpips"] = config.lpips * self.lpips.to(made.device)(frames(made), frames(video)).mean()
        total = sum(parts.values(), start=torch.zeros((), device=video.device))
        if self.discriminator is not None and video.shape[2] > 1:
            listens = step >= config.adversarial_start
            strength, matching = (w if listens else 0.0 for w in (config.adversarial, config.feature_matching))
            learned = adversarial_losses(self.discriminator, made, video, strength, matching)
            parts |= learned
            total = total + sum(learned.values())
        mse = (made.detach() - video).square().mean()
        return total, {**parts, "psnr": 10 * torch.log10(4 / mse)}

    def flops(self, batch: Mapping[str, Any], step: int) -> int:
        """Without the discriminator and LPIPS; 0 for a public VAE, whose are not counted."""
        b, f, h, w = batch["video"].shape[:4]
        config = self.vae.config
        return vae_training_flops(config, b, (f, h, w)) if isinstance(config, VAEConfig) else 0

    def validate(self, step: int) -> dict[str, float]:
        own: dict[str, list[float]] = {"psnr": [], "psnr_linear": []}
        chosen = spread(self.validation.buckets, VALIDATION_CLIPS)[self.mesh.data_rank :: self.mesh.data_ranks]
        for video in self._batches(self.validation, chosen):
            own["psnr"] += psnr(self.vae.decode(self.vae.encode(video).mean).float(), video).tolist()
            if self.vae.linear is not None:
                own["psnr_linear"] += psnr(self.vae.linear_reconstruction(video).float(), video).tolist()
        every = {name: np.concatenate([found[name] for found in self.mesh.gather(own)]) for name in own}
        return {name: float(values.mean()) for name, values in every.items() if len(values)}

    def sample(self, step: int, folder: Path) -> None:
        """Held-out clips beside their reconstructions, as mp4 and as one picture; of training where nothing is held out."""
        rows: list[np.ndarray] = []
        clips = self.validation if len(self.validation) else self.train
        for video in self._batches(clips, spread(clips.buckets, SHEET_CLIPS)):
            made = self.vae.decode(self.vae.encode(video).mean).float()
            for pair in zip(video, made):
                true, again = (to_frames(v) for v in pair)
                if len(true) > 1:
                    beside = np.concatenate([true, again], axis=2)
                    write_video(folder / f"{len(rows) // 2:02d}.mp4", beside, self.run.data.fps)
                rows += [true, again]
        rows = [row for row in rows if row.shape == rows[0].shape]
        Image.fromarray(contact_sheet(rows, scale=max(1, 96 // rows[0].shape[1]))).save(folder / "sheet.png")

    def save(self, folder: Path) -> None:
        """Measure the latents' statistics, so that whoever uses the VAE gets zero mean, and unit variance or as `channel_weight`
        has it. A public VAE keeps its own: the models of its latents know no others."""
        if not isinstance(self.vae, WanVAE):
            self._measure_statistics()
        self.vae.save_pretrained(folder / "vae")
        remember_data(folder / "vae", self.run.data)

    def _measure_statistics(self) -> None:
        count, total, squares = 0, torch.zeros(1), torch.zeros(1)
        for video in self._batches(self.train, spread(self.train.buckets, self.run.statistics_clips)):
            latents = self.vae.encode(video).mean.double().cpu()
            count += latents[:, 0].numel()
            total = total + latents.sum((0, 2, 3, 4))
            squares = squares + latents.square().sum((0, 2, 3, 4))
        mean = total / count
        self.vae.set_latent_statistics(mean, (squares / count - mean**2).clamp(min=1e-8).sqrt())
        if self.run.channel_weight:
            first = next(self._batches(self.train, spread(self.train.buckets, self.run.loop.batch_size)))
            size = channel_gains(self.vae, first) ** self.run.channel_weight
            size = size / size.square().mean().sqrt()
            self.vae.set_latent_statistics(torch.zeros_like(size), 1 / size)

    def on(self, modules: Mapping[str, nn.Module]) -> Self:
        other = copy.copy(self)
        other.vae, other.discriminator = cast(VAE, modules["vae"]), cast(Any, modules.get("discriminator"))
        return other

    def _batches(self, clips: Clips, chosen: list[int]):
        """Videos (b, c, f, h, w) of the chosen clips, in batches of one shape, as large as in training."""
        device = next(self.vae.parameters()).device
        size = self.run.loop.batch_size // (self.run.loop.accumulation * self.mesh.data_ranks)
        for bucket in dict.fromkeys(clips.buckets):
            indices = [i for i in chosen if clips.buckets[i] == bucket]
            for start in range(0, len(indices), size):
                videos = np.stack([clips[i].video for i in indices[start : start + size]])
                yield to_video(torch.from_numpy(videos)).to(device)


def sampled(posterior: Posterior, generators: Sequence[torch.Generator]) -> Tensor:
    """Latents drawn from a posterior, each sample's by its generator."""
    return posterior.mean + (posterior.logvar / 2).exp() * normal(generators, *posterior.mean.shape[1:])


def frames(video: Tensor) -> Tensor:
    """(b, c, f, h, w) to (b * f, c, h, w)."""
    return video.transpose(1, 2).flatten(0, 1)


@torch.no_grad()
def channel_gains(vae: VAE, video: Tensor) -> Tensor:
    """By how much each channel of the latents changes the picture, (c,): the root mean square of what noise on it does."""
    latents = vae.encode(video).mean.float()
    plain, gains = vae.decode(latents), []
    generator = torch.Generator().manual_seed(0)
    for channel in range(latents.shape[1]):
        noise = GAIN_NOISE * torch.randn(latents[:, channel].shape, generator=generator).to(latents.device)
        changed = latents.clone()
        changed[:, channel] += noise
        gains.append((vae.decode(changed) - plain).float().square().mean().sqrt())
    return torch.stack(gains).double().cpu().clamp(min=1e-6)
