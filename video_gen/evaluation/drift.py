"""Drift: what becomes of long videos, measured in windows of 17 frames that end at frame 16, 32, 64, ...

Objects are compared with what the caption asks for (they are there, they move right) and with the video's own first window
(colours, shapes, speed). Worlds without recoverable objects leave latents, sharpness and motion energy, which all have.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from video_gen.data.clips import to_frames, to_video
from video_gen.data.config import WorldConfig
from video_gen.data.worlds import draw, simulate
from video_gen.evaluation.physics import VideoMeasures, measure_video
from video_gen.sampling.parts import VAE
from video_gen.sampling.pipeline import VideoPipeline, plan_blocks
from video_gen.sampling.rollout import advance, begin
from video_gen.sampling.solvers import generators_for

FIRST = 16
"""The first index; a window holds this many frames and one more."""
OBJECT_WORLDS = ("bounce", "kicks")
"""Worlds whose objects `recover` knows."""
FROZEN = 0.5
"""A video stands still where its pace is below this share of that of the slowest true one."""
BINS = 20
"""Of the speed histogram."""


@dataclass(frozen=True)
class LongVideos:
    """Videos of one length, and their latents."""

    captions: list[str]
    videos: np.ndarray
    """(n, f, h, w, 3) uint8"""
    latents: Tensor
    """(n, c, f', h', w')"""


@dataclass(frozen=True)
class Window:
    """One video's figures in the window that ends at one index."""

    objects: VideoMeasures | None
    """None for a world without recoverable objects."""
    motion_energy: float
    """Mean absolute change from frame to frame, grey levels of 255."""
    sharpness: float
    """Slope of edges, grey levels per pixel: the sum of squared differences between neighbours over the sum of absolute
    ones, which does not depend on how many edges there are; 0 without any."""
    latent_mean: float
    latent_deviation: float

    @property
    def pace(self) -> float:
        """Speed over the one that the caption asks for; without objects, the motion energy."""
        return self.motion_energy if self.objects is None else self.objects.motion


# -------------------- where the videos come from


def roll_out(
    pipeline: VideoPipeline,
    captions: list[str],
    seeds: list[int],
    num_frames: int,
    progress: Callable[[int, int], None] | None = None,
    block_frames: int | None = None,
    **settings: Any,
) -> LongVideos:
    """Videos of any length, several at once, block after block from one history each.

    Args:
        progress: called with (frames done, `num_frames`).
        block_frames: latent frames per block; default `sampling.long_block_frames`.
        settings: fields of the model's `SamplingConfig` to change.
    Raises: ShapeError if `num_frames` does not fit the VAE; ConfigError for an unknown setting.
    """
    sampling, clip = pipeline.config.sampling.replace(**settings), pipeline.config.clip
    c, total, h, w = pipeline.vae.latent_shape(num_frames, clip.height, clip.width)
    block_frames = block_frames or pipeline.long_block_frames(sampling)
    latents, chunks, decoder, done = [], [], None, 0
    with pipeline.inference():
        model = pipeline.block_model(captions, sampling, block_frames)
        state = begin(model, None, (), generators_for(seeds, pipeline.device))
        for size in plan_blocks(0, total, block_frames, sampling.first_block_frames):
            state = advance(model, state, (c, size, h, w), pipeline.diffusion, sampling, pipeline.device)
            assert state.block is not None
            frames, decoder = pipeline.decode(state.block, decoder)
            latents.append(state.block.float().cpu())
            chunks.append(frames)
            done += frames.shape[1]
            if progress:
                progress(done, num_frames)
    return LongVideos(captions, np.concatenate(chunks, axis=1), torch.cat(latents, dim=2))


def floors(world: WorldConfig, vae: VAE) -> tuple[LongVideos, LongVideos]:
    """The world's own videos, and what the VAE makes of them; the latents are the same."""
    worlds = [simulate(world, i) for i in range(world.num_clips)]
    captions, videos = [w.caption for w in worlds], np.stack([draw(w) for w in worlds])
    made, latents = reconstruct(videos, vae)
    return LongVideos(captions, videos, latents), LongVideos(captions, made, latents)


@torch.no_grad()
def reconstruct(videos: np.ndarray, vae: VAE, chunk_latents: int = 16) -> tuple[np.ndarray, Tensor]:
    """What the VAE makes of videos (n, f, h, w, 3) uint8, chunk by chunk, and the latents; of each as many frames as it takes."""
    device, stride = next(vae.parameters()).device, vae.config.temporal_stride
    videos = videos[:, : 1 + (videos.shape[1] - 1) // stride * stride]
    ends = [*range(1, videos.shape[1], chunk_latents * stride), videos.shape[1]]
    latents, made, encoded, decoded = [], [], None, None
    for start, end in zip([0, *ends], ends):
        video = to_video(torch.from_numpy(videos[:, start:end])).to(device)
        with torch.autocast(device.type, torch.bfloat16):
            posterior, encoded = vae.encode_chunk(video, encoded)
            chunk, decoded = vae.decode_chunk(posterior.mean.float(), decoded)
        latents.append(posterior.mean.float())
        made.append(np.stack([to_frames(v) for v in chunk]))
    return np.concatenate(made, axis=1), torch.cat(latents, dim=2)


# -------------------- measuring


def indices(last: int) -> list[int]:
    """16, 32, 64, ... up to frame `last`, and that one."""
    doubled = [FIRST * 2**k for k in range(last.bit_length()) if FIRST * 2**k < last]
    return [*doubled, last]


def measure_windows(long: LongVideos, world: str, stride: int) -> list[list[Window]]:
    """Windows by video and index; `stride` is the VAE's temporal one."""
    ends = indices(long.videos.shape[1] - 1)
    rows = []
    for caption, video, latents in zip(long.captions, long.videos, long.latents.cpu()):
        row = []
        for end in ends:
            frames = video[end - FIRST : end + 1]
            part = latents[:, (end - FIRST) // stride : end // stride + 1]
            asked = caption.removesuffix(", kicked")
            objects = measure_video(frames, asked) if world in OBJECT_WORLDS else None
            row.append(Window(objects, motion_energy(frames), sharpness(frames), float(part.mean()), float(part.std())))
        rows.append(row)
    return rows


def motion_energy(frames: np.ndarray) -> float:
    """See `Window`; (f, h, w, 3) uint8."""
    return float(np.abs(np.diff(frames.astype(np.float32), axis=0)).mean())


def sharpness(frames: np.ndarray) -> float:
    """See `Window`; (f, h, w, 3) uint8."""
    steps = [np.abs(np.diff(frames.astype(np.float32), axis=axis)) for axis in (1, 2)]
    total = sum(float(step.sum()) for step in steps)
    return sum(float((step**2).sum()) for step in steps) / total if total else 0.0


def compare(sets: dict[str, LongVideos], world: str, stride: int) -> dict[str, Any]:
    """All figures of sets of videos by name, one of which is `true`.

    Returns: `world`, `videos` (how many in each set), `indices`; `curves` by name; `speeds` by name, a histogram of the last
        window's pace, and `speed_of`, what that is.
    """
    windows = {name: measure_windows(long, world, stride) for name, long in sets.items()}
    slowest = min(window.pace for row in windows["true"] for window in row)
    last = {name: [row[-1].pace for row in rows] for name, rows in windows.items()}
    top = 2.0 if world in OBJECT_WORLDS else 2 * max(last["true"])
    return {
        "world": world,
        "videos": len(sets["true"].captions),
        "indices": indices(sets["true"].videos.shape[1] - 1),
        "curves": {name: curves(rows, slowest) for name, rows in windows.items()},
        "speed_of": "speed over the one asked for" if world in OBJECT_WORLDS else "motion energy",
        "speeds": {name: histogram(values, top) for name, values in last.items()},
    }


def curves(rows: list[list[Window]], slowest: float) -> dict[str, list[float]]:
    """Figures by index, over videos; one in which nothing is found counts as failed, and is not left out.

    Args: slowest: the least pace in any window of a true video.
    Returns: for all worlds `motion_energy`, `frozen` (share of videos), `sharpness`, `latent_mean`, `latent_deviation`; with
        objects also `persistence` and `caption_accuracy` (shares of videos), `colour_identity` and `shape_identity` (shares
        of the first window's), `residual_px` (median), `speed_drift` (median of the change against the first window, in
        either direction, as a share), `motion` (median speed over the one asked for).
    """
    figures: dict[str, list[float]] = {}
    for place in range(len(rows[0])):
        now, first = [row[place] for row in rows], [row[0] for row in rows]
        values = _object_figures([w.objects for w in first if w.objects], [w.objects for w in now if w.objects])
        for name in ("motion_energy", "sharpness", "latent_mean", "latent_deviation"):
            values[name] = float(np.mean([getattr(w, name) for w in now]))
        values["frozen"] = float(np.mean([w.pace < FROZEN * slowest for w in now]))
        for name, value in values.items():
            figures.setdefault(name, []).append(round(value, 4))
    return figures


def histogram(values: Sequence[float], top: float) -> list[tuple[float, float]]:
    """Shares by the middle of each of `BINS` equal bins from 0 to `top`; what lies above is in the last one."""
    counts, edges = np.histogram(np.clip(values, 0, top), bins=BINS, range=(0, top))
    return list(zip(((edges[1:] + edges[:-1]) / 2).tolist(), (counts / max(1, len(values))).tolist()))


def _object_figures(first: list[VideoMeasures], now: list[VideoMeasures]) -> dict[str, float]:
    if not now:
        return {}
    residuals = np.concatenate([m.residuals for m in now])
    return {
        "persistence": float(np.mean([m.persists for m in now])),
        "caption_accuracy": float(np.mean([m.caption_right for m in now])),
        "colour_identity": float(np.mean([_kept(a, b, 0) for a, b in zip(first, now)])),
        "shape_identity": float(np.mean([_kept(a, b, 1) for a, b in zip(first, now)])),
        "residual_px": float(np.median(residuals)) if len(residuals) else float("nan"),
        "speed_drift": float(np.median([_change(a, b) for a, b in zip(first, now)])),
        "motion": float(np.median([m.motion for m in now])),
    }


def _kept(first: VideoMeasures, now: VideoMeasures, what: int) -> float:
    """Share of the colours (0) or shapes (1) of the first window that are there now, and no others; 0 if none were."""
    before, after = (Counter(look[what] for look in m.looks) for m in (first, now))
    return (before & after).total() / max(before.total(), after.total(), 1)


def _change(first: VideoMeasures, now: VideoMeasures) -> float:
    """|speed / first speed - 1|; 1 if nothing was found, then or now."""
    return abs(now.speed / first.speed - 1) if first.speed else 1.0
