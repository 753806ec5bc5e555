"""Measuring: a VAE on held-out clips, and motion of generated videos beside that of true and reconstructed ones."""

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch

from video_gen.config import load_yaml
from video_gen.data.captions import random_captions
from video_gen.data.clips import Clips, spread, to_frames, to_video
from video_gen.data.config import ClipConfig, WorldConfig, WorldName, bucket_name
from video_gen.data.worlds import simulate
from video_gen.errors import ConfigError, DataError
from video_gen.evaluation.drift import compare, floors, reconstruct, roll_out
from video_gen.evaluation.drift_report import write_drift_report
from video_gen.evaluation.endings import Ended, Ending, make_endings, measure_endings, true_clips
from video_gen.evaluation.physics import VideoMeasures, measure_video, per_frame, summarise
from video_gen.evaluation.reconstruction import measure_reconstruction
from video_gen.evaluation.steering import (
    STAYS,
    Staying,
    Switched,
    draw_switches,
    measure_staying,
    measure_switches,
    roll_staying,
    roll_switches,
    true_staying,
    true_switches,
)
from video_gen.evaluation.steering_report import write_endings_report, write_steering_report
from video_gen.evaluation.steps import measure_steps, write_steps_report
from video_gen.evaluation.world_check import MadeWorld, ObjectWorld, check_world, choose_world
from video_gen.files import write_text
from video_gen.model.pretrained import local_folder
from video_gen.model.video_vae import VideoVAE
from video_gen.progress import bar
from video_gen.sampling.pipeline import VideoPipeline
from video_gen.training.caches import open_clips
from video_gen.training.known_data import known_data
from video_gen.training.monitor import say
from video_gen.training.parallel import pick_device
from video_gen.training.recipes import VAERun

Device = Literal["auto", "cpu", "cuda"]
BATCH = 8


def evaluate_vae(vae: Path, data: ClipConfig, num_clips: int = 128, device: Device = "auto") -> dict[str, Any]:
    """See `measure_reconstruction`; the clips are the held-out ones of `data`, which is told, too, with their `files`.

    Raises: DataError if nothing is held out.
    """
    model = VideoVAE.from_pretrained(vae_folder(vae)).to(pick_device(device))
    clips = open_clips(data).only("validation")
    if not len(clips):
        raise DataError(
            f"{data.folder}: nothing of it is held out (validation_fraction {data.validation_fraction:g}), so there is nothing "
            "to measure on; give a folder of other clips and --validation-fraction 0.9, or measure on what it has seen with "
            "--validation-fraction 0.2"
        )
    chosen = spread(clips.buckets, num_clips)
    batches = (
        to_video(torch.from_numpy(np.stack([clips[i].video for i in chosen[start : start + BATCH]])))
        for start in range(0, len(chosen), BATCH)
    )
    compression = f"{model.config.temporal_stride}x{model.config.spatial_stride}x{model.config.spatial_stride}"
    found = measure_reconstruction(model, (batch.to(pick_device(device)) for batch in batches))
    files = len({clips.name(i) for i in chosen})
    given = {"compression": f"{compression}, {model.config.latent_channels} channels", "data": describe(data)}
    return given | found | {"files": files}


def clips_of_vae(vae: Path, **said: Any) -> ClipConfig:
    """The clips on which the VAE of a folder was trained, so that what it is measured on was held out.

    Args: said: fields of `ClipConfig` to change; a size takes the place of all buckets.
    """
    folder = vae_folder(vae)
    known = known_data(folder) or _clips_of_run(folder.parent.parent / "config.yaml")
    if known is None:
        say(f"{folder}: nothing tells on what it was trained; what is not said on the command line is the default")
    if "folder" in said and known is not None and Path(said["folder"]) != known.folder:
        said = {"held_out": ()} | said  # its patterns are of files of another folder
    if said.keys() & {"num_frames", "height", "width"}:
        said = {"buckets": ()} | said
    return (known or ClipConfig()).replace(**said)


def vae_folder(path: Path) -> Path:
    """A VAE's folder, or that in a model's folder."""
    folder = local_folder(path)
    return folder / "vae" if (folder / "vae" / "config.json").is_file() else folder


