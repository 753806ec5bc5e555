"""VideoPipeline: prompt, image or video in, video out. The command line, Python and training's samples all use it."""

import json
from collections.abc import Iterator, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from video_gen.config import Config, validate
from video_gen.data.clips import fit_frames, to_frames, to_video
from video_gen.errors import DataError, ShapeError
from video_gen.model.diffusion import Diffusion
from video_gen.model.diffusion_config import DiffusionConfig
from video_gen.model.pretrained import local_folder
from video_gen.model.text import TextEncoder, load_text_encoder
from video_gen.model.transformer import History, TextMemory, VideoTransformer
from video_gen.model.video_vae import VideoVAE
from video_gen.sampling.config import SamplingConfig
from video_gen.sampling.guidance import Denoiser
from video_gen.sampling.rollout import rollout
from video_gen.sampling.solvers import generators_for


class ClipSettings(Config):
    """The clips a model was trained on: what it makes unless told otherwise."""

    num_frames: int = Field(ge=1)
    fps: float = Field(gt=0)
    height: int = Field(ge=1)
    width: int = Field(ge=1)


class PipelineConfig(Config):
    """What a model folder holds besides the weights: `model.json`."""

    clip: ClipSettings
    diffusion: DiffusionConfig
    sampling: SamplingConfig


class TextConditioned:
    """The transformer as a rollout's BlockModel: `(text -> denoised estimate)` with and without the caption."""

    def __init__(self, transformer: VideoTransformer, diffusion: Diffusion, text: TextMemory, empty: TextMemory):
        self.transformer, self.diffusion, self.text, self.empty = transformer, diffusion, text, empty

    def conditional(self, history: History | None) -> Denoiser:
        return self._denoiser(self.text, history)

    def unconditional(self, history: History | None) -> Denoiser:
        return self._denoiser(self.empty, history)

    def append(self, history: History | None, latents: Tensor) -> History:
        return self.transformer.encode_history(latents, history=history)

    def _denoiser(self, text: TextMemory, history: History | None) -> Denoiser:
        def denoise(noisy: Tensor, t: Tensor) -> Tensor:
            output = self.transformer.denoise(noisy, t, text, history)
            return self.diffusion.to_denoised(output.float(), noisy, t)

        return denoise


