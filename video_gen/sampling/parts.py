"""The parts of a model on disk, this project's or a public one: each is loaded by itself, when it is wanted."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from video_gen.errors import ConfigError, DataError
from video_gen.model import foreign
from video_gen.model.lora_files import FILE
from video_gen.model.pretrained import local_folder, read_config
from video_gen.model.shards import PICKLES
from video_gen.model.text import TextEncoder, build_text_encoder, load_text_config, load_text_encoder
from video_gen.model.transformer import VideoTransformer
from video_gen.model.transformer_config import TextConfig, TransformerConfig, Weights
from video_gen.model.video_vae import VideoVAE
from video_gen.model.wan import loading
from video_gen.model.wan.config import WanTransformerConfig
from video_gen.model.wan.experts import Experts
from video_gen.model.wan.transformer import WanTransformer
from video_gen.model.wan.vae import WanVAE
from video_gen.model.wan.vision import PictureEncoder, VisionConfig, load_vision, vision_config
from video_gen.sampling.config import PipelineConfig
from video_gen.sampling.wan import pipeline_config

VAE = VideoVAE | WanVAE
Transformer = VideoTransformer | WanTransformer | Experts
SECOND = "transformer_2"
"""The folder of the expert for little noise, as diffusers calls it."""


@dataclass(frozen=True)
class Parts:
    """What a model is made of, and how each part is loaded, on the CPU."""

    folder: Path
    origin: str
    """Where to load it from again: an absolute folder or file, the name of a model that ships, or a Hub id."""
    config: PipelineConfig
    text_config: TextConfig
    vae: Callable[[], VAE]
    transformer: Callable[[Weights], Transformer]
    text: Callable[[], TextEncoder]
    sizes: Callable[[], TransformerConfig | WanTransformerConfig]
    """The transformer's, of which no weights are loaded."""
    vision_config: VisionConfig | None = None

    @property
    def vision(self) -> Callable[[], PictureEncoder] | None:
        return None if self.vision_config is None else partial(load_vision, self.vision_config)


def parts_of(path: str | Path) -> Parts:
    """
    Args: path: a model folder, the model of that name that ships, a Hub id; or a public model: its folder, or the file of its
        transformer.
    Raises: DataError, ConfigError if it is none, or is not whole.
    """
    if Path(path).suffix.lower() in (".safetensors", ".gguf", *PICKLES) and not Path(path).exists():
        raise DataError(f"model {path}: no such file; give the file of a public model's transformer, or a model folder")
    place = Path(path) if Path(path).is_file() else local_folder(path)
    origin = str(place.absolute()) if Path(path).exists() else str(path)
    if (place / "model.json").is_file():
        return _own(place, origin)
    if (place / FILE).is_file():
        raise DataError(
            f"{place}: is a LoRA, and no model by itself; give the model that it is for, and this as --lora {place}"
        )
    if foreign.is_foreign(place):
        return _public(foreign.find(place), origin)
    raise DataError(
        f"{place}: holds no model.json; give a model folder such as runs/demo/diffusion/model, with vae/, "
        "transformer/ and text/ in it"
    )


def _own(folder: Path, origin: str) -> Parts:
    config = read_config(PipelineConfig, folder / "model.json")
    wanted = ("vae", "transformer", "text", *([SECOND] if config.boundary is not None else []))
    for part in wanted:
        if not (folder / part).is_dir():
            raise DataError(f"{folder}: holds no {part}/; copy the model again, with all of its folders")
    vae: Any = WanVAE if config.family == "wan" else VideoVAE
    kind: Any = WanTransformerConfig if config.family == "wan" else TransformerConfig
    return Parts(
        folder=folder,
        origin=origin,
        config=config,
        text_config=load_text_config(folder / "text"),
        vae=partial(vae.from_pretrained, folder / "vae"),
        transformer=partial(_own_transformer, folder, config),
        text=partial(load_text_encoder, folder / "text"),
        sizes=partial(read_config, kind, folder / "transformer" / "config.json"),
        vision_config=_own_vision(folder / "vision"),
    )


def _own_transformer(folder: Path, config: PipelineConfig, weights: Weights) -> Transformer:
    if config.family == "video-gen":
        return VideoTransformer.from_pretrained(folder / "transformer", weights)
    first = WanTransformer.from_pretrained(folder / "transformer", weights)
    if config.boundary is None:
        return first
    return Experts(first, WanTransformer.from_pretrained(folder / SECOND, weights), config.boundary)


def _own_vision(folder: Path) -> VisionConfig | None:
    return read_config(VisionConfig, folder / "config.json") if folder.is_dir() else None


def _public(found: foreign.Found, origin: str) -> Parts:
    shards = loading.open_transformer(found.transformers[0])
    sizes = loading.transformer_config(shards, found.transformers[0], found.index)
    if sizes.image_width is not None and found.vision is None:
        raise DataError(
            f"{found.root}: holds no CLIP picture encoder, which this transformer wants; put clip_vision_h.safetensors into "
            "clip_vision/, or take diffusers' folder"
        )
    boundary = loading.boundary_of(found, sizes) if len(found.transformers) == 2 else None
    if boundary is None and sizes.beside_channels and sizes.image_width is None:
        raise DataError(
            f"{found.root}: is one of two experts (a picture's channels, and no CLIP); put the other beside it, with high and "
            "low in their names"
        )
    text = loading.text_config(found, origin, sizes.text_len)
    return Parts(
        folder=found.root,
        origin=origin,
        config=pipeline_config(found, sizes, boundary),
        text_config=text,
        vae=partial(loading.load_vae, found.vae),
        transformer=partial(loading.load_transformers, found),
        text=partial(_public_text, text),
        sizes=lambda: sizes,
        vision_config=vision_config(found, origin) if sizes.image_width is not None else None,
    )


def _public_text(config: TextConfig) -> TextEncoder:
    try:
        return build_text_encoder(config)
    except ConfigError as error:
        hint = ""
        if config.tokeniser == loading.TOKENISER:
            hint = f"; its tokeniser is looked for as {loading.TOKENISER}/ beside the transformer, and then on the Hub"
        raise ConfigError(f"{error}{hint}") from None
