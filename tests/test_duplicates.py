"""Error rates of the search for near-duplicates, on what is alike in everything but what matters, and on true copies."""

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from video_gen.data.check import check
from video_gen.data.config import ClipConfig
from video_gen.data.duplicates import SIDE, near_duplicates
from video_gen.data.video_writer import write_video

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz01234567"


def small(array: np.ndarray) -> np.ndarray:
    """(h, w) or (h, w, 3) uint8 as the check looks at it: (1, SIDE, SIDE)."""
    image = Image.fromarray(array).convert("L")
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BOX))[None]


def letters() -> list[np.ndarray]:
    font, pictures = ImageFont.load_default(40), []
    for letter in LETTERS:
        image = Image.new("L", (64, 64), 235)
        ImageDraw.Draw(image).text((32, 32), letter, fill=20, font=font, anchor="mm")
        pictures.append(small(np.asarray(image)))
    return pictures


def discs() -> list[np.ndarray]:
    pictures = []
    for index in range(60):
        image = Image.new("L", (96, 96), 255)
        x, y = 8 + 10 * (index % 8), 8 + 10 * (index // 8)
        ImageDraw.Draw(image).ellipse((x, y, x + 9, y + 9), fill=60)
        pictures.append(small(np.asarray(image)))
    return pictures


def scenes(count: int, seed: int) -> np.ndarray:
    """(count, 96, 128, 3) uint8 that look like something."""
    rng = np.random.default_rng(seed)
    rough = [Image.fromarray(rng.integers(0, 255, (6, 8, 3), dtype=np.uint8)) for _ in range(count)]
    return np.stack([np.asarray(image.resize((128, 96), Image.Resampling.BICUBIC)) for image in rough])


def passers_by() -> list[np.ndarray]:
    """Four frames each of a fixed camera, with something of a twelfth of the picture's width that goes by."""
    ground, rng, found = scenes(1, 1)[0], np.random.default_rng(2), []
    for _ in range(20):
        y, x, step = rng.integers(8, 80), rng.integers(0, 60), rng.integers(6, 18)
        frames = []
        for index in range(4):
            frame = ground.copy()
            frame[y : y + 10, x + step * index : x + step * index + 10] = rng.integers(0, 255, 3)
            frames.append(small(frame)[0])
        found.append(np.stack(frames))
    return found


@pytest.mark.parametrize("make, allowed", [(letters, 2), (discs, 0), (passers_by, 1)])
def test_what_differs_in_little_is_no_duplicate(make, allowed):
    pictures = make()
    found = near_duplicates(pictures, [1.0] * len(pictures))
    print(f"{make.__name__}: {len(found)} of {len(pictures)} called duplicates")
    assert len(found) <= allowed


def copies(scene: np.ndarray) -> dict[str, np.ndarray]:
    image = Image.fromarray(scene)
    half = image.resize((64, 48), Image.Resampling.BICUBIC)
    return {
        "brighter": (scene.astype(int) * 0.96 + 10).clip(0, 255).astype(np.uint8),
        "smaller": np.asarray(half),
        "grainy": (scene + np.random.default_rng(0).normal(0, 8, scene.shape)).clip(0, 255).astype(np.uint8),
    }


@pytest.mark.parametrize("kind", ["brighter", "smaller", "grainy"])
def test_copies_are_found(kind):
    originals = scenes(40, 3)
    pictures = [small(scene) for scene in originals] + [small(copies(scene)[kind]) for scene in originals]
    found = dict(near_duplicates(pictures, [1.0] * len(pictures)))
    right = sum(found.get(40 + index) == index for index in range(40))
    print(f"{kind}: {right} of 40 found, {len(found) - right} wrong")
    assert right >= 38 and len(found) == right


def test_videos_coded_again_are_found(tmp_path):
    for index, scene in enumerate(scenes(4, 5)):
        video = np.stack([np.roll(scene, 2 * i, 1) for i in range(24)])
        write_video(tmp_path / f"{index}.mp4", video, 24)
        write_video(tmp_path / f"{index}_small.mp4", video[:, ::2, ::2], 24, crf=30)
        write_video(tmp_path / f"{index}_slow.mp4", video[::2], 12)  # another rate, the same time
    report = check(ClipConfig(folder=tmp_path, num_frames=1), workers=1)
    found = {name: why for name, why in report.problems["near-duplicate"]}
    small_ones = sum(f"{index}_small.mp4" in found for index in range(4))
    slow_ones = sum(f"{index}_slow.mp4" in found for index in range(4))
    print(f"smaller and coded again: {small_ones} of 4; at half the rate: {slow_ones} of 4")
    assert small_ones == 4 and all(why == f"looks like {name[0]}.mp4" for name, why in found.items())


def test_copies_are_found_among_many_others():
    rng = np.random.default_rng(0)
    pictures = [each[None] for each in rng.integers(0, 255, (3000, SIDE, SIDE), dtype=np.uint8)]
    pictures += [pictures[7], pictures[1500]]
    assert near_duplicates(pictures, [1.0] * len(pictures)) == [(3000, 7), (3001, 1500)]


def test_grainy_copies_are_found_among_many_others():
    originals = scenes(4000, 7)
    pictures = [small(scene) for scene in originals]
    pictures += [small(copies(scene)[kind]) for kind in ("brighter", "grainy") for scene in originals[:50]]
    found = near_duplicates(pictures, [1.0] * len(pictures))
    print(f"among {len(originals)}: {len(found)} of 100 found")
    assert len(found) >= 98 and all((later - 4000) % 50 == first for later, first in found)
