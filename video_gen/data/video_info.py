"""What a video or image file is, told apart from how it is read: no PyAV, which takes a while to import."""

import math
from dataclasses import dataclass
from typing import Literal

VIDEO_SUFFIXES = frozenset((
    ".mp4", ".m4v", ".mov", ".qt", ".webm", ".mkv", ".avi", ".divx", ".ts", ".mts", ".m2ts", ".mpg", ".mpeg", ".vob", ".3gp",
    ".3g2", ".wmv", ".asf", ".flv", ".f4v", ".ogv", ".mxf", ".y4m", ".dv", ".ivf", ".nut", ".mjpeg", ".mjpg", ".h264", ".264",
    ".h265", ".265", ".hevc",
))  # fmt: skip
IMAGE_SUFFIXES = frozenset((
    ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff", ".avif", ".avifs",
    ".ppm", ".pgm", ".pnm", ".tga", ".jp2", ".j2k", ".mpo", ".qoi",
))  # fmt: skip
TOLERANCE = 0.02
"""Of a frame: a clip that ends so much too early is whole."""


@dataclass(frozen=True)
class VideoInfo:
    """What a file is. Width and height are as shown: upright, in square pixels."""

    kind: Literal["video", "image"]
    codec: str
    width: int
    height: int
    fps: float
    """Mean frames per second; 0 for an image."""
    num_frames: int
    """Frames that are shown, counted and not taken from the header."""
    duration: float
    """Seconds from the first frame to the end of the last; 0 for an image."""
    rotation: int
    """Degrees counter-clockwise by which the stored frames are turned for display: 0, 90, 180 or 270."""
    has_audio: bool
    pixel_format: str
    tick: float = 0.0
    """Seconds to which the container rounds times."""
    notes: tuple[str, ...] = ()
    """What is worth a word, a line each: how frames are changed when they are read, and what is not read."""


def frames_at(info: VideoInfo, fps: float) -> int:
    """Frames that a file has at a rate; 1 for an image. The last one lasts until the end, but for what a container rounds."""
    if info.kind == "image":
        return 1
    return math.floor(info.duration * fps + min(0.5, TOLERANCE + 2 * info.tick * fps))
