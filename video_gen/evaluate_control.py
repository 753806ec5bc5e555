"""`video-gen evaluate control`: whether a model's world does what it is told; see `evaluation.control`."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from video_gen.data.actions import scaled
from video_gen.data.clips import Clips, spread
from video_gen.data.config import ClipConfig
from video_gen.errors import ConfigError, DataError
from video_gen.evaluation import control
from video_gen.evaluation.control import Episodes, Maze
from video_gen.evaluation.control_report import write_control_report
from video_gen.evaluation.inverse import accuracy, train_inverse
from video_gen.files import check_folder, write_text
from video_gen.model.pretrained import local_folder
from video_gen.progress import bar
from video_gen.sampling.pipeline import VideoPipeline
from video_gen.sampling.play import vocabulary_of
from video_gen.training.known_data import known_data
from video_gen.training.monitor import say
from video_gen.training.parallel import pick_device
from video_gen.vocabulary import Vocabulary

READ_OFF = 33
"""Frames of the rollouts off which it is read what was done."""
TAUGHT = 400
"""Episodes, at most, on which that is learned."""
CIRCLES = (1, 2, 4)
"""Turns after which a room is looked at again."""


def evaluate_control(
    model: Path,
    output: Path,
    folder: Path | None = None,
    episodes: int = 48,
    frames: int = 257,
    trials: int = 64,
    idle_seconds: float = 60.0,
    seed: int = 10_000,
    device: Any = "auto",
    **settings: Any,
) -> dict[str, Any]:
    """Measure one model on episodes that it was not trained on.

    Args:
        folder: clips with actions, of which the held-out ones are measured; None = for a model of the built-in maze walks in the
            same layouts that are in no data set, for another one those of its training.
        frames: of a rollout; as many as the clips have, if these are shorter.
        output: folder for `control.json`, `control.html` and some of the videos.
        settings: fields of SamplingConfig.
    Returns: `figures`, `at`: figures by frame, `circles` by turns, `notes`.
    Raises: ConfigError if the model knows no actions, or those of the folder are others; DataError if nothing is held out.
    """
    check_folder(output)
    pipeline = VideoPipeline.from_pretrained(model, pick_device(device))
    vocabulary, clip = vocabulary_of(pipeline), pipeline.config.clip
    stride = pipeline.vae.config.temporal_stride
    settings = {name: value for name, value in settings.items() if value is not None}
    frames = (frames - 1) // stride * stride + 1
    data = known_data(local_folder(model) / "vae")
    world = None
    if folder is None and pipeline.config.maze is not None:
        world = Maze(*pipeline.config.maze, clip.height, clip.width)
    folder = folder or (data.folder if data is not None and data.folder.is_dir() else None)
    notes = []
    if world is not None:
        notes.append(f"the built-in maze: walks from number {control.HELD_OUT:,} on, in the layouts of the training")
        short, long = (
            world.episodes(episodes, clip.num_frames),
            world.episodes(episodes, frames, control.HELD_OUT + 10_000),
        )
        taught = world.episodes(min(TAUGHT, 200), 65, 2 * control.HELD_OUT)
    else:
        short, long, taught = _of_folder(pipeline, vocabulary, folder, data, frames, episodes)
        notes.append(f"held-out clips of {folder}, with actions")
    figures: dict[str, Any] = {"episodes": len(long)}
    say("the loss with its own and with other actions")
    figures["shuffle_ratio"] = round(control.shuffle_ratio(pipeline, short), 3)
    with bar("playing true actions", "episodes") as progress:
        made = control.roll_out(pipeline, long.videos[:, 0], long.rows, long.captions, seed, progress, **settings)
    rebuilt = control.reconstruct(pipeline, long.videos)
    still = np.repeat(long.videos[:, :1], long.videos.shape[1], axis=1)
    sets = {"made": made, "vae": rebuilt, "still": still}
    at = {"psnr": {name: control.at_frames(control.psnr(videos, long.videos)) for name, videos in sets.items()}}
    at["sharpness"] = {
        name: {str(i): round(float(np.mean(control.sharpness(v[:, i]))), 3) for i in control.AT if i < v.shape[1]}
        for name, v in (("made", made), ("vae", rebuilt), ("true", long.videos))
    }
    with bar("learning to read actions off true frames", "steps") as progress:
        reader = train_inverse(taught.videos, scaled(taught.rows, vocabulary), vocabulary, progress=progress)
    rows, end = scaled(long.rows, vocabulary), min(READ_OFF, long.videos.shape[1])
    for name, videos in (("true", long.videos), ("vae", rebuilt), ("made", made)):
        figures[f"read_off_{name}"] = round(accuracy(reader, videos[:, :end], rows[:, :end]), 4)
    figures["read_off_share"] = round(figures["read_off_made"] / max(figures["read_off_vae"], 1e-9), 4)
    starts = _calm(world, trials) if world is not None else long
    say(f"{idle_seconds:g} s in which nothing is done")
    idle_frames = int(idle_seconds * clip.fps) // stride * stride + 1
    idle = control.stand_still(
        pipeline, starts.videos[: control.BATCH, 0], starts.captions[: control.BATCH], idle_frames, seed, **settings
    )
    figures |= {name: round(idle[name], 3) for name in ("idle_psnr", "idle_psnr_worst", "idle_sharpness")}
    shown: dict[str, Any] = {"true": long.videos, "made": made, "idle": idle["videos"]}
    circles: dict[str, dict[str, float]] = {}
    if world is not None:
        with bar("true views of all places", "layouts") as progress:
            poses = control.all_poses(world, progress)
        for name, videos in (("made", made), ("vae", rebuilt)):
            for what, values in control.pose_errors(poses, videos, long.walks).items():
                at.setdefault(what, {})[name] = values
        chosen = control.choices(pipeline, world, min(trials, 32), 8 // stride * stride + 1, seed, **settings)
        figures["told_apart"] = round(chosen["told_apart"], 4)
        shown |= {"choices_true": chosen["true"], "choices_made": chosen["made"]}
        for turns in CIRCLES:
            say(f"{turns} full turn{'s' if turns > 1 else ''}")
            found = control.circles(pipeline, world, poses, trials, turns, seed, **settings)
            kept = ("same_room", "same_view", "true_room", "psnr")
            circles[str(turns)] = {name: round(found[name], 4) for name in kept}
            shown.setdefault("circle_made", found["videos"])
            shown.setdefault("circle_true", found["true"])
        figures["same_room"] = circles["1"]["same_room"]
    found = {"figures": figures, "at": at, "circles": circles, "notes": notes, "settings": settings}
    output.mkdir(parents=True, exist_ok=True)
    write_text(output / "control.json", json.dumps(found, indent=1))
    write_control_report(output, found, shown, long.captions, clip.fps)
    return found


def _calm(world: Maze, count: int) -> Episodes:
    return world.of([world.acted(control.HELD_OUT + 500 + i, [set()], calm=True) for i in range(count)])


def _of_folder(
    pipeline: VideoPipeline,
    vocabulary: Vocabulary,
    folder: Path | None,
    data: ClipConfig | None,
    frames: int,
    count: int,
) -> tuple[Episodes, Episodes, Episodes]:
    """Held-out clips as short as those of training, held-out ones as long as can be had, and others to learn from."""
    if folder is None:
        raise DataError(
            "nobody wrote down on which clips the model was trained, or they are not there; give them as --folder"
        )
    clip, stride = pipeline.config.clip, pipeline.vae.config.temporal_stride
    size = {"folder": folder, "fps": clip.fps, "height": clip.height, "width": clip.width, "buckets": ()}
    config = (data or ClipConfig()).replace(num_frames=clip.num_frames, stride=None, **size)
    clips = Clips(config)
    if clips.vocabulary is None or not vocabulary.same_actions(clips.vocabulary):
        names = ", ".join(clips.vocabulary.names) if clips.vocabulary else "no actions"
        raise ConfigError(
            f"{folder}: has {names}, and the model knows {', '.join(vocabulary.names)}; give clips with the same"
        )
    held = clips.only("validation")
    if not len(held):
        raise DataError(
            f"{folder}: nothing of it is held out (validation_fraction {config.validation_fraction:g}); raise that"
        )
    short = _episodes(held, count)
    longest = frames
    while longest > clip.num_frames:
        try:
            long = _episodes(Clips(config.replace(num_frames=longest), "validation"), count)
            break
        except DataError:
            longest = max(clip.num_frames, (longest - 1) // 2 // stride * stride + 1)
    else:
        long = short
    return short, long, _episodes(clips.only("train"), TAUGHT)


def _episodes(clips: Clips, count: int) -> Episodes:
    chosen = spread(clips.buckets, count)
    rows = np.stack([np.array(clips.actions[i]) for i in chosen])
    return Episodes(np.stack([clips[i].video for i in chosen]), rows, [clips.captions[i] for i in chosen])
