"""The Data page in a real Chromium: clips on a wall, found, judged and mended; what training sees of one; what is done in it."""

import json

import numpy as np
import pytest

pytest.importorskip("fastapi")
from browsing import browser, needs_chromium, opened, served  # noqa: F401

from video_gen.data.action_files import write_vocabulary
from video_gen.data.actions import write_actions
from video_gen.data.folder import quarantined, scan
from video_gen.data.video_writer import write_video
from video_gen.vocabulary import Axis, Vocabulary
from video_gen.web.studio.app import make_app
from video_gen.web.studio.roots import Roots
from video_gen.web.studio.studio import Studio

pytestmark = needs_chromium
KEYS = Vocabulary(keys=("left", "jump"), axes=(Axis(name="turn", unit="degrees", low=-5, high=5),), fps=10)


def moving(frames, height, width, seed):
    """A square that goes across, of its own colour."""
    video = np.full((frames, height, width, 3), 30, np.uint8)
    colour = np.random.default_rng(seed).integers(90, 255, 3)
    for frame in range(frames):
        x = (3 * frame + 7 * seed) % (width - 12)
        video[frame, 10:22, x : x + 12] = colour
    return video


@pytest.fixture
def clips(tmp_path):
    folder = tmp_path / "data" / "shapes"
    folder.mkdir(parents=True)
    rows = []
    for number in range(14):
        write_video(folder / f"clip{number:02d}.mp4", moving(24, 48, 80, number), 10)
        rows.append({"file_name": f"clip{number:02d}.mp4", "text": f"a square, number {number}"})
    (folder / "broken.mp4").write_bytes(b"no video at all")
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    walked = tmp_path / "data" / "walked"
    walked.mkdir()
    write_video(walked / "walk.mp4", moving(24, 48, 64, 3), 10)
    write_actions(walked / "walk.mp4", [[float(i > 5), float(i == 9), i / 5 - 2] for i in range(24)], KEYS)
    write_vocabulary(walked, KEYS)
    return tmp_path / "data"


@pytest.fixture
def address(clips, tmp_path):
    studio = Studio(tmp_path / "out", "bounce", Roots((tmp_path / "runs",)), Roots((clips,)))
    with served(make_app(studio)) as found:
        yield found


def test_clips_are_found_judged_and_mended(browser, address, clips):  # noqa: F811
    page, wrong = opened(browser, f"{address}/data?set=data/shapes", viewport={"width": 1280, "height": 900})
    page.wait_for_selector(".clip .thumb.strip img")
    page.locator(".sum", has_text="34 s").wait_for()
    assert page.locator(".clip").count() == 15
    page.get_by_role("searchbox", name="words of the caption or the name").fill("number 7")
    page.wait_for_function("() => document.querySelectorAll('.clip').length === 1")
    page.locator(".clip .shot").click()
    caption = page.get_by_role("textbox", name="Caption", exact=True)
    caption.wait_for()
    caption.fill("a square that goes to the right")
    page.get_by_role("button", name="Write it").click()
    page.get_by_text("the caption of clip07.mp4 is written").wait_for()
    assert {s.name: s.caption for s in scan(clips / "shapes")}["clip07.mp4"] == "a square that goes to the right"
    page.get_by_role("button", name="Undo").click()
    page.wait_for_function("() => document.querySelectorAll('.clip').length === 1")
    page.wait_for_function("() => document.querySelector('.clip-viewer textarea').value === 'a square, number 7'")
    assert {s.name: s.caption for s in scan(clips / "shapes")}["clip07.mp4"] == "a square, number 7"
    page.get_by_label("why it goes into quarantine").fill("blurred")
    page.get_by_role("button", name="Into quarantine").last.click()
    page.get_by_role("button", name="Out of quarantine").last.wait_for()
    assert quarantined(clips / "shapes") == {"clip07.mp4": "by hand: blurred"}
    page.keyboard.press("Escape")
    page.locator(".card.check summary").first.click()
    page.get_by_role("button", name="Read every frame").click()
    page.wait_for_function(
        "() => document.querySelector('.check summary').textContent.includes('trouble')", timeout=60_000
    )
    assert set(quarantined(clips / "shapes")) == {"clip07.mp4", "broken.mp4"}
    page.get_by_label("trouble", exact=True).select_option("unreadable")
    page.get_by_role("searchbox").fill("")
    page.locator(".clip .words", has_text="broken.mp4").wait_for()
    assert "trouble=unreadable" in page.url
    assert [line for line in wrong if "400" not in line] == []  # the picture of what cannot be read
    page.close()


def test_windows_and_actions_are_drawn_over_the_clip(browser, address):  # noqa: F811
    page, wrong = opened(
        browser, f"{address}/data?set=data/shapes&clip=clip03.mp4", viewport={"width": 1280, "height": 900}
    )
    page.wait_for_selector(".clip-viewer .windows .even")
    page.wait_for_function("() => document.querySelector('.cut p').textContent.startsWith('2 windows of 17 × 64 × 64')")
    crop = page.evaluate(
        "() => { const c = document.querySelector('.crop'); return [c.hidden, c.style.left, c.style.width]; }"
    )
    assert crop == [False, "20%", "60%"]
    page.keyboard.press("Escape")
    page.get_by_label("folder of clips").select_option("data/walked")
    page.wait_for_function("() => document.querySelectorAll('.clip').length === 1")
    page.locator(".clip .shot").click()
    page.wait_for_selector(".actions kbd")
    page.locator(".clip-viewer input[type=range]").fill("9")
    page.wait_for_function("() => document.querySelectorAll('.actions kbd.on').length === 2")
    page.locator(".clip-viewer input[type=range]").fill("2")
    page.wait_for_function("() => document.querySelectorAll('.actions kbd.on').length === 0")
    assert [line for line in wrong if "400" not in line] == []
    page.close()
