"""How well a VAE reconstructs held-out clips."""

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from video_gen.errors import ConfigError
from video_gen.sampling.parts import VAE

HALF_WINDOW = 5
"""Pixels at the border around which no window of SSIM is whole."""


def halved(x: Tensor) -> Tensor:
    """(b, c, f, h, w) at half the height and width."""
    return F.avg_pool3d(x, (1, 2, 2))


def psnr(made: Tensor, video: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of each clip (b,), from (b, c, f, h, w) in [-1, 1]; `made` is clamped to that."""
    mse = (made.clamp(-1, 1) - video).square().flatten(1).mean(1)
    return 10 * torch.log10(4 / mse.clamp(min=1e-10))


def flicker(made: Tensor, video: Tensor) -> Tensor:
    """Mean absolute error of the change from frame to frame, in grey levels of 255, of each clip (b,)."""
    error = (made.clamp(-1, 1) - video).diff(dim=2).abs()
    return error.flatten(1).mean(1) * 127.5


def ssim(made: Tensor, video: Tensor) -> Tensor:
    """Structural similarity of each frame (b, f), from (b, c, f, h, w) in [-1, 1]: as in the paper of light from 0 to 1, and of
    windows of 11 pixels that are whole (Wang et al. 2004). Raises: ConfigError if torchmetrics is missing."""
    try:
        from torchmetrics.functional.image import structural_similarity_index_measure
    except ImportError:
        raise ConfigError("structural similarity needs torchmetrics; pip install 'video-gen[eval]'") from None
    ours, theirs = ((x.transpose(1, 2).flatten(0, 1) + 1) / 2 for x in (made, video))
    _, windows = structural_similarity_index_measure(
        ours, theirs, data_range=1.0, reduction="none", return_full_image=True
    )
    whole = windows[..., HALF_WINDOW:-HALF_WINDOW, HALF_WINDOW:-HALF_WINDOW]
    return whole.mean((1, 2, 3)).view(len(video), video.shape[2])


def detail(video: Tensor) -> Tensor:
    """Mean difference of neighbouring pixels of each clip (b,), from (b, c, f, h, w)."""
    return sum((video.diff(dim=axis).abs().flatten(1).mean(1) for axis in (3, 4)), start=video.new_zeros(len(video)))


@torch.no_grad()
def measure_reconstruction(vae: VAE, clips: Iterable[Tensor]) -> dict[str, Any]:
    """PSNR, SSIM and flicker of a VAE's reconstructions (of the posterior's mean).

    Args: clips: batches (b, 3, f, h, w) in [-1, 1] of one shape.
    Returns: means over clips: `psnr` (dB; the mean of the clips' own), `psnr_linear` (that of PCA alone, the floor), `ssim`,
        `flicker` (grey levels), `detail` (of the clips' own, 1 = all of it), `psnr_halved` (of latents at half the size, decoded,
        beside the clip at half its size: high where latents are smooth), `psnr_per_frame` (list), `clips`.
    Raises: ConfigError if torchmetrics is missing.
    """
    names = ("psnr", "psnr_linear", "ssim", "flicker", "detail", "psnr_halved", "frames")
    found: dict[str, list[Tensor]] = {name: [] for name in names}
    for video in clips:
        with torch.autocast(video.device.type, torch.bfloat16):
            latents = vae.encode(video).mean
            made = vae.decode(latents)
            if not any(side % 2 for side in latents.shape[3:]):
                found["psnr_halved"].append(psnr(vae.decode(halved(latents)).float(), halved(video)))
        made = made.float().clamp(-1, 1)
        found["psnr"].append(psnr(made, video))
        if vae.linear is not None:
            found["psnr_linear"].append(psnr(vae.linear_reconstruction(video), video))
        if min(video.shape[3:]) > 2 * HALF_WINDOW:
            found["ssim"].append(ssim(made, video).mean(1))
        found["detail"].append(detail(made) / detail(video).clamp(min=1e-6))
        if video.shape[2] > 1:
            found["flicker"].append(flicker(made, video))
        frames = [psnr(made[:, :, i : i + 1], video[:, :, i : i + 1]) for i in range(video.shape[2])]
        found["frames"].append(torch.stack(frames, dim=1))
    figures: dict[str, Any] = {k: float(torch.cat(v).mean()) for k, v in found.items() if v and k != "frames"}
    figures["psnr_per_frame"] = [round(x, 2) for x in torch.cat(found["frames"]).mean(0).tolist()]
    return figures | {"clips": sum(len(x) for x in found["psnr"])}
