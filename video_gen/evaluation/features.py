"""Networks whose features of a video two sets are compared by, each with what it did to the frames.

`drawn`: three-dimensional convolutions with drawn weights, which anybody has. `vae`: a VAE's latents. A TorchScript file: I3D,
as for FVD. A folder or Hub id of `transformers`: VideoMAE or V-JEPA 2. Only the last two compare with what others publish.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from video_gen.data.clips import to_video
from video_gen.data.folder import content_hash
from video_gen.errors import ConfigError, DataError, ShapeError
from video_gen.evaluation.foreign import load_foreign
from video_gen.sampling.parts import VAE

I3D_SIZE, I3D_LEAST = 224, 10
"""Pixels and frames that I3D takes."""
DRAWN_SIZE, DRAWN_WIDTH = 64, 16
SCRIPTS = (".pt", ".torchscript", ".ts")
BATCH = 8


@dataclass(frozen=True)
class Features:
    """A function of videos, and its protocol."""

    name: str
    about: str
    """What it is, for whoever reads a figure."""
    frames: str
    size: str
    resampling: str
    weights: str
    """Hash of them."""
    run: Callable[[Tensor], Tensor]
    """(b, 3, f, h, w) in [-1, 1] to (b, d)."""
    device: torch.device

    @torch.no_grad()
    def __call__(self, videos: np.ndarray) -> np.ndarray:
        """Of (n, f, h, w, 3) uint8, (n, d) float64. Raises: ShapeError, DataError if the network does not take them."""
        parts = []
        for start in range(0, len(videos), BATCH):
            video = to_video(torch.from_numpy(videos[start : start + BATCH])).to(self.device)
            parts.append(self.run(video).double().cpu().numpy())
        found = np.concatenate(parts)
        if not np.isfinite(found).all():
            raise DataError(f"features {self.name}: not finite (NaN or infinite); take other weights")
        return found

    @property
    def protocol(self) -> dict[str, str]:
        """What one must know to measure the same again."""
        return {key: getattr(self, key) for key in ("about", "frames", "size", "resampling", "weights")}


def open_features(what: str, vae: VAE | None, device: torch.device, clip_frames: int) -> Features:
    """Features by what was asked for; see above.

    Args: vae: of the model that is measured. `clip_frames`: frames of a clip.
    Raises: ConfigError, DataError if there are no such; ShapeError if the clips are too short for them.
    """
    if what == "drawn":
        return drawn(device=device)
    if what == "vae":
        if vae is None:
            raise ConfigError("features vae: no VAE is measured here; give --model or --vae, or other features")
        return of_vae(vae)
    if Path(what).suffix in SCRIPTS:
        return torchscript(Path(what), device, clip_frames)
    return of_transformers(what, device, clip_frames)


def cover(video: Tensor, size: int, mode: str = "bilinear") -> Tensor:
    """Scale (b, 3, f, h, w) to cover a square, with antialiasing, and crop its centre."""
    flat = video.transpose(1, 2).flatten(0, 1)
    h, w = flat.shape[-2:]
    scale = size / min(h, w)
    shape = (max(size, round(h * scale)), max(size, round(w * scale)))
    if shape != (h, w):
        flat = F.interpolate(flat, shape, mode=mode, antialias=True, align_corners=False)
    top, left = (shape[0] - size) // 2, (shape[1] - size) // 2
    flat = flat[..., top : top + size, left : left + size].clamp(-1, 1)
    return flat.unflatten(0, (video.shape[0], video.shape[2])).transpose(1, 2)


def pick_frames(video: Tensor, count: int) -> Tensor:
    """`count` frames of (b, c, f, h, w) at one distance, as large as can be, from the first on; of too few some stand for two."""
    have = video.shape[2]
    places = (
        np.arange(count) * (have // count) if have >= count else np.linspace(0, have - 1, count).round().astype(int)
    )
    return video[:, :, torch.from_numpy(places).to(video.device)]


def picked(count: int, have: int) -> str:
    """What `pick_frames` does, in words."""
    if have < count:
        return f"{count}, stretched from {have}"
    return f"{count} of {have}, one in {have // count}"


# -------------------- without weights of others


def drawn(seed: int = 0, device: str | torch.device = "cpu") -> Features:
    """Mean and deviation over places of two layers of convolutions in space and time, whose weights are drawn."""
    on, generator = torch.device(device), torch.Generator().manual_seed(seed)
    layers: list[nn.Module] = []
    for place, (channels, stride) in enumerate(((3, (1, 2, 2)), (DRAWN_WIDTH, (1, 2, 2)))):
        layer = nn.Conv3d(channels, DRAWN_WIDTH, 3, stride, padding=0, bias=False)
        weight = torch.randn(layer.weight.shape, generator=generator)
        if not place:  # of the first ones a quarter hears change over time alone, one that and edges, the others all
            weight[::4] -= weight[::4].mean(2, keepdim=True)
            weight[1::4] -= weight[1::4].mean((2, 3, 4), keepdim=True)
        layer.weight.data = weight * (2 / weight[0].numel()) ** 0.5
        layers += [layer, nn.ReLU()]
    network = nn.Sequential(*layers).to(on).eval().requires_grad_(False)
    digest = hashlib.blake2b(digest_size=8)
    for weight in network.state_dict().values():
        digest.update(weight.cpu().numpy().tobytes())

    def run(video: Tensor) -> Tensor:
        if video.shape[2] < 5:
            video = pick_frames(video, 5)
        x = network(cover(video, DRAWN_SIZE)).flatten(2)
        return torch.cat([x.mean(2), x.std(2)], dim=1)

    return Features(
        "drawn",
        f"two layers of 3D convolutions with drawn weights (seed {seed}): not FVD, and compares with no paper",
        "all frames",
        f"{DRAWN_SIZE}x{DRAWN_SIZE}, covered and cropped",
        "bilinear, antialiased",
        digest.hexdigest(),
        run,
        on,
    )


def of_vae(vae: VAE) -> Features:
    """Mean and deviation over places of each channel of a VAE's latents."""
    digest = hashlib.blake2b(digest_size=8)
    for weight in vae.encoder.state_dict().values():
        digest.update(weight.detach().float().cpu().numpy().tobytes())

    def run(video: Tensor) -> Tensor:
        x = vae.encode(video).mean.float().flatten(2)
        return torch.cat([x.mean(2), x.std(2)], dim=1)

    about = "latents of the VAE that is measured, pooled: not FVD, and blind to what that VAE does not see"
    device = next(vae.parameters()).device
    return Features("vae", about, "all frames", "as the clips are", "none", digest.hexdigest(), run, device)


