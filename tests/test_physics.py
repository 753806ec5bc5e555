"""The measure of motion is itself measured: true clips pass, and each way of spoiling them shows in its figure."""

import numpy as np
import pytest
from scipy import ndimage

from video_gen.data.captions import COLOURS
from video_gen.data.config import WorldConfig
from video_gen.data.video_file import read_frames
from video_gen.data.video_writer import write_video
from video_gen.data.worlds import draw, simulate
from video_gen.evaluation.physics import measure_video, per_frame, summarise


def worlds(size=32, count=12, frames=17):
    config = WorldConfig(height=size, width=size, num_frames=frames, seed=5)
    return [simulate(config, i) for i in range(count)]


def figures(videos, captions):
    return summarise([measure_video(v, c) for v, c in zip(videos, captions)])


@pytest.fixture(scope="module")
def true():
    chosen = worlds()
    return [draw(w) for w in chosen], [w.caption for w in chosen]


@pytest.mark.parametrize("size", [32, 64])
def test_true_renders_pass(size):
    chosen = worlds(size)
    found = figures([draw(w) for w in chosen], [w.caption for w in chosen])
    assert found["persistence"] == found["caption_accuracy"] == found["colour_identity"] == 1
    assert found["residual_px"] < 0.1 and found["acceleration_px"] < 0.1
    assert abs(found["motion"] - 1) < 0.1 and abs(found["speed_drift"]) < 0.1
    places = np.concatenate([w.positions[0] for w in chosen])
    assert found["spread_px"] == pytest.approx(places.std(axis=0).mean(), abs=0.2) and found["spread_px"] > size / 8


def test_positions_are_those_of_the_simulator():
    from video_gen.evaluation.recover import track

    world = worlds(count=1)[0]
    for steps in track(draw(world)):
        nearest = np.linalg.norm(world.positions - steps.positions[:, None], axis=-1).min(1)
        assert nearest.max() < 0.2


def test_true_files_pass(tmp_path, true):
    videos, captions = true
    seen = []
    for video in videos:
        path = write_video(tmp_path / "clip.mp4", video, 16, crf=4)
        seen.append(read_frames(path, [i / 16 for i in range(17)]))
    found = figures(seen, captions)
    assert found["persistence"] == found["caption_accuracy"] == 1 and found["residual_px"] < 0.5


def test_blur_and_noise_are_borne(true):
    videos, captions = true
    rng = np.random.default_rng(0)
    spoiled = [ndimage.gaussian_filter(v.astype(float), (0, 0.7, 0.7, 0)) + rng.normal(0, 6, v.shape) for v in videos]
    found = figures([v.clip(0, 255).astype(np.uint8) for v in spoiled], captions)
    assert found["persistence"] >= 0.9 and found["caption_accuracy"] >= 0.9


def test_frozen_videos_do_not_move(true):
    videos, captions = true
    found = figures([np.repeat(v[:1], 17, 0) for v in videos], captions)
    assert found["motion"] < 0.05 and found["persistence"] == 1


def test_shuffled_frames_break_the_laws_of_motion(true):
    videos, captions = true
    order = np.random.default_rng(0).permutation(17)
    found = figures([v[order] for v in videos], captions)
    assert found["residual_px"] > 1 and found["acceleration_px"] > 0.5


def test_a_removed_object_does_not_persist(true):
    videos, captions = true
    spoiled = []
    for world, video in zip(worlds(), videos):
        x, y = world.positions[10, 0].astype(int)
        gone = video.copy()
        gone[10:, max(0, y - 9) : y + 9, max(0, x - 9) : x + 9] = (16, 16, 24)
        spoiled.append(gone)
    found = figures(spoiled, captions)
    assert found["persistence"] == 0 and 0.4 < found["objects_present"] < 0.9


def test_a_colour_that_drifts_is_seen(true):
    videos, captions = true
    spoiled = [np.concatenate([v[:9], v[9:][..., [1, 2, 0]]]) for v in videos]
    found = figures(spoiled, captions)
    assert found["colour_identity"] < 0.8 and figures(videos, captions)["colour_identity"] == 1


def test_a_faded_object_loses_mass(true):
    videos, captions = true
    found = figures([(16 + (v.astype(float) - 16) * 0.5).clip(0, 255).astype(np.uint8) for v in videos], captions)
    assert found["persistence"] < 0.2


def test_wrong_captions_and_empty_videos(true):
    videos, captions = true
    shifted = figures(videos, captions[1:] + captions[:1])
    assert shifted["caption_accuracy"] < 0.2
    black = figures([np.zeros((5, 32, 32, 3), np.uint8)], ["a red circle, fast"])
    assert black["persistence"] == black["caption_accuracy"] == black["motion"] == 0
    assert len(COLOURS) == 8


def test_figures_by_frame(true):
    videos, captions = true
    rows = per_frame([measure_video(v, c) for v, c in zip(videos, captions)])
    assert all(len(row) == 17 for row in rows.values()) and rows["objects_present"] == [1.0] * 17
