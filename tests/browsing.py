"""A server in a thread and a real Chromium before it, for the tests of pages. Tests are skipped where there is none.

As a program it sees to it that there is one, and says what is missing if there cannot be.
"""

import os
import shutil
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from video_gen.web.access import listen


def find_chromium() -> str | None:
    """Of this machine, or the one that `playwright install chromium` has brought."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    found = os.environ.get("VIDEO_GEN_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    return found or next(map(str, sorted(BROUGHT.glob("chromium-*/chrome-*/chrome"), reverse=True)), None)


BROUGHT = Path(os.environ.get("PLAYWRIGHT_BROWSERS_PATH") or Path.home() / ".cache" / "ms-playwright")
CHROMIUM = find_chromium()
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


def find_axe() -> Path | None:
    """axe-core, which checks pages for whoever cannot see or point."""
    found = Path(os.environ.get("VIDEO_GEN_AXE") or AXE / "node_modules" / "axe-core" / "axe.min.js")
    return found if found.is_file() else None


AXE = Path(sys.prefix) / "axe"
"""Where `make test-web` puts it."""


def fetch_axe() -> Path | None:
    """axe-core after trying to get it. None = it cannot be had here."""
    if not find_axe() and shutil.which("npm"):
        subprocess.run(["npm", "install", "--silent", "--no-save", "--prefix", str(AXE), "axe-core@4"])
    return find_axe()


def fetched() -> str | None:
    """A Chromium after trying to get one: by the system's packages, else by playwright. None = it cannot be had here."""
    ways = [["apt-get", "-qq", "update"], ["apt-get", "-qq", "install", "-y", "chromium"]]
    if shutil.which("apt-get") and hasattr(os, "geteuid") and os.geteuid() == 0:
        for words in ways:
            subprocess.run(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    if not find_chromium():
        subprocess.run([sys.executable, "-m", "playwright", "install", "chromium"], stdout=subprocess.DEVNULL)
    return find_chromium()


if __name__ == "__main__":
    there = CHROMIUM or fetched()
    print(
        f"Chromium: {there}"
        if there
        else "no Chromium is here and none could be installed, so what happens in a browser is skipped; install one "
        "(Debian, Ubuntu: apt install chromium; elsewhere: python -m playwright install chromium), or name it as "
        "VIDEO_GEN_CHROMIUM"
    )
    axe = fetch_axe()
    print(
        f"axe-core: {axe}"
        if axe
        else "no axe-core is here and npm could not install it, so the check of accessibility is skipped; install npm, or "
        "name axe.min.js as VIDEO_GEN_AXE"
    )