class VideoPipeline:
    """A VAE, a transformer and a text encoder that belong together.

    `pipe("a red circle, fast", seed=1)` returns a video, uint8 `(f, h, w, 3)`.
    """

    def __init__(
        self,
        vae: VideoVAE,
        transformer: VideoTransformer,
        text: TextEncoder,
        diffusion: DiffusionConfig,
        clip: ClipSettings,
        sampling: SamplingConfig,
    ):
        self.vae, self.transformer, self.text = vae, transformer, text
        self.config = PipelineConfig(clip=clip, diffusion=diffusion, sampling=sampling)
        self.diffusion = Diffusion(diffusion)

    # -------------------- loading and saving

    @classmethod
    def from_pretrained(cls, path: str | Path, device: str | torch.device = "cpu") -> "VideoPipeline":
        """Load a model folder or Hub id. Raises: DataError, ConfigError if it is not one."""
        folder = local_folder(path)
        file = folder / "model.json"
        if not file.is_file():
            raise DataError(
                f"{folder}: holds no model.json; give a model folder such as runs/demo/diffusion/model, with vae/, "
                "transformer/ and text/ in it"
            )
        config = validate(PipelineConfig, json.loads(file.read_text()), source=str(file))
        pipeline = cls(
            VideoVAE.from_pretrained(folder / "vae"),
            VideoTransformer.from_pretrained(folder / "transformer"),
            load_text_encoder(folder / "text"),
            config.diffusion,
            config.clip,
            config.sampling,
        )
        return pipeline.to(device)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write vae/, transformer/, text/ and model.json into `folder`."""
        folder = Path(folder)
        self.vae.save_pretrained(folder / "vae")
        self.transformer.save_pretrained(folder / "transformer")
        self.text.save_pretrained(folder / "text")
        (folder / "model.json").write_text(self.config.model_dump_json(indent=1))

    def to(self, device: str | torch.device) -> "VideoPipeline":
        for module in (self.vae, self.transformer, self.text):
            module.to(device).eval()
        return self

    @property
    def device(self) -> torch.device:
        return next(self.transformer.parameters()).device

    # -------------------- making videos

    def __call__(
        self,
        prompt: str = "",
        *,
        num_frames: int | None = None,
        image: np.ndarray | None = None,
        video: np.ndarray | None = None,
        seed: int = 0,
        **settings: Any,
    ) -> np.ndarray:
        """One video, uint8 (f, h, w, 3); see `generate` for the arguments."""
        return self.generate([prompt], num_frames=num_frames, image=image, video=video, seeds=[seed], **settings)[0]

    def generate(
        self,
        prompts: Sequence[str],
        *,
        seeds: Sequence[int],
        num_frames: int | None = None,
        image: np.ndarray | None = None,
        video: np.ndarray | None = None,
        block_frames: int | None = None,
        sampling: SamplingConfig | None = None,
        **settings: Any,
    ) -> np.ndarray:
        """Several videos at once; each depends on its own prompt and seed alone.

        Args:
            prompts: one per video; "" is no prompt.
            num_frames: of the whole video, with what is given; default that of the training clips.
            image: (h, w, 3) uint8, becomes the first frame. `video`: (f, h, w, 3) uint8, is continued. Either is scaled and
                cropped to the model's size, and its frames are kept as they are in the result.
            block_frames: latent frames per block; default: the model's for a clip as long as those of training, and half
                a clip for longer ones.
            sampling, settings: how to sample, and fields of it to change, such as `guidance_scale=3.0`.
        Returns: uint8 (n, f, h, w, 3).
        Raises: ShapeError if the number of frames does not fit; ConfigError for an unknown setting.
        """
        if len(prompts) != len(seeds):
            raise ShapeError(f"{len(prompts)} prompts and {len(seeds)} seeds; give one seed per prompt")
        frames = None if image is None and video is None else self._given(image, video)
        num_frames = num_frames or self.config.clip.num_frames
        kept = 0 if frames is None else len(frames)
        if num_frames <= kept:
            raise ShapeError(f"num_frames is {num_frames}, but {kept} are given already; ask for more")
        chosen = (sampling or self.config.sampling).replace(**settings)
        with torch.no_grad(), self._autocast():
            latents = self._latents(prompts, seeds, num_frames, frames, block_frames, chosen)
            videos = [to_frames(video) for video in self._decode(latents)]
        result = np.stack(videos)
        if frames is not None:
            result[:, :kept] = frames
        return result

    def stream(
        self,
        prompt: str = "",
        *,
        seed: int = 0,
        image: np.ndarray | None = None,
        video: np.ndarray | None = None,
        block_frames: int = 1,
        **settings: Any,
    ) -> Iterator[np.ndarray]:
        """Chunks of an endless video, uint8 (f, h, w, 3), starting with the given frames' continuation."""
        frames = None if image is None and video is None else self._given(image, video)
        chosen = self.config.sampling.replace(**settings)
        generators = generators_for([seed], self.device)
        cache = None
        with torch.no_grad(), self._autocast():
            model = self._model([prompt], chosen)
            given = None if frames is None else self._encode(frames)
            if given is not None:
                _, cache = self.vae.decode_chunk(given, None)
            start = () if given is not None else (1,)
            shape = self._latent_frame()
        blocks = (size for sizes in (start, repeat(block_frames)) for size in sizes)
        steps = rollout(model, blocks, shape, given, self.diffusion, chosen, generators)
        while True:
            with torch.no_grad(), self._autocast():
                chunk, cache = self.vae.decode_chunk(next(steps), cache)
            yield to_frames(chunk[0].float())

    # -------------------- parts

    def _latents(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        num_frames: int,
        frames: np.ndarray | None,
        block_frames: int | None,
        sampling: SamplingConfig,
    ) -> Tensor:
        clip = self.config.clip
        total = self.vae.latent_shape(num_frames, clip.height, clip.width)[1]
        trained = self.vae.latent_shape(clip.num_frames, clip.height, clip.width)[1]
        given = None if frames is None else self._encode(frames).expand(len(prompts), -1, -1, -1, -1)
        start = 0 if given is None else given.shape[2]
        model = self._model(prompts, sampling)
        generators = generators_for(list(seeds), self.device)
        if block_frames is None:
            block_frames = sampling.block_frames if total <= trained else max(1, trained // 2)
        blocks = plan_blocks(start, total, block_frames)
        made = list(rollout(model, blocks, self._latent_frame(), given, self.diffusion, sampling, generators))
        return torch.cat(made if given is None else [given, *made], dim=2)

    def _model(self, prompts: Sequence[str], sampling: SamplingConfig) -> TextConditioned:
        """Encode the prompts and, where guidance will want it, the empty one."""
        text = self._text(prompts)
        empty = self._text([""] * len(prompts)) if sampling.guidance_scale != 1 else text
        return TextConditioned(self.transformer, self.diffusion, text, empty)

    def _text(self, texts: Sequence[str]) -> TextMemory:
        tokens, visible = self.text(self.text.tokenise(list(texts)).to(self.device))
        return self.transformer.encode_text(tokens, visible)

    def _given(self, image: np.ndarray | None, video: np.ndarray | None) -> np.ndarray:
        """The frames to start from, at the model's size: the image, or the end of the video as long as latents allow."""
        clip, stride = self.config.clip, self.vae.config.temporal_stride
        if image is not None and video is not None:
            raise ShapeError("both an image and a video to start from; give one of them")
        frames = image[None] if image is not None else video
        assert frames is not None
        frames = fit_frames(frames, clip.height, clip.width)
        return frames[(len(frames) - 1) % stride :]

    def _encode(self, frames: np.ndarray) -> Tensor:
        """uint8 (f, h, w, 3) to latents (1, c, f', h', w')."""
        video = to_video(torch.from_numpy(frames)[None]).to(self.device)
        return torch.cat([part.mean.float() for part in self.vae.encode_parts(video)], dim=2)

    def _decode(self, latents: Tensor) -> Tensor:
        """Latents to video (b, c, f, h, w), a few latent frames and, of large ones, a tile at a time."""
        return torch.cat([part.float() for part in self.vae.decode_parts(latents)], dim=2)

    def _latent_frame(self) -> tuple[int, int, int]:
        c, _, h, w = self.vae.latent_shape(1, self.config.clip.height, self.config.clip.width)
        return c, h, w

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16)


def plan_blocks(start: int, total: int, block_frames: int | None) -> list[int]:
    """Latent frames per block, from frame `start` to `total`: all at once with None; else blocks of that many, where a
    video's first frame, which stands for one pixel frame, is a block of its own."""
    if block_frames is None:
        return [total - start]
    first = [1] if start == 0 else []
    left = total - start - len(first)
    return first + [min(block_frames, left - done) for done in range(0, left, block_frames)]
