"""LoRA: beside a frozen linear map W a product of two small matrices is trained, W + scale * B A (Hu et al. 2021,
arXiv:2106.09685). For any model here, since it asks only for linear layers by name.

A `Change` says how one parameter differs; a LoRA, in memory, is changes by the parameter's name. `lora_files.py` reads and
writes them.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from video_gen.errors import ConfigError, DataError
from video_gen.model.lora_config import LoraConfig
from video_gen.model.weights import EightBitLinear, keep_in

LARGEST = torch.finfo(torch.float32).max / 2
"""What no weight may be changed by more than."""
NAMED = 5
"""How many names a message gives before it counts."""


@dataclass(frozen=True)
class Change:
    """How a parameter differs from the base: by a product of two matrices, or by as many numbers as it has."""

    up: Tensor
    """(out, rank); or, where `down` is None, the whole difference."""
    down: Tensor | None = None
    """(rank, in), of a convolution (rank, in, *kernel)."""
    scale: float = 1.0

    @property
    def rank(self) -> int:
        return 0 if self.down is None else self.down.shape[0]

    def fits(self, shape: torch.Size) -> bool:
        """Whether it is one of a parameter of this shape. A convolution's may be given as a matrix, and the other way round."""
        if self.down is None:
            return self.up.shape == shape
        up, down = self.up.flatten(1), self.down.flatten(1)
        return len(shape) > 1 and (up.shape[0], down.shape[1], up.shape[1]) == (
            shape[0], shape[1:].numel(), down.shape[0],
        )  # fmt: skip

    def most(self) -> float:
        """No number of the difference, nor on the way to it, is larger."""
        largest = max(1.0, abs(self.scale)) * float(self.up.abs().max())
        return largest if self.down is None else largest * float(self.down.abs().max()) * self.rank

    def whole(self, shape: torch.Size) -> Tensor:
        """The difference itself, in float32."""
        if self.down is None:
            return self.scale * self.up.float()
        with torch.autocast(self.up.device.type, enabled=False):
            return (self.scale * (self.up.flatten(1).float() @ self.down.flatten(1).float())).view(shape)


Changes = dict[str, Change]
"""By the parameter's name."""


class LoraLinear(nn.Module):
    """`base(x) + scale * B(A(x))`, of which A and B are trained. B starts at zero: at first nothing changes.

    base: any module of `in_features` and `out_features`, so that it may hold its weights as it likes.
    """

    kept: Tensor

    def __init__(self, base: Any, rank: int, scale: float = 1.0, dropout: float = 0.0):
        super().__init__()
        self.base, self.scale, self.dropout = base, scale, dropout
        device = base.weight.device
        self.lora_A = nn.Linear(base.in_features, rank, bias=False, device=device)
        self.lora_B = nn.Linear(rank, base.out_features, bias=False, device=device)
        self.register_buffer("kept", torch.ones(rank, device=device), persistent=False)

    @property
    def weight(self) -> Tensor:
        return self.base.weight

    def begin(self, generator: torch.Generator) -> None:
        """The values with which training starts."""
        if not self.weight.is_meta:
            nn.init.normal_(self.lora_A.weight, std=self.lora_A.in_features**-0.5, generator=generator)
        nn.init.zeros_(self.lora_B.weight)

    def forward(self, x: Tensor) -> Tensor:
        narrow = self.lora_A(x) * self.scale  # (..., rank)
        if self.training and self.dropout:
            narrow = narrow * self.kept.to(narrow.dtype)
        return self.base(x) + self.lora_B(narrow)


# -------------------- training


def attach(model: nn.Module, config: LoraConfig, seed: int) -> None:
    """Freeze a model and put adapters beside the linear layers that `config.targets` name.

    Its own weights are kept as `config.base` says from then on (model/weights.py).

    Args: seed: of the first values of A.
    Raises: ConfigError if a pattern matches nothing.
    """
    model.requires_grad_(False)
    keep_in(model, config.base)
    generator = torch.Generator().manual_seed(seed)
    for name in targets(model, config.targets):
        layer = LoraLinear(model.get_submodule(name), config.rank, config.scale, config.dropout)
        layer.begin(generator)
        _put(model, name, layer)


def _put(model: nn.Module, name: str, layer: nn.Module) -> None:
    owner, _, last = name.rpartition(".")
    setattr(model.get_submodule(owner), last, layer)


def targets(model: nn.Module, patterns: Sequence[str]) -> list[str]:
    """The linear layers whose names match one of the patterns. Raises: ConfigError for a pattern that matches none."""
    there = [name for name, module in model.named_modules() if isinstance(module, nn.Linear | EightBitLinear)]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in there):
            raise ConfigError(f"lora.targets: '{pattern}' is the name of no linear layer; there are {families(there)}")
    return [name for name in there if any(fnmatchcase(name, pattern) for pattern in patterns)]


def families(names: Iterable[str]) -> str:
    """Names with * for the numbers of blocks, and how many each stands for: "blocks.*.out (6), unembed"."""
    counts = Counter(re.sub(r"(^|\.)blocks\.\d+\.", r"\1blocks.*.", name) for name in names)
    return ", ".join(name if "*" not in name else f"{name} ({count})" for name, count in counts.items())


