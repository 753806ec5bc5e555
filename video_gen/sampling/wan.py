"""How public Wan models are sampled: by their scheduler's files, and where weights come bare as their release does."""

import math
from typing import Any

from video_gen.config import check_known, validate
from video_gen.errors import ConfigError
from video_gen.model.diffusion_config import DiffusionConfig
from video_gen.model.foreign import Found
from video_gen.model.wan.config import WanTransformerConfig
from video_gen.sampling.config import ClipSettings, PipelineConfig, SamplingConfig
from video_gen.sampling.solvers import PARTS

NEGATIVE_PROMPT = (
    "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，低质量，JPEG压缩残留，丑陋的，残缺的，多余的手指，画得不好的手部，"
    "画得不好的脸部，畸形的，毁容的，形态畸形的肢体，手指融合，静止不动的画面，杂乱的背景，三条腿，背景人很多，倒着走"
)
"""Of the whole family. Source: Wan-Video/Wan2.1, wan/configs/shared_config.py, `sample_neg_prompt`."""
SHAKING = "镜头晃动，"
"""In front of it, of 2.1's image to video. Source: the same, wan_i2v_14B.py."""
SMALL, LARGE = dict(height=480, width=832), dict(height=704, width=1280)
CLIP_16, CLIP_24 = dict(num_frames=81, fps=16.0), dict(num_frames=121, fps=24.0)

RELEASES: dict[str, dict[str, Any]] = {
    "2.1-t2v": dict(sampling=dict(shift=5.0, num_steps=50, guidance_scale=5.0), clip=SMALL | CLIP_16),
    "2.1-i2v": dict(sampling=dict(shift=5.0, num_steps=40, guidance_scale=5.0), clip=SMALL | CLIP_16),
    "2.1-flf2v": dict(sampling=dict(shift=16.0, num_steps=50, guidance_scale=5.0), clip=SMALL | CLIP_16),
    "2.2-ti2v": dict(sampling=dict(shift=5.0, num_steps=50, guidance_scale=5.0), clip=LARGE | CLIP_24),
    "2.2-a14b-t2v": dict(sampling=dict(shift=12.0, num_steps=40, guidance_scale=4.0), late=3.0, clip=SMALL | CLIP_16),
    "2.2-a14b-i2v": dict(sampling=dict(shift=5.0, num_steps=40, guidance_scale=3.5), late=3.5, clip=SMALL | CLIP_16),
}
"""Shift, steps, guidance (`late`: the low-noise expert's), frames and rate of each release; height and width are the smaller of
those that it was trained for. Source: generate.py and wan/configs/ of Wan-Video/Wan2.1 and Wan-Video/Wan2.2."""


def release_of(config: WanTransformerConfig, experts: bool) -> str:
    """Which of `RELEASES` a transformer is, by how pictures come in."""
    pictures = config.beside_channels > 0
    if config.first_frame:
        return "2.2-ti2v"
    if experts:
        return "2.2-a14b-i2v" if pictures else "2.2-a14b-t2v"
    if config.image_positions:
        return "2.1-flf2v"
    return "2.1-i2v" if pictures else "2.1-t2v"


def pipeline_config(found: Found, config: WanTransformerConfig, boundary: float | None) -> PipelineConfig:
    """How the model is sampled unless told otherwise.

    Args: boundary: diffusion time at which the second of two experts begins; None = there is one transformer.
    Raises: ConfigError for a scheduler that is not known here.
    """
    release = release_of(config, boundary is not None)
    known = RELEASES[release]
    values: dict[str, Any] = known["sampling"] | UNIPC
    values["negative_prompt"] = (SHAKING if release == "2.1-i2v" else "") + NEGATIVE_PROMPT
    if boundary is not None and known.get("late", values["guidance_scale"]) != values["guidance_scale"]:
        values["late_scale"] = (boundary, known["late"])
    if found.is_diffusers:
        values |= schedule_of(found.scheduler, f"{found.root}/scheduler/scheduler_config.json")
    sampling = validate(SamplingConfig, values, source=str(found.root))
    return PipelineConfig(
        clip=ClipSettings(**known["clip"]),
        diffusion=DiffusionConfig(shift=sampling.shift),
        sampling=sampling,
        family="wan",
        boundary=boundary,
    )


