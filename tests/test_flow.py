"""Optical flow finds known camera paths, and so knows what comes next and what lies between."""

import sys

import numpy as np
import pytest
from photographs import NAMES, drifted, moved

from video_gen.data import flow
from video_gen.errors import ConfigError, ShapeError

pytest.importorskip("cv2")


def psnr(made, true):
    return 10 * np.log10(255**2 / np.maximum(((made.astype(float) - true) ** 2).mean((-3, -2, -1)), 1e-2))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("right", "down"), [(1, 0), (-0.5, 2)])
def test_a_camera_that_goes_right_moves_the_picture_left(name, right, down):
    found = flow.flows(moved(name, right, down, frames=3))
    assert np.median(found[..., 0]) == pytest.approx(-right, abs=0.15)
    assert np.median(found[..., 1]) == pytest.approx(-down, abs=0.15)
    percent = np.hypot(right, down) / np.hypot(64, 64) * 100
    assert flow.speed(found) == pytest.approx(percent, rel=0.15)


def test_speed_grows_with_that_of_the_camera_and_hears_no_slow_change_of_colour():
    speeds = [flow.speed(flow.flows(moved("coffee", right, frames=4))) for right in (0, 0.5, 1, 2)]
    assert speeds[0] == 0 and (np.diff(speeds) > 0.3).all()
    clip = moved("coffee", 1, frames=5)
    other = drifted(clip[None], 20)[0]
    assert flow.speed(flow.flows(other)) == pytest.approx(flow.speed(flow.flows(clip)), rel=0.1)


@pytest.mark.parametrize("path", [dict(right=1), dict(right=-1, down=1), dict(zoom=1.03)])
def test_what_goes_on_moving_is_foreseen(path):
    clip = moved("chelsea", **path, frames=8)
    made = flow.extrapolate(clip[:4], 4)
    still = np.repeat(clip[3:4], 4, axis=0)
    assert made.shape == clip[4:].shape and made.dtype == np.uint8
    assert (psnr(made, clip[4:]) > psnr(still, clip[4:]) + 5).all()


def test_of_one_frame_and_of_what_stands_still_it_foresees_the_same():
    frame = moved("rocket", frames=1)
    assert np.array_equal(flow.extrapolate(frame, 2), np.repeat(frame, 2, axis=0))
    still = np.repeat(frame, 3, axis=0)
    assert np.array_equal(flow.extrapolate(still, 2), still[:2])


def test_what_lies_between_is_no_blend():
    clip = moved("astronaut", 2, 1, frames=3)
    blend = ((clip[0].astype(int) + clip[2]) // 2).astype(np.uint8)
    assert psnr(flow.between(clip[0], clip[2]), clip[1]) > psnr(blend, clip[1]) + 8


def test_what_is_too_small_or_missing_is_one_line(monkeypatch):
    small = np.zeros((8, 64, 3), np.uint8)
    with pytest.raises(ShapeError, match="frames of 8x64; flow needs 16 pixels"):
        flow.flow(small, small)
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ConfigError, match="pip install 'video-gen\\[footage\\]'"):
        flow.flow(small, small)
