"""Softmax over keys that lie on several processes, one share at a time, as they go round.

A share gives its own softmax and the logarithm of what that was divided by; two such answers merge exactly into the softmax
over both (Milakov and Gimelshein 2018, arXiv:1805.02867; in a ring: Liu et al. 2023, arXiv:2310.01889).
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import AuxRequest, BlockMask

from video_gen.model.attention import flex_kernel
from video_gen.model.keys import Bias
from video_gen.model.runs import Runs


def ring_attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Bias,
    words: int,
    places_bias: Bias,
    turn: Callable[[Tensor], Tensor],
    size: int,
) -> Tensor:
    """`attention.attend` of this process's queries over the keys of all `size` processes.

    Args:
        words: keys in front that every process has (the text): they are seen once.
        places_bias: `bias` without them, the same for every share: all hold places of the same frames.
        turn: hands a tensor to the next process and gives what came from the one before; differentiable.
    """
    coming = turn(torch.stack([k[..., words:, :], v[..., words:, :]]))  # under way while this share is attended to
    mixed, logsum = _share(q, k, v, bias)
    for left in reversed(range(size - 1)):
        places = coming
        coming = turn(places) if left else coming
        made, own = _share(q, places[0], places[1], places_bias)
        both = torch.logaddexp(logsum, own)
        mixed, logsum = mixed * (logsum - both).exp() + made * (own - both).exp(), both
    return mixed.to(v.dtype)


def _share(q: Tensor, k: Tensor, v: Tensor, bias: Bias) -> tuple[Tensor, Tensor]:
    """float32 softmax over some keys, (..., n, head_dim), and the logarithm of its divisor, (..., n, 1).

    Every query must see a key of each share, as it does of its own frame. In plain products on a CPU; else by
    FlexAttention, which can be differentiated with respect to both.
    """
    assert not isinstance(bias, Runs)  # a process here has a share of the keys alone
    if q.is_cuda and not isinstance(bias, Tensor):
        return _flex(q, k, v, bias)
    scores = ((q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)).float()
    assert not isinstance(bias, BlockMask)
    scores = scores if bias is None else scores + bias
    logsum = scores.logsumexp(dim=-1, keepdim=True)
    return ((scores - logsum).exp().to(v.dtype) @ v).float(), logsum


def _flex(q: Tensor, k: Tensor, v: Tensor, mask: BlockMask | None) -> tuple[Tensor, Tensor]:
    groups = q.shape[2:-2]  # none, or frames: as samples
    if groups:
        q, k, v = (x.transpose(1, 2).flatten(0, 1) for x in (q, k, v))
    made: Any = flex_kernel()(q, k, v, block_mask=mask, return_aux=AuxRequest(lse=True))
    mixed, logsum = made[0].float(), made[1].lse[..., None]
    if groups:
        mixed, logsum = (x.unflatten(0, (-1, *groups)).transpose(1, 2) for x in (mixed, logsum))
    return mixed, logsum
