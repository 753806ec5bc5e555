"""A model by its sizes alone: enough to plan with, without its weights."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from video_gen.errors import ConfigError, DataError
from video_gen.model import foreign
from video_gen.model.diffusion_config import DiffusionConfig
from video_gen.model.pretrained import local_folder, read_config
from video_gen.model.shards import Shards
from video_gen.model.text import ByteTextEncoder, load_text_config
from video_gen.model.transformer import VideoTransformer
from video_gen.model.transformer_config import TextConfig, TransformerConfig
from video_gen.model.vae_config import VAEConfig
from video_gen.model.vae_contract import check_sides
from video_gen.model.video_vae import VideoVAE
from video_gen.model.wan import loading
from video_gen.model.wan.config import PRESETS, WanTransformerConfig
from video_gen.model.wan.experts import Experts
from video_gen.model.wan.transformer import WanTransformer
from video_gen.model.wan.vae import WanVAE
from video_gen.model.wan.vae_config import WanVAEConfig
from video_gen.model.weights import weightless
from video_gen.sampling.config import ClipSettings, PipelineConfig, SamplingConfig
from video_gen.sampling.memory import Job
from video_gen.sampling.pipeline import VideoPipeline
from video_gen.sampling.wan import RELEASES, pipeline_config, release_of

UMT5_XXL, CLIP_VIT_H = 5_680_910_336, 632_076_800
"""Parameters of the encoders of text and pictures of public Wan models, google/umt5-xxl's and CLIP's; in 16 bits."""
BOUNDARY = 0.9
"""Diffusion time at which one of two experts takes over; for memory any will do."""


class Weight(nn.Module):
    """So many bytes in the place of a part that is not built."""

    def __init__(self, size: int):
        super().__init__()
        self.register_buffer("bytes", torch.empty(size, dtype=torch.uint8))


@dataclass(frozen=True)
class Sizes:
    name: str
    config: PipelineConfig
    vae: Callable[[], Any]
    transformer: Callable[[], nn.Module]
    text: Callable[[], nn.Module]
    vision: int = 0
    """Bytes of the encoder of pictures."""

    def model(self) -> VideoPipeline:
        """It, on the device "meta"."""
        config = self.config
        with weightless():
            vae, transformer, text = (cast(Any, part().eval()) for part in (self.vae, self.transformer, self.text))
            return VideoPipeline(vae, transformer, text, config.diffusion, config.clip, config.sampling)

    def job(self, num_frames: int | None = None, count: int = 1, stream: bool = False, **settings: Any) -> Job:
        """What sampling would do. Args: settings: `block_frames`, and fields of SamplingConfig; None = the model's own."""
        block_frames = settings.pop("block_frames", None)
        config, given = self.config, {name: value for name, value in settings.items() if value is not None}
        sampling, frames = config.sampling.replace(**given), num_frames or config.clip.num_frames
        if block_frames is None and not stream and frames <= config.clip.num_frames:
            block_frames = sampling.block_frames
        elif block_frames is None:
            block_frames = self.model().long_block_frames(sampling)
        return Job(frames, sampling, block_frames, count, stream=stream)

    def at(self, height: int | None, width: int | None) -> "Sizes":
        """The same, of frames of another size where one is given. Raises: ShapeError if VAE or transformer do not take it."""
        given = {name: size for name, size in (("height", height), ("width", width)) if size is not None}
        if not given:
            return self
        model = self.model()
        check_sides(given, model.vae.config.spatial_stride * model.transformer.config.patch_size)
        clip = self.config.clip.replace(**given)
        return replace(self, config=self.config.replace(clip=clip.model_dump()))


def sizes_of(model: str | Path) -> Sizes:
    """
    Args: model: as `VideoPipeline.from_pretrained` takes one; or the name of a public size, such as 2.1-t2v-14b.
    Raises: DataError, ConfigError if it is none.
    """
    if str(model) in PRESETS:
        return _preset(str(model))
    try:
        place = Path(model) if Path(model).is_file() else local_folder(model)
    except DataError as error:
        raise DataError(f"{error}; public sizes are {', '.join(PRESETS)}") from None
    if foreign.is_foreign(place):
        return _public(str(model), foreign.find(place))
    return _own(str(model), place)


def _own(name: str, folder: Path) -> Sizes:
    config = read_config(PipelineConfig, folder / "model.json")
    wan = config.family == "wan"
    kinds: tuple[Any, Any] = (WanTransformerConfig, WanVAEConfig) if wan else (TransformerConfig, VAEConfig)
    transformer, vae = (
        read_config(kind, folder / part / "config.json") for kind, part in zip(kinds, ("transformer", "vae"))
    )
    return Sizes(
        name,
        config,
        partial(WanVAE if wan else VideoVAE, vae),
        partial(_wan, transformer, config.boundary) if wan else partial(VideoTransformer, transformer),
        partial(_text, load_text_config(folder / "text")),
    )


def _text(config: TextConfig) -> nn.Module:
    """Raises: ConfigError if an encoder by name lies in no folder here, so that its size is not known."""
    if config.kind == "bytes":
        return ByteTextEncoder(config)
    place = Path(str(config.name), config.subfolder or "")
    files = [place] if place.is_file() else list(place.rglob("*.safetensors"))
    if not files:
        raise ConfigError(
            f"text.name '{config.name}': holds no .safetensors here, so its size is not known; fetch it first"
        )
    return Weight(_size(files))


def _wan(config: WanTransformerConfig, boundary: float | None) -> nn.Module:
    if boundary is None:
        return WanTransformer(config)
    return Experts(WanTransformer(config), WanTransformer(config), boundary)


def _public(name: str, found: foreign.Found) -> Sizes:
    """Its sizes are those of the tensors in its files, which are not read."""
    first = found.transformers[0]
    transformer = loading.transformer_config(loading.open_transformer(first), first, found.index)
    boundary = loading.boundary_of(found, transformer) if len(found.transformers) == 2 else None
    vae = loading.vae_config(Shards(found.vae.files), found.vae)
    text = found.text.files if found.text else list((found.root / "text_encoder").glob("*.safetensors"))
    return Sizes(
        name,
        pipeline_config(found, transformer, boundary),
        partial(WanVAE, vae),
        partial(_wan, transformer, boundary),
        partial(Weight, _size(text)),
        _size(found.vision.files) if found.vision else 0,
    )


def _size(files: Any) -> int:
    return sum(file.stat().st_size for file in files)


def _preset(name: str) -> Sizes:
    """A public size, as its release samples it."""
    config, tiny, experts = WanTransformerConfig.preset(name), name == "tiny", "a14b" in name
    release = RELEASES[release_of(config, experts)]
    vae = WanVAEConfig.preset("tiny-2.1" if tiny else "2.2" if config.latent_channels == 48 else "2.1")
    clip = ClipSettings(num_frames=17, fps=16, height=64, width=64) if tiny else ClipSettings(**release["clip"])
    sampling = SamplingConfig(**release["sampling"])
    return Sizes(
        name,
        PipelineConfig(clip=clip, diffusion=DiffusionConfig(shift=sampling.shift), sampling=sampling, family="wan"),
        partial(WanVAE, vae),
        partial(_wan, config, BOUNDARY if experts else None),
        partial(Weight, 4096 if tiny else 2 * UMT5_XXL),
        2 * CLIP_VIT_H if config.image_width else 0,
    )
