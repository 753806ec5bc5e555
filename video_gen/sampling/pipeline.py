"""VideoPipeline: prompt, image or video in, video out. The command line, Python and training's samples all use it."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from video_gen.config import Config, validate
from video_gen.data.clips import fit_frames, to_frames, to_video
from video_gen.data.config import WorldName
from video_gen.errors import DataError, ShapeError
from video_gen.model.diffusion import Diffusion
from video_gen.model.diffusion_config import DiffusionConfig
from video_gen.model.pretrained import local_folder
from video_gen.model.text import TextEncoder, load_text_encoder
from video_gen.model.transformer import TextMemory, VideoTransformer
from video_gen.model.vae_layers import Caches
from video_gen.model.video_vae import PART_FRAMES, VideoVAE
from video_gen.sampling import beyond
from video_gen.sampling.conditioned import TextConditioned
from video_gen.sampling.config import SamplingConfig, Steering
from video_gen.sampling.rollout import RolloutState, advance, begin
from video_gen.sampling.solvers import generators_for
from video_gen.sampling.stream import Stream, Streams, StreamState


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
    world: WorldName = "unknown"
    """The built-in world of whose clips it was trained on."""


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
        world: WorldName = "unknown",
    ):
        self.vae, self.transformer, self.text = vae, transformer, text
        self.config = PipelineConfig(clip=clip, diffusion=diffusion, sampling=sampling, world=world)
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
            config.world,
        )
        return pipeline.to(device)

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype | None = None) -> None:
        """Write vae/, transformer/, text/ and model.json into `folder`; `dtype` is that of the transformer's file."""
        folder = Path(folder)
        self.vae.save_pretrained(folder / "vae")
        self.transformer.save_pretrained(folder / "transformer", dtype)
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
        seed: int = 0,
        **options: Any,
    ) -> np.ndarray:
        """One video, uint8 (f, h, w, 3); see `generate` for the options."""
        return self.generate([prompt], seeds=[seed], **options)[0]

    def generate(
        self,
        prompts: Sequence[str],
        *,
        seeds: Sequence[int],
        num_frames: int | None = None,
        image: np.ndarray | None = None,
        video: np.ndarray | None = None,
        last_image: np.ndarray | None = None,
        loop: bool = False,
        source: np.ndarray | None = None,
        strength: float = 1.0,
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
            last_image: (h, w, 3) uint8, becomes the last frame, likewise kept; only the last block knows of it.
            loop: lead back to the first frame, given or made, and leave out its repetition: the result, one frame less than
                `num_frames`, closes when it is played round.
            source: (f, h, w, 3) uint8, a video to change; its first `num_frames`, default all. `strength`: how much, from 0,
                its reconstruction, to 1, nothing of it: the diffusion time from which it is made anew.
            block_frames: latent frames per block; default `sampling.block_frames` for a clip as long as those of training,
                and `sampling.long_block_frames` for longer ones.
            sampling, settings: how to sample, and fields of it to change, such as `guidance_scale=3.0`.
        Returns: uint8 (n, f, h, w, 3).
        Raises: ShapeError if the number of frames does not fit; ConfigError for an unknown setting.
        """
        if len(prompts) != len(seeds):
            raise ShapeError(f"{len(prompts)} prompts and {len(seeds)} seeds; give one seed per prompt")
        beyond.check(source, strength, {"image": image, "video": video, "last_image": last_image, "loop": loop})
        given = None if image is None and video is None else self._given(image, video)
        stride = self.vae.config.temporal_stride
        if source is not None:
            source = beyond.cut(self.fit(source), num_frames, stride)
            num_frames = len(source)
        last = None if last_image is None else self.fit(last_image[None])
        num_frames = num_frames or self.config.clip.num_frames
        kept = 0 if given is None else len(given)
        if num_frames <= kept:
            raise ShapeError(f"num_frames is {num_frames}, but {kept} are given already; ask for more")
        total, trained = (self._latent_frames(n) for n in (num_frames, self.config.clip.num_frames))
        chosen = (sampling or self.config.sampling).replace(**settings)
        if block_frames is None:
            block_frames = chosen.block_frames if total <= trained else self.long_block_frames(chosen)
        done, ends = 0 if given is None else self._latent_frames(kept), loop or last is not None
        sizes = plan_blocks(done, total, block_frames)
        if ends:  # a loop's first frame, where it is not given, is made by itself
            sizes = [1, *plan_blocks(1, total, block_frames)] if loop and not done else sizes
            sizes = beyond.plan_ending(sizes, done, stride)
        c, h, w = self.latent_frame()
        parts = [] if given is None else [np.broadcast_to(given, (len(prompts), *given.shape))]
        with self.inference():
            model = self.block_model(prompts, chosen, block_frames or total)
            state, decoder = self._begin(model, given, seeds, block_frames)
            drafts = None if source is None else self.encode(source[None])
            for at, size in zip(np.cumsum([done, *sizes]).tolist(), sizes):
                draft = None
                if drafts is not None:
                    draft = beyond.Draft(drafts[:, :, at : at + size], strength)
                elif ends and at + size == total:
                    last = parts[0][:, 0] if last is None else last
                    draft = beyond.ending(self, last, size)
                state = advance(model, state, (c, size, h, w), self.diffusion, chosen, self.device, draft)
                assert state.block is not None
                frames, decoder = self.decode(state.block, decoder)
                parts.append(frames)
        made = np.concatenate(parts, axis=1)
        if ends:
            made[:, -1] = last
        return made[:, :-1] if loop else made

    def interpolate(
        self, video: np.ndarray, factor: int, *, prompt: str = "", seed: int = 0, strength: float = 0.6, **options: Any
    ) -> np.ndarray:
        """A video of `factor` times the frame rate: a linear blend of its frames, changed at a strength as a `source` is.

        The frames given, scaled and cropped to the model's size, are kept as they are, at every `factor`-th place. Where the
        number of frames does not fit the VAE, the last is repeated meanwhile.

        Args: video: (f, h, w, 3) uint8, two frames or more. Others: as for `generate`.
        Returns: uint8 (1 + (f - 1) * factor, h, w, 3).
        Raises: ShapeError, ConfigError for what does not fit.
        """
        return beyond.interpolate(self, video, factor, prompt=prompt, seed=seed, strength=strength, **options)

    def stream(self, prompt: str = "", *, seed: int = 0, **options: Any) -> Stream:
        """An endless video: iterating gives its next frames, uint8 (f, h, w, 3). See `streams` for the options.

        N blocks of it equal the clip of as many frames, seed and `block_frames`.
        """
        return Stream(self, *self._start([prompt], [seed], **options))

    def streams(self, prompts: Sequence[str], *, seeds: Sequence[int], **options: Any) -> Streams:
        """Several endless videos, made together; each depends on its own prompt and seed alone.

        Args:
            image, video: to start from, as for `generate`; these frames are not repeated.
            block_frames: latent frames per block; default `sampling.long_block_frames`.
            speed: of playback; see `Streams.steer`.
            sampling, others: how to sample, and fields of it to change.
        Returns: an iterator of uint8 (n, f, h, w, 3); see `Streams`.
        Raises: ShapeError, ConfigError, DataError for what does not fit.
        """
        return Streams(self, *self._start(prompts, seeds, **options))

    # -------------------- parts

    def _start(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        *,
        image: np.ndarray | None = None,
        video: np.ndarray | None = None,
        block_frames: int | None = None,
        speed: float = 1.0,
        sampling: SamplingConfig | None = None,
        **settings: Any,
    ) -> tuple[StreamState, np.ndarray | None]:
        """The state before a stream's first block, and the frames given."""
        if len(prompts) != len(seeds):
            raise ShapeError(f"{len(prompts)} prompts and {len(seeds)} seeds; give one seed per prompt")
        given = None if image is None and video is None else self._given(image, video)
        chosen = (sampling or self.config.sampling).replace(**settings)
        values = {"prompts": tuple(prompts), "sampling": chosen, "speed": speed}
        steering = validate(Steering, values, source="stream()")
        block_frames = block_frames or self.long_block_frames(chosen)
        with self.inference():
            model = self.block_model(prompts, chosen, block_frames)
            rollout, decoder = self._begin(model, given, seeds, block_frames)
        return StreamState(rollout, decoder, steering, block_frames, speed), given

    def _begin(
        self, model: TextConditioned, given: np.ndarray | None, seeds: Sequence[int], block_frames: int | None
    ) -> tuple[RolloutState, Caches | None]:
        """State of rollout and decoder after the frames given; like the model's own they come in blocks."""
        generators = generators_for(list(seeds), self.device)
        if given is None:
            return begin(model, None, (), generators), None
        latents = self.encode(given[None]).expand(len(seeds), -1, -1, -1, -1)
        sizes = plan_blocks(0, latents.shape[2], block_frames)
        return begin(model, latents, sizes, generators), self.decode(latents, None)[1]

    def block_model(self, prompts: Sequence[str], sampling: SamplingConfig, block_frames: int) -> TextConditioned:
        """Encode the prompts and, where guidance will want it, the empty one."""
        text = self._text(prompts)
        guided = any(prompts) and (sampling.guidance_scale != 1 or sampling.history_scale != 1)
        empty = self._text([""] * len(prompts)) if guided else None
        return TextConditioned(self.transformer, self.diffusion, text, empty, self.window(block_frames))

    def window(self, block_frames: int) -> int:
        """Latent frames of history, besides the sink, that a block sees. A model that was trained without a limit has the
        one of its training clips: with sink and block its window fills such a clip, so that positions stay known."""
        config = self.transformer.config
        left = self._latent_frames(self.config.clip.num_frames) - config.sink - block_frames
        return config.window or max(1, left)

    def long_block_frames(self, sampling: SamplingConfig) -> int:
        """Latent frames per block of a video longer than the training clips."""
        return sampling.long_block_frames or max(1, self._latent_frames(self.config.clip.num_frames) // 2)

    def _text(self, texts: Sequence[str]) -> TextMemory:
        tokens, visible = self.text(self.text.tokenise(list(texts)).to(self.device))
        return self.transformer.encode_text(tokens, visible)

    def _given(self, image: np.ndarray | None, video: np.ndarray | None) -> np.ndarray:
        """The frames to start from, at the model's size: the image, or the end of the video as long as latents allow."""
        stride = self.vae.config.temporal_stride
        if image is not None and video is not None:
            raise ShapeError("both an image and a video to start from; give one of them")
        frames = image[None] if image is not None else video
        assert frames is not None
        frames = self.fit(frames)
        return frames[(len(frames) - 1) % stride :]

    def fit(self, frames: np.ndarray) -> np.ndarray:
        """uint8 (f, h, w, 3) scaled and cropped to the model's size."""
        return fit_frames(frames, self.config.clip.height, self.config.clip.width)

    def encode(self, frames: np.ndarray) -> Tensor:
        """uint8 (b, f, h, w, 3) to latents (b, c, f', h', w')."""
        video = to_video(torch.from_numpy(frames)).to(self.device)
        return torch.cat([part.mean.float() for part in self.vae.encode_parts(video)], dim=2)

    def decode(self, latents: Tensor, caches: Caches | None) -> tuple[np.ndarray, Caches]:
        """The next latents (b, c, f, h, w) as uint8 (b, f, h, w, 3), a few latent frames and, of large ones, a tile at a
        time, and the VAE's cache of each tile."""
        parts, tile = [], self.vae.tile_for(self.config.clip.height, self.config.clip.width)
        for some in latents.split(PART_FRAMES, dim=2):
            video, caches = self.vae.tiled_decode_chunk(some, caches, tile)
            parts.append(np.stack([to_frames(one) for one in video]))
        assert caches is not None
        return np.concatenate(parts, axis=1), caches

    def latent_frame(self) -> tuple[int, int, int]:
        """(c, h, w) of a latent frame."""
        c, _, h, w = self.vae.latent_shape(1, self.config.clip.height, self.config.clip.width)
        return c, h, w

    def _latent_frames(self, num_frames: int) -> int:
        return self.vae.latent_shape(num_frames, self.config.clip.height, self.config.clip.width)[1]

    @contextmanager
    def inference(self) -> Iterator[None]:
        """Without gradients, in bfloat16 where that serves."""
        with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16):
            yield


def plan_blocks(start: int, total: int, block_frames: int | None) -> list[int]:
    """Latent frames per block, from frame `start` to `total`: all at once with None; else blocks of that many, where a
    video's first frame, which stands for one pixel frame, is a block of its own."""
    if block_frames is None:
        return [total - start]
    first = [1] if start == 0 else []
    left = total - start - len(first)
    return first + [min(block_frames, left - done) for done in range(0, left, block_frames)]
