"""A closed-form autoencoder: principal components of clip patches, whitened.

One basis for the first frame's patches and one for those of later groups of `temporal_stride` frames. It is what the VAE
starts from, and the floor that a trained one must beat.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn


class LinearPath(nn.Module):
    """Fixed buffers; zero, hence without effect, until `fit`."""

    def __init__(self, temporal_stride: int, spatial_stride: int, channels: int):
        super().__init__()
        self.temporal_stride, self.spatial_stride = temporal_stride, spatial_stride
        pixels = 3 * spatial_stride**2
        for name, values in (("first", pixels), ("later", pixels * temporal_stride)):
            self.register_buffer(f"{name}_mean", torch.zeros(values))
            self.register_buffer(f"{name}_basis", torch.zeros(values, channels))
            self.register_buffer(f"{name}_scale", torch.ones(channels))

    @torch.no_grad()
    def fit(self, video: Tensor) -> None:
        """Measure the components of `video` (b, 3, f, h, w); with f = 1 the later groups are those of still frames."""
        first = self._patches(video[:, :, :1], 1)
        rest = video[:, :, 1:] if video.shape[2] > 1 else video.expand(-1, -1, self.temporal_stride, -1, -1)
        for name, patches in (("first", first), ("later", self._patches(rest, self.temporal_stride))):
            flat = patches.flatten(0, 3).double()
            mean, channels = flat.mean(0), self.get_buffer(f"{name}_scale").numel()
            basis, scale = principal_components(flat - mean, channels)
            missing = channels - scale.numel()  # fewer pixels or patches than channels: the others stay silent
            basis, scale = F.pad(basis, (0, missing)), F.pad(scale, (0, missing), value=1.0)
            self.get_buffer(f"{name}_mean").copy_(mean)
            self.get_buffer(f"{name}_basis").copy_(basis)
            self.get_buffer(f"{name}_scale").copy_(scale)

    def encode(self, video: Tensor, starts: bool) -> Tensor:
        """Video (b, 3, f, h, w) to unit-variance components (b, c, f', h', w'); `starts` at a video's first frame."""
        parts = [("later", self.temporal_stride, video[:, :, 1:] if starts else video)]
        if starts:
            parts.insert(0, ("first", 1, video[:, :, :1]))
        made = []
        for name, stride, frames in parts:
            mean, basis, scale = (self.get_buffer(f"{name}_{x}") for x in ("mean", "basis", "scale"))
            made.append((self._patches(frames.float(), stride) - mean) @ (basis / scale))
        return torch.cat(made, dim=1).permute(0, 4, 1, 2, 3)

    def decode(self, latents: Tensor, starts: bool) -> Tensor:
        """The inverse of `encode`, as far as the components reach."""
        z = latents.float().permute(0, 2, 3, 4, 1)
        parts = [("later", self.temporal_stride, z[:, 1:] if starts else z)]
        if starts:
            parts.insert(0, ("first", 1, z[:, :1]))
        made, p = [], self.spatial_stride
        for name, stride, values in parts:
            mean, basis, scale = (self.get_buffer(f"{name}_{x}") for x in ("mean", "basis", "scale"))
            patches = values @ (basis * scale).T + mean
            made.append(rearrange(patches, "b f h w (t c p q) -> b c (f t) (h p) (w q)", t=stride, p=p, q=p))
        return torch.cat(made, dim=2)

    def _patches(self, video: Tensor, stride: int) -> Tensor:
        p = self.spatial_stride
        return rearrange(video, "b c (f t) (h p) (w q) -> b f h w (t c p q)", t=stride, p=p, q=p)


def principal_components(centred: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """At most `count` directions (features, found) of largest variance of (samples, features), and their deviations (found,).

    From the samples' products where samples are fewer than features: the same directions from a smaller matrix.
    """
    samples, features = centred.shape
    few = samples < features
    square = (centred @ centred.T if few else centred.T @ centred) / samples
    values, vectors = (x.flip(-1)[..., :count] for x in torch.linalg.eigh(square))
    if few:
        kept = values > 1e-12 * values[:1]  # beyond the rank a direction is anyone's
        values, vectors = values[kept], centred.T @ vectors[:, kept] / (samples * values[kept]).sqrt()
    return vectors, values.clamp(min=1e-6).sqrt()
