"""The pages: in words, with aims and floors, curves that are drawn, and the demo's page as it grows."""

import json
import re
import time

import numpy as np
import pytest

from video_gen import demo, demo_stages
from video_gen.data.video_writer import write_video
from video_gen.demo_stages import Stages
from video_gen.evaluation import report
from video_gen.evaluation.chart import chart, ticks
from video_gen.evaluation.demo_report import FIGURES as FIGURES_FILE
from video_gen.evaluation.demo_report import Stage, say_seconds, write_page
from video_gen.evaluation.drift import OBJECT_WORLDS, curves
from video_gen.evaluation.physics import measure_video, per_frame, summarise
from video_gen.evaluation.words import FIGURES, Words, words_of

NAMES = {"first": "First videos", "train": "Training", "measure": "Measuring"}


def clip(path, prompt="a red circle, fast"):
    return write_video(path, np.zeros((3, 32, 32, 3), np.uint8), 16, metadata={"prompt": prompt, "caption": prompt})


def figures():
    black = [measure_video(np.zeros((5, 32, 32, 3), np.uint8), "a red circle, fast")]
    found = {"figures": summarise(black), "per_frame": per_frame(black)}
    vae = {"compression": "4x4x4, 8 channels", "psnr": 31.0, "psnr_linear": 24.0, "psnr_per_frame": [30.0], "clips": 3}
    return {
        "vae": vae,
        "floors": {"true": found, "vae": found},
        "motion": found,
        "held_out": found,
        "seconds_per_clip": 1.2,
    }


@pytest.fixture
def finished(tmp_path):
    """A demo's folder with everything in it."""
    for name in (
        "shipped/text_0",
        "samples/long_0",
        "samples/text_0",
        "samples/video_0",
        "samples/image_0",
        "data/clip_0",
    ):
        clip(tmp_path / f"{name}.mp4")
    for part, row in (("vae", {"psnr": 30.0, "psnr_linear": 24.0}), ("diffusion", {"loss": 1.0, "loss_causal": 1.0})):
        (tmp_path / part).mkdir()
        rows = [{"kind": kind, "step": step} | row for step in (10, 20) for kind in ("train", "validation")]
        log = "".join(json.dumps(r) + "\n" for r in rows) + '{"kind": "tra'
        (tmp_path / part / "log.jsonl").write_text(log, encoding="utf-8")
    (tmp_path / FIGURES_FILE).write_text(json.dumps(figures()), encoding="utf-8")
    return tmp_path


def text_of(page):
    """What is read on a page: no tags, styles, scripts."""
    page = re.sub(r"<(style|script)>.*?</\1>", "", page.read_text(encoding="utf-8"), flags=re.S)
    return re.sub(r"<[^>]*>", " ", page)


# -------------------- words and curves


def test_every_figure_has_words():
    assert set(figures()["motion"]["figures"]) <= set(FIGURES)
    window = measure_video(np.zeros((17, 32, 32, 3), np.uint8), "a red circle, fast")
    from video_gen.evaluation.drift import Window

    assert OBJECT_WORLDS and set(curves([[Window(window, 0.0, 0.0, 0.0, 1.0)]], 1.0)) <= set(FIGURES)
    assert all(words.name[0].isupper() or name.startswith("loss") for name, words in FIGURES.items())
    assert words_of("some_new_figure").name == "some new figure"


def test_values_are_read_with_their_units_and_aims():
    persistence, residual = words_of("persistence"), words_of("residual_px")
    assert (persistence.say(0.834), residual.say(0.2231), words_of("psnr").say(32.94)) == ("83%", "0.22 px", "32.9 dB")
    assert residual.say(float("nan")) == "not to be told" and words_of("worse_by").say(float("inf")) == "without bound"
    assert persistence.reached(0.9) and not persistence.reached(0.89)
    assert residual.reached(2.0) and not residual.reached(2.1) and not residual.reached(float("nan"))
    assert words_of("spread_px").reached(3.0) is None


def test_round_numbers_at_the_axes():
    assert ticks(0, 1) == [0, 0.5, 1] and ticks(24.1, 33) == [25, 30]
    assert ticks(0, 2300) == [0, 1000, 2000] and ticks(5, 5) == [5] and ticks(-0.3, 0.3) == [-0.2, 0, 0.2]


def test_a_chart_draws_what_is_known():
    words = Words("A <figure>", "what & why", "decibels")
    drawn = chart(
        words, {"one": [(1, 2.0), (2, float("nan")), (4, 3.0)], "two": [(1, 1.0)]}, "step", guides={"aim": 4.0}
    )
    assert drawn.count("<polyline") == 1 and drawn.count("<circle") == 3
    assert "A &lt;figure&gt;" in drawn and "what &amp; why" in drawn and "aim: 4.0 dB" in drawn
    assert chart(words, {"one": [(1, float("inf"))]}, "step") == ""
    for lines in ({"one": [(3, 3.0)]}, {"one": [(1, 0.0), (2, 0.0)]}, {"one": [(16, -1e-9), (1024, 1e9)]}):
        for log_x in (False, True):
            places = re.findall(r" (?:cx|cy|x1|y1|x|y)='([^']*)'", chart(words, lines, "step", log_x=log_x))
            assert places and all(0 <= float(place) <= 460 for place in places)


# -------------------- the demo's page


