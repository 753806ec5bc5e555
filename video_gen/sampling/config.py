"""How to sample, and what a model says of itself. No torch here."""

from typing import Annotated, Literal, TypedDict

from pydantic import Field, model_validator

from video_gen.config import Config
from video_gen.data.config import LARGEST, Fps, Frames, WorldName
from video_gen.model.diffusion_config import DiffusionConfig

Solver = Literal["euler", "heun", "two_step", "unipc", "sde", "renoise"]
Spacing = Literal["even", "unipc", "flow_match"]
Family = Literal["video-gen", "wan"]


class SamplingConfig(Config):
    """Solver, steps and guidance."""

    solver: Solver = "two_step"
    """`two_step` (DPM-Solver++ 2M) is the most accurate per model call; `heun` takes two calls per step; `unipc` is what the
    public Wan models are sampled with; `renoise` draws new noise at each step."""
    num_steps: int = Field(default=20, ge=1, le=10_000)
    """Solver steps per block."""
    first_steps: int | None = Field(default=None, ge=1, le=10_000)
    """Solver steps of a video's first block, where it is decided how many objects there are and what they look like; None =
    `num_steps`. A video that goes on from given frames has none such."""
    block_frames: int | None = Field(default=None, ge=1)
    """Latent frames made at once in a clip as long as those of training; None = the whole clip. Its first frame comes first."""
    long_block_frames: int | None = Field(default=None, ge=1)
    """Latent frames made at once in longer videos and streams; None = half a clip of training, the rest being history."""
    first_block_frames: int = Field(default=1, ge=0)
    """Latent frames of a video's first block, where it is made in blocks: 1, since the first frame stands for one pixel frame; 0 =
    as many as the others have, as in public causal models (CausVid, Self-Forcing)."""
    ending_frames: int | None = Field(default=None, ge=1)
    """Latent frames of the end of a video that lead to a given last frame, or close a loop; None = as many as a clip of training
    has."""
    shift: float = Field(default=1.0, gt=0, le=1_000)
    """Steps are spaced as t = shift * u / (1 + (shift - 1) * u), u from 1 to 0 evenly: above 1 spends more on noise."""
    spacing: Spacing = "even"
    """Where u stands. `unipc` and `flow_match` are as the two schedulers of public models have it, whose names these are:
    evenly from 1 to a thousandth, and then at once to 0."""
    times: tuple[float, ...] | None = None
    """The diffusion times of the steps themselves, falling, without the 0 at the end: as many as `num_steps`, in place of `shift`
    and `spacing`, for models that were distilled to a few of them. None = there is no such list."""
    whole_times: int | None = Field(default=None, ge=1, le=1_000_000)
    """The network is told the diffusion time rounded down to one of so many parts, as public models are by their schedulers:
    1000. None = as it is."""
    noise_scale: float = Field(default=1.0, ge=0, le=2)
    """Of the noise that `sde` and `renoise` draw anew, and of all noise with `diffusion.draws`; a little below 1 keeps to what is
    likely, at the price of variety."""
    guidance_scale: float = Field(default=2.0, ge=0, le=1_000)
    """How far to go from the estimate without caption towards and past the one with it; 1 = off, and costs half."""
    late_scale: tuple[float, float] | None = None
    """A diffusion time and the `guidance_scale` from there down to 0: where another expert begins that wants another one.
    None = the same all the way."""
    negative_prompt: str = ""
    """What guidance leads away from, in place of the estimate without caption: what the video is not to look like. "" = the
    caption is left out."""
    history_scale: float = Field(default=1.0, ge=0, le=1_000)
    """The same for the estimates without and with history (history guidance, arXiv:2502.06764); 1 = off. Beside guidance by
    text it costs half as much again."""
    ending_scale: float = Field(default=1.0, ge=0, le=1_000)
    """The same for the estimates without and with a last frame that lies ahead, where one is given; 1 = off. It costs as much."""
    action_scale: float = Field(default=1.0, ge=0, le=1_000)
    """The same for the estimates without and with what is done, in worlds that are played; 1 = off."""
    history_noise: float = Field(default=0.0, ge=0, le=1)
    """Diffusion time of the noise that is put on made frames as they become history, of which the network is told: it hides
    their small faults, which would feed on themselves in a long video (Chen et al. 2024, arXiv:2407.01392). 0 = off. What a
    video begins with stays clean. For models trained with `modes.noisy_history`, up to their `modes.history_noise`."""
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    """Diffusion times at which guidance of either kind is applied (arXiv:2404.07724)."""
    guidance_rescale: float = Field(default=0.0, ge=0, le=1)
    """How far to bring the guided estimate of a frame back to the spread of the unguided one (arXiv:2305.08891)."""
    guidance_parallel: float = Field(default=1.0, ge=0, le=1_000)
    """How much to keep of the part of guidance that lies along the estimate; 0 = none, as APG does (arXiv:2410.02416), for
    high scales without oversaturation; 1 = all."""
    guidance_limit: float | None = Field(default=None, gt=0)
    """Largest root mean square of what guidance adds to a frame, before it is scaled (APG); None = no limit."""
    guidance_optimal_scale: bool = False
    """Scale the weaker velocity to be nearest to the stronger one before they are compared (CFG-Zero*, arXiv:2503.18886)."""
    guidance_zero_init: float = Field(default=0.0, ge=0, le=0.5)
    """Stand still from diffusion time 1 down to 1 minus this (CFG-Zero*; there 0.04); 0 = off. The model is not called then."""

    def steps_of(self, first: bool) -> int:
        """Solver steps of a video's first block, or of another one."""
        return (first and self.first_steps) or self.num_steps

    def guidance_at(self, t: float) -> float:
        """`guidance_scale` at a diffusion time."""
        return (
            self.late_scale[1] if self.late_scale is not None and t < self.late_scale[0] - 1e-6 else self.guidance_scale
        )

    @property
    def guided(self) -> bool:
        """Whether text guides at some time."""
        return self.guidance_scale != 1 or (self.late_scale is not None and self.late_scale[1] != 1)

    @model_validator(mode="after")
    def _times(self):
        if self.times is None:
            return self
        if len(self.times) != self.num_steps or self.first_steps not in (None, self.num_steps):
            raise ValueError(
                f"times are {len(self.times)} and num_steps is {self.num_steps}; give as many of both, or times none"
            )
        if not all(1 >= now > then for now, then in zip(self.times, (*self.times[1:], 0.0))):
            raise ValueError(f"times must fall from at most 1 and stay above 0, got {self.times}")
        return self

    @model_validator(mode="after")
    def _late(self):
        if self.late_scale is not None and not (0 <= self.late_scale[0] <= 1 and self.late_scale[1] >= 0):
            raise ValueError(f"late_scale must be a time in [0, 1] and a scale of 0 or more, got {self.late_scale}")
        return self

    @model_validator(mode="after")
    def _interval(self):
        low, high = self.guidance_interval
        if not 0 <= low <= high <= 1:
            raise ValueError(f"guidance_interval must be two ascending times in [0, 1], got {self.guidance_interval}")
        return self


