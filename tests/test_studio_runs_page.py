"""The page of runs in a real Chromium: curves, samples on a slider, what differs, and a recipe that is checked as one types."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("fastapi")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from browsing import browser, needs_chromium, opened, served  # noqa: F401
from test_studio_runs import SETTINGS, RunsAlone

from benchmarks.made_runs import write_run
from video_gen.data.video_writer import write_video
from video_gen.web.studio.app import make_app
from video_gen.web.studio.roots import Roots

pytestmark = needs_chromium
DRAWN = (
    "canvas => new Uint32Array(canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.buffer)"
    ".filter(pixel => pixel).length"
)


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs"


@pytest.fixture
def address(runs, tmp_path):
    studio = RunsAlone(tmp_path / "out", "bounce", Roots((Path("runs"),)), Roots((Path("data"),)))
    with served(make_app(studio)) as found:
        yield f"{found}/runs"


def samples(folder, steps, count=2):
    for step in steps:
        for index in range(count):
            frames = np.full((5, 16, 16, 3), step * 2 + index, np.uint8)
            write_video(folder / "samples" / f"step_{step:06d}" / f"{index:02d}.mp4", frames, 8)
        (folder / "samples" / f"step_{step:06d}" / "captions.txt").write_text("a red circle\na blue square\n")


def chart(page, name):
    return page.locator("figure.chart", has=page.get_by_role("heading", name=name, exact=True))


def test_curves_lie_over_one_another_and_grow_while_a_run_trains(browser, address, runs):  # noqa: F811
    write_run(runs / "first", "vae", lines=60, seed=1)
    write_run(runs / "deep/second", "vae", lines=60, seed=2, done=0.5, lock="ended (now) TrainingError: loss is NaN")
    page, wrong = opened(browser, f"{address}?run=runs/first")
    loss = chart(page, "Loss")
    loss.locator("canvas").wait_for()
    page.wait_for_function(f"() => ({DRAWN})(document.querySelector('canvas')) > 500")
    assert "training" not in (loss.locator("canvas").get_attribute("aria-label") or "")
    page.get_by_label("show deep/second with the others").check()
    page.wait_for_function("() => document.querySelector('.chart canvas').ariaLabel.includes('deep/second')")
    assert page.url.endswith("?run=runs%2Ffirst&run=runs%2Fdeep%2Fsecond")
    assert "loss is NaN" in page.locator(".overview").inner_text()
    psnr = chart(page, "Sharpness after the VAE").locator("canvas").get_attribute("aria-label") or ""
    assert "the floor 26.41 dB" in psnr
    last = float(chart(page, "Loss").locator(".last-ones > span").first.inner_text())
    with (runs / "first" / "log.jsonl").open("a") as log:
        log.write(json.dumps({"kind": "train", "step": 610, "loss": 77.5, "time": 250.1}) + "\n")
    page.wait_for_function(
        "() => [...document.querySelectorAll('.last-ones > span')].some(one => one.textContent === '77.5')"
    )
    assert last != 77.5 and wrong == []
    page.close()


def test_a_curve_is_read_and_zoomed_by_mouse_and_keys(browser, address, runs):  # noqa: F811
    write_run(runs / "a", lines=2000)
    page, wrong = opened(browser, address)
    canvas = chart(page, "Loss").locator("canvas")
    canvas.wait_for()
    page.wait_for_function(f"() => ({DRAWN})(document.querySelector('canvas')) > 500")
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.4, box["y"] + 50)
    readout = chart(page, "Loss").locator(".readout")
    readout.wait_for()
    assert "training" in readout.inner_text() and "held out" in readout.inner_text()
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 60, steps=4)
    with page.expect_response(lambda answer: "first=" in answer.url) as zoomed:
        page.mouse.up()
    part = zoomed.value.json()["curves"]["train/loss"]["steps"]
    assert 100 < len(part) < 400 and part[1] - part[0] == 10, "each line of the log is there where one has zoomed in"
    page.get_by_role("button", name="Show all steps").click()
    canvas.focus()
    page.keyboard.press("ArrowRight")
    assert readout.is_visible()
    page.keyboard.press("+")
    page.get_by_role("button", name="Show all steps").wait_for()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Show all steps").wait_for(state="hidden")
    page.get_by_role("button", name="Log").click()
    page.get_by_role("button", name="Time").click()
    page.wait_for_function("() => document.querySelector('.chart canvas').ariaLabel.includes(' at 2 h 16 min')")
    assert wrong == []
    page.close()


def test_samples_lie_on_a_slider(browser, address, runs):  # noqa: F811
    write_run(runs / "a", lines=5)
    samples(runs / "a", (10, 20, 50))
    (runs / "a" / "samples" / "step_000020" / "01.mp4").write_bytes(b"no video")
    page, wrong = opened(browser, f"{address}?tab=samples")
    page.wait_for_selector(".sample video")
    assert page.locator(".sample").count() == 2 and page.locator(".sample").nth(1).inner_text() == "a blue square"
    page.wait_for_function(
        "() => [...document.querySelectorAll('.sample video')].every(one => one.readyState >= 2 && one.videoWidth === 16)"
    )
    slider = page.get_by_label("step of the samples")
    slider.focus()
    page.keyboard.press("ArrowLeft")
    assert slider.get_attribute("aria-valuetext") == "step 20"
    page.get_by_text("this file is no video that can be played").wait_for()
    page.keyboard.press("ArrowLeft")
    page.wait_for_function(
        "() => [...document.querySelectorAll('.sample video')].filter(one => one.src.includes('step_000010')).length === 2"
    )
    assert [line for line in wrong if "ERR_" not in line and "media" not in line.lower()] == []
    page.close()


def test_what_differs_between_two_runs_is_shown_first(browser, address, runs):  # noqa: F811
    write_run(runs / "a", seed=0, lines=5)
    write_run(runs / "b", seed=1, lines=5)
    page, wrong = opened(browser, f"{address}?run=runs/a&run=runs/b&tab=settings")
    page.wait_for_selector(".settings tbody tr")
    assert [row.split("\n")[0] for row in page.locator(".settings tbody th").all_inner_texts()] == [
        "loop.seed",
        "optim.learning_rate",
    ]
    page.get_by_text("Peak rate.").wait_for()
    page.get_by_label("only what differs").uncheck()
    assert page.locator(".settings tbody tr").count() > 10 and wrong == []
    page.close()


def test_a_recipe_is_checked_as_one_types_and_its_mistakes_are_led_to(browser, address, runs):  # noqa: F811
    Path("data/clips").mkdir(parents=True)
    page, wrong = opened(browser, address)
    page.get_by_text("There is no run in").wait_for()
    page.get_by_role("button", name="New run").click()
    page.get_by_label("Name").fill("new")
    page.get_by_label("Settings (YAML)").fill(
        SETTINGS.replace("height: 16", "hight: 16").replace("batch_size: 2", "batch_size: two")
    )
    mistakes = page.locator(".problems li")
    mistakes.nth(0).get_by_text("perhaps you meant 'height'").wait_for()
    assert mistakes.count() == 2 and page.get_by_role("button", name="Start").is_disabled()
    mistakes.nth(1).get_by_role("button").click()
    assert page.evaluate(
        "() => document.activeElement.value.slice(document.activeElement.selectionStart).startsWith('loop:')"
    )
    page.locator(".about-setting", has_text="loop takes train_steps, batch_size").wait_for()
    page.get_by_label("Settings (YAML)").fill(SETTINGS)
    page.get_by_text("VAE: 100,000 steps, 2 clips a step, 5 frames of 16×16.").wait_for()
    assert page.locator(".command").inner_text() == "video-gen train vae runs/new/recipe.yaml --run runs/new"
    assert page.get_by_role("button", name="Start").is_enabled()
    page.get_by_label("Name").fill("../beyond")
    page.get_by_text("is no name of a folder").wait_for()
    assert page.get_by_role("button", name="Start").is_disabled() and not runs.exists() and wrong == []
    page.close()


def test_a_start_that_fails_shows_its_last_line(browser, address, runs):  # noqa: F811
    (Path("data") / "clips").mkdir(parents=True)  # in which there is nothing
    page, wrong = opened(browser, address)
    page.get_by_role("button", name="New run").click()
    page.get_by_label("Name").fill("new")
    page.get_by_label("Settings (YAML)").fill(SETTINGS)
    page.get_by_text("VAE: 100,000 steps").wait_for()
    page.get_by_role("button", name="Start").click()
    page.locator(".about .state.bad", has_text="failed").wait_for(timeout=60_000)
    page.wait_for_timeout(100)
    assert "data/clips" in page.locator(".about .note.bad").inner_text()
    page.get_by_role("tab", name="Output").click()
    page.locator(".console", has_text="$ video-gen train vae").wait_for()
    page.get_by_role("button", name="Go on").wait_for()
    assert wrong == []
    page.close()


@pytest.mark.parametrize("size", [(375, 800), (640, 400)])
def test_nothing_reaches_beyond_a_narrow_window(browser, address, runs, size):  # noqa: F811
    write_run(runs / "a-run-with-quite-a-long-name-that-does-not-fit/and-more", "vae", lines=20)
    write_run(runs / "b", lines=20)
    page, wrong = opened(browser, f"{address}?run=runs/b", viewport={"width": size[0], "height": size[1]})
    page.wait_for_selector(".chart canvas")
    page.get_by_text("All 2 runs").click()
    page.get_by_role("checkbox").last.check()
    for tab in ("Samples", "Settings", "Output", "Curves"):
        page.get_by_role("tab", name=tab).click()
        assert page.evaluate("() => document.documentElement.scrollWidth") == size[0], tab
    assert wrong == []
    page.close()
