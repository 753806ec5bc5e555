"""What a frame takes over from the one before it: places that stay, places that move, and motion that goes on.

The network says of each place how much of it is copied and from where; what it makes itself is for the rest. So what stands still
is kept exactly, however long a video is.
"""

from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from video_gen.errors import ShapeError
from video_gen.model.keys import Context
from video_gen.model.layers import patchify, unpatchify
from video_gen.model.spans import starts
from video_gen.model.transformer_config import TransformerConfig
from video_gen.model.warp import Warp

COPIED = 2.0
"""Of a place of the frame before, as a logit: when training begins most of it stays, and what is made can be felt."""
INERTIA = 0.8
"""Of what moved goes on when training begins."""
CALM, CARRIED = 1.0, 4.0
"""With inertia, when training begins: by how much less change, as a logarithm, makes more of a place stay, as a logit; and that of
a place in which hardly anything changed."""
STRETCH = 1.1
"""The share that is copied reaches 1 at a finite logit (as gates of Louizos et al. 2018 do, arXiv:1712.01312): what stands still is
copied exactly, however often."""


class Before(NamedTuple):
    """For each frame that is made the last one before its block, (b, c, f, h, w), and how that differs from the one before it,
    zeros where there is none."""

    frames: Tensor
    change: Tensor

    @classmethod
    def of_history(cls, latest: Tensor, block: Tensor) -> Self:
        """Before the block (b, c, f, h, w): `latest` are history's last frame, or its last two."""
        change = latest.diff(dim=2) if latest.shape[2] > 1 else torch.zeros_like(latest)
        return cls(latest[:, :, -1:].expand_as(block), change.expand_as(block))

    @classmethod
    def of_clip(cls, clean: Tensor, blocks: tuple[int, ...]) -> Self:
        """Before the blocks of a clip (b, c, f, h, w); zeros for the first."""
        last = F.pad(clean, (0, 0, 0, 0, 1, 0))[:, :, :-1]  # before each frame
        change = torch.cat([torch.zeros_like(clean[:, :, :2]), clean[:, :, 1:-1] - clean[:, :, :-2]], dim=2)
        return cls(last[:, :, starts(blocks)], change[:, :, starts(blocks)])


class Places(NamedTuple):
    """Which frames are made, and of which of their places this process has the tokens."""

    blocks: tuple[int, ...]
    first: int
    """Frames before the first block."""
    height: int
    """In patches."""
    visible: Tensor | None
    """(b,), False where a sample sees no history; None = all do."""
    context: Context | None

    def starts(self) -> list[int]:
        """For each frame where in the video its block begins."""
        return [self.first + start for start in starts(self.blocks)]

    def own(self, patches: Tensor) -> Tensor:
        """(b, f, s, n) of all places to those of this process."""
        return patches if self.context is None else self.context.part(patches, 2)

    def shown(self, patches: Tensor) -> Tensor:
        """Zeros where a sample sees no history."""
        return patches if self.visible is None else patches * self.visible[:, None, None, None]


@dataclass(frozen=True)
class Carried:
    """What is known of the frames before, before the network runs."""

    frames: Tensor
    """(b, c, f, h, w)."""
    patches: Tensor
    """Of them, (b, f, s, n), zeros where history is not visible."""
    seen: Tensor | None
    """With inertia: how they came from those before them, see `Warp.seen`."""
    calm: Tensor | float
    """With inertia: how still each place is, as a logit to stay."""
    places: Places


