"""WanTransformer: the public Wan family with this engine's streams of tokens.

Text and pictures come in by cross-attention, so video tokens of the clean stream see them, too:

    text, picture -> nothing; keys and values per layer, once for a prompt
    clean         -> text, clean of its own and earlier blocks
    noisy         -> text, clean of earlier blocks, noisy of its own block

A clip in one block, without history, is what the releases do. Clean frames are passed at diffusion time 0, as in causal models
made of them (CausVid, arXiv:2412.07772; Self-Forcing, arXiv:2506.08009).

Source: arXiv:2503.20314. Differs: padding of the text is one key that counts for many; keys are remembered before rotary
embedding; the velocity has the same sign, and diffusion time runs from 0 to 1 where the release has 0 to 1000.
"""

from typing import Any, cast

import torch
from einops import rearrange
from torch import Tensor, nn

from video_gen.errors import ShapeError
from video_gen.model.actions import Actions
from video_gen.model.keys import Context, KeyValue
from video_gen.model.layers import sinusoids
from video_gen.model.pretrained import Pretrained
from video_gen.model.routing import Route
from video_gen.model.spans import Plan, plan_video
from video_gen.model.transformer import History, TextMemory, masks_for
from video_gen.model.transformer_config import Checkpointing
from video_gen.model.wan.config import WanTransformerConfig
from video_gen.model.wan.layers import Head, PatchEmbedding, PictureEmbedding, WanBlock, Words, dtype_of
from video_gen.model.wan.memory import PADDING, WanMemory, text_bias
from video_gen.model.wan.names import to_diffusers
from video_gen.model.wan.rope import rotary_tables

TEXT_MULTIPLE = 16
"""Text is cut behind its last word at a multiple of so many tokens: compiled code is made once for each length."""


