"""Names and sizes of Wan VAEs in files: the original release's, which are ours, and diffusers' AutoencoderKLWan's."""

from collections.abc import Iterable, Mapping, Sequence
from math import isqrt
from typing import Any, TypeVar

from video_gen.config import check_known, validate
from video_gen.errors import ConfigError
from video_gen.model.wan.vae_config import STATISTICS_21, STATISTICS_22, WanVAEConfig

T = TypeVar("T")
Shapes = Mapping[str, Sequence[int]]

PLACES = {
    "conv1": "quant_conv",
    "conv2": "post_quant_conv",
    "encoder.conv1": "encoder.conv_in",
    "encoder.middle.0": "encoder.mid_block.resnets.0",
    "encoder.middle.1": "encoder.mid_block.attentions.0",
    "encoder.middle.2": "encoder.mid_block.resnets.1",
    "encoder.head.0": "encoder.norm_out",
    "encoder.head.2": "encoder.conv_out",
    "decoder.conv1": "decoder.conv_in",
    "decoder.middle.0": "decoder.mid_block.resnets.0",
    "decoder.middle.1": "decoder.mid_block.attentions.0",
    "decoder.middle.2": "decoder.mid_block.resnets.1",
    "decoder.head.0": "decoder.norm_out",
    "decoder.head.2": "decoder.conv_out",
}
"""Ours to diffusers', of all modules outside the resolutions."""
WITHIN = {
    "residual.0": "norm1",
    "residual.2": "conv1",
    "residual.3": "norm2",
    "residual.6": "conv2",
    "shortcut": "conv_shortcut",
}
"""Ours to diffusers', within a residual block."""
KNOWN = (
    "attn_scales", "base_dim", "clip_output", "decoder_base_dim", "dim_mult", "dropout", "in_channels", "is_residual",
    "latents_mean", "latents_std", "num_res_blocks", "out_channels", "patch_size", "scale_factor_spatial",
    "scale_factor_temporal", "temperal_downsample", "z_dim",
)  # fmt: skip
"""Settings of diffusers' class; `clip_output` is of earlier versions, and pictures are clipped here anyway."""
LEVELS = 8
"""Resolutions that a table of names covers: more than any config has."""


# -------------------- names


def to_diffusers(state: Mapping[str, T], blocks: int, shortcuts: bool) -> dict[str, T]:
    """`state` under diffusers' names; `blocks` and `shortcuts` as in WanVAEConfig. An unknown name stays as it is."""
    places = _places(blocks, shortcuts)
    return {_renamed(name, places, WITHIN): x for name, x in state.items()}


def from_diffusers(state: Mapping[str, T], blocks: int, shortcuts: bool) -> dict[str, T]:
    """The reverse of `to_diffusers`."""
    places = {theirs: ours for ours, theirs in _places(blocks, shortcuts).items()}
    within = {theirs: ours for ours, theirs in WITHIN.items()}
    return {_renamed(name, places, within): x for name, x in state.items()}


def in_our_names(state: Mapping[str, T]) -> dict[str, T]:
    """`state` of either dialect in ours."""
    if not named_as_diffusers(state):
        return dict(state)
    return from_diffusers(state, *_diffusers_blocks(state))


def named_as_diffusers(names: Iterable[str]) -> bool:
    return "post_quant_conv.weight" in names and "decoder.conv_in.weight" in names


def is_wan_vae(names: Iterable[str]) -> bool:
    """Whether these are the names of a Wan VAE's weights, of either dialect."""
    known = "encoder.middle.1.to_qkv.weight" in names and "conv2.weight" in names
    return known or ("encoder.mid_block.attentions.0.to_qkv.weight" in names and named_as_diffusers(names))