def _clips_of_run(file: Path) -> ClipConfig | None:
    """The data of a VAE's run; None if the file is none of such a run."""
    try:
        return load_yaml(VAERun, file).data if file.is_file() else None
    except ConfigError:
        return None


def describe(data: ClipConfig) -> str:
    """Clips in words."""
    sizes = ", ".join(map(bucket_name, data.sizes))
    share = f"{data.validation_fraction:.3g} of the files are held out (split_seed {data.split_seed})"
    if data.held_out:
        share = f"{', '.join(data.held_out)} held out"
    return f"{sizes} at {data.fps:g} fps, every {data.stride or data.num_frames} frames, of {data.folder}; {share}"


def evaluate_motion(
    model: Path,
    num_videos: int = 64,
    split: Literal["train", "held_out"] = "train",
    seed: int = 10_000,
    device: Device = "auto",
    any_world: bool = False,
    **settings: Any,
) -> dict[str, Any]:
    """Videos from captions of the world `bounce` that no training clip was chosen by, measured.

    Returns: `figures`, `per_frame`, and `notes` on what they mean for a model of another world.
    Raises: ConfigError if the model is of another world, unless `any_world`.
    """
    pipeline = VideoPipeline.from_pretrained(model, pick_device(device))
    _, notes = _world({str(model): pipeline}, "bounce", ("bounce",), any_world)
    captions = random_captions(num_videos, seed, split)
    measures = []
    with bar("sampling", "videos") as progress:
        for start in range(0, num_videos, BATCH):
            chosen = captions[start : start + BATCH]
            seeds = [seed + start + i for i in range(len(chosen))]
            videos = pipeline.generate(chosen, seeds=seeds, **settings)
            measures += [measure_video(v, c) for v, c in zip(videos, chosen)]
            progress(len(measures), num_videos)
    return report_of(measures) | {"notes": notes}


def motion_floors(vae: Path, data: ClipConfig, num_clips: int, device: Device = "auto") -> dict[str, dict[str, Any]]:
    """The same figures of held-out clips of the world as they are, `true`, and as the VAE reconstructs them, `vae`.

    Raises: ConfigError if the clips have no captions of the world `bounce`.
    """
    model = VideoVAE.from_pretrained(vae).to(pick_device(device))
    clips = Clips(data, "validation")
    if not any(clips.captions):
        raise ConfigError(f"{data.folder}: has no captions of the world 'bounce'; render it with `video-gen worlds`")
    indices = spread(clips.buckets, num_clips)
    true: list[VideoMeasures] = []
    made: list[VideoMeasures] = []
    for start in range(0, len(indices), BATCH):
        chosen = [clips[i] for i in indices[start : start + BATCH]]
        video = to_video(torch.from_numpy(np.stack([clip.video for clip in chosen]))).to(pick_device(device))
        with torch.no_grad(), torch.autocast(video.device.type, torch.bfloat16):
            decoded = model.decode(model.encode(video).mean)
        true += [measure_video(clip.video, clip.caption) for clip in chosen]
        made += [measure_video(to_frames(v), clip.caption) for v, clip in zip(decoded, chosen)]
    return {"true": report_of(true), "vae": report_of(made)}


