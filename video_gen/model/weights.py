"""How the weights of a model's layers are kept: float32, bfloat16, or eight bits with a scale for each output.

Only the matrices of linear layers change, which are nearly all of a model. Norms, modulation, biases and embeddings stay in
float32. Under autocast to bfloat16 a product casts its weights anyway, so that `bf16` gives what `fp32` gives, bit for bit.
Eight bits are for weights that do not learn: activations stay as they are, and a gradient goes through to what lies before.

Own and tiny, since torchao (0.18) leaves autocast out: its eight-bit layers then work in float32; and they cannot be saved.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from video_gen.errors import ConfigError
from video_gen.model.transformer_config import Weights

STORED = {"int8": torch.int8, "fp8": torch.float8_e4m3fn}
BESIDE = ("lora_A", "lora_B")
"""Layers of an adapter (model/lora.py), which stay as they are."""
LARGEST = {torch.int8: 127.0, torch.float8_e4m3fn: 448.0}
"""What the largest weight of an output becomes."""


@contextmanager
def weightless() -> Iterator[None]:
    """Inside, modules are made on the device "meta": of sizes, without values."""
    with torch.device("meta"), _Unfilled():
        yield


class _Unfilled(TorchFunctionMode):
    """Leaves out the draw of first values, which on "meta" does nothing but import torch's compiler, for 1.5 seconds."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        return kwargs["tensor"] if func is nn.init.normal_ else func(*args, **kwargs)


class EightBitLinear(nn.Module):
    """A linear layer that does not learn, of eight-bit weights: `weight[i, j] * scale[i]` is the matrix, made at each use.

    Its result, in the type of autocast or of its input, has a gradient for the input alone.
    """

    weight: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, scale: Tensor, bias: Tensor | None):
        super().__init__()
        self.register_buffer("weight", weight)  # (out, in)
        self.register_buffer("scale", scale)  # (out, 1) float32
        self.register_buffer("bias", bias)
        self.out_features, self.in_features = weight.shape

    @classmethod
    def of(cls, linear: nn.Linear, kind: Weights) -> "EightBitLinear":
        """The layer with its weights rounded; on the device "meta", too."""
        weight = linear.weight.detach()
        if weight.is_meta:
            rounded, scale = torch.empty_like(weight, dtype=STORED[kind]), weight.new_empty(len(weight), 1)
        else:
            rounded, scale = rounded_to(weight, STORED[kind])
        return cls(rounded, scale, None if linear.bias is None else linear.bias.detach())

    def matrix(self, dtype: torch.dtype) -> Tensor:
        """(out, in) what it multiplies by."""
        return made_of(self.weight, self.scale, dtype)

    def forward(self, x: Tensor) -> Tensor:
        device = x.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
        return _Product.apply(x.to(dtype), self.weight, self.scale, self.bias)  # type: ignore[return-value]

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, {self.weight.dtype}"


class _Product(torch.autograd.Function):
    """Written out, since autograd would keep the matrix of sixteen bits for the backward of each layer."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight, scale)
        return F.linear(x, made_of(weight, scale, x.dtype), None if bias is None else bias.to(x.dtype))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        weight, scale = ctx.saved_tensors
        return gradient @ made_of(weight, scale, gradient.dtype), None, None, None


def made_of(weight: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """The matrix (out, in) of eight-bit weights."""
    return weight.to(dtype).mul_(scale.to(dtype))


def rounded_to(weight: Tensor, stored: torch.dtype) -> tuple[Tensor, Tensor]:
    """(out, in) in eight bits, and the scale of each output, (out, 1) float32 of values that bfloat16 has, too: so a matrix
    made in bfloat16 has one rounding and no more."""
    most = LARGEST[stored]
    scale = (weight.float().abs().amax(1, keepdim=True) / most).bfloat16().float().clamp(min=1e-30)
    scaled = (weight.float() / scale).clamp(-most, most)
    return (scaled.round() if stored == torch.int8 else scaled).to(stored), scale


def keep_in(model: nn.Module, kind: Weights, frozen: bool = False) -> None:
    """Keep the linear layers of a model's `blocks`, or of any other module's, in `kind`. Parts on "meta" stay there.

    Args: frozen: only those that do not learn; so the base of a LoRA, and not what is trained beside it.
    Raises: ConfigError if they are in other eight bits already, which say less than was there.
    """
    root = getattr(model, "blocks", model)
    for parent in list(root.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, EightBitLinear) and layer.weight.dtype != STORED.get(kind):
                raise ConfigError(
                    f"weights {kind}: they are in eight bits already; load the model again, with this one"
                )
            if (
                kind == "fp32"
                or name in BESIDE
                or not isinstance(layer, nn.Linear)
                or (frozen and layer.weight.requires_grad)
            ):
                continue
            if kind == "bf16":
                layer.weight = nn.Parameter(layer.weight.detach().bfloat16(), layer.weight.requires_grad)
            else:
                setattr(parent, name, EightBitLinear.of(layer, kind))


def fill(model: nn.Module, tensors: Iterable[tuple[str, Tensor]], device: str | torch.device = "cpu") -> None:
    """Give a model that is on the device "meta" its weights, in the types that it has them in (`keep_in`), one tensor after
    the other: none but the one at hand is there twice, or in float32 where that is not asked for.

    Args: tensors: all of its state by name, as a model in float32 has it.
    Raises: ConfigError for a name that is missing, or is none of the model's.
    """
    left = set(model.state_dict())
    for name, tensor in tensors:
        path, _, last = name.rpartition(".")
        if name not in left:
            raise ConfigError(f"weights: {name} is none of this model's; take the weights of the same model")
        left.remove(name)
        part = model.get_submodule(path)
        if isinstance(part, EightBitLinear) and last == "weight":
            rounded, part.scale = (x.to(device) for x in rounded_to(tensor, part.weight.dtype))
            part.weight = rounded
            left.remove(f"{path}.scale")
            continue
        empty = getattr(part, last)
        filled = torch.empty_strided(empty.size(), empty.stride(), dtype=empty.dtype, device=device).copy_(tensor)
        if isinstance(empty, nn.Parameter):
            setattr(part, last, nn.Parameter(filled, empty.requires_grad))
        else:
            setattr(part, last, filled)
    if left:
        raise ConfigError(f"weights: {min(left)} is missing; take the weights of the same model, whole")


def with_blocks(model: nn.Module) -> list[nn.Module]:
    """The parts of a model that have `blocks`: itself, or its experts."""
    return [part for part in model.modules() if isinstance(getattr(part, "blocks", None), nn.ModuleList)]


def frozen(model: nn.Module) -> set[str]:
    """Names, of a model's state, of what does not learn: frozen parameters, and layers in eight bits."""
    found = {name for name, p in model.named_parameters() if not p.requires_grad}
    for path, part in model.named_modules():
        if isinstance(part, EightBitLinear):
            found |= {f"{path}.{name}" for name in part.state_dict()}
    return found


def in_eight_bits(model: nn.Module) -> bool:
    """Whether some of its layers are: then it can be saved no more."""
    return any(isinstance(part, EightBitLinear) for part in model.modules())
