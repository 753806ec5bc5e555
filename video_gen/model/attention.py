"""Attention over space and time, joint or factorised, causal in blocks of frames.

A *stream* of tokens `(b, f, s, d)` attends to its own block and to *history*: keys and values of clean frames before the
block. Which frames those are is a `Plan` of spans, not a matrix over all tokens. Keys are remembered before rotary
embedding; positions are given when they are read: history from zero, then the block. So a stream of any length uses the
same positions, and the frames between the `sink` and the `window` can be forgotten.

Which kernel works is chosen by device and size, see `attend`; all give what one plain softmax gives.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from typing import Literal, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from video_gen.model.layers import rotate
from video_gen.model.runs import Block, Runs, fused_kernel

Kind = Literal["joint", "space", "time"]
Masks = Literal["bias", "runs", "flex"]
"""How joint attention is told what is hidden: a `bias` to add; `runs` of keys without one; a block mask for FlexAttention."""
Bias = Tensor | Runs | BlockMask | None
"""One of these; a bias or block mask is None where nothing is hidden."""
DENSE_TOKENS = 2048
"""Up to so many query tokens one masked product over all blocks is faster than a product per block."""
RUN_TOKENS = 512
"""Blocks of fewer tokens on average are too little work for kernels of their own."""


class KeyValue(NamedTuple):
    """Keys (normalised, not rotated) and values, each `(b, heads, f, s, head_dim)`; text has f = 1."""

    k: Tensor
    v: Tensor

    def frames(self, pieces: tuple[slice, ...]) -> "KeyValue":
        if len(pieces) == 1:
            return KeyValue(self.k[:, :, pieces[0]], self.v[:, :, pieces[0]])
        return KeyValue(*(torch.cat([x[:, :, p] for p in pieces], dim=2) for x in self))

    def append(self, other: "KeyValue") -> "KeyValue":
        return KeyValue(torch.cat([self.k, other.k], dim=2), torch.cat([self.v, other.v], dim=2))


class Context(Protocol):
    """Processes that share the tokens of the same samples. Each holds some places of every frame; how they attend over the
    places of all is theirs: see `training.context`."""

    def part(self, x: Tensor, axis: int) -> Tensor:
        """This process's equal share of what all of them hold."""
        ...

    def gather(self, x: Tensor, axis: int) -> Tensor:
        """All shares along `axis`, on every process."""
        ...

    @property
    def has_all_keys(self) -> bool:
        """Whether a process attends over all keys that its queries see at once, in place of one share after another."""
        ...

    def attended(self, table: Tensor) -> Tensor:
        """Of a table (..., places, n) those places for which this process attends."""
        ...

    def enter(self, q: Tensor, own: KeyValue) -> tuple[Tensor, KeyValue]:
        """From what a process projects, (b, heads, f, s, head_dim) for its places, to that with which it attends."""
        ...

    def leave(self, mixed: Tensor) -> Tensor:
        """The way back, for the result."""
        ...

    def text(self, text: KeyValue) -> KeyValue:
        """Of the text's keys and values, which every process has, those that it needs."""
        ...

    def attend(self, q: Tensor, k: Tensor, v: Tensor, bias: Bias, words: int, places_bias: Bias) -> Tensor:
        """`attend` over the places of all. `words` keys in front are text; `places_bias`: `bias` without them."""
        ...


@dataclass(frozen=True)
class Span:
    """Query frames that share their keys: `history` frames at positions 0, 1, ... and `own` frames from `position` on."""

    own: slice
    history: tuple[slice, ...]
    position: int
    joint_bias: Bias = None
    """(b or 1, 1, query tokens or 1, text + key tokens), added to the scores of joint attention; None = all allowed. On a
    GPU the same as `Runs` or a `BlockMask`, which take no memory and skip what is not allowed."""
    places_bias: Bias = None
    """The same for the key tokens alone, where a context asks for it."""
    time_bias: Tensor | None = None
    """(b or 1, 1, 1, own frames, history + own frames), the same for attention over time."""


@dataclass(frozen=True)
class Plan:
    """What one pass of a stream may see, and where things are."""

    spans: tuple[Span, ...]
    cos: Tensor
    sin: Tensor
    """Rotary tables `(positions, s, head_dim / 2)`, or `(b, 1, positions, s, head_dim / 2)`."""
    space_bias: Tensor | None = None
    """(b, 1, 1, 1, text + place tokens), for attention within a frame."""
    self_history: bool = False
    """The stream's own earlier blocks are its history, after what a cache holds: the clean stream, span by span."""
    context: Context | None = None
    """Who has the other places of the stream; None = it is whole."""

    def tables(self, kind: Kind) -> tuple[Tensor, Tensor]:
        """Cosine and sine of the places at which attention of this kind works."""
        context, tables = self.context, (self.cos, self.sin)
        if context is None:
            return tables
        cos, sin = (context.part(x, -2) if kind == "time" else context.attended(x) for x in tables)
        return cos, sin


