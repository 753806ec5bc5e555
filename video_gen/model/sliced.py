"""Attention in slices of queries, each by plain products: for CPUs that multiply in bfloat16 and have no AMX.

There torch's fused kernel takes half as long again (docs/speed.md). A few hundred queries of as many heads as there are threads
have scores that fit into the cache. In the backward pass these are made again, so no matrix of all scores is kept.
"""

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula, sdpa_backward_flop_count, sdpa_flop_count

FUSED_IS_SLOW = torch.cpu._is_avx512_bf16_supported() and not torch.cpu._is_amx_tile_supported()
"""Whether this machine is such a one."""
LEAST_SCORES = 2**18
"""Of all heads together; for fewer, the fused kernel is as fast."""
QUERIES, SCORES = 512, 2**22
"""Of a slice that is one of several, at most: queries, and scores of all its heads (8 MiB)."""


def suits(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> bool:
    """Whether slices are the way for (b, heads, n, head_dim) and (b, heads, m, head_dim) here."""
    return (
        FUSED_IS_SLOW
        and q.device.type == "cpu"
        and q.dtype == k.dtype == v.dtype == torch.bfloat16
        and q.ndim == 4
        and q.shape[:2] == k.shape[:2]
        and q.shape[:3].numel() * k.shape[2] >= LEAST_SCORES
        and not (bias is not None and bias.requires_grad)
    )


@torch.library.custom_op("video_gen::sliced_attention", mutates_args=())
def sliced_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """Scaled dot-product attention of (b, heads, n, head_dim). `bias` is added to scores, (b, heads, n, m) or 1 for any of the
    first three; it has no gradient.

    An operation of its own, so that compiled code calls it as one.
    """
    shape, bias = q.shape, _flat_bias(bias, q, k)
    q, k, v = (x.flatten(0, 1) for x in (q, _scaled(k), v))
    slices = _slices(q, k)
    if len(slices) == 1:  # few keys, as of a text: the copy below would take as long as the rest
        return (_shares(q, k, bias, *slices[0]) @ v).view(shape)
    made = torch.empty(q.shape, dtype=q.dtype)
    for heads, queries in slices:
        made[heads, queries] = _shares(q[heads, queries], k[heads], bias, heads, queries) @ v[heads]
    return made.view(shape)


@torch.library.custom_op("video_gen::sliced_attention_backward", mutates_args=())
def sliced_attention_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of queries, keys and values, from that of what was made of them."""
    shapes, bias = [x.shape for x in (q, k, v)], _flat_bias(bias, q, k)
    grad, q, k, v = (x.flatten(0, 1) for x in (grad, q, _scaled(k), v))
    for_q, for_k, for_v = (torch.empty(x.shape, dtype=x.dtype) for x in (q, k, v))
    sums: list[Tensor] = []
    for heads, queries in _slices(q, k):
        if queries.start == 0:  # other heads; many slices add up, in float32
            sums = [torch.zeros(x[heads].shape) for x in (k, v)]
        some, back = q[heads, queries], grad[heads, queries]
        shares = _shares(some, k[heads], bias, heads, queries)
        sums[1] += shares.mT @ back
        scores = torch._softmax_backward_data(back @ v[heads].mT, shares, -1, shares.dtype)
        sums[0] += scores.mT @ some
        for_q[heads, queries] = scores @ k[heads]
        if queries.stop >= q.shape[1]:
            for_k[heads], for_v[heads] = _scaled(sums[0]), sums[1]
    made = [x.view(shape) for x, shape in zip((for_q, for_k, for_v), shapes)]
    return made[0], made[1], made[2]


def _slices(q: Tensor, k: Tensor) -> list[tuple[slice, slice]]:
    """Of heads and of queries, those of the same heads one behind the other."""
    (count, n, _), m = q.shape, k.shape[1]
    if count * n * m <= SCORES:
        return [(slice(0, count), slice(0, n))]
    heads = min(count, torch.get_num_threads())
    queries = max(1, min(QUERIES, SCORES // (heads * m)))
    return [(slice(h, h + heads), slice(i, i + queries)) for h in range(0, count, heads) for i in range(0, n, queries)]


def _shares(some: Tensor, k: Tensor, bias: Tensor | None, heads: slice, queries: slice) -> Tensor:
    """What each query takes of each key; these are scaled already."""
    scores = some @ k.mT
    if bias is not None:
        scores += bias[heads, queries if bias.shape[1] > 1 else slice(None)]
    return scores.softmax(-1)


def _scaled(x: Tensor) -> Tensor:
    return x * x.shape[-1] ** -0.5


def _flat_bias(bias: Tensor | None, q: Tensor, k: Tensor) -> Tensor | None:
    """(b * heads, n or 1, m)"""
    if bias is None:
        return None
    return bias.expand(*q.shape[:2], bias.shape[-2], k.shape[2]).flatten(0, 1)


@sliced_attention.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    return torch.empty(q.shape, dtype=q.dtype, device=q.device)


@sliced_attention_backward.register_fake
def _(grad: Tensor, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    made = [torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q, k, v)]
    return made[0], made[1], made[2]


def _remember(ctx, inputs, output) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx, grad: Tensor):
    return *sliced_attention_backward(grad, *ctx.saved_tensors), None


sliced_attention.register_autograd(_backward, setup_context=_remember)


@register_flop_formula(torch.ops.video_gen.sliced_attention)
def _flops(q_shape, k_shape, v_shape, *args, **kwargs) -> int:
    return sdpa_flop_count(q_shape, k_shape, v_shape)


@register_flop_formula(torch.ops.video_gen.sliced_attention_backward)
def _backward_flops(grad_shape, q_shape, k_shape, v_shape, *args, **kwargs) -> int:
    return sdpa_backward_flop_count(grad_shape, q_shape, k_shape, v_shape)
