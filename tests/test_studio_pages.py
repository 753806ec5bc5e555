"""The studio's shell in a real Chromium: navigation, colours, and a page that comes and goes."""

import pytest

pytest.importorskip("fastapi")
from browsing import needs_chromium, opened, served

from video_gen.web.studio.app import make_app
from video_gen.web.studio.roots import Roots
from video_gen.web.studio.studio import Studio

pytestmark = needs_chromium


@pytest.fixture
def address(tmp_path):
    studio = Studio(tmp_path / "out", "bounce", Roots((tmp_path / "runs",)), Roots((tmp_path / "data",)))
    with served(make_app(studio)) as found:
        yield found


def test_the_shell_opens_its_first_page_and_keeps_the_colours_picked(browser, address):
    page, wrong = opened(browser, address)
    page.wait_for_selector("#pages a[aria-current=page]")
    assert page.locator("#pages a[aria-current=page]").inner_text() == "Create"
    toggle = page.locator("#status button")
    assert toggle.get_attribute("aria-label") == "colours: as the system"
    toggle.click()
    toggle.click()
    assert page.evaluate("() => getComputedStyle(document.body).colorScheme") in ("dark", "light dark")
    page.reload()
    page.wait_for_selector("#pages a")
    assert page.evaluate("() => document.documentElement.dataset.theme") == "dark" and wrong == []
    page.close()