def kept_frames(total: int, sink: int, window: int | None) -> tuple[slice, ...]:
    """Of `total` frames of history those that are seen: the first `sink` and the last `window` (None = all)."""
    if total == 0:
        return ()
    if window is None or total <= sink + window:
        return (slice(0, total),)
    return tuple(p for p in (slice(0, sink), slice(total - window, total)) if p.stop > p.start)


def count(pieces: tuple[slice, ...]) -> int:
    return sum(piece.stop - piece.start for piece in pieces)


def plan_text(visible: Tensor, head_dim: int, dtype: torch.dtype, padded: bool = True) -> Plan:
    """Text sees text. `visible` (b, m) is False at padding; positions are the text encoder's business."""
    flat = torch.zeros(1, visible.shape[1], head_dim // 2, dtype=dtype, device=visible.device)
    bias = _bias(visible[:, None], dtype) if padded else None
    return Plan((Span(slice(0, 1), (), 0, bias),), flat.cos(), flat.sin(), None if bias is None else bias[:, :, None])


def plan_video(
    blocks: tuple[int, ...],
    first: int,
    kept: int,
    tables: tuple[Tensor, Tensor],
    *,
    sink: int,
    window: int | None,
    self_history: bool = False,
    text_visible: Tensor | None = None,
    history_visible: Tensor | None = None,
    dense_tokens: int = DENSE_TOKENS,
    run_tokens: int = RUN_TOKENS,
    masks: Masks = "bias",
    text_padded: bool = True,
    context: Context | None = None,
) -> Plan:
    """Blocks of video, each seeing itself, earlier history and the text.

    Args:
        blocks: frames of each block.
        first: the frame at which the first block begins, in frames of history; `kept`: how many of those there are.
        tables: rotary cosine and sine, (positions, s, head_dim / 2) in the dtype of the tokens; with (b, 1) in front where
            samples hold different places.
        self_history: blocks see earlier blocks of their own stream.
        text_visible: (b, m), False at padding, or None for no text.
        history_visible: (b,), False where a sample sees no history, or None where all do.
        text_padded: False where `text_visible` is known to hide nothing: then text alone calls for no mask.
        masks: see `Masks`; small blocks have a bias in place of runs, or of many together a block mask in training.
        context: see `Plan`; `tables` are of all places all the same.
    """
    cos, sin = tables
    s, dtype = (cos if context is None else context.attended(cos)).shape[-2], cos.dtype
    starts = list(accumulate(blocks, initial=0))[:-1]
    forgets = window is not None and first + starts[-1] > sink + window
    together, small = len(blocks) > 1 and not forgets, sum(blocks) * s <= dense_tokens
    if masks == "runs" and (sum(blocks) * s < run_tokens * len(blocks) or (together and small)):
        masks = "flex" if together and not small and torch.is_grad_enabled() else "bias"
    chosen: list[tuple[slice, tuple[slice, ...], int, Tensor | None, list[_Seen]]] = []
    if together and (small or masks != "bias"):
        visible = _dense_mask(blocks, first, kept, self_history, cos.device)
        rows = [
            _Seen((start, start + size), min(kept, first + start), kept, 0 if self_history else start)
            for start, size in zip(starts, blocks)
        ]
        pieces = (slice(0, kept),) if kept else ()
        chosen.append((slice(0, sum(blocks)), pieces, first, visible, rows))
        self_history = False
    else:
        for start, size in zip(starts, blocks):
            pieces = kept_frames(first + start, sink, window)
            row = _Seen((0, size), count(pieces), count(pieces), 0)
            chosen.append((slice(start, start + size), pieces, row.past, None, [row]))
    result = []
    for own, pieces, position, visible, rows in chosen:
        hidden = _hide_history(visible, own.stop - own.start, count(pieces), history_visible)
        time_bias = None if hidden is None else _bias(hidden, dtype)[:, :, None]
        words = text_visible if text_padded or hidden is not None else None
        sizes = (own.stop - own.start, count(pieces) + own.stop - own.start)
        if masks == "runs":
            joint_bias = places_bias = _runs(rows, text_visible, text_padded, history_visible, cos)
        else:
            make = _block_mask if masks == "flex" else _joint_bias
            joint_bias = make(hidden, words, sizes, s, dtype)
            places_bias = None if context is None else make(hidden, None, sizes, s, dtype)
        result.append(Span(own, pieces, position, joint_bias, places_bias, time_bias))
    words = text_visible if text_padded else None
    space_bias = None if words is None else _bias(_beside_text(words, None, s), dtype)[:, :, None]
    return Plan(tuple(result), cos, sin, space_bias, self_history, context)


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
        if self.kind == "space":
            mixed = self._space(q, own, plan, text)
        else:
            if plan.self_history:
                history = own if history is None else history.append(own)
            parts = [self._span(q, own, span, plan, text, history) for span in plan.spans]
            mixed = parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)
        if plan.context is not None and self.kind != "time":
            mixed = plan.context.leave(mixed)
        return self.out(mixed.permute(0, 2, 3, 1, 4).flatten(3)), own

    def _space(self, q: Tensor, own: KeyValue, plan: Plan, text: KeyValue | None) -> Tensor:
        cos, sin = (table[..., :1, :, :] for table in plan.tables(self.kind))
        k, v = rotate(own.k, cos, sin), own.v
        if text is not None:
            frames = (-1, -1, q.shape[2], -1, -1)
            k = torch.cat([text.k.expand(frames), k], dim=3)
            v = torch.cat([text.v.expand(frames), v], dim=3)
        words = 0 if text is None else text.k.shape[3]
        return self._attend(rotate(q, cos, sin), k, v, plan, plan.space_bias, words)

    def _span(
        self, q: Tensor, own: KeyValue, span: Span, plan: Plan, text: KeyValue | None, history: KeyValue | None
    ) -> Tensor:
        f, past = span.own.stop - span.own.start, count(span.history)
        cos, sin = plan.tables(self.kind)
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
        if self.kind == "time":
            q, k, v = (x.transpose(2, 3) for x in (q, k, v))
            return attend(q, k, v, span.time_bias).transpose(2, 3)
        q, k, v = (x.flatten(2, 3) for x in (q, k, v))
        if text is not None:
            k, v = torch.cat([text.k[:, :, 0], k], dim=2), torch.cat([text.v[:, :, 0], v], dim=2)
        words = 0 if text is None else text.k.shape[3]
        return self._attend(q, k, v, plan, span.joint_bias, words, span.places_bias).unflatten(2, (f, -1))

    def _attend(
        self, q: Tensor, k: Tensor, v: Tensor, plan: Plan, bias: Bias, words: int, places_bias: Bias = None
    ) -> Tensor:
        if plan.context is None:
            return attend(q, k, v, bias)
        return plan.context.attend(q, k, v, bias, words, places_bias)


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Bias) -> Tensor:
    """Scaled dot-product attention of `(b, heads, [groups,] n, head_dim)` with a bias, runs, a block mask or None.

    In training on a CPU as plain products: there the fused kernel's backward is 2 to 4 times slower at such lengths.
    """
    if isinstance(bias, Runs):
        return bias.attend(q, k, v)
    if isinstance(bias, BlockMask):
        return flex_kernel()(q, k, v, block_mask=bias)
    if q.is_cuda or not torch.is_grad_enabled() or q.shape[-2] > DENSE_TOKENS:
        if q.ndim == 5:  # fused kernels know four axes
            return _grouped(q, k, v, bias)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    return (scores if bias is None else scores + bias).softmax(dim=-1).to(v.dtype) @ v


