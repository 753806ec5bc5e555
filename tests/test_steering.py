"""Measures of steering and endings: right on the world's own videos, and on those that were spoiled on purpose."""

import json
from math import isnan

import numpy as np
import pytest
from test_drift import tiny_pipeline

from video_gen.cli import main
from video_gen.data.captions import Scene, caption
from video_gen.data.config import WorldConfig
from video_gen.data.worlds import draw, simulate, simulate_change
from video_gen.evaluation.endings import Ended, ending_of, make_endings, measure_endings, seam_speed, true_clips
from video_gen.evaluation.intervals import median, share
from video_gen.evaluation.steering import (
    AFTER,
    LOOKED_AT,
    SWITCHES,
    Staying,
    Switched,
    draw_switches,
    follows,
    measure_staying,
    measure_switches,
    roll_staying,
    roll_switches,
    true_staying,
    true_switches,
)

SIZE = (32, 32)


# -------------------- intervals


def test_intervals():
    assert share([True] * 8 + [False] * 2).value == 0.8
    low, high = share([True] * 8 + [False] * 2).low, share([True] * 8 + [False] * 2).high
    assert (low, high) == (pytest.approx(0.4902, abs=1e-3), pytest.approx(0.9433, abs=1e-3))  # Wilson's, from tables
    assert share([True] * 40).high == 1 and 0.9 < share([True] * 40).low < 0.92
    values = np.random.default_rng(0).normal(5, 1, 200).tolist()
    found = median([*values, float("nan")])
    assert found == median(values) and found.low < 5 < found.high and found.high - found.low < 0.6
    assert isnan(share([]).value) and isnan(median([float("nan")]).low)


# -------------------- steering


def test_switches_are_of_all_kinds_in_turn_and_the_same_for_a_seed():
    found = draw_switches(24, 7)
    assert [switch.kind for switch in found] == list(SWITCHES) * 4 and found == draw_switches(24, 7)
    assert len({switch.seed for switch in found}) == 24 and found != draw_switches(24, 8)


@pytest.mark.slow
def test_the_worlds_own_switches_are_followed():
    wanted = draw_switches(18, 1)
    found = measure_switches(wanted, true_switches(wanted, 16, *SIZE), 16)
    assert all(estimate["value"] >= 0.94 for estimate in found["followed"]["all"].values())
    for figures in found["around"].values():
        assert figures["persistence"]["value"] > 0.9 and figures["residual_px"]["value"] < 0.1


@pytest.mark.slow
def test_what_stays_as_it_was_does_not_follow_and_what_goes_over_late_follows_late():
    wanted = draw_switches(12, 2)
    true = true_switches(wanted, 16, *SIZE)
    before = np.stack(
        [
            draw(
                simulate_change(
                    WorldConfig(num_frames=true.videos.shape[1], height=32, width=32, seed=s.seed),
                    s.before,
                    s.before,
                    10**6,
                )
            )
            for s in wanted
        ]
    )
    found = measure_switches(wanted, Switched(before, true.at), 16)["followed"]["all"]
    assert [estimate["value"] for estimate in found.values()] == [0.0] * len(AFTER)
    late = np.concatenate([before[:, : true.at[0] + 24], true.videos[:, true.at[0] + 24 :]], axis=1)
    found = measure_switches(wanted, Switched(late, true.at), 16)["followed"]["all"]
    assert found["1"]["value"] == 0 and found["2"]["value"] > 0.9


def test_a_change_of_speed_is_told_by_how_things_move():
    before, after = (Scene((("red", "circle"),), speed) for speed in ("slow", "fast"))
    (switch,) = [s for s in draw_switches(60, 3) if s.kind == "speed"][:1]
    switch = type(switch)("speed", before, after, 0)
    config = WorldConfig(num_frames=65, height=32, width=32)
    assert follows(draw(simulate_change(config, before, after, 33)), switch, 49)
    assert not follows(draw(simulate_change(config, before, before, 33)), switch, 49)


def test_streams_are_steered_at_the_moment_they_say():
    pipeline, wanted = tiny_pipeline("bounce"), draw_switches(6, 4)
    shown = roll_switches(pipeline, wanted, block_frames=1, num_steps=1)
    fps, at = pipeline.config.clip.fps, shown.at[0]
    assert (shown.at == (at,) * 6 and shown.videos.shape[1] == at + round(AFTER[-1] * fps) + 1) or 2 * 17
    assert shown.delay == pytest.approx(4 / fps)
    settings = {"num_frames": 1 + 4 * 12, "block_frames": 1, "num_steps": 1}
    for index in (0, 5):
        unsteered = pipeline(caption(wanted[index].before), seed=wanted[index].seed, **settings).astype(int)
        difference = (
            abs(unsteered[: len(shown.videos[index])] - shown.videos[index][: len(unsteered)])
            .reshape(-1, 16 * 16 * 3)
            .max(1)
        )
        assert difference[:at].max() <= 2 < difference[at:].max()