def _places(blocks: int, shortcuts: bool) -> dict[str, str]:
    """Ours to diffusers', of all modules. The releases differ: 2.1 has one list of layers where 2.2 has one of resolutions,
    and diffusers has a list in 2.1's encoder alone."""
    places = dict(PLACES)
    for level in range(LEVELS):
        for i in range(blocks + 1):
            theirs, last = f"encoder.down_blocks.{level}", "downsampler"
            if shortcuts:
                places[f"encoder.downsamples.{level}.downsamples.{i}"] = _layer(theirs, i, i == blocks, last)
            else:
                flat = level * (blocks + 1) + i
                places[f"encoder.downsamples.{flat}"] = f"encoder.down_blocks.{flat}"
        for i in range(blocks + 2):
            ours = f"{level}.upsamples.{i}" if shortcuts else str(level * (blocks + 2) + i)
            theirs, last = f"decoder.up_blocks.{level}", "upsampler" if shortcuts else "upsamplers.0"
            places[f"decoder.upsamples.{ours}"] = _layer(theirs, i, i == blocks + 1, last)
    return places


def _layer(level: str, i: int, is_last: bool, last: str) -> str:
    return f"{level}.{last}" if is_last else f"{level}.resnets.{i}"


def _renamed(name: str, places: dict[str, str], within: dict[str, str]) -> str:
    place, rest = _split(name, places)
    if not place:
        return name
    inner, leaf = _split(rest, within)
    return ".".join(part for part in (places[place], within.get(inner), leaf) if part)


def _split(name: str, table: dict[str, str]) -> tuple[str, str]:
    """The longest beginning of a dotted name that is in the table, or "", and the rest."""
    parts = name.split(".")
    for n in range(len(parts) - 1, 0, -1):
        if (start := ".".join(parts[:n])) in table:
            return start, ".".join(parts[n:])
    return "", name


def _diffusers_blocks(names: Iterable[str]) -> tuple[int, bool]:
    """(blocks, shortcuts) of a model with diffusers' names."""
    found, start = set(names), "encoder.down_blocks"
    shortcuts = f"{start}.0.resnets.0.conv1.weight" in found
    inner = f"{start}.0.resnets.{{}}.conv1.weight" if shortcuts else f"{start}.{{}}.conv1.weight"
    blocks = 0
    while inner.format(blocks) in found:
        blocks += 1
    return blocks, shortcuts


# -------------------- sizes


