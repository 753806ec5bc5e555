"""Sampling into a folder: what is there is kept, what cannot be is said before the work, and no more is read than is used."""

import json

import numpy as np
import pytest
from PIL import Image
from test_files import small_files  # noqa: F401
from test_pipeline import tiny_pipeline

from video_gen.cli import main
from video_gen.data import video_file
from video_gen.data.video_file import probe, read_frames
from video_gen.data.video_writer import write_video
from video_gen.errors import ConfigError, DataError, ShapeError
from video_gen.naming import stem
from video_gen.sample import sample_to_files
from video_gen.sampling import given
from video_gen.sampling.given import read_source, read_start
from video_gen.sampling.pipeline import VideoPipeline


@pytest.fixture(scope="module")
def pipe() -> VideoPipeline:
    return tiny_pipeline()


@pytest.fixture(scope="module")
def model(pipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    pipe.save_pretrained(folder)
    return str(folder)


def numbered(count: int, side: int = 16) -> np.ndarray:
    """Frames as bright as their number."""
    return np.full((count, side, side, 3), 0, np.uint8) + 3 * np.arange(count, dtype=np.uint8)[:, None, None, None]


def numbers(frames: np.ndarray) -> list[int]:
    return np.round(frames.mean(axis=(1, 2, 3)) / 3).astype(int).tolist()


# -------------------- names


def test_nothing_is_overwritten(pipe, tmp_path):
    first = sample_to_files(pipe, "a red circle", tmp_path, num_steps=1)
    second = sample_to_files(pipe, "a blue square", tmp_path, num_steps=1)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    third = sample_to_files(pipe, "a red circle", tmp_path, num_steps=2)
    fourth = sample_to_files(pipe, "A red circle!", tmp_path, num_steps=2, format="gif")
    assert len({*first, *second, *third, *fourth}) == 8
    assert [path.name for path in first] == ["a-red-circle_seed_0.mp4", "a-red-circle_sheet.png"]
    assert [path.name for path in third] == ["a-red-circle_seed_0_2.mp4", "a-red-circle_sheet_2.png"]
    assert fourth[0].name == "a-red-circle_seed_0_3.gif"  # so that its .json has a name of its own
    assert all(path.read_bytes() == data for path, data in before.items())
    assert json.loads(third[0].with_suffix(".json").read_text(encoding="utf-8"))["num_steps"] == 2


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("", "seed_0"),
        ("🙂", "seed_0"),
        ("../..\\a/b\n*", "a-b_seed_0"),
        ("ein grüner Würfel", "ein-grüner-würfel_seed_0"),
        ("赤い円", "赤い円_seed_0"),
        ("word " * 20, "word-word-word-word-word-word-word-word_seed_0"),
        ("x" * 300, "x" * 40 + "_seed_0"),
    ],
)
def test_names_are_those_of_prompts(prompt, name):
    assert stem(prompt, "seed_0") == name


# -------------------- said before the work


def test_a_place_that_cannot_be_written_is_told_before_the_model_is_loaded(tmp_path, capsys):
    (tmp_path / "file").write_text("", encoding="utf-8")
    for place in (tmp_path / "file", tmp_path / "file" / "sub", tmp_path / ("x" * 300)):
        assert main(["sample", "x", "--model", "nowhere", "--output", str(place)]) == 2
        error = capsys.readouterr().err
        assert str(place) in error and error.count("\n") == 1 and "nowhere" not in error
    assert main(["sample", "x", "--model", "nowhere", "--output", str(tmp_path / "new")]) == 2
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (dict(enlarge=100_000), ShapeError, "at most 8192 a side"),
        (dict(enlarge=1_000, format="png"), ShapeError, "enlarge by a smaller factor"),
        (dict(seed=2**64 - 1, count=2), ConfigError, "seed is 18446744073709551616"),
    ],
)
def test_what_does_not_fit_is_told_before_anything_is_sampled(pipe, tmp_path, options, error, message, monkeypatch):
    def sampled(*arguments, **options):
        raise AssertionError

    monkeypatch.setattr(pipe, "decode", sampled)
    with pytest.raises(error, match=message):
        sample_to_files(pipe, "x", tmp_path / "o", **options)
    assert not (tmp_path / "o").exists()


