"""The whole configuration of a training run: what `configs/*.yaml` hold and the command line overrides. No torch here."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from video_gen.config import HIDDEN, Config, validate
from video_gen.data.config import ClipConfig
from video_gen.model.diffusion_config import DiffusionConfig
from video_gen.model.lora_config import LoraConfig
from video_gen.model.transformer_config import PRESETS as TRANSFORMER_PRESETS
from video_gen.model.transformer_config import TextConfig, TransformerConfig
from video_gen.model.vae_config import PRESETS as VAE_PRESETS
from video_gen.model.vae_config import VAEConfig
from video_gen.model.wan.config import WanTransformerConfig
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
    feature_matching: float = Field(default=0.0, ge=0)
    """Weight of how unlike clip and reconstruction are to the discriminator's layers, which learn on these very clips what to look
    at; from `adversarial_start` on."""
    lpips: float = Field(default=0.0, ge=0)
    """Weight of LPIPS, how unlike frames look to a network, whose weights are yours: `lpips_weights`."""
    lpips_weights: Path | None = None
    """A .safetensors of LPIPS with AlexNet, as `evaluate footage --lpips` takes it."""
    frequency: float = Field(default=0.0, ge=0)
    """Weight of the distance of frames' Fourier coefficients: of fine texture, which is small in pixels, it takes more notice."""
    scale_equivariance: float = Field(default=0.0, ge=0)
    """Weight of how unlike halved latents, decoded, are to the halved video. Latents then have little that the picture does not
    ask for, and are easier to generate (Skorokhodov et al. 2025, arXiv:2502.14831). It costs a quarter of a decoding."""

    @model_validator(mode="after")
    def _needs(self):
        if bool(self.lpips) != (self.lpips_weights is not None):
            raise ValueError("lpips and lpips_weights belong together; give a weight and a file, or neither")
        if self.feature_matching and not self.adversarial:
            raise ValueError(
                f"feature_matching is {self.feature_matching:g}, but adversarial is 0: there is no discriminator; set that, too"
            )
        return self


class VAERun(Config):
    """Train a VideoVAE."""

    data: ClipConfig = ClipConfig()
    vae: VAEConfig = VAEConfig()
    loss: VAELossConfig = VAELossConfig()
    image_fraction: float = Field(default=0.1, ge=0, le=1)
    """Share of the steps that train on single frames, as images; images of the data set come on top."""
    crop: int | None = Field(default=None, ge=8, le=16_384)
    """Side in pixels of the square cut out of each clip, anew at each step: more samples a second, and more to see in few
    clips. Validation sees them whole. None = whole clips."""
    statistics_clips: int = Field(default=256, ge=1)
    """Clips of which the latents' mean and standard deviation are measured after training."""
    channel_weight: float = Field(default=0.0, ge=0, le=1)
    """How large each channel of the latents is for whoever models them: 0 = all have unit variance; 1 = as much as they change the
    picture, their mean variance being 1. Then a small model learns first what is seen most."""
    init: Path | None = None
    """A VAE's folder, a model folder or a Hub id whose weights to start from; its sizes must be the run's."""
    loop: LoopConfig = LoopConfig()
    optim: OptimConfig = OptimConfig()
    parallel: ParallelConfig = ParallelConfig()

    @model_validator(mode="before")
    @classmethod
    def _presets(cls, values: Any) -> Any:
        return expand_preset(values, "vae", VAE_PRESETS)

    @model_validator(mode="after")
    def _crop(self):
        if self.crop is not None:
            stride, least = self.vae.spatial_stride, min(min(size[1:]) for size in self.data.sizes)
            if self.crop % stride or self.crop > least:
                raise ValueError(
                    f"crop {self.crop} must be a multiple of the VAE's spatial stride {stride}, and at most {least}, the "
                    "smallest side of a clip"
                )
        sides = {self.crop} if self.crop is not None else {side for size in self.data.sizes for side in size[1:]}
        if self.loss.scale_equivariance and (odd := [x for x in sides if x % (2 * self.vae.spatial_stride)]):
            raise ValueError(
                f"loss.scale_equivariance halves latents, so sides of clips must be multiples of {2 * self.vae.spatial_stride}, "
                f"and one is {odd[0]}; choose such sizes, or a crop"
            )
        return self


