"""The Create page in a real Chromium: what one does there from the prompt to the gallery, by mouse, by keyboard and by file."""

import io
import json
import os
import re
import time

import pytest

pytest.importorskip("fastapi")
import numpy as np
from browsing import needs_chromium, opened, served
from PIL import Image
from studios import small_model, until

from video_gen.data.video_writer import write_video
from video_gen.web.studio.app import make_app
from video_gen.web.studio.roots import Roots
from video_gen.web.studio.studio import Studio

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """(address, studio) with a model of small videos."""
    place = tmp_path_factory.mktemp("create")
    studio = Studio(place / "out", str(small_model(place / "small")), Roots(()), Roots(()), "cpu")
    with served(make_app(studio)) as address:
        yield address, studio


def fill(folder, count):
    """Results that were made before: a video each, whose frames are as bright as their number."""
    folder.mkdir(parents=True, exist_ok=True)
    frames = np.full((9, 16, 16, 3), 0, np.uint8) + 25 * np.arange(9, dtype=np.uint8)[:, None, None, None]
    whole = write_video(folder / "first.mp4", frames, 24).read_bytes()
    (folder / "first.mp4").unlink()
    picture = io.BytesIO()
    Image.new("RGB", (16, 16), (20, 60, 200)).save(picture, "WEBP")
    for number in range(count):
        facts = {
            "prompt": f"number {number}",
            "seed": number,
            "fps": 24,
            "studio": {"frames": 9, "width": 16, "height": 16},
        }
        (folder / f"clip_{number}.json").write_text(json.dumps(facts))
        (folder / f"clip_{number}.webp").write_bytes(picture.getvalue())
        (folder / f"clip_{number}.mp4").write_bytes(whole)
        os.utime(folder / f"clip_{number}.mp4", (10**9 + number, 10**9 + number))


def test_from_a_prompt_to_a_video_and_on_from_there(browser, running):
    address, studio = running
    page, wrong = opened(browser, address)
    page.fill("textarea[name=prompt]", "a red circle")
    page.fill("input[name=num_steps]", "200")
    page.fill("input[name=count]", "2")
    page.get_by_role("button", name="Make 2 videos").click()
    page.wait_for_selector(".now:visible progress[value]", timeout=60_000)
    page.wait_for_function(
        "() => { const c = document.querySelector('.now canvas'); return !c.classList.contains('bare') && c.height === 16; }"
    )
    assert re.search("video [12] of 2", page.locator(".now").inner_text())
    assert page.locator("input[name=seed]").input_value() == "2"  # the next press makes others
    until(lambda: len(studio.gallery.entries()) == 2)
    page.wait_for_function("() => document.querySelectorAll('.tile').length === 2")
    page.wait_for_selector(".now", state="hidden")
    page.locator(".tile .shot").first.press("Enter")
    page.wait_for_selector("dialog.viewer[open] .facts")
    assert page.locator("dialog.viewer h2").inner_text() == "a red circle"
    assert "--num-steps 200" in page.locator("dialog.viewer pre").first.text_content()
    page.get_by_role("button", name="Next seed").click()
    until(lambda: len(studio.gallery.entries()) == 3)
    page.locator("dialog.viewer input[type=range]").fill("4")
    page.wait_for_function("() => document.querySelector('dialog.viewer output').textContent === '5 / 9'")
    page.get_by_role("button", name="This frame first").click()
    page.wait_for_selector("dialog.viewer", state="hidden")
    page.wait_for_selector(".slotted.full img")
    page.fill("input[name=num_steps]", "2")
    page.fill("input[name=count]", "1")
    page.keyboard.press("Tab")
    page.locator("textarea[name=prompt]").press("Control+Enter")
    until(lambda: len(studio.gallery.entries()) == 4)
    newest = studio.gallery.facts(studio.gallery.entries()[0])
    assert newest["image"].startswith(str(studio.uploads.folder)) and newest["seed"] == 2 and wrong == []
    page.reload()
    page.wait_for_selector(".slotted.full img")  # what was said is still there
    assert page.locator("textarea[name=prompt]").input_value() == "a red circle" and wrong == []
    page.close()


def test_cancel_in_the_middle_and_what_is_wrong_is_said(browser, running):
    address, studio = running
    page, wrong = opened(browser, address)
    page.evaluate("() => localStorage.clear()")
    page.reload()
    page.fill("textarea[name=prompt]", "slow")
    page.fill("input[name=num_steps]", "9000")
    page.get_by_role("button", name="Make", exact=True).click()
    page.wait_for_selector(".now:visible progress[value]", timeout=60_000)
    page.get_by_role("button", name="Cancel").click()
    page.wait_for_selector(".job.cancelled")
    page.get_by_role("button", name="dismiss slow").click()
    page.wait_for_selector(".job", state="detached")
    page.fill("input[name=num_steps]", "0")
    page.get_by_role("button", name="Make", exact=True).click()
    page.wait_for_selector(".toast.bad")
    assert page.evaluate("() => document.activeElement.name") == "num_steps"
    page.fill("input[name=num_steps]", "1")
    page.fill("input[name=num_frames]", "8")
    page.get_by_role("button", name="Make", exact=True).click()
    page.wait_for_selector(".job.failed .error")
    assert "8" in page.locator(".job.failed .error").inner_text() and not studio.queue.trouble and wrong == []
    page.get_by_role("button", name="dismiss slow").click()
    page.close()


