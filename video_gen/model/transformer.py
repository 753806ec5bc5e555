"""VideoTransformer: one set of weights for a clip in one block, block after block, and an endless stream.

Three streams of tokens go through the same blocks, each in a pass of its own, since none sees a later one:

    text    -> text
    clean   -> clean of its own and earlier blocks            (history: no text, so it serves any prompt)
    noisy   -> text, clean of earlier blocks, noisy of its own block

A pass leaves keys and values per layer for the next. In training the clean pass runs over the whole clip; in sampling it
runs over one finished block at a time and appends to a cache. Both are the same code, so they agree.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from video_gen.errors import ShapeError
from video_gen.model import checkpointing
from video_gen.model.actions import ActionEmbedding, Actions, of_frames
from video_gen.model.attention import SpatiotemporalAttention
from video_gen.model.carry import Before, Carry, Places
from video_gen.model.keys import Context, KeyValue
from video_gen.model.layers import (
    FeedForward,
    NoiseEmbedding,
    PlaceEmbedding,
    RotaryEmbedding,
    TimeEmbedding,
    layer_norm,
    modulate,
    patchify,
    unpatchify,
)
from video_gen.model.pretrained import Pretrained
from video_gen.model.routing import Route
from video_gen.model.runs import fused_kernel
from video_gen.model.spans import Kind, Masks, Plan, count, kept_frames, plan_text, plan_video
from video_gen.model.transformer_config import Checkpointing, TransformerConfig

TEXT, CLEAN, NOISY = range(3)
FIRST_NOISE = 0.1
"""How much a frame's noise does when training begins, where it does something: with nothing, draws would not begin to differ."""


@dataclass(frozen=True)
class TextMemory:
    """The text as every layer sees it."""

    layers: tuple[KeyValue, ...]
    visible: Tensor
    """(b, tokens), False at padding."""
    padded: bool = True
    """False where no sample is known to have padding: then attention needs no mask for it."""
    gap: int | None = None
    """The last tokens are a frame that lies so many frames ahead of what is made; None = there is none."""

    def select(self, keep: Tensor) -> "TextMemory":
        """Some of the samples, by index or mask."""
        layers = tuple(KeyValue(k[keep], v[keep]) for k, v in self.layers)
        return TextMemory(layers, self.visible[keep], self.padded, self.gap)

    def joined(self, others: "Sequence[TextMemory]") -> "TextMemory":
        """One batch of several, padded to the longest; what is padded is not visible, so it changes nothing."""
        memories = (self, *others)
        longest = max(memory.visible.shape[1] for memory in memories)

        def padded(x: Tensor, axis: int) -> Tensor:
            after = [0, 0] * (x.ndim - 1 - axis) + [0, longest - x.shape[axis]]
            return F.pad(x, after)

        layers = tuple(
            KeyValue(*(torch.cat([padded(x, axis=3) for x in parts]) for parts in zip(*layer)))
            for layer in zip(*(memory.layers for memory in memories))
        )
        some_padded = any(memory.padded or memory.visible.shape[1] < longest for memory in memories)
        return TextMemory(layers, torch.cat([padded(memory.visible, axis=1) for memory in memories]), some_padded)

    def towards(self, ahead: "History", gap: int, visible: Tensor | None = None) -> "TextMemory":
        """The text, and a frame to which the video leads.

        Args:
            ahead: a single frame, from `VideoTransformer.encode_history`, as a picture that begins a video is.
            gap: frames between what is made and it; `visible`: (b,), False where a sample is not to see it.
        """
        layers = tuple(
            KeyValue(*(torch.cat([words, frame[:, :, :1]], dim=3) for words, frame in zip(text, own)))
            for text, own in zip(self.layers, ahead.layers)
        )
        b, places = len(self.visible), ahead.layers[0].k.shape[3]
        seen = self.visible.new_ones(b) if visible is None else visible
        every = torch.cat([self.visible, seen[:, None].expand(-1, places)], dim=1)
        return TextMemory(layers, every, self.padded or visible is not None, gap)


