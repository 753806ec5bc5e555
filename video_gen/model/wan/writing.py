"""Wan transformers and VAEs as other tools read them: diffusers' folders, and bare files under the original release's names."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from video_gen.files import write_tensors, write_text
from video_gen.model.wan.config import WanTransformerConfig
from video_gen.model.wan.names import to_diffusers
from video_gen.model.wan.transformer import WanTransformer
from video_gen.model.wan.vae import WanVAE
from video_gen.model.wan.vae_names import config_to_diffusers
from video_gen.model.wan.vae_names import to_diffusers as vae_to_diffusers

WEIGHTS = "diffusion_pytorch_model.safetensors"
ROPE_POSITIONS = 1024
"""Of diffusers' tables of rotary positions, which the releases have."""


def transformer_config(config: WanTransformerConfig) -> dict[str, Any]:
    """What the config.json of diffusers' WanTransformer3DModel says."""
    return {
        "_class_name": "WanTransformer3DModel",
        "patch_size": [1, config.patch_size, config.patch_size],
        "num_attention_heads": config.num_heads,
        "attention_head_dim": config.head_dim,
        "in_channels": config.in_channels,
        "out_channels": config.latent_channels,
        "text_dim": config.text_width,
        "freq_dim": config.freq_dim,
        "ffn_dim": config.ffn_dim,
        "num_layers": config.depth,
        "cross_attn_norm": True,
        "qk_norm": "rms_norm_across_heads",
        "eps": config.eps,
        "image_dim": config.image_width,
        "added_kv_proj_dim": config.dim if config.image_width else None,
        "rope_max_seq_len": ROPE_POSITIONS,
        "pos_embed_seq_len": config.image_positions,
    }


def state_of(model: WanTransformer, dtype: torch.dtype) -> dict[str, Tensor]:
    """Its tensors, in `dtype` but for the small ones that are better left in float32."""
    return {name: x if is_small(name) else x.to(dtype) for name, x in model.state_dict().items()}


def is_small(name: str) -> bool:
    """Whether a parameter is one of the few that the releases, and diffusers, use in float32 where others are in half precision."""
    return name.startswith("time_embedding.") or name.endswith("modulation") or ".norm" in name


def write_transformer(model: WanTransformer, folder: Path, dtype: torch.dtype) -> None:
    """As diffusers' `WanTransformer3DModel.from_pretrained` reads it. Raises: DataError if it cannot be written."""
    write_tensors(folder / WEIGHTS, {to_diffusers(n): x for n, x in state_of(model, dtype).items()}, {"format": "pt"})
    write_text(folder / "config.json", json.dumps(transformer_config(model.config), indent=2))


def write_transformer_file(model: WanTransformer, file: Path, dtype: torch.dtype) -> None:
    """One file under the original names, without a prefix, as ComfyUI's loader of diffusion models reads it."""
    write_tensors(file, state_of(model, dtype), {"format": "pt"})


def write_vae(vae: WanVAE, folder: Path) -> None:
    """As diffusers' `AutoencoderKLWan.from_pretrained` reads it, in float32. Raises: DataError if it cannot be written."""
    config = vae.config
    write_tensors(
        folder / WEIGHTS, vae_to_diffusers(vae.state_dict(), config.blocks, config.shortcuts), {"format": "pt"}
    )
    write_text(folder / "config.json", json.dumps(config_to_diffusers(config), indent=2))