class Carry(nn.Module):
    """Of a model with `previous`; with `change`, `warp` and `inertia` as its configuration says.

    Raises: ShapeError if pixels are to be moved, and the VAE's strides are not known.
    """

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.config = config
        width, cells = config.width, config.patch_size**2
        patch = config.latent_channels * cells
        self.embed_frame = nn.Linear(patch, width, bias=False)
        self.embed_change = nn.Linear(patch, width, bias=False) if config.change else None
        self.copied = nn.Linear(width, cells)
        self.embed_motion = nn.Linear(4 * cells, width, bias=False) if config.inertia else None
        self.calm = nn.Linear(cells, cells, bias=False) if config.inertia else None
        self.warp, self.flow = None, None
        if config.warp:
            if config.strides is None:
                raise ShapeError("transformer.warp moves pixels, and strides is None; give those of the VAE")
            self.warp = Warp(config.latent_channels, config.strides)
            self.flow = nn.Linear(width, (1 + 2 * config.strides[0] + config.inertia) * cells)

    def initialise(self) -> None:
        """What the network says when training begins, whatever it sees."""
        nn.init.zeros_(self.copied.weight)
        # with a warp less: it stays without a flow, too, and more that is copied would hide the motion
        nn.init.constant_(self.copied.bias, COPIED if self.warp is None else CARRIED if self.config.inertia else 0.0)
        if self.flow is not None:
            nn.init.zeros_(self.flow.weight)
        if self.flow is not None and self.config.inertia:
            nn.init.constant_(self.flow.bias[-(self.config.patch_size**2) :], INERTIA)
        if self.calm is not None:
            with torch.no_grad():
                nn.init.eye_(self.calm.weight).mul_(-CALM)

    def embed(self, x: Tensor, before: Before, places: Places) -> tuple[Tensor, Carried]:
        """Tokens (b, f, s, d) that see what was before, too."""
        held = self._patches(before.frames, places)
        x = x + self.embed_frame(held)
        if self.embed_change is not None:
            x = x + self.embed_change(self._patches(before.change, places))
        if self.embed_motion is None or self.calm is None:
            return x, Carried(before.frames, held, None, 0.0, places)
        seen, told = self._seen(before, places)
        calm = self.calm(self._patches(told[:, 3:], places)).float()
        return x + self.embed_motion(self._patches(told, places)), Carried(before.frames, held, seen, calm, places)

    def forward(self, patches: Tensor, x: Tensor, carried: Carried) -> Tensor:
        """What the network made, (b, f, s, n), and of each place as much of the frame before as its last tokens `x` say."""
        patches, stays = patches.float(), carried.patches.float()
        there = self._there(carried.places, x.device)
        if self.warp is not None:
            moved, onward = self._moved(x, carried)
            patches = patches + there * moved
            stays = stays if onward is None else stays + there * onward
        share = there * (STRETCH * (self.copied(x).float() + carried.calm).sigmoid()).clamp(max=1)
        return torch.lerp(patches, stays, share.repeat(1, 1, 1, self.config.latent_channels))

    def _patches(self, frames: Tensor, places: Places) -> Tensor:
        return places.shown(places.own(patchify(frames, self.config.patch_size)))

    def _seen(self, before: Before, places: Places) -> tuple[Tensor, Tensor]:
        """How the frames before came from those before them, and what tokens hold of it: `Warp.seen`."""
        assert self.warp is not None
        with torch.autocast(before.frames.device.type, enabled=False):
            at = places.starts()
            now = self.warp.shown(before.frames, [n == 1 for n in at])
            then = self.warp.shown(before.frames.float() - before.change.float(), [n in (1, 2) for n in at])
            seen, told = self.warp.seen(now, then)
            told[:, 3] *= told.new_tensor([n > 1 for n in at])[:, None, None]  # of one frame nobody can tell
        return seen, told.to(before.frames.dtype)

    def _moved(self, x: Tensor, carried: Carried) -> tuple[Tensor, Tensor | None]:
        """The frames before as the tokens say that they move, and as much of each place as they say; and by what they change if
        they go on as they were seen to move: patches (b, f, s, n)."""
        assert self.warp is not None and self.flow is not None
        places, seen = carried.places, carried.seen
        told = self.flow(x).float()
        told = told if places.context is None else places.context.gather(told, 2)
        with torch.autocast(x.device.type, enabled=False):  # pictures, and places to less than a pixel
            told = unpatchify(told, self.config.patch_size, places.height).movedim(1, -1)
            much, flow, share = told.split([1, 2 * self.warp.frames, told.shape[-1] - 1 - 2 * self.warp.frames], dim=-1)
            pixels = self.warp.shown(carried.frames, [start == 1 for start in places.starts()])
            frames = [self.warp(pixels, flow, seen, share) * (1 + much).movedim(-1, 1)]
            if seen is not None:
                still = torch.zeros_like(flow)
                frames.append(self.warp(pixels, still, seen, share) - self.warp(pixels, still))
            patches = [places.own(patchify(each, self.config.patch_size)) for each in frames]
        return patches[0], patches[1] if seen is not None else None

    @staticmethod
    def _there(places: Places, device: torch.device) -> Tensor:
        """(1 or b, f, 1, 1): 1 where there is a frame before the block, else 0."""
        there = torch.ones(1, sum(places.blocks), 1, 1, device=device)
        if not places.first:
            there[:, : places.blocks[0]] = 0
        return places.shown(there)
