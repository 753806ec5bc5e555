"""Sampling to files: videos, a contact sheet, and the settings inside each file and beside it. What is there is kept."""

import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image

from video_gen.data.video_file import probe
from video_gen.data.video_writer import check_writable, contact_sheet, write_video
from video_gen.errors import ConfigError
from video_gen.files import write_text, written
from video_gen.naming import claimed, stem
from video_gen.sampling.fit import Fit
from video_gen.sampling.given import count as frames_of
from video_gen.sampling.given import read_at, read_picture, read_source, read_start
from video_gen.sampling.pipeline import VideoPipeline
from video_gen.sampling.watching import Step, Watch

Format = Literal["mp4", "gif", "png"]
STRENGTH = 0.6
"""At which a source is changed, unless told otherwise."""


def load_model(
    model: Path, device: torch.device, fit: Fit, texts: Sequence[str] = (), loras: Sequence[str] = ()
) -> VideoPipeline:
    """A model that fits, with what was learned besides: that is added before weights are rounded to eight bits, and after they are
    in bfloat16 where they are not to stay in float32, of which a large model has no room for a whole copy.

    Args: texts: that will be wanted. Raises: as `VideoPipeline.from_pretrained` and `load_loras`.
    """
    if not loras:
        return VideoPipeline.from_pretrained(model, device, fit, texts)
    whole = fit.replace(weights="fp32" if fit.weights == "fp32" else "bf16", offload="off")
    pipeline = VideoPipeline.from_pretrained(model, "cpu", whole, texts)
    pipeline.load_loras(loras)
    return pipeline.settle(fit, device)


