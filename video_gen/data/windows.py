"""Which clips a file makes: the size that fits it best, and where its windows begin; no torch."""

import math

from video_gen.data.config import Bucket, ClipConfig
from video_gen.data.video_info import VideoInfo, frames_at


def best_bucket(info: VideoInfo, config: ClipConfig) -> Bucket | None:
    """The size into which a file fits best, or None if it is too short for all.

    An image goes to a one-frame size; a video goes to one of several frames if the config has any. Of those whose frames
    the file has, the winner has (1) the aspect ratio nearest to the file's, in which least is cropped; (2) the most frames;
    (3) the most pixels that need no enlarging, or else the fewest; (4) the earliest place in the config.
    """
    sizes = list(dict.fromkeys((1, h, w) for _, h, w in config.sizes)) if info.kind == "image" else list(config.sizes)
    if info.kind == "video" and any(size[0] > 1 for size in sizes):
        sizes = [size for size in sizes if size[0] > 1]

    def misfit(size: Bucket) -> tuple[float, int, bool, int]:
        frames, height, width = size
        cropped = abs(math.log(width * info.height / (height * info.width)))
        enlarged = height > info.height or width > info.width
        return cropped, -frames, enlarged, height * width if enlarged else -height * width

    return min((size for size in sizes if size[0] <= frames_at(info, config.fps)), key=misfit, default=None)


def windows(info: VideoInfo, config: ClipConfig, bucket: Bucket) -> list[float]:
    """Start times in seconds of a file's clips of the size `bucket`."""
    starts = range(0, frames_at(info, config.fps) - bucket[0] + 1, config.stride or bucket[0])
    return [start / config.fps for start in starts]