def _grouped(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """Groups (frames, or places) as samples: (b, heads, groups, n, head_dim)."""
    b, groups = q.shape[0], q.shape[2]
    q, k, v = (x.transpose(1, 2).flatten(0, 1) for x in (q, k, v))
    if bias is not None:
        bias = bias.transpose(1, 2).expand(b, groups, -1, -1, -1).flatten(0, 1)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias).unflatten(0, (b, groups)).transpose(1, 2)


@cache
def flex_kernel() -> Callable[..., Tensor]:
    """FlexAttention, compiled: without that it makes the whole matrix of scores. On a CPU, for tests, that will do."""
    return torch.compile(flex_attention, dynamic=False) if torch.cuda.is_available() else flex_attention


def _dense_mask(blocks: tuple[int, ...], first: int, kept: int, self_history: bool, device: torch.device) -> Tensor:
    """(1, frames, kept + frames) of all blocks at once; right only while no history is forgotten."""
    frames = torch.arange(
        sum(blocks), device=device
    )  # from numbers alone: a copy of a list would have a GPU waited for
    start = torch.zeros_like(frames)
    for begin, size in zip(accumulate(blocks), blocks):
        start = start + (frames >= begin) * size
    own = start[:, None] >= start if self_history else start[:, None] == start
    past = torch.arange(kept, device=device) < (start + first)[:, None]
    return torch.cat([past, own], dim=1)[None]


