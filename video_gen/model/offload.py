"""Blocks whose weights stay in the CPU's memory: each comes to the device as it is used, and the next one meanwhile.

A model's blocks are used in order, so while one computes the weights of the next are copied, from pinned memory and in a
stream of their own. Two blocks are on the device and no more, in two places that never move. The numbers are the same.

Only the matrices of linear layers travel, which are nearly all of a block. A layer says by a hook, before it computes, that
its block is wanted: so it does not matter which method of a block is called, or in which order, only how long it takes.
"""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from video_gen.errors import ConfigError
from video_gen.model.weights import EightBitLinear

ALIGNMENT = 256
"""Bytes; what kernels for matrices like best."""
LARGE = 2**18
"""Bytes from which a tensor is worth a copy."""


class Offload:
    """Keeps the blocks of a model on the CPU, and all else of it on the device, until it is closed. Not for two threads at once.

    For a gradient, to what lies before the blocks or is trained beside their layers, the forward pass is made within `saving()`;
    `checkpointing` may then be "off" or "full". ("selective" watches every operation, so that torch takes offence at the copies.)

    Args: model: has `blocks`, whose linear layers do not learn. `device`: "cpu" is one, too: for tests, and for plans.
    Raises: ConfigError if its layers learn, or there is none.
    """

    def __init__(self, model: nn.Module, device: str | torch.device):
        self.device = torch.device(device)
        self.blocks = [Held(block, self.device.type == "cuda") for block in model.blocks]  # type: ignore[union-attr]
        largest = max((len(block.bytes) for block in self.blocks), default=0)
        if not largest:
            raise ConfigError("offload: no block of this model has a linear layer that does not learn; leave it out")
        model.to(self.device)
        for block in self.blocks:
            block.come_home()
        self.places = torch.empty(2, largest, dtype=torch.uint8, device=self.device)
        self.stream = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None
        self.here: tuple[int | None, int | None] = (None, None)
        """Which block is at each place; the next one may be on its way."""
        self.used: int | None = None
        """The block that computes."""
        self.model: Any = model
        self.model.offload = self  # so that whoever would move or compile it can tell
        self.hooks = [
            layer.register_forward_pre_hook(lambda *_, index=index: self.want(index))
            for index, block in enumerate(self.blocks)
            for layer in block.layers
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the weights on the CPU, and what else there is of the model where it is."""
        for hook in self.hooks:
            hook.remove()
        for block in self.blocks:
            block.come_home()
        self.model.offload = None
        self.hooks, self.here, self.used = [], (None, None), None

    def want(self, index: int) -> None:
        """Have the weights of a block on the device, and send for those of the one that will follow."""
        if index == self.used:
            return
        if index not in self.here:
            self._fetch(index)
        if self.stream is not None:
            torch.cuda.current_stream(self.device).wait_stream(self.stream)
        if self.used is not None:
            self.blocks[self.used].come_home()
        self.blocks[index].be_at(self.places[self.here.index(index)])
        back = self.used is not None and self.used == (index + 1) % len(self.blocks) and len(self.blocks) > 2
        self.used = index
        following = (index + (-1 if back else 1)) % len(self.blocks)
        if following not in self.here:
            self._fetch(following)

    def saving(self, all_of_it: bool = False) -> saved_tensors_hooks:
        """A context, in which autograd notes which weights a backward pass will want, and does not keep them: their place is soon
        another block's. (Without it torch says in the backward that a saved tensor was modified in place.)

        Args: all_of_it: whatever else is kept, and is large, waits in the CPU's memory. With `checkpointing` "full" that is what
            each block begins with; without it, far more.
        """
        return saved_tensors_hooks(partial(self._note, all_of_it=all_of_it), self._noted)

    def _note(self, saved: Tensor, all_of_it: bool) -> "Tensor | Noted | Waiting":
        if saved.untyped_storage()._cdata != self.places.untyped_storage()._cdata:
            return self._waiting(saved) if all_of_it and saved.nbytes >= LARGE else saved
        place, offset = divmod(int(saved.storage_offset()) * saved.element_size(), self.places.shape[1])
        index = self.here[place]
        assert index is not None
        return Noted(index, offset, saved.dtype, saved.shape, saved.stride())

    def _waiting(self, saved: Tensor) -> "Waiting":
        # copies of one stream come after one another: so nobody waits for this one but the copy back
        kept = torch.empty_like(saved, device="cpu", pin_memory=self.stream is not None)
        return Waiting(kept.copy_(saved, non_blocking=True))

    def _noted(self, saved: "Tensor | Noted | Waiting") -> Tensor:
        if isinstance(saved, Waiting):
            return saved.kept.to(self.device, non_blocking=True)
        if isinstance(saved, Tensor):
            return saved
        self.want(saved.index)
        place = self.places[self.here.index(saved.index)].view(saved.dtype)
        return place.as_strided(
            saved.shape, saved.stride, place.storage_offset() + saved.offset // saved.dtype.itemsize
        )

    def _fetch(self, index: int) -> None:
        """Copy a block to the place where the one that computes is not."""
        place = 0 if self.used is None or self.here[1] == self.used else 1
        self.here = (index, self.here[1]) if place == 0 else (self.here[0], index)
        copying: Any = nullcontext()
        if self.stream is not None:
            self.stream.wait_stream(torch.cuda.current_stream(self.device))  # whoever was at that place has computed
            copying = torch.cuda.stream(self.stream)
        with copying:
            kept = self.blocks[index].bytes
            self.places[place, : len(kept)].copy_(kept, non_blocking=True)


class Noted(NamedTuple):
    """A matrix of a block, or a view of one."""

    index: int
    offset: int
    """Bytes, from the start of the block's."""
    dtype: torch.dtype
    shape: torch.Size
    stride: tuple[int, ...]


class Waiting(NamedTuple):
    """A copy in the CPU's memory."""

    kept: Tensor


class Held:
    """The matrices of a block as bytes one after the other in the CPU's memory, pinned for a GPU."""

    def __init__(self, block: nn.Module, pinned: bool):
        self.layers = list(layers_of(block))
        weights = [layer.weight.detach() for layer in self.layers]
        self.spans = list(spans(weights))
        self.shapes = [(weight.shape, weight.dtype) for weight in weights]
        self.bytes = torch.empty(self.spans[-1].stop if weights else 0, dtype=torch.uint8, pin_memory=pinned)
        for home, weight in zip(self._views(self.bytes), weights):
            home.copy_(weight)
        for layer in self.layers:
            put(layer, torch.empty(0))  # so that they are not moved to the device with what stays there

    def come_home(self) -> None:
        self.be_at(self.bytes)

    def be_at(self, place: Tensor) -> None:
        """Have the layers use the weights that are at a place: bytes, at least as many as there are."""
        for layer, weight in zip(self.layers, self._views(place)):
            put(layer, weight)

    def _views(self, place: Tensor) -> Iterator[Tensor]:
        for span, (shape, dtype) in zip(self.spans, self.shapes):
            yield place[span].view(dtype)[: shape.numel()].view(shape)


def layers_of(block: nn.Module) -> Iterator[nn.Linear | EightBitLinear]:
    """The linear layers that do not learn."""
    for layer in block.modules():
        if isinstance(layer, nn.Linear | EightBitLinear) and not layer.weight.requires_grad:
            yield layer


def spans(weights: Sequence[Tensor]) -> Iterator[slice]:
    """Where each tensor lies among the bytes of all, aligned."""
    start = 0
    for weight in weights:
        stop = start + -(-weight.nbytes // ALIGNMENT) * ALIGNMENT
        yield slice(start, stop)
        start = stop


def resident_bytes(model: nn.Module) -> int:
    """Bytes of a model's weights that are on the device where its blocks are offloaded; of one on "meta", too."""
    blocks: Any = model.blocks
    moving = [[layer.weight for layer in layers_of(block)] for block in blocks]
    everything = {x: x.nbytes for x in (*model.parameters(), *model.buffers())}
    away = sum(weight.nbytes for weights in moving for weight in weights)
    return sum(everything.values()) - away + 2 * max(list(spans(weights))[-1].stop for weights in moving)


def put(layer: nn.Linear | EightBitLinear, weight: Tensor) -> None:
    """Give a layer another tensor as its weight. What autograd has saved of the one before stays as it was."""
    if isinstance(layer, EightBitLinear):
        layer.weight = weight
    else:
        layer.weight = nn.Parameter(weight, requires_grad=False)
