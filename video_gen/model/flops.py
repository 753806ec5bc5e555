"""Floating-point operations of the models, in closed form, for utilisation figures and plans. No torch here.

A multiplication with its addition counts as two. Matrix products and convolutions are counted, what a mask hides is not:
this is the work that the model asks for, whatever a kernel makes of it. Norms, activations and embeddings (a few per cent
of the time, and of no products) are left out.
"""

from itertools import accumulate
from typing import Protocol

from video_gen.model.transformer_config import NEIGHBOURS, TextConfig, TransformerConfig
from video_gen.model.vae_config import VAEConfig

BACKWARD = 2
"""A product's backward is two products of its size: one for its input's gradient, one for its weight's."""
TIME_FEATURES, PLACE_FEATURES = 256, 32
"""Inputs of the embeddings of diffusion time and of places: `layers.TimeEmbedding`, `layers.PlaceEmbedding`."""


class Limits(Protocol):
    """What a transformer's sizes say of its history."""

    @property
    def sink(self) -> int: ...

    @property
    def window(self) -> int | None: ...


# -------------------- the transformer


def transformer_flops(
    config: TransformerConfig,
    batch: int,
    latent_size: tuple[int, int, int],
    text_tokens: int,
    blocks: tuple[int, ...] | None = None,
    history: bool = False,
) -> int:
    """One `VideoTransformer.forward` of a batch; a training step is `1 + BACKWARD` times that.

    Args:
        latent_size: (f, h, w) in latent units; `blocks`: latent frames of each, None = one block.
        history: with clean frames before each block (teacher forcing).
    """
    frames, height, width = latent_size
    blocks = blocks or (frames,)
    places = (height // config.patch_size) * (width // config.patch_size)
    text = _text_pass(config, batch, text_tokens)
    if not history or len(blocks) == 1:
        return text + _noisy_pass(config, batch, places, blocks, (0,) * len(blocks), text_tokens)
    past = kept_before(config, blocks)
    return (
        text
        + _clean_pass(config, batch, places, blocks[:-1], past[:-1])
        + _noisy_pass(config, batch, places, blocks, past, text_tokens)
    )


def denoise_flops(
    config: TransformerConfig, batch: int, latent_size: tuple[int, int, int], text_tokens: int, past: int = 0
) -> int:
    """One `VideoTransformer.denoise` of a block of (f, h, w) latents after `past` frames of history; the text is given."""
    frames, height, width = latent_size
    places = (height // config.patch_size) * (width // config.patch_size)
    return _noisy_pass(config, batch, places, (frames,), (past,), text_tokens)


def text_flops(config: TextConfig, batch: int, text_tokens: int) -> int:
    """The byte-level text encoder, forward; 0 for an encoder by name, whose size is not known here."""
    return 2 * batch * (text_tokens - 1) * (NEIGHBOURS + 1) * config.width**2 if config.kind == "bytes" else 0


def layer_kinds(config: TransformerConfig) -> list[str]:
    """`joint`, `space` or `time` per layer, as `VideoTransformer` chooses."""
    every = config.joint_every
    joint = [config.attention == "joint" or i % every == every - 1 for i in range(config.depth)]
    return ["joint" if both else ("space", "time")[i % 2] for i, both in enumerate(joint)]


def _text_pass(config: TransformerConfig, batch: int, tokens: int) -> int:
    pairs = {"joint": tokens**2, "space": tokens**2, "time": tokens}
    embed = 2 * tokens * config.text_width * config.width
    return batch * (embed + _times(config, 1, acts=False) + _memories(config, tokens, pairs))


def _clean_pass(
    config: TransformerConfig, batch: int, places: int, blocks: tuple[int, ...], past: tuple[int, ...]
) -> int:
    frames = sum(blocks)
    pairs = _video_pairs(places, blocks, past, text_tokens=0)
    layers = _memories(config, frames * places, pairs)
    return _embed(config, batch, frames, places) + batch * (_times(config, frames) + layers)


def _noisy_pass(
    config: TransformerConfig, batch: int, places: int, blocks: tuple[int, ...], past: tuple[int, ...], text_tokens: int
) -> int:
    frames, d = sum(blocks), config.width
    pairs = _video_pairs(places, blocks, past, text_tokens)
    layers = sum(_layer(config, frames * places, pairs[kind]) for kind in layer_kinds(config))
    last = frames * 2 * d * 2 * d + frames * places * 2 * d * _patch(config) * (1 + config.previous + config.change)
    last += config.previous * frames * places * 2 * d * config.patch_size**2
    last += frames * places * _warp(config)
    noise = config.frame_noise * 2 * frames * d * (config.latent_channels + d)
    return _embed(config, batch, frames, places) + batch * (_times(config, frames) + noise + layers + last)


def _warp(config: TransformerConfig) -> int:
    """Of a place: its flow, and the linear maps to pixels and back; how the flow goes on between places is not counted."""
    if not config.warp or config.strides is None:
        return 0
    frames, side = config.strides
    maps = config.latent_channels * 3 * side**2 * (1 + frames) * (3 if config.inertia else 1)
    seen = 2 * config.patch_size**2 * (4 * config.width + config.patch_size**2) if config.inertia else 0
    return seen + 2 * config.patch_size**2 * (config.width * (1 + 2 * frames + config.inertia) + maps)


def _memories(config: TransformerConfig, tokens: int, pairs: dict[str, int]) -> int:
    """All layers but the last, of which keys and values alone are made, with the queries that come along."""
    layers = sum(_layer(config, tokens, pairs[kind]) for kind in layer_kinds(config)[:-1])
    return layers + tokens * 6 * config.width**2


def _layer(config: TransformerConfig, tokens: int, pairs: int) -> int:
    d, hidden = config.width, round(config.width * config.mlp_ratio)
    return tokens * (8 * d * d + 4 * d * hidden) + 4 * d * pairs


def _video_pairs(places: int, blocks: tuple[int, ...], past: tuple[int, ...], text_tokens: int) -> dict[str, int]:
    """Pairs of a query and a key that it sees, per sample and kind of layer."""
    seen = [(own, own + before) for own, before in zip(blocks, past)]
    return {
        "joint": sum(own * places * (text_tokens + keys * places) for own, keys in seen),
        "space": sum(blocks) * places * (text_tokens + places),
        "time": sum(own * places * keys for own, keys in seen),
    }


def kept_before(config: Limits, blocks: tuple[int, ...]) -> tuple[int, ...]:
    """Frames of history that each block sees."""
    starts = list(accumulate(blocks, initial=0))[:-1]
    most = None if config.window is None else config.sink + config.window
    return tuple(start if most is None else min(start, most) for start in starts)


def _embed(config: TransformerConfig, batch: int, frames: int, places: int) -> int:
    """Patches, and the places once for the whole batch."""
    return 2 * config.width * places * (batch * frames * _patch(config) + PLACE_FEATURES)


def _times(config: TransformerConfig, frames: int, acts: bool = True) -> int:
    """Embedding of diffusion time and of what was done, and the shared modulation."""
    actions = config.action_size + config.width if acts and config.action_size else 0
    return 2 * frames * config.width * (TIME_FEATURES + 7 * config.width + actions)


def _patch(config: TransformerConfig) -> int:
    return config.latent_channels * config.patch_size**2


# -------------------- the VAE


def vae_encode_flops(config: VAEConfig, batch: int, video_size: tuple[int, int, int]) -> int:
    """`VideoVAE.encode` of (f, h, w) pixels from a video's start."""
    return batch * (_encoder(config, video_size) + _linear_path(config, video_size))


def vae_decode_flops(config: VAEConfig, batch: int, video_size: tuple[int, int, int]) -> int:
    """`VideoVAE.decode` to (f, h, w) pixels from a video's start."""
    return batch * (_decoder(config, video_size) + _linear_path(config, video_size))


def vae_training_flops(config: VAEConfig, batch: int, video_size: tuple[int, int, int]) -> int:
    """Encode and decode, forward and backward; without a discriminator or LPIPS.

    The linear path learns nothing, and the video wants no gradient: the decoder's half alone has a backward, of one product.
    """
    networks = (1 + BACKWARD) * (_encoder(config, video_size) + _decoder(config, video_size))
    first = _conv(3 * config.stem**2, config.stage_widths[0], 27, _resolutions(config, video_size)[0])
    return batch * (networks - first + 3 * _linear_path(config, video_size))


def _encoder(config: VAEConfig, video_size: tuple[int, int, int]) -> int:
    widths, sizes = config.stage_widths, _resolutions(config, video_size)
    total = _conv(3 * config.stem**2, widths[0], 27, sizes[0])
    for (t, p), fine, coarse, size in zip(config.stages, widths, widths[1:], sizes):
        total += config.blocks * _residual(fine, size) + _conv(fine, coarse // (t * p * p), 27, size)
    total += config.blocks * _residual(widths[-1], sizes[-1])
    return total + _conv(widths[-1], 2 * config.latent_channels, 27, sizes[-1])


def _decoder(config: VAEConfig, video_size: tuple[int, int, int]) -> int:
    widths, sizes = config.stage_widths, _resolutions(config, video_size)
    total = _conv(config.latent_channels, widths[-1], 27, sizes[-1]) + config.blocks * _residual(widths[-1], sizes[-1])
    for (t, p), fine, coarse, size, small in zip(config.stages, widths, widths[1:], sizes, sizes[1:]):
        total += _conv(coarse, fine * t * p * p, 27, small) + config.blocks * _residual(fine, size)
    return total + _conv(widths[0], 3 * config.stem**2, 27, sizes[0])


def _resolutions(config: VAEConfig, video_size: tuple[int, int, int]) -> list[int]:
    """Positions at each resolution, finest first."""
    frames, height, width = video_size[0], video_size[1] // config.stem, video_size[2] // config.stem
    positions = [frames * height * width]
    for t, p in config.stages:
        frames, height, width = 1 + (frames - 1) // t, height // p, width // p
        positions.append(frames * height * width)
    return positions


def _residual(channels: int, positions: int) -> int:
    return _conv(channels, channels, 27, positions) + _conv(channels, channels, 9, positions)


def _conv(inputs: int, outputs: int, taps: int, positions: int) -> int:
    return 2 * inputs * outputs * taps * positions


def _linear_path(config: VAEConfig, video_size: tuple[int, int, int]) -> int:
    """One way: a product of the pixels of each patch with the basis."""
    return 2 * 3 * video_size[0] * video_size[1] * video_size[2] * config.latent_channels if config.linear_path else 0
