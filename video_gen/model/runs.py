"""Attention over runs of keys, each through a fused kernel without a mask, merged into one softmax.

What a block of video sees is a few runs of keys, whole: earlier frames, its own, the text but for its padding. On a GPU the
fastest kernels are those without a mask, and a run needs none. Softmaxes over runs merge exactly, given the logarithm of
what each was divided by (Milakov and Gimelshein 2018, arXiv:1805.02867), and a fused kernel's backward that is given the
merged answer and divisor returns a run's share of the gradient of the whole (as ring attention does over devices, Liu et
al. 2023, arXiv:2310.01889). So no mask of queries by keys is made, but for the few keys of padded text; other blocks' frames
are not worked on, and what is hidden from some samples alone is worked on for all and given no weight.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

aten = torch.ops.aten
HALF = (torch.bfloat16, torch.float16)
AMPERE, HOPPER = (8, 0), (9, 0)
CUDNN_HEAD_DIM, FLASH_HEAD_DIM = 128, 192
"""Largest heads that the kernels train everywhere; both want multiples of 8."""
Kernel = Literal["cpu", "flash", "cudnn"]
"""Fused attention without a mask: torch's own on a CPU (for tests, a bias is faster there), FlashAttention 2, cuDNN's."""


class Block(NamedTuple):
    """Query tokens, and the runs of key tokens that they see, the text among them unless it is padded."""

    queries: slice
    keys: tuple[slice, ...]
    history: slice | None = None
    """A run that is hidden from some samples."""


@dataclass(frozen=True)
class Runs:
    """What all blocks of a span see."""

    blocks: tuple[Block, ...]
    kernel: Kernel
    words: int = 0
    """So many keys in front are text with padding; 0 = none of it is padded."""
    text_bias: Tensor | None = None
    """(b, 1, 1, words), float32, -inf at padding."""
    history_visible: Tensor | None = None
    """(b, 1, 1, 1), False where `Block.history` is hidden."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Scaled dot-product attention of (b, heads, n, head_dim) over keys (b, heads, m, head_dim)."""
        k, v = k.to(q.dtype), v.to(q.dtype)
        text_k, text_v = (x[:, :, : self.words] if self.words else None for x in (k, v))
        parts = []
        for queries, keys, history in self.blocks:
            runs = [x[:, :, run] for run in ((history, *keys) if history else keys) for x in (k, v)]
            given = (self.kernel, q[:, :, queries], text_k, text_v, self.text_bias)
            visible = self.history_visible if history else None
            learns = torch.is_grad_enabled()
            parts.append(_Merged.apply(*given, visible, *runs) if learns else _merged(*given, visible, runs)[0])
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)


def fused_kernel(device: torch.device, dtype: torch.dtype, head_dim: int) -> Kernel | None:
    """The fastest kernel that tells its divisors, from Hopper on cuDNN's; None where there is none for such heads."""
    if device.type == "cpu":
        return "cpu"
    if device.type != "cuda" or dtype not in HALF or head_dim % 8:
        return None
    capability = torch.cuda.get_device_capability(device)
    if torch.version.hip is None and capability >= HOPPER and head_dim <= CUDNN_HEAD_DIM:
        return "cudnn"
    return "flash" if capability >= AMPERE and head_dim <= FLASH_HEAD_DIM else None


