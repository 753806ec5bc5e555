"""The page of `video-gen play` in a real Chromium. Skipped where there is none; `make test-web` sees to it that there is."""

import threading
import time
from contextlib import contextmanager

import pytest
from browsing import needs_chromium
from playable import WORDS, playable

pytest.importorskip("fastapi")
pytest.importorskip("playwright.sync_api")
import uvicorn

from video_gen.play import listen
from video_gen.web.player import Player
from video_gen.web.playing import MESSAGE_BYTES, Outlet
from video_gen.web.server import make_app

pytestmark = needs_chromium


@contextmanager
def served(pipe, folder):
    outlet = Outlet()
    player = Player(lambda name: pipe, "small", folder, {"seed": 1}, outlet.show, outlet.tell)
    with listen("127.0.0.1", 0) as listener:
        app = make_app(player, outlet, lambda: ["small"], close=player.close)
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", ws_max_size=MESSAGE_BYTES))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        while not server.started:
            time.sleep(0.02)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/", player
        server.should_exit = True
        thread.join()


@pytest.fixture
def world(tmp_path):
    with served(playable(), tmp_path) as found:
        yield found


def pixels(page):
    return page.evaluate(
        "() => { const c = document.getElementById('picture');"
        " return [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]; }"
    )


def frames(page, more):
    """Wait for so many more frames."""
    page.wait_for_function("() => window.shown !== undefined")
    number = page.evaluate("() => window.shown.number")
    page.wait_for_function(f"() => window.shown.number >= {number + more}")


def opened(browser, address):
    page = browser.new_page()
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
    page.goto(address)
    page.wait_for_function("() => window.shown !== undefined")
    return page, errors


def test_keys_held_reach_the_world_and_are_let_go(browser, world):
    address, player = world
    page, errors = opened(browser, address)
    labels = page.locator("#keys button").all_inner_texts()
    assert [label.split("\n")[0] for label in labels] == list(WORDS.keys) and "W or ↑" in labels[0]
    seen = []
    take = player._world.step_rows
    player._world.step_rows = lambda rows: (seen.append(rows[0, 0].copy()), take(rows))[1]
    page.keyboard.down("w")
    frames(page, 6)
    assert page.locator("#keys button.down").count() == 1
    page.keyboard.down("ArrowLeft")
    frames(page, 6)
    page.keyboard.up("w")
    page.keyboard.up("ArrowLeft")
    frames(page, 6)
    held = [tuple(row[:3]) for row in seen]
    assert (1, 0, 0) in held and (1, 1, 0) in held and held[-1] == (0, 0, 0)
    button = page.locator("#keys button").nth(2)  # the same by a finger
    button.hover()
    page.mouse.down()
    frames(page, 6)
    page.mouse.up()
    frames(page, 6)
    assert (0, 0, 1) in [tuple(row[:3]) for row in seen] and tuple(seen[-1][:3]) == (0, 0, 0)
    page.keyboard.down("w")  # who leaves the window holds nothing
    frames(page, 4)
    page.evaluate("() => window.dispatchEvent(new Event('blur'))")
    frames(page, 6)
    assert not seen[-1].any() and errors == []
    assert float(page.locator("#rate").inner_text()) > 1 and float(page.locator("#latency").inner_text()) > 0
    page.close()


def test_the_picture_is_the_worlds(browser, world):
    address, player = world
    page, errors = opened(browser, address)
    page.keyboard.down("w")
    frames(page, 8)
    player._playing.clear()
    time.sleep(0.3)
    shown = pixels(page)
    true = player._world.frames[0, -1]
    assert [shown[4 * i + c] for i in range(256) for c in range(3)] == true.reshape(-1).tolist()
    assert errors == []
    page.close()


def test_a_second_tab_is_told_and_may_play_when_the_first_is_closed(browser, world):
    address, _ = world
    first, _ = opened(browser, address)
    second = browser.new_page()
    second.goto(address)
    second.wait_for_selector("#note.error")
    assert "somebody plays this world already" in second.locator("#note").inner_text()
    frames(first, 4)
    first.close()
    time.sleep(0.3)
    second.reload()
    second.wait_for_function("() => window.shown !== undefined")
    frames(second, 4)
    second.close()


def test_record_save_load_and_begin_anew(browser, world, tmp_path):
    address, player = world
    page, errors = opened(browser, address)
    page.click("#record")
    page.wait_for_selector("#dot:not([hidden])")
    frames(page, 6)
    page.click("#record")
    page.wait_for_selector("#dot", state="hidden")
    assert (tmp_path / "recordings" / "clip_0000.mp4").exists()
    page.fill("#name", "there")
    page.click("#save")
    page.wait_for_function("() => document.getElementById('note').textContent.includes('saved as there')")
    page.fill("#prompt", "w a s d")  # typing plays nothing
    page.fill("#seed", "7")
    page.click("#world button")
    page.wait_for_function("() => document.activeElement.id === 'picture'")
    frames(page, 4)
    assert (player.prompt, player.seed) == ("w a s d", 7)
    page.click("#load")
    page.wait_for_function("() => document.getElementById('note').textContent.includes('goes on from there')")
    page.fill("#name", "../there")
    page.click("#save")
    page.wait_for_selector("#note.error")
    assert "no name for a state" in page.locator("#note").inner_text() and errors == []
    page.close()


def test_a_page_that_stands_still_gets_the_newest_when_it_wakes(browser, world):
    address, player = world
    page, _ = opened(browser, address)
    frames(page, 4)
    page.evaluate("() => { const end = performance.now() + 1500; while (performance.now() < end); }")
    frames(page, 4)
    assert page.evaluate("() => window.shown.number") > player._number - 12
    page.close()