class ModeConfig(Config):
    """Which use of the model a training step practises."""

    teacher_forcing: float = Field(default=0.7, ge=0, le=1)
    """Share of steps with clean history, block after block; the rest are bidirectional, the whole clip one block."""
    block_sizes: tuple[Annotated[int, Field(ge=1, le=100_000)], ...] = Field(default=(1, 2, 4), min_length=1)
    """Latent frames per block, drawn per step; the first frame of a video is always a block of its own."""
    text_dropout: float = Field(default=0.1, ge=0, le=1)
    """Share of samples without caption, for guidance."""
    action_dropout: float = Field(default=0.1, ge=0, le=1)
    """Of data with actions: share of samples that are not told what leads to the frames they make, for guidance by it; and, drawn
    apart, of those that are not told what led to their history, as where a video without actions is gone on with."""
    history_dropout: float = Field(default=0.1, ge=0, le=1)
    """Share of samples that see no history."""
    noisy_history: float = Field(default=0.5, ge=0, le=1)
    """Share of samples with noise on the history, which the network is told."""
    history_noise: float = Field(default=0.4, ge=0, le=1)
    """Largest diffusion time of that noise; drawn uniformly per frame from 0."""
    resampled_history: float = Field(default=0.0, ge=0, le=1)
    """Share of samples whose history the model makes again itself, so that it learns to live with its own faults: against
    drift. Its first block is kept, as what a video begins with. It costs two more passes, without gradient."""
    resampled_noise: float = Field(default=0.8, gt=0, le=1)
    """Largest diffusion time from which that history is made again; drawn uniformly per sample from 0."""
    resampled_rounds: int = Field(default=1, ge=1, le=100)
    """Most times that it is made again, each time after the one made before, so that faults add up as they do in a long video;
    drawn uniformly per step from 1. Each costs two more passes."""
    still_frames: float = Field(default=0.0, ge=0)
    """Above 0, frames count the more the less they differ from the one before: by 1 / (mean square of the difference + this), of
    latents, whose own is about 1. What stands still is easy, and a mean over all hardly asks for it. 0 = all count alike. Where
    nothing tells beforehand that a frame will be still, it asks to guess so: then `still_clips`."""
    still_clips: float = Field(default=0.0, ge=0)
    """Above 0, frames count likewise by how little those of their clip differ from each other: as a mean of clips in dB asks."""
    pictures: float = Field(default=0.5, ge=0, le=1)
    """Of a public model that can begin with a picture or without (Wan 2.2's 5B): share of samples that begin with their clip's
    first frame. Image to video always does, and other models never."""
    endings: float = Field(default=0.0, ge=0, le=1)
    """Share of samples that are shown the clip's last frame, as a picture that lies ahead, and learn to lead there: for
    `last_image` and `loop`. Clips that are `led` are always shown it. 0 = none; such clips are refused then."""

    @model_validator(mode="after")
    def _still(self):
        if self.still_frames and self.still_clips:
            raise ValueError("still_frames and still_clips both say how much frames count; set one of them to 0")
        return self


class Stage(Config):
    """What a stage of a curriculum changes of its run; what it does not name stays."""

    data: dict[str, Any] = Field(default_factory=dict)
    """Fields of ClipConfig, such as num_frames, height, width and buckets."""
    modes: dict[str, Any] = Field(default_factory=dict)
    """Fields of ModeConfig."""
    diffusion: dict[str, Any] = Field(default_factory=dict)
    """Fields of DiffusionConfig, such as shift."""
    loop: dict[str, Any] = Field(default_factory=dict)
    """Fields of LoopConfig, such as train_steps and batch_size."""
    optim: dict[str, Any] = Field(default_factory=dict)
    """Fields of OptimConfig, such as learning_rate."""


class RoutingConfig(Config):
    """Token routing: some places of every frame skip the middle layers in training (model/routing.py)."""

    skip: float = Field(default=0.0, ge=0, lt=1)
    """Share of the places that skip; 0 = off."""
    first: int = Field(default=1, ge=0)
    """Layers at the start that all places go through."""
    last: int = Field(default=1, ge=1)
    """Layers at the end that all places go through."""
    dense_share: float = Field(default=0.2, ge=0, le=1)
    """Share of the steps, at the end of training, in which no place skips: the model is used like that."""