class _Merged(torch.autograd.Function):
    """`_merged` with its gradient."""

    @staticmethod
    def forward(
        ctx: Any, kernel: Kernel, q: Tensor, text_k: Tensor | None, text_v: Tensor | None, bias: Tensor | None,
        visible: Tensor | None, *runs: Tensor,
    ) -> Tensor:  # fmt: skip
        ctx.kernel = kernel
        mixed, total, ctx.rest = _merged(kernel, q, text_k, text_v, bias, visible, runs)
        ctx.save_for_backward(q, text_k, text_v, bias, visible, mixed, total, *runs)
        return mixed

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        q, text_k, text_v, bias, visible, mixed, total, *runs = ctx.saved_tensors
        # torch keeps cuDNN's kernels by the layout of q, k and v: these must lie the same way each time
        gradient, mixed = gradient.contiguous(), mixed.contiguous()
        of_q, of_runs = None, []
        for i, (k, v, rest) in enumerate(zip(runs[::2], runs[1::2], ctx.rest)):
            logsum = total
            if i == 0 and visible is not None:
                logsum = total.masked_fill(~visible, float("inf"))  # exp(score - inf): no weight
            for_q, *for_run = _fused_backward(ctx.kernel, gradient, q, k, v, mixed, logsum, rest)
            of_q = for_q if of_q is None else of_q + for_q
            of_runs += for_run
        if text_k is None:
            return None, of_q, None, None, None, None, *of_runs
        weights = (_scores(q, text_k, bias) - total).exp()
        delta = (gradient.float() * mixed.float()).sum(dim=-1, keepdim=True)
        of_scores = (weights * (gradient @ text_v.transpose(-1, -2) - delta)).to(q.dtype) * q.shape[-1] ** -0.5
        of_text = of_scores.transpose(-1, -2) @ q, weights.to(q.dtype).transpose(-1, -2) @ gradient
        return None, of_q + of_scores @ text_k, *of_text, None, None, *of_runs


def _merged(
    kernel: Kernel, q: Tensor, text_k: Tensor | None, text_v: Tensor | None, bias: Tensor | None,
    visible: Tensor | None, runs: Sequence[Tensor],
) -> tuple[Tensor, Tensor, list[tuple[Any, ...]]]:  # fmt: skip
    """One softmax over text with padding (plain products: it is short) and runs (keys, values; a fused kernel each), of
    which `visible` may hide the first. Returns: the answer, the logarithm of its divisor, and what kernels want back."""
    made = [_fused(kernel, q, k, v) for k, v in zip(runs[::2], runs[1::2])]
    outs, logsums = [out for out, _, _ in made], [logsum for _, logsum, _ in made]
    if visible is not None:
        logsums[0] = logsums[0].masked_fill(~visible, float("-inf"))
    scores = None if text_k is None else _scores(q, text_k, bias)
    divisors = logsums if scores is None else [*logsums, scores.logsumexp(dim=-1, keepdim=True)]
    total = divisors[0]
    for logsum in divisors[1:]:
        total = torch.logaddexp(total, logsum)
    parts = [out.float() * (logsum - total).exp() for out, logsum in zip(outs, logsums)]
    if scores is not None and text_v is not None:
        parts.append(((scores - total).exp().to(q.dtype) @ text_v).float())
    mixed = outs[0] if len(parts) == 1 else sum(parts[1:], start=parts[0]).to(q.dtype)
    return mixed, total, [rest for _, _, rest in made]


def _scores(q: Tensor, k: Tensor, bias: Tensor | None) -> Tensor:
    scores = ((q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)).float()
    return scores if bias is None else scores + bias


def _fused(kernel: Kernel, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, tuple[Any, ...]]:
    """The answer, the logarithm of its divisor (b, heads, n, 1), and what the backward wants besides."""
    if kernel == "cpu":
        out, logsum, *rest = aten._scaled_dot_product_flash_attention_for_cpu(q, k, v)
    elif kernel == "cudnn":
        out, logsum, *rest = aten._scaled_dot_product_cudnn_attention(q, k, v, None, True)
    else:
        out, logsum, *rest = aten._scaled_dot_product_flash_attention(q, k, v)
    return out, logsum.view(*q.shape[:-1], 1), tuple(rest[:6])


def _fused_backward(
    kernel: Kernel,
    gradient: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    logsum: Tensor,
    rest: tuple[Any, ...],
) -> tuple[Tensor, Tensor, Tensor]:
    if kernel == "cpu":
        return aten._scaled_dot_product_flash_attention_for_cpu_backward(
            gradient, q, k, v, out, logsum[..., 0], 0.0, False
        )
    first_q, first_k, most_q, most_k, seed, offset = rest
    if kernel == "cudnn":
        random, lengths = (seed, offset, None), (first_q, first_k, most_q, most_k)
        return aten._scaled_dot_product_cudnn_attention_backward(
            gradient, q, k, v, out, logsum, *random, *lengths, 0.0, False
        )
    lengths = (first_q, first_k, most_q, most_k)
    return aten._scaled_dot_product_flash_attention_backward(
        gradient, q, k, v, out, logsum[..., 0], *lengths, 0.0, False, seed, offset
    )
