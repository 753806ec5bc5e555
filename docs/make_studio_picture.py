"""Make the README's picture of the studio: the Create page while a video becomes clear, over what was made before.

    video-gen studio --no-browser --output out/picture      # and some videos in it
    python docs/make_studio_picture.py http://127.0.0.1:8000/

It asks for one video more, waits for its draft, and needs playwright and a Chromium.
"""

import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

SIZE = (1280, 800)
PROMPT = "two red circles and a blue square, fast"
CLEAR = "() => { const bar = document.querySelector('.now progress'); return bar && bar.position > 0.6; }"


def main(address: str, path: Path) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": SIZE[0], "height": SIZE[1]}, color_scheme="dark")
        page.goto(address)
        page.fill("textarea[name=prompt]", PROMPT)
        page.fill("input[name=num_frames]", "33")
        page.fill("input[name=seed]", "20000")
        page.get_by_role("button", name="Make").click()
        page.wait_for_function(CLEAR, timeout=300_000)
        shown = Image.open(io.BytesIO(page.screenshot()))
        browser.close()
    shown.save(path, "WEBP", quality=80, method=6)


if __name__ == "__main__":
    main(sys.argv[1], Path(__file__).parent / "studio.webp")