def evaluate_drift(
    models: Sequence[Path],
    output: Path,
    world: MadeWorld | None = None,
    frames: int = 1024,
    num_videos: int = 32,
    seed: int = 10_000,
    device: Device = "auto",
    any_world: bool = False,
    **settings: Any,
) -> dict[str, Any]:
    """Long videos of each model, from captions of a world, beside the world's own; see `evaluation.drift`.

    Args:
        world: default that of the first model.
        output: folder for `drift.json`, `drift.html`, contact sheets and some of the videos.
        frames: index of the last frame, at least 16; the VAE's temporal stride must divide it.
        settings: `block_frames`, and fields of `SamplingConfig`.
    Returns: `indices`; `curves`, by name, of each model and of the floors `true` and `vae`; `speeds` by name; `seconds` that
        sampling took, by model.
    Raises: see `open_models`; ShapeError if `frames` does not fit the VAE; ConfigError if a model is of another world, unless
        `any_world`.
    """
    pipelines = open_models(models, device)
    kind, notes = _world(pipelines, world, get_args(MadeWorld), any_world)
    first = next(iter(pipelines.values()))
    clip = first.config.clip
    size = {"fps": clip.fps, "height": clip.height, "width": clip.width}
    first.vae.latent_shape(frames + 1, clip.height, clip.width)
    true, reconstructed = floors(
        WorldConfig(kind=kind, num_clips=num_videos, num_frames=frames + 1, seed=seed, **size), first.vae
    )
    sets, seconds = {}, {}
    for name, pipeline in pipelines.items():
        start = time.perf_counter()
        with bar(f"sampling {name}", "frames") as progress:
            seeds = [seed + i for i in range(num_videos)]
            sets[name] = roll_out(pipeline, true.captions, seeds, frames + 1, progress, **settings)
        seconds[name] = round(time.perf_counter() - start, 2)
    sets |= {"vae": reconstructed, "true": true}
    found = compare(sets, kind, first.vae.config.temporal_stride) | {"seconds": seconds, "notes": notes}
    output.mkdir(parents=True, exist_ok=True)
    (output / "drift.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
    write_drift_report(output, found, sets, clip.fps)
    return found


def evaluate_steering(
    models: Sequence[Path],
    output: Path,
    switches: int = 60,
    streams: int = 40,
    seconds: Sequence[float] = STAYS,
    seed: int = 10_000,
    device: Device = "auto",
    any_world: bool = False,
    **settings: Any,
) -> dict[str, Any]:
    """Streams of each model whose caption changes, and such whose caption stays; see `evaluation.steering`.

    Args:
        output: folder for `steering.json`, `steering.html` and some of the videos.
        settings: `block_frames`, and fields of `SamplingConfig`.
    Returns: by name of model and of the floors `vae` and `true`: `followed`, `around` and `staying`, each figure with the ends of
        its 95% interval; `delay`, seconds from `steer` to the first frame that can show it.
    Raises: see `open_models`; ConfigError if a model is of another world, unless `any_world`.
    """
    pipelines = open_models(models, device)
    _, notes = _world(pipelines, "bounce", ("bounce",), any_world)
    first = next(iter(pipelines.values()))
    clip, wanted, captions = first.config.clip, draw_switches(switches, seed), random_captions(streams, seed)
    sets: dict[str, Switched] = {}
    staying: dict[str, Staying] = {}
    for name, pipeline in pipelines.items():
        with bar(f"switches {name}", "streams") as progress:
            sets[name] = roll_switches(pipeline, wanted, progress, **settings)
        with bar(f"streams {name}", "frames") as progress:
            staying[name] = roll_staying(pipeline, captions, seed, seconds, progress, **settings)
    true = true_switches(wanted, clip.fps, clip.height, clip.width)
    sets |= {"vae": Switched(reconstruct(true.videos, first.vae)[0], true.at), "true": true}
    staying["true"] = true_staying(captions, seed, seconds, clip.fps, (clip.height, clip.width))
    found: dict[str, Any] = {
        "switches": switches,
        "streams": streams,
        "delay": next(iter(sets.values())).delay,
        "notes": notes,
    }
    found |= {"followed": {}, "around": {}}
    for name, shown in sets.items():
        for key, figures in measure_switches(wanted, shown, clip.fps).items():
            found[key][name] = figures
    found["staying"] = {name: measure_staying(one) for name, one in staying.items()}
    output.mkdir(parents=True, exist_ok=True)
    write_text(output / "steering.json", json.dumps(found, indent=1))
    write_steering_report(output, found, wanted, sets, staying, clip.fps)
    return found


def evaluate_endings(
    models: Sequence[Path],
    output: Path,
    num_videos: int = 48,
    num_frames: int | None = None,
    seed: int = 10_000,
    device: Device = "auto",
    any_world: bool = False,
    **settings: Any,
) -> dict[str, Any]:
    """Loops of each model, and videos from the first to the last frame of true clips; see `evaluation.endings`.

    Args:
        output: folder for `endings.json`, `endings.html` and some of the videos.
        settings: `block_frames`, and fields of `SamplingConfig`.
    Returns: `figures` by name of model and kind, and of the floors `vae` and `true`, each with the ends of its 95% interval.
    Raises: see `open_models`; ShapeError if `num_frames` does not fit the VAE; ConfigError if a model is of another world, unless
        `any_world`.
    """
    pipelines = open_models(models, device)
    _, notes = _world(pipelines, "bounce", ("bounce",), any_world)
    first = next(iter(pipelines.values()))
    true = true_clips(first, num_videos, num_frames or first.config.clip.num_frames, seed)
    sets: dict[str, Ended] = {}
    for name, pipeline in pipelines.items():
        for kind in get_args(Ending):
            with bar(f"{kind} {name}", "videos") as progress:
                sets[f"{name}: {kind}"] = make_endings(pipeline, kind, true, seed, progress, **settings)
    sets |= {"vae": replace(true, videos=reconstruct(true.videos, first.vae)[0]), "true": true}
    found = {
        "videos": num_videos,
        "notes": notes,
        "figures": {name: measure_endings(one) for name, one in sets.items()},
    }
    output.mkdir(parents=True, exist_ok=True)
    write_text(output / "endings.json", json.dumps(found, indent=1))
    write_endings_report(output, found, sets, first.config.clip.fps)
    return found


def evaluate_steps(
    models: Sequence[Path],
    output: Path,
    world: ObjectWorld | None = None,
    solvers: Sequence[str] = ("euler", "heun", "two_step", "sde", "renoise"),
    steps: Sequence[int] = (1, 2, 4, 8, 16, 32),
    num_videos: int = 64,
    seed: int = 10_000,
    device: Device = "auto",
    any_world: bool = False,
    prompt: str | None = None,
    **settings: Any,
) -> list[dict[str, Any]]:
    """Quality of each model against calls, from a world's captions alone; see `evaluation.steps.measure_steps`.

    Args:
        world: default that of the first model.
        prompt: one caption for all, in place of the world's.
        output: folder for `steps.json` and `steps.html`.
        settings: `num_frames`, and fields of `SamplingConfig`.
    Raises: see `open_models`; ConfigError if a model is of another world, unless `any_world`.
    """
    pipelines = open_models(models, device)
    kind, notes = _world(pipelines, world, get_args(ObjectWorld), any_world)
    config = WorldConfig(kind=kind, num_frames=1, seed=seed)
    captions = [prompt or simulate(config, i).caption for i in range(num_videos)]
    with bar("sampling", "settings") as progress:
        rows = measure_steps(pipelines, captions, solvers, steps, seed, progress, **settings)
    output.mkdir(parents=True, exist_ok=True)
    (output / "steps.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
    write_steps_report(output / "steps.html", rows, kind, notes)
    return rows


def _world(
    pipelines: dict[str, VideoPipeline], asked: WorldName | None, known: Sequence[WorldName], any_world: bool
) -> tuple[Any, list[str]]:
    """The world to measure, and what is to be said about models of another one."""
    models: dict[str, WorldName] = {name: pipeline.config.world for name, pipeline in pipelines.items()}
    kind = choose_world(models, asked, known)
    notes = check_world(models, kind, any_world)
    for note in notes:
        say(note)
    return kind, notes


def open_models(models: Sequence[Path], device: Device) -> dict[str, VideoPipeline]:
    """Models by short name. Raises: ConfigError if two have the same name, or make clips of different sizes."""
    pipelines = {model_name(path): VideoPipeline.from_pretrained(path, pick_device(device)) for path in models}
    if len(pipelines) < len(models):
        raise ConfigError(f"models {', '.join(map(str, models))}: two have the same name; rename a folder")
    clip = next(iter(pipelines.values())).config.clip
    for name, pipeline in pipelines.items():
        if pipeline.config.clip != clip:
            raise ConfigError(
                f"model '{name}' makes clips of {pipeline.config.clip}, the first one of {clip}; measure them apart"
            )
    return pipelines


def model_name(path: Path) -> str:
    """A short one: the run's folder for runs/NAME/model."""
    return path.parent.name if path.name == "model" else path.name


def report_of(measures: list[VideoMeasures]) -> dict[str, Any]:
    return {"figures": summarise(measures), "per_frame": per_frame(measures)}