def _hide_history(visible: Tensor | None, own: int, past: int, history_visible: Tensor | None) -> Tensor | None:
    """Hide the first `past` keys from samples that are to see no history: (b, own, past + own)."""
    if history_visible is None or not past:
        return visible
    if visible is None:
        visible = torch.ones(1, own, past + own, dtype=torch.bool, device=history_visible.device)
    is_past = torch.arange(past + own, device=history_visible.device) < past
    return visible & (history_visible[:, None, None] | ~is_past)


class _Seen(NamedTuple):
    """A block among a span's own frames, and the frames that it sees: the first `past` of the span's `kept` frames of
    history, and the span's own from `own` to the block's end."""

    block: tuple[int, int]
    past: int
    kept: int
    own: int


def _runs(
    rows: list[_Seen], text_visible: Tensor | None, text_padded: bool, history_visible: Tensor | None, table: Tensor
) -> Runs:
    """Which keys each block sees, in tokens, as few runs as there can be: what touches is one, unless it may be hidden."""
    s, kernel = table.shape[-2], fused_kernel(table.device, table.dtype, 2 * table.shape[-1])
    if kernel is None:
        raise ValueError(f"no fused kernel for heads of {2 * table.shape[-1]} in {table.dtype} on {table.device}")
    m = 0 if text_visible is None else text_visible.shape[1]
    padded, blocks = text_visible is not None and text_padded, []
    for (start, stop), past, kept, own in rows:
        history = slice(m, m + past * s) if past and history_visible is not None else None
        ends = [] if padded or not m else [(0, m)]
        ends += [(m, m + past * s)] if past and history is None else []
        ends += [(m + (kept + own) * s, m + (kept + stop) * s)]
        keys: list[slice] = []
        for begin, end in ends:
            if keys and keys[-1].stop == begin:
                begin = keys.pop().start
            keys.append(slice(begin, end))
        blocks.append(Block(slice(start * s, stop * s), tuple(keys), history))
    text_bias = _bias(text_visible[:, None], torch.float32) if text_visible is not None and padded else None
    seen = None if history_visible is None else history_visible[:, None, None, None]
    return Runs(tuple(blocks), kernel, m if padded else 0, text_bias, seen)


def _beside_text(text_visible: Tensor, visible: Tensor | None, keys: int) -> Tensor:
    """The text's mask before that of the other keys: (b, queries or 1, text + keys)."""
    if visible is None:
        visible = torch.ones(1, 1, keys, dtype=torch.bool, device=text_visible.device)
    text = text_visible[:, None].expand(-1, visible.shape[1], -1)
    return torch.cat([text, visible.expand(text.shape[0], -1, -1)], dim=2)


def _joint_bias(
    visible: Tensor | None, text_visible: Tensor | None, frames: tuple[int, int], s: int, dtype: torch.dtype
) -> Tensor | None:
    """`visible` (b or 1, own frames, key frames) and `text_visible` (b, m) as a bias of tokens; `frames` are both counts."""
    if visible is not None:
        visible = visible.repeat_interleave(s, dim=1).repeat_interleave(s, dim=2)
    if text_visible is not None:
        visible = _beside_text(text_visible, visible, frames[1] * s)
    return None if visible is None else _bias(visible, dtype)


def _block_mask(
    visible: Tensor | None, text_visible: Tensor | None, frames: tuple[int, int], s: int, dtype: torch.dtype
) -> BlockMask | None:
    """What `_joint_bias` says, as a rule for FlexAttention that looks tokens up in the two small tables."""
    tables = [x for x in (visible, text_visible) if x is not None]
    if not tables:
        return None
    device, b = tables[0].device, max(len(x) for x in tables)
    words = (
        text_visible.expand(b, -1) if text_visible is not None else torch.ones(b, 1, dtype=torch.bool, device=device)
    )
    seen = torch.ones(1, *frames, dtype=torch.bool, device=device) if visible is None else visible
    seen, m = seen.expand(b, -1, -1), 0 if text_visible is None else text_visible.shape[1]

    def allowed(sample: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        word = words[sample, key.clamp(max=words.shape[1] - 1)]
        return torch.where(key < m, word, seen[sample, query // s, (key - m).clamp(min=0) // s])

    sizes = (frames[0] * s, m + frames[1] * s)
    return create_block_mask(allowed, b, None, *sizes, device=device, _compile=device.type == "cuda")


def _bias(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """(b, queries, keys), True where allowed, to an additive (b, 1, queries, keys)."""
    bias = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
    return bias.masked_fill(~visible, float("-inf"))[:, None]
