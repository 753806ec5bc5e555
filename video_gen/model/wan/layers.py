"""Parts of the Wan transformer, under the original release's names.

Wan turns features 2i and 2i + 1 of a head together, this engine i and i + n/2. The order of a head's features makes no
difference to a product of queries and keys, so both are put into this engine's order, and the rest is as everywhere.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from video_gen.model import checkpointing
from video_gen.model.attention import attend, attend_frames
from video_gen.model.keys import KeyValue
from video_gen.model.spans import Plan
from video_gen.model.transformer_config import Checkpointing
from video_gen.model.wan.config import WanTransformerConfig


class Words(NamedTuple):
    """What one layer's cross-attention sees."""

    text: KeyValue
    """(b, heads, 1, tokens, head_dim)"""
    bias: Tensor
    """(b, 1, 1, tokens), added to scores: see `memory.text_bias`."""
    picture: KeyValue | None = None
    """Of a picture's CLIP tokens, (b, heads, 1, tokens, head_dim): a softmax of its own, added to the text's."""


class RMSNorm(nn.Module):
    """Over all heads together (arXiv:1910.07467)."""

    def __init__(self, width: int, eps: float):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), self.eps).to(x.dtype)


class AffineNorm(nn.LayerNorm):
    """Layer norm with scale and shift of its own, in the dtype of what comes in, whatever that of its weights."""

    def forward(self, input: Tensor) -> Tensor:
        weight, bias = self.weight.to(input.dtype), self.bias.to(input.dtype)
        return F.layer_norm(input, self.normalized_shape, weight, bias, self.eps).to(input.dtype)


