"""What a transformer is fed at each step of its training, and what becomes of it: clips of latents with what they are told,
samples on the way, and a model folder."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from video_gen.data.batches import BatchSampler
from video_gen.data.latents import LatentSet
from video_gen.data.video_writer import contact_sheet, write_video
from video_gen.data.worlds import maze_of, world_of
from video_gen.errors import ConfigError
from video_gen.model.actions import latent_actions
from video_gen.model.diffusion import Diffusion
from video_gen.model.flops import BACKWARD, text_flops, transformer_flops
from video_gen.model.frozen_text import encoder_fingerprint
from video_gen.model.keys import Context
from video_gen.model.text import TextEncoder
from video_gen.model.transformer import VideoTransformer
from video_gen.model.wan.config import WanTransformerConfig
from video_gen.model.wan.experts import Experts
from video_gen.model.wan.flops import wan_flops
from video_gen.model.wan.transformer import WanTransformer
from video_gen.sampling.config import ClipSettings, Family
from video_gen.sampling.parts import VAE, Transformer, parts_of
from video_gen.sampling.pipeline import VideoPipeline
from video_gen.training.compiling import wants_compilation
from video_gen.training.known_data import known_data, remember_data
from video_gen.training.monitor import say
from video_gen.training.parallel import Mesh
from video_gen.training.pictures import Pictures
from video_gen.training.recipes import DiffusionRun

TEXT_MULTIPLE = 16
"""Text is padded to a multiple of so many tokens for compiled code, which is made once for each length."""
VALIDATION_CLIPS = 64


def block_sizes(frames: int, size: int) -> tuple[int, ...]:
    """The first latent frame by itself, since it stands for one pixel frame; then blocks of `size`, the last perhaps less."""
    rest = frames - 1
    return (1, *(min(size, rest - start) for start in range(0, rest, size)))


class LatentTask:
    """The half of a `training.task.Task` that does not depend on what is learned.

    Args:
        vae: decodes samples on the way and is saved with the model.
        pictures: what a public model is told of the picture that a clip begins with; None = nothing.
    Raises: ConfigError if a context's processes cannot share the tokens equally.
    """

    def __init__(
        self,
        run: DiffusionRun,
        transformer: VideoTransformer | WanTransformer,
        text: TextEncoder,
        vae: VAE,
        train: LatentSet,
        validation: LatentSet,
        mesh: Mesh | None = None,
        pictures: Pictures | None = None,
    ):
        self.pictures = pictures
        self.run, self.transformer, self.text, self.vae = run, transformer, text, vae
        self.train, self.validation = train, validation
        self.diffusion = Diffusion(run.diffusion)
        self.mesh = mesh or Mesh()
        sizes = transformer.config
        self.sampler = BatchSampler(
            train.buckets,
            run.loop.batch_size,
            run.loop.seed,
            self.mesh.data_rank,
            self.mesh.data_ranks,
            work=lambda bucket: sizes.forward_flops(*bucket),
            accumulation=run.loop.accumulation,
        )
        self.context = self._context()
        self.tokens_per_step: float | None = self.sampler.mean_per_step(lambda bucket: sizes.tokens(*bucket))
        self.text_multiple = TEXT_MULTIPLE if wants_compilation(run.loop, self.mesh.device) else 1

    def clips(self) -> dict[str, str]:
        entries = (*self.train.entries, *self.validation.entries)
        return {entry.clip_id: " ".join([entry.part, *entry.texts]) for entry in entries}

    def made_of(self) -> dict[str, str]:
        encoder = {"text encoder": encoder_fingerprint(self.run.text)} if self.run.text.name else {}
        return {"VAE": self.train.folder.name} | encoder

    def modules(self) -> dict[str, nn.Module]:
        return {"transformer": self.transformer, "text": self.text}

    def batch(self, step: int) -> Mapping[str, Any]:
        indices, size = self.sampler.indices(step), self.run.loop.batch_size
        rng = np.random.default_rng([self.run.loop.seed, step, 0])
        size = len(indices) * self.mesh.data_ranks
        kept = rng.random(size)[self.mesh.share(size)] >= self.run.modes.text_dropout
        chosen = rng.random(size)[self.mesh.share(size)]
        said = [self._said(self.train, *row) for row in zip(indices, kept, chosen)]
        entries = self.text.tokenise([caption for caption, _ in said])
        padding = -entries.shape[1] % self.text_multiple
        batch = {
            "latents": torch.stack([self.train[i] for i in indices]),
            "text": F.pad(entries, (0, 0, 0, padding)),
        }
        if not all(shown.all() for _, shown in said):
            batch["shown"] = torch.from_numpy(np.stack([shown for _, shown in said]))
        if self.train.vocabulary is not None:
            batch["actions"] = self._actions(self.train, indices)
            for name in ("actions_known", "past_known"):
                dropped = rng.random(size)[self.mesh.share(size)] < self.run.modes.action_dropout
                batch[name] = torch.from_numpy(~dropped)
        if self.run.modes.endings and batch["latents"].shape[2] > 1:
            batch["ending"] = torch.stack([self.train.ending(i) for i in indices])
            drawn = rng.random(size)[self.mesh.share(size)] < self.run.modes.endings
            batch["ending_visible"] = torch.tensor([self.train.led(i) or bool(d) for i, d in zip(indices, drawn)])
        if self.pictures is not None:
            drawn = rng.random(size)[self.mesh.share(size)]
            batch |= self.pictures.of(self.train, indices, drawn)
        return batch

    def _actions(self, clips: LatentSet, indices: Sequence[int]) -> Tensor:
        """(b, f, n), what led to the latent frames of clips."""
        rows = torch.stack([clips.actions(i) for i in indices])
        return latent_actions(rows, self.transformer.config.action_frames or 1)

    def _said(self, clips: LatentSet, index: int, keep: bool, choice: float) -> tuple[str, np.ndarray]:
        """One of a clip's captions, or none, and at which latent frames (f,) it is what is seen.

        Without a caption nothing says that something changes: latent frames in which a change begins don't count.
        """
        captions, frames = clips.captions(index), clips.frames(index)
        shown = np.ones(frames, dtype=bool)
        if not keep:
            shown[[at for at, _ in captions[1:]]] = False
            return "", shown
        place = int(choice * len(captions))
        ends = [*(at for at, _ in captions[1:]), frames]
        shown[: captions[place][0]] = shown[ends[place] :] = False
        return captions[place][1], shown

    def blocks(self, step: int, frames: int) -> tuple[int, ...]:
        """What step `step` practises on clips of so many latent frames: blocks, given clean history, or one block."""
        modes, rng = self.run.modes, np.random.default_rng([self.run.loop.seed, step, 1])
        teacher, size = rng.random() < modes.teacher_forcing, int(rng.choice(modes.block_sizes))
        return block_sizes(frames, size) if teacher and frames > 1 else (frames,)

    def flops(self, batch: Mapping[str, Any], step: int) -> int:
        """The trained text encoder's, too; not those of a frozen one."""
        b, _, f, h, w = batch["latents"].shape
        blocks, tokens = self.blocks(step, f), self.text_tokens(batch["text"])
        config, history = self.transformer.config, len(blocks) > 1
        count: Any = wan_flops if isinstance(config, WanTransformerConfig) else transformer_flops
        forward = count(config, b, (f, h, w), tokens, blocks, history=history)
        return (1 + BACKWARD) * (forward + text_flops(self.run.text, b, tokens))

    def text_tokens(self, tokenised: Tensor) -> int:
        """Tokens of a caption as the transformer sees it, with padding; the byte encoder puts one in front."""
        return tokenised.shape[1] + (self.run.text.kind == "bytes")

    def _held_out(self, clips: list[int]) -> dict[str, Tensor]:
        """A batch of held-out clips."""
        device = next(self.transformer.parameters()).device
        said = [self._said(self.validation, i, True, 0.0) for i in clips]
        return {
            "latents": torch.stack([self.validation[i] for i in clips]).to(device),
            "text": self.text.tokenise([caption for caption, _ in said]).to(device),
            "shown": torch.from_numpy(np.stack([shown for _, shown in said])).to(device),
            **({"actions": self._actions(self.validation, clips).to(device)} if self.validation.vocabulary else {}),
            **self._led(clips, device),
            **self._pictured(clips, device),
        }

    def _pictured(self, clips: list[int], device: torch.device) -> dict[str, Tensor]:
        """What held-out clips are told of their pictures; the same share of them begins with these each time."""
        if self.pictures is None:
            return {}
        drawn = np.array([i % VALIDATION_CLIPS / VALIDATION_CLIPS for i in clips])
        return {name: x.to(device) for name, x in self.pictures.of(self.validation, clips, drawn).items()}

    def _led(self, clips: list[int], device: torch.device) -> dict[str, Tensor]:
        """The endings of held-out clips that are to be told them, if there are any."""
        led = [self.validation.led(i) for i in clips]
        if not any(led) or not self.run.modes.endings or self.validation.frames(clips[0]) == 1:
            return {}
        endings = torch.stack([self.validation.ending(i) for i in clips])
        return {"ending": endings.to(device), "ending_visible": torch.tensor(led, device=device)}

    def sample(self, step: int, folder: Path) -> None:
        """A few held-out captions as video files and one contact sheet; of training where nothing is held out."""
        pipeline, clips = self.pipeline(), self.validation if len(self.validation) else self.train
        count = min(self.run.num_samples, len(clips))
        captions = [clips.caption(i) for i in range(count)]
        if self.pictures is not None and self.pictures.config.beside_channels:
            videos = [self._from_picture(pipeline, clips, i) for i in range(count)]
        else:
            videos = pipeline.generate(captions, seeds=list(range(count)))
        for index, (caption, video) in enumerate(zip(captions, videos)):
            write_video(folder / f"{index:02d}.mp4", video, self.run.data.fps, metadata={"prompt": caption})
        from PIL import Image

        scale = max(1, 96 // self.run.data.height)
        Image.fromarray(contact_sheet(list(videos), scale=scale)).save(folder / "sheet.png")
        (folder / "captions.txt").write_text("\n".join(captions) + "\n", encoding="utf-8")

    def _from_picture(self, pipeline: VideoPipeline, clips: LatentSet, index: int) -> np.ndarray:
        """A video of a clip's caption that begins as the clip does, and where the model wants that ends so."""
        latents = clips[index][None].to(pipeline.device)
        frames = pipeline.decode(latents if self.pictures.config.image_positions else latents[:, :, :1], None)[0][0]  # type: ignore[union-attr]
        last = {"last_image": frames[-1]} if len(frames) > 1 else {}
        return pipeline(clips.caption(index), seed=index, image=frames[0], **last)

    def save(self, folder: Path) -> None:
        self.pipeline().save_pretrained(folder)
        if (data := known_data(self.run.vae)) is not None:
            remember_data(folder / "vae", data)

    def on(self, modules: Mapping[str, nn.Module]) -> Self:
        other = copy.copy(self)
        other.transformer = cast(VideoTransformer | WanTransformer, modules["transformer"])
        other.text = cast(TextEncoder, modules["text"])
        return other

    def _context(self) -> Context | None:
        """How this process and others attend over the tokens that they share. Raises: ConfigError if these don't divide."""
        config, context = self.transformer.config, self.mesh.sizes[2]
        for _, h, w in self.train.buckets:
            places = (h // config.patch_size) * (w // config.patch_size)
            if places % context:
                raise ConfigError(
                    f"parallel.context {context} must divide the tokens of a frame: latents of {h}x{w} with patch_size "
                    f"{config.patch_size} have {places}"
                )
        if self.mesh.context is None:
            return None
        heads = config.width // config.head_dim
        if heads % context:
            say(
                f"{heads} heads cannot be dealt out to a context of {context}: keys and values go round (ring attention)"
            )
        return self.mesh.context.context(heads)

    def pipeline(self) -> VideoPipeline:
        data = self.run.data
        clip = ClipSettings(num_frames=data.num_frames, fps=data.fps, height=data.height, width=data.width)
        device = next(self.transformer.parameters()).device
        parts = (self.vae.to(device), self._whole(), self.text)
        world, maze = world_of(data.folder), maze_of(data.folder)
        vision = None
        if self.pictures is not None and self.pictures.tokens is not None and self.run.init is not None:
            load = parts_of(self.run.init).vision
            vision = None if load is None else load()
        family: Family = "wan" if isinstance(self.transformer, WanTransformer) else "video-gen"
        return VideoPipeline(
            *parts, self.run.diffusion, clip, self.run.sampling, world, maze=maze, family=family, vision=vision
        )

    def _whole(self) -> Transformer:
        """What a video is made with: of one of two experts that is trained, both."""
        if self.run.expert is None:
            return self.transformer
        assert self.run.init is not None and isinstance(self.transformer, WanTransformer)
        both = parts_of(self.run.init).transformer("fp32")
        if not isinstance(both, Experts):  # its file alone
            return self.transformer
        pair = {"high": both.high, "low": both.low} | {self.run.expert: self.transformer}
        return Experts(pair["high"], pair["low"], both.boundary)