@dataclass(frozen=True)
class History:
    """Clean frames as every layer sees them: at most `sink + window` of them, so a stream's memory is constant."""

    layers: tuple[KeyValue, ...]
    frames: int
    latest: Tensor | None = None
    """(b, c, 1, h, w) its last frame, without noise that was put on it, of a model whose tokens hold that; (b, c, 2, h, w) with the
    one before it, where they hold the change, too."""

    def last(self, sink: int, window: int | None) -> "History":
        """Its first `sink` and last `window` frames. Cloned, or the slices would keep the forgotten ones in memory."""
        pieces = kept_frames(self.frames, sink, window)
        if count(pieces) == self.frames:
            return self
        layers = tuple(KeyValue(*(x.clone() for x in layer.frames(pieces))) for layer in self.layers)
        return History(layers, count(pieces), self.latest)


class TransformerBlock(nn.Module):
    """Attention and feed-forward, modulated: shift, scale and gate of both come from the diffusion time, shared by all
    blocks, plus a table of the block's own (PixArt, arXiv:2310.00426, section 2.3)."""

    also_called = ("memory",)
    """Methods besides `forward` that use the parameters: sharding has to know them."""

    def __init__(self, config: TransformerConfig, kind: Kind):
        super().__init__()
        self.attention = SpatiotemporalAttention(config.width, config.head_dim, kind)
        self.feed_forward = FeedForward(config.width, round(config.width * config.mlp_ratio))
        self.table = nn.Parameter(torch.zeros(6, config.width))

    def forward(
        self,
        x: Tensor,
        modulation: Tensor,
        plan: Plan,
        text: KeyValue | None,
        history: KeyValue | None,
        keep: Checkpointing = "off",
    ) -> tuple[Tensor, KeyValue]:
        """`x` (b, f, s, d), `modulation` (b, f, 6, d); `keep`: see `VideoTransformer.checkpointing`.

        Returns: new `x`, and this layer's keys and values.
        """
        return checkpointing.run(self._mix, (x, modulation, plan, text, history), keep)

    def _mix(
        self, x: Tensor, modulation: Tensor, plan: Plan, text: KeyValue | None, history: KeyValue | None
    ) -> tuple[Tensor, KeyValue]:
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self._parts(x, modulation)
        mixed, memory = self.attention(modulate(layer_norm(x), shift_a, scale_a), plan, text, history)
        x = torch.addcmul(x, gate_a, mixed)
        x = torch.addcmul(x, gate_m, self.feed_forward(modulate(layer_norm(x), shift_m, scale_m)))
        return x, memory

    def memory(self, x: Tensor, modulation: Tensor, plan: Plan) -> KeyValue:
        """This layer's keys and values alone."""
        shift, scale = self._parts(x, modulation)[:2]
        return self.attention.exchanged(modulate(layer_norm(x), shift, scale), plan)[1]

    def _parts(self, x: Tensor, modulation: Tensor) -> tuple[Tensor, ...]:
        return (modulation + self.table)[:, :, :, None].to(x.dtype).unbind(2)  # each (b, f, 1, d)


