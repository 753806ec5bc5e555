"""`video-gen evaluate footage`: a VAE, continuations and videos from captions beside held-out clips; see `evaluation.footage`."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from video_gen.data.clips import Clips
from video_gen.data.config import ClipConfig
from video_gen.data.folder import quarantined, scan
from video_gen.data.video_file import probe
from video_gen.errors import ConfigError, DataError
from video_gen.evaluate import clips_of_vae, describe, vae_folder
from video_gen.evaluation.distances import KINDS, Kind, check_count
from video_gen.evaluation.features import open_features
from video_gen.evaluation.footage import OTHER, REFERENCE, Measures, open_looks
from video_gen.evaluation.footage_report import write_footage_report
from video_gen.evaluation.footage_run import Chosen, Run, What
from video_gen.evaluation.lpips import LPIPS
from video_gen.files import check_folder, write_text
from video_gen.model.video_vae import VideoVAE
from video_gen.sampling.pipeline import VideoPipeline
from video_gen.training.caches import open_clips
from video_gen.training.monitor import say
from video_gen.training.parallel import pick_device

WITHOUT_WEIGHTS = ("drawn",)
"""Features unless others are asked for: with too few clips for them their distance is left out, and no error."""
SAMPLES, SEED = 2, 10_000
Device = Literal["auto", "cpu", "cuda"]


def evaluate_footage(
    output: Path,
    model: Path | None = None,
    vae: Path | None = None,
    real: Path | None = None,
    made: Path | None = None,
    what: Sequence[What] = (),
    num_clips: int = 128,
    given: int | None = None,
    samples: int | None = None,
    features: Sequence[str] = WITHOUT_WEIGHTS,
    distances: Sequence[Kind] = KINDS,
    lpips: Path | None = None,
    consistency: Sequence[str] = (),
    prompts: Path | None = None,
    repeats: int | None = None,
    vbench: Path | None = None,
    seed: int | None = None,
    device: Device = "auto",
    **settings: Any,
) -> dict[str, Any]:
    """Measure a model, a VAE alone, or a folder of videos that any program made beside one of real ones.

    Args:
        output: folder for `footage.json`, `footage.html` and some of the videos.
        what: of a model; () = all of it.
        given: pixel frames that a continuation goes on from; None = about half of the clip.
        samples: continuations of each clip, with other seeds, None = 2; of two or more the mean is measured, too.
        features: see `features.open_features`. `lpips`: weights. `consistency`: see `footage.open_looks`.
        prompts: a file of captions, a line each, for generation; None = those of half of the clips. `repeats`: videos of each,
            None = 1.
        vbench: folder for what is generated, as VBench reads it.
        seed: of the noise, None = 10,000.
        settings: fields of ClipConfig, `block_frames`, and fields of SamplingConfig.
    Returns: `parts`: figures by part, set and name, each with the ends of its 95% interval; `distances`, rows; `protocol`; `notes`.
    Raises: ConfigError for what does not fit together; ShapeError if `given` or the clip's frames do not fit the VAE; DataError if
        nothing is held out, or there are too few clips for features that were asked for.
    """
    check_folder(output)
    if (real is None) != (made is None) or sum(x is not None for x in (model, vae, real)) != 1:
        raise ConfigError("footage: give one of --model, --vae, or both --real and --made")
    said = {name: settings.pop(name) for name in ClipConfig.model_fields if name in settings}
    options = {"given": given, "samples": samples, "prompts": prompts, "repeats": repeats, "vbench": vbench}
    if real is not None:
        _check_two({"what": what or None} | {name: said.get(name) for name in OF_ONE})
    parts = _parts(what, model, options, {"seed": seed} | settings)
    on = pick_device(device)
    pipeline = VideoPipeline.from_pretrained(model, on) if model else None
    if real is not None and made is not None:
        network = None
        data, chosen, others = _two_folders(real, made, num_clips, said)
    else:
        data = _data_of(pipeline, model or vae or Path(), said)
        network = pipeline.vae if pipeline else VideoVAE.from_pretrained(vae_folder(vae or Path())).to(on)
        network.latent_shape(data.num_frames, data.height, data.width)
        chosen, others = Chosen.of(_held_out(data), num_clips), None
    opened = [open_features(name, network, on, data.num_frames) for name in features]
    if len({one.name for one in opened}) < len(opened):
        raise ConfigError(f"features {', '.join(features)}: two have the same name; rename a file or folder")
    eye = LPIPS.from_file(lpips) if lpips else LPIPS.drawn()
    measures = Measures(eye.to(on), data.fps, on, tuple(opened), open_looks(consistency, on))
    _check_counts(measures, distances, chosen, strict=tuple(features) != WITHOUT_WEIGHTS)
    run = Run(measures, chosen, data, pipeline, network, parts, SEED if seed is None else seed, settings)
    if others is not None:
        run.measure_folder(others)
    else:
        run.measure_model(given, samples or SAMPLES, prompts, repeats or 1, vbench)
    found = run.found(distances)
    found["protocol"] = {"clips": describe(data), **found["protocol"]}
    output.mkdir(parents=True, exist_ok=True)
    write_text(output / "footage.json", json.dumps(found, indent=1))
    write_footage_report(output, found, run.sets, run.captions, data.fps)
    return found


# -------------------- what is measured


NEEDED: dict[str, What] = {
    "given": "continuation",
    "samples": "continuation",
    "prompts": "generation",
    "repeats": "generation",
    "vbench": "generation",
}
"""The part that an option is for."""
OF_ONE = ("folder", "validation_fraction", "split_seed", "held_out")
"""Of clips, those that say where they lie and which are measured, which --real and --made do."""


def _parts(
    what: Sequence[What], model: Path | None, options: dict[str, Any], sampling: dict[str, Any]
) -> Sequence[What]:
    """Raises: ConfigError if a part needs a model, and there is none, or an option is said of what is not measured.

    Args: options: by name, as in `NEEDED`; `sampling`: how a model makes videos, which no other part asks.
    """
    parts = what or (get_args(What) if model else ("vae",))
    for part in parts:
        if model is None and part != "vae":
            raise ConfigError(f"what is '{part}', which takes a whole model; give --model")
    for name, value in options.items():
        if value is not None and NEEDED[name] not in parts:
            raise ConfigError(f"{name} is {value}, which is for {NEEDED[name]}; add that to --what, and give --model")
    for name, value in sampling.items():
        if value is not None and set(parts) <= {"vae"}:
            raise ConfigError(f"{name} is {value}, and no video is made; leave it out, or measure what a --model makes")
    return parts


def _check_two(options: dict[str, Any]) -> None:
    """Raises: ConfigError for what has no use beside two folders."""
    for name, value in options.items():
        if value is not None:
            raise ConfigError(f"{name} is {value}; with --real and --made all their clips are measured: leave it out")


def _data_of(pipeline: VideoPipeline | None, path: Path, said: dict[str, Any]) -> ClipConfig:
    """The clips to measure on. Raises: ConfigError if another size is asked for than the model makes."""
    if pipeline is None:
        return clips_of_vae(path, **said).replace(buckets=())
    clip = pipeline.config.clip
    for name in ("height", "width", "fps"):
        if name in said and said[name] != getattr(clip, name):
            raise ConfigError(f"{name} is {said[name]:g}, and the model makes {getattr(clip, name):g}; leave it out")
    data = clips_of_vae(
        path, **({"num_frames": clip.num_frames} | said | {n: getattr(clip, n) for n in ("height", "width", "fps")})
    )
    return data.replace(buckets=())


def _held_out(data: ClipConfig) -> Clips:
    """Raises: DataError if nothing is held out."""
    clips = open_clips(data).only("validation")
    if not len(clips):
        raise DataError(
            f"{data.folder}: nothing of it is held out (validation_fraction {data.validation_fraction:g}); give --folder with "
            "other clips and --validation-fraction 0.9"
        )
    return clips


def _two_folders(real: Path, made: Path, count: int, said: dict[str, Any]) -> tuple[ClipConfig, Chosen, Chosen]:
    """Clips of both folders; what is not said is as the first of the made ones is."""
    bad = quarantined(made)
    left = [source for source in scan(made) if source.name not in bad]
    if not left:
        raise DataError(f"{made}: every file is in quarantine; take some out of it, or give another --made")
    first = left[0].info or probe(left[0].path)
    size = {"num_frames": first.num_frames, "height": first.height // 2 * 2, "width": first.width // 2 * 2}
    known = size | ({"fps": round(first.fps, 3)} if first.fps else {})
    config = ClipConfig(folder=real, validation_fraction=0).replace(**(known | said | {"folder": real}))
    chosen = Chosen.of(open_clips(config), count)
    others = sum(side == OTHER for side in chosen.sides)
    say(f"clips of {config.num_frames}x{config.height}x{config.width} at {config.fps:g} fps")
    return config, chosen, Chosen.of(open_clips(config.replace(folder=made)), others or count)


def _check_counts(measures: Measures, kinds: Sequence[Kind], chosen: Chosen, strict: bool) -> None:
    """Raises: DataError before the work if there are too few clips for a distance that was asked for."""
    if not strict:
        return
    count = min(chosen.sides.count(REFERENCE), chosen.sides.count(OTHER))
    video = chosen.clips[chosen.indices[0]].video[None]
    for features in measures.features:
        width = features(video).shape[1]
        for kind in kinds:
            check_count(kind, count, width, features.name)
