"""VideoModel: what a model folder holds, and what clips and streams ask of it."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self, cast

import numpy as np
import torch
from torch import Tensor

from video_gen.data.clips import fit_frames, to_frames, to_video
from video_gen.data.config import WorldName
from video_gen.errors import ConfigError, DataError, ShapeError
from video_gen.files import write_text
from video_gen.model.diffusion import Diffusion
from video_gen.model.diffusion_config import DiffusionConfig
from video_gen.model.lent_text import lent_text
from video_gen.model.lora import merge
from video_gen.model.lora_files import file_and_scale
from video_gen.model.offload import Offload
from video_gen.model.text import TextEncoder
from video_gen.model.transformer import TextMemory
from video_gen.model.vae_contract import PART_FRAMES, check_sides
from video_gen.model.vae_layers import Caches
from video_gen.model.wan.experts import Experts
from video_gen.model.wan.transformer import WanTransformer
from video_gen.model.wan.vision import PictureEncoder
from video_gen.model.weights import keep_in, with_blocks
from video_gen.sampling.conditioned import TextConditioned
from video_gen.sampling.config import ClipSettings, Family, PipelineConfig, SamplingConfig
from video_gen.sampling.fit import Fit
from video_gen.sampling.loras import read_for
from video_gen.sampling.parts import SECOND, VAE, Transformer, parts_of
from video_gen.sampling.rollout import RolloutState, begin
from video_gen.sampling.solvers import generators_for


def check_prompts(prompts: Sequence[str], seeds: Sequence[int]) -> None:
    """Raises: ShapeError if there are none, or others than one seed per prompt."""
    if isinstance(prompts, str):
        raise ShapeError(f"prompts is {prompts!r:.60}; give a list, with one prompt for each")
    if len(prompts) != len(seeds):
        raise ShapeError(f"{len(prompts)} prompts and {len(seeds)} seeds; give one seed per prompt")
    if not len(prompts):
        raise ShapeError("no prompts; give one for each that is to be made, such as [''], and as many seeds")


class VideoModel:
    """A VAE, a transformer and a text encoder that belong together."""

    def __init__(
        self,
        vae: VAE,
        transformer: Transformer,
        text: TextEncoder,
        diffusion: DiffusionConfig,
        clip: ClipSettings,
        sampling: SamplingConfig,
        world: WorldName = "unknown",
        origin: str | None = None,
        maze: tuple[int, int] | None = None,
        family: Family = "video-gen",
        vision: PictureEncoder | None = None,
    ):
        self.vae, self.transformer, self.text, self.vision = vae, transformer, text, vision
        boundary = transformer.boundary if isinstance(transformer, Experts) else None
        self.config = PipelineConfig(
            clip=clip, diffusion=diffusion, sampling=sampling, world=world, maze=maze, family=family, boundary=boundary
        )
        self.diffusion = Diffusion(diffusion)
        self.origin = origin
        """Where it was loaded from: an absolute folder, the name of a model that ships, or a Hub id."""
        self.fitted = Fit()
        self.offloads: tuple[Offload, ...] = ()
        self.loras: tuple[tuple[str, float], ...] = ()
        """Files of LoRA that were added since, and their scales."""

    # -------------------- loading and saving

    @classmethod
    def from_pretrained(
        cls, path: str | Path, device: str | torch.device = "cpu", fit: Fit = Fit(), texts: Sequence[str] = ()
    ) -> Self:
        """Load a model folder, the model of that name that ships, a Hub id, or a public model (docs/public-models.md).

        Args:
            fit: what is where, and in how many bits.
            texts: with `fit.text_encoder` "freed", those that will be wanted: the encoder is gone before the transformer comes.
        Raises: DataError, ConfigError if it is not one, is damaged, or its parts do not belong together.
        """
        parts = parts_of(path)
        config, text = parts.config, None
        if fit.text_encoder == "freed":
            text = lent_text(parts.text, parts.text_config, [*texts, config.sampling.negative_prompt], device)
        model = cls(
            parts.vae(),
            parts.transformer(fit.weights),
            text or parts.text(),
            config.diffusion,
            config.clip,
            config.sampling,
            config.world,
            parts.origin,
            config.maze,
            config.family,
            parts.vision() if parts.vision else None,
        )
        model.check_parts(parts.folder)
        return model.settle(fit, device)

    def check_parts(self, folder: Path) -> None:
        """Raises: ConfigError if the parts of a folder are not of one model."""
        vae, sizes, clip = self.vae.config, self.transformer.config, self.config.clip
        for ours, name, theirs, other in (
            (sizes.latent_channels, "transformer/config.json: latent_channels", vae.latent_channels, "vae/"),
            (sizes.text_width, "transformer/config.json: text_width", self.text.width, "text/"),
        ):
            if ours != theirs:
                raise ConfigError(f"{folder}/{name} is {ours}, but {other} has {theirs}; they are of different models")
        if self.vision is not None and self.vision.width != getattr(sizes, "image_width", None):
            raise ConfigError(
                f"{folder}: the picture encoder's tokens have {self.vision.width} features, the transformer wants "
                f"{getattr(sizes, 'image_width', None)}; they are of different models"
            )
        try:
            _, _, h, w = self.vae.latent_shape(clip.num_frames, clip.height, clip.width)
        except ShapeError as error:
            raise ConfigError(f"{folder}/model.json: clip does not fit vae/: {error}") from None
        if h % sizes.patch_size or w % sizes.patch_size:
            raise ConfigError(
                f"{folder}/model.json: clip of {clip.height}x{clip.width} is {h}x{w} latent pixels, which "
                f"transformer/'s patch_size {sizes.patch_size} does not divide"
            )

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype | None = None) -> None:
        """Write vae/, transformer/, text/ and model.json into `folder`; `dtype` is that of the transformer's file.

        Of two experts transformer_2/ is the second; of a picture encoder vision/ names where it is.
        """
        folder = Path(folder)
        self.vae.save_pretrained(folder / "vae")
        first, *second = with_blocks(self.transformer)
        for part, place in zip((first, *second), ("transformer", SECOND)):
            cast(WanTransformer, part).save_pretrained(folder / place, dtype)
        if self.vision is not None:
            self.vision.save_pretrained(folder / "vision")
        self.text.save_pretrained(folder / "text")
        write_text(folder / "model.json", self.config.model_dump_json(indent=1))

    def to(self, device: str | torch.device) -> Self:
        return self.settle(self.fitted, device)

    def settle(self, fit: Fit, device: str | torch.device) -> Self:
        """Put the parts where `fit` wants them, for sampling. A text encoder that is not to be there stays as it was loaded.

        Raises: ConfigError if a tile is none of the VAE's, or weights are in eight bits already and are to be in others.
        """
        stride = self.vae.config.spatial_stride
        if fit.vae_tile is not None and fit.vae_tile % stride:
            low = max(stride, fit.vae_tile - fit.vae_tile % stride)
            raise ConfigError(
                f"vae_tile {fit.vae_tile} must be a multiple of {stride}, as {low} and {low + stride} are"
            )
        for offload in self.offloads:
            offload.close()
        for part in with_blocks(self.transformer):
            keep_in(part, fit.weights)
        self._place(fit, device)
        self.text.to("cpu" if fit.text_encoder == "cpu" else device)
        self.vae.to(device)
        for part in (self.vae, self.transformer, self.text, *([] if self.vision is None else [self.vision.to(device)])):
            part.eval()
        self.fitted = fit
        return self

    def _place(self, fit: Fit, device: str | torch.device) -> None:
        """Put the transformer where it is wanted, or its blocks beside the device."""
        if fit.offload == "blocks":
            self.transformer.requires_grad_(False)
            self.offloads = tuple(Offload(part, device) for part in with_blocks(self.transformer))
        else:
            self.offloads = ()
            self.transformer.to(device)

    @property
    def device(self) -> torch.device:
        return next(self.transformer.parameters()).device

    def load_lora(self, path: str | Path, scale: float = 1.0) -> None:
        """Add what a LoRA has learned to the transformer's weights, or to what layers in eight bits make; several add up.

        Args:
            path: a .safetensors file of any dialect that `model/lora_names.py` tells of, or a folder that holds one.
            scale: how much of it; 0 = nothing.

        Of two experts it is for those that `read_for` tells.
        Raises: DataError if it cannot be read, a key of it belongs nowhere in this model, or the sum would not be finite;
            ConfigError if it holds a whole difference of a weight that is kept in eight bits.
        """
        device, learning = self.device, read_for(self.transformer, path)
        for offload in self.offloads:
            offload.close()
        for network, changes in learning:
            merge(network, changes, scale, path)
        self._place(self.fitted, device)
        self.loras = (*self.loras, (str(path), scale))

    def load_loras(self, said: Sequence[str]) -> None:
        """Several, each as FILE or FILE:SCALE. Raises: as `load_lora`."""
        for file, scale in map(file_and_scale, said):
            self.load_lora(file, scale)

    def sized(self, height: int | None = None, width: int | None = None) -> Self:
        """The same, which makes videos of another size unless told otherwise; None = as it was.

        Raises: ShapeError if the VAE or the transformer takes no such size.
        """
        given = {"height": height, "width": width}
        if not (changed := {name: side for name, side in given.items() if side is not None}):
            return self
        check_sides(changed, self.vae.config.spatial_stride * self.transformer.config.patch_size)
        clip = self.config.clip.replace(**changed)
        other = copy.copy(self)
        other.config = self.config.replace(clip=clip)
        return other

    # -------------------- text and blocks

    def block_model(self, prompts: Sequence[str], sampling: SamplingConfig, block_frames: int) -> TextConditioned:
        """Encode the prompts and, where guidance will want it, the empty or negative one."""
        text, unwanted = self.encode_text(prompts), sampling.negative_prompt
        guided = (any(prompts) or unwanted) and (sampling.guided or sampling.history_scale != 1)
        empty = self.encode_text([unwanted] * len(prompts)) if guided else None
        window, parts = self.window(block_frames), sampling.whole_times
        apart = self.fitted.branches == "apart"
        return TextConditioned(self.transformer, self.diffusion, text, empty, window, whole_times=parts, apart=apart)

    def window(self, block_frames: int) -> int:
        """Latent frames of history, besides the sink, that a block sees. A model that was trained without a limit has the
        one of its training clips: with sink and block its window fills such a clip, so that positions stay known."""
        config = self.transformer.config
        left = self.latent_frames(self.config.clip.num_frames) - config.sink - block_frames
        return config.window or max(1, left)

    def long_block_frames(self, sampling: SamplingConfig) -> int:
        """Latent frames per block of a video longer than the training clips."""
        return sampling.long_block_frames or max(1, self.latent_frames(self.config.clip.num_frames) // 2)

    def encode_text(self, texts: Sequence[str]) -> TextMemory:
        entries = self.text.tokenise(list(texts))
        on = torch.device("cpu") if self.fitted.text_encoder == "cpu" else self.device
        with torch.autocast(on.type, torch.bfloat16, enabled=torch.is_autocast_enabled(self.device.type)):
            tokens, visible = (x.to(self.device) for x in self.text(entries.to(on)))
        return self.transformer.encode_text(finite(tokens, "text encoder"), visible)

    def begin(
        self,
        model: TextConditioned,
        given: np.ndarray | None,
        seeds: Sequence[int],
        block_frames: int | None,
        actions: Tensor | None = None,
        first: int = 1,
    ) -> tuple[RolloutState, Caches | None]:
        """State of rollout and decoder after the frames given; like the model's own they come in blocks.

        Args: given: uint8 (f, h, w, 3) for all, or (b, f, h, w, 3) one each; `actions`: (b, f', n) that led to its latent frames;
                `first`: `sampling.first_block_frames`.
        """
        generators = generators_for(list(seeds), self.device)
        if given is None:
            return begin(model, None, (), generators), None
        given = given if given.ndim == 5 else given[None]
        latents = self.encode(given).expand(len(seeds), -1, -1, -1, -1)
        sizes = plan_blocks(0, latents.shape[2], block_frames, first)
        return begin(model, latents, sizes, generators, actions), self.decode(latents, None)[1]

    # -------------------- frames

    def given(self, image: np.ndarray | None, video: np.ndarray | None) -> np.ndarray:
        """The frames to start from, at the model's size: the image, or the end of the video as long as latents allow."""
        stride = self.vae.config.temporal_stride
        if image is not None and video is not None:
            raise ShapeError("both an image and a video to start from; give one of them")
        frames = self.fit(video) if image is None else self.fit_picture(image)
        return frames[(len(frames) - 1) % stride :]

    def fit_picture(self, image: np.ndarray) -> np.ndarray:
        """uint8 (h, w, 3) as `fit` makes it: (1, h, w, 3). Raises: as `fit`."""
        return self.fit(image[None] if isinstance(image, np.ndarray) else image)

    def fit(self, frames: np.ndarray | None) -> np.ndarray:
        """uint8 (f, h, w, 3) scaled and cropped to the model's size. Raises: ShapeError if they are something else."""
        return fit_frames(frames, self.config.clip.height, self.config.clip.width)

    def encode(self, frames: np.ndarray) -> Tensor:
        """uint8 (b, f, h, w, 3) to latents (b, c, f', h', w')."""
        return self.encode_video(self.pixels(frames))

    def pixels(self, frames: np.ndarray) -> Tensor:
        """uint8 (b, f, h, w, 3) to (b, 3, f, h, w) in [-1, 1]."""
        return to_video(torch.from_numpy(frames)).to(self.device)

    def encode_video(self, video: Tensor) -> Tensor:
        """(b, 3, f, h, w) in [-1, 1] to latents (b, c, f', h', w')."""
        parts = self.vae.encode_parts(video, self.vae_chunk, self.vae_tile)
        return finite(torch.cat([part.mean.float() for part in parts], dim=2), "VAE")

    @property
    def vae_chunk(self) -> int:
        """Latent frames that go through the VAE at once."""
        return self.fitted.vae_chunk or PART_FRAMES

    @property
    def vae_tile(self) -> int:
        """Side of a tile in latent pixels."""
        if self.fitted.vae_tile is not None:
            return self.fitted.vae_tile // self.vae.config.spatial_stride
        return self.vae.tile_for(self.config.clip.height, self.config.clip.width)

    def decode(self, latents: Tensor, caches: Caches | None, more: bool = True) -> tuple[np.ndarray, Caches]:
        """The next latents (b, c, f, h, w) as uint8 (b, f, h, w, 3), a few latent frames and, of large ones, a tile at a
        time, and the VAE's cache of each tile, for what follows; none without `more`. Raises: DataError if they are not finite,
        which would be a black video."""
        finite(latents, "transformer", "guidance_scale and history_scale are too high")
        parts = []
        if not more:
            for video in self.vae.decode_last(latents, caches, self.vae_chunk, self.vae_tile):
                parts.append(np.stack([to_frames(one) for one in finite(video, "VAE")]))
            return np.concatenate(parts, axis=1), ()
        for some in latents.split(self.vae_chunk, dim=2):
            video, caches = self.vae.tiled_decode_chunk(some, caches, self.vae_tile)
            parts.append(np.stack([to_frames(one) for one in finite(video, "VAE")]))
        assert caches is not None
        return np.concatenate(parts, axis=1), caches

    def latent_frame(self) -> tuple[int, int, int]:
        """(c, h, w) of a latent frame."""
        c, _, h, w = self.vae.latent_shape(1, self.config.clip.height, self.config.clip.width)
        return c, h, w

    def latent_frames(self, num_frames: int) -> int:
        return self.vae.latent_shape(num_frames, self.config.clip.height, self.config.clip.width)[1]

    @contextmanager
    def inference(self) -> Iterator[None]:
        """Without gradients, in bfloat16 where that serves."""
        with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16):
            yield


def finite(x: Tensor, part: str, otherwise: str = "") -> Tensor:
    """`x` as it is. Raises: DataError if it is NaN or infinite somewhere, naming the part of the model that made it."""
    if not torch.isfinite(x).all():
        hint = f", or {otherwise}" if otherwise else ""
        raise DataError(f"the {part} made numbers that are not finite (NaN or infinite): its weights are broken{hint}")
    return x


def plan_blocks(start: int, total: int, block_frames: int | None, first: int = 1) -> list[int]:
    """Latent frames per block, from frame `start` to `total`: all at once with None; else blocks of that many, where a
    video's first one has `first`: see `SamplingConfig.first_block_frames`."""
    if block_frames is None:
        return [total - start]
    begun = [min(first or block_frames, total)] if start == 0 else []
    left = total - start - sum(begun)
    return begun + [min(block_frames, left - done) for done in range(0, left, block_frames)]
