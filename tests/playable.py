"""A small random model that can be played: keys and an axis, two frames a step."""

import torch

from video_gen.model.diffusion_config import DiffusionConfig
from video_gen.model.text import ByteTextEncoder
from video_gen.model.transformer import VideoTransformer
from video_gen.model.transformer_config import TextConfig, TransformerConfig
from video_gen.model.vae_config import VAEConfig
from video_gen.model.video_vae import VideoVAE
from video_gen.sampling.config import ClipSettings, SamplingConfig
from video_gen.sampling.pipeline import VideoPipeline
from video_gen.vocabulary import Axis, Vocabulary

WORDS = Vocabulary(
    keys=("forward", "left", "open"), axes=(Axis(name="turn", unit="degrees", low=-20, high=20, kind="delta"),), fps=24
)


def playable(seed: int = 0, words: Vocabulary | None = WORDS) -> VideoPipeline:
    """Sensitive to prompt, history and actions; 2 frames a step, 16x16."""
    torch.manual_seed(seed)
    vae = VideoVAE(VAEConfig(spatial_stride=4, temporal_stride=2, latent_channels=4, widths=(16,), stem=4)).eval()
    vae.fit_linear_path(torch.rand(4, 3, 9, 16, 16) * 2 - 1)
    text = ByteTextEncoder(TextConfig(width=16)).eval()
    sizes = dict(latent_channels=4, width=32, depth=2, head_dim=16, text_width=16, sink=1, window=3)
    sizes |= dict(previous=True, warp=True, change=True, inertia=True, strides=(2, 4))
    acts = {} if words is None else dict(actions=words, action_frames=2)
    model = VideoTransformer(TransformerConfig(**sizes, **acts)).eval()
    for parameter in (*model.parameters(), *model.buffers(), *vae.decoder.parameters()):
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    clip = ClipSettings(num_frames=9, fps=24, height=16, width=16)
    sampling = SamplingConfig(num_steps=2, solver="renoise", guidance_scale=1.0)
    return VideoPipeline(vae, model, text, DiffusionConfig(), clip, sampling)
