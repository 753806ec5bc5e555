"""Training that starts from another model: what `init` brings with it, which a run need not say. A public one brings it all."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from video_gen.config import Config
from video_gen.errors import ConfigError
from video_gen.model import foreign
from video_gen.model.diffusion_config import DiffusionConfig
from video_gen.model.families import expert_of
from video_gen.model.pretrained import local_folder, read_config
from video_gen.model.transformer import VideoTransformer
from video_gen.model.transformer_config import TextConfig, TransformerConfig
from video_gen.model.wan.config import WanTransformerConfig
from video_gen.model.wan.experts import Experts
from video_gen.model.wan.loading import BOUNDARIES
from video_gen.model.wan.transformer import WanTransformer
from video_gen.sampling.config import PipelineConfig
from video_gen.sampling.model import VideoModel
from video_gen.sampling.parts import Parts, Transformer, parts_of
from video_gen.training.recipes import DiffusionRun, DistillRun

BROUGHT = ("vae", "transformer", "text")
"""What of a run comes from a public model."""


def is_public(path: Path | None) -> bool:
    """Whether a model is of a public family, as it was released or as a model folder of this project."""
    if path is None:
        return False
    place = path if path.is_file() else local_folder(path)
    if (place / "model.json").is_file():
        return read_config(PipelineConfig, place / "model.json").family != "video-gen"
    return foreign.is_foreign(place)


def with_init(run: DiffusionRun, say: Callable[[str], None]) -> DiffusionRun:
    """The run with what `init` brings where the run says nothing of it: VAE, text encoder, sizes, how diffusion time is drawn, and
    how the model is sampled.

    Raises: ConfigError if the run asks for what a public model has not, or says what that brings itself.
    """
    if run.init is None:
        return run
    if is_public(run.init):
        return _with_public(run, say)
    folder = local_folder(run.init)
    if not (folder / "model.json").is_file():  # what loads the weights says what it is not
        return run
    config = read_config(PipelineConfig, folder / "model.json")
    sizes = read_config(TransformerConfig, folder / "transformer" / "config.json")
    sizes = sizes.replace(actions=None, action_frames=None)  # those are the data's
    brought = {"transformer": sizes, "diffusion": config.diffusion, "sampling": config.sampling}
    changes: dict[str, Any] = {name: _with_told(part, getattr(run, name)) for name, part in brought.items()}
    whole = {"vae": folder / "vae", "text": read_config(TextConfig, folder / "text" / "config.json")}
    return run.model_copy(update=changes | {name: x for name, x in whole.items() if name not in run.model_fields_set})


def _with_told(part: Config, told: Config) -> Config:
    """What a model says of a part, with what the run says of it in its place."""
    return part.replace(**{name: getattr(told, name) for name in told.model_fields_set})


def _with_public(run: DiffusionRun, say: Callable[[str], None]) -> DiffusionRun:
    """Whole clips are taught, unless the run says `modes.teacher_forcing`."""
    assert run.init is not None
    for name in BROUGHT:
        if name in run.model_fields_set and getattr(run, name) != type(run).model_fields[name].default:
            raise ConfigError(f"{name}: init is a public model, {run.init}, which brings its own; leave {name} out")
    for name, asked, off in (
        ("modes.endings", run.modes.endings, 0),
        ("routing.skip", run.routing.skip, 0),
        ("diffusion.draws", run.diffusion.draws, 1),
    ):
        if asked != off:
            raise ConfigError(
                f"{name} is {asked:g}, and init, {run.init}, is of a family that knows no such thing; set it to {off}"
            )
    parts = parts_of(run.init)
    changes: dict[str, Any] = {
        "vae": run.init,
        "transformer": parts.sizes(),
        "text": parts.text_config,
        "sampling": _with_told(parts.config.sampling, run.sampling),
        "diffusion": _with_told(parts.config.diffusion, run.diffusion),
    }
    changes |= _of_expert(run, changes["diffusion"], parts, say)
    if "teacher_forcing" not in run.modes.model_fields_set:
        say(f"{run.init}: makes clips in one go, and is trained so (modes.teacher_forcing 0)")
        changes["modes"] = run.modes.replace(teacher_forcing=0.0)
    return run.model_copy(update=changes)


def _of_expert(
    run: DiffusionRun, diffusion: DiffusionConfig, parts: Parts, say: Callable[[str], None]
) -> dict[str, Any]:
    """What else changes where one of two experts is trained: the times that it is asked at, and no samples on the way.

    Raises: ConfigError if there are two, and none is named; or one is, and there are none.
    """
    boundary, named = (
        parts.config.boundary,
        expert_of(run.init) if run.init is not None and run.init.is_file() else None,
    )
    expert = run.expert or named
    if boundary is None and expert is None:
        return {}
    if expert is None:
        raise ConfigError(
            f"init: {run.init} has two experts, which are not trained together; say which one: expert high, or low"
        )
    if boundary is None and named is None:
        raise ConfigError(f"expert is {expert}, and init, {run.init}, has no two experts; leave expert out")
    at = BOUNDARIES[False] if boundary is None else boundary
    times = (at, 1.0) if expert == "high" else (0.0, at)
    say(
        f"{run.init}: its expert for {expert} noise is trained, at times {times[0]:g} to {times[1]:g}; samples take both, and wait"
    )
    if "times" in run.diffusion.model_fields_set:
        times = run.diffusion.times
    return {"expert": expert, "diffusion": diffusion.replace(times=times), "loop": run.loop.replace(sample_every=0)}


def of_expert(transformer: Transformer, expert: str | None) -> Transformer:
    """The expert that is trained; of a model without experts itself."""
    return getattr(transformer, expert) if isinstance(transformer, Experts) and expert else transformer


def new_transformer(config: TransformerConfig | WanTransformerConfig) -> VideoTransformer | WanTransformer:
    """Of fresh weights."""
    return WanTransformer(config) if isinstance(config, WanTransformerConfig) else VideoTransformer(config)


def public_transformer(run: DiffusionRun, start: Path) -> WanTransformer:
    """The transformer to train, its weights kept as a LoRA's base is to keep them.

    Raises: ConfigError if it is one that is not trained here.
    """
    transformer = of_expert(parts_of(start).transformer(run.lora.base if run.lora.rank else "fp32"), run.expert)
    assert isinstance(transformer, WanTransformer)  # the only public family
    return transformer


# -------------------- distilling


def with_public_teacher(run: DistillRun, teacher: VideoModel, say: Callable[[str], None]) -> DistillRun:
    """The run with what a public teacher asks for: as it was released it knows whole clips alone, and so does its student, unless
    the run says `modes.teacher_forcing`.

    Raises: ConfigError for a teacher that is not distilled here, or what it does not know.
    """
    transformer = teacher.transformer
    if isinstance(transformer, VideoTransformer):
        return run
    if isinstance(transformer, Experts):
        raise ConfigError(f"teacher: {run.teacher} has two experts, which are not distilled; take a model with one")
    if transformer.config.beside_channels:
        raise ConfigError(
            f"teacher: {run.teacher} makes videos from a picture beside them, and is not distilled; take one of text to video"
        )
    if run.modes.endings:
        raise ConfigError(
            f"modes.endings is {run.modes.endings:g}, and the teacher, {run.teacher}, is of a family that knows no such thing; set "
            "it to 0"
        )
    released = not (local_folder(run.teacher) / "model.json").is_file() if not run.teacher.is_file() else True
    if not released or "teacher_forcing" in run.modes.model_fields_set:
        return run
    say(f"{run.teacher}: makes clips in one go, and is distilled so (modes.teacher_forcing 0)")
    return run.model_copy(update={"modes": run.modes.replace(teacher_forcing=0.0)})


def fill_student(student: nn.Module, run: DiffusionRun, start: Path) -> None:
    """Give a student the weights of an earlier one of the same teacher. Raises: ConfigError if that has other sizes."""
    found = public_transformer(run, start)
    if found.config != student.config:
        raise ConfigError(f"init: {start} has other sizes than the teacher, {run.init}; give an earlier student of it")
    student.load_state_dict(found.state_dict())
