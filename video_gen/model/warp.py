"""The frame before, moved as its pixels move: shown by a linear map, warped by a flow, and made a latent frame again."""

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from video_gen.model.motion import motion, moved

RIDGE = 1e-4
"""Of the mean square of what is fitted from: directions that hardly occur get no weight."""
LEAST_CHANGE, NO_CHANGE = 1e-2, 1e-3
"""Of pixels in [-1, 1]: what a camera's noise makes in what stands still, and what cannot be told from none."""


class Warp(nn.Module):
    """Backward warping by a flow (Jaderberg et al. 2015, arXiv:1506.02025; for the next frame of a video Liu et al. 2017,
    arXiv:1702.02463).

    Latents do not move as pixels do: by half a latent pixel, they are others. So each latent pixel is shown as its patch of
    pixels, and the moved patches are made latents, by linear maps that are fitted to what the VAE makes of latents. They are
    buffers, as a VAE's linear path is: zero until `fit`, then kept with the weights.

    Args:
        channels: of latents; `strides`: latent frame and latent pixel, in frames and pixels.
    """

    def __init__(self, channels: int, strides: tuple[int, int]):
        super().__init__()
        self.frames, self.side = strides
        patch = 3 * self.side**2
        shapes = {"begin": (channels, patch), "show": (channels, patch), "make": (patch * self.frames, channels)}
        for name, (given, wanted) in shapes.items():
            self.register_buffer(name, torch.zeros(1 + given, wanted))

    @torch.no_grad()
    def fit(self, examples: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Least squares over latents (b, c, f, h, w) of whole videos and the videos (b, 3, frames, height, width) that the VAE
        makes of them; `begin` for a video's first frame, which it codes otherwise."""
        sums: dict[str, tuple[Tensor, Tensor]] = {}
        for latents, video in examples:
            z, later = latents.movedim(1, -1), self._patches(video[:, :, 1:], self.frames)
            last = later.unflatten(-1, (self.frames, -1))[..., -1, :]
            begun = self._patches(video[:, :, :1], 1)
            pairs = {"begin": (z[:, :1], begun), "show": (z[:, 1:], last), "make": (later, z[:, 1:])}
            for name, (given, wanted) in pairs.items():
                x, y = F.pad(given.flatten(0, 3).double(), (1, 0), value=1.0), wanted.flatten(0, 3).double()
                square, product = sums.get(name, (0, 0))
                sums[name] = square + x.T @ x, product + x.T @ y
        for name, (square, product) in sums.items():
            ridge = RIDGE * square.diagonal().mean() * torch.eye(len(square), dtype=square.dtype, device=square.device)
            self.get_buffer(name).copy_(torch.linalg.solve(square + ridge, product))

    def shown(self, frames: Tensor, begins: Sequence[bool]) -> Tensor:
        """Pixels of latents (b, c, f, h, w), those of the last of each one's pixel frames: (b, 3, f, height, width); `begins`: for
        each latent frame whether it is its video's first."""
        maps = torch.stack([self.get_buffer("begin" if first else "show") for first in begins]).float()
        b, _, _, h, _ = frames.shape
        patches = rearrange(frames.float(), "b c f h w -> f (b h w) c") @ maps[:, 1:] + maps[:, :1]
        return rearrange(patches, "f (b h w) (c p q) -> b c f (h p) (w q)", b=b, h=h, p=self.side, q=self.side)

    @torch.no_grad()
    def seen(self, now: Tensor, then: Tensor) -> tuple[Tensor, Tensor]:
        """How pixels (b, 3, f, height, width) came from those of one latent frame before.

        Returns: where they were, (b, f, height, width, 2), see `motion`; and of each latent pixel, (b, 4, f, h, w), its mean, what
            share of the change it leaves unexplained, and the logarithm of the most that changes there or beside it.
        """
        now, then = (x.transpose(1, 2) for x in (now, then))
        b = len(now)
        now, then = now.flatten(0, 1), then.flatten(0, 1)
        flow = motion(now, then)
        left, change = ((now - x).abs().mean(1, keepdim=True) for x in (moved(then, flow), then))
        means = F.avg_pool2d(torch.cat([flow.movedim(-1, 1), left, change], dim=1), self.side)
        change = means[:, 3:]
        near = F.max_pool2d(change, 3, 1, padding=1).clamp(min=NO_CHANGE) / LEAST_CHANGE
        told = torch.cat([means[:, :2], means[:, 2:3] / (change + LEAST_CHANGE), near.log()], dim=1)
        return flow.unflatten(0, (b, -1)), told.unflatten(0, (b, -1)).transpose(1, 2)

    def forward(self, pixels: Tensor, flow: Tensor, seen: Tensor | None = None, share: Tensor | None = None) -> Tensor:
        """
        Args:
            pixels: (b, 3, f, height, width) those of the frame before each, `shown`.
            flow: (b, f, h, w, 2 * temporal stride), for each pixel frame that follows how far down and to the right lies what it
                shows, in latent pixels; linear between their centres.
            seen: (b, f, height, width, 2) how far down and to the right it lay one latent frame before, in pixels; `share`:
                (b, f, h, w, 1), how much of that goes on.
        Returns: (b, c, f, h, w).
        """
        b, f, h, w, _ = flow.shape
        t, p = self.frames, self.side
        told = p * finer(rearrange(flow.float(), "b f h w (t n) -> (b f t) h w n", n=2), p)
        if seen is not None and share is not None:
            onward = (finer(share.float().flatten(0, 1), p) * seen.flatten(0, 1))[:, None]
            ahead = (torch.arange(t, device=flow.device) + 1.0) / t
            told = told + (onward * ahead[:, None, None, None]).flatten(0, 1)
        made = moved(pixels.transpose(1, 2).flatten(0, 1), told.view(b * f, t * h * p, w * p, 2))
        patches = rearrange(made, "(b f) c (t h p) (w q) -> b f h w (t c p q)", b=b, t=t, p=p, q=p)
        make = self.get_buffer("make").float()
        return (patches @ make[1:] + make[0]).movedim(-1, 1)

    def _patches(self, video: Tensor, stride: int) -> Tensor:
        p = self.side
        return rearrange(video, "b c (f t) (h p) (w q) -> b f h w (t c p q)", t=stride, p=p, q=p)


def finer(values: Tensor, times: int) -> Tensor:
    """(n, h, w, k) to `times` as many rows and columns."""
    h, w = values.shape[1:3]
    return (between(h, times, values) @ (between(w, times, values) @ values).flatten(2)).view(
        len(values), h * times, w * times, -1
    )


def between(count: int, times: int, like: Tensor) -> Tensor:
    """(count * times, count): linear interpolation between the centres of `count` cells, beyond the outer ones their own value."""
    cells = torch.arange(count, device=like.device, dtype=like.dtype)
    at = ((torch.arange(count * times, device=like.device, dtype=like.dtype) + 0.5) / times - 0.5).clamp(0, count - 1)
    return (1 - (at[:, None] - cells).abs()).clamp(min=0)
