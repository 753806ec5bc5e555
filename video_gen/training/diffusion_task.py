"""What the loop does for a VideoTransformer: noise on latents, blocks with clean history, captions dropped at times."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import torch
from torch import Tensor, nn

from video_gen.data.batches import BatchSampler
from video_gen.data.latents import LatentSet
from video_gen.data.video_file import contact_sheet, write_video
from video_gen.errors import ConfigError
from video_gen.model.diffusion import Diffusion
from video_gen.model.text import TextEncoder
from video_gen.model.transformer import VideoTransformer
from video_gen.model.video_vae import VideoVAE
from video_gen.sampling.pipeline import ClipSettings, VideoPipeline
from video_gen.training.parallel import Mesh
from video_gen.training.recipes import DiffusionRun
from video_gen.training.task import normal, sample_generators, uniform

BANDS = 4
"""Equal bands of diffusion time for which the held-out loss is told apart."""
VALIDATION_CLIPS = 64


def block_sizes(frames: int, size: int) -> tuple[int, ...]:
    """The first latent frame by itself, since it stands for one pixel frame; then blocks of `size`, the last perhaps less."""
    rest = frames - 1
    return (1, *(min(size, rest - start) for start in range(0, rest, size)))


class DiffusionTask:
    """A `training.task.Task`: the transformer and its text encoder on latents.

    Args:
        vae: decodes samples on the way and is saved with the model.
    Raises: ConfigError if a context's processes cannot share the tokens equally.
    """

    def __init__(
        self,
        run: DiffusionRun,
        transformer: VideoTransformer,
        text: TextEncoder,
        vae: VideoVAE,
        train: LatentSet,
        validation: LatentSet,
        mesh: Mesh | None = None,
    ):
        self.run, self.transformer, self.text, self.vae = run, transformer, text, vae
        self.train, self.validation = train, validation
        self.diffusion = Diffusion(run.diffusion)
        self.mesh = mesh or Mesh()
        ranks = (self.mesh.data_rank, self.mesh.data_ranks)
        self.sampler = BatchSampler(train.buckets, run.loop.batch_size, run.loop.seed, *ranks)
        f, h, w = max(train.buckets)
        patch = transformer.config.patch_size
        self._check_context()
        self.tokens_per_step = run.loop.batch_size * f * (h // patch) * (w // patch)

    def modules(self) -> dict[str, nn.Module]:
        return {"transformer": self.transformer, "text": self.text}

    def batch(self, step: int) -> Mapping[str, Any]:
        indices, size = self.sampler.indices(step), self.run.loop.batch_size
        rng = np.random.default_rng([self.run.loop.seed, step, 0])
        captions = [self.train.caption(i) for i in indices]
        kept = rng.random(size)[self.mesh.share(size)] >= self.run.modes.text_dropout
        return {
            "latents": torch.stack([self.train[i] for i in indices]),
            "text": self.text.tokenise([c if keep else "" for c, keep in zip(captions, kept)]),
        }

    def loss(
        self, batch: Mapping[str, Any], step: int, generators: Sequence[torch.Generator]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        modes, latents = self.run.modes, batch["latents"]
        rng = np.random.default_rng([self.run.loop.seed, step, 1])
        teacher, size = rng.random() < modes.teacher_forcing, int(rng.choice(modes.block_sizes))
        frames = latents.shape[2]
        if not teacher or frames == 1:
            loss = self._loss(batch, (frames,), generators)
            return loss, {} if frames == 1 else {"loss_bidirectional": loss}
        loss = self._loss(batch, block_sizes(frames, size), generators, history=True)
        return loss, {"loss_causal": loss}

    def _loss(
        self,
        batch: Mapping[str, Any],
        blocks: tuple[int, ...],
        generators: Sequence[torch.Generator],
        history: bool = False,
    ) -> Tensor:
        """One t per block and sample; see `VideoTransformer.forward` for the rest."""
        device = batch["latents"].device
        t = torch.cat([self.diffusion.sample_t((1, len(blocks)), generator, device) for generator in generators])
        t = t.repeat_interleave(torch.tensor(blocks, device=device), dim=1)
        return self._losses_at(batch, t, blocks, generators, history).mean()

    def _losses_at(
        self,
        batch: Mapping[str, Any],
        t: Tensor,
        blocks: tuple[int, ...],
        generators: Sequence[torch.Generator],
        history: bool,
    ) -> Tensor:
        """Each sample's loss, (b,)."""
        latents = batch["latents"]
        noise = normal(generators, *latents.shape[1:])
        noisy = self.diffusion.add_noise(latents, noise, t)
        extra: dict[str, Any] = self._history(latents, generators) if history else {}
        text, visible = self.text(batch["text"])
        output = self.transformer(noisy, t, text, visible, blocks=blocks, context=self.mesh.context, **extra)
        return self.diffusion.loss(output, latents, noise, noisy, t)

    def _history(self, latents: Tensor, generators: Sequence[torch.Generator]) -> dict[str, Tensor]:
        """Clean frames, for some samples with noise that the network is told, and for some hidden."""
        modes, f = self.run.modes, latents.shape[2]
        t = modes.history_noise * uniform(generators, f) * (uniform(generators, 1) < modes.noisy_history)
        clean = self.diffusion.add_noise(latents, normal(generators, *latents.shape[1:]), t)
        visible = uniform(generators) >= modes.history_dropout
        return {"clean": clean, "clean_t": t, "history_visible": visible}

    def validate(self, step: int) -> dict[str, float]:
        """Loss on held-out clips with the same noise each time: in bands of t for whole clips, and block after block."""
        indices = [i for i in range(len(self.validation)) if self.validation.buckets[i] == max(self.validation.buckets)]
        own = indices[:VALIDATION_CLIPS][self.mesh.data_rank :: self.mesh.data_ranks]
        size = self.run.loop.batch_size // (self.run.loop.accumulation * self.mesh.data_ranks)
        figures: dict[str, list[float]] = {}
        for start in range(0, len(own), size):
            for name, losses in self._held_out_losses(own[start : start + size]).items():
                figures.setdefault(name, []).extend(losses.tolist())
        every = self.mesh.gather(figures)
        names = {name for found in every for name in found}
        return {n: float(np.mean(np.concatenate([found.get(n, []) for found in every]))) for n in sorted(names)}

    def _held_out_losses(self, clips: list[int]) -> dict[str, Tensor]:
        """Figure -> losses of some held-out clips of one shape."""
        device = next(self.transformer.parameters()).device
        batch = {
            "latents": torch.stack([self.validation[i] for i in clips]).to(device),
            "text": self.text.tokenise([self.validation.caption(i) for i in clips]).to(device),
        }
        f = batch["latents"].shape[2]
        blocks = block_sizes(f, min(self.run.modes.block_sizes))
        figures, causal = {}, []
        for band in range(BANDS):
            generators = [sample_generators(band, 0, range(i, i + 1), device)[0] for i in clips]
            t = ((band + uniform(generators, 1)) / BANDS).expand(-1, f)
            low, high = band / BANDS, (band + 1) / BANDS
            figures[f"loss_t{low:.2f}-{high:.2f}"] = self._losses_at(batch, t, (f,), generators, history=False)
            if f > 1:
                causal.append(self._losses_at(batch, t, blocks, generators, history=True))
        return figures | ({"loss_causal": torch.stack(causal).mean(0)} if causal else {})

    def sample(self, step: int, folder: Path) -> None:
        """A few held-out captions as video files and one contact sheet."""
        pipeline = self.pipeline()
        count = min(self.run.num_samples, len(self.validation))
        captions = [self.validation.caption(i) for i in range(count)]
        videos = pipeline.generate(captions, seeds=list(range(count)))
        for index, (caption, video) in enumerate(zip(captions, videos)):
            write_video(folder / f"{index:02d}.mp4", video, self.run.data.fps, metadata={"prompt": caption})
        from PIL import Image

        scale = max(1, 96 // self.run.data.height)
        Image.fromarray(contact_sheet(list(videos), scale=scale)).save(folder / "sheet.png")
        (folder / "captions.txt").write_text("\n".join(captions) + "\n")

    def save(self, folder: Path) -> None:
        self.pipeline().save_pretrained(folder)

    def on(self, modules: Mapping[str, nn.Module]) -> Self:
        other = copy.copy(self)
        other.transformer = cast(VideoTransformer, modules["transformer"])
        other.text = cast(TextEncoder, modules["text"])
        return other

    def _check_context(self) -> None:
        config, context = self.transformer.config, self.mesh.sizes[2]
        heads = config.width // config.head_dim
        if heads % context:
            raise ConfigError(f"parallel.context {context} must divide the transformer's {heads} heads")
        for _, h, w in self.train.buckets:
            places = (h // config.patch_size) * (w // config.patch_size)
            if places % context:
                raise ConfigError(
                    f"parallel.context {context} must divide the tokens of a frame: latents of {h}x{w} with patch_size "
                    f"{config.patch_size} have {places}"
                )

    def pipeline(self) -> VideoPipeline:
        data = self.run.data
        clip = ClipSettings(num_frames=data.num_frames, fps=data.fps, height=data.height, width=data.width)
        device = next(self.transformer.parameters()).device
        parts = (self.vae.to(device), self.transformer, self.text)
        return VideoPipeline(*parts, self.run.diffusion, clip, self.run.sampling)