def test_videos_come_first_and_figures_in_words_with_aims_and_floors(finished):
    page = write_page(finished, [Stage("All", "done")], "intro")
    heads = re.findall(r"<h2>(.*?)</h2>", page.read_text(encoding="utf-8"))
    order = [
        "From text",
        "From an image",
        "From a video",
        "Longer",
        "From text, by the model that ships",
        "How good it is",
    ]
    assert [heads.index(next(h for h in heads if h.startswith(o))) for o in order[1:]] == [1, 2, 3, 4, 5]
    assert heads[0] == order[0]
    html, text = page.read_text(encoding="utf-8"), " ".join(text_of(page).split())
    assert html.count("<video") == 6 and not re.search(r"<video[^>]* controls", html)
    assert html.count("<svg") >= 6 and html.count("<polyline") >= 8
    assert "Nothing is lost" in text and "at least 90% not reached" in text and "at least 30.0 dB reached" in text
    assert "true clips after the VAE" in text and "floor, PCA alone: 24.0 dB" in text
    for name in ("persistence", "residual_px", "psnr_linear", "loss_t0", "seconds_per_clip", "None", "nan"):
        assert name not in text
    assert "renew(20)" not in html and "In work" not in text


def test_a_page_stands_with_nothing_but_the_first_videos(tmp_path):
    clip(tmp_path / "shipped" / "text_0.mp4", "a <b> & c")
    stages = [
        Stage("First", "done", 1.0, 12.0),
        Stage("Train", "now", 0.25, 200.0),
        Stage("Measure", "next", 0.0, 70.0),
    ]
    page = write_page(tmp_path, stages, "intro")
    html, text = page.read_text(encoding="utf-8"), " ".join(text_of(page).split())
    assert "In work: about 4 minutes left. This page grows by itself." in text and "renew(20)" in html
    assert "Train about 3 minutes left" in text and "Measure about 70 seconds" in text and "value='0.250'" in html
    assert html.count("<video") == 1 and "a &lt;b&gt; &amp; c" in html


def test_seconds_are_said_as_people_do():
    assert [say_seconds(s) for s in (0, 14, 44, 89, 91, 400)] == [
        "10 seconds", "10 seconds", "40 seconds", "90 seconds", "2 minutes", "7 minutes"
    ]  # fmt: skip


@pytest.fixture
def clocked(monkeypatch) -> tuple[list[float], list]:
    """A clock to set, and the stages of each page that is written."""
    clock, said = [0.0], []
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(demo_stages, "write_page", lambda output, stages, intro: said.append(stages))
    return clock, said


def test_the_time_left_follows_the_pace_of_what_is_in_work(tmp_path, clocked):
    clock, said = clocked
    with Stages(tmp_path, NAMES, {"first": 30, "train": 100, "measure": 50}, "") as stages:
        with stages.stage("first"):
            assert [s.seconds for s in said[-1]] == [30, 100, 50]
            clock[0] += 20
        with stages.stage("train"):
            clock[0] += 60
            stages.progress(0.25)  # half as fast as was thought
            assert [s.seconds for s in said[-1]] == [20, pytest.approx(180), pytest.approx(120)]
            assert [s.state for s in said[-1]] == ["done", "now", "next"] and said[-1][1].share == 0.25
        with stages.stage("measure"):
            pass
    assert [s.state for s in said[-1]] == ["done"] * 3


def test_what_was_there_already_is_no_pace(tmp_path, clocked):
    clock, said = clocked
    with Stages(tmp_path, NAMES, {"first": 30, "train": 100, "measure": 50}, "") as stages:
        with stages.stage("first"):
            for share in (0.0, 0.5, 1.0):  # a second run finds the files, and looks at each
                clock[0] += 1.2
                stages.progress(share)
        with stages.stage("train"):
            assert [s.seconds for s in said[-1]] == [pytest.approx(3.6), 100, 50]


def test_a_training_is_followed_by_its_log(tmp_path, monkeypatch):
    monkeypatch.setattr(demo_stages, "PAGE_SECONDS", 0.02)
    log = tmp_path / "log.jsonl"
    with (
        Stages(tmp_path, NAMES, dict.fromkeys(NAMES, 10.0), "") as stages,
        stages.stage("train"),
        stages.following(log, 100),
    ):
        log.write_text('{"kind": "train", "step": 40}\n{"kind": "train", "st', encoding="utf-8")
        end = time.monotonic() + 5
        while "value='0.400'" not in (tmp_path / "report.html").read_text(encoding="utf-8"):
            assert time.monotonic() < end
            time.sleep(0.01)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_a_page_says_that_the_demo_was_stopped(tmp_path, error):
    with pytest.raises(error), Stages(tmp_path, NAMES, dict.fromkeys(NAMES, 10.0), "") as stages, stages.stage("train"):
        raise error
    page = tmp_path / "report.html"
    assert "Stopped. The same command goes on from here." in text_of(page)
    assert not re.search(r"renew\(\d", page.read_text(encoding="utf-8"))


def test_the_first_videos_are_there_before_anything_is_trained(tmp_path, monkeypatch):
    """The shipped model's, on disk and on the page; a second run does not make them again."""

    class Stopped(Exception):
        pass

    def look(*_):
        page = (tmp_path / "report.html").read_text(encoding="utf-8")
        assert page.count("<video") == 2 and len(list((tmp_path / "shipped").glob("text_*.mp4"))) == 2
        assert not (tmp_path / "data").exists() and not (tmp_path / "vae").exists()
        raise Stopped

    monkeypatch.setattr(demo, "GALLERY", 2)
    monkeypatch.setattr(demo, "FIRST_FRAMES", 5)
    monkeypatch.setattr(demo, "render", look)
    for _ in range(2):
        with pytest.raises(Stopped):
            demo.run_demo(tmp_path, short=True)
        monkeypatch.setattr(demo, "VideoPipeline", None)


def test_small_videos_are_enlarged_to_be_seen():
    assert report.enlarged(np.zeros((1, 32, 48, 3), np.uint8)).shape == (1, 256, 384, 3)
    assert report.enlarged(np.zeros((1, 512, 512, 3), np.uint8)).shape == (1, 512, 512, 3)
