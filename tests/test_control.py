"""What control is measured by, on true videos and on spoiled ones: a figure that cannot fall says nothing."""

import json

import numpy as np
import pytest
from playable import playable

from video_gen import evaluate_control as command
from video_gen.data import maze
from video_gen.data.action_files import write_vocabulary
from video_gen.data.actions import scaled, write_actions
from video_gen.data.video_writer import write_video
from video_gen.errors import ConfigError, DataError
from video_gen.evaluation import control, maze_pose
from video_gen.evaluation.control import Maze
from video_gen.evaluation.inverse import accuracy, train_inverse
from video_gen.vocabulary import Axis, Vocabulary

WORLD = Maze(height=24, width=32)


@pytest.fixture
def coarse(monkeypatch):
    monkeypatch.setattr(maze_pose, "GRID", 1)
    monkeypatch.setattr(maze_pose, "SMALL", 2)


def stand_in(monkeypatch, make):
    """In place of a model: `make` of the true videos and what was done."""
    monkeypatch.setattr(control, "roll_out", make)


def true_rollouts(world):
    """A model without fault: it knows the maze, and finds where it is by the actions."""

    def roll_out(pipeline, first, rows, captions, seed, progress=None, **settings):
        walks = roll_out.walks  # type: ignore[attr-defined]
        return world.of(walks).videos

    return roll_out


def test_decibels_and_sharpness():
    rng = np.random.default_rng(0)
    true = rng.integers(0, 255, (2, 3, 24, 32, 3), dtype=np.uint8)
    noisy = (true.astype(int) + rng.integers(-20, 21, true.shape)).clip(0, 255).astype(np.uint8)
    noisier = (true.astype(int) + rng.integers(-60, 61, true.shape)).clip(0, 255).astype(np.uint8)
    assert (control.psnr(true, true) > 60).all()
    assert (control.psnr(noisy, true) > control.psnr(noisier, true)).all()
    found = control.at_frames(np.tile(np.arange(20.0), (2, 1)))
    assert found == {"1": 1.0, "4": 4.0, "16": 16.0}
    blurred = (true[:, 0].astype(int) + np.roll(true[:, 0], 1, axis=2)) // 2
    assert (control.sharpness(blurred) < control.sharpness(true[:, 0])).all()


def test_walks_of_the_maze_are_what_the_keys_lead_to():
    walk = WORLD.acted(7, [{"forward"}] * 5)
    again = WORLD.acted(7, [{"right"}] * 5)
    assert (walk.x[0], walk.y[0], walk.heading[0]) == (again.x[0], again.y[0], again.heading[0])
    assert (np.diff(again.heading) % 360 == maze.TURN).all() and not np.diff(again.x).any()
    calm = [WORLD.acted(i, [set()] * 30, calm=True) for i in range(4)]
    for video in WORLD.of(calm).videos:
        assert not (video != video[0]).any()


def test_choices_are_told_apart_by_true_videos_and_not_by_others(monkeypatch):
    roll_out = true_rollouts(WORLD)
    roll_out.walks = [WORLD.acted(control.HELD_OUT + i, [keys] * 9) for i in range(4) for keys in control.CHOICES]
    stand_in(monkeypatch, roll_out)
    assert control.choices(None, WORLD, 4, 9, 0)["told_apart"] == 1
    roll_out.walks = [
        WORLD.acted(control.HELD_OUT + i, [control.CHOICES[(k + 2) % 5]] * 9) for i in range(4) for k in range(5)
    ]
    assert control.choices(None, WORLD, 4, 9, 0)["told_apart"] < 0.35
    roll_out.walks = [WORLD.acted(control.HELD_OUT + i, [set()] * 9) for i in range(4) for _ in range(5)]
    assert control.choices(None, WORLD, 4, 9, 0)["told_apart"] < 0.5  # actions ignored


@pytest.mark.slow
def test_a_full_turn_leads_to_the_same_room_and_one_elsewhere_does_not(monkeypatch, coarse):
    poses = {n: maze_pose.known_poses(0, 4, n, 24, 32, None) for n in range(2)}
    world = Maze(layouts=4, height=24, width=32)
    frames = control.CIRCLE + 1
    keys = [[{"left" if i % 2 else "right"}] * frames for i in range(2)]
    roll_out = true_rollouts(world)
    roll_out.walks = [world.acted(control.HELD_OUT + i, k) for i, k in enumerate(keys)]
    stand_in(monkeypatch, roll_out)
    found = control.circles(None, world, poses, 2, 1, 0)
    assert (found["same_room"], found["true_room"]) == (1, 1) and found["psnr"] > 25
    roll_out.walks = [world.acted(control.HELD_OUT + i + 40, k) for i, k in enumerate(keys)]  # other places
    assert control.circles(None, world, poses, 2, 1, 0)["psnr"] < 20


def test_poses_of_true_videos_are_near_and_of_others_far(coarse):
    world = Maze(layouts=4, height=24, width=32)
    poses = {0: maze_pose.known_poses(0, 4, 0, 24, 32)}
    walks = [maze.walk(0, 4, 4 * i, 17) for i in range(3, 7)]
    right = control.pose_errors(poses, world.of(walks).videos, walks)
    wrong = control.pose_errors(poses, world.of(walks[1:] + walks[:1]).videos, walks)
    assert right["cells"]["0"] < 1 and right["room"]["16"] > wrong["room"]["16"]
    assert wrong["cells"]["16"] > right["cells"]["16"]


