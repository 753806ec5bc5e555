"""How well a VAE reconstructs held-out clips."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from video_gen.errors import ConfigError
from video_gen.model.video_vae import VideoVAE


def psnr(made: Tensor, video: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of each clip (b,), from (b, c, f, h, w) in [-1, 1]; `made` is clamped to that."""
    mse = (made.clamp(-1, 1) - video).square().flatten(1).mean(1)
    return 10 * torch.log10(4 / mse.clamp(min=1e-10))


def flicker(made: Tensor, video: Tensor) -> Tensor:
    """Mean absolute error of the change from frame to frame, in grey levels of 255, of each clip (b,)."""
    error = (made.clamp(-1, 1) - video).diff(dim=2).abs()
    return error.flatten(1).mean(1) * 127.5


@torch.no_grad()
def measure_reconstruction(vae: VideoVAE, clips: Iterable[Tensor]) -> dict[str, Any]:
    """PSNR, SSIM and flicker of a VAE's reconstructions (of the posterior's mean).

    Args: clips: batches (b, 3, f, h, w) in [-1, 1] of one shape.
    Returns: means over clips: `psnr` (dB; the mean of the clips' own), `psnr_linear` (that of PCA alone, the floor), `ssim`,
        `flicker` (grey levels), `psnr_per_frame` (list), `clips`.
    Raises: ConfigError if torchmetrics is missing.
    """
    try:
        from torchmetrics.functional.image import structural_similarity_index_measure as ssim
    except ImportError:
        raise ConfigError("evaluating a VAE needs torchmetrics; pip install 'video-gen[eval]'") from None
    found: dict[str, list[Tensor]] = {"psnr": [], "psnr_linear": [], "ssim": [], "flicker": [], "frames": []}
    for video in clips:
        with torch.autocast(video.device.type, torch.bfloat16):
            made = vae.decode(vae.encode(video).mean)
        made = made.float().clamp(-1, 1)
        found["psnr"].append(psnr(made, video))
        if vae.linear is not None:
            found["psnr_linear"].append(psnr(vae.linear_reconstruction(video), video))
        flat, target = (x.transpose(1, 2).flatten(0, 1) for x in (made, video))
        per_frame = ssim(flat, target, data_range=2.0, reduction="none")
        assert isinstance(per_frame, Tensor)
        found["ssim"].append(per_frame.view(len(video), -1).mean(1))
        if video.shape[2] > 1:
            found["flicker"].append(flicker(made, video))
        frames = [psnr(made[:, :, i : i + 1], video[:, :, i : i + 1]) for i in range(video.shape[2])]
        found["frames"].append(torch.stack(frames, dim=1))
    figures: dict[str, Any] = {k: float(torch.cat(v).mean()) for k, v in found.items() if v and k != "frames"}
    figures["psnr_per_frame"] = [round(x, 2) for x in torch.cat(found["frames"]).mean(0).tolist()]
    return figures | {"clips": sum(len(x) for x in found["psnr"])}