def sample_to_files(
    pipeline: VideoPipeline,
    prompt: str,
    output: Path,
    *,
    count: int = 1,
    seed: int = 0,
    num_frames: int | None = None,
    image: Path | None = None,
    video: Path | None = None,
    last_image: Path | None = None,
    loop: bool = False,
    source: Path | None = None,
    strength: float | None = None,
    interpolate: int | None = None,
    format: Format = "mp4",
    block_frames: int | None = None,
    batch_size: int = 8,
    enlarge: int = 1,
    sheet: bool = True,
    watch: Watch | None = None,
    progress: Callable[[int, int], None] | None = None,
    **settings: Any,
) -> list[Path]:
    """Sample `count` videos, with seeds `seed`, `seed + 1`, ..., into the folder `output`.

    They are named after prompt and seed, such as `a-red-circle_seed_0.mp4`; where that is taken, a number is added.

    Args:
        image, video: files to start from. `last_image`: one to end with. `source`: a video to change. Of a video whose
            length the VAE does not take some frames are left out, which is said on standard error.
        loop: see `VideoPipeline.generate`. `strength`: of the change to a source, default 0.6.
        interpolate: factor by which the source's own frame rate is raised; its frames are read as they are, not by the
            model's clock.
        enlarge: whole factor by which the written pictures are enlarged.
        sheet: whether to write a contact sheet of them, too. `watch`: see `VideoPipeline.generate`; of each batch.
        progress: is told, in its place, the percent that are done, of 100 for each batch.
    Returns: the video files, and last the contact sheet. A .json per video lies beside it.
    Raises: DataError if an input cannot be read, or a file not be written; ShapeError, ConfigError for what doesn't fit.
    """
    if source is None and (strength is not None or interpolate is not None):
        name = "strength" if interpolate is None else "interpolate"
        raise ConfigError(f"{name} is given without a source; give the video it is for as --source")
    clip = pipeline.config.clip
    own = probe(source).fps if source is not None and interpolate is not None else 0.0
    fps = interpolate * own if interpolate is not None else clip.fps
    check_writable(output / f"video.{format}", clip.height * enlarge, clip.width * enlarge, fps)
    given: dict[str, Any] = dict(read_given(pipeline, image, video, num_frames or clip.num_frames))
    if last_image is not None:
        given["last_image"] = read_picture(last_image, "--source", (clip.height, clip.width))
    if source is not None:
        given["strength"] = STRENGTH if strength is None else strength
        given["source"] = given_source(pipeline, source, num_frames, own)
    files = {"image": image, "video": video, "last_image": last_image, "source": source}
    facts: dict[str, Any] = {name: str(path) if path else None for name, path in files.items()}
    facts |= {"lora": [f"{file}:{scale:g}" for file, scale in pipeline.loras]}
    facts |= {"loop": loop, "strength": given.get("strength"), "interpolate": interpolate, "block_frames": block_frames}
    facts |= pipeline.config.sampling.replace(**settings).model_dump(mode="json")
    options = {
        "num_frames": num_frames,
        "block_frames": block_frames,
        "loop": loop,
        "watch": watch,
        **given,
        **settings,
    }
    paths, made = [], []
    for start in range(0, count, batch_size):
        if progress is not None:
            options["watch"] = partial(_percent, progress, start // batch_size, -(-count // batch_size))
        seeds = [seed + i for i in range(start, min(count, start + batch_size))]
        if interpolate is None:
            videos = pipeline.generate([prompt] * len(seeds), seeds=seeds, **options)
        else:
            videos = np.stack([interpolated(pipeline, prompt, interpolate, seed=one, **options) for one in seeds])
        for number, frames in zip(seeds, videos):
            of_this = {"prompt": prompt, "seed": number, "num_frames": len(frames), "fps": fps} | facts
            with claimed(output, stem(prompt, f"seed_{number}"), format) as path:
                large = frames.repeat(enlarge, axis=1).repeat(enlarge, axis=2)
                write_video(path, large, fps, metadata={k: json.dumps(v) for k, v in of_this.items()})
                write_text(path.with_suffix(".json"), json.dumps(of_this, indent=1))
            paths.append(path)
            made.append(frames)
    if sheet:
        with claimed(output, stem(prompt, "sheet"), "png") as path, written(path) as temporary:
            Image.fromarray(contact_sheet(made, scale=max(1, 96 // made[0].shape[1]))).save(temporary)
        paths.append(path)
    return paths


def _percent(progress: Callable[[int, int], None], before: int, batches: int, step: Step) -> None:
    progress(round(100 * (before + step.done)), 100 * batches)


# -------------------- what is given


def read_given(
    pipeline: VideoPipeline, image: Path | None, video: Path | None, num_frames: int | None = None
) -> dict[str, np.ndarray]:
    """The arguments `image` and `video` of a pipeline from files, those that are given; see `given.read_start`.

    Says on standard error which frames of a video are left out. Raises: DataError, ShapeError.
    """
    given: dict[str, np.ndarray] = {}
    clip, stride = pipeline.config.clip, pipeline.vae.config.temporal_stride
    if image is not None:
        given["image"] = read_picture(image, "--video", (clip.height, clip.width))
    if video is not None:
        given["video"], note = read_start(video, clip.fps, (clip.height, clip.width), stride, num_frames)
        say(note)
    return given


def given_source(pipeline: VideoPipeline, path: Path, num_frames: int | None, own: float) -> np.ndarray:
    """A source at the model's rate; or, of `own` frames a second, every frame, since interpolation takes any number."""
    clip = pipeline.config.clip
    size = (clip.height, clip.width)
    if own:
        return read_at(path, own, range(frames_of(path, own)), size)
    frames, note = read_source(path, clip.fps, size, pipeline.vae.config.temporal_stride, num_frames)
    say(note)
    return frames


def interpolated(pipeline: VideoPipeline, prompt: str, factor: int, **options: Any) -> np.ndarray:
    """`pipeline.interpolate` with the options of `generate`. Raises: ConfigError if others than the source's are given."""
    others = {name: options.pop(name, None) for name in ("image", "video", "last_image", "loop", "num_frames")}
    clashing = [name for name, value in others.items() if value is not None and value is not False]
    if clashing:
        raise ConfigError(
            f"both interpolate and {clashing[0]}; interpolation takes a source alone: leave the other out"
        )
    return pipeline.interpolate(options.pop("source"), factor, prompt=prompt, **options)


def say(note: str | None) -> None:
    if note is not None:
        print(note, file=sys.stderr)