class Steering(Config):
    """What can change in a stream while it runs."""

    prompts: tuple[str, ...]
    """One per stream; "" is no prompt."""
    sampling: SamplingConfig
    speed: float = Field(default=1.0, ge=0.01, le=100)
    """Of playback: 2 shows the same frames in half the time."""


class SamplingSettings(TypedDict, total=False):
    """The fields of `SamplingConfig`, which says what they mean, as keywords: what is not given is as the model has it.

    All but `block_frames`, which is a keyword beside them.
    """

    solver: Solver
    num_steps: int
    first_steps: int | None
    long_block_frames: int | None
    first_block_frames: int
    ending_frames: int | None
    shift: float
    spacing: Spacing
    times: tuple[float, ...] | None
    whole_times: int | None
    noise_scale: float
    guidance_scale: float
    late_scale: tuple[float, float] | None
    negative_prompt: str
    history_scale: float
    ending_scale: float
    action_scale: float
    history_noise: float
    guidance_interval: tuple[float, float]
    guidance_rescale: float
    guidance_parallel: float
    guidance_limit: float | None
    guidance_optimal_scale: bool
    guidance_zero_init: float


Side = Annotated[int, Field(ge=1, le=LARGEST)]


class ClipSettings(Config):
    """The clips a model was trained on: what it makes unless told otherwise."""

    num_frames: Frames
    fps: Fps
    height: Side
    width: Side


class PipelineConfig(Config):
    """What a model folder holds besides the weights: `model.json`."""

    clip: ClipSettings
    diffusion: DiffusionConfig
    sampling: SamplingConfig
    world: WorldName = "unknown"
    """The built-in world of whose clips it was trained on."""
    maze: tuple[int, int] | None = None
    """Of a model of the world `maze`: the world's seed, and how many layouts it has."""
    family: Family = "video-gen"
    """Whose networks its vae/ and transformer/ are."""
    boundary: float | None = Field(default=None, gt=0, lt=1)
    """Of two experts: the diffusion time below which transformer_2/ is asked in place of transformer/. None = there is one."""
