"""Sampling to files: videos, a contact sheet, and the settings inside each file and beside it."""

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from video_gen.data.video_file import all_frames, contact_sheet, probe, read_frames, write_video
from video_gen.errors import DataError
from video_gen.sampling.pipeline import VideoPipeline

Format = Literal["mp4", "gif", "png"]


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
    format: Format = "mp4",
    block_frames: int | None = None,
    batch_size: int = 8,
    enlarge: int = 1,
    **settings: Any,
) -> list[Path]:
    """Sample `count` videos, with seeds `seed`, `seed + 1`, ..., into the folder `output`.

    Args:
        image, video: files to start from.
        enlarge: whole factor by which the written pictures are enlarged.
    Returns: the video files. A contact sheet and a .json per video lie beside them.
    Raises: DataError if an input cannot be read; ShapeError, ConfigError for settings that don't fit.
    """
    given = read_given(image, video, pipeline.config.clip.fps)
    output.mkdir(parents=True, exist_ok=True)
    fps, paths, made = pipeline.config.clip.fps, [], []
    for start in range(0, count, batch_size):
        seeds = [seed + i for i in range(start, min(count, start + batch_size))]
        options = {"num_frames": num_frames, "block_frames": block_frames, **given, **settings}
        for number, frames in zip(seeds, pipeline.generate([prompt] * len(seeds), seeds=seeds, **options)):
            facts: dict[str, Any] = {"prompt": prompt, "seed": number, "num_frames": len(frames), "fps": fps}
            facts |= {"image": str(image) if image else None, "video": str(video) if video else None}
            facts |= {"block_frames": block_frames}
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
        if probe(image).kind != "image":
            raise DataError(f"{image}: has several frames; give it as --video, or a still picture as --image")
        given["image"] = read_frames(image, [0.0])[0]
    if video is not None:
        given["video"] = read_at(video, fps)
    return given


def read_at(path: Path, fps: float) -> np.ndarray:
    """A whole video at `fps`, by time stamp: uint8 (f, h, w, 3)."""
    info = probe(path)
    if info.kind == "image":
        return read_frames(path, [0.0])
    last = max(start for start, _ in all_frames(path))
    return read_frames(path, [i / fps for i in range(int(last * fps + 1e-6) + 1)])
