"""Piles of footage: how fast they are prepared, and what a data set of 100,000 files costs to check, to compare and to start from.

    python -m benchmarks.piles film
    python -m benchmarks.piles film --footage my-films
    python -m benchmarks.piles many

`film` prepares films of 720p that are drawn here, or those of a folder, in one process and in two, at several sizes. `many` draws
100,000 small clips, prepares them, and then does what training and `data check` do at their start. Each is a process of its own: time is
that of the clock and, beside it, of the CPUs, since others may use the machine; memory is the peak of the largest process.
"""

import argparse
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import Pool
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.measure import machine
from benchmarks.tables import Table, write
from video_gen.data.video_file import probe
from video_gen.data.video_writer import write_video
from video_gen.errors import DataError, exit_code

FPS, HEIGHT, WIDTH = 24, 720, 1280
SHOTS, SHOT_SECONDS = 6, 5
SIDES = (128, 256, None)
"""Short sides that films are prepared at; None = as they are."""
SMALL, SMALL_FRAMES, SMALL_FPS = 32, 9, 8
FOLDER = 1000
"""Files of a folder of the pile of small ones."""


# -------------------- what is drawn


def noise(rng: np.random.Generator, height: int, width: int, slope: float) -> np.ndarray:
    """(height, width) of mean 0 and variance 1, that goes on at its borders, whose amplitudes fall with frequency as those of natural
    pictures do."""
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(height) * height, np.fft.rfftfreq(width) * width, indexing="ij"))
    frequency[0, 0] = 1
    made = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((height, width))) / frequency**slope, s=(height, width))
    return (made - made.mean()) / made.std()


def texture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """(height, width, 3) uint8."""
    light = noise(rng, height, width, 1.15)
    colours = [light + 0.5 * noise(rng, height, width, 1.5), light, light + 0.5 * noise(rng, height, width, 1.5)]
    return (np.stack(colours, -1) * 42 + rng.uniform(90, 160, 3)).clip(0, 255).astype(np.uint8)


def shot(rng: np.random.Generator, frames: int) -> Iterator[np.ndarray]:
    """A disc that goes its way before a ground along which the camera moves, with the grain of a film."""
    ground, disc = texture(rng, 1024, 2048), texture(rng, 320, 320)
    y, x = np.mgrid[:320, :320] - 160
    inside = (x**2 + y**2 < 150**2)[..., None]
    speed = rng.uniform(-3, 3, 2)
    for i in range(frames):
        across, down = (round(float(v) * i) for v in speed)
        frame = np.roll(ground, (down, across), (0, 1))[:HEIGHT, :WIDTH]
        left, top = int(480 + 300 * np.sin(i / 20)), int(200 + 150 * np.cos(i / 27))
        part = frame[top : top + 320, left : left + 320]
        part[:] = np.where(inside, disc, part)
        yield (frame + rng.integers(-3, 4, (HEIGHT, WIDTH, 1))).clip(0, 255).astype(np.uint8)


def draw_film(path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    frames = [frame for _ in range(SHOTS) for frame in shot(rng, SHOT_SECONDS * FPS)]
    write_video(path, np.stack(frames), FPS, crf=23, preset="medium")


def draw_small(place: tuple[Path, int]) -> None:
    """A clip that differs from all others: a camera over a ground of its own."""
    folder, number = place
    path = folder / f"{number // FOLDER:03d}" / f"{number:06d}.mp4"
    if path.exists():
        return
    rng = np.random.default_rng(number)
    ground = Image.fromarray(texture(rng, 24, 24)).resize((2 * SMALL, 2 * SMALL), Image.Resampling.BICUBIC)
    wide, step = np.asarray(ground), rng.integers(1, 4, 2)
    frames = [np.roll(wide, tuple(i * step), (0, 1))[:SMALL, :SMALL] for i in range(SMALL_FRAMES)]
    write_video(path, np.stack(frames), SMALL_FPS, crf=23, preset="ultrafast")
    path.with_suffix(".txt").write_text(f"ground number {number}")
