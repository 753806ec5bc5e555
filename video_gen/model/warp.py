"""The frame before, moved as its pixels move: shown by a linear map, warped by a flow, and made a latent frame again."""

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

RIDGE = 1e-4
"""Of the mean square of what is fitted from: directions that hardly occur get no weight."""


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

    def forward(self, frames: Tensor, begins: Sequence[bool], flow: Tensor) -> Tensor:
        """
        Args:
            frames: (b, c, f, h, w) latents of the frame before each.
            begins: for each of them whether it is its video's first.
            flow: (b, f, h, w, 2 * temporal stride), for each pixel frame that follows how far down and to the right lies what it
                shows, in latent pixels; bilinear between their centres. Beyond the border is its nearest pixel.
        Returns: (b, c, f, h, w).
        """
        b, _, f, h, w = frames.shape
        t, p = self.frames, self.side
        maps = torch.stack([self.get_buffer("begin" if first else "show") for first in begins]).float()
        patches = rearrange(frames.float(), "b c f h w -> f (b h w) c") @ maps[:, 1:] + maps[:, :1]
        pixels = rearrange(patches, "f (b h w) (c p q) -> (b f) c (h p) (w q)", b=b, h=h, p=p, q=p)
        grid = rearrange(flow.float(), "b f h w (t n) -> (b f t) h w n", n=2).flip(-1)  # right, down
        grid = between(w, p, grid) @ grid  # (b f t, h, w p, 2)
        grid = between(h, p, grid) @ grid.flatten(2)
        grid = grid.view(b * f, t * h * p, w * p, 2) * grid.new_tensor([2 / w, 2 / h])
        moved = F.grid_sample(pixels, grid + centres(t, h * p, w * p, grid), padding_mode="border", align_corners=False)
        patches = rearrange(moved, "(b f) c (t h p) (w q) -> b f h w (t c p q)", b=b, t=t, p=p, q=p)
        make = self.get_buffer("make").float()
        return (patches @ make[1:] + make[0]).movedim(-1, 1)

    def _patches(self, video: Tensor, stride: int) -> Tensor:
        p = self.side
        return rearrange(video, "b c (f t) (h p) (w q) -> b f h w (t c p q)", t=stride, p=p, q=p)


def between(count: int, times: int, like: Tensor) -> Tensor:
    """(count * times, count): linear interpolation between the centres of `count` cells, beyond the outer ones their own value."""
    cells = torch.arange(count, device=like.device, dtype=like.dtype)
    at = ((torch.arange(count * times, device=like.device, dtype=like.dtype) + 0.5) / times - 0.5).clamp(0, count - 1)
    return (1 - (at[:, None] - cells).abs()).clamp(min=0)


def centres(times: int, height: int, width: int, like: Tensor) -> Tensor:
    """(times * height, width, 2): where each pixel lies, right and down, of a picture that reaches from -1 to 1; `times` over."""
    y, x = ((2 * torch.arange(n, device=like.device, dtype=like.dtype) + 1) / n - 1 for n in (height, width))
    return torch.stack(torch.broadcast_tensors(x, y.repeat(times)[:, None]), dim=-1)
