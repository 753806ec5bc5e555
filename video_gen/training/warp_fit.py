"""What a transformer that moves the frame before takes from the VAE: its strides, and how latents and pixels belong together."""

from typing import Any

import torch

from video_gen.data.latents import LatentSet
from video_gen.errors import ConfigError
from video_gen.model.transformer_config import TransformerConfig
from video_gen.model.vae_config import VAEConfig
from video_gen.model.wan.vae_config import WanVAEConfig
from video_gen.model.warp import Warp
from video_gen.sampling.parts import VAE
from video_gen.training.recipes import DiffusionRun

CLIPS = 64


def warp_sizes(run: DiffusionRun, vae: VAEConfig | WanVAEConfig) -> dict[str, Any]:
    """Fields of the transformer's config."""
    moves = isinstance(run.transformer, TransformerConfig) and run.transformer.warp
    return {"strides": (vae.temporal_stride, vae.spatial_stride)} if moves else {}


@torch.no_grad()
def fit_warp(warp: Warp, vae: VAE, clips: LatentSet) -> None:
    """Fit to what the VAE makes of some of the clips, evenly spread. Raises: ConfigError if all are single pictures."""
    device = next(vae.parameters()).device
    moving = [index for index in range(len(clips)) if clips.frames(index) > 1]
    if not moving:
        raise ConfigError("transformer.warp moves the frame before, and all clips are single pictures; set it to false")
    chosen = (clips[index][None].float().to(device) for index in moving[:: -(-len(moving) // CLIPS)])
    warp.to(device).fit((latents, vae.decode(latents)) for latents in chosen)
