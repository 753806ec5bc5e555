"""WanVAE: the VAEs of the public Wan releases, 2.1 (4 x 8 x 8, 16 channels) and 2.2 (4 x 16 x 16, 48 channels).

Their attention is within a frame, at the coarsest resolution alone. So chunks with a cache equal the whole, and so do tiles: only
the fine resolutions are cut into tiles, each with a halo. They are convolutions alone, and take nearly all of the memory;
attention always has the whole frame. (Public code cuts everything, and blends tiles that differ from the whole.)
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

import torch
from einops import rearrange
from torch import Tensor, nn

from video_gen.model.pretrained import Pretrained, check_finite, check_shapes
from video_gen.model.vae_contract import PART_FRAMES, CausalVAE, Posterior
from video_gen.model.vae_layers import Caches, Stream, working
from video_gen.model.vae_tiles import cache_of, stitch, tiles
from video_gen.model.wan.vae_config import WanVAEConfig
from video_gen.model.wan.vae_layers import (
    CausalConv,
    DownLevel,
    Downsample,
    ResidualBlock,
    UpLevel,
    Upsample,
    activated,
    head,
    middle,
    pointwise,
)
from video_gen.model.weights import weightless

LOGVAR_RANGE = (-30.0, 20.0)
WHOLE_PIXELS, TILE_PIXELS = 1280 * 720, 768
"""Up to so many pixels a frame is one tile; larger ones are cut into tiles of this side, and a halo."""
PART_PIXELS = 2**22
"""Pixels that go through the network at once, over all frames and videos, unless one latent frame has more."""
FINE_ENCODER, FINE_DECODER = 2, 3
"""Resolutions that are cut into tiles, the finest ones."""


class Encoder(nn.Module):
    def __init__(self, config: WanVAEConfig):
        super().__init__()
        widths, blocks = config.encoder_widths, config.blocks
        self.patch, self.blocks = config.patch, blocks
        self.conv1 = CausalConv(3 * config.patch**2, widths[0])
        layers: list[nn.Module] = []
        for temporal, inputs, outputs in zip((*config.temporal, None), widths, widths[1:]):
            if config.shortcuts:
                layers.append(DownLevel(inputs, outputs, blocks, temporal))
                continue
            layers += [ResidualBlock(inputs if i == 0 else outputs, outputs) for i in range(blocks)]
            layers += [] if temporal is None else [Downsample(outputs, temporal)]
        self.downsamples = nn.ModuleList(layers)
        self.middle = middle(widths[-1])
        self.head = head(widths[-1], 2 * config.latent_channels)
        self.levels = min(FINE_ENCODER, len(config.temporal))
        self.cut = self.levels * (1 if config.shortcuts else blocks + 1)

    def forward(self, video: Tensor, stream: Stream) -> Tensor:
        """(b, 3, f, h, w) to (b, f', h', w', c)."""
        return self.coarse(self.fine(video, stream), stream)

    def fine(self, video: Tensor, stream: Stream) -> Tensor:
        """The fine resolutions: (b, 3, f, h, w) to (b, f', h', w', c)."""
        x = rearrange(video, "b c f (h q) (w r) -> b f h w (c r q)", q=self.patch, r=self.patch)
        x = self.conv1(x, stream)
        for layer in list(self.downsamples)[: self.cut]:
            x = layer(x, stream)
        return x

    def coarse(self, x: Tensor, stream: Stream) -> Tensor:
        for layer in (*list(self.downsamples)[self.cut :], *self.middle):
            x = layer(x, stream)
        return self.head["2"](activated(self.head["0"], x), stream)

    def reach(self) -> int:
        """Pixels, after patches, around a tile that the fine resolutions' output of it sees."""
        pixels = 0
        for _ in range(self.levels):
            pixels = 2 * pixels + 1 + 2 * self.blocks
        return pixels + 1


class Decoder(nn.Module):
    def __init__(self, config: WanVAEConfig):
        super().__init__()
        widths, blocks = config.decoder_widths, config.blocks + 1
        self.patch, self.blocks = config.patch, blocks
        self.conv1 = CausalConv(config.latent_channels, widths[0])
        self.middle = middle(widths[0])
        layers: list[nn.Module] = []
        ups = (*reversed(config.temporal), None)
        for level, (temporal, inputs, outputs) in enumerate(zip(ups, widths, widths[1:])):
            if config.shortcuts:
                layers.append(UpLevel(inputs, outputs, blocks, temporal))
                continue
            inputs = inputs // 2 if level else inputs
            layers += [ResidualBlock(inputs if i == 0 else outputs, outputs) for i in range(blocks)]
            layers += [] if temporal is None else [Upsample(outputs, outputs // 2, temporal)]
        self.upsamples = nn.ModuleList(layers)
        self.head = head(widths[-1], 3 * config.patch**2)
        self.levels = min(FINE_DECODER, len(ups))
        self.cut = (len(ups) - self.levels) * (1 if config.shortcuts else blocks + 1)

    def forward(self, latents: Tensor, stream: Stream) -> Tensor:
        """(b, f', h', w', c) to (b, 3, f, h, w)."""
        return self.fine(self.coarse(latents, stream), stream)

    def coarse(self, latents: Tensor, stream: Stream) -> Tensor:
        x = self.conv1(latents, stream)
        for layer in (*self.middle, *list(self.upsamples)[: self.cut]):
            x = layer(x, stream)
        return x

    def fine(self, x: Tensor, stream: Stream) -> Tensor:
        """The fine resolutions: (b, f', h', w', c) to (b, 3, f, h, w)."""
        for layer in list(self.upsamples)[self.cut :]:
            x = layer(x, stream)
        x = self.head["2"](activated(self.head["0"], x), stream)
        return rearrange(x, "b f h w (c r q) -> b c f (h q) (w r)", q=self.patch, r=self.patch)

    def reach(self) -> int:
        """Pixels of the fine resolutions' input around a tile that its output sees."""
        pixels = 1 + 2 * self.blocks
        for _ in range(self.levels - 1):
            pixels = -(-(pixels + 1) // 2) + 2 * self.blocks
        return pixels


class WanVAE(nn.Module, CausalVAE, Pretrained):
    """
    `posterior = vae.encode(video)`, `video = vae.decode(latents)`, in chunks and in tiles, as a VideoVAE; latents are normalised by
    the release's mean and deviation.
    """

    Config = WanVAEConfig
    linear = None

    def __init__(self, config: WanVAEConfig):
        super().__init__()
        self.config = config
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        self.conv1 = CausalConv(2 * config.latent_channels, 2 * config.latent_channels, 1)
        self.conv2 = CausalConv(config.latent_channels, config.latent_channels, 1)

    @classmethod
    def from_state(cls, config: WanVAEConfig, state: Mapping[str, Tensor], source: str | Path = "weights") -> Self:
        """A model of these sizes and weights, which keep their number format, in eval mode.

        Args:
            state: in our names (`vae_names.in_our_names`); the model takes the tensors over, and copies none.
            source: where they are from, for errors.
        Raises: ConfigError if they do not fit, DataError if they are not finite.
        """
        with weightless():
            vae = cls(config)
        check_shapes({name: tuple(x.shape) for name, x in state.items()}, vae, Path(source), Path("its sizes"))
        check_finite(dict(state), cls.__name__, source)
        vae.load_state_dict(dict(state), assign=True)
        return vae.eval()

    def tile_for(self, height: int, width: int) -> int:
        """Side of a tile in latent pixels: the whole frame where it is small enough."""
        side = max(height, width) if height * width <= WHOLE_PIXELS else TILE_PIXELS
        return side // self.config.spatial_stride

    def encode_parts(self, video: Tensor, frames: int = PART_FRAMES, tile: int | None = None) -> Iterator[Posterior]:
        """As of every VAE; in one part, made as `decode_last` says."""
        self._check_video(video, starts=True)
        tile = tile or self.tile_for(video.shape[3], video.shape[4])
        yield self._tiled_encode(video, tile, None, keep=False, frames=frames)[0]

    def decode_last(self, latents: Tensor, caches: Caches | None, frames: int, tile: int) -> Iterator[Tensor]:
        """As of every VAE; in tiles, each goes through the whole video before the next, so that one's cache is held alone."""
        self._check_latents(latents)
        yield self._tiled_decode(latents, tile, caches, keep=False, frames=frames)[0]

    # -------------------- parts

    def _encode(self, video: Tensor, stream: Stream, frames: int | None = None) -> Posterior:
        parts = self._video_parts(video, video.shape[3] * video.shape[4], stream.starts, frames)
        return self._posterior(torch.cat(list(in_parts(self.encoder, parts, stream)), dim=1))

    def _decode(self, latents: Tensor, stream: Stream, frames: int | None = None) -> Tensor:
        parts = self._latent_parts(latents, latents.shape[3] * latents.shape[4], frames)
        return torch.cat(list(in_parts(self.decoder, parts, stream)), dim=2).float()

    def _tiled_encode(
        self, video: Tensor, tile: int, caches: Caches | None, keep: bool, frames: int | None = None
    ) -> tuple[Posterior, Caches]:
        """The fine resolutions tile by tile, then the coarse ones of whole frames; the first cache is theirs."""
        self._check_video(video, starts=caches is None)
        s, scale = self.config.spatial_stride, self._scale(self.encoder)
        places = tiles(video.shape[3] // s, video.shape[4] // s, tile, self._reach(self.encoder))
        if len(places) == 1:
            stream = Stream(cache_of(caches, 0, 1), keep)
            return self._encode(video, stream, frames), (stream.cache,) if keep else ()
        parts = self._video_parts(video, (tile * s) ** 2, caches is None, frames)
        rows: list[list[tuple[int, Tensor]]] = [[] for _ in parts]
        kept = []
        for index, ((y, y0, y1), (x, x0, x1)) in enumerate(places, start=1):
            stream = Stream(cache_of(caches, index, 1 + len(places)), keep)
            seen = [part[..., y0 * s : y1 * s, x0 * s : x1 * s] for part in parts]
            for row, made in zip(rows, in_parts(self.encoder.fine, seen, stream)):
                made = made.permute(0, 4, 1, 2, 3)
                row.append((y, inside(made, (y - y0) * scale, (x - x0) * scale, tile * scale)))
            kept += [stream.cache] if keep else []
        whole = [stitch(row).permute(0, 2, 3, 4, 1).contiguous() for row in rows]
        stream = Stream(cache_of(caches, 0, 1 + len(places)), keep)
        made = torch.cat(list(in_parts(self.encoder.coarse, whole, stream)), dim=1)
        return self._posterior(made), (stream.cache, *kept) if keep else ()

    def _tiled_decode(
        self, latents: Tensor, tile: int, caches: Caches | None, keep: bool, frames: int | None = None
    ) -> tuple[Tensor, Caches]:
        """The coarse resolutions of whole frames, then the fine ones tile by tile, as `_tiled_encode`."""
        self._check_latents(latents)
        s, scale = self.config.spatial_stride, self._scale(self.decoder)
        places = tiles(latents.shape[3], latents.shape[4], tile, self._reach(self.decoder))
        if len(places) == 1:
            stream = Stream(cache_of(caches, 0, 1), keep)
            return self._decode(latents, stream, frames), (stream.cache,) if keep else ()
        stream = Stream(cache_of(caches, 0, 1 + len(places)), keep)
        whole = list(in_parts(self.decoder.coarse, self._latent_parts(latents, tile**2, frames), stream))
        parts, kept = [], [stream.cache] if keep else []
        for index, ((y, y0, y1), (x, x0, x1)) in enumerate(places, start=1):
            stream = Stream(cache_of(caches, index, 1 + len(places)), keep)
            seen = [w[:, :, y0 * scale : y1 * scale, x0 * scale : x1 * scale].contiguous() for w in whole]
            made = in_parts(self.decoder.fine, seen, stream)
            video = [inside(one, (y - y0) * s, (x - x0) * s, tile * s) for one in made]
            parts.append((y, torch.cat(video, dim=2)))
            kept += [stream.cache] if keep else []
        return stitch(parts).float(), tuple(kept)

    def _posterior(self, x: Tensor) -> Posterior:
        """Of what the encoder made, (b, f', h', w', 2 c)."""
        mean, logvar = pointwise(x, self.conv1).float().permute(0, 4, 1, 2, 3).chunk(2, dim=1)
        unit, centre = self._statistics(x.device)
        return Posterior((mean - centre) / unit, logvar.clamp(*LOGVAR_RANGE) - 2 * unit.log(), unit, centre)

    def _own(self, latents: Tensor) -> Tensor:
        """Normalised latents (b, c, f', h', w') to what the decoder takes, (b, f', h', w', c)."""
        unit, centre = self._statistics(latents.device)
        return pointwise(self._working(latents * unit + centre).permute(0, 2, 3, 4, 1), self.conv2)

    def _working(self, x: Tensor) -> Tensor:
        """In the weights' number format, or in the one that autocast will use."""
        return working(x.to(self.conv2.weight.dtype))

    # -------------------- sizes of parts and tiles

    def _part_frames(self, x: Tensor, latent_pixels: int) -> int:
        """Latent frames that go through the network at once."""
        pixels = x.shape[0] * latent_pixels * self.config.spatial_stride**2 * self.config.temporal_stride
        return max(1, PART_PIXELS // pixels)

    def _latent_parts(self, latents: Tensor, pixels: int, frames: int | None) -> Sequence[Tensor]:
        size = self._part_frames(latents, pixels)
        return self._own(latents).split(min(size, frames or size), dim=1)

    def _video_parts(self, video: Tensor, pixels: int, starts: bool, frames: int | None) -> list[Tensor]:
        video, size = self._working(video), self._part_frames(video, pixels // self.config.spatial_stride**2)
        size = min(size, frames or size)
        step = size * self.config.temporal_stride
        first = self.num_frames(size) if starts else step
        return [video[:, :, max(0, at) : at + step] for at in range(first - step, video.shape[2], step)]

    def _scale(self, part: Encoder | Decoder) -> int:
        """Pixels along a side, where its fine resolutions meet the others, of a latent pixel."""
        inner = len(self.config.temporal) - part.levels
        return 2 ** (inner if isinstance(part, Encoder) else inner + 1)

    def _reach(self, part: Encoder | Decoder) -> int:
        """Latent pixels around a tile that its inside sees."""
        pixel = self.config.spatial_stride // self.config.patch if isinstance(part, Encoder) else self._scale(part)
        return -(-part.reach() // pixel)


def in_parts(network: Callable[[Tensor, Stream], Tensor], parts: Sequence[Tensor], stream: Stream) -> Iterator[Tensor]:
    """What the network makes of each of the parts, which follow each other in time."""
    if len(parts) > 1:
        stream.keep()
    for index, part in enumerate(parts):
        if index:
            stream.advance()
        yield network(part, stream)


def inside(x: Tensor, top: int, left: int, side: int) -> Tensor:
    """A tile (b, c, f, h, w) without its halo; cloned, or the halos would be held until all is stitched."""
    return x[..., top : top + side, left : left + side].clone()