def test_standing_still_tells_what_moves_and_what_blurs(monkeypatch):
    pipe = playable()
    first = np.random.default_rng(0).integers(0, 255, (2, 16, 16, 3), dtype=np.uint8)
    still = np.repeat(first[:, None], 9, axis=1)
    stand_in(monkeypatch, lambda *args, **options: still)
    found = control.stand_still(pipe, first, ["", ""], 9, 0)
    assert found["idle_psnr"] > 60 and found["idle_sharpness"] == 0
    rotten = still.copy()
    rotten[:, -1] = (still[:, -1].astype(int) + np.roll(still[:, -1], 3, axis=1)) // 2
    stand_in(monkeypatch, lambda *args, **options: rotten)
    found = control.stand_still(pipe, first, ["", ""], 9, 0)
    assert found["idle_psnr"] < 25 and found["idle_sharpness"] < -0.1


WORDS = Vocabulary(keys=("left", "right"), axes=(Axis(name="lift", low=-2, high=2),), fps=24)


def dots(count, frames, seed):
    """Dots that go where they are told: (videos, rows)."""
    rng = np.random.default_rng(seed)
    rows = np.zeros((count, frames, 3))
    rows[:, :, 0] = rng.integers(0, 2, (count, frames))
    rows[:, :, 1] = (1 - rows[:, :, 0]) * rng.integers(0, 2, (count, frames))
    rows[:, :, 2] = rng.integers(-1, 2, (count, frames)) * 2.0
    step = np.stack([2 * (rows[..., 1] - rows[..., 0]), rows[..., 2]], axis=-1)
    places = np.concatenate([np.zeros((count, 1, 2)), np.cumsum(step, axis=1)[:, :-1]], axis=1).astype(int) + 8
    videos = np.zeros((count, frames, 16, 16, 3), np.uint8)
    for i in range(count):
        for f in range(frames):
            x, y = places[i, f] % 14
            videos[i, f, y : y + 3, x : x + 3] = 255
    return videos, rows


@pytest.mark.slow
def test_what_was_done_is_read_off_true_frames_and_not_off_others():
    videos, rows = dots(60, 17, 0)
    reader = train_inverse(videos, scaled(rows, WORDS), WORDS, steps=150)
    fresh, done = dots(10, 17, 1)
    right = accuracy(reader, fresh, scaled(done, WORDS))
    assert right > 0.6
    assert accuracy(reader, fresh, scaled(np.roll(done, 1, axis=0), WORDS)) < 0.4
    assert accuracy(reader, np.repeat(fresh[:, :1], 17, axis=1), scaled(done, WORDS)) < 0.4  # nothing moves


def test_the_command_on_a_small_model(tmp_path, coarse, monkeypatch):
    pipe = playable(words=maze.VOCABULARY)
    pipe.config = pipe.config.replace(world="maze", maze=(0, 1))
    pipe.save_pretrained(tmp_path / "model")
    monkeypatch.setattr(command, "TAUGHT", 4)
    monkeypatch.setattr(command, "CIRCLES", (1,))
    monkeypatch.setattr(command, "train_inverse", lambda *args, **options: train_inverse(*args, steps=3))
    found = command.evaluate_control(
        tmp_path / "model", tmp_path / "out", episodes=3, frames=17, trials=2, idle_seconds=0.4
    )
    assert {"shuffle_ratio", "read_off_share", "idle_psnr", "told_apart", "same_room"} <= set(found["figures"])
    assert found["at"]["psnr"]["still"].keys() == {"1", "4", "16"} and found["circles"].keys() == {"1"}
    assert json.loads((tmp_path / "out/control.json").read_text()) == found
    page = (tmp_path / "out/control.html").read_text()
    assert page.count("<video") == 9 and "Does what it is told" in page


def test_the_command_on_a_folder_of_clips(tmp_path, monkeypatch):
    words = Vocabulary(keys=("a", "b"), fps=24)
    playable(words=words).save_pretrained(tmp_path / "model")
    folder = tmp_path / "clips"
    folder.mkdir()
    write_vocabulary(folder, words)
    for index in range(6):
        rng = np.random.default_rng(index)
        video = np.cumsum(rng.integers(0, 9, (20, 16, 16, 3)), axis=0).astype(np.uint8)
        write_video(folder / f"{index}.mp4", video, 24)
        write_actions(folder / f"{index}.mp4", rng.integers(0, 2, (20, 2)).astype(float), words)
    monkeypatch.setattr(command, "train_inverse", lambda *args, **options: train_inverse(*args, steps=3))
    options = dict(episodes=4, frames=17, trials=2, idle_seconds=0.4)
    found = command.evaluate_control(tmp_path / "model", tmp_path / "out", folder=folder, **options)
    assert found["circles"] == {} and found["at"]["psnr"]["made"].keys() == {"1", "4", "16"}
    with pytest.raises(DataError, match="give them as --folder"):
        command.evaluate_control(tmp_path / "model", tmp_path / "out", **options)
    playable().save_pretrained(tmp_path / "other")
    with pytest.raises(ConfigError, match="has a, b, and the model knows forward"):
        command.evaluate_control(tmp_path / "other", tmp_path / "out", folder=folder, **options)