# -------------------- with weights of others


def torchscript(path: Path, device: torch.device, clip_frames: int) -> Features:
    """I3D as a TorchScript file that takes (b, 3, f, 224, 224) in [-1, 1]. Loading it runs the code in it.

    Raises: DataError if it cannot be loaded; ShapeError if the clips are too short.
    """
    if not path.is_file():
        raise DataError(f"features {path}: no such file; give the TorchScript file of I3D (i3d_torchscript.pt)")
    if clip_frames < I3D_LEAST:
        raise ShapeError(
            f"features {path}: I3D takes {I3D_LEAST} frames or more, and a clip has {clip_frames}; give --num-frames"
        )
    try:
        network = torch.jit.load(str(path), map_location=device).eval()
    except (RuntimeError, ValueError, OSError) as error:
        reason = " ".join(str(error).split())[:120]
        raise DataError(f"features {path}: no TorchScript ({reason}); give a file made by torch.jit.save") from None
    taken = {argument.name for argument in network.forward.schema.arguments}
    asked = {"rescale": False, "resize": False, "return_features": True}
    options = {name: value for name, value in asked.items() if name in taken}

    def run(video: Tensor) -> Tensor:
        try:
            found = network(cover(video, I3D_SIZE), **options)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1][:160]
            raise DataError(
                f"features {path}: the network takes no (b, 3, f, {I3D_SIZE}, {I3D_SIZE}) ({reason})"
            ) from None
        return found.float().flatten(1)

    about = f"TorchScript {path.name}: Frechet distance by it is FVD if it is I3D"
    size = f"{I3D_SIZE}x{I3D_SIZE}, covered and cropped"
    return Features(path.name, about, "all frames", size, "bilinear, antialiased", content_hash(path), run, device)


def of_transformers(name: str, device: torch.device, clip_frames: int) -> Features:
    """VideoMAE or V-JEPA 2 of a folder or Hub id: the mean of its tokens.

    Raises: as `load_foreign`.
    """
    foreign = load_foreign(name, ("videomae", "vjepa2"), "features", device)
    config = foreign.model.config
    tube = config.tubelet_size
    if foreign.kind == "videomae":
        frames, size = config.num_frames, config.image_size
    else:
        frames, size = max(tube, min(clip_frames, config.frames_per_clip) // tube * tube), config.crop_size

    def run(video: Tensor) -> Tensor:
        pictures = foreign.normalise(cover(pick_frames(video, frames), size, "bicubic")).transpose(1, 2)
        skipped: dict[str, Any] = {"skip_predictor": True} if foreign.kind == "vjepa2" else {}
        return foreign.model(pictures, **skipped).last_hidden_state.float().mean(1)

    about = f"{foreign.kind} {foreign.name}, mean of its last tokens"
    size_told = f"{size}x{size}, covered and cropped"
    told = picked(frames, clip_frames)
    return Features(foreign.name, about, told, size_told, "bicubic, antialiased", foreign.weights, run, device)
