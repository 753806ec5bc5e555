"""What attention attends to: keys and values, what hides some of them, and processes that share them."""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask

from video_gen.model.runs import Runs

Bias = Tensor | Runs | BlockMask | None
"""What hides keys, one of these; a bias or block mask is None where nothing is hidden."""


class KeyValue(NamedTuple):
    """Keys (normalised, not rotated) and values, each `(b, heads, f, s, head_dim)`; text has f = 1."""

    k: Tensor
    v: Tensor

    def frames(self, pieces: tuple[slice, ...]) -> "KeyValue":
        if len(pieces) == 1:
            return KeyValue(self.k[:, :, pieces[0]], self.v[:, :, pieces[0]])
        return KeyValue(*(torch.cat([x[:, :, p] for p in pieces], dim=2) for x in self))

    def append(self, other: "KeyValue") -> "KeyValue":
        return KeyValue(torch.cat([self.k, other.k], dim=2), torch.cat([self.v, other.v], dim=2))


class Context(Protocol):
    """Processes that share the tokens of the same samples. Each holds some places of every frame; how they attend over the
    places of all is theirs: see `training.context`."""

    def part(self, x: Tensor, axis: int) -> Tensor:
        """This process's equal share of what all of them hold."""
        ...

    def gather(self, x: Tensor, axis: int) -> Tensor:
        """All shares along `axis`, on every process."""
        ...

    @property
    def has_all_keys(self) -> bool:
        """Whether a process attends over all keys that its queries see at once, in place of one share after another."""
        ...

    def attended(self, table: Tensor) -> Tensor:
        """Of a table (..., places, n) those places for which this process attends."""
        ...

    def enter(self, q: Tensor, own: KeyValue) -> tuple[Tensor, KeyValue]:
        """From what a process projects, (b, heads, f, s, head_dim) for its places, to that with which it attends."""
        ...

    def leave(self, mixed: Tensor) -> Tensor:
        """The way back, for the result."""
        ...

    def text(self, text: KeyValue) -> KeyValue:
        """Of the text's keys and values, which every process has, those that it needs."""
        ...

    def attend(self, q: Tensor, k: Tensor, v: Tensor, bias: Bias, words: int, places_bias: Bias) -> Tensor:
        """`attend` over the places of all. `words` keys in front are text; `places_bias`: `bias` without them."""
        ...
