"""What is measured of footage: figures of a video beside the true one, of a video alone, and features for distances of sets.

Sets of videos are gathered batch by batch, so that memory does not grow with their number; a few are kept to be shown.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch

from video_gen.data import flow
from video_gen.data.clips import to_video
from video_gen.errors import DataError
from video_gen.evaluation import vbench
from video_gen.evaluation.distances import Kind, check_count, measure
from video_gen.evaluation.drift import sharpness
from video_gen.evaluation.features import Features, cover
from video_gen.evaluation.foreign import Foreign, load_foreign
from video_gen.evaluation.intervals import Estimate, mean
from video_gen.evaluation.lpips import LPIPS
from video_gen.evaluation.reconstruction import flicker, psnr, ssim

LOOKS = ("dinov2", "dinov2_with_registers", "dinov3_vit", "vit", "clip", "clip_vision_model")
"""Models of `transformers` by which it is told whether a video stays what it is."""
LARGEST_LOOK = 224
"""Pixels at which they look, at most."""
SHOWN = 6
"""Videos of a set that are kept."""
REFERENCE, OTHER = "reference", "other"


@dataclass(frozen=True)
class Measures:
    """What measures, and by which networks."""

    lpips: LPIPS
    fps: float
    device: torch.device
    features: tuple[Features, ...] = ()
    looks: tuple[Foreign, ...] = ()


def open_looks(names: Sequence[str], device: torch.device) -> tuple[Foreign, ...]:
    """DINO or CLIP of each name. Raises: as `load_foreign`."""
    return tuple(load_foreign(name, LOOKS, "consistency", device) for name in names)


# -------------------- figures


@torch.no_grad()
def compare(made: np.ndarray, true: np.ndarray, lpips: LPIPS, device: torch.device) -> dict[str, np.ndarray]:
    """Of made videos (b, f, h, w, 3) uint8 beside the true ones.

    Returns: by frame (b, f) `psnr` and `ssim` and LPIPS under its name; of the whole clip (b,) `psnr_clip`, and `flicker`, the
        error of the change from frame to frame in grey levels of 255.
    Raises: ConfigError if torchmetrics is missing.
    """
    ours, theirs = (to_video(torch.from_numpy(np.ascontiguousarray(x))).to(device) for x in (made, true))
    flat, target = (x.transpose(1, 2).flatten(0, 1) for x in (ours, theirs))
    shape = made.shape[:2]
    found = {
        "psnr": psnr(flat[:, :, None], target[:, :, None]).view(shape),
        "psnr_clip": psnr(ours, theirs),
        "ssim": ssim(ours, theirs),
        lpips.name: lpips(flat, target).view(shape),
    }
    if shape[1] > 1:
        found["flicker"] = flicker(ours, theirs)
    return {name: x.float().cpu().numpy() for name, x in found.items()}


def alone(video: np.ndarray, fps: float) -> dict[str, float]:
    """Of one video (f, h, w, 3) uint8 by itself: `motion` in percent of the diagonal a second, and VBench's (`vbench.py`)."""
    moves = len(video) > 1
    return {
        "change": vbench.change(video),
        "motion": flow.speed(flow.flows(video)) * fps if moves else float("nan"),
        "vbench_flickering": vbench.flickering(video),
        "vbench_smoothness": vbench.smoothness(video),
        "vbench_dynamic": float(vbench.dynamic(video, fps)),
    }


@torch.no_grad()
def look(video: np.ndarray, foreign: Foreign, device: torch.device) -> np.ndarray:
    """A vector of each frame: of DINO its class token, of CLIP its embedding; (f, d)."""
    config = foreign.model.config
    size = min(getattr(config, "image_size", LARGEST_LOOK), LARGEST_LOOK)
    pictures = cover(to_video(torch.from_numpy(video[None])).to(device), size, "bicubic")[0].transpose(0, 1)
    found = foreign.model(pixel_values=foreign.normalise(pictures))
    vectors = found.image_embeds if foreign.kind.startswith("clip") else found.last_hidden_state[:, 0]
    return vectors.float().cpu().numpy()


# -------------------- sets


