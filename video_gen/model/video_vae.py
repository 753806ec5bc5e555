"""VideoVAE: video to latents and back, causal in time.

Convolutions and per-position norms only, no look-ahead: so chunks with a cache, and tiles with a halo, equal the whole.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

import torch
from einops import rearrange
from torch import Tensor, nn

from video_gen.errors import ShapeError
from video_gen.model.linear_path import LinearPath
from video_gen.model.pretrained import Pretrained
from video_gen.model.vae_config import VAEConfig
from video_gen.model.vae_layers import (
    Cache,
    Caches,
    CausalConv,
    Downsample,
    PositionNorm,
    ResidualBlock,
    Stream,
    Upsample,
)

LOGVAR_START = -5.0
"""Of the posterior before training: a standard deviation of 0.08, so that little is lost at first."""
PART_FRAMES = 4
"""Latent frames that are encoded or decoded at once, part by part."""
WHOLE_PIXELS, TILE_PIXELS = 512 * 512, 512
"""Up to so many pixels a frame is one tile; larger ones are cut into tiles of this side, and a halo."""


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


class Encoder(nn.Module):
    def __init__(self, config: VAEConfig):
        super().__init__()
        widths = config.stage_widths
        layers: list[nn.Module] = [CausalConv(3 * config.stem**2, widths[0])]
        for (t, p), fine, coarse in zip(config.stages, widths, widths[1:]):
            layers += [ResidualBlock(fine) for _ in range(config.blocks)] + [Downsample(fine, coarse, t, p)]
        layers += [ResidualBlock(widths[-1]) for _ in range(config.blocks)]
        self.layers = nn.ModuleList(layers)
        self.norm = PositionNorm(widths[-1])
        self.head = CausalConv(widths[-1], 2 * config.latent_channels, zero=True)
        self.stem = config.stem

    def forward(self, video: Tensor, stream: Stream) -> Tensor:
        x = rearrange(_working(video), "b c f (h p) (w q) -> b f h w (c p q)", p=self.stem, q=self.stem)
        for layer in self.layers:
            x = layer(x, stream)
        return self.head(self.norm(x), stream).float().permute(0, 4, 1, 2, 3)


class Decoder(nn.Module):
    def __init__(self, config: VAEConfig):
        super().__init__()
        widths = config.stage_widths
        layers: list[nn.Module] = [CausalConv(config.latent_channels, widths[-1])]
        layers += [ResidualBlock(widths[-1]) for _ in range(config.blocks)]
        for (t, p), fine, coarse in reversed(list(zip(config.stages, widths, widths[1:]))):
            layers += [Upsample(coarse, fine, t, p)] + [ResidualBlock(fine) for _ in range(config.blocks)]
        self.layers = nn.ModuleList(layers)
        self.norm = PositionNorm(widths[0])
        self.head = CausalConv(widths[0], 3 * config.stem**2, zero=True)
        self.stem = config.stem

    def forward(self, latents: Tensor, stream: Stream) -> Tensor:
        x = _working(latents).permute(0, 2, 3, 4, 1).contiguous()
        for layer in self.layers:
            x = layer(x, stream)
        x = self.head(self.norm(x), stream)
        return rearrange(x, "b f h w (c p q) -> b c f (h p) (w q)", p=self.stem, q=self.stem).float()


class VideoVAE(nn.Module, Pretrained):
    """
    `posterior = vae.encode(video)`, `video = vae.decode(latents)`; video is (b, 3, f, h, w) in [-1, 1] with
    f = 1 + k * temporal_stride, and an image is a video of one frame.
    """

    Config = VAEConfig

    def __init__(self, config: VAEConfig):
        super().__init__()
        self.config = config
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        strides = (config.temporal_stride, config.spatial_stride)
        self.linear = LinearPath(*strides, config.latent_channels) if config.linear_path else None
        self.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

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
        s, caches = self.config.spatial_stride, None
        tile = tile or self.tile_for(latents.shape[3] * s, latents.shape[4] * s)
        for part in latents.split(frames, dim=2):
            video, caches = self.tiled_decode_chunk(part, caches, tile)
            yield video

    # -------------------- the linear path and the statistics

    def fit_linear_path(self, video: Tensor) -> None:
        """Measure the linear path on training clips (b, 3, f, h, w), before training."""
        if self.linear is not None:
            self.linear.fit(video)

    def linear_reconstruction(self, video: Tensor) -> Tensor:
        """What the linear path alone makes of a video: the floor."""
        if self.linear is None:
            raise ShapeError("linear_path is off in this VAE's config: there is no linear reconstruction")
        self._check_video(video, starts=True)
        return self.linear.decode(self.linear.encode(video, True), True)

    def set_latent_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Make latents of this mean and standard deviation per channel, (c,), zero and one from now on.

        They are measured on what `encode` gives now, and join what was set before.
        """
        unit, centre = (x.flatten().double().cpu() for x in self._statistics(torch.device("cpu")))
        self.config = self.config.replace(
            latent_mean=tuple((centre + unit * mean.double().cpu()).tolist()),
            latent_std=tuple((unit * std.double().cpu()).tolist()),
        )

    # -------------------- shapes

    def latent_shape(self, num_frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        """(c, f', h', w') of such a video. Raises: ShapeError with the nearest valid sizes."""
        self._check_size(num_frames, height, width, starts=True)
        t, s = self.config.temporal_stride, self.config.spatial_stride
        return self.config.latent_channels, 1 + (num_frames - 1) // t, height // s, width // s

    def num_frames(self, latent_frames: int) -> int:
        """Pixel frames of so many latent frames from the start of a video."""
        return 1 + (latent_frames - 1) * self.config.temporal_stride

    def tile_for(self, height: int, width: int) -> int:
        """Side of a tile in latent pixels: the whole frame where it is small enough."""
        if height * width <= WHOLE_PIXELS:
            return max(height, width) // self.config.spatial_stride
        return TILE_PIXELS // self.config.spatial_stride

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

    # -------------------- parts

    def _encode(self, video: Tensor, stream: Stream) -> Posterior:
        mean, logvar = self.encoder(video, stream).chunk(2, dim=1)
        if self.linear is not None:
            with torch.autocast(video.device.type, enabled=False):
                mean = mean + self.linear.encode(video, stream.starts)
        unit, centre = self._statistics(mean.device)
        return Posterior((mean - centre) / unit, logvar + LOGVAR_START - 2 * unit.log(), unit, centre)

    def _decode(self, latents: Tensor, stream: Stream) -> Tensor:
        unit, centre = self._statistics(latents.device)
        latents = latents * unit + centre
        video = self.decoder(latents, stream)
        if self.linear is not None:
            with torch.autocast(video.device.type, enabled=False):
                video = video + self.linear.decode(latents, stream.starts)
        return video

    def _tiled_encode(self, video: Tensor, tile: int, caches: Caches | None, keep: bool) -> tuple[Posterior, Caches]:
        self._check_video(video, starts=caches is None)
        s = self.config.spatial_stride
        tiles = _tiles(video.shape[3] // s, video.shape[4] // s, tile, self._reach(self.encoder))
        means, logvars, kept = [], [], []
        for index, ((y, y0, y1), (x, x0, x1)) in enumerate(tiles):
            stream = Stream(_cache_of(caches, index, len(tiles)), keep)
            made = self._encode(video[..., y0 * s : y1 * s, x0 * s : x1 * s], stream)
            at = (..., slice(y - y0, y - y0 + tile), slice(x - x0, x - x0 + tile))
            means.append((y, made.mean[at]))
            logvars.append((y, made.logvar[at]))
            kept += [stream.cache] if keep else []
        return Posterior(_stitch(means), _stitch(logvars), *self._statistics(video.device)), tuple(kept)

    def _tiled_decode(self, latents: Tensor, tile: int, caches: Caches | None, keep: bool) -> tuple[Tensor, Caches]:
        self._check_latents(latents)
        s = self.config.spatial_stride
        tiles = _tiles(latents.shape[3], latents.shape[4], tile, self._reach(self.decoder))
        parts, kept = [], []
        for index, ((y, y0, y1), (x, x0, x1)) in enumerate(tiles):
            stream = Stream(_cache_of(caches, index, len(tiles)), keep)
            made = self._decode(latents[..., y0:y1, x0:x1], stream)
            top, left = (y - y0) * s, (x - x0) * s
            # cloned where it is a part of what was made, or the halos would be held until all is stitched
            parts.append((y, made[..., top : top + tile * s, left : left + tile * s].clone()))
            kept += [stream.cache] if keep else []
        return _stitch(parts), tuple(kept)

    def _statistics(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Standard deviation and mean per channel, (c, 1, 1, 1)."""
        std, mean, shape = self.config.latent_std, self.config.latent_mean, (self.config.latent_channels, 1, 1, 1)
        # made on the device while there are none, in training: a copy would have a GPU waited for
        unit = torch.ones(shape, device=device) if std is None else torch.tensor(std, device=device).view(shape)
        centre = torch.zeros(shape, device=device) if mean is None else torch.tensor(mean, device=device).view(shape)
        return unit, centre

    def _reach(self, part: Encoder | Decoder) -> int:
        """Latent pixels around a tile that its inside can see: one pixel per convolution, at its resolution."""
        size, reach = 1.0, 0.0  # of a pixel, in latent pixels; from the latent end
        layers = list(part.layers) if isinstance(part, Decoder) else list(reversed(part.layers))
        reach += size * (isinstance(part, Encoder))  # the encoder's head
        for layer in layers:
            if isinstance(layer, Downsample):
                size /= layer.p
            reach += size * (2 if isinstance(layer, ResidualBlock) else 1)
            if isinstance(layer, Upsample):
                size /= layer.p
        return ceil(reach + (size if isinstance(part, Decoder) else 0.0))


def _working(x: Tensor) -> Tensor:
    """In the number format that convolutions will run in, so that no later step converts more values than these."""
    device = x.device.type
    return x.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else x


def _tiles(height: int, width: int, tile: int, halo: int) -> list[tuple[tuple[int, int, int], tuple[int, int, int]]]:
    """((start, start with halo, end with halo) of rows, the same of columns) of each tile, row by row."""

    def along(size: int) -> list[tuple[int, int, int]]:
        return [(at, max(0, at - halo), min(size, at + tile + halo)) for at in range(0, size, tile)]

    return [(row, column) for row in along(height) for column in along(width)]


def _cache_of(caches: Caches | None, index: int, tiles: int) -> Cache | None:
    if caches is not None and len(caches) != tiles:
        raise ShapeError(f"{len(caches)} caches for {tiles} tiles; keep the frame size and the tile of the first chunk")
    return None if caches is None else caches[index]


def _stitch(parts: list[tuple[int, Tensor]]) -> Tensor:
    rows: dict[int, list[Tensor]] = {}
    for y, part in parts:
        rows.setdefault(y, []).append(part)
    return torch.cat([torch.cat(row, dim=4) for row in rows.values()], dim=3)
