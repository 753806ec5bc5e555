"""A VAE is measured on the clips that its training held out, and it is told which these are."""

import json

import pytest
import torch

from video_gen.cli import main
from video_gen.data.clips import Clips
from video_gen.data.config import ClipConfig, WorldConfig
from video_gen.data.worlds import render_world
from video_gen.evaluate import clips_of_vae
from video_gen.model.vae_config import VAEConfig
from video_gen.model.video_vae import VideoVAE
from video_gen.shipped import MODELS
from video_gen.training.known_data import remember_data
from video_gen.training.recipes import VAERun

pytest.importorskip("torchmetrics")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("clips")
    render_world(WorldConfig(num_clips=12, num_frames=20, height=32, width=32), place)
    return place


@pytest.fixture
def run(tmp_path):
    """A run's folder with a VAE that nobody trained."""
    torch.manual_seed(0)
    vae = VideoVAE(VAEConfig(spatial_stride=4, latent_channels=4, widths=(16,), stem=4))
    vae.fit_linear_path(torch.rand(4, 3, 9, 16, 16) * 2 - 1)
    vae.save_pretrained(tmp_path / "run" / "model" / "vae")
    return tmp_path / "run"


@pytest.fixture
def data(folder):
    """Far from the defaults: two windows of each file, half of the files held out."""
    return ClipConfig(
        folder=folder, num_frames=5, fps=8, height=16, width=16, stride=3, validation_fraction=0.5, split_seed=3
    )


def measured(tmp_path, *words):
    assert main(["evaluate", "vae", "--output", str(tmp_path / "out.json"), *words]) == 0
    return json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("part", ["model/vae", "model"])
def test_rate_size_stride_and_split_are_those_of_the_training(run, data, tmp_path, capsys, part):
    remember_data(run / "model" / "vae", data)
    found = measured(tmp_path, "--vae", str(run / part))
    held_out = Clips(data, "validation")
    files = {held_out.name(i) for i in range(len(held_out))}
    assert (found["clips"], found["files"]) == (len(held_out), len(files)) and len(held_out) == 2 * len(files) < 24
    assert len(found["psnr_per_frame"]) == 5 and found["psnr_linear"] > 5
    said = " ".join(capsys.readouterr().out.split())
    assert (
        "5x16x16 at 8 fps, every 3 frames" in found["data"]
        and "0.5 of the files are held out (split_seed 3)" in found["data"]
    )
    assert "The same by PCA alone" in said and "Files they come from" in said and "5x16x16" in said


def test_what_is_said_takes_the_place_of_what_is_known(run, data, tmp_path):
    remember_data(run / "model" / "vae", data)
    said = ["--fps", "16", "--num-frames", "9", "--stride", "9", "--split-seed", "0"]
    found = measured(tmp_path, "--vae", str(run / "model/vae"), *said)
    assert "9x16x16 at 16 fps, every 9 frames" in found["data"] and "split_seed 0" in found["data"]
    assert len(found["psnr_per_frame"]) == 9


def test_a_size_that_is_said_takes_the_place_of_buckets(run, data):
    remember_data(run / "model" / "vae", data.replace(buckets=((5, 16, 16), (9, 32, 32))))
    assert clips_of_vae(run / "model" / "vae").sizes == ((5, 16, 16), (9, 32, 32))
    assert clips_of_vae(run / "model" / "vae", height=32).sizes == ((5, 32, 16),)


def test_a_run_without_the_record_tells_by_its_configuration(run, data):
    (run / "config.yaml").write_text(VAERun(data=data).to_yaml(), encoding="utf-8")
    assert clips_of_vae(run / "model" / "vae") == data


def test_it_is_told_where_nothing_is_known(run, capsys, folder):
    assert clips_of_vae(run / "model" / "vae", folder=folder) == ClipConfig(folder=folder)
    assert "nothing tells on what it was trained" in " ".join(capsys.readouterr().out.split())


def test_nothing_held_out_is_one_line(run, data, capsys):
    remember_data(run / "model" / "vae", data.replace(validation_fraction=0))
    assert main(["evaluate", "vae", "--vae", str(run / "model")]) == 2
    assert "nothing of it is held out (validation_fraction 0)" in capsys.readouterr().err


def test_the_shipped_vae_says_on_what_it_was_trained():
    data = clips_of_vae(MODELS / "bounce")
    assert (data.fps, data.sizes) == (16, ((17, 32, 32),))