@dataclass
class VideoSet:
    """Figures of a set of videos, a value for each, and the file that each belongs to."""

    files: list[str] = field(default_factory=list)
    figures: dict[str, list[float]] = field(default_factory=dict)
    by_frame: dict[str, list[np.ndarray]] = field(default_factory=dict)
    features: dict[str, list[np.ndarray]] = field(default_factory=dict)
    sides: list[str] = field(default_factory=list)
    """Of each video with features: `REFERENCE` or `OTHER`."""
    feature_files: list[str] = field(default_factory=list)
    shown: list[np.ndarray] = field(default_factory=list)

    def add(
        self,
        videos: np.ndarray,
        files: Sequence[str],
        measures: Measures,
        *,
        true: np.ndarray | None = None,
        given: int = 0,
        sides: Sequence[str | None] = (),
        samples: int = 1,
    ) -> None:
        """Measure some more.

        Args:
            videos: (b, f, h, w, 3) uint8; `files`: that each belongs to.
            true: what they are to be like.
            given: first frames that are no doing of whoever made them, and are not counted.
            sides: of each, where its features are wanted; none are taken of others.
            samples: videos of one clip, which follow each other; the first is kept to be shown.
        """
        self.files += files
        if true is not None:
            for name, x in compare(videos[:, given:], true[:, given:], measures.lpips, measures.device).items():
                whole = x if x.ndim == 1 else x.mean(1)
                if name != "psnr":  # that of a clip is not the mean of its frames'
                    self._note({"psnr" if name == "psnr_clip" else name: whole.tolist()})
                if x.ndim > 1:
                    self.by_frame.setdefault(name, []).extend(x)
        for video in videos:
            edges = np.array([sharpness(frame[None]) for frame in video[given:]])
            self.by_frame.setdefault("sharpness", []).append(edges)
            part = video[max(0, given - 1) :]
            figures = {"sharpness": float(edges.mean())} | alone(part, measures.fps)
            for foreign in measures.looks:
                figures[f"consistency_{foreign.name}"] = vbench.consistency(look(part, foreign, measures.device))
            self._note({name: [value] for name, value in figures.items()})
        self._featured(videos, files, measures, sides)
        self.shown += list(videos[::samples][: SHOWN - len(self.shown)])

    def estimates(self) -> dict[str, dict[str, float]]:
        """Means over the videos, whose intervals draw files, not clips: clips of one file are alike."""
        return {name: asdict(mean(values, self.files)) for name, values in self.figures.items()}

    def frames(self, name: str) -> dict[str, dict[str, float]]:
        """Such means by frame, from 1 on."""
        table = np.stack(self.by_frame[name])
        return {str(i + 1): asdict(mean(table[:, i].tolist(), self.files)) for i in range(table.shape[1])}

    def side(self, which: str, name: str) -> tuple[np.ndarray, list[str]]:
        """Features of one side (n, d), and their files."""
        chosen = [i for i, side in enumerate(self.sides) if side == which]
        rows = [self.features[name][i] for i in chosen]
        return np.stack(rows) if rows else np.zeros((0, 1)), [self.feature_files[i] for i in chosen]

    def _note(self, figures: dict[str, list[float]]) -> None:
        for name, values in figures.items():
            self.figures.setdefault(name, []).extend(values)

    def _featured(
        self, videos: np.ndarray, files: Sequence[str], measures: Measures, sides: Sequence[str | None]
    ) -> None:
        wanted = [i for i, side in enumerate(sides) if side]
        if not wanted:
            return
        for features in measures.features:
            self.features.setdefault(features.name, []).extend(features(videos[wanted]))
        self.sides += [side for side in sides if side]
        self.feature_files += [files[i] for i in wanted]


def gains(made: VideoSet, other: VideoSet, samples: int = 1) -> dict[str, dict[str, float]]:
    """By how much the figures beside the true video differ from those of another set, clip for clip.

    Args: samples: videos of `made` for each clip, which are one after another; their mean counts.
    """
    found: dict[str, Estimate] = {}
    for name, values in other.figures.items():
        ours = np.array(made.figures[name]).reshape(-1, samples).mean(1)
        found[name] = mean((ours - np.array(values)).tolist(), other.files)
    return {name: asdict(estimate) for name, estimate in found.items()}


def distances_of(
    true: VideoSet, sets: Mapping[str, VideoSet], measures: Measures, kinds: Sequence[Kind]
) -> list[dict[str, Any]]:
    """Each distance of each set from the true clips of the reference half.

    Args: true: whose other half is the floor, `true`.
    Returns: rows of `features`, `distance`, `set`, `value`, `low`, `high`, `real` and `made` (how many); of a distance that is
        refused `refused`, why, in place of figures.
    """
    rows: list[dict[str, Any]] = []
    for features in measures.features:
        real, real_files = true.side(REFERENCE, features.name)
        for kind in kinds:
            for name, one in {"true": true, **sets}.items():
                found, files = one.side(OTHER, features.name)
                row = {"features": features.name, "distance": kind, "set": name, "real": len(real), "made": len(found)}
                width = max(real.shape[1], found.shape[1])
                why = refused(kind, min(len(real), len(found)), width, features.name)
                figures = {"refused": str(why)} if why else asdict(measure(kind, real, found, real_files, files))
                rows.append(row | figures)
    return rows


def refused(kind: Kind, count: int, width: int, name: str) -> DataError | None:
    """Why so few videos are refused, if they are."""
    try:
        check_count(kind, count, width, name)
    except DataError as error:
        return error
    return None