def test_streams_that_stay_are_looked_at_when_they_say():
    pipeline = tiny_pipeline("bounce")
    fps = pipeline.config.clip.fps
    captions = ["a red circle, fast", "two blue squares, slow"]
    staying = roll_staying(pipeline, captions, 5, (1.0, 2.0), block_frames=1, num_steps=1)
    for seconds, frames in staying.seen.items():
        whole = pipeline.generate(captions, seeds=[5, 6], num_frames=1 + 4 * 8, block_frames=1, num_steps=1)
        end = round(seconds * fps) + 1
        assert abs(frames.astype(int) - whole[:, end - LOOKED_AT : end]).max() <= 2
    assert len(staying.shown) == 2


def test_what_is_lost_is_told():
    captions = ["a red circle, fast", "two blue squares, slow"]
    true = true_staying(captions, 0, (1.0, 4.0), 16, SIZE)
    assert all(e["value"] == 1 for row in measure_staying(true).values() for e in row.values())
    spoiled = {s: frames.copy() for s, frames in true.seen.items()}
    spoiled[4.0][1] = spoiled[4.0][0]  # one square is gone, the other is red and round
    found = measure_staying(Staying(captions, spoiled, []))
    assert (
        found["there"]["4"]["value"] == 0.5
        and found["right"]["1"]["value"] == 1
        and found["right"]["4"]["value"] == 0.5
    )


# -------------------- endings


def clip(caption_of=0, frames=65):
    world = simulate(WorldConfig(num_frames=frames, height=32, width=32, seed=9), caption_of)
    return draw(world), world.caption


def test_a_true_clip_ends_as_it_moves():
    for index in range(6):
        found = ending_of(*clip(index))
        assert found["persistence"] and found["whole"] and found["seam_near"] and found["caption_accuracy"]


def test_what_fades_and_what_jumps_is_told():
    video, text = clip()
    faded = video.copy()
    faded[40] = (video[0, 0, 0] + 0.3 * (video[40].astype(float) - video[0, 0, 0])).round()
    found = ending_of(faded, text)
    assert not found["whole"] and not found["persistence"] and found["least_mass"] < 0.6
    jump = np.concatenate([video[:-1], video[20:21]])
    assert not ending_of(jump, text)["seam_near"]
    slow = np.stack([np.arange(20.0), np.zeros(20)], axis=1)
    assert seam_speed([slow]) == 1 and seam_speed([np.concatenate([slow, slow[-1:].repeat(4, 0)])]) == 0
    assert isnan(seam_speed([]))


def test_given_frames_that_are_not_kept_are_told():
    pipeline = tiny_pipeline("bounce")
    true = true_clips(pipeline, 2, 9, 0)
    made = make_endings(pipeline, "last frame", true, 0, num_steps=1)
    assert made.kept == (True, True) and np.array_equal(made.videos[:, [0, -1]], true.videos[:, [0, -1]])
    loops = make_endings(pipeline, "loop", true, 0, num_steps=1)
    assert loops.videos.shape == true.videos.shape and np.array_equal(loops.videos[:, 0], loops.videos[:, -1])
    assert loops.kept == true.kept == () and isnan(measure_endings(loops)["kept"]["value"])  # none were given
    assert measure_endings(Ended(true.captions, true.videos, (True, False)))["kept"]["value"] == 0.5


# -------------------- the commands


@pytest.mark.slow
def test_both_from_the_command_line(tmp_path, capsys):
    tiny_pipeline("bounce").save_pretrained(tmp_path / "m")
    few = ["--model", str(tmp_path / "m"), "--num-steps", "1", "--output", str(tmp_path / "out")]
    assert main(["evaluate", "steering", *few, "--switches", "6", "--streams", "2", "--seconds", "1", "2"]) == 0
    assert main(["evaluate", "endings", *few, "--num-videos", "2"]) == 0
    said = capsys.readouterr().out
    assert "all switches" in said and "Speed at the seam" in said
    for name in ("steering", "endings"):
        found = json.loads((tmp_path / "out" / f"{name}.json").read_text())
        page = (tmp_path / "out" / f"{name}.html").read_text()
        assert page.count("<video") >= 6 and "true clips after the VAE" in page and "<script" in page
        assert set(found["figures" if name == "endings" else "followed"]) >= {"vae", "true"}


def test_models_of_other_worlds_are_refused(tmp_path, capsys):
    tiny_pipeline("digits").save_pretrained(tmp_path / "m")
    for what in ("steering", "endings"):
        assert main(["evaluate", what, "--model", str(tmp_path / "m"), "--output", str(tmp_path / "out")]) == 2
        assert "was trained on the world 'digits'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