def adapters(model: nn.Module) -> dict[str, LoraLinear]:
    return {name: module for name, module in model.named_modules() if isinstance(module, LoraLinear)}


def draw_dropout(model: nn.Module, generator: torch.Generator) -> None:
    """Choose which inner features of each adapter count in this training step; those that do are scaled up for the others.

    One draw for all samples of a step, so that it is the same however these are dealt out to micro-batches and processes, and
    when a block is computed again for its gradient.
    """
    layers = [layer for layer in adapters(model).values() if layer.dropout]
    if not layers:
        return
    drawn = torch.rand(sum(layer.kept.numel() for layer in layers), generator=generator).to(layers[0].kept.device)
    for layer, part in zip(layers, drawn.split([layer.kept.numel() for layer in layers])):
        layer.kept.copy_((part >= layer.dropout) / (1 - layer.dropout))


def learned(model: nn.Module) -> Changes:
    """What the adapters of a model have learned."""
    return {
        f"{name}.weight": Change(layer.lora_B.weight.detach(), layer.lora_A.weight.detach(), layer.scale)
        for name, layer in adapters(model).items()
    }


@torch.no_grad()
def fill(model: nn.Module, changes: Changes, source: object) -> None:
    """Have the adapters of a model begin with what was learned before. Raises: ConfigError if these are others."""
    own = {f"{name}.weight": layer for name, layer in adapters(model).items()}
    if other := [*(changes.keys() - own.keys()), *(own.keys() - changes.keys())]:
        raise ConfigError(
            f"lora.start: {source} is not for the layers that lora.targets names: {named(sorted(other))} is in one of them "
            "alone; give the targets that it was trained with"
        )
    for name, layer in own.items():
        change = changes[name]
        if change.down is None or change.rank != layer.lora_A.out_features:
            kind = f"of rank {change.rank}" if change.rank else "a whole difference"
            raise ConfigError(f"lora.start: {source}: {name} is {kind}, and lora.rank is {layer.lora_A.out_features}")
        layer.lora_A.weight.copy_(change.down.flatten(1))
        layer.lora_B.weight.copy_(change.up.flatten(1) * (change.scale / layer.scale))


# -------------------- use


def own_names(model: nn.Module) -> list[str]:
    """The parameters of a model by the names they have without adapters."""
    return [name.replace(".base.", ".") for name in model.state_dict() if ".lora_" not in name]


@torch.no_grad()
def merge(model: nn.Module, changes: Mapping[str, Change], scale: float, source: object) -> None:
    """Add changes to a model's own weights: from then on they cost nothing. Beside layers in eight bits they stay as they are.

    Args: changes: by `own_names` of the model.
    Raises: DataError if the shapes are another model's, or the sum would not be finite; ConfigError for what cannot be added to
        eight bits.
    """
    state = {name.replace(".base.", "."): tensor for name, tensor in model.state_dict().items()}
    if wrong := [name for name, change in changes.items() if not change.fits(state[name].shape)]:
        change, shape = changes[wrong[0]], tuple(state[wrong[0]].shape)
        have = tuple(change.up.shape) if change.down is None else (len(change.up), *change.down.shape[1:])
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise DataError(
            f"{source}: is of a model of other sizes: {wrong[0]} is {shape} in this model and {have} there{more}"
        )
    for name, change in changes.items():  # before any is added, since half of them would be no model
        if not max(1.0, abs(scale)) * change.most() <= LARGEST:
            raise DataError(
                f"{source}: with scale {scale:g} it changes {name} by more than a weight can be; give a smaller scale, or take "
                "another LoRA"
            )
    small = [name for name in changes if not state[name].is_floating_point() or state[name].element_size() < 2]
    if whole := [name for name in small if changes[name].down is None]:
        raise ConfigError(
            f"{source}: {whole[0]} differs as a whole, and is kept in eight bits; load the model with weights bf16 or fp32"
        )
    for name, change in changes.items():
        if name in small:
            put_beside(model, name.removesuffix(".weight"), change, scale)
        else:
            tensor = state[name]
            tensor.copy_(tensor.float() + scale * change.whole(tensor.shape).to(tensor.device))


def put_beside(model: nn.Module, name: str, change: Change, scale: float) -> None:
    """Add a change to a layer's output; what is there already becomes a part of the wider one."""
    assert change.down is not None
    old: Any = model.get_submodule(name)
    ups, downs = [change.up.flatten(1).float() * (scale * change.scale)], [change.down.flatten(1).float()]
    if isinstance(old, LoraLinear):
        ups, downs = [old.lora_B.weight * old.scale, *ups], [old.lora_A.weight, *downs]
        old = old.base
    device = old.weight.device
    layer = LoraLinear(old, sum(map(len, downs))).requires_grad_(False).eval()
    layer.lora_A.weight.copy_(torch.cat([down.to(device) for down in downs]))
    layer.lora_B.weight.copy_(torch.cat([up.to(device) for up in ups], dim=1))
    _put(model, name, layer)


def named(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
