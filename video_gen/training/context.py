"""How the processes of a context, which share the tokens of the same samples, attend over all of them.

Each holds an equal share of the places of every frame. Gradients are averaged over all processes (FSDP2), so what is computed
on each (the text, the loss) must be a true derivative there: `gather` hands every process everything, and its backward adds
up what each did with it; then gradients are those of the sum of all processes' losses, and their mean that of the mean loss.
"""

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from video_gen.model.attention import attend
from video_gen.model.keys import Bias, Context, KeyValue
from video_gen.model.ring import ring_attend


@dataclass(frozen=True)
class Group:
    """The processes of one context, and which of them this is."""

    group: dist.ProcessGroup
    rank: int
    size: int

    def context(self, heads: int) -> Context:
        """Ulysses where the heads can be dealt out, which moves least, else a ring."""
        kind = Ring if heads % self.size else Ulysses
        return kind(self.group, self.rank, self.size)


class _Shares(Group):
    """What both have of a `model.attention.Context`."""

    def part(self, x: Tensor, axis: int) -> Tensor:
        return x.chunk(self.size, axis)[self.rank]

    def gather(self, x: Tensor, axis: int) -> Tensor:
        everything = x[None].expand(self.size, *x.shape)
        return self.exchange(everything, split=0, join=axis + 1)[0]

    def exchange(self, x: Tensor, split: int, join: int) -> Tensor:
        """Deal out axis `split` in equal parts, and join what is dealt to this process along axis `join`."""
        from torch.distributed._functional_collectives import all_to_all_single_autograd

        dealt = torch.stack(x.chunk(self.size, split))
        received = all_to_all_single_autograd(dealt, None, None, self.group)  # type: ignore[arg-type]  # None = equal
        return torch.cat(received.unbind(0), join)


class Ulysses(_Shares):
    """All places for some of the heads, by an all-to-all before attention and one after it.

    Source: DeepSpeed Ulysses, arXiv:2309.14509, section 3.
    """

    has_all_keys = True

    def attended(self, table: Tensor) -> Tensor:
        return table

    def enter(self, q: Tensor, own: KeyValue) -> tuple[Tensor, KeyValue]:
        q, k, v = self.exchange(torch.stack([q, *own]), split=2, join=4).unbind(0)
        return q, KeyValue(k, v)

    def leave(self, mixed: Tensor) -> Tensor:
        return self.exchange(mixed, split=3, join=1)

    def text(self, text: KeyValue) -> KeyValue:
        return KeyValue(*(self.part(x, 1) for x in text))

    def attend(self, q: Tensor, k: Tensor, v: Tensor, bias: Bias, words: int, places_bias: Bias) -> Tensor:
        return attend(q, k, v, bias)


class Ring(_Shares):
    """All heads for this process's places, while everybody's keys and values go round; for heads that cannot be dealt out.

    Source: Ring Attention, arXiv:2310.01889.
    """

    has_all_keys = False

    def attended(self, table: Tensor) -> Tensor:
        return self.part(table, -2)

    def enter(self, q: Tensor, own: KeyValue) -> tuple[Tensor, KeyValue]:
        return q, own

    def leave(self, mixed: Tensor) -> Tensor:
        return mixed

    def text(self, text: KeyValue) -> KeyValue:
        return text

    def attend(self, q: Tensor, k: Tensor, v: Tensor, bias: Bias, words: int, places_bias: Bias) -> Tensor:
        return ring_attend(q, k, v, bias, words, places_bias, self._turn, self.size)

    def _turn(self, x: Tensor) -> Tensor:
        """To the next process, from the one before; its backward turns gradients the other way."""
        from torch.distributed._functional_collectives import all_to_all_single_autograd

        sent, received = ([0] * self.size for _ in range(2))
        sent[(self.rank + 1) % self.size] = received[self.rank - 1] = x.numel()
        came = all_to_all_single_autograd(x.flatten(), received, sent, self.group)  # type: ignore[arg-type]
        return came.view(x.shape)
