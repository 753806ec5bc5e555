"""A server in a thread and a real Chromium before it, for the tests of pages. Tests are skipped where there is none."""

import os
import shutil
import threading
import time
from contextlib import contextmanager

import pytest

from video_gen.web.access import listen

CHROMIUM = os.environ.get("VIDEO_GEN_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield found
        found.close()


@contextmanager
def served(app):
    """The address at which an application is served."""
    import uvicorn

    with listen("127.0.0.1", 0) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", ws_max_size=1 << 16))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        while not server.started:
            time.sleep(0.02)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join()


def opened(browser, address, **options):
    """(page, what went wrong in it): errors of its programs, of its console, and requests to anywhere else."""
    page = browser.new_page(**options)
    wrong = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    here = address.split("/")[2]
    page.on(
        "request",
        lambda asked: (
            wrong.append(asked.url) if here not in asked.url[:60] and asked.url[:5] not in ("data:", "blob:") else None
        ),
    )
    page.goto(address)
    return page, wrong
