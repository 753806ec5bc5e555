"""The shipped model makes what it is asked for: the whole of sampling, on weights that mean something."""

import numpy as np
import torch

from video_gen import VideoPipeline
from video_gen.evaluation.physics import measure_video
from video_gen.shipped import MODELS

MODEL = MODELS / "bounce"
CAPTIONS = (
    "a red circle, fast",
    "a cyan square, slow",
    "a white triangle, fast",
    "a green circle, slow",
    "a blue square and a yellow circle, slow",
    "a red triangle and a white square, slow",
)


def test_objects_are_those_of_the_caption_and_persist():
    pipeline = VideoPipeline.from_pretrained(MODEL)
    videos = pipeline.generate(CAPTIONS, seeds=list(range(len(CAPTIONS))), num_frames=17, num_steps=20)
    measures = [measure_video(video, caption) for video, caption in zip(videos, CAPTIONS)]
    assert sum(m.persists and m.caption_right for m in measures) >= 4
    assert np.median(np.concatenate([m.residuals for m in measures])) < 0.5


def test_it_fits_its_place():
    assert sum(f.stat().st_size for f in MODEL.rglob("*")) < 24 * 2**20
    pipeline = VideoPipeline.from_pretrained(MODEL)
    assert {p.dtype for p in pipeline.transformer.parameters()} == {torch.float32}