class WanTransformer(nn.Module, Pretrained):
    """
    Raises: ShapeError if latents, text, picture or history do not fit the configuration, or are of a kind that it has not.
    """

    Config = WanTransformerConfig
    history_reads_text = True
    """`encode_history` wants the text."""
    foreign_name = staticmethod(to_diffusers)
    """What diffusers calls a module or parameter."""

    def __init__(self, config: WanTransformerConfig):
        super().__init__()
        self.config = config
        self.checkpointing: Checkpointing = "off"
        """What a training step keeps of a block's activations; like `train()`, a choice of the moment, and not saved."""
        d, patch = config.dim, (1, config.patch_size, config.patch_size)
        self.patch_embedding = PatchEmbedding(config.in_channels, d, patch, patch)
        self.text_embedding = nn.Sequential(nn.Linear(config.text_width, d), nn.GELU("tanh"), nn.Linear(d, d))
        self.time_embedding = nn.Sequential(nn.Linear(config.freq_dim, d), nn.SiLU(), nn.Linear(d, d))
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(d, 6 * d))
        self.blocks = nn.ModuleList(WanBlock(config) for _ in range(config.depth))
        self.head = Head(config)
        if config.image_width is not None:
            self.img_emb = PictureEmbedding(config)
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.xavier_uniform_(self.patch_embedding.weight.flatten(1))
        for layer in (*self.text_embedding, *self.time_embedding):
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=0.02)
        nn.init.zeros_(self.head.head.weight)

    def no_decay(self) -> set[str]:
        """Names of parameters that weight decay leaves alone."""
        return {name for name, p in self.named_parameters() if p.ndim == 1 or name.endswith(("modulation", "emb_pos"))}

    # -------------------- what is known besides the video

    def encode_text(self, tokens: Tensor, visible: Tensor) -> WanMemory:
        """`tokens` (b, m, text_width) and `visible` (b, m), False at padding, to what every layer needs of them."""
        config, b = self.config, tokens.shape[0]
        if tokens.shape[-1] != config.text_width:
            raise ShapeError(f"text tokens have {tokens.shape[-1]} features, the model wants {config.text_width}")
        tokens, visible = _cut(tokens, visible)
        if tokens.shape[1] > config.text_len:
            raise ShapeError(f"a text of {tokens.shape[1]} tokens; the model takes {config.text_len}: shorten it")
        zeros = tokens.new_zeros(b, PADDING, tokens.shape[2])
        seen = torch.cat([visible.new_ones(b, PADDING), visible], dim=1)
        words = self.text_embedding(torch.cat([zeros, tokens], dim=1).to(dtype_of(self.text_embedding[0])))
        layers = tuple(cast(WanBlock, block).words(words) for block in self.blocks)
        return WanMemory(layers, seen, text_len=config.text_len)

    def with_picture(
        self, memory: WanMemory, clip_tokens: Tensor | None = None, beside: Tensor | None = None
    ) -> WanMemory:
        """The text, and a picture from which the video begins.

        Args:
            clip_tokens: (b, m, image_width) of CLIP, with a last picture's behind them where the model takes two.
            beside: (b, in_channels - latent_channels, f, h, w) beside the latents: mask, and latents of the picture.
        """
        config, b = self.config, len(memory.visible)
        if (clip_tokens is None) != (config.image_width is None):
            has = "wants CLIP tokens of a picture" if clip_tokens is None else "takes no CLIP tokens"
            raise ShapeError(f"this model {has} (image_width {config.image_width})")
        picture = None
        if clip_tokens is not None:
            wanted = (b, config.image_positions or clip_tokens.shape[1], config.image_width)
            if tuple(clip_tokens.shape) != wanted:
                raise ShapeError(f"CLIP tokens {tuple(clip_tokens.shape)}, the model wants {wanted}")
            embedded = self.img_emb(clip_tokens)
            picture = tuple(cast(WanBlock, block).picture(embedded) for block in self.blocks)
        if beside is not None and beside.shape[:2] != (b, config.beside_channels):
            raise ShapeError(
                f"{tuple(beside.shape)} beside the latents: the model takes {b} of {config.beside_channels} channels"
            )
        return WanMemory(memory.layers, memory.visible, text_len=memory.text_len, picture=picture, beside=beside)

    # -------------------- the streams of video

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
            text: what they show, with what goes in beside these frames.
        """
        _refuse(actions=actions)
        if not isinstance(text, WanMemory):
            raise ShapeError("history of a Wan transformer has read the text: give it as `text`")
        f = latents.shape[2]
        x, grid = self._embed(latents, text.beside)
        blocks, kept = blocks or (f,), history.frames if history else 0
        plan = self._plan(x, grid, blocks, kept, kept, self_history=True)
        t = torch.zeros(x.shape[0], f, device=x.device) if t is None else t
        new = self._memories(x, t, plan, text, history)
        layers = tuple(old.append(own) for old, own in zip(history.layers, new)) if history else new
        return History(layers, kept + f).last(self.config.sink, self.config.window)

    def denoise(
        self,
        noisy: Tensor,
        t: Tensor,
        text: TextMemory,
        history: History | None = None,
        history_visible: Tensor | None = None,
        actions: Actions | None = None,
    ) -> Tensor:
        """The velocity of one block that follows `history`: (b, c, f, h, w) like `noisy`; `t` (b,) or (b, f).

        `history_visible` (b,) is False where a sample is to see no history.
        """
        _refuse(actions=actions)
        kept = history.frames if history else 0
        return self._denoise(noisy, t, text, history, (noisy.shape[2],), kept, history_visible)

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
        route: Route | None = None,
        context: Context | None = None,
        clip_tokens: Tensor | None = None,
        beside: Tensor | None = None,
    ) -> Tensor:
        """Training: a clip as one block, or all its blocks at once, each seeing the clean frames before it.

        Args:
            noisy: (b, c, f, h, w); `t` (b,) or (b, f).
            text, text_visible: (b, m, text_width) and (b, m).
            clean: (b, c, f, h, w) the history; None = one bidirectional block.
            clean_t: (b, f), noise on the history.
            blocks: sizes that add up to f; `history_visible`: (b,), False where a sample sees no history.
            ending, ending_visible, actions, clean_actions, route: a VideoTransformer's, and refused.
            context: processes that do this together, all given the same arguments and all returning the same.
            clip_tokens, beside: of a picture, see `with_picture`; for all f frames.
        """
        _refuse(ending=ending, actions=actions, clean_actions=clean_actions, route=route)
        memory = self.encode_text(text, text_visible)
        if clip_tokens is not None or beside is not None:
            memory = self.with_picture(memory, clip_tokens, beside)
        f = noisy.shape[2]
        blocks = blocks or (f,)
        if sum(blocks) != f:
            raise ShapeError(f"blocks {blocks} add up to {sum(blocks)} frames, the latents have {f}")
        if clean is None or len(blocks) == 1:
            return self._denoise(noisy, t, memory, None, blocks, 0, None, context)
        past = f - blocks[-1]
        known = memory.frames(0, past)
        x, grid = self._embed(clean[:, :, :past], known.beside, context)
        plan = self._plan(x, grid, blocks[:-1], 0, 0, self_history=True, context=context)
        clean_t = torch.zeros(x.shape[0], past, device=x.device) if clean_t is None else clean_t[:, :past]
        history = History(self._memories(x, clean_t, plan, known, None), past)
        return self._denoise(noisy, t, memory, history, blocks, 0, history_visible, context)

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
        context: Context | None = None,
    ) -> Tensor:
        if not isinstance(text, WanMemory):
            raise ShapeError("a Wan transformer wants text from its own `encode_text`")
        x, grid = self._embed(noisy, text.beside, context)
        kept = history.frames if history else 0
        plan = self._plan(x, grid, blocks, first, kept, history_visible=history_visible, context=context)
        embedded, modulation = self._times(t)
        x = self._layers(x, modulation, plan, text, history, self.config.depth)
        patches = self.head(x, embedded)
        if context is not None:
            patches = context.gather(patches, 2)
        p = self.config.patch_size
        return rearrange(patches, "b f (h w) (p q c) -> b c f (h p) (w q)", h=grid[0], p=p, q=p)

    def _memories(
        self, x: Tensor, t: Tensor, plan: Plan, text: WanMemory, history: History | None
    ) -> tuple[KeyValue, ...]:
        """Keys and values of every layer; the last layer does no more than make them."""
        _, modulation = self._times(t)
        memories: list[KeyValue] = []
        x = self._layers(x, modulation, plan, text, history, self.config.depth - 1, memories)
        return (*memories, cast(WanBlock, self.blocks[-1]).memory(x, modulation, plan))

    def _layers(
        self,
        x: Tensor,
        modulation: Tensor,
        plan: Plan,
        text: WanMemory,
        history: History | None,
        depth: int,
        memories: list[KeyValue] | None = None,
    ) -> Tensor:
        """The first `depth` layers; `memories` are given their keys and values. Returns: tokens."""
        bias = text_bias(text.visible, text.text_len, x.dtype)
        for index, block in enumerate(self.blocks[:depth]):
            layer = history.layers[index] if history else None
            words = Words(text.layers[index], bias, text.picture[index] if text.picture else None)
            x, memory = block(x, modulation, plan, words, layer, self.checkpointing)
            if memories is not None:
                memories.append(memory)
            del memory  # those of all layers are larger than all else
        return x

    def _embed(
        self, latents: Tensor, beside: Tensor | None, context: Context | None = None
    ) -> tuple[Tensor, tuple[int, int]]:
        """Tokens (b, f, s, d), with a context of its share of places, and height and width of all in patches."""
        config, (_, c, _, h, w) = self.config, latents.shape
        if c != config.latent_channels or h % config.patch_size or w % config.patch_size:
            raise ShapeError(
                f"latents of {c} channels, {h}x{w}: the model takes {config.latent_channels} channels, and height and "
                f"width that patch_size {config.patch_size} divides"
            )
        if beside is not None:
            if beside.shape[2:] != latents.shape[2:]:
                raise ShapeError(
                    f"beside latents of (frames, height, width) {tuple(latents.shape[2:])} go a mask and a picture of "
                    f"{tuple(beside.shape[2:])}; give them for these frames"
                )
            latents = torch.cat([latents, beside.to(latents.dtype)], dim=1)
        elif config.beside_channels:
            raise ShapeError(
                f"this model begins with a picture: give the {config.beside_channels} channels of it, see `with_picture`"
            )
        grid = (h // config.patch_size, w // config.patch_size)
        x = self.patch_embedding(latents).permute(0, 2, 3, 4, 1).flatten(2, 3)
        return (x if context is None else context.part(x, 2)), grid

    def _times(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """`t` (b,) or (b, f) to its embedding (b, f or 1, d) and the shared modulation (b, f or 1, 6, d), in float32."""
        t = t if t.ndim == 2 else t[:, None]
        with torch.autocast(t.device.type, enabled=False):
            waves = sinusoids(1000 * t, self.config.freq_dim)
            embedded = self.time_embedding(waves.to(dtype_of(self.time_embedding[0])))
            modulation = self.time_projection(embedded.to(dtype_of(self.time_projection[1])))
        return embedded.float(), modulation.float().unflatten(-1, (6, -1))

    def _plan(
        self, x: Tensor, grid: tuple[int, int], blocks: tuple[int, ...], first: int, kept: int, **options: Any
    ) -> Plan:
        """See `spans.plan_video`."""
        config, positions = self.config, max(kept, first) + sum(blocks)
        tables = rotary_tables(config.head_dim, config.rope_theta, positions, *grid, x.device)
        options |= {"sink": config.sink, "window": config.window}
        masks = masks_for(x, config.head_dim, options.get("context"))
        cos, sin = (table.to(x.dtype) for table in tables)
        return plan_video(blocks, first, kept, (cos, sin), masks=masks, **options)


def _cut(tokens: Tensor, visible: Tensor) -> tuple[Tensor, Tensor]:
    """Text without the padding that no sample needs, which changes nothing but the work. A training step on a GPU does not
    look, since the answer would have to be waited for, and a fake tensor (`video-gen plan`) has none."""
    if type(visible) is not Tensor or visible.is_meta or (visible.is_cuda and torch.is_grad_enabled()):
        return tokens, visible
    last = int((visible.any(dim=0) * torch.arange(1, visible.shape[1] + 1, device=visible.device)).max())
    stop = -(-last // TEXT_MULTIPLE) * TEXT_MULTIPLE
    return tokens[:, :stop], visible[:, :stop]


def _refuse(**given: object) -> None:
    """Raises: ShapeError if something is given that this family has not."""
    for name, value in given.items():
        if value is not None:
            raise ShapeError(f"a Wan transformer takes no {name.replace('clean_', '')}: leave it out")
