"""What each VAE here promises, whatever its network: the whole, a chunk, a tile, a tile of a chunk; all the same values."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from video_gen.errors import ShapeError
from video_gen.model.linear_path import LinearPath
from video_gen.model.vae_layers import Cache, Caches, Stream

PART_FRAMES = 4
"""Latent frames that are encoded or decoded at once, part by part."""


@dataclass(frozen=True)
class Posterior:
    """A Gaussian over normalised latents, (b, c, f', h', w')."""

    mean: Tensor
    logvar: Tensor
    unit: Tensor
    """(c, 1, 1, 1) what one normalised unit is in the network's own, in which the KL term was trained."""
    centre: Tensor

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        noise = torch.randn(self.mean.shape, generator=generator, device=self.mean.device)
        return self.mean + (self.logvar / 2).exp() * noise

    def kl(self) -> Tensor:
        """Divergence from the unit Gaussian in the network's own units, per latent value, same shape."""
        mean, logvar = self.mean * self.unit + self.centre, self.logvar + 2 * self.unit.log()
        return 0.5 * (mean.square() + logvar.exp() - 1 - logvar)


def check_sides(sides: Mapping[str, int], step: int) -> None:
    """Whether frames of such sides in pixels, by name, fit a VAE and the patches of a transformer, `step` pixels together.

    Raises: ShapeError with the nearest that do.
    """
    for name, side in sides.items():
        if side % step:
            near = max(step, side - side % step)
            raise ShapeError(f"{name} is {side}; it must be a multiple of {step}, such as {near} or {near + step}")


class CausalVAE:
    """Mixed into an `nn.Module` that is a VAE, causal in time, of (b, 3, f, h, w) in [-1, 1] with
    f = 1 + k * temporal_stride; an image is a video of one frame.

    Its `config` has `latent_channels`, `temporal_stride`, `spatial_stride`, `latent_mean` and `latent_std`. The five methods at the
    end are its own.
    """

    config: Any
    linear: LinearPath | None
    """A closed-form path beside the network; None where there is none."""

    # -------------------- the whole at once

    def encode(self, video: Tensor) -> Posterior:
        """Raises: ShapeError with the nearest valid sizes."""
        self._check_video(video, starts=True)
        return self._encode(video, Stream(None, keep=False))

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (b, c, f', h', w') to video; values may leave [-1, 1] a little. Raises: ShapeError."""
        self._check_latents(latents)
        return self._decode(latents, Stream(None, keep=False))

    # -------------------- a chunk at a time

    def encode_chunk(self, video: Tensor, cache: Cache | None) -> tuple[Posterior, Cache]:
        """The next frames of a video: 1 + k * temporal_stride at its start (cache None), then k * temporal_stride."""
        self._check_video(video, starts=cache is None)
        stream = Stream(cache, keep=True)
        return self._encode(video, stream), stream.cache

    def decode_chunk(self, latents: Tensor, cache: Cache | None) -> tuple[Tensor, Cache]:
        """The next latent frames, any number of them."""
        self._check_latents(latents)
        stream = Stream(cache, keep=True)
        return self._decode(latents, stream), stream.cache

    # -------------------- a tile at a time

    def tiled_encode(self, video: Tensor, tile: int) -> Posterior:
        """`encode` in tiles of `tile` latent pixels, each with as much around it as it can see: equal to the whole."""
        return self._tiled_encode(video, tile, None, keep=False)[0]

    def tiled_decode(self, latents: Tensor, tile: int) -> Tensor:
        """`decode` in tiles of `tile` latent pixels, as `tiled_encode`."""
        return self._tiled_decode(latents, tile, None, keep=False)[0]

    # -------------------- a tile of a chunk at a time

    def tiled_encode_chunk(self, video: Tensor, caches: Caches | None, tile: int) -> tuple[Posterior, Caches]:
        """`encode_chunk` in tiles, with a cache per tile: for videos both large and long."""
        return self._tiled_encode(video, tile, caches, keep=True)

    def tiled_decode_chunk(self, latents: Tensor, caches: Caches | None, tile: int) -> tuple[Tensor, Caches]:
        """`decode_chunk` in tiles, with a cache per tile."""
        return self._tiled_decode(latents, tile, caches, keep=True)

    def encode_parts(self, video: Tensor, frames: int = PART_FRAMES, tile: int | None = None) -> Iterator[Posterior]:
        """`encode`, part by part along time: memory beyond `video` does not grow with its length.

        Args:
            frames: latent frames per part.
            tile: side of a tile in latent pixels; None = whole frames up to `WHOLE_PIXELS`, and tiles beyond.
        Returns: an iterator of posteriors, which joined along time are that of the whole.
        """
        self._check_video(video, starts=True)
        tile, caches = tile or self.tile_for(*video.shape[3:]), None
        start, step = 0, frames * self.config.temporal_stride
        while start < video.shape[2]:
            end = start + step if start else self.num_frames(frames)
            posterior, caches = self.tiled_encode_chunk(video[:, :, start:end], caches, tile)
            start = end
            yield posterior

    def decode_parts(self, latents: Tensor, frames: int = PART_FRAMES, tile: int | None = None) -> Iterator[Tensor]:
        """`decode`, part by part along time, as `encode_parts`."""
        self._check_latents(latents)
        s = self.config.spatial_stride
        tile = tile or self.tile_for(latents.shape[3] * s, latents.shape[4] * s)
        yield from self.decode_last(latents, None, frames, tile)

    def decode_last(self, latents: Tensor, caches: Caches | None, frames: int, tile: int) -> Iterator[Tensor]:
        """The rest of a video, or all of it with caches None, of which nothing is kept for later frames.

        Args: frames, tile: as of `decode_parts`, at most so many at once.
        Returns: an iterator of parts of the video.
        """
        for part in latents.split(frames, dim=2):
            video, caches = self.tiled_decode_chunk(part, caches, tile)
            yield video

    def linear_reconstruction(self, video: Tensor) -> Tensor:
        """What the linear path alone makes of a video: the floor."""
        if self.linear is None:
            raise ShapeError(
                "this VAE has no linear path, or linear_path is off in its config: there is no linear reconstruction"
            )
        self._check_video(video, starts=True)
        return self.linear.decode(self.linear.encode(video, True), True)

    # -------------------- the statistics

    def set_latent_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Make latents of this mean and standard deviation per channel, (c,), zero and one from now on.

        They are measured on what `encode` gives now, and join what was set before.
        """
        unit, centre = (x.flatten().double().cpu() for x in self._statistics(torch.device("cpu")))
        self.config = self.config.replace(
            latent_mean=tuple((centre + unit * mean.double().cpu()).tolist()),
            latent_std=tuple((unit * std.double().cpu()).tolist()),
        )

    def _statistics(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Standard deviation and mean per channel, (c, 1, 1, 1)."""
        std, mean, shape = self.config.latent_std, self.config.latent_mean, (self.config.latent_channels, 1, 1, 1)
        # made on the device while there are none, in training: a copy would have a GPU waited for
        unit = torch.ones(shape, device=device) if std is None else torch.tensor(std, device=device).view(shape)
        centre = torch.zeros(shape, device=device) if mean is None else torch.tensor(mean, device=device).view(shape)
        return unit, centre

    # -------------------- shapes

    def latent_shape(self, num_frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        """(c, f', h', w') of such a video. Raises: ShapeError with the nearest valid sizes."""
        self._check_size(num_frames, height, width, starts=True)
        t, s = self.config.temporal_stride, self.config.spatial_stride
        return self.config.latent_channels, 1 + (num_frames - 1) // t, height // s, width // s

    def num_frames(self, latent_frames: int) -> int:
        """Pixel frames of so many latent frames from the start of a video."""
        return 1 + (latent_frames - 1) * self.config.temporal_stride

    def _check_video(self, video: Tensor, starts: bool) -> None:
        if video.ndim != 5 or video.shape[1] != 3:
            raise ShapeError(f"video must be (b, 3, f, h, w), got {tuple(video.shape)}")
        self._check_size(*video.shape[2:], starts=starts)

    def _check_size(self, frames: int, height: int, width: int, starts: bool) -> None:
        t, s = self.config.temporal_stride, self.config.spatial_stride
        extra = 1 if starts else 0
        if frames < 1 or (frames - extra) % t:
            low = max(extra, frames - (frames - extra) % t) or t
            rule = f"1 + a multiple of {t}" if starts else f"a multiple of {t} in a later chunk"
            raise ShapeError(f"{frames} frames: the number must be {rule}; nearest are {low} and {low + t}")
        for name, size in (("height", height), ("width", width)):
            if size < s or size % s:
                low = max(s, size - size % s)
                raise ShapeError(f"{name} {size}: must be a multiple of {s}; nearest are {low} and {low + s}")

    def _check_latents(self, latents: Tensor) -> None:
        if latents.ndim != 5 or latents.shape[1] != self.config.latent_channels or not latents.shape[2]:
            want = f"(b, {self.config.latent_channels}, f, h, w) with at least one frame"
            raise ShapeError(f"latents must be {want}, got {tuple(latents.shape)}")

    # -------------------- what each has of its own

    def tile_for(self, height: int, width: int) -> int:
        """Side of a tile in latent pixels: the whole frame where it is small enough."""
        raise NotImplementedError

    def _encode(self, video: Tensor, stream: Stream) -> Posterior:
        raise NotImplementedError

    def _decode(self, latents: Tensor, stream: Stream) -> Tensor:
        raise NotImplementedError

    def _tiled_encode(self, video: Tensor, tile: int, caches: Caches | None, keep: bool) -> tuple[Posterior, Caches]:
        raise NotImplementedError

    def _tiled_decode(self, latents: Tensor, tile: int, caches: Caches | None, keep: bool) -> tuple[Tensor, Caches]:
        raise NotImplementedError
