"""What takes minutes: `make test-slow`."""

import json
from collections import Counter

import pytest

from video_gen.cli import main
from video_gen.config import load_yaml
from video_gen.shipped import CONFIGS
from video_gen.train import train_vae
from video_gen.training.recipes import VAERun

pytestmark = pytest.mark.slow


def test_a_short_demo_leaves_its_report_and_a_second_one_reuses_it(tmp_path, capsys):
    assert main(["demo", "--short", "--output", str(tmp_path / "demo")]) == 0
    page = (tmp_path / "demo" / "report.html").read_text(encoding="utf-8")
    made = Counter(file.stem.rpartition("_")[0] for file in (tmp_path / "demo" / "samples").glob("*.mp4"))
    assert set(made) == {"text", "image", "video", "long"} and made["text"] == 8 and made["long"] == 4
    assert len(list((tmp_path / "demo" / "shipped").glob("*.mp4"))) == 8
    shown = made.total() + 8 + 4  # the shipped model's, and clips of the data
    assert page.count("<video") == shown and page.count("<svg") >= 6 and "Nothing is lost" in page
    assert "class='status'" not in page  # nothing is in work
    figures = json.loads((tmp_path / "demo" / "figures.json").read_text())
    assert figures["floors"]["true"]["figures"]["persistence"] == 1
    assert figures["floors"]["true"]["figures"]["residual_px"] < 0.5
    capsys.readouterr()
    assert main(["demo", "--short", "--output", str(tmp_path / "demo")]) == 0
    assert capsys.readouterr().out.count("finished already") == 2


def test_the_vae_learns_past_its_linear_floor(tmp_path):
    assert (
        main(
            [
                "worlds",
                "--num-clips",
                "96",
                "--height",
                "32",
                "--width",
                "32",
                "--num-frames",
                "17",
                "--output",
                str(tmp_path / "d"),
            ]
        )
        == 0
    )
    run = load_yaml(VAERun, CONFIGS / "demo-vae.yaml")
    loop = run.loop.replace(train_steps=200, validate_every=200, checkpoint_every=200)
    found = train_vae(run.replace(data=run.data.replace(folder=tmp_path / "d"), loop=loop), tmp_path / "run")
    assert found["psnr"] > found["psnr_linear"] + 0.2
