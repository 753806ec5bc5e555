"""Floating-point operations of the Wan transformer, in closed form, counted as in `model/flops.py`. No torch here."""

from video_gen.model.flops import kept_before
from video_gen.model.wan.config import WanTransformerConfig

PADDING = 2
"""Tokens in front of each text that stand for its padding: `memory.PADDING`."""


def wan_flops(
    config: WanTransformerConfig,
    batch: int,
    latent_size: tuple[int, int, int],
    text_tokens: int,
    blocks: tuple[int, ...] | None = None,
    history: bool = False,
    picture_tokens: int = 0,
) -> int:
    """One `WanTransformer.forward` of a batch; a training step of all weights is `1 + BACKWARD` times that.

    Args:
        latent_size: (f, h, w) in latent units; `blocks`: latent frames of each, None = one block.
        history: with clean frames before each block (teacher forcing).
        picture_tokens: of CLIP.
    """
    frames, height, width = latent_size
    blocks = blocks or (frames,)
    places = (height // config.patch_size) * (width // config.patch_size)
    words, d = text_tokens + PADDING, config.dim
    known = 2 * words * (config.text_width * d + d * d) + config.depth * 2 * words * 2 * d * d
    if picture_tokens and config.image_width:
        known += 2 * picture_tokens * (config.image_width**2 + config.image_width * d)
        known += config.depth * 2 * picture_tokens * 2 * d * d
    past = kept_before(config, blocks) if history else (0,) * len(blocks)
    video = _pass(config, places, blocks, past, words + picture_tokens, config.depth) + _head(config, places, frames)
    if history and len(blocks) > 1:
        video += _pass(config, places, blocks[:-1], past[:-1], words + picture_tokens, config.depth - 1)
        video += (
            2 * sum(blocks[:-1]) * places * 3 * d * d
        )  # the last layer's keys and values, and queries that come along
    return batch * (known + video)


def wan_denoise_flops(
    config: WanTransformerConfig,
    batch: int,
    latent_size: tuple[int, int, int],
    text_tokens: int,
    past: int = 0,
    picture_tokens: int = 0,
) -> int:
    """One `WanTransformer.denoise` of a block of (f, h, w) latents after `past` frames of history; the text is given."""
    frames, height, width = latent_size
    places = (height // config.patch_size) * (width // config.patch_size)
    words = text_tokens + PADDING + picture_tokens
    made = _pass(config, places, (frames,), (past,), words, config.depth) + _head(config, places, frames)
    return batch * made


def _pass(
    config: WanTransformerConfig,
    places: int,
    blocks: tuple[int, ...],
    past: tuple[int, ...],
    words: int,
    depth: int,
) -> int:
    """One stream through `depth` layers, with what embeds it, of one sample; one diffusion time a frame."""
    d, frames = config.dim, sum(blocks)
    tokens = frames * places
    pairs = sum(own * places * (own + before) * places for own, before in zip(blocks, past)) + tokens * words
    layer = 2 * tokens * (6 * d * d + 2 * d * config.ffn_dim) + 4 * d * pairs
    patch = config.in_channels * config.patch_size**2
    return depth * layer + 2 * tokens * patch * d + 2 * frames * d * (config.freq_dim + 7 * d)


def _head(config: WanTransformerConfig, places: int, frames: int) -> int:
    return 2 * frames * places * config.dim * config.latent_channels * config.patch_size**2
