"""Endings: whether what leads to a given last frame, or back to the first one, is a motion of the world like any other.

loop         from a caption alone, closed
last frame   from the first frame of a true clip to its last one
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from video_gen.data.config import WorldConfig
from video_gen.data.worlds import draw, simulate
from video_gen.evaluation.intervals import median, share
from video_gen.evaluation.physics import measure_video
from video_gen.evaluation.recover import track
from video_gen.sampling.pipeline import VideoPipeline

Ending = Literal["loop", "last frame"]
SEAM = 4
"""Steps from frame to frame, the last of which leads to the last frame, or to the first one again."""
WHOLE = 0.6
"""Share of its mass below which an object counts as faded."""
NEAR = 0.25
"""How far, as a share, the speed at the seam may be from that elsewhere."""
BATCH = 16


@dataclass(frozen=True)
class Ended:
    """Videos that end where they were to, and the captions they were made with."""

    captions: list[str]
    videos: np.ndarray
    """(n, f, h, w, 3) uint8; of a loop with its first frame again at the end."""
    kept: tuple[bool, ...]
    """Whether the frames given are in it, as they are; empty where none were given."""


def true_clips(pipeline: VideoPipeline, count: int, num_frames: int, seed: int) -> Ended:
    """Clips of the world `bounce`."""
    clip = pipeline.config.clip
    config = WorldConfig(num_frames=num_frames, fps=clip.fps, height=clip.height, width=clip.width, seed=seed)
    worlds = [simulate(config, index) for index in range(count)]
    return Ended([w.caption for w in worlds], np.stack([draw(w) for w in worlds]), ())


def make_endings(
    pipeline: VideoPipeline,
    kind: Ending,
    true: Ended,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
    **settings: Any,
) -> Ended:
    """A video per true clip, of its length, caption and, but for loops, first and last frame.

    `settings`: `block_frames`, and fields of `SamplingConfig`.
    """
    num_frames, count, videos = true.videos.shape[1], len(true.captions), []
    for start in range(0, count, BATCH):
        chosen = range(start, min(count, start + BATCH))
        if kind == "loop":
            made = pipeline.generate(
                [true.captions[i] for i in chosen],
                seeds=[seed + i for i in chosen],
                num_frames=num_frames,
                loop=True,
                **settings,
            )
            videos.append(np.concatenate([made, made[:, :1]], axis=1))
        else:
            for i in chosen:  # each has pictures of its own
                given = {"image": true.videos[i, 0], "last_image": true.videos[i, -1]}
                made = pipeline.generate(
                    [true.captions[i]], seeds=[seed + i], num_frames=num_frames, **given, **settings
                )
                videos.append(made)
        if progress:
            progress(chosen.stop, count)
    whole = np.concatenate(videos)
    ends = ((a[0] == b[0]).all() and (a[-1] == b[-1]).all() for a, b in zip(whole, true.videos))
    kept = () if kind == "loop" else tuple(bool(end) for end in ends)
    return Ended(true.captions, whole, kept)


def measure_endings(ended: Ended) -> dict[str, Any]:
    """Shares and medians with their intervals; see `ending_of`."""
    rows = [ending_of(video, text) for video, text in zip(ended.videos, ended.captions)]
    shares = ("persistence", "caption_accuracy", "whole", "seam_near")
    medians = ("least_mass", "seam_speed", "seam_error")
    figures = {name: asdict(share([row[name] for row in rows])) for name in shares}
    return (
        figures
        | {name: asdict(median([row[name] for row in rows])) for name in medians}
        | {"kept": asdict(share(ended.kept))}
    )


def ending_of(video: np.ndarray, caption: str) -> dict[str, Any]:
    """Figures of one video, (f, h, w, 3) uint8.

    Returns: `persistence` and `caption_accuracy` through the whole; `least_mass`, of any object in any frame, over a whole one's,
        and whether that is `WHOLE` at least; `seam_speed`, over the last `SEAM` steps against elsewhere, whether it is `NEAR` 1,
        and `seam_error`, how far from 1.
    """
    height, width = video.shape[1:3]
    measures, tracks = measure_video(video, caption), track(video)
    least = min((float(one.masses(height, width).min()) for one in tracks), default=0.0)
    seam = seam_speed([one.positions for one in tracks])
    return {
        "persistence": measures.persists,
        "caption_accuracy": measures.caption_right,
        "least_mass": least,
        "whole": least >= WHOLE and measures.count_right,
        "seam_speed": seam,
        "seam_near": abs(seam - 1) <= NEAR,
        "seam_error": abs(seam - 1),
    }


def seam_speed(positions: Sequence[np.ndarray]) -> float:
    """Root mean square speed of all objects, which contacts between them leave alone, over the last steps against that over the
    others; positions (f, 2) of each. NaN if an object is lost or nothing moves."""
    if not len(positions):
        return float("nan")
    square = np.square(np.diff(np.stack(positions), axis=1)).sum(-1).mean(0)
    before, seam = np.sqrt(square[:-SEAM].mean()), np.sqrt(square[-SEAM:].mean())
    return float(seam / before) if before > 0 else float("nan")
