"""Worlds that are played: what is done decides what comes, states go on bit for bit, a batch equals its worlds."""

import numpy as np
import pytest
import torch
from playable import WORDS, playable

from video_gen.errors import ConfigError, DataError, ShapeError
from video_gen.sampling.play import Play, rows_of
from video_gen.vocabulary import Action

KEYS = [{"keys": ["forward"]}, {"keys": ["left"], "axes": {"turn": 12.5}}, None, {"keys": ["open", "forward"]}]


@pytest.fixture(scope="module")
def pipe():
    return playable()


def play(world, actions):
    return np.concatenate([world.step(each) for each in actions])


def test_a_step_is_the_frames_of_a_latent_frame(pipe):
    world = pipe.play("a room", seed=1)
    assert world.frames.shape == (1, 1, 16, 16, 3) and world.frames_per_step == 2 and world.vocabulary == WORDS
    frames = world.step({"keys": ["forward"]})
    assert frames.shape == (2, 16, 16, 3) and frames.dtype == np.uint8
    assert world.seconds == pytest.approx(3 / 24)


def test_the_same_again_and_other_actions_lead_elsewhere_from_there_on(pipe):
    first = play(pipe.play(seed=1), KEYS)
    np.testing.assert_array_equal(first, play(pipe.play(seed=1), KEYS))
    other = play(pipe.play(seed=1), [*KEYS[:2], {"keys": ["open"]}, KEYS[3]])
    np.testing.assert_array_equal(first[:4], other[:4])
    assert (first[4:6] != other[4:6]).any() and (first[6:] != other[6:]).any()


def test_saved_equals_uninterrupted(pipe, tmp_path):
    world = pipe.play("a room", seed=1)
    whole = play(world, KEYS * 3)
    world = pipe.play("a room", seed=1)
    play(world, (KEYS * 3)[:5])
    world.save(tmp_path / "state.safetensors")
    again = Play.load(tmp_path / "state.safetensors", pipe)
    assert again.frames is None and again.seconds == world.seconds
    np.testing.assert_array_equal(play(again, (KEYS * 3)[5:]), whole[10:])
    np.testing.assert_array_equal(play(world, (KEYS * 3)[5:]), whole[10:])  # saving has changed nothing


def test_a_batch_equals_its_worlds(pipe):
    rows = np.stack([rows_of(KEYS[i], WORDS, 2) for i in (0, 1)])
    worlds = pipe.plays(["a room", ""], seeds=[4, 5])
    both = np.concatenate([worlds.step_rows(rows) for _ in range(4)], axis=1)
    for index, (prompt, seed) in enumerate((("a room", 4), ("", 5))):
        alone = play(pipe.play(prompt, seed=seed), [KEYS[index]] * 4)
        difference = np.abs(
            both[index].astype(int) - alone
        )  # in bfloat16, products of another batch size round otherwise
        assert np.median(difference) <= 1 and difference.max() < 20


def test_played_is_the_masked_pass_over_the_clip(pipe):
    """One network call per step, from a cache, gives what one call over the whole clip does."""
    from video_gen.data.actions import scaled
    from video_gen.model.actions import Actions, latent_actions

    with torch.no_grad():
        latents = torch.randn(1, 4, 4, 4, 4, generator=torch.Generator().manual_seed(0))
        rows = np.concatenate([rows_of(each, WORDS, 2) for each in KEYS[:3]] + [np.zeros((1, 4))])
        acted = latent_actions(torch.from_numpy(scaled(rows, WORDS))[None], 2)
        t = torch.full((1, 4), 0.6)
        text, visible = pipe.text(pipe.text.tokenise([""]))
        done = Actions(acted)
        whole = pipe.transformer(
            latents, t, text, visible, clean=latents, blocks=(1,) * 4, actions=done, clean_actions=done
        )
        model = pipe.block_model([""], pipe.config.sampling, 1)
        history = None
        for f in range(4):
            some = latents[:, :, f : f + 1]
            made = model.doing(acted[:, f : f + 1]).denoiser(history, ("full",))(some, t[:, 0])[0]
            expected = pipe.diffusion.to_denoised(whole[:, :, f : f + 1], some, t[:, 0])
            torch.testing.assert_close(made, expected, atol=1e-4, rtol=1e-4)
            history = model.append(history, some, torch.zeros(1), acted[:, f : f + 1])


def test_starts_from_an_image_or_a_video_with_or_without_its_actions(pipe):
    rng = np.random.default_rng(0)
    video = rng.integers(0, 255, (5, 16, 16, 3), dtype=np.uint8)
    from_image = pipe.play(image=video[0], seed=1)
    np.testing.assert_array_equal(from_image.frames[0], video[:1])
    rows = np.array([WORDS.row(Action(keys=("left",)))] * 5)
    known, unknown = pipe.play(video=video, actions=rows, seed=1), pipe.play(video=video, seed=1)
    np.testing.assert_array_equal(known.frames[0], video)
    assert (play(known, KEYS) != play(unknown, KEYS)).any()
    longer = np.concatenate([video[:1], video])  # of six frames the first is left out, and its action too
    np.testing.assert_array_equal(
        play(pipe.play(video=longer, actions=np.concatenate([rows[:1] * 0, rows]), seed=1), KEYS),
        play(pipe.play(video=video, actions=rows, seed=1), KEYS),
    )


def test_memory_does_not_grow(pipe):
    world = pipe.play(seed=1)
    play(world, KEYS)
    size = [x.k.shape for x in world.state().rollout.history.layers]
    play(world, KEYS * 4)
    assert [x.k.shape for x in world.state().rollout.history.layers] == size


