"""VBench (arXiv:2311.17982): its rules that need no downloads, and its folder, for its own program to measure the rest.

`flickering` is VBench's figure itself. Where VBench takes a network, `smoothness` and `dynamic` take optical flow (`flow.py`), so
theirs are near VBench's and not the same.
"""

import json
import re
from pathlib import Path

import numpy as np

from video_gen.data import flow
from video_gen.data.video_writer import write_video
from video_gen.errors import DataError
from video_gen.files import check_folder, write_text

LOOKED_AT = 8
"""Frames a second at which VBench looks for motion."""
LONGEST_NAME = 200
"""Bytes of a file's name."""
UNWRITABLE = re.compile(r'[/\\\0-\x1f:*?"<>|]')
"""Characters of which some system has no file names."""


# -------------------- figures of one video (f, h, w, 3) uint8


def change(video: np.ndarray) -> float:
    """Mean absolute change from frame to frame, in grey levels of 255; NaN of one frame."""
    if len(video) < 2:
        return float("nan")
    return float(np.mean([np.abs(b.astype(np.int16) - a).mean() for a, b in zip(video, video[1:])]))


def flickering(video: np.ndarray) -> float:
    """VBench's temporal flickering, 1 = nothing changes: meant for videos in which nothing is to move."""
    return (255 - change(video)) / 255


def smoothness(video: np.ndarray) -> float:
    """VBench's motion smoothness: how near every other frame is to what lies between its neighbours, 1 = equal.

    NaN of less than 3 frames.
    """
    made = [(flow.between(video[i - 1], video[i + 1]), video[i]) for i in range(1, len(video) - 1, 2)]
    if not made:
        return float("nan")
    return float(1 - np.mean([np.abs(a.astype(np.int16) - b).mean() for a, b in made]) / 255)


def dynamic(video: np.ndarray, fps: float) -> bool:
    """VBench's dynamic degree: whether the fastest twentieth of the pixels goes beyond 6 pixels of 256, often enough, at 8 fps."""
    seen = video[:: max(1, round(fps / LOOKED_AT))]
    if len(seen) < 2:
        return False
    fast = flow.fastest(flow.flows(seen)) > 6 * min(video.shape[1:3]) / 256
    return int(fast.sum()) >= max(1, round(4 * len(seen) / 16))


def consistency(embedded: np.ndarray) -> float:
    """VBench's subject and background consistency, of one vector a frame (f, d): cosine with the frame before and with the first.

    NaN of one frame.
    """
    if len(embedded) < 2:
        return float("nan")
    unit = embedded / np.maximum(np.linalg.norm(embedded, axis=1, keepdims=True), 1e-12)
    before, first = (unit[1:] * unit[:-1]).sum(1), unit[1:] @ unit[0]
    return float((np.maximum(before, 0) + np.maximum(first, 0)).mean() / 2)


# -------------------- its folder


class VBenchFolder:
    """`videos/PROMPT-INDEX.mp4` as VBench reads them, alone there; above them `prompts.json` (its --prompt_file) and `seeds.json`.

    Raises: DataError if the folder holds videos already, or cannot be written.
    """

    def __init__(self, folder: Path):
        check_folder(folder)
        self.folder, self.prompts, self.seeds = folder, {}, {}
        if any((folder / "videos").glob("*")):
            raise DataError(
                f"{folder / 'videos'}: is not empty, and VBench would measure what is there too; give another folder"
            )

    def add(self, video: np.ndarray, prompt: str, fps: float, seed: int) -> Path:
        """Write one video, under the next index of its prompt."""
        stem = stem_of(prompt)
        index = sum(name.rpartition("-")[0] == stem for name in self.prompts)
        name = f"{stem}-{index}.mp4"
        self.prompts[name], self.seeds[name] = prompt, seed
        return write_video(self.folder / "videos" / name, video, fps, crf=4)

    def close(self) -> str | None:
        """Write the lists. Returns: what is to be said of prompts that are no names of files, if there are any."""
        write_text(self.folder / "prompts.json", json.dumps(self.prompts, indent=1, ensure_ascii=False))
        write_text(self.folder / "seeds.json", json.dumps(self.seeds, indent=1, ensure_ascii=False))
        other = sum(name.rpartition("-")[0] != prompt for name, prompt in self.prompts.items())
        if not other:
            return None
        return f"{self.folder}: {other} prompts are no names of files; give VBench --prompt_file {self.folder / 'prompts.json'}"


def stem_of(prompt: str) -> str:
    """The prompt as a file's name, without its index; a text that is none is changed as little as can be."""
    stem = UNWRITABLE.sub("_", prompt).strip() or "video"
    return stem.encode()[:LONGEST_NAME].decode(errors="ignore")