def _family(value: Any) -> str:
    told = set(value) if isinstance(value, Mapping) else set()
    its_own = set(WanTransformerConfig.model_fields) - set(TransformerConfig.model_fields)
    return "Wan" if isinstance(value, WanTransformerConfig) or told & its_own else "own"


Transformers = Annotated[
    Annotated[TransformerConfig, Tag("own")] | Annotated[WanTransformerConfig, Tag("Wan")], Discriminator(_family)
]
"""Told apart by the keys that only one of them has, so that a mistake is told once."""


class DiffusionRun(Config):
    """Train a VideoTransformer on the latents of a VAE."""

    data: ClipConfig = ClipConfig()
    vae: Path = Path("runs/vae/model/vae")
    """The VAE's folder: vae/ of a model folder."""
    latents: Path = Path("runs/latents")
    """Where latents are kept; what is missing is encoded first."""
    transformer: Transformers = TransformerConfig()
    """latent_channels, text_width and actions are taken from the VAE, the text encoder and the data."""
    text: TextConfig = TextConfig()
    diffusion: DiffusionConfig = DiffusionConfig()
    modes: ModeConfig = ModeConfig()
    routing: RoutingConfig = RoutingConfig()
    sampling: SamplingConfig = SamplingConfig()
    """For the samples on the way, and the default of the trained model."""
    num_samples: int = Field(default=8, ge=1, le=10_000)
    """Videos per set of samples."""
    init: Path | None = None
    """A model folder or Hub id whose weights to start from: fine-tuning. It brings its VAE, text encoder and sizes, its ways of
    diffusion and sampling, where the run says nothing of them; a public model (docs/public-models.md) always."""
    expert: Literal["high", "low"] | None = None
    """Of an `init` with two experts the one that is trained, at its diffusion times alone: that for much noise, or for little."""
    lora: LoraConfig = LoraConfig()
    """Leave the weights of `init` as they are, and train an adapter of them."""
    stages: Annotated[tuple[Stage, ...], HIDDEN] = ()
    """A curriculum: each stage is a run of its own, in stage-1/, stage-2/, ... of the run's folder, and starts from the
    averaged weights of the one before; its optimiser and learning rate start anew. Can be set in YAML only."""
    loop: LoopConfig = LoopConfig()
    optim: OptimConfig = OptimConfig()
    parallel: ParallelConfig = ParallelConfig()

    @model_validator(mode="before")
    @classmethod
    def _presets(cls, values: Any) -> Any:
        return expand_preset(values, "transformer", TRANSFORMER_PRESETS)

    @model_validator(mode="after")
    def _stages(self):
        self.stage_runs()
        return self

    def stage_runs(self) -> "list[DiffusionRun]":
        """The run of each stage; the run itself if it has none. Raises: ConfigError that names the stage and the field."""
        runs = []
        for number, stage in enumerate(self.stages, 1):
            changes = {
                name: validate(type(part), part.model_dump() | getattr(stage, name), f"stages, number {number}, {name}")
                for name, part in ((name, getattr(self, name)) for name in Stage.model_fields)
            }
            runs.append(self.model_copy(update=changes | {"stages": ()}))
        return runs or [self]

    @model_validator(mode="after")
    def _copies(self):
        own = isinstance(self.transformer, TransformerConfig)
        if own and self.transformer.previous and self.diffusion.prediction != "denoised":
            raise ValueError(
                f"transformer.previous copies frames, and diffusion.prediction {self.diffusion.prediction} makes none; "
                "set it to denoised"
            )
        return self

    @model_validator(mode="after")
    def _adapters(self):
        if self.lora.rank and self.init is None:
            raise ValueError(
                f"lora.rank is {self.lora.rank}, and init names no model that it is to be an adapter of; set init"
            )
        if self.lora.rank and self.optim.adam_names:
            raise ValueError(
                f"optim.adam_names {' '.join(self.optim.adam_names)} are of the weights themselves, which a LoRA leaves as they "
                "are; leave them out, and set optim.optimizer to adamw"
            )
        if self.lora.rank and self.lora.base == "bf16" and self.loop.precision == "float32":
            raise ValueError(
                "lora.base is bf16 and loop.precision float32; set lora.base to fp32, or loop.precision to bf16"
            )
        return self

    @model_validator(mode="after")
    def _offloaded(self):
        if self.lora.offload == "off":
            return self
        wrong = [("checkpointing", "selective"), ("compile", "on")]
        wrong += [("checkpointing", "off")] if self.lora.offload == "tokens" else []
        for name, value in wrong:
            if getattr(self.loop, name) == value:
                raise ValueError(
                    f"loop.{name} is {value}, which does not go with lora.offload {self.lora.offload}; change one"
                )
        return self

    @model_validator(mode="after")
    def _whole_endings(self):
        for name, shares in (("routing.skip", self.routing.skip > 0), ("parallel.context", self.parallel.context > 1)):
            if self.modes.endings and shares:
                raise ValueError(
                    f"modes.endings shows frames whole, and {name} shares out their places; leave one of them out"
                )
        return self

    @model_validator(mode="after")
    def _routed_layers(self):
        first, last, depth = self.routing.first, self.routing.last, self.transformer.depth
        if self.routing.skip and first + last >= depth:
            raise ValueError(
                f"routing.first {first} and routing.last {last} leave none of transformer.depth {depth} to skip; lower them"
            )
        return self