def test_deltas_given_once_are_shared_out_and_lists_are_taken_as_they_are():
    once = rows_of({"axes": {"turn": 10}}, WORDS, 2)
    assert once[:, 3].tolist() == [5, 5]
    assert rows_of([None, {"axes": {"turn": 10}}], WORDS, 2)[:, 3].tolist() == [0, 10]


def test_a_prompt_and_settings_can_change_on_the_way(pipe):
    world, other = pipe.play("a room", seed=1), pipe.play("a room", seed=1)
    play(world, KEYS[:1])
    play(other, KEYS[:1])
    world.steer("another room", action_scale=2.0)
    assert world.steering.sampling.action_scale == 2
    assert (play(world, KEYS) != play(other, KEYS)).any()
    with pytest.raises(ConfigError, match="perhaps you meant"):
        world.steer(action_scal=2.0)
    assert world.steering.prompts == ("another room",)


def test_what_cannot_be_done_is_named(pipe, tmp_path):
    world = pipe.play(seed=1)
    before = world.state()
    for said, message in (
        ({"keys": ["jump"]}, "unknown key 'jump'; the keys are forward, left, open"),
        ({"axes": {"turn": 99}}, "'turn' is 49.5, out of its range -20 to 20"),
        ([None], "1 actions for 2 frames"),
        (
            "forward",
            r'actions: \'forward\' is none; give {"keys": \["forward"\], "axes": {}} or an Action, a list of one for each',
        ),
        (["forward", None], "'forward' is none; give"),
        (7, "7 is none; give"),
    ):
        with pytest.raises(DataError, match=message):
            world.step(said)
    assert world.state() is before
    with pytest.raises(ConfigError, match="trained without actions"):
        playable(words=None).play()
    with pytest.raises(DataError, match="no such file"):
        Play.load(tmp_path / "none", pipe)
    with pipe.stream(seed=1, block_frames=2) as stream:
        next(stream)
        stream.save(tmp_path / "stream")
    with pytest.raises(DataError, match="no world that was played"):
        Play.load(tmp_path / "stream", pipe)
    playable(seed=1).play().save(tmp_path / "other")
    with pytest.raises(DataError, match="another model"):
        Play.load(tmp_path / "other", pipe)


def test_what_worlds_cannot_begin_with_is_one_line(pipe):
    video, rows = np.zeros((5, 16, 16, 3), np.uint8), np.zeros((5, 4))
    nan = np.where(np.arange(4) == 3, np.nan, rows)
    for options, error, said in (
        (dict(video=video, actions=rows[:3]), ShapeError, r"actions are \(3, 4\) float64; give an array \(5, 4\) or"),
        (dict(video=video, actions=rows[0]), ShapeError, r"actions are \(4,\)"),
        (dict(video=video, actions=[{"keys": []}] * 5), ShapeError, "actions are list"),
        (dict(video=video, actions=nan), DataError, "'turn' of frame 0 is nan"),
        (dict(video=video, actions=rows - 1), DataError, "of frame 0 is -1; give a number from 0 to 1"),
        (
            dict(video=video, actions=rows + 999 * np.isnan(nan)),
            DataError,
            "'turn' of frame 0 is 999; give a number from",
        ),
        (dict(actions=rows), ShapeError, "actions without a video"),
        (dict(image="x.png"), ShapeError, "frames are 'x.png'; give an array"),
        (dict(image=video[0], video=video[None]), ShapeError, "both an image and a video"),
        (
            dict(video=video[None].astype(float)),
            ShapeError,
            r"\(n, f, h, w, 3\) uint8 RGB, got \(1, 5, 16, 16, 3\) float64",
        ),
        (dict(video=video[None, :, :8]), ShapeError, r"give \(1, f, 16, 16, 3\)"),
        (dict(seed=1.5), ConfigError, "seed is 1.5; a seed is a whole number"),
    ):
        with pytest.raises(error, match=said):
            pipe.play(**options)
    with pytest.raises(ShapeError, match="no prompts"):
        pipe.plays([], seeds=[])
    with pytest.raises(ShapeError, match="prompts is 'ab'; give a list"):
        pipe.plays("ab", seeds=[1, 2])
    with pytest.raises(ShapeError, match=r"the videos are \(2, 5, 16, 16, 3\); give \(3, f, 16, 16, 3\)"):
        pipe.plays(["a", "b", "c"], seeds=[1, 2, 3], video=np.stack([video] * 2))


def test_rows_of_a_step_are_numbers(pipe):
    world = pipe.play(seed=1)
    before, rows = world.state(), np.zeros((1, 2, 4))
    for said, error, message in (
        (np.full_like(rows, np.nan), DataError, "'forward' of frame 0 is nan; give a number"),
        (rows.tolist(), ShapeError, "actions are list"),
        (rows[0], ShapeError, r"actions are \(2, 4\) float64; give an array \(1, 2, 4\)"),
    ):
        with pytest.raises(error, match=message):
            world.step_rows(said)
    assert world.state() is before


def test_a_model_folder_keeps_its_vocabulary(pipe, tmp_path):
    from video_gen.sampling.pipeline import VideoPipeline

    pipe.save_pretrained(tmp_path / "model")
    again = VideoPipeline.from_pretrained(tmp_path / "model")
    assert again.transformer.config.actions == WORDS
    np.testing.assert_array_equal(play(again.play(seed=2), KEYS), play(pipe.play(seed=2), KEYS))
