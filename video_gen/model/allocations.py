"""What operations allocate, counted as they run: of real tensors, or of fake ones, which have shapes and no content."""

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class AllocationTracker(TorchDispatchMode):
    """Counts the bytes of all storages that operations inside made, or returned views of, and that are alive.

    Args: known: tensors that were there before and are not counted, though views of them are made; they must stay.
    """

    def __init__(self, known: Iterable[Tensor] = ()):
        super().__init__()
        self.bytes, self.peak = 0, 0
        self.known = {tensor.untyped_storage()._cdata for tensor in known}
        self.alive: dict[int, tuple[weakref.ref, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._see(leaf.untyped_storage())
        return result

    def _see(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self.alive or key in self.known:
            return
        self.alive[key] = (weakref.ref(storage, lambda _: self._forget(key)), size)
        self.bytes += size
        self.peak = max(self.peak, self.bytes)

    def _forget(self, key: int) -> None:
        self.bytes -= self.alive.pop(key)[1]


def materialise(module: nn.Module) -> None:
    """Parameters and buffers of the same shapes and strides on the fake CPU, in place of those on "meta"; shared ones once."""
    made: dict[Tensor, Tensor] = {}

    def empty(x: Tensor) -> Tensor:
        if x not in made:
            made[x] = torch.empty_strided(x.size(), x.stride(), dtype=x.dtype, device="cpu")
        return made[x]

    for part in module.modules():
        for name, p in list(part.named_parameters(recurse=False)):
            if not isinstance(made.get(p), nn.Parameter):
                made[p] = nn.Parameter(empty(p), p.requires_grad)
            setattr(part, name, made[p])
        for name, buffer in list(part.named_buffers(recurse=False)):
            part.register_buffer(name, empty(buffer))