def test_files_come_by_drop_and_go_where_they_belong(browser, running, tmp_path):
    address, _ = running
    page, wrong = opened(browser, address)
    page.evaluate("() => localStorage.clear()")
    page.reload()
    Image.new("RGB", (40, 30), (200, 40, 40)).save(tmp_path / "red.png")
    write_video(tmp_path / "clip.mp4", np.zeros((5, 16, 16, 3), np.uint8), 24)
    (tmp_path / "nothing.png").write_text("#EXTM3U")
    choose = page.locator("input[type=file]")
    choose.nth(0).set_input_files(tmp_path / "red.png")
    page.wait_for_selector(".slotted.full img")
    assert page.locator(".slot").nth(1).is_disabled()  # a video to go on from, too, would be two beginnings
    choose.nth(3).set_input_files(tmp_path / "clip.mp4")  # a source takes the place of the others
    page.wait_for_selector("input[name=strength]:visible")
    page.wait_for_function("() => document.querySelectorAll('.slotted.full img').length === 1")
    choose.nth(0).set_input_files(tmp_path / "nothing.png")
    page.wait_for_selector(".toast.bad")
    assert "nothing.png: is no picture or video" in page.locator(".toast.bad").inner_text()
    wrong = [text for text in wrong if "400" not in text]  # the browser's own word of it
    page.evaluate(
        """() => { const data = new DataTransfer();
        const bytes = Uint8Array.from(atob('R0lGODdhAQABAIAAAP8AAP8AACwAAAAAAQABAAACAkQBADs='), (c) => c.charCodeAt(0));
        data.items.add(new File([bytes], 'dot.gif', { type: 'image/gif' }));
        document.documentElement.dispatchEvent(new DragEvent('drop', { dataTransfer: data, bubbles: true, cancelable: true })); }"""
    )
    page.wait_for_function(
        "() => document.querySelectorAll('.toast.bad').length === 2"
    )  # a still is no video to go on from
    assert [text for text in wrong if "400" not in text] == []
    page.close()


def test_results_are_chosen_compared_in_step_deleted_and_brought_back(browser, running, tmp_path):
    _, _ = running
    studio = Studio(tmp_path / "out", "bounce", Roots(()), Roots(()), "cpu")
    studio.queue._deaths = 99  # no model is wanted here
    fill(studio.gallery.folder, 300)
    with served(make_app(studio)) as address:
        page, wrong = opened(browser, address)
        page.wait_for_selector(".tile")
        assert page.locator(".gallery header .numbers").inner_text() == "300"
        assert page.locator(".tile").count() < 100  # only those near the window are there
        for number in (0, 1):
            page.locator(".tile .pick input").nth(number).check()
        page.get_by_role("button", name="Compare").click()
        page.wait_for_function(
            "() => [...document.querySelectorAll('.together canvas')].every((c) => Number(c.dataset.frame) > 2)"
        )
        shown = page.evaluate(
            """() => new Promise((done) => { const seen = []; const look = () => {
            seen.push([...document.querySelectorAll('.together canvas')].map((c) => c.dataset.frame));
            if (seen.length < 40) requestAnimationFrame(look); else done(seen); }; look(); })"""
        )
        assert all(left == right for left, right in shown) and len({left for left, _ in shown}) > 3
        page.locator("dialog.compare input[type=range]").fill("3")
        grey = page.evaluate(
            "() => document.querySelector('.together canvas').getContext('2d').getImageData(8, 8, 1, 1).data[0]"
        )
        assert abs(grey - 75) < 8
        page.keyboard.press("Escape")
        page.locator(".picked").get_by_role("button", name="Delete").click()
        page.wait_for_function("() => document.querySelector('.gallery header .numbers').textContent === '298'")
        page.get_by_role("button", name="Undo").click()
        page.wait_for_function("() => document.querySelector('.gallery header .numbers').textContent === '300'")
        page.fill(".search input", "number 299")
        page.wait_for_function("() => document.querySelectorAll('.tile').length === 1")
        page.fill(".search input", "")
        page.wait_for_function("() => document.querySelectorAll('.tile').length > 10")
        page.locator(".tile .shot").first.focus()
        page.keyboard.press("End")  # by keyboard to what was not there
        page.wait_for_function("() => document.activeElement.getAttribute('aria-label').startsWith('number 0,')")
        assert wrong == []
        page.close()


def test_a_page_that_loses_the_studio_says_so_and_comes_back(browser, tmp_path):
    studio = Studio(tmp_path / "out", "bounce", Roots(()), Roots(()), "cpu")
    studio.queue._deaths = 99
    with served(make_app(studio)) as address:
        page, _ = opened(browser, address)
        page.wait_for_selector(".form")
    page.wait_for_selector(".offline", timeout=20_000)
    time.sleep(0.1)
    page.close()
