"""The maze: exact, the same whenever it is made, and drawn where its state says."""

import json

import numpy as np
import pytest

from video_gen.data import maze
from video_gen.data.action_files import find_vocabulary
from video_gen.data.actions import read_actions
from video_gen.data.config import WorldConfig
from video_gen.data.maze_view import draw_walk
from video_gen.data.worlds import load_walk, render_world
from video_gen.errors import ConfigError, DataError
from video_gen.evaluation.maze_pose import known_poses
from video_gen.vocabulary import Vocabulary

SIZE = 48, 64


def go(layout, pose, *keys, frames=1):
    for _ in range(frames):
        pose = maze.advance(layout, pose, set(keys))
    return pose


def drawn(poses, number=0):
    walk = maze.gather(number, poses, np.zeros((len(poses), len(maze.KEYS)), bool))
    return draw_walk(0, 4, walk, *SIZE)


@pytest.mark.parametrize("number", range(4))
def test_every_room_is_within_reach_and_layouts_differ(number):
    layout = maze.make_layout(0, number)
    rooms = np.unique(layout.rooms[layout.rooms >= 0])
    assert len(rooms) == 6 and rooms[0] == 6 * number
    free = [tuple(cell[::-1]) for cell in np.argwhere(layout.cells == maze.FREE)]
    centres = [(x, y) for x, y in free if (x % 4, y % 4) == (2, 2)]
    for goal in centres[1:]:
        assert maze._way(layout, centres[0], goal)
    other = maze.make_layout(0, (number + 1) % 4)
    assert not np.array_equal(layout.cells, other.cells) or layout.things != other.things


def test_the_same_walk_whenever_it_is_made():
    first, again = maze.walk(3, 4, 17, 40), maze.walk(3, 4, 17, 40)
    for name, value in vars(first).items():
        np.testing.assert_array_equal(value, vars(again)[name])
    longer = maze.walk(3, 4, 17, 60)
    np.testing.assert_array_equal(first.x, longer.x[:40])
    np.testing.assert_array_equal(draw_walk(3, 4, first, *SIZE), draw_walk(3, 4, longer, *SIZE)[:40])


def test_walks_never_enter_walls_closed_doors_or_things():
    for index in range(8):
        walk = maze.walk(0, 4, index, 200)
        layout = maze.make_layout(0, walk.layout)
        assert (layout.cells[walk.y.astype(int), walk.x.astype(int)] != maze.WALL).all()
        for x, y, doors in zip(walk.x, walk.y, walk.doors):
            door = layout.door_at.get((int(x), int(y)))
            assert door is None or doors[door] > 0
            assert all(np.hypot(x - t.place[0], y - t.place[1]) > 0.45 for t in layout.things if t.solid)


def test_the_true_walk_is_what_the_keys_lead_to():
    walk = maze.walk(0, 4, 5, 80)
    layout, pose = maze.make_layout(0, walk.layout), None
    rng = np.random.default_rng([0, 5, 1])
    pose = maze.start(layout, rng)
    for f in range(80):
        assert (pose.x, pose.y, pose.heading) == (walk.x[f], walk.y[f], walk.heading[f])
        pose = maze.advance(layout, pose, {key for key, held in zip(maze.KEYS, walk.keys[f]) if held})


def test_a_full_turn_leads_back_to_the_same_picture_and_half_of_one_does_not():
    layout = maze.make_layout(0, 0)
    pose = maze.Pose(2.5, 2.5, 30.0, (0.0,) * len(layout.doors), (0,) * len(layout.doors))
    turn = round(180 / maze.TURN)
    half = go(layout, pose, "right", frames=turn)
    whole = go(layout, half, "right", frames=turn)
    assert (whole.x, whole.y, whole.heading) == (pose.x, pose.y, pose.heading)
    still = [maze.Pose(p.x, p.y, p.heading, p.doors, p.timers, 0) for p in (pose, half, whole)]
    first, middle, last = drawn(still).astype(int)
    np.testing.assert_array_equal(first, last)
    assert np.abs(first - middle).mean() > 5


