"""The exact mechanics end on whatever state they are given, and on a world's they are what they were."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from video_gen.data.config import WorldConfig
from video_gen.data.mechanics import CONTACTS, advance
from video_gen.data.worlds import collision_radius, simulate
from video_gen.evaluation.physics import measure_video, summarise

BOX = (32.0, 32.0)
ABSURD = st.floats(allow_nan=True, allow_infinity=True)
NEAR = st.floats(-40, 80)


def states(places, speeds):
    disc = st.tuples(places, places, speeds, speeds)
    return st.lists(disc, min_size=0, max_size=12).map(lambda rows: np.array(rows, dtype=float).reshape(-1, 4))


@settings(max_examples=60, deadline=None)
@given(states(NEAR, st.floats(-50, 50)), st.sampled_from([0.1, 4.0, 6.3, 15.9, 16.1, 60.0]))
def test_discs_in_each_other_or_in_a_wall_end_known_or_unknown(state, radius):
    x, v = advance(state[:, :2], state[:, 2:], radius, *BOX, 1.0)
    assert np.isfinite(x).all() == np.isfinite(v).all()
    if np.isfinite(v).all():
        assert (v**2).sum() == pytest.approx((state[:, 2:] ** 2).sum(), rel=1e-6, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(states(ABSURD, ABSURD), ABSURD)
def test_absurd_numbers_end(state, radius):
    x, v = advance(state[:, :2], state[:, 2:], radius, *BOX, 1.0)
    assert x.shape == v.shape == (len(state), 2)


def test_a_disc_that_is_not_known_leaves_the_others_alone():
    x = np.array([[8.0, 8.0], [np.nan, 9.0], [24.0, 24.0], [9.0, 8.0]])
    v = np.array([[1.0, 0.5], [1.0, 1.0], [-1.0, 0.5], [np.inf, 0.0]])
    place, speed = advance(x, v, 4.0, *BOX, 3.0)
    alone = advance(x[[0, 2]], v[[0, 2]], 4.0, *BOX, 3.0)
    np.testing.assert_array_equal(place[[0, 2]], alone[0])
    np.testing.assert_array_equal(speed[[0, 2]], alone[1])
    assert np.isnan(place[[1, 3]]).all() and np.isnan(speed[[1, 3]]).all()


@pytest.mark.parametrize(
    "x, v, radius",
    [
        ([[16.0, 16.0]], [[1.0, 0.0]], 17.0),  # wider than the box
        ([[6.0, 16], [12, 16], [20, 16], [26, 16]], [[1.0, 0], [-1, 0], [1, 0], [-1, 0]], 6.3),  # jammed between walls
        ([[16.0, 16.0]], [[1e12, 0.0]], 4.0),  # too fast to follow
    ],
)
def test_contacts_without_end_are_given_up(x, v, radius):
    place, _ = advance(np.array(x), np.array(v), radius, *BOX, 1.0)
    assert np.isnan(place).all()


def test_a_duration_without_end_is_refused():
    for duration in (np.nan, np.inf):
        with pytest.raises(ValueError, match="duration"):
            advance(np.zeros((1, 2)), np.zeros((1, 2)), 1.0, *BOX, duration)


def test_worlds_are_far_from_the_bound(monkeypatch):
    """Ten times fewer contacts would do: what the bound gives up is never a world."""
    monkeypatch.setattr("video_gen.data.mechanics.CONTACTS", CONTACTS // 10)
    for kind in ("bounce", "kicks"):
        for index in range(150):
            assert np.isfinite(simulate(WorldConfig(kind=kind, num_frames=33), index).positions).all()
    assert collision_radius(32, 32) < 16 / 2


def test_worlds_are_what_they_were():
    """The motion of sixty clips, to the bit: whoever changes it changes the data that trained models know."""
    digest = hashlib.blake2b(digest_size=8)
    for kind in ("bounce", "kicks", "pendulum"):
        for index in range(20):
            world = simulate(WorldConfig(kind=kind, num_frames=33, height=32, width=32), index)
            digest.update(np.round(world.positions, 6).tobytes())
    assert digest.hexdigest() == "507a2b7e9f8f8cfb"


def test_noise_and_other_peoples_clips_are_measured_in_a_moment():
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (9, 64, 64, 3), dtype=np.uint8)
    blocks = rng.integers(0, 256, (9, 8, 8, 3), dtype=np.uint8).repeat(8, axis=1).repeat(8, axis=2)
    figures = summarise([measure_video(v, "a red circle, fast") for v in (noise, blocks)])
    assert figures["persistence"] == 0
