"""VBench's rules on known clips, and its folder as its own program reads it."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from photographs import frozen, moved, noisy, shuffled

from video_gen.data.video_file import probe, read_metadata
from video_gen.errors import DataError
from video_gen.evaluation import vbench


def test_flickering_is_the_change_from_frame_to_frame():
    clip = moved("coffee", 1)
    by_hand = [np.mean(np.abs(a.astype(float) - b)) for a, b in zip(clip, clip[1:])]
    assert vbench.flickering(clip) == pytest.approx((255 - np.mean(by_hand)) / 255)
    assert vbench.flickering(np.repeat(clip[:1], 5, axis=0)) == 1 and np.isnan(vbench.flickering(clip[:1]))


def test_smooth_is_what_lies_between_its_neighbours():
    clip = moved("astronaut", 1, zoom=1.01)
    found = [vbench.smoothness(x[0]) for x in (clip[None], shuffled(clip[None], 4), shuffled(clip[None], 9))]
    assert found[0] > 0.97 and found[0] > found[1] > found[2]
    noise = [vbench.smoothness(noisy(clip[None], level)[0]) for level in (5, 15, 30)]
    assert found[0] > noise[0] > noise[1] > noise[2]
    assert vbench.smoothness(np.repeat(clip[:1], 5, axis=0)) > 0.999 and np.isnan(vbench.smoothness(clip[:2]))


@pytest.mark.parametrize(("speed", "moves"), [(0, False), (0.5, False), (4, True)])
def test_dynamic_is_what_goes_six_pixels_of_256_between_two_frames_at_8_fps(speed, moves):
    assert vbench.dynamic(moved("coffee", speed, frames=9), fps=8) is moves
    at_double = moved("coffee", speed / 2, frames=17)
    assert vbench.dynamic(at_double, fps=16) is moves


def test_what_freezes_is_not_dynamic():
    clip = moved("coffee", 4, frames=17)[None]
    assert vbench.dynamic(clip[0], 8) and not vbench.dynamic(frozen(clip, 15)[0], 8)


def test_consistency_is_the_formula():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(5, 8)) + 0.5
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    by_hand = np.mean([(max(0, unit[i] @ unit[i - 1]) + max(0, unit[i] @ unit[0])) / 2 for i in range(1, 5)])
    assert vbench.consistency(vectors) == pytest.approx(by_hand)
    assert np.isnan(vbench.consistency(vectors[:1]))


def prompt_of(name):
    """As VBench reads it (vbench/utils.py, get_prompt_from_filename)."""
    return re.sub(r"-\d+$", "", Path(name).stem)


def test_the_folder_is_read_as_vbench_does(tmp_path):
    clip = moved("coffee", 1)
    prompts = ["A cat, slowly-2", "A 3D model of a 1800s victorian house.", "A cat, slowly-2", ""]
    folder = vbench.VBenchFolder(tmp_path / "made")
    paths = [folder.add(clip, prompt, 8, seed) for seed, prompt in enumerate(prompts)]
    assert folder.close() is not None  # the empty prompt is no name
    videos = tmp_path / "made" / "videos"
    assert [path.name for path in paths] == [
        "A cat, slowly-2-0.mp4", "A 3D model of a 1800s victorian house.-0.mp4", "A cat, slowly-2-1.mp4", "video-0.mp4",
    ]  # fmt: skip
    assert [prompt_of(path.name) for path in paths[:3]] == prompts[:3]
    assert {path.suffix for path in videos.iterdir()} == {".mp4"} and probe(paths[0]).num_frames == 9
    assert json.loads((tmp_path / "made/prompts.json").read_text()) == {path.name: p for path, p in zip(paths, prompts)}
    assert json.loads((tmp_path / "made/seeds.json").read_text())["A cat, slowly-2-1.mp4"] == 2
    assert read_metadata(paths[0]) == {}
    with pytest.raises(DataError, match="is not empty"):
        vbench.VBenchFolder(tmp_path / "made")


def test_prompts_that_are_no_names_are_told(tmp_path):
    folder = vbench.VBenchFolder(tmp_path)
    path = folder.add(moved("coffee", 1), "a/b " + "ü" * 200, 8, 0)
    assert path.name.startswith("a_b ü") and len(path.name.encode()) < 255
    assert "--prompt_file" in (folder.close() or "")
    other = vbench.VBenchFolder(tmp_path / "other")
    other.add(moved("coffee", 1), "a cat", 8, 0)
    assert other.close() is None