def config_of(shapes: Shapes) -> WanVAEConfig:
    """The sizes of a Wan VAE, of either dialect, from the shapes of its weights.

    The latents' mean and deviation are those of the release of so many channels, which weights alone do not hold.
    Raises: ConfigError if it is no Wan VAE, or of other latent channels than the releases'.
    """
    if not is_wan_vae(shapes):
        raise ConfigError(f"no Wan VAE: its weights have other names, such as {next(iter(shapes), 'none')}")
    shapes = in_our_names(shapes)
    shortcuts = "encoder.downsamples.0.downsamples.0.residual.2.weight" in shapes
    channels, width = shapes["conv2.weight"][0], shapes["encoder.conv1.weight"][0]
    statistics = {(16, False): STATISTICS_21, (48, True): STATISTICS_22}.get((channels, shortcuts))
    if statistics is None:
        raise ConfigError(
            f"a Wan VAE of {channels} latent channels: its latents' mean and deviation are not in the weights, and only those "
            "of 2.1 (16) and 2.2 (48) are known; give its config.json beside them"
        )
    levels = list(_levels(shapes, shortcuts))
    decoder = shapes["decoder.head.2.weight"][1] // max(1, levels[0][0] // width)
    values = dict(
        latent_channels=channels,
        width=width,
        decoder_width=None if decoder == width else decoder,
        multipliers=tuple(outputs // width for outputs, _, _ in levels),
        temporal=tuple(temporal for _, _, temporal in levels if temporal is not None),
        blocks=levels[0][1],
        patch=isqrt(shapes["encoder.conv1.weight"][1] // 3),
        shortcuts=shortcuts,
    )
    return validate(WanVAEConfig, values | statistics, source="weights of a Wan VAE")


def _levels(shapes: Shapes, shortcuts: bool):
    """(channels, blocks, whether the halving after it joins frames, or None after the last) of each resolution."""
    level, i, blocks, outputs = 0, 0, 0, 0
    while True:
        start = f"encoder.downsamples.{level}.downsamples.{i}" if shortcuts else f"encoder.downsamples.{i}"
        if f"{start}.residual.6.weight" in shapes:
            outputs, blocks = shapes[f"{start}.residual.6.weight"][0], blocks + 1
        elif f"{start}.resample.1.weight" in shapes:
            yield outputs, blocks, f"{start}.time_conv.weight" in shapes
            level, i, blocks = level + 1, -1 if shortcuts else i, 0
        else:
            yield outputs, blocks, None
            return
        i += 1


def config_from_diffusers(values: Mapping[str, Any], source: str) -> WanVAEConfig:
    """Sizes from the config.json of an AutoencoderKLWan. Raises: ConfigError."""
    plain = {key: value for key, value in values.items() if not key.startswith("_")}
    check_known(plain, KNOWN, source)
    for key, only in (("_class_name", ("AutoencoderKLWan",)), ("attn_scales", ([], ())), ("dropout", (0,))):
        if key in values and values[key] not in only:
            raise ConfigError(f"{source}: {key} {values[key]}: only {only[0]} is known here")
    channels = plain.get("z_dim", 16)
    patch = plain.get("patch_size") or 1
    if type(patch) is not int:
        raise ConfigError(f"{source}: patch_size is {patch!r}; it must be a whole number, or null")
    for key in ("in_channels", "out_channels"):
        if plain.get(key, 3) != 3 * patch**2:
            raise ConfigError(f"{source}: {key} {plain[key]}: {3 * patch**2} are expected with patch_size {patch}")
    known = dict(
        latent_channels=channels,
        width=plain.get("base_dim", 96),
        decoder_width=plain.get("decoder_base_dim"),
        multipliers=plain.get("dim_mult", [1, 2, 4, 4]),
        temporal=plain.get("temperal_downsample", [False, True, True]),
        blocks=plain.get("num_res_blocks", 2),
        patch=patch,
        shortcuts=plain.get("is_residual", False),
        latent_mean=plain.get("latents_mean", STATISTICS_21["latent_mean"] if channels == 16 else None),
        latent_std=plain.get("latents_std", STATISTICS_21["latent_std"] if channels == 16 else None),
    )
    config = validate(WanVAEConfig, known, source=source)
    for key, stride in (("temporal", config.temporal_stride), ("spatial", config.spatial_stride)):
        if plain.get(f"scale_factor_{key}", stride) not in (stride, None):
            raise ConfigError(
                f"{source}: scale_factor_{key} is {plain[f'scale_factor_{key}']}, and by the sizes there {stride}; copy it again"
            )
    return config


def config_to_diffusers(config: WanVAEConfig) -> dict[str, Any]:
    """What the config.json of an AutoencoderKLWan of these sizes says."""
    zeros, ones = [0.0] * config.latent_channels, [1.0] * config.latent_channels
    return {
        "_class_name": "AutoencoderKLWan",
        "base_dim": config.width,
        "decoder_base_dim": config.decoder_width or config.width,
        "z_dim": config.latent_channels,
        "dim_mult": list(config.multipliers),
        "num_res_blocks": config.blocks,
        "attn_scales": [],
        "temperal_downsample": list(config.temporal),
        "dropout": 0.0,
        "latents_mean": zeros if config.latent_mean is None else list(config.latent_mean),
        "latents_std": ones if config.latent_std is None else list(config.latent_std),
        "is_residual": config.shortcuts,
        "in_channels": 3 * config.patch**2,
        "out_channels": 3 * config.patch**2,
        "patch_size": None if config.patch == 1 else config.patch,
        "scale_factor_temporal": config.temporal_stride,
        "scale_factor_spatial": config.spatial_stride,
    }
