"""VideoVAE: video to latents and back, causal in time.

Convolutions and per-position norms only, no look-ahead: so chunks with a cache, and tiles with a halo, equal the whole.
"""

from math import ceil

import torch
from einops import rearrange
from torch import Tensor, nn

from video_gen.model.linear_path import LinearPath
from video_gen.model.pretrained import Pretrained
from video_gen.model.vae_config import VAEConfig
from video_gen.model.vae_contract import CausalVAE, Posterior
from video_gen.model.vae_layers import (
    Caches,
    CausalConv,
    Downsample,
    PositionNorm,
    ResidualBlock,
    Stream,
    Upsample,
    working,
)
from video_gen.model.vae_tiles import cache_of, stitch, tiles

LOGVAR_START = -5.0
"""Of the posterior before training: a standard deviation of 0.08, so that little is lost at first."""
WHOLE_PIXELS, TILE_PIXELS = 512 * 512, 512
"""Up to so many pixels a frame is one tile; larger ones are cut into tiles of this side, and a halo."""


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
        x = rearrange(working(video), "b c f (h p) (w q) -> b f h w (c p q)", p=self.stem, q=self.stem)
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
        x = working(latents).permute(0, 2, 3, 4, 1).contiguous()
        for layer in self.layers:
            x = layer(x, stream)
        x = self.head(self.norm(x), stream)
        return rearrange(x, "b f h w (c p q) -> b c f (h p) (w q)", p=self.stem, q=self.stem).float()


class VideoVAE(nn.Module, CausalVAE, Pretrained):
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

    # -------------------- the linear path

    def fit_linear_path(self, video: Tensor) -> None:
        """Measure the linear path on training clips (b, 3, f, h, w), before training."""
        if self.linear is not None:
            self.linear.fit(video)

    # -------------------- parts

    def tile_for(self, height: int, width: int) -> int:
        """Side of a tile in latent pixels: the whole frame where it is small enough."""
        if height * width <= WHOLE_PIXELS:
            return max(height, width) // self.config.spatial_stride
        return TILE_PIXELS // self.config.spatial_stride

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
        places = tiles(video.shape[3] // s, video.shape[4] // s, tile, self._reach(self.encoder))
        means, logvars, kept = [], [], []
        for index, ((y, y0, y1), (x, x0, x1)) in enumerate(places):
            stream = Stream(cache_of(caches, index, len(places)), keep)
            made = self._encode(video[..., y0 * s : y1 * s, x0 * s : x1 * s], stream)
            at = (..., slice(y - y0, y - y0 + tile), slice(x - x0, x - x0 + tile))
            means.append((y, made.mean[at]))
            logvars.append((y, made.logvar[at]))
            kept += [stream.cache] if keep else []
        return Posterior(stitch(means), stitch(logvars), *self._statistics(video.device)), tuple(kept)

    def _tiled_decode(self, latents: Tensor, tile: int, caches: Caches | None, keep: bool) -> tuple[Tensor, Caches]:
        self._check_latents(latents)
        s = self.config.spatial_stride
        places = tiles(latents.shape[3], latents.shape[4], tile, self._reach(self.decoder))
        parts, kept = [], []
        for index, ((y, y0, y1), (x, x0, x1)) in enumerate(places):
            stream = Stream(cache_of(caches, index, len(places)), keep)
            made = self._decode(latents[..., y0:y1, x0:x1], stream)
            top, left = (y - y0) * s, (x - x0) * s
            # cloned where it is a part of what was made, or the halos would be held until all is stitched
            parts.append((y, made[..., top : top + tile * s, left : left + tile * s].clone()))
            kept += [stream.cache] if keep else []
        return stitch(parts), tuple(kept)

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
