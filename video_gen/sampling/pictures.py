"""How a video begins with a picture, in models whose clip is one block that holds its first frame, too.

    history  the picture's frames are made already, and the video goes on from them: every model of this project, and causal ones
    within   the block's first latent frames are the picture's, clean and at diffusion time 0 (Wan 2.2's 5B)
    beside   channels beside the latents hold a mask and the picture's latents, and CLIP's tokens go in as the text does (Wan's
             image to video; 2.2's without CLIP). A last picture goes in the same way

In the two latter the frames that are shown are the decoder's of what was made, as the family has it; not those that were given.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from video_gen.errors import ShapeError
from video_gen.sampling.conditioned import TextConditioned
from video_gen.sampling.config import SamplingConfig
from video_gen.sampling.model import VideoModel, finite
from video_gen.sampling.rollout import advance, begin
from video_gen.sampling.solvers import generators_for
from video_gen.sampling.watching import Look

Way = Literal["history", "within", "beside"]


def way_of(model: VideoModel) -> Way:
    """How a model takes a picture."""
    config = model.transformer.config
    return "beside" if config.beside_channels else "within" if config.first_frame else "history"


def check(model: VideoModel, others: dict[str, object], first: np.ndarray | None, last: np.ndarray | None) -> None:
    """Raises: ShapeError for what does not go with pictures `beside`; `others` are the values that are given besides them."""
    if clashing := next((name for name, value in others.items() if value is not None and value is not False), None):
        raise ShapeError(
            f"this model makes a clip as a whole, from a picture beside it, and takes no {clashing}; leave it out"
        )
    if first is None:
        raise ShapeError("this model begins with a picture; give one (image=, or --image FILE)")
    positions, clip = (getattr(model.transformer.config, name) for name in ("image_positions", "image_width"))
    if positions is not None and last is None:
        raise ShapeError(
            "this model goes from a picture to another one; give the last, too (last_image=, or --last-image FILE)"
        )
    if clip is not None and positions is None and last is not None:
        raise ShapeError(
            "this model knows of a first picture alone; leave last_image out, or take one for first and last frames"
        )


def make(
    model: VideoModel,
    prompts: Sequence[str],
    seeds: Sequence[int],
    sampling: SamplingConfig,
    num_frames: int,
    first: np.ndarray,
    last: np.ndarray | None = None,
    look: Look | None = None,
) -> Tensor:
    """Latents (n, c, f', h', w') of clips that begin with the same frames.

    Args: first: uint8 (f, h, w, 3); `last`: (1, h, w, 3), `beside` only.
    """
    total = model.latent_frames(num_frames)
    conditioned, held = model.block_model(prompts, sampling, total), None
    if way_of(model) == "beside":
        conditioned = beside(model, conditioned, first, last, num_frames)
    else:
        held = model.encode(first[None]).expand(len(prompts), -1, -1, -1, -1)
    c, h, w = model.latent_frame()
    state = begin(conditioned, None, (), generators_for(list(seeds), model.device))
    made = advance(conditioned, state, (c, total, h, w), model.diffusion, sampling, model.device, held=held, look=look)
    assert made.block is not None
    return made.block


def beside(
    model: VideoModel, conditioned: TextConditioned, first: np.ndarray, last: np.ndarray | None, num_frames: int
) -> TextConditioned:
    """The same, which knows the pictures: channels of a mask and of a video that holds them and is grey elsewhere, and CLIP's
    tokens of each.

    Source: Wan-Video/Wan2.1, wan/image2video.py and first_last_frame2video.py.
    """
    given = first[:1] if last is None else np.concatenate([first[:1], last])
    latents = model.encode_video(showing_only(model.pixels(given[None]), num_frames))
    channels = with_mask(latents, model.vae.config.temporal_stride, len(given) == 2)
    n = len(conditioned.text.visible)
    clip = None
    if model.vision is not None:
        clip = finite(model.vision(given), "picture encoder").flatten(0, 1).expand(n, -1, -1).to(model.device)
    return conditioned.showing(clip, channels.expand(n, -1, -1, -1, -1))


def showing_only(pictures: Tensor, num_frames: int) -> Tensor:
    """A video (b, 3, num_frames, h, w) that is grey but for its first frame, and for its last where there are two pictures."""
    video = pictures.new_zeros(len(pictures), 3, num_frames, *pictures.shape[3:])
    for frame, at in zip(pictures.unbind(2), (0, num_frames - 1)):
        video[:, :, at] = frame
    return video


def with_mask(latents: Tensor, stride: int, last: bool) -> Tensor:
    """Latents (b, c, f', h, w) of such a video behind a channel for each pixel frame of a latent one: 1 where that is known.

    Args: stride: pixel frames of a latent frame; the first stands for one, which counts for all. `last`: the last is known, too.
    """
    mask = latents.new_zeros(len(latents), stride, *latents.shape[2:])
    mask[:, :, 0] = 1
    if last:
        mask[:, -1, -1] = 1
    return torch.cat([mask, latents], dim=1)
