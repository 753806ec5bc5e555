"""Public Wan weights as this project's modules: sizes from the tensors' shapes and the config beside them, whole or not at all."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from video_gen.config import check_known, validate
from video_gen.errors import ConfigError, DataError
from video_gen.model.foreign import INDEX, Found, Part, read_json
from video_gen.model.pretrained import check_finite, check_shapes
from video_gen.model.shards import Shards
from video_gen.model.transformer_config import TextConfig, Weights
from video_gen.model.wan.config import WanTransformerConfig
from video_gen.model.wan.experts import Experts
from video_gen.model.wan.names import to_original
from video_gen.model.wan.transformer import WanTransformer
from video_gen.model.wan.vae import WanVAE
from video_gen.model.wan.vae_config import WanVAEConfig
from video_gen.model.wan.vae_names import config_from_diffusers, config_of, in_our_names
from video_gen.model.weights import fill, keep_in, weightless

HEAD_DIM = 128
"""Of every public Wan transformer: what shapes do not say, where no config.json does."""
BOUNDARIES = {False: 0.875, True: 0.9}
"""Diffusion time at which the low-noise expert begins, of text, and of image to video.

Source: Wan-Video/Wan2.2, wan/configs/wan_t2v_A14B.py and wan_i2v_A14B.py.
"""
CHANNELS_5B = 48
"""Latent channels that 2.2's 5B alone has."""
TOKENISER = "google/umt5-xxl"
"""Where none lies beside the encoder, which has one tokeniser."""
CLASSES = ("WanTransformer3DModel", "WanModel", "CausalWanModel", "CausalWanTransformer3DModel")
"""What a transformer's config.json may call it."""
TYPES = ("t2v", "i2v", "flf2v", "ti2v")
"""The same, of the original release."""
ELSEWHERE = (
    "model_type",
    "rope_max_seq_len",
    "text_len",
    "num_frame_per_block",
    "local_attn_size",
    "sink_size",
    "qk_norm",
)
"""Of a transformer's config.json what is read elsewhere, or says nothing of the network."""


# -------------------- transformer


def load_transformers(found: Found, weights: Weights = "fp32") -> WanTransformer | Experts:
    """The transformer, or both experts. Raises: as `load_transformer`."""
    made = [load_transformer(part, weights, found.index) for part in found.transformers]
    return made[0] if len(made) == 1 else Experts(made[0], made[1], boundary_of(found, made[0].config))


def boundary_of(found: Found, config: WanTransformerConfig) -> float:
    """Raises: ConfigError if diffusers' files name none for two experts."""
    if not found.is_diffusers:
        return BOUNDARIES[config.beside_channels > 0]
    boundary = found.index.get("boundary_ratio")
    if not isinstance(boundary, float | int) or not 0 < boundary < 1:
        raise ConfigError(
            f"{found.root}/model_index.json: boundary_ratio is {boundary}; of two experts it must be between 0 and 1"
        )
    return float(boundary)


def load_transformer(part: Part, weights: Weights = "fp32", index: dict[str, Any] | None = None) -> WanTransformer:
    """In eval mode, on the CPU.

    Raises: DataError if files are missing, damaged or hold numbers that are not finite; ConfigError if a name is missing or left
        over, or sizes are none that this transformer has.
    """
    shards = open_transformer(part)
    config = transformer_config(shards, part, index or {})
    return built(partial(WanTransformer, config), shards, part, weights)


def open_transformer(part: Part) -> Shards:
    """Its tensors under our names. Raises: ConfigError for one that has none."""
    shards = Shards(part.files)
    if "condition_embedder.time_proj.weight" not in shards.shapes:
        return shards
    try:
        return shards.renamed(to_original)
    except ConfigError as error:
        raise ConfigError(f"{shards}: {error}; it is a relative of Wan with parts that are not known here") from None