def test_large_seeds(pipe, model, tmp_path, capsys):
    assert pipe("x", seed=2**64 - 1, num_steps=1).shape == (9, 16, 16, 3)
    words = ["--model", model, "--seed", "18446744073709551615", "-n", "2", "--output", str(tmp_path)]
    assert main(["sample", "x", *words]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    for name in ("--seed", "--enlarge"):
        assert main(["sample", "x", "--model", model, name, "-1"]) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_a_full_disk_leaves_whole_files(pipe, tmp_path, small_files):  # noqa: F811
    kept = sample_to_files(pipe, "a", tmp_path, num_steps=1)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(DataError, match=r"b_seed_0\.mp4: cannot be written: .*ulimit -f"):
        sample_to_files(pipe, "b", tmp_path, num_frames=17, num_steps=1, enlarge=60)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before and kept[0] in before


# -------------------- what is read


def test_what_is_left_out_of_a_video_is_said(pipe, model, tmp_path, capsys):
    write_video(tmp_path / "v.mp4", numbered(16), 8, crf=0)
    words = ["sample", "x", "--model", model, "--output", str(tmp_path / "o"), "--num-steps", "1"]
    assert main([*words, "--video", str(tmp_path / "v.mp4"), "--num-frames", "17"]) == 0
    error = capsys.readouterr().err
    assert "v.mp4: the last 13 of its 16 frames are used" in error and error.count("\n") == 1
    assert main([*words, "--source", str(tmp_path / "v.mp4"), "--strength", "0.5"]) == 0
    error = capsys.readouterr().err
    assert "v.mp4: the first 13 of its 16 frames are used" in error
    assert probe(tmp_path / "o" / "x_seed_0_2.mp4").num_frames == 13
    assert main([*words, "--source", str(tmp_path / "v.mp4"), "--num-frames", "9"]) == 0
    assert capsys.readouterr().err == ""
    frames, note = read_start(tmp_path / "v.mp4", 8, (16, 16), 4)
    assert numbers(frames) == list(range(3, 16)) and note is not None
    frames, note = read_source(tmp_path / "v.mp4", 8, (16, 16), 4)
    assert numbers(frames) == list(range(13)) and note is not None
    assert len(pipe(source=numbered(16), strength=0.5, num_steps=1)) == 13


def test_no_more_of_a_film_is_decoded_than_is_used(pipe, tmp_path, monkeypatch):
    write_video(tmp_path / "film.mp4", numbered(80, side=64), 8)
    made, real = [], video_file.to_picture

    def counted(*arguments):
        made.append(1)
        return real(*arguments)

    monkeypatch.setattr(video_file, "to_picture", counted)
    frames, note = read_source(tmp_path / "film.mp4", 8, (16, 16), 4, num_frames=17)
    assert frames.shape == (17, 16, 16, 3) and note is None and len(made) <= 18
    made.clear()
    with pytest.raises(ShapeError, match=r"film\.mp4: has 80 frames .* --num-frames 93"):
        sample_to_files(pipe, "x", tmp_path / "o", video=tmp_path / "film.mp4")
    assert not made
    sizes, fit = [], given.fit
    monkeypatch.setattr(given, "fit", lambda frame, *size: sizes.append(len(made)) or fit(frame, *size))
    read_start(tmp_path / "film.mp4", 8, (16, 16), 4)
    assert sizes == list(range(1, 78))  # each is made small before the next is read


def test_a_picture_is_not_a_film(tmp_path):
    write_video(tmp_path / "v.gif", numbered(5), 8)
    Image.fromarray(numbered(1)[0]).save(tmp_path / "p.png")
    with pytest.raises(DataError, match="several frames; give a still picture, or a video as --video"):
        given.read_picture(tmp_path / "v.gif", "--video", (16, 16))
    assert given.read_picture(tmp_path / "p.png", "--video", (32, 32)).shape == (32, 32, 3)
    assert (
        read_frames(tmp_path / "p.png", [0.0]).shape[0] == len(read_start(tmp_path / "p.png", 8, (16, 16), 4)[0]) == 1
    )


def test_how_far_it_is_is_told_over_all_batches(pipe, tmp_path):
    told: list[tuple[int, int]] = []
    settings = dict(count=3, batch_size=2, num_steps=2)
    sample_to_files(pipe, "a", tmp_path, progress=lambda *at: told.append(at), **settings)
    assert [total for _, total in told] == [200] * len(told)
    done = [done for done, _ in told]
    assert done == sorted(done) and done[-1] == 200 and 100 in done and done[0] < 100