def test_forward_and_back_cancel_and_walls_stop():
    layout = maze.make_layout(0, 0)
    pose = maze.Pose(2.5, 2.5, 0.0, (0.0,) * len(layout.doors), (0,) * len(layout.doors))
    moved = go(layout, go(layout, pose, "forward", frames=2), "back", frames=2)
    assert abs(moved.x - pose.x) < 1e-9
    wall = go(layout, pose, "left", frames=round(90 / maze.TURN))  # north, where the outer wall is
    stopped = go(layout, wall, "forward", frames=60)
    assert stopped.y - 1 >= maze.RADIUS - 1e-9
    assert go(layout, stopped, "forward").y == stopped.y


def test_a_door_opens_stays_and_closes_again():
    layout = next(each for each in (maze.make_layout(0, n) for n in range(4)) if each.doors)
    x, y, along = layout.doors[0]
    place = (x - 0.7, y + 0.5, 0.0) if along else (x + 0.5, y - 0.7, 90.0)
    pose = maze.Pose(*place, (0.0,) * len(layout.doors), (0,) * len(layout.doors))
    shut = go(layout, pose, "forward", frames=20)
    assert (shut.x if along else shut.y) < (x if along else y)
    opened = go(layout, go(layout, pose, "open"), frames=maze.DOOR_FRAMES)
    assert opened.doors[0] == 1
    through = go(layout, opened, "forward", frames=12)
    assert (through.x if along else through.y) > (x if along else y) + 1
    assert go(layout, opened, frames=maze.OPEN_FRAMES + maze.DOOR_FRAMES).doors[0] == 0
    pictures = drawn([pose, opened]).astype(int)
    assert np.abs(pictures[0] - pictures[1]).mean() > 5


@pytest.mark.slow
def test_the_picture_tells_the_pose():
    poses = known_poses(0, 4, 0, *SIZE, room=1)
    chosen = np.random.default_rng(0).permutation(len(poses.places))[:40]
    closed = (0.0,) * len(poses.layout.doors)
    places = [maze.Pose(*map(float, poses.places[i]), closed, ()) for i in chosen]
    found = poses.nearest(drawn(places))
    same = np.isclose(found, poses.places[chosen]).all(1)
    assert same.mean() > 0.8  # some walls are the same from two places


def test_policy_is_varied():
    """Actions of one habit make a model that shows what is usual."""
    keys = np.concatenate([maze.walk(0, 4, i, 129).keys for i in range(40)])
    shares = keys.mean(0)
    assert (shares[:4] > 0.02).all() and shares[4] > 0.005
    assert 0.05 < (~keys.any(1)).mean() < 0.4


def test_the_folder_is_a_data_set_with_actions_and_state(tmp_path):
    config = WorldConfig(kind="maze", num_clips=2, num_frames=9)
    assert (config.height, config.width, config.fps) == (48, 64, 12)
    render_world(config, tmp_path / "a")
    words = find_vocabulary(tmp_path / "a")
    assert words == Vocabulary(keys=maze.KEYS, fps=12)
    for index in range(2):
        name = f"clip_{index:06d}"
        walk = load_walk(tmp_path / "a", f"{name}.mp4")
        np.testing.assert_array_equal(read_actions(tmp_path / "a" / f"{name}.actions.jsonl", words), walk.keys)
        assert walk.layout == index
    rows = [json.loads(line) for line in (tmp_path / "a" / "metadata.jsonl").read_text().splitlines()]
    assert [row["text"] for row in rows] == ["maze 0", "maze 1"]
    assert render_world(config, tmp_path / "a") == 2
    with pytest.raises(DataError, match="layouts 4 and not 3"):
        render_world(config.replace(layouts=3), tmp_path / "a")


def test_what_a_maze_cannot_be():
    from video_gen.config import validate

    for values, said in (
        ({"fps": 10}, "walked at 12"),
        ({"num_images": 3}, "clips only"),
        ({"led": 0.5}, "only 'bounce'"),
    ):
        with pytest.raises(ConfigError, match=said):
            validate(WorldConfig, {"kind": "maze"} | values, "worlds")
