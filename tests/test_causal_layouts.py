"""Causal models made of Wan (CausVid, Self-Forcing, LongLive), of made-up weights in their layouts: read, and streamed."""

import json
import shlex
import subprocess
import sys
from itertools import islice

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from wan_models import build, original, save_split

from video_gen.cli import main
from video_gen.data.video_file import probe
from video_gen.errors import DataError
from video_gen.sampling.pipeline import VideoPipeline

FEW_STEPS = dict(solver="renoise", num_steps=4, shift=5.0, spacing="even", guidance_scale=1.0)
LISTED = dict(FEW_STEPS, times=(1.0, 0.9375, 5 / 6, 0.625))
"""The step list 1000, 750, 500, 250 of these models, shifted by 5; and as the times themselves."""


@pytest.fixture(scope="module")
def pipe():
    return build("t2v")


def told(folder, window: int, sink: int) -> None:
    """The config.json of a `CausalWanModel`, beside the weights."""
    values = {"_class_name": "CausalWanModel", "local_attn_size": window, "sink_size": sink, "num_heads": 1}
    (folder / "diffusion_models/config.json").write_text(json.dumps(values), encoding="utf-8")


@pytest.mark.parametrize(
    ("prefix", "window", "sink"),
    [("model.", 6, 0), ("generator_ema.model.", 4, 1), ("model._fsdp_wrapped_module.", 5, 3), ("", -1, 0)],
)
def test_read_and_streamed(pipe, tmp_path, prefix, window, sink):
    folder = save_split(pipe, tmp_path / "m", prefix)
    told(folder, window, sink)
    model = VideoPipeline.from_pretrained(folder).sized(16, 16)
    state = original(pipe.transformer)
    assert {name: x.equal(state[name]) for name, x in model.transformer.state_dict().items()} == dict.fromkeys(
        state, True
    )
    config = model.transformer.config
    assert (config.sink, config.window) == ((sink, window - sink) if window > 0 else (1, None))
    options = dict(seed=1, block_frames=3, first_block_frames=0, negative_prompt="")
    with model.stream("a red circle", **options, **FEW_STEPS) as stream:
        parts = list(islice(stream, 3))
        kept = stream.state().rollout.history.frames
    assert [len(part) for part in parts] == [
        9,
        12,
        12,
    ]  # three latent frames each, of which the first is one pixel frame
    assert kept <= window or window < 0
    video = np.concatenate(parts)
    assert np.array_equal(video, model("a red circle", num_frames=33, **options, **FEW_STEPS))
    listed = model("a red circle", num_frames=33, **options, **LISTED)
    assert np.abs(listed.astype(int) - video).mean() < 1  # the same times, up to their rounding


def test_a_pickle_is_refused_with_a_way_that_works(pipe, tmp_path):
    folder = save_split(pipe, tmp_path / "m")
    told(folder, 6, 0)
    state = original(pipe.transformer)
    file = folder / "diffusion_models/wan_14B.safetensors"
    file.unlink()
    pickled = file.with_suffix(".pt")
    wrong = {f"model.{name}": torch.zeros_like(x) for name, x in state.items()}
    averaged = {f"model.{name}": x for name, x in state.items()}
    torch.save({"generator": wrong, "generator_ema": averaged, "step": 600}, pickled)
    with pytest.raises(DataError, match="is a pickle") as error:
        VideoPipeline.from_pretrained(folder)
    _, arguments = str(error.value).split("python ", 1)
    subprocess.run([sys.executable, *shlex.split(arguments)], check=True)
    assert load_file(file).keys() == averaged.keys()
    model = VideoPipeline.from_pretrained(folder)
    assert all(x.equal(state[name]) for name, x in model.transformer.state_dict().items())


def test_from_the_command_line(pipe, tmp_path):
    folder = save_split(pipe, tmp_path / "m", "model.")
    told(folder, 6, 0)
    file = str(folder / "diffusion_models/wan_14B.safetensors")
    words = [
        "--block-frames",
        "3",
        "--first-block-frames",
        "0",
        "--solver",
        "renoise",
        "--num-steps",
        "2",
        "--shift",
        "5",
    ]
    words += ["--spacing", "even", "--guidance-scale", "1", "--height", "16", "--width", "16", "--seconds", "1"]
    assert main(["stream", "a red circle", "--model", file, *words, "--output", str(tmp_path / "s.mp4")]) == 0
    assert probe(tmp_path / "s.mp4").num_frames == 9 + 12  # blocks until a second of 16 frames is full
