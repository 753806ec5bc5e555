"""Attention over space and time, joint or factorised, causal in blocks of frames.

A *stream* of tokens `(b, f, s, d)` attends to what a `Plan` says (`model/spans.py`). Which kernel works is chosen by device
and size, see `attend`; all give what one plain softmax gives.
"""

from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from video_gen.model.keys import Bias, KeyValue
from video_gen.model.layers import rotate
from video_gen.model.runs import Runs
from video_gen.model.sliced import sliced_attention, suits
from video_gen.model.spans import DENSE_TOKENS, Kind, Plan, Span, count


class SpatiotemporalAttention(nn.Module):
    """Multi-head attention with fused projections and layer norm of queries and keys (arXiv:2302.05442).

    kind: `joint` every allowed token; `space` the text and the token's own frame; `time` the same place in allowed frames.
    """

    def __init__(self, width: int, head_dim: int, kind: Kind):
        super().__init__()
        self.kind: Kind = kind
        self.head_dim = head_dim
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.q_gain = nn.Parameter(torch.ones(head_dim))
        self.k_gain = nn.Parameter(torch.ones(head_dim))

    def project(self, x: Tensor) -> tuple[Tensor, KeyValue]:
        """`(b, f, s, d)` to queries `(b, heads, f, s, head_dim)`, keys and values."""
        b, f, s, _ = x.shape
        q, k, v = self.qkv(x).view(b, f, s, 3, -1, self.head_dim).permute(3, 0, 4, 1, 2, 5).unbind(0)
        q, k = (
            F.layer_norm(x, (self.head_dim,), gain.to(x.dtype)).to(x.dtype)  # autocast on a GPU answers in float32
            for x, gain in ((q, self.q_gain), (k, self.k_gain))
        )
        return q, KeyValue(k, v)

    def exchanged(self, x: Tensor, plan: Plan) -> tuple[Tensor, KeyValue]:
        """`project`, and what a context makes of it. Over time a place sees itself alone, so nothing is exchanged there."""
        q, own = self.project(x)
        return (q, own) if plan.context is None or self.kind == "time" else plan.context.enter(q, own)

    def forward(
        self, x: Tensor, plan: Plan, text: KeyValue | None, history: KeyValue | None
    ) -> tuple[Tensor, KeyValue]:
        """
        Args:
            x: (b, f, s, d) tokens.
            text: keys and values of the text, f = 1; `history`: of clean frames; both as an earlier pass returned them.
        Returns: (b, f, s, d), and the stream's own keys and values.
        """
        q, own = self.exchanged(x, plan)
        if plan.context is not None and text is not None:
            text = plan.context.text(text)
        space = self.kind == "space"
        mixed = self._space(q, own, plan, text) if space else attend_frames(q, own, plan, text, history, self.kind)
        if plan.context is not None and self.kind != "time":
            mixed = plan.context.leave(mixed)
        return self.out(mixed.permute(0, 2, 3, 1, 4).flatten(3)), own

    def _space(self, q: Tensor, own: KeyValue, plan: Plan, text: KeyValue | None) -> Tensor:
        cos, sin = (table[..., :1, :, :] for table in plan.tables(self.kind))
        k, v = rotate(own.k, cos, sin), own.v
        if text is not None:
            frames = (-1, -1, q.shape[2], -1, -1)
            said = text.k if plan.spans[0].ahead is None else _ahead(text.k, cos, sin)
            k = torch.cat([said.expand(frames), k], dim=3)
            v = torch.cat([text.v.expand(frames), v], dim=3)
        words = 0 if text is None else text.k.shape[3]
        return _attend(rotate(q, cos, sin), k, v, plan, plan.space_bias, words)


def attend_frames(
    q: Tensor, own: KeyValue, plan: Plan, text: KeyValue | None, history: KeyValue | None, kind: Kind = "joint"
) -> Tensor:
    """Attention of queries (b, heads, f, s, head_dim) to what a plan's spans see: text, history and own frames; all places of
    a frame (`joint`) or the same one (`time`). Neither queries nor keys are rotated yet."""
    if plan.self_history:
        history = own if history is None else history.append(own)
    parts = [_span(q, own, span, plan, text, history, kind) for span in plan.spans]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)


