"""The whole configuration of a training run: what `configs/*.yaml` hold and the command line overrides. No torch here."""

from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from video_gen.config import Config
from video_gen.data.config import ClipConfig
from video_gen.model.diffusion_config import DiffusionConfig
from video_gen.model.transformer_config import PRESETS as TRANSFORMER_PRESETS
from video_gen.model.transformer_config import TextConfig, TransformerConfig
from video_gen.model.vae_config import PRESETS as VAE_PRESETS
from video_gen.model.vae_config import VAEConfig
from video_gen.sampling.config import SamplingConfig
from video_gen.training.config import LoopConfig, OptimConfig, ParallelConfig


def expand_preset(values: Any, key: str, presets: dict[str, dict[str, Any]]) -> Any:
    """In `values[key]`, replace `preset: name` by what the preset stands for; keys beside it win."""
    part = values.get(key) if isinstance(values, dict) else None
    if not isinstance(part, dict) or "preset" not in part:
        return values
    name = part["preset"]
    if name not in presets:
        raise ValueError(f"{key}.preset is '{name}'; there are {', '.join(presets)}")
    return values | {key: presets[name] | {k: v for k, v in part.items() if k != "preset"}}


class VAELossConfig(Config):
    """What the VAE is trained for, besides the weight 1 of the Charbonnier distance of pixels."""

    charbonnier_epsilon: float = Field(default=0.02, gt=0)
    """Below this difference (of a range of 2) the loss is quadratic, above it linear."""
    mse: float = Field(default=0.0, ge=0)
    """Weight of the mean squared error."""
    spatial_gradient: float = Field(default=0.5, ge=0)
    """Weight of the distance of differences between neighbouring pixels."""
    temporal_gradient: float = Field(default=0.5, ge=0)
    """Weight of the distance of differences between successive frames: against flicker."""
    kl: float = Field(default=1e-5, ge=0)
    """Weight of the Kullback-Leibler divergence to the unit Gaussian, per latent value."""
    adversarial: float = Field(default=0.0, ge=0)
    """Weight of a 3D patch discriminator; 0 leaves it out."""
    adversarial_start: int = Field(default=1000, ge=0)
    """Step from which the decoder listens to the discriminator."""
    lpips: float = Field(default=0.0, ge=0)
    """Weight of LPIPS over frames; needs the `lpips` package and its weights on disk."""


class VAERun(Config):
    """Train a VideoVAE."""

    data: ClipConfig = ClipConfig()
    vae: VAEConfig = VAEConfig()
    loss: VAELossConfig = VAELossConfig()
    image_fraction: float = Field(default=0.1, ge=0, le=1)
    """Share of the steps that train on single frames, as images; images of the data set come on top."""
    statistics_clips: int = Field(default=256, ge=1)
    """Clips of which the latents' mean and standard deviation are measured after training."""
    loop: LoopConfig = LoopConfig()
    optim: OptimConfig = OptimConfig()
    parallel: ParallelConfig = ParallelConfig()

    @model_validator(mode="before")
    @classmethod
    def _presets(cls, values: Any) -> Any:
        return expand_preset(values, "vae", VAE_PRESETS)


class ModeConfig(Config):
    """Which use of the model a training step practises."""

    teacher_forcing: float = Field(default=0.7, ge=0, le=1)
    """Share of steps with clean history, block after block; the rest are bidirectional, the whole clip one block."""
    block_sizes: tuple[int, ...] = (1, 2, 4)
    """Latent frames per block, drawn per step; the first frame of a video is always a block of its own."""
    text_dropout: float = Field(default=0.1, ge=0, le=1)
    """Share of samples without caption, for guidance."""
    history_dropout: float = Field(default=0.1, ge=0, le=1)
    """Share of samples that see no history."""
    noisy_history: float = Field(default=0.5, ge=0, le=1)
    """Share of samples with noise on the history, which the network is told."""
    history_noise: float = Field(default=0.4, ge=0, le=1)
    """Largest diffusion time of that noise; drawn uniformly per frame from 0."""


class DiffusionRun(Config):
    """Train a VideoTransformer on the latents of a VAE."""

    data: ClipConfig = ClipConfig()
    vae: Path = Path("runs/vae/model/vae")
    """The VAE's folder: vae/ of a model folder."""
    latents: Path = Path("runs/latents")
    """Where latents are kept; what is missing is encoded first."""
    transformer: TransformerConfig = TransformerConfig()
    """latent_channels and text_width are taken from the VAE and the text encoder."""
    text: TextConfig = TextConfig()
    diffusion: DiffusionConfig = DiffusionConfig()
    modes: ModeConfig = ModeConfig()
    sampling: SamplingConfig = SamplingConfig()
    """For the samples on the way, and the default of the trained model."""
    num_samples: int = Field(default=8, ge=1)
    """Videos per set of samples."""
    loop: LoopConfig = LoopConfig()
    optim: OptimConfig = OptimConfig()
    parallel: ParallelConfig = ParallelConfig()

    @model_validator(mode="before")
    @classmethod
    def _presets(cls, values: Any) -> Any:
        return expand_preset(values, "transformer", TRANSFORMER_PRESETS)