def transformer_config(shards: Shards, part: Part, index: dict[str, Any]) -> WanTransformerConfig:
    """Raises: ConfigError if the shapes are no Wan transformer's, or the config beside them says other things."""
    shapes = shards.shapes
    try:
        dim, in_channels, *kernel = shapes["patch_embedding.weight"]
        patch = kernel[1]
        values: dict[str, Any] = dict(
            dim=dim,
            in_channels=in_channels,
            patch_size=patch,
            latent_channels=shapes["head.head.weight"][0] // patch**2,
            ffn_dim=shapes["blocks.0.ffn.0.weight"][0],
            depth=1 + max(int(name.split(".")[1]) for name in shapes if name.startswith("blocks.")),
            freq_dim=shapes["time_embedding.0.weight"][1],
            text_width=shapes["text_embedding.0.weight"][1],
            image_width=_side(shapes, "img_emb.proj.0.weight", 0),
            image_positions=_side(shapes, "img_emb.emb_pos", 1),
        )
    except (KeyError, IndexError, ValueError) as error:
        raise ConfigError(
            f"{shards}: is no whole Wan transformer: {error} is missing or has another shape; download it again"
        ) from None
    told = read_json(part.config) if part.config else {}
    if dim % HEAD_DIM and not told:
        raise ConfigError(
            f"{shards}: features are {dim}, no whole number of heads of {HEAD_DIM}; put the transformer's config.json beside it, "
            "which says how many there are"
        )
    values["num_heads"] = told.get("num_attention_heads", told.get("num_heads", dim // HEAD_DIM))
    values["first_frame"] = _first_frame(index, values["latent_channels"], part)
    values |= {ours: told[theirs] for ours, theirs in (("eps", "eps"), ("text_len", "text_len")) if theirs in told}
    values |= causal_settings(told, str(part.config))
    config = validate(WanTransformerConfig, values, source=str(part.config or shards))
    check_told(config, told, kernel, str(part.config))
    return config


def _first_frame(index: dict[str, Any], channels: int, part: Part) -> bool:
    """Whether a picture is told as the first latent frame. Raises: ConfigError if diffusers' index says so of any but the 5B."""
    told = index.get("expand_timesteps")
    if told is None:
        return channels == CHANNELS_5B
    if type(told) is not bool or (told and channels != CHANNELS_5B):
        raise ConfigError(
            f"{part.files[0].parent.parent / INDEX}: expand_timesteps is {told!r}, and the transformer has {channels} latent "
            f"channels; it must be true or false, and true of 2.2's 5B alone ({CHANNELS_5B})"
        )
    return told


def _side(shapes: dict[str, tuple[int, ...]], name: str, axis: int) -> int | None:
    return shapes[name][axis] if name in shapes else None


def causal_settings(told: dict[str, Any], source: str) -> dict[str, Any]:
    """Sink and window of Self-Forcing's and LongLive's `CausalWanModel`: `local_attn_size` frames, of which `sink_size` first.

    Raises: ConfigError if they are none.
    """
    size, sink = told.get("local_attn_size", -1), told.get("sink_size", 0)
    if size == -1:  # all is seen
        return {}
    if type(size) is not int or type(sink) is not int or not size > sink >= 0:
        raise ConfigError(
            f"{source}: local_attn_size is {size!r} and sink_size {sink!r}; they must be whole numbers, the first -1 or more than "
            "the second"
        )
    return {"sink": sink, "window": size - sink}


def check_told(config: WanTransformerConfig, told: dict[str, Any], kernel: list[int], source: str) -> None:
    """Raises: ConfigError if a config.json of diffusers or of the original release says something else of the sizes, or things
    that such a transformer has not."""
    known: dict[str, Any] = {
        "in_channels": config.in_channels,
        "out_channels": config.latent_channels,
        "num_layers": config.depth,
        "attention_head_dim": config.head_dim,
        "num_attention_heads": config.num_heads,
        "num_heads": config.num_heads,
        "patch_size": kernel,
        "dim": config.dim,
        "ffn_dim": config.ffn_dim,
        "freq_dim": config.freq_dim,
        "text_dim": config.text_width,
        "in_dim": config.in_channels,
        "out_dim": config.latent_channels,
        "eps": config.eps,
        "image_dim": config.image_width,
        "added_kv_proj_dim": config.dim if config.image_width else None,
        "pos_embed_seq_len": config.image_positions,
        "cross_attn_norm": True,
        "window_size": [-1, -1],
    }
    for name, only in (("_class_name", CLASSES), ("model_type", TYPES)):
        if told.get(name) not in (*only, None):
            raise ConfigError(f"{source}: {name} is {told[name]}, and here are known {', '.join(only)}")
    check_known(told, {*known, *ELSEWHERE}, source)
    for name, value in told.items():
        if name == "qk_norm" and value not in (True, "rms_norm_across_heads"):
            raise ConfigError(f"{source}: qk_norm is {value}, which no known Wan transformer has")
        if name in known and list_of(value) != list_of(known[name]):
            raise ConfigError(
                f"{source}: {name} is {value}, and by the weights {known[name]}; copy both from the same model"
            )
    if kernel[0] != 1 or kernel[1] != kernel[2]:
        raise ConfigError(f"{source}: patch_size is {kernel}; this transformer takes 1, n, n")


def list_of(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


# -------------------- VAE


def load_vae(part: Part) -> WanVAE:
    """In eval mode, on the CPU, in float32. Raises: as `load_transformer`."""
    shards = Shards(part.files)
    config = vae_config(shards, part)
    ours = in_our_names({name: name for name in shards.shapes})
    return built(
        partial(WanVAE, config), shards.renamed({theirs: name for name, theirs in ours.items()}.__getitem__), part
    )


def vae_config(shards: Shards, part: Part) -> WanVAEConfig:
    """By diffusers' config.json where there is one, which has the latents' statistics; else by the shapes, of a release's VAE.

    Raises: ConfigError if it is no Wan VAE.
    """
    told = read_json(part.config) if part.config else {}
    if "base_dim" in told:
        return config_from_diffusers(told, str(part.config))
    try:
        return config_of(shards.shapes)
    except ConfigError as error:
        raise ConfigError(f"{shards}: {error}") from None


# -------------------- text


def text_config(found: Found, origin: str | Path, text_len: int) -> TextConfig:
    """How the model's text encoder is loaded: as the family trained it, its texts mended, and cut at `text_len`."""
    reading: dict[str, Any] = dict(kind="transformers", clean=True, too_long="cut", max_tokens=text_len)
    if found.text is None:
        return TextConfig(name=str(origin), subfolder="text_encoder", tokeniser="tokenizer", **reading)
    first, *others = found.text.files
    if others:
        raise ConfigError(f"{first}: a UMT5 encoder in several files; take it as one, or as a folder of transformers")
    tokeniser = str(found.tokeniser.absolute()) if found.tokeniser else TOKENISER
    return TextConfig(name=str(first.absolute()), tokeniser=tokeniser, **reading)


# -------------------- building


def built(make: Any, shards: Shards, part: Part, weights: Weights = "fp32") -> Any:
    """A module of the weights, of which none is there in float32 where it is to be kept otherwise."""
    try:
        with weightless():
            model: nn.Module = make()
    except (RuntimeError, MemoryError, OverflowError) as error:
        raise ConfigError(f"{shards}: its sizes make no model ({' '.join(str(error).split())[:120]})") from None
    check_shapes(shards.shapes, model, Path(str(shards)), part.config or Path(f"a {type(model).__name__}"))
    keep_in(model, weights)
    fill(model, _finite(shards, type(model).__name__))
    return model.eval()


def _finite(shards: Shards, name: str) -> Iterator[tuple[str, Tensor]]:
    for key, x in shards.items():
        try:
            check_finite({key: x}, name, shards)
        except NotImplementedError as error:  # a type of which torch does not know that
            raise DataError(f"{shards}: {key} is kept as {x.dtype}, which is not read here ({error})") from None
        yield key, x