class VideoTransformer(nn.Module, Pretrained):
    """
    Raises: ShapeError if latents, text or history do not fit the configuration.
    """

    Config = TransformerConfig
    history_reads_text = False
    """Whether history depends on the text that was given with it; if not, it serves any."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.config = config
        self.checkpointing: Checkpointing = "off"
        """What a training step keeps of a block's activations; like `train()`, a choice of the moment, and not saved."""
        d, patch = config.width, config.latent_channels * config.patch_size**2
        self.embed_text = nn.Linear(config.text_width, d)
        self.embed_patch = nn.Linear(patch, d)
        self.carry = Carry(config) if config.previous else None
        self.embed_place = PlaceEmbedding(d)
        self.embed_time = TimeEmbedding(d)
        self.embed_actions = ActionEmbedding(config.action_size, d) if config.action_size else None
        self.embed_noise = NoiseEmbedding(config.latent_channels, d) if config.frame_noise else None
        self.stream = nn.Parameter(torch.zeros(3, d))
        self.modulation = nn.Linear(d, 6 * d)
        self.rotary = RotaryEmbedding(config.head_dim, config.rope_theta)
        self.blocks = nn.ModuleList(TransformerBlock(config, self._kind(i)) for i in range(config.depth))
        self.final_modulation = nn.Linear(d, 2 * d)
        self.unembed = nn.Linear(d, patch)
        self._initialise()

    def _kind(self, layer: int) -> Kind:
        if self.config.attention == "joint" or layer % self.config.joint_every == self.config.joint_every - 1:
            return "joint"
        return "space" if layer % 2 == 0 else "time"

    def _initialise(self) -> None:
        d = self.config.width
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=module.in_features**-0.5)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.normal_(self.stream, std=0.02)
        for layer in (self.modulation, self.final_modulation):
            nn.init.zeros_(layer.weight)
        if self.carry is not None:
            self.carry.initialise()
        nn.init.zeros_(self.unembed.weight)
        if self.embed_actions is not None:
            nn.init.zeros_(self.embed_actions.out.weight)
        if self.embed_noise is not None:
            with torch.no_grad():
                self.embed_noise.out.weight.mul_(FIRST_NOISE)
        for block in self.blocks:
            table = cast(TransformerBlock, block).table
            nn.init.normal_(table, std=d**-0.5)
            with torch.no_grad():  # gates: each of 2 * depth sublayers adds its share of a unit of variance
                table[[2, 5]] += (2 * self.config.depth) ** -0.5

    def no_decay(self) -> set[str]:
        """Names of parameters that weight decay leaves alone."""
        return {name for name, _ in self.named_parameters() if name.endswith("table") or name == "stream"}

    # -------------------- the three streams

    def encode_text(self, tokens: Tensor, visible: Tensor) -> TextMemory:
        """`tokens` (b, m, text_width) and `visible` (b, m), False at padding, to what every layer needs of them."""
        if tokens.shape[-1] != self.config.text_width:
            raise ShapeError(f"text tokens have {tokens.shape[-1]} features, the model wants {self.config.text_width}")
        x = (self.embed_text(tokens) + self.stream[TEXT])[:, None]
        t = torch.zeros(x.shape[0], 1, device=x.device)
        padded = not _known_full(visible)
        plan = plan_text(visible, self.config.head_dim, x.dtype, padded)
        return TextMemory(self._memories(x, t, [plan], None), visible, padded)

    def encode_history(
        self,
        latents: Tensor,
        t: Tensor | None = None,
        history: History | None = None,
        blocks: tuple[int, ...] | None = None,
        actions: Actions | None = None,
        text: TextMemory | None = None,
    ) -> History:
        """Append clean frames to the history.

        Args:
            latents: (b, c, f, h, w), clean or with noise of time `t` on them.
            t: (b, f) or (b,) diffusion time of that noise; None = 0.
            blocks: sizes of the blocks the frames came in; None = one.
            actions: that led to the frames; None = nothing is known of them.
            text: not read, see `history_reads_text`.
        """
        f = latents.shape[2]
        x, height, width = self._embed(latents, CLEAN)
        blocks = blocks or (f,)
        kept = history.frames if history else 0
        plans = self._plans(x, (height, width), blocks, kept, kept, None, self_history=True)
        t = torch.zeros(x.shape[0], f, device=x.device) if t is None else t
        new = self._memories(x, t, plans, history, actions=actions)
        layers = tuple(old.append(own) for old, own in zip(history.layers, new)) if history else new
        latest = None
        if self.config.previous:
            older = [history.latest] if history is not None and history.latest is not None else []
            latest = torch.cat([*older, latents], dim=2)[:, :, -2 if self.config.change else -1 :]
        return History(layers, kept + f, latest).last(self.config.sink, self.config.window)

    def denoise(
        self,
        noisy: Tensor,
        t: Tensor,
        text: TextMemory,
        history: History | None = None,
        history_visible: Tensor | None = None,
        actions: Actions | None = None,
    ) -> Tensor:
        """The prediction for one block that follows `history`: (b, c, f, h, w) like `noisy`; `t` (b,) or (b, f).

        `history_visible` (b,) is False where a sample is to see no history, as some did not in training; `actions` are those
        that lead to the block's frames.
        """
        kept, blocks, before = history.frames if history else 0, (noisy.shape[2],), None
        if history is not None and history.latest is not None:
            before = Before.of_history(history.latest, noisy)
        return self._denoise(noisy, t, text, history, blocks, kept, history_visible, actions=actions, before=before)

    def forward(
        self,
        noisy: Tensor,
        t: Tensor,
        text: Tensor,
        text_visible: Tensor,
        clean: Tensor | None = None,
        clean_t: Tensor | None = None,
        blocks: tuple[int, ...] | None = None,
        history_visible: Tensor | None = None,
        ending: Tensor | None = None,
        ending_visible: Tensor | None = None,
        actions: Actions | None = None,
        clean_actions: Actions | None = None,
        before: Tensor | None = None,
        route: Route | None = None,
        context: Context | None = None,
    ) -> Tensor:
        """Training: all blocks of a clip at once, each seeing the clean frames before it (teacher forcing).

        Args:
            noisy: (b, c, f, h, w); `t` (b,) or (b, f).
            text, text_visible: (b, m, text_width) and (b, m).
            clean: (b, c, f, h, w) the history; None = one bidirectional block.
            clean_t: (b, f), noise on the history.
            blocks: sizes that add up to f; `history_visible`: (b,), False where a sample sees no history.
            ending: (b, c, 1, h, w) the picture after the last frame, to which all blocks lead; `ending_visible`: (b,), False
                where a sample does not see it. Neither with a route nor with a context.
            actions, clean_actions: that led to the frames of `noisy`, and of `clean`; None = nothing is known of them.
            before: (b, c, f, h, w), `clean` without its noise, for what is copied from it (`config.previous`); None = `clean`.
            route: places that skip some layers; None = none do.
            context: processes that do this together, all given the same arguments and all returning the same.
        """
        if route is not None and context is not None:
            raise ShapeError(
                "routing.skip and parallel.context both share out the places of a frame; set one of them to 0 or 1"
            )
        if ending is not None and (route is not None or context is not None):
            raise ShapeError(
                "modes.endings shows frames whole, and routing.skip and parallel.context share out their places; set either to 0"
            )
        text_memory = self.encode_text(text, text_visible)
        if ending is not None:
            text_memory = text_memory.towards(self.encode_history(ending), 0, ending_visible)
        f = noisy.shape[2]
        blocks = blocks or (f,)
        if sum(blocks) != f:
            raise ShapeError(f"blocks {blocks} add up to {sum(blocks)} frames, the latents have {f}")
        if clean is None or len(blocks) == 1:
            return self._denoise(noisy, t, text_memory, None, blocks, 0, None, route, context, actions)
        past = f - blocks[-1]
        x, height, width = self._embed(clean[:, :, :past], CLEAN, context)
        plans = self._plans(x, (height, width), blocks[:-1], 0, 0, route, self_history=True, context=context)
        clean_t = torch.zeros(x.shape[0], past, device=x.device) if clean_t is None else clean_t[:, :past]
        history = History(self._memories(x, clean_t, plans, None, route, of_frames(clean_actions, 0, past)), past)
        past_frames = Before.of_clip(clean if before is None else before, blocks) if self.config.previous else None
        return self._denoise(
            noisy, t, text_memory, history, blocks, 0, history_visible, route, context, actions, past_frames
        )

    # -------------------- parts

    def _denoise(
        self,
        noisy: Tensor,
        t: Tensor,
        text: TextMemory,
        history: History | None,
        blocks: tuple[int, ...],
        first: int,
        history_visible: Tensor | None = None,
        route: Route | None = None,
        context: Context | None = None,
        actions: Actions | None = None,
        before: Before | None = None,
    ) -> Tensor:
        noise = None if self.embed_noise is None else self.embed_noise(noisy)
        x, height, width = self._embed(noisy if noise is None else torch.zeros_like(noisy), NOISY, context)
        carried = None
        if self.carry is not None and before is not None:
            x, carried = self.carry.embed(x, before, Places(blocks, first, height, history_visible, context))
        kept = history.frames if history else 0
        hidden = {"text_visible": text.visible, "text_padded": text.padded, "history_visible": history_visible}
        hidden |= {"gap": text.gap}
        plans = self._plans(x, (height, width), blocks, first, kept, route, context=context, **hidden)
        embedded, modulation = self._times(t, actions, noise)
        x = self._layers(x, modulation, plans, text, history, route, self.config.depth)
        shift, scale = self.final_modulation(F.silu(embedded)).to(x.dtype)[:, :, None].chunk(2, dim=-1)
        x = modulate(layer_norm(x), shift, scale)
        patches = self.unembed(x)
        if self.carry is not None and carried is not None:
            patches = self.carry(patches, x, carried)
        if context is not None:
            patches = context.gather(patches, 2)
        return unpatchify(patches, self.config.patch_size, height)

    def _memories(
        self,
        x: Tensor,
        t: Tensor,
        plans: list[Plan],
        history: History | None,
        route: Route | None = None,
        actions: Actions | None = None,
    ) -> tuple[KeyValue, ...]:
        """Keys and values of every layer; the last layer does no more than make them."""
        _, modulation = self._times(t, actions)
        memories: list[KeyValue] = []
        x = self._layers(x, modulation, plans, None, history, route, self.config.depth - 1, memories)
        return (*memories, cast(TransformerBlock, self.blocks[-1]).memory(x, modulation, plans[0]))

    def _layers(
        self,
        x: Tensor,
        modulation: Tensor,
        plans: list[Plan],
        text: TextMemory | None,
        history: History | None,
        route: Route | None,
        depth: int,
        memories: list[KeyValue] | None = None,
    ) -> Tensor:
        """The first `depth` layers; `plans`: for all places, and for the route's; `memories` are given their keys and values, which
        otherwise are gone when the layer is done: those of all layers are larger than all else.

        Returns: tokens.
        """
        whole = None
        for index, block in enumerate(self.blocks[:depth]):
            if route is not None and index == route.first:
                whole, x = x, route.take(x)
            routed = route is not None and index in route
            layer = history.layers[index] if history else None
            words = text.layers[index] if text else None
            x, memory = block(x, modulation, plans[routed], words, layer, self.checkpointing)
            if route is not None and index == route.stop - 1:
                x = route.put(cast(Tensor, whole), x)
            if memories is not None:
                memories.append(memory)
            del memory
        return x

    def _embed(self, latents: Tensor, stream: int, context: Context | None = None) -> tuple[Tensor, int, int]:
        """Tokens (b, f, s, d), with a context of its share of places, and height and width of all in patches."""
        config, (c, h, w) = self.config, (latents.shape[1], *latents.shape[3:])
        if c != config.latent_channels or h % config.patch_size or w % config.patch_size:
            raise ShapeError(
                f"latents of {c} channels, {h}x{w}: the model takes {config.latent_channels} channels, and height and "
                f"width that patch_size {config.patch_size} divides"
            )
        h, w = h // config.patch_size, w // config.patch_size
        patches, places = patchify(latents, config.patch_size), self.embed_place(h, w)
        if context is not None:
            patches, places = context.part(patches, 2), context.part(places, 0)
        x = self.embed_patch(patches)
        return x + (places + self.stream[stream]).to(x.dtype), h, w

    def _times(self, t: Tensor, actions: Actions | None, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """`t` (b,) or (b, f), what was done, and embedded noise (b, f, d), to their embedding (b, f or 1, d) and the shared
        modulation (b, f or 1, 6, d)."""
        embedded = self.embed_time(t if t.ndim == 2 else t[:, None])
        if actions is not None:
            if self.embed_actions is None:
                raise ShapeError("actions for a model that was trained without; train it on clips that have some")
            embedded = embedded + self.embed_actions(actions)
        if noise is not None:
            embedded = embedded + noise
        return embedded, self.modulation(F.silu(embedded)).unflatten(-1, (6, -1))

    def _plans(
        self,
        x: Tensor,
        grid: tuple[int, int],
        blocks: tuple[int, ...],
        first: int,
        kept: int,
        route: Route | None,
        context: Context | None = None,
        **options: Any,
    ) -> list[Plan]:
        """See `attention.plan_video`; with a route a second plan, for the places that stay."""
        ahead = 0 if options.get("gap") is None else options["gap"] + 1
        tables = self.rotary(max(kept, first) + sum(blocks) + ahead, *grid, x.device)
        tables = tuple(table.to(x.dtype) for table in tables)
        options |= {"sink": self.config.sink, "window": self.config.window, "context": context}
        options["masks"] = masks_for(x, self.config.head_dim, context)
        chosen = [tables] if route is None else [tables, tuple(route.table(table) for table in tables)]
        return [plan_video(blocks, first, kept, cast(Any, each), **options) for each in chosen]


def masks_for(x: Tensor, head_dim: int, context: Context | None) -> Masks:
    """How joint attention of `x` is told what is hidden. A GPU has fused kernels for runs in half precision; a ring of
    processes wants gradients of the divisors, too, which FlexAttention has."""
    if not x.is_cuda:
        return "bias"
    if fused_kernel(x.device, x.dtype, head_dim) and (context is None or context.has_all_keys):
        return "runs"
    return "flex" if torch.is_grad_enabled() else "bias"


def _known_full(visible: Tensor) -> bool:
    """No padding in `visible`. A training step on a GPU does not ask, since the answer would have to be waited for, and
    a fake tensor (`video-gen plan`) has none."""
    return type(visible) is Tensor and not (visible.is_cuda and torch.is_grad_enabled()) and bool(visible.all())