UNIPC: dict[str, Any] = dict(solver="unipc", spacing="unipc", whole_times=PARTS)
"""The solver of the releases, whose network is told whole thousandths of time."""
SCHEDULERS: dict[str, dict[str, Any]] = {
    "UniPCMultistepScheduler": UNIPC,
    "FlowMatchEulerDiscreteScheduler": dict(solver="euler", spacing="flow_match", whole_times=None),
}
"""Of diffusers, by the name of the class."""
EXPECTED: dict[str, Any] = dict(
    num_train_timesteps=PARTS, prediction_type="flow_prediction", use_flow_sigmas=True, solver_order=2, solver_type="bh2",
    predict_x0=True, lower_order_final=True, disable_corrector=[], solver_p=None, final_sigmas_type="zero", thresholding=False,
    use_dynamic_shifting=False, use_karras_sigmas=False, use_exponential_sigmas=False, use_beta_sigmas=False,
    shift_terminal=None, invert_sigmas=False, stochastic_sampling=False,
)  # fmt: skip
"""What a scheduler's file must say of these, where it says something."""

HARMLESS = (
    "beta_start", "beta_end", "beta_schedule", "trained_betas", "dynamic_thresholding_ratio",
    "sample_max_value", "timestep_spacing", "steps_offset", "rescale_betas_zero_snr", "time_shift_type", "sigma_min", "sigma_max",
    "base_shift", "max_shift", "base_image_seq_len", "max_image_seq_len",
)  # fmt: skip
"""What else it may say: diffusers does not look at it where sigmas are those of a flow, and nothing is dynamic."""


def schedule_of(told: dict[str, Any], source: str) -> dict[str, Any]:
    """Fields of `SamplingConfig` that a scheduler's file of diffusers decides.

    Raises: ConfigError for a scheduler, or a setting of one, that is not known here.
    """
    name = told.get("_class_name")
    if name not in SCHEDULERS:
        raise ConfigError(f"{source}: is of a {name}, which is not known here; there are {', '.join(SCHEDULERS)}")
    flow = {"prediction_type", "use_flow_sigmas"} if name == "UniPCMultistepScheduler" else set()
    for key, value in EXPECTED.items():
        if (key in told or key in flow) and told.get(key) != value:
            raise ConfigError(f"{source}: {key} is {told.get(key)}, and only {value} is known here; set it so")
    shifted = "flow_shift" if name == "UniPCMultistepScheduler" else "shift"
    check_known(told, (*EXPECTED, *HARMLESS, shifted), source)
    shift = told.get(shifted, 1.0)
    if not isinstance(shift, float | int) or isinstance(shift, bool) or not 0 < shift < math.inf:
        raise ConfigError(f"{source}: its shift is {shift}; it must be a number above 0")
    return SCHEDULERS[name] | {"shift": float(shift)}


def scheduler_of(config: SamplingConfig) -> tuple[dict[str, Any], str | None]:
    """The scheduler's file of diffusers that samples most alike, and in what it differs, if it does."""
    name = next((name for name, values in SCHEDULERS.items() if config.solver == values["solver"]), None)
    lacks = [] if name else [f"no solver like '{config.solver}', and its file says euler"]
    name = name or "FlowMatchEulerDiscreteScheduler"
    values = SCHEDULERS[name]
    if config.times is not None:
        lacks.append(f"no such times as {', '.join(f'{t:g}' for t in config.times)}, and steps of its own")
    elif config.spacing != values["spacing"]:
        lacks.append(f"no spacing like '{config.spacing}', and its is {values['spacing']}")
    if config.whole_times != values["whole_times"]:
        lacks.append(f"whole_times {values['whole_times']}, and here they are {config.whole_times}")
    told = (
        f"diffusers' {name} has {'; '.join(lacks)}: it samples otherwise than this model does here" if lacks else None
    )
    if name == "FlowMatchEulerDiscreteScheduler":
        return {"_class_name": name, "num_train_timesteps": PARTS, "shift": config.shift}, told
    flow = {key: EXPECTED[key] for key in ("num_train_timesteps", "prediction_type", "use_flow_sigmas", "solver_order")}
    return {"_class_name": name, **flow, "solver_type": "bh2", "flow_shift": config.shift}, told