def _span(
    q: Tensor, own: KeyValue, span: Span, plan: Plan, text: KeyValue | None, history: KeyValue | None, kind: Kind
) -> Tensor:
    f, past = span.own.stop - span.own.start, count(span.history)
    cos, sin = plan.tables(kind)
    at = (..., slice(span.position, span.position + f), slice(None), slice(None))
    q = rotate(q[:, :, span.own], cos[at], sin[at])
    k, v = own.frames((span.own,))
    k = rotate(k, cos[at], sin[at])
    if past:
        assert history is not None
        old = history.frames(span.history)
        before = (..., slice(past), slice(None), slice(None))
        k = torch.cat([rotate(old.k, cos[before], sin[before]), k], dim=2)
        v = torch.cat([old.v, v], dim=2)
    if kind == "time":
        q, k, v = (x.transpose(2, 3) for x in (q, k, v))
        return attend(q, k, v, span.time_bias).transpose(2, 3)
    q, k, v = (x.flatten(2, 3) for x in (q, k, v))
    if text is not None:
        said = text.k
        if span.ahead is not None:
            there = (..., slice(span.ahead, span.ahead + 1), slice(None), slice(None))
            said = _ahead(said, cos[there], sin[there])
        k, v = torch.cat([said[:, :, 0], k], dim=2), torch.cat([text.v[:, :, 0], v], dim=2)
    words = 0 if text is None else text.k.shape[3]
    mixed = _attend(q, k, v, plan, span.joint_bias, words, span.places_bias)
    return mixed.unflatten(2, (f, -1))


def _attend(q: Tensor, k: Tensor, v: Tensor, plan: Plan, bias: Bias, words: int, places_bias: Bias = None) -> Tensor:
    if plan.context is None:
        return attend(q, k, v, bias)
    return plan.context.attend(q, k, v, bias, words, places_bias)


def _ahead(words: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Keys of the text, of which the last are those of a frame that lies ahead and are rotated: `(1, s, head_dim / 2)`."""
    text, frame = words.split([words.shape[3] - cos.shape[-2], cos.shape[-2]], dim=3)
    return torch.cat([text, rotate(frame, cos, sin)], dim=3)


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Bias) -> Tensor:
    """Scaled dot-product attention of `(b, heads, [groups,] n, head_dim)` with a bias, runs, a block mask or None.

    In training on a CPU as plain products: there the fused kernel's backward is 2 to 4 times slower at such lengths. Where a CPU's
    fused kernel is slow, too, and there are many tokens, in slices (`model/sliced.py`).
    """
    if isinstance(bias, Runs):
        return bias.attend(q, k, v)
    if isinstance(bias, BlockMask):
        return flex_kernel()(q, k, v, block_mask=bias)
    if q.is_cuda or not torch.is_grad_enabled() or q.shape[-2] > DENSE_TOKENS:
        if q.ndim == 5:  # fused kernels know four axes
            return _grouped(q, k, v, bias)
        return _fused(q, k, v, bias)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    return (scores if bias is None else scores + bias).softmax(dim=-1).to(v.dtype) @ v


def _grouped(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """Groups (frames, or places) as samples: (b, heads, groups, n, head_dim)."""
    b, groups = q.shape[0], q.shape[2]
    q, k, v = (x.transpose(1, 2).flatten(0, 1) for x in (q, k, v))
    if bias is not None:
        bias = bias.transpose(1, 2).expand(b, groups, -1, -1, -1).flatten(0, 1)
    return _fused(q, k, v, bias).unflatten(0, (b, groups)).transpose(1, 2)


def _fused(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    if suits(q, k, v, bias):
        return sliced_attention(q, k, v, bias)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)


@cache
def flex_kernel() -> Callable[..., Tensor]:
    """FlexAttention, compiled: without that it makes the whole matrix of scores. On a CPU, for tests, that will do."""
    return torch.compile(flex_attention, dynamic=False) if torch.cuda.is_available() else flex_attention
