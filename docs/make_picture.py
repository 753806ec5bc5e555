"""Make the README's picture: videos of the model that ships, from captions that were not chosen by looking.

    python docs/make_picture.py

It is an animated WebP, in the order of `random_captions`; a minute on two CPU cores.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from video_gen import VideoPipeline
from video_gen.data.captions import random_captions

COLUMNS, ROWS = 4, 2
FRAMES, FPS = 65, 16
SIDE, GAP, LABEL = 176, 12, 40
GROUND, TEXT = (255, 255, 255), (90, 96, 106)
SEED = 20_000


def main(path: Path) -> None:
    captions = random_captions(COLUMNS * ROWS, SEED)
    pipeline = VideoPipeline.from_pretrained("bounce")
    videos = pipeline.generate(captions, seeds=list(range(len(captions))), num_frames=FRAMES)
    pages = [page([video[frame] for video in videos], captions) for frame in range(FRAMES)]
    pages[0].save(
        path, save_all=True, append_images=pages[1:], duration=round(1000 / FPS), loop=0, quality=70, method=6
    )
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


def page(frames: list[np.ndarray], captions: list[str]) -> Image.Image:
    """One frame of all videos, each above its caption."""
    across, down = SIDE + GAP, SIDE + LABEL + GAP
    image = Image.new("RGB", (COLUMNS * across - GAP, ROWS * down - GAP), GROUND)
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(size=12)
    for index, (frame, caption) in enumerate(zip(frames, captions)):
        x, y = index % COLUMNS * across, index // COLUMNS * down
        image.paste(Image.fromarray(frame).resize((SIDE, SIDE), Image.Resampling.NEAREST), (x, y))
        pen.multiline_text((x, y + SIDE + 4), wrapped(caption, pen, font), TEXT, font, spacing=2)
    return image


def wrapped(text: str, pen: ImageDraw.ImageDraw, font) -> str:
    """`text` in lines no longer than a video is wide."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        lines = [*lines[:-1], longer] if pen.textlength(longer, font) <= SIDE else [*lines, word]
    return "\n".join(lines)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("demo.webp"))
