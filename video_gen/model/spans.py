"""What one pass of a stream of tokens may see: spans of frames, and how attention is told what is hidden of them.

A block attends to itself and to *history*: keys and values of clean frames before it. Which frames those are is a `Plan` of
spans, not a matrix over all tokens. Keys are remembered before rotary embedding; positions are given when they are read:
history from zero, then the block. So a stream of any length uses the same positions, and the frames between the `sink` and
the `window` can be forgotten.
"""

from dataclasses import dataclass
from itertools import accumulate
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask

from video_gen.model.keys import Bias, Context
from video_gen.model.runs import Block, Runs, fused_kernel

Kind = Literal["joint", "space", "time"]
Masks = Literal["bias", "runs", "flex"]
"""How joint attention is told what is hidden: a `bias` to add; `runs` of keys without one; a block mask for FlexAttention."""
DENSE_TOKENS = 2048
"""Up to so many query tokens one masked product over all blocks is faster than a product per block."""
RUN_TOKENS = 512
"""Blocks of fewer tokens on average are too little work for kernels of their own."""


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
    ahead: int | None = None
    """Position of the frame that lies ahead, whose tokens are the text's last ones; None = there is none."""


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
    gap: int | None = None,
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
        gap: frames between the last block and one that lies ahead, which comes with the text; None = there is none.
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
        if masks == "runs":  # a context that wants runs has all keys, and asks for no others
            joint_bias, places_bias = _runs(rows, text_visible, text_padded, history_visible, cos), None
        else:
            make = _block_mask if masks == "flex" else _joint_bias
            joint_bias = make(hidden, words, sizes, s, dtype)
            places_bias = None if context is None else make(hidden, None, sizes, s, dtype)
        ahead = None if gap is None else position + sum(blocks) - own.start + gap
        result.append(Span(own, pieces, position, joint_bias, places_bias, time_bias, ahead))
    words = text_visible if text_padded else None
    space_bias = None if words is None else _bias(_beside_text(words, None, s), dtype)[:, :, None]
    return Plan(tuple(result), cos, sin, space_bias, self_history, context)


def _dense_mask(blocks: tuple[int, ...], first: int, kept: int, self_history: bool, device: torch.device) -> Tensor:
    """(1, frames, kept + frames) of all blocks at once; right only while no history is forgotten."""
    # from numbers alone: a copy of a list would have a GPU waited for
    frames = torch.arange(sum(blocks), device=device)
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


def starts(blocks: tuple[int, ...]) -> list[int]:
    """For each frame where its block begins."""
    return [sum(blocks[:index]) for index, size in enumerate(blocks) for _ in range(size)]