class DistillConfig(Config):
    """How a student learns from its teacher."""

    method: Literal["consistency", "matching"] = "consistency"
    """`consistency`: alike answers along the teacher's trajectory, fast and stable (training/distill_task.py). `matching`: the
    student's own videos become as likely under it as under the teacher (training/matching_task.py); best after the other."""
    guidance_scale: float | None = Field(default=None, ge=0)
    """Guidance of the teacher by text, which the student has built in; None = the teacher's own default. What else a teacher's
    guidance is set to (by history, interval, rescale) is not."""
    teacher_steps: int = Field(default=32, ge=2, le=10_000)
    """`consistency`: steps of the teacher from noise to latents; the student's answers are compared one such step apart. Few
    are learned sooner, many are more exact."""
    stop: float = Field(default=0.0, ge=0, lt=1)
    """`consistency`: time at which the trajectory ends in the teacher's estimate of what is there. Above 0 the last details
    are the teacher's mean instead of one draw: closer on average, and sooner learned."""
    huber: float = Field(default=0.1, gt=0)
    """`consistency`: distance of frames, in latents of unit variance, above which the loss is linear."""
    critic_steps: int = Field(default=2, ge=1, le=1_000)
    """`matching`: the student moves at one step in so many, the critic at each."""


class DistillRun(Config):
    """Distil a trained model into one that takes few steps, one call each."""

    teacher: Path = Path("runs/diffusion/model")
    """The teacher's model folder. The student is as large, and starts from its weights unless `init` is given."""
    init: Path | None = None
    """A model folder from whose weights the student starts, such as an earlier student of the same teacher."""
    data: ClipConfig = ClipConfig()
    latents: Path = Path("runs/latents")
    """Where latents are kept; what is missing is encoded first."""
    distill: DistillConfig = DistillConfig()
    modes: ModeConfig = ModeConfig(history_dropout=0.0)
    sampling: SamplingConfig = SamplingConfig(solver="renoise", num_steps=4, guidance_scale=1.0)
    """For the samples on the way, and the default of the student; block_frames is the teacher's unless it is given."""
    num_samples: int = Field(default=8, ge=1, le=10_000)
    """Videos per set of samples."""
    loop: LoopConfig = LoopConfig()
    optim: OptimConfig = OptimConfig()

    @property
    def vae(self) -> Path:
        """The teacher's VAE, which is the student's."""
        return self.teacher / "vae"

    @model_validator(mode="after")
    def _endings(self):
        if self.modes.endings and self.distill.method == "matching":
            raise ValueError(
                f"modes.endings is {self.modes.endings:g}, but by matching a student makes its own clips, which lead nowhere; set "
                "it to 0, or distil by consistency"
            )
        return self
