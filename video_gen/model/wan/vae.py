"""WanVAE: the VAEs of the public Wan releases, 2.1 (4 x 8 x 8, 16 channels) and 2.2 (4 x 16 x 16, 48 channels).

Their attention is within a frame, at the coarsest resolution alone. So chunks with a cache equal the whole, and so do tiles: only
the fine resolutions are cut into tiles, each with a halo. They are convolutions alone, and take nearly all of the memory;
attention always has the whole frame. (Public code cuts everything, and blends tiles that differ from the whole.)
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import torch
from einops import rearrange
from torch import Tensor, nn

from video_gen.model.pretrained import Pretrained, check_finite, check_shapes
from video_gen.model.vae_contract import CausalVAE, Posterior
from video_gen.model.vae_layers import Caches, Stream, working
from video_gen.model.vae_tiles import Places, cache_of, stitch, tiles
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

LOGVAR_RANGE = (-30.0, 20.0)
WHOLE_PIXELS, TILE_PIXELS = 1280 * 720, 768
"""Up to so many pixels a frame is one tile; larger ones are cut into tiles of this side, and a halo."""
PART_PIXELS = 2**22
"""Pixels that go through the network at once, over all frames and videos, unless one latent frame has more."""
FINE_ENCODER, FINE_DECODER = 2, {False: 2, True: 3}
"""Resolutions that are cut into tiles, the finest ones; without and with shortcuts, whose decoder is wide early."""


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
        self.levels = min(FINE_DECODER[config.shortcuts], len(ups))
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
        with torch.device("meta"):
            vae = cls(config)
        check_shapes({name: tuple(x.shape) for name, x in state.items()}, vae, Path(source), Path("its sizes"))
        check_finite(dict(state), cls.__name__, source)
        vae.load_state_dict(dict(state), assign=True)
        return vae.eval()

    def tile_for(self, height: int, width: int) -> int:
        """Side of a tile in latent pixels: the whole frame where it is small enough."""
        side = max(height, width) if height * width <= WHOLE_PIXELS else TILE_PIXELS
        return side // self.config.spatial_stride

    # -------------------- parts

    def _encode(self, video: Tensor, stream: Stream) -> Posterior:
        parts = self._video_parts(self._working(video), video.shape[3] * video.shape[4], stream.starts)
        return self._posterior(torch.cat(in_parts(self.encoder, parts, stream), dim=1))

    def _decode(self, latents: Tensor, stream: Stream) -> Tensor:
        x = self._own(latents)
        parts = x.split(self._part_frames(latents, latents.shape[3] * latents.shape[4]), dim=1)
        return torch.cat(in_parts(self.decoder, parts, stream), dim=2).float()

    def _tiled_encode(self, video: Tensor, tile: int, caches: Caches | None, keep: bool) -> tuple[Posterior, Caches]:
        self._check_video(video, starts=caches is None)
        s = self.config.spatial_stride
        places = tiles(video.shape[3] // s, video.shape[4] // s, tile, self._reach(self.encoder))
        if len(places) == 1:
            stream = Stream(cache_of(caches, 0, 1), keep)
            return self._encode(video, stream), (stream.cache,) if keep else ()
        made = []
        for part in self._video_parts(self._working(video), (tile * s) ** 2, caches is None):
            x, caches = self._encode_tiles(part, places, tile, caches)
            made.append(x)
        return self._posterior(torch.cat(made, dim=1)), caches or ()

    def _tiled_decode(self, latents: Tensor, tile: int, caches: Caches | None, keep: bool) -> tuple[Tensor, Caches]:
        self._check_latents(latents)
        places = tiles(latents.shape[3], latents.shape[4], tile, self._reach(self.decoder))
        if len(places) == 1:
            stream = Stream(cache_of(caches, 0, 1), keep)
            return self._decode(latents, stream), (stream.cache,) if keep else ()
        made = []
        for part in self._own(latents).split(self._part_frames(latents, tile**2), dim=1):
            video, caches = self._decode_tiles(part, places, tile, caches)
            made.append(video)
        return torch.cat(made, dim=2).float(), caches or ()

    def _encode_tiles(self, video: Tensor, places: Places, tile: int, caches: Caches | None) -> tuple[Tensor, Caches]:
        """Video to (b, f', h', w', c): the fine resolutions tile by tile, then the coarse ones of the whole frame."""
        s, scale = self.config.spatial_stride, self._scale(self.encoder)
        parts, kept = [], []
        for index, ((y, y0, y1), (x, x0, x1)) in enumerate(places, start=1):
            stream = Stream(cache_of(caches, index, 1 + len(places)), keep=True)
            made = self.encoder.fine(video[..., y0 * s : y1 * s, x0 * s : x1 * s], stream).permute(0, 4, 1, 2, 3)
            parts.append((y, inside(made, (y - y0) * scale, (x - x0) * scale, tile * scale)))
            kept.append(stream.cache)
        stream = Stream(cache_of(caches, 0, 1 + len(places)), keep=True)
        made = self.encoder.coarse(stitch(parts).permute(0, 2, 3, 4, 1).contiguous(), stream)
        return made, (stream.cache, *kept)

    def _decode_tiles(self, latents: Tensor, places: Places, tile: int, caches: Caches | None) -> tuple[Tensor, Caches]:
        """(b, f', h', w', c) to video, as `_encode_tiles`."""
        stream = Stream(cache_of(caches, 0, 1 + len(places)), keep=True)
        whole = self.decoder.coarse(latents, stream)
        s, scale = self.config.spatial_stride, self._scale(self.decoder)
        parts, kept = [], [stream.cache]
        for index, ((y, y0, y1), (x, x0, x1)) in enumerate(places, start=1):
            stream = Stream(cache_of(caches, index, 1 + len(places)), keep=True)
            seen = whole[:, :, y0 * scale : y1 * scale, x0 * scale : x1 * scale].contiguous()
            parts.append((y, inside(self.decoder.fine(seen, stream), (y - y0) * s, (x - x0) * s, tile * s)))
            kept.append(stream.cache)
        return stitch(parts), tuple(kept)

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

    def _video_parts(self, video: Tensor, pixels: int, starts: bool) -> list[Tensor]:
        frames = self._part_frames(video, pixels // self.config.spatial_stride**2)
        step = frames * self.config.temporal_stride
        first = self.num_frames(frames) if starts else step
        return [video[:, :, max(0, at) : at + step] for at in range(first - step, video.shape[2], step)]

    def _scale(self, part: Encoder | Decoder) -> int:
        """Pixels along a side, where its fine resolutions meet the others, of a latent pixel."""
        inner = len(self.config.temporal) - part.levels
        return 2 ** (inner if isinstance(part, Encoder) else inner + 1)

    def _reach(self, part: Encoder | Decoder) -> int:
        """Latent pixels around a tile that its inside sees."""
        pixel = self.config.spatial_stride // self.config.patch if isinstance(part, Encoder) else self._scale(part)
        return -(-part.reach() // pixel)


def in_parts(network: nn.Module, parts: Sequence[Tensor], stream: Stream) -> list[Tensor]:
    """What the network makes of each of the parts, which follow each other in time."""
    if len(parts) > 1 and not stream.keeps:
        stream = Stream(None, keep=True)  # only whole videos are not kept
    made = []
    for index, part in enumerate(parts):
        if index:
            stream.advance()
        made.append(network(part, stream))
    return made


def inside(x: Tensor, top: int, left: int, side: int) -> Tensor:
    """A tile (b, c, f, h, w) without its halo; cloned, or the halos would be held until all is stitched."""
    return x[..., top : top + side, left : left + side].clone()
