"""The README's commands, run as they stand but for their length: they must work, in their order, on a folder of clips."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from video_gen.cli import main
from video_gen.data.video_file import probe
from video_gen.data.video_writer import write_video

README = Path(__file__).resolve().parents[1] / "README.md"
SHORT = {
    ("train", "vae"): "--loop.train-steps 2 --loop.batch-size 2 --statistics-clips 2 --loop.no-tensorboard",
    ("train", "diffusion"): "--loop.train-steps 2 --loop.batch-size 2 --num-samples 1 --loop.no-tensorboard",
    ("sample",): "--num-steps 2",
}


def commands(heading: str) -> list[list[str]]:
    """The `video-gen` commands of the first code block under a heading."""
    block = re.search(rf"^## {heading}$.*?^```\w*$(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)
    assert block, heading
    return [shlex.split(line)[1:] for line in block[1].splitlines() if line.startswith("video-gen ")]


@pytest.fixture
def my_clips(tmp_path, monkeypatch):
    """A user's folder: clips of 30 frames a second, some with a caption beside them."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my-clips").mkdir()
    rng = np.random.default_rng(0)
    for index in range(4):
        ground = rng.integers(0, 255, (96, 128 + 80, 3), dtype=np.uint8)
        video = np.stack([ground[:, i : i + 128] for i in range(80)])
        write_video(tmp_path / f"my-clips/clip {index}.mp4", video, fps=30)
        if index:
            (tmp_path / f"my-clips/clip {index}.txt").write_text("grain that moves to the left")
    return tmp_path


def test_your_own_clips(my_clips, capsys):
    found = commands("Your own clips")
    assert [words[0] for words in found] == ["data", "train", "train", "sample"]
    for words in found:
        extra = next((line for names, line in SHORT.items() if tuple(words[: len(names)]) == names), "")
        assert main([*words, *extra.split()]) == 0, capsys.readouterr().err
    made = sorted((my_clips / "out").glob("*.mp4"))
    assert len(made) == 4 and probe(made[0]).num_frames == 17
    assert len(list((my_clips / "out").glob("*sheet.png"))) == 1
