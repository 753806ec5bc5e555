"""A model by its sizes alone: enough to plan with, without its weights."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from video_gen.errors import ConfigError, DataError
from video_gen.model.diffusion_config import DiffusionConfig
from video_gen.model.pretrained import local_folder, read_config
from video_gen.model.text import ByteTextEncoder, load_text_config
from video_gen.model.transformer import VideoTransformer
from video_gen.model.transformer_config import TextConfig, TransformerConfig, Weights
from video_gen.model.vae_config import VAEConfig
from video_gen.model.video_vae import VideoVAE
from video_gen.model.wan.config import PRESETS, WanTransformerConfig
from video_gen.model.wan.transformer import WanTransformer
from video_gen.model.wan.vae import WanVAE
from video_gen.model.wan.vae_config import WanVAEConfig
from video_gen.model.weights import keep_in, with_blocks
from video_gen.sampling.config import ClipSettings, PipelineConfig, SamplingConfig
from video_gen.sampling.memory import Job
from video_gen.sampling.pipeline import VideoPipeline

UMT5_XXL = 5_680_910_336
"""Parameters of the text encoder of all public Wan models, google/umt5-xxl's. They are kept in 16 bits."""
CLIP_VIT_H = 632_076_800
"""Parameters of the picture encoder of 2.1's image to video. Likewise."""


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

    def model(self, weights: Weights = "fp32") -> VideoPipeline:
        """It, on the device "meta", with its weights kept in `weights`."""
        config = self.config
        with torch.device("meta"):
            vae, transformer, text = (
                self.vae().eval(),
                cast(Any, self.transformer().eval()),
                cast(Any, self.text().eval()),
            )
            model = VideoPipeline(vae, transformer, text, config.diffusion, config.clip, config.sampling)
            for part in with_blocks(model.transformer):
                keep_in(part, weights)
        return model

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

    def at(self, num_frames: int | None, height: int | None, width: int | None) -> "Sizes":
        """The same, of clips of another size where one is given. Raises: ShapeError if the VAE does not take it."""
        given = {"num_frames": num_frames, "height": height, "width": width}
        clip = self.config.clip.replace(**{name: value for name, value in given.items() if value is not None})
        with torch.device("meta"):
            self.vae().latent_shape(clip.num_frames, clip.height, clip.width)
        config = self.config.replace(clip=clip.model_dump())
        return Sizes(self.name, config, self.vae, self.transformer, self.text)


def sizes_of(model: str | Path) -> Sizes:
    """
    Args: model: a model folder, a name that ships, a Hub id; or the name of a public size, such as 2.1-t2v-14b.
    Raises: DataError, ConfigError if it is none.
    """
    if str(model) in PRESETS:
        return _public(str(model))
    try:
        folder = local_folder(model)
    except DataError as error:
        raise ConfigError(f"{error}; public sizes are {', '.join(PRESETS)}") from None
    vae = read_config(VAEConfig, folder / "vae" / "config.json")
    transformer = read_config(TransformerConfig, folder / "transformer" / "config.json")
    text = load_text_config(folder / "text")
    config = read_config(PipelineConfig, folder / "model.json")
    return Sizes(str(model), config, lambda: VideoVAE(vae), lambda: VideoTransformer(transformer), lambda: _text(text))


def _text(config: TextConfig) -> nn.Module:
    """Raises: ConfigError if an encoder by name lies in no folder here, so that its size is not known."""
    if config.kind == "bytes":
        return ByteTextEncoder(config)
    files = list(Path(str(config.name)).rglob("*.safetensors"))
    if not files:
        raise ConfigError(
            f"text.name '{config.name}': no folder with .safetensors, so its size is not known; load it first"
        )
    return Weight(sum(file.stat().st_size for file in files))


def _public(name: str) -> Sizes:
    """A public size as its release samples it."""
    config = WanTransformerConfig.preset(name)
    small = name == "tiny"
    vae = WanVAEConfig.preset("tiny-2.1" if small else "2.2" if config.latent_channels == 48 else "2.1")
    if small:
        clip = ClipSettings(num_frames=17, fps=16, height=64, width=64)
    elif config.latent_channels == 48:
        clip = ClipSettings(num_frames=121, fps=24, height=704, width=1280)
    else:
        clip = ClipSettings(num_frames=81, fps=16, height=480, width=832)
    sampling = SamplingConfig(num_steps=50, guidance_scale=5.0, shift=5.0)
    text = 2 * (UMT5_XXL + (CLIP_VIT_H if config.image_width else 0))
    return Sizes(
        name,
        PipelineConfig(clip=clip, diffusion=DiffusionConfig(shift=5.0), sampling=sampling),
        lambda: WanVAE(vae),
        lambda: WanTransformer(config),
        lambda: Weight(4096 if small else text),
    )
