"""The shipped model makes what it is asked for: the whole of sampling, on weights that mean something."""

import shutil
import subprocess
import sys
import tomllib
import zipfile

import numpy as np
import pytest
import torch

from video_gen import VideoPipeline
from video_gen.evaluation.physics import measure_video
from video_gen.shipped import CONFIGS, MODELS

MODEL = MODELS / "bounce"
CAPTIONS = (
    "a red circle, fast",
    "a cyan square, slow",
    "a white triangle, fast",
    "a green circle, slow",
    "a blue square and a yellow circle, slow",
    "a red triangle and a white square, slow",
)


def test_objects_are_those_of_the_caption_and_persist():
    pipeline = VideoPipeline.from_pretrained(MODEL)
    videos = pipeline.generate(CAPTIONS, seeds=list(range(len(CAPTIONS))), num_frames=17, num_steps=20)
    measures = [measure_video(video, caption) for video, caption in zip(videos, CAPTIONS)]
    assert sum(m.persists and m.caption_right for m in measures) >= 4
    assert np.median(np.concatenate([m.residuals for m in measures])) < 0.5


def test_it_fits_its_place():
    assert sum(f.stat().st_size for f in MODEL.rglob("*")) < 24 * 2**20
    pipeline = VideoPipeline.from_pretrained(MODEL)
    assert {p.dtype for p in pipeline.transformer.parameters()} == {torch.float32}


def test_the_world_that_ships_answers_to_keys():
    """After a turn the picture is nearer to what a turn truly leads to than to what standing still does."""
    from video_gen.evaluation.control import Maze, roll_out

    pipeline, world = VideoPipeline.from_pretrained("maze"), Maze(*VideoPipeline.from_pretrained("maze").config.maze)
    walks = [world.acted(10**6 + i, [{key}] * 5) for i in range(6) for key in ("left", "right")]
    true = world.of(walks)
    made = roll_out(pipeline, true.videos[:, 0], true.rows, true.captions, 0)[:, -1].astype(float)
    own = ((made - true.videos[:, -1]) ** 2).mean((1, 2, 3))
    other = ((made - true.videos[:, -1].reshape(6, 2, *made.shape[1:])[:, ::-1].reshape(made.shape)) ** 2).mean(
        (1, 2, 3)
    )
    assert (own < other).mean() > 0.8
    assert sum(f.stat().st_size for f in (MODELS / "maze").rglob("*")) < 12 * 2**20


def test_what_ships_is_in_the_package():
    root = MODELS.parents[2]
    found = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["package-data"]
    packed = {file for pattern in found["video_gen.shipped"] for file in MODELS.parent.glob(pattern) if file.is_file()}
    there = {file for file in MODELS.parent.rglob("*") if file.is_file() and file.suffix not in (".py", ".pyc")}
    assert packed == there and {MODELS / "bounce/vae/model.safetensors", CONFIGS / "demo-vae.yaml"} <= packed


@pytest.mark.slow
def test_a_wheel_brings_it_and_stays_small(tmp_path):
    root = MODELS.parents[2]
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(root / name, tmp_path)
    shutil.copytree(root / "video_gen", tmp_path / "video_gen")
    build = "from setuptools import build_meta; print(build_meta.build_wheel('.'))"
    subprocess.run([sys.executable, "-c", build], cwd=tmp_path, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert wheel.stat().st_size < 36 * 2**20
    assert {"video_gen/shipped/models/bounce/model.json", "video_gen/shipped/configs/vae-footage.yaml"} <= {*names}