class PatchEmbedding(nn.Conv3d):
    """Patches to tokens. Patches don't overlap, so it is one product of matrices, which is faster than a convolution."""

    def forward(self, input: Tensor) -> Tensor:
        """(b, c, f, h, w) to (b, d, f, h / p, w / p), whose features lie beside each other in memory."""
        _, p, q = self.kernel_size
        b, c, f, h, w = input.shape
        patches = (
            input.to(self.weight.dtype).view(b, c, f, h // p, p, w // q, q).permute(0, 2, 3, 5, 1, 4, 6).flatten(4)
        )
        return F.linear(patches, self.weight.flatten(1), self.bias).permute(0, 4, 1, 2, 3)


class SelfAttention(nn.Module):
    """Over space and time together."""

    def __init__(self, config: WanTransformerConfig):
        super().__init__()
        d = config.dim
        self.head_dim = config.head_dim
        self.q, self.k, self.v, self.o = (nn.Linear(d, d) for _ in range(4))
        self.norm_q, self.norm_k = (RMSNorm(d, config.eps) for _ in range(2))

    def project(self, x: Tensor, plan: Plan) -> tuple[Tensor, KeyValue]:
        """`(b, f, s, d)` to queries `(b, heads, f, s, head_dim)`, keys and values, as a context has dealt them out."""
        q, k = self._turned(self.norm_q(self.q(x))), self._turned(self.norm_k(self.k(x)))
        own = KeyValue(k, self.v(x).unflatten(-1, (-1, self.head_dim)).permute(0, 3, 1, 2, 4))
        return (q, own) if plan.context is None else plan.context.enter(q, own)

    def forward(self, x: Tensor, plan: Plan, history: KeyValue | None) -> tuple[Tensor, KeyValue]:
        """`x` (b, f, s, d). Returns: the same, and the stream's own keys and values."""
        q, own = self.project(x, plan)
        mixed = attend_frames(q, own, plan, None, history)
        if plan.context is not None:
            mixed = plan.context.leave(mixed)
        return self.o(mixed.permute(0, 2, 3, 1, 4).flatten(3)), own

    def _turned(self, x: Tensor) -> Tensor:
        """`(b, f, s, d)` to `(b, heads, f, s, head_dim)`, of each head the even features and then the odd ones."""
        return x.unflatten(-1, (-1, self.head_dim // 2, 2)).permute(0, 3, 1, 2, 5, 4).flatten(4)


class CrossAttention(nn.Module):
    """Of video tokens to the text, and to a picture where one is given."""

    def __init__(self, config: WanTransformerConfig):
        super().__init__()
        d = config.dim
        self.head_dim = config.head_dim
        self.q, self.k, self.v, self.o = (nn.Linear(d, d) for _ in range(4))
        self.norm_q, self.norm_k = (RMSNorm(d, config.eps) for _ in range(2))
        if config.image_width is not None:
            self.k_img, self.v_img = (nn.Linear(d, d) for _ in range(2))
            self.norm_k_img = RMSNorm(d, config.eps)

    def words(self, text: Tensor) -> KeyValue:
        """Keys and values of a text `(b, m, d)`."""
        return KeyValue(self._heads(self.norm_k(self.k(text))), self._heads(self.v(text)))

    def picture(self, tokens: Tensor) -> KeyValue:
        """Keys and values of a picture `(b, m, d)`."""
        return KeyValue(self._heads(self.norm_k_img(self.k_img(tokens))), self._heads(self.v_img(tokens)))

    def forward(self, x: Tensor, words: Words) -> Tensor:
        q = self.norm_q(self.q(x)).flatten(1, 2).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
        mixed = attend(q, words.text.k[:, :, 0], words.text.v[:, :, 0], words.bias)
        if words.picture is not None:
            mixed = mixed + attend(q, words.picture.k[:, :, 0], words.picture.v[:, :, 0], None)
        return self.o(mixed.transpose(1, 2).flatten(2).unflatten(1, x.shape[1:3]))

    def _heads(self, x: Tensor) -> Tensor:
        """(b, m, d) to (b, heads, 1, m, head_dim)"""
        return x.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)[:, :, None]


class WanBlock(nn.Module):
    """Self-attention, cross-attention and feed-forward. The first and the last are modulated, from the diffusion time by
    numbers that all blocks share plus a table of the block's own."""

    also_called = ("memory", "words", "picture")
    """Methods besides `forward` that use the parameters: sharding has to know them."""

    def __init__(self, config: WanTransformerConfig):
        super().__init__()
        d = config.dim
        self.eps = config.eps
        self.self_attn = SelfAttention(config)
        self.norm3 = AffineNorm(d, config.eps)
        self.cross_attn = CrossAttention(config)
        self.ffn = nn.Sequential(nn.Linear(d, config.ffn_dim), nn.GELU("tanh"), nn.Linear(config.ffn_dim, d))
        self.modulation = nn.Parameter(torch.randn(1, 6, d) * d**-0.5)

    def forward(
        self,
        x: Tensor,
        modulation: Tensor,
        plan: Plan,
        words: Words,
        history: KeyValue | None,
        keep: Checkpointing = "off",
    ) -> tuple[Tensor, KeyValue]:
        """`x` (b, f, s, d), `modulation` (b, f or 1, 6, d) in float32; `keep`: see `WanTransformer.checkpointing`.

        Returns: new `x`, and this layer's keys and values.
        """
        return checkpointing.run(self._mix, (x, modulation, plan, words, history), keep)

    def _mix(
        self, x: Tensor, modulation: Tensor, plan: Plan, words: Words, history: KeyValue | None
    ) -> tuple[Tensor, KeyValue]:
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self._parts(modulation)
        mixed, memory = self.self_attn(modulated(x, shift_a, scale_a, self.eps), plan, history)
        x = gated(x, gate_a, mixed)
        x = x + self.cross_attn(self.norm3(x), words)
        return gated(x, gate_m, self.ffn(modulated(x, shift_m, scale_m, self.eps))), memory

    def memory(self, x: Tensor, modulation: Tensor, plan: Plan) -> KeyValue:
        """This layer's keys and values alone."""
        shift, scale = self._parts(modulation)[:2]
        return self.self_attn.project(modulated(x, shift, scale, self.eps), plan)[1]

    def words(self, text: Tensor) -> KeyValue:
        """Keys and values of a text `(b, m, d)`."""
        return self.cross_attn.words(text)

    def picture(self, tokens: Tensor) -> KeyValue:
        """Keys and values of a picture `(b, m, d)`."""
        return self.cross_attn.picture(tokens)

    def _parts(self, modulation: Tensor) -> tuple[Tensor, ...]:
        return (modulation + self.modulation.float())[:, :, :, None].unbind(2)  # each (b, f or 1, 1, d)


class Head(nn.Module):
    """Tokens to patches of what the network says."""

    def __init__(self, config: WanTransformerConfig):
        super().__init__()
        self.eps = config.eps
        self.head = nn.Linear(config.dim, config.latent_channels * config.patch_size**2)
        self.modulation = nn.Parameter(torch.randn(1, 2, config.dim) * config.dim**-0.5)

    def forward(self, x: Tensor, embedded: Tensor) -> Tensor:
        """`x` (b, f, s, d) and the time's embedding (b, f or 1, d), float32, to (b, f, s, p * p * c)."""
        shift, scale = (embedded[:, :, None] + self.modulation.float())[:, :, :, None].unbind(2)
        return self.head(modulated(x, shift, scale, self.eps))


class PictureEmbedding(nn.Module):
    """CLIP tokens of a picture, or of a first and a last one, to tokens beside the text."""

    def __init__(self, config: WanTransformerConfig):
        super().__init__()
        width, d = config.image_width or 0, config.dim
        self.proj = nn.Sequential(
            AffineNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, d), AffineNorm(d)
        )
        positions = config.image_positions
        self.emb_pos = None if positions is None else nn.Parameter(torch.zeros(1, positions, width))

    def forward(self, tokens: Tensor) -> Tensor:
        """(b, m, image_width) to (b, m, d)."""
        tokens = tokens.to(dtype_of(self.proj[1]))
        return self.proj(tokens if self.emb_pos is None else tokens + self.emb_pos.to(tokens.dtype))


def dtype_of(module: nn.Module) -> torch.dtype:
    """That of its weights, in which it works."""
    return next(module.parameters()).dtype


def modulated(x: Tensor, shift: Tensor, scale: Tensor, eps: float) -> Tensor:
    """Layer norm, scaled and shifted in float32, in the dtype of `x`."""
    normed = F.layer_norm(x, x.shape[-1:], eps=eps)
    return torch.addcmul(shift, normed, 1 + scale).to(x.dtype)


def gated(x: Tensor, gate: Tensor, change: Tensor) -> Tensor:
    """`x + gate * change` in float32, in the dtype of `x`."""
    return torch.addcmul(x, gate, change).to(x.dtype)
