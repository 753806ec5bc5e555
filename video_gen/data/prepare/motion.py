"""How fast a picture moves: dense inverse search (Kroeger et al. 2016, arXiv:1603.03590), by OpenCV."""

from functools import cache
from typing import Any

import numpy as np


def speed(before: np.ndarray, after: np.ndarray) -> float:
    """How far the fastest twentieth of the picture moves at least, in percent of its diagonal: a small thing that moves counts.

    Args: before, after: (h, w, 3) uint8.
    """
    import cv2

    grey = [np.ascontiguousarray(cv2.cvtColor(x, cv2.COLOR_RGB2GRAY)) for x in (before, after)]
    if min(grey[0].shape) < 16:
        return 0.0
    moved = np.linalg.norm(_flow().calc(grey[0], grey[1], None), axis=-1)
    return float(np.percentile(moved, 95)) / float(np.hypot(*grey[0].shape)) * 100


@cache
def _flow() -> Any:
    import cv2

    return cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
