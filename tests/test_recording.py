"""Environments of gymnasium, recorded: what was done, what was seen, and what the environment tells."""

import json

import numpy as np
import pytest

from video_gen.cli import main
from video_gen.data.action_files import find_vocabulary
from video_gen.data.actions import read_actions
from video_gen.data.config import RecordConfig
from video_gen.data.recording import Policy, controls_of, record
from video_gen.data.video_file import all_frames
from video_gen.errors import ConfigError, DataError
from video_gen.vocabulary import Axis, Vocabulary

gymnasium = pytest.importorskip("gymnasium")
from gymnasium import spaces  # noqa: E402


class Dot(gymnasium.Env):
    """A dot that moves by what is done: so actions can be read off the frames."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012

    def __init__(self, render_mode=None, space="discrete", ends=1000, names=("NOOP", "RIGHT", "LEFT")):
        self.render_mode, self.ends, self.names = render_mode, ends, names
        self.action_space = {
            "discrete": spaces.Discrete(3),
            "binary": spaces.MultiBinary(2),
            "box": spaces.Box(-1.0, 1.0, (2,), np.float64),
            "still": spaces.Box(np.array([-1.0, 0.0]), np.array([1.0, 0.0]), dtype=np.float64),
            "single": spaces.Discrete(1),
            "other": spaces.Tuple((spaces.Discrete(2), spaces.Discrete(2))),
        }[space]
        self.observation_space = spaces.Box(-1000, 1000, (2,), np.float64)
        self.space = space

    def get_action_meanings(self):
        return [*self.names][: self.action_space.n] if self.space in ("discrete", "single") else []  # type: ignore[attr-defined]

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place, self.steps = np.array([float(self.np_random.integers(20, 40)), 30.0]), 0
        return self.place.copy(), {"steps": 0}

    def step(self, action):
        if self.space == "discrete":
            self.place[0] += (0, 1, -1)[action]
        else:
            self.place += np.asarray(action, dtype=float)
        self.steps += 1
        return self.place.copy(), 0.0, self.steps >= self.ends, False, {"steps": self.steps}

    def render(self):
        frame = np.zeros((33, 64, 3), np.uint8)
        frame[10:20, int(self.place[0]) % 64] = 255
        return frame


class Blind(Dot):
    metadata = {"render_modes": ["human"], "render_fps": 20}  # noqa: RUF012


@pytest.fixture(scope="module", autouse=True)
def registered():
    gymnasium.register("Dot-v0", Dot)
    gymnasium.register("Blind-v0", Blind)
    yield
    for name in ("Dot-v0", "Blind-v0"):
        del gymnasium.registry[name]


def test_frames_actions_state_and_seeds_belong_together(tmp_path):
    config = RecordConfig(env="Dot-v0", clips=2, frames=40, seed=5)
    assert record(config, tmp_path / "a") == (2, 0)
    words = find_vocabulary(tmp_path / "a")
    assert words == Vocabulary(keys=("right", "left"), fps=20)
    rows = [json.loads(line) for line in (tmp_path / "a" / "metadata.jsonl").read_text().splitlines()]
    assert [row["seed"] for row in rows] == [5, 6] and rows[0]["env"] == "Dot-v0"
    for index in range(2):
        name = f"clip_{index:06d}"
        frames = np.stack([frame for _, frame in all_frames(tmp_path / "a" / f"{name}.mp4")])
        acted = read_actions(tmp_path / "a" / f"{name}.actions.jsonl", words)
        state = np.load(tmp_path / "a" / "state" / f"{name}.npz")
        assert frames.shape == (40, 32, 64, 3) and acted.shape == (40, 2)
        np.testing.assert_array_equal(np.diff(state["observation"][:, 0]), (acted[:, 0] - acted[:, 1])[:-1])
        seen = frames[:, 12].mean(-1).argmax(1)
        np.testing.assert_array_equal(seen, state["observation"][:, 0].astype(int) % 64)


def test_a_recording_goes_on_and_is_the_same_whenever_it_is_made(tmp_path):
    config = RecordConfig(env="Dot-v0", clips=3, frames=20)
    record(config, tmp_path / "whole")
    record(config.replace(clips=1), tmp_path / "parts")
    assert record(config, tmp_path / "parts") == (3, 1)
    for file in (tmp_path / "whole").glob("clip_*"):
        assert file.read_bytes() == (tmp_path / "parts" / file.name).read_bytes()
    with pytest.raises(DataError, match="holds another recording"):
        record(config.replace(seed=1), tmp_path / "whole")
    (tmp_path / "whole" / "recording.json").write_text("[]")
    with pytest.raises(DataError, match=r"recording\.json: damaged \(is list and no object\); choose another folder"):
        record(config, tmp_path / "whole")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match="is not empty and holds no recording"):
        record(config, tmp_path / "other")


def test_captions_that_somebody_changed_stay_and_so_do_those_of_clips_beyond(tmp_path):
    config = RecordConfig(env="Dot-v0", clips=2, frames=4)
    record(config, tmp_path)
    path = tmp_path / "metadata.jsonl"
    kept = path.read_text().replace('"text": ""', '"text": "mine"').rstrip("\n")  # as some editors end a file
    path.write_text(kept)
    record(config.replace(clips=1), tmp_path)
    assert path.read_text() == kept
    record(config.replace(clips=3), tmp_path)
    assert path.read_text().startswith(kept + "\n") and path.read_text().count("\n") == 3


def test_an_episode_that_ends_makes_a_shorter_clip(tmp_path):
    record(RecordConfig(env="Dot-v0", options='{"ends": 7}', clips=1, frames=20), tmp_path / "a")
    assert len(list(all_frames(tmp_path / "a" / "clip_000000.mp4"))) == 8
    words = find_vocabulary(tmp_path / "a")
    assert len(read_actions(tmp_path / "a" / "clip_000000.actions.jsonl", words)) == 8


def test_actions_can_be_held_for_several_steps_of_the_environment(tmp_path):
    record(RecordConfig(env="Dot-v0", clips=1, frames=30, skip=4), tmp_path / "a")
    words = find_vocabulary(tmp_path / "a")
    assert words is not None and words.fps == 5
    acted = read_actions(tmp_path / "a" / "clip_000000.actions.jsonl", words)
    place = np.load(tmp_path / "a" / "state" / "clip_000000.npz")["observation"][:, 0]
    np.testing.assert_array_equal(np.diff(place), 4 * (acted[:, 0] - acted[:, 1])[:-1])


@pytest.mark.parametrize(("space", "keys", "axes"), [("discrete", 2, 0), ("binary", 2, 0), ("box", 0, 2)])
def test_spaces_of_actions(space, keys, axes):
    env = Dot(space=space)
    controls = controls_of(env, 20)
    assert (len(controls.vocabulary.keys), len(controls.vocabulary.axes)) == (keys, axes)
    policy = Policy(controls.vocabulary, controls.exclusive, np.random.default_rng(0))
    for _ in range(200):
        assert env.action_space.contains(controls.to_action(policy()))


def test_names_that_differ_in_capitals_alone_keep_them():
    assert controls_of(Dot(names=("NOOP", "Fire", "FIRE")), 20).vocabulary.keys == ("Fire", "FIRE")


def test_where_nothing_cannot_be_done_a_key_is_always_held():
    env = Dot()
    env.get_action_meanings = list  # it has no names, and so none that means nothing
    controls = controls_of(env, 20)
    assert len(controls.vocabulary.keys) == 3 and not controls.idle
    policy = Policy(controls.vocabulary, controls.exclusive, np.random.default_rng(0), controls.idle)
    assert all(policy().sum() == 1 for _ in range(300))


def test_frames_are_not_the_canvas_of_the_environment(tmp_path, monkeypatch):
    canvas = np.zeros((32, 64, 3), np.uint8)

    def render(self):
        canvas[:] = 0
        canvas[10:20, int(self.place[0]) % 64] = 255
        return canvas

    monkeypatch.setattr(Dot, "render", render)
    record(RecordConfig(env="Dot-v0", clips=1, frames=90, seed=5), tmp_path / "a")
    frames = np.stack([frame for _, frame in all_frames(tmp_path / "a" / "clip_000000.mp4")])
    assert len({int(frame[12].mean(-1).argmax()) for frame in frames}) > 3


def test_keys_are_held_for_all_lengths_and_now_and_then_nothing_is_done():
    words = Vocabulary(keys=("a", "b", "c"), axes=(Axis(name="x"),), fps=20)
    policy = Policy(words, False, np.random.default_rng(0))
    rows = np.array([policy() for _ in range(6000)])
    edges = np.flatnonzero(np.diff(np.concatenate([[0], rows[:, 0], [0]])))
    lengths = edges[1::2] - edges[::2]
    assert lengths.min() == 1 and lengths.max() > 20 and len(set(lengths)) > 12
    assert 0.05 < (~rows.any(1)).mean() < 0.6 and (rows[:, :3].sum(1) > 1).any()


def test_what_cannot_be_recorded(tmp_path, capsys):
    for values, said in (
        ({"env": "Nothing-v0"}, "env 'Nothing-v0': cannot be made"),
        ({"env": "Blind-v0"}, "has no pictures"),
        ({"env": "Dot-v0", "options": '{"space": "other"}'}, "its actions are Tuple"),
        (
            {"env": "Dot-v0", "options": '{"space": "still"}'},
            r"env 'Dot-v0': its actions are Box.*'axis 1' goes from low 0 to high 0.*: wrap it",
        ),
        ({"env": "Dot-v0", "options": '{"space": "single"}'}, r"Discrete\(1\): has neither keys nor axes.*: wrap it"),
        ({"env": "Dot-v0", "options": '{"names": ["up", "up", "UP"]}'}, r"Discrete\(3\): 'up' stands twice.*: wrap it"),
        ({"env": "Dot-v0", "options": "nonsense"}, "options is 'nonsense'"),
        ({"env": "Dot-v0", "options": '{"space": "box", "space": "box"}'}, "'space' is given twice"),
        ({"env": ""}, "env is empty"),
    ):
        with pytest.raises(ConfigError, match=said):
            record(RecordConfig(**values), tmp_path / "a")
    assert not (tmp_path / "a").exists()
    assert main(["data", "record", "--env", "Nothing-v0", "--output", str(tmp_path / "a")]) == 2
    assert "cannot be made" in capsys.readouterr().err
