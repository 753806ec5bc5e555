"""Every page of the studio for whoever cannot see or point: axe-core finds nothing serious, and every page works by keyboard."""

import pytest

pytest.importorskip("fastapi")
from browsing import find_axe, needs_chromium, served
from studios import small_model
from test_studio_create import fill

from video_gen.web.studio.app import PAGES, make_app
from video_gen.web.studio.roots import Roots
from video_gen.web.studio.studio import Studio

AXE = find_axe()
pytestmark = needs_chromium
SERIOUS = ("serious", "critical")


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """A studio with something on each page."""
    place = tmp_path_factory.mktemp("axe")
    fill(place / "out" / "results", 12)
    for folder in ("runs/one", "data/set"):
        (place / folder).mkdir(parents=True)
    (place / "runs" / "one" / "log.jsonl").write_text('{"step": 1, "loss": 0.5}\n{"step": 2, "loss": 0.4}\n')
    (place / "runs" / "one" / "config.yaml").write_text("loop: {train_steps: 4}\n")
    model = str(small_model(place / "small"))
    with served(
        make_app(Studio(place / "out", model, Roots((place / "runs",)), Roots((place / "data",)), "cpu"))
    ) as found:
        yield found


def faults(page) -> list[str]:
    page.add_script_tag(path=AXE)
    found = page.evaluate("() => axe.run(document, { resultTypes: ['violations'] })")["violations"]
    return [f"{one['id']}: {one['nodes'][0]['html'][:200]}" for one in found if one["impact"] in SERIOUS]


@pytest.mark.skipif(AXE is None, reason="no axe-core on this machine; make test-web gets it where npm is")
@pytest.mark.parametrize("colours", ["light", "dark"])
def test_no_page_has_a_serious_fault(browser, address, colours):
    context = browser.new_context(bypass_csp=True, color_scheme=colours)
    page = context.new_page()
    page.goto(address)
    page.wait_for_selector("#pages a")
    names = [link.get_attribute("data-page") for link in page.locator("#pages a").all()]
    assert names and set(names) <= set(PAGES)
    for name in names:
        page.goto(f"{address}/{name}")
        page.wait_for_selector("main h1", state="attached")
        page.wait_for_timeout(700)
        assert faults(page) == [], name
    page.goto(address)
    page.locator(".rest summary").click()
    page.locator(".tile .shot").first.click()
    page.wait_for_selector("dialog.viewer .facts")
    assert faults(page) == []
    context.close()


def test_the_pages_are_reached_by_keyboard(browser, address):
    page = browser.new_page()
    page.goto(address)
    page.wait_for_selector("#pages a")
    page.keyboard.press("Tab")
    assert page.evaluate("() => document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("() => document.activeElement.id") == "page"
    links = page.locator("#pages a")
    for number in range(links.count()):
        links.nth(number).focus()
        page.keyboard.press("Enter")
        page.wait_for_selector("main h1", state="attached")
        assert page.evaluate("() => document.activeElement.id") == "page"  # and goes on from there
    page.close()


@pytest.mark.parametrize("width", [320, 375, 720])
def test_nothing_is_wider_than_a_phone_or_a_page_at_200_percent(browser, address, width):
    page = browser.new_page(viewport={"width": width, "height": 700})
    page.goto(address)
    page.wait_for_selector("#pages a")
    for name in [link.get_attribute("data-page") for link in page.locator("#pages a").all()]:
        page.goto(f"{address}/{name}")
        page.wait_for_selector("main h1", state="attached")
        page.wait_for_timeout(400)
        assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth"), name
    page.close()
