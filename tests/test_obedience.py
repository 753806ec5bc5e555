"""The shipped model follows a caption that changes, keeps what it shows, and ends where it is to."""

import numpy as np
import pytest

from video_gen import VideoPipeline
from video_gen.data.captions import random_captions
from video_gen.evaluation.endings import make_endings, measure_endings, true_clips
from video_gen.evaluation.steering import draw_switches, measure_staying, measure_switches, roll_staying, roll_switches

FEW = {"num_steps": 4, "first_steps": 20}


@pytest.mark.slow
def test_streams_follow_their_new_caption():
    wanted = draw_switches(12, 77)
    pipeline = VideoPipeline.from_pretrained("bounce")
    found = measure_switches(wanted, roll_switches(pipeline, wanted, **FEW), pipeline.config.clip.fps)
    assert found["followed"]["all"]["2"]["value"] >= 0.7


@pytest.mark.slow
def test_nothing_is_lost_where_nothing_changes():
    captions = random_captions(8, 77)
    staying = roll_staying(VideoPipeline.from_pretrained("bounce"), captions, 77, (10.0,), **FEW)
    assert measure_staying(staying)["there"]["10"]["value"] >= 0.75


@pytest.mark.slow
def test_videos_lead_to_their_last_frame():
    pipeline = VideoPipeline.from_pretrained("bounce")
    true = true_clips(pipeline, 6, 65, 77)
    for kind in ("loop", "last frame"):
        made = make_endings(pipeline, kind, true, 77, num_steps=8)
        found = measure_endings(made)
        assert (kind == "loop" or found["kept"]["value"] == 1) and found["whole"]["value"] >= 0.5
        assert np.isfinite(found["seam_speed"]["value"])
