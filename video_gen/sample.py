"""Sampling to files: videos, a contact sheet, and the settings inside each file and beside it."""

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from video_gen.data.video_file import all_frames, probe, read_frames
from video_gen.data.video_writer import contact_sheet, write_video
from video_gen.errors import ConfigError, DataError
from video_gen.sampling.pipeline import VideoPipeline

Format = Literal["mp4", "gif", "png"]
STRENGTH = 0.6
"""At which a source is changed, unless told otherwise."""


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
    **settings: Any,
) -> list[Path]:
    """Sample `count` videos, with seeds `seed`, `seed + 1`, ..., into the folder `output`.

    Args:
        image, video: files to start from. `last_image`: one to end with. `source`: a video to change.
        loop: see `VideoPipeline.generate`. `strength`: of the change to a source, default 0.6.
        interpolate: factor by which the source's own frame rate is raised; its frames are read as they are, not by the
            model's clock.
        enlarge: whole factor by which the written pictures are enlarged.
    Returns: the video files. A contact sheet and a .json per video lie beside them.
    Raises: DataError if an input cannot be read; ShapeError, ConfigError for settings that don't fit.
    """
    if source is None and (strength is not None or interpolate is not None):
        name = "strength" if interpolate is None else "interpolate"
        raise ConfigError(f"{name} is given without a source; give the video it is for as --source")
    fps, paths, made = pipeline.config.clip.fps, [], []
    given: dict[str, Any] = read_given(image, video, fps)
    if last_image is not None:
        given["last_image"] = read_picture(last_image, "--source")
    if source is not None:
        given["strength"] = STRENGTH if strength is None else strength
        given["source"] = read_at(source, fps if interpolate is None else probe(source).fps)
        fps = fps if interpolate is None else interpolate * probe(source).fps
    output.mkdir(parents=True, exist_ok=True)
    for start in range(0, count, batch_size):
        seeds = [seed + i for i in range(start, min(count, start + batch_size))]
        options = {"num_frames": num_frames, "block_frames": block_frames, "loop": loop, **given, **settings}
        if interpolate is None:
            videos = pipeline.generate([prompt] * len(seeds), seeds=seeds, **options)
        else:
            videos = np.stack([interpolated(pipeline, prompt, interpolate, seed=one, **options) for one in seeds])
        for number, frames in zip(seeds, videos):
            facts: dict[str, Any] = {"prompt": prompt, "seed": number, "num_frames": len(frames), "fps": fps}
            facts |= {"image": str(image) if image else None, "video": str(video) if video else None}
            facts |= {"last_image": str(last_image) if last_image else None, "loop": loop}
            facts |= {"source": str(source) if source else None, "strength": given.get("strength")}
            facts |= {"interpolate": interpolate, "block_frames": block_frames}
            facts |= pipeline.config.sampling.replace(**settings).model_dump(mode="json")
            large = frames.repeat(enlarge, axis=1).repeat(enlarge, axis=2)
            path = output / f"seed_{number}.{format}"
            write_video(path, large, fps, metadata={k: json.dumps(v) for k, v in facts.items()})
            path.with_suffix(".json").write_text(json.dumps(facts, indent=1))
            paths.append(path)
            made.append(frames)
    scale = max(1, 96 // made[0].shape[1])
    Image.fromarray(contact_sheet(made, scale=scale)).save(output / "sheet.png")
    return paths


def read_given(image: Path | None, video: Path | None, fps: float) -> dict[str, np.ndarray]:
    """The arguments `image` and `video` of a pipeline from files, those that are given. Raises: DataError."""
    given: dict[str, np.ndarray] = {}
    if image is not None:
        given["image"] = read_picture(image, "--video")
    if video is not None:
        given["video"] = read_at(video, fps)
    return given


def interpolated(pipeline: VideoPipeline, prompt: str, factor: int, **options: Any) -> np.ndarray:
    """`pipeline.interpolate` with the options of `generate`. Raises: ConfigError if others than the source's are given."""
    others = {name: options.pop(name, None) for name in ("image", "video", "last_image", "loop", "num_frames")}
    clashing = [name for name, value in others.items() if value is not None and value is not False]
    if clashing:
        raise ConfigError(
            f"both interpolate and {clashing[0]}; interpolation takes a source alone: leave the other out"
        )
    return pipeline.interpolate(options.pop("source"), factor, prompt=prompt, **options)


def read_picture(path: Path, otherwise: str) -> np.ndarray:
    """A still picture, uint8 (h, w, 3). Raises: DataError, which says the option for what moves."""
    if probe(path).kind != "image":
        raise DataError(f"{path}: has several frames; give a still picture, or a video as {otherwise}")
    return read_frames(path, [0.0])[0]


def read_at(path: Path, fps: float) -> np.ndarray:
    """A whole video at `fps`, by time stamp: uint8 (f, h, w, 3)."""
    info = probe(path)
    if info.kind == "image":
        return read_frames(path, [0.0])
    last = max(start for start, _ in all_frames(path))
    return read_frames(path, [i / fps for i in range(int(last * fps + 1e-6) + 1)])
