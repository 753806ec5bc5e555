"""Activation checkpointing: forget a block's activations after the forward pass and compute them again in the backward."""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from video_gen.model import sliced  # noqa: F401, it makes an operation
from video_gen.model.transformer_config import Checkpointing

aten = torch.ops.aten
ATTENTION = {
    aten._scaled_dot_product_flash_attention.default,
    aten._scaled_dot_product_efficient_attention.default,
    aten._scaled_dot_product_cudnn_attention.default,
    aten._scaled_dot_product_flash_attention_for_cpu.default,
    torch.ops.higher_order.flex_attention,
    torch.ops.video_gen.sliced_attention.default,
}
"""Attention's cost grows with the square of the tokens, and a kernel's output is one of a block's twenty tensors of their
size: so `selective` keeps those. Plain products, used for few tokens, are computed again."""


def run(function: Callable[..., Any], arguments: tuple[Any, ...], kind: Checkpointing) -> Any:
    """`function(*arguments)`, whose activations are kept (`off`), in part (`selective`), or not at all (`full`).

    Gradients are the same. `function` must draw no random numbers.
    """
    if kind == "off" or not torch.is_grad_enabled():
        return function(*arguments)
    selective = partial(create_selective_checkpoint_contexts, _keep_attention)
    contexts: dict[str, Any] = {"context_fn": selective} if kind == "selective" else {}
    tensors = [a for a in arguments if isinstance(a, Tensor)]

    def call(*given: Tensor) -> Any:
        rest = iter(given)
        with _casting_anew(given) if kind == "selective" else nullcontext():
            return function(*(next(rest) if isinstance(a, Tensor) else a for a in arguments))

    return checkpoint(call, *tensors, use_reentrant=False, preserve_rng_state=False, **contexts)


def _casting_anew(given: tuple[Tensor, ...]) -> Any:
    """Autocast without its memory of weights that it has cast: that holds in a forward pass and not when it is done again, and
    what is kept is found again by counting operations."""
    device = given[0].device.type
    dtype, enabled = torch.get_autocast_dtype(device), torch.is_autocast_enabled(device)
    return torch.autocast(device, dtype, enabled, cache_enabled=False)


def _keep_attention(context: Any, op: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if op in ATTENTION else CheckpointPolicy.PREFER_RECOMPUTE
