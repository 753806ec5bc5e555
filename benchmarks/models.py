"""Transformers of one size from here and from diffusers, behind one call: `model(latents, t, text)` to a velocity."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from benchmarks.measure import Setting
from video_gen.model.transformer import VideoTransformer
from video_gen.model.transformer_config import TransformerConfig

CHANNELS, PATCH = 16, 2
WIDTH, DEPTH, HEAD_DIM, TEXT_TOKENS = 512, 4, 64, 64
QUICK_WIDTH, QUICK_DEPTH, QUICK_TEXT_TOKENS = 64, 2, 8
GRIDS = {64: (4, 4, 4), 512: (8, 8, 8), 2048: (8, 16, 16), 8192: (32, 16, 16)}
"""Tokens as (frames, height, width) of patches."""


@dataclass(frozen=True)
class Size:
    """What all models of a comparison have in common."""

    grid: tuple[int, int, int]
    batch: int = 1
    width: int = WIDTH
    depth: int = DEPTH
    text_tokens: int = TEXT_TOKENS

    @classmethod
    def of(cls, tokens: int, setting: Setting, batch: int = 1) -> "Size":
        small = {"width": QUICK_WIDTH, "depth": QUICK_DEPTH, "text_tokens": QUICK_TEXT_TOKENS} if setting.quick else {}
        return cls(GRIDS[tokens], batch, **small)

    @property
    def heads(self) -> int:
        return max(1, self.width // HEAD_DIM)

    @property
    def head_dim(self) -> int:
        return self.width // self.heads

    def inputs(self, setting: Setting) -> tuple[Tensor, Tensor, Tensor]:
        """Latents (b, c, f, h, w), times (b,) and text (b, m, width)."""
        f, h, w = self.grid
        shape, device, generator = (self.batch, CHANNELS, f, PATCH * h, PATCH * w), setting.device, setting.generator()
        latents = torch.randn(shape, device=device, generator=generator)
        text = torch.randn((self.batch, self.text_tokens, self.width), device=device, generator=generator)
        return latents, torch.rand((self.batch,), device=device, generator=generator), text


@dataclass(frozen=True)
class Entry:
    """A model that can be built at any size."""

    name: str
    build: Callable[[Size], nn.Module]
    """A module of (latents, t, text) to latents."""
    ours: str = ""
    """For a peer: the entry of ours that has as many parameters and the same kind of attention; "" for ours."""


class Ours(nn.Module):
    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.model = VideoTransformer(config)

    def forward(self, latents: Tensor, t: Tensor, text: Tensor, **extra: Any) -> Tensor:
        visible = torch.ones(text.shape[:2], dtype=torch.bool, device=text.device)
        return self.model(latents, t, text, visible, **extra)


def our_config(size: Size, mlp_ratio: float, attention: Literal["joint", "factorised"]) -> TransformerConfig:
    return TransformerConfig(
        latent_channels=CHANNELS,
        patch_size=PATCH,
        width=size.width,
        depth=size.depth,
        head_dim=size.head_dim,
        text_width=size.width,
        mlp_ratio=mlp_ratio,
        attention=attention,
    )


class Wan(nn.Module):
    def __init__(self, size: Size):
        from diffusers import WanTransformer3DModel

        super().__init__()
        self.model = WanTransformer3DModel(
            patch_size=(1, PATCH, PATCH),
            num_attention_heads=size.heads,
            attention_head_dim=size.head_dim,
            in_channels=CHANNELS,
            out_channels=CHANNELS,
            text_dim=size.width,
            ffn_dim=4 * size.width,
            num_layers=size.depth,
        )

    def forward(self, latents: Tensor, t: Tensor, text: Tensor) -> Tensor:
        return self.model(latents, (1000 * t).long(), text, return_dict=False)[0]


class LTX(nn.Module):
    """Its patches are folded outside of the model, as its pipeline does."""

    def __init__(self, size: Size):
        from diffusers import LTXVideoTransformer3DModel

        super().__init__()
        patch = CHANNELS * PATCH**2
        self.model = LTXVideoTransformer3DModel(
            in_channels=patch,
            out_channels=patch,
            num_attention_heads=size.heads,
            attention_head_dim=size.head_dim,
            cross_attention_dim=size.width,
            num_layers=size.depth,
            caption_channels=size.width,
        )

    def forward(self, latents: Tensor, t: Tensor, text: Tensor) -> Tensor:
        from video_gen.model.layers import patchify, unpatchify

        b, _, f, h, w = latents.shape
        h, w = h // PATCH, w // PATCH
        mask = torch.ones(text.shape[:2], device=text.device)
        tokens = patchify(latents, PATCH).flatten(1, 2)
        sizes = {"num_frames": f, "height": h, "width": w}
        made = self.model(tokens, text, (1000 * t).long(), mask, **sizes, return_dict=False)[0]
        return unpatchify(made.view(b, f, h * w, -1), PATCH, h)


class CogVideoX(nn.Module):
    """Its modulation is a projection per block: the embedding of time before it is narrowed to bring its parameters, not
    its work, to those of the others."""

    def __init__(self, size: Size):
        from diffusers import CogVideoXTransformer3DModel
        from diffusers.models.embeddings import get_3d_rotary_pos_embed

        super().__init__()
        f, h, w = size.grid
        self.model = CogVideoXTransformer3DModel(
            num_attention_heads=size.heads,
            attention_head_dim=size.head_dim,
            in_channels=CHANNELS,
            out_channels=CHANNELS,
            time_embed_dim=size.width // 8,
            text_embed_dim=size.width,
            num_layers=size.depth,
            sample_width=PATCH * w,
            sample_height=PATCH * h,
            sample_frames=4 * (f - 1) + 1,
            patch_size=PATCH,
            max_text_seq_length=size.text_tokens,
            use_rotary_positional_embeddings=True,
        )
        cos, sin = get_3d_rotary_pos_embed(size.head_dim, ((0, 0), (h, w)), grid_size=(h, w), temporal_size=f)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def forward(self, latents: Tensor, t: Tensor, text: Tensor) -> Tensor:
        rotary = (self.get_buffer("cos"), self.get_buffer("sin"))
        frames = latents.transpose(1, 2)
        made = self.model(frames, text, (1000 * t).long(), image_rotary_emb=rotary, return_dict=False)[0]
        return made.transpose(1, 2)


class Latte(nn.Module):
    """Factorised: `depth` blocks are half over space, half over time."""

    def __init__(self, size: Size):
        from diffusers import LatteTransformer3DModel

        super().__init__()
        f, h, _ = size.grid
        self.model = LatteTransformer3DModel(
            num_attention_heads=size.heads,
            attention_head_dim=size.head_dim,
            in_channels=CHANNELS,
            num_layers=size.depth // 2,
            cross_attention_dim=size.width,
            attention_bias=True,
            sample_size=PATCH * h,
            patch_size=PATCH,
            activation_fn="gelu-approximate",
            num_embeds_ada_norm=1000,
            norm_type="ada_norm_single",
            norm_elementwise_affine=False,
            norm_eps=1e-6,
            caption_channels=size.width,
            video_length=f,
        )

    def forward(self, latents: Tensor, t: Tensor, text: Tensor) -> Tensor:
        return self.model(latents, (1000 * t).long(), text, return_dict=False)[0]


OURS_4, OURS_6, OURS_FACTORISED = "Video Gen, ffn 4x", "Video Gen, ffn 6x", "Video Gen, factorised, ffn 5x"
ENTRIES = (
    Entry(OURS_4, lambda size: Ours(our_config(size, 4, "joint"))),
    Entry(OURS_6, lambda size: Ours(our_config(size, 6, "joint"))),
    Entry(OURS_FACTORISED, lambda size: Ours(our_config(size, 5, "factorised"))),
    Entry("Wan", Wan, ours=OURS_6),
    Entry("LTX-Video", LTX, ours=OURS_6),
    Entry("CogVideoX", CogVideoX, ours=OURS_4),
    Entry("Latte (factorised)", Latte, ours=OURS_FACTORISED),
)
EQUAL = (
    "Held equal: width {width}, depth {depth}, heads of {head_dim}, {text} text tokens, patches of 1x2x2 of 16 channels, "
    "batch {batch}, bfloat16; random weights and inputs. Peers keep their usual feed-forward of 4 times the width; those with "
    "cross-attention then have a third more parameters than ours, so ours is measured with a wider feed-forward too, "
    "and each peer is compared with the one of ours that has as many parameters (column). Latte attends to space and time in turn, "
    "and so is compared with our factorised model."
)


def equal(size: Size) -> str:
    sizes = {"width": size.width, "depth": size.depth, "head_dim": size.head_dim, "text": size.text_tokens}
    return EQUAL.format(**sizes, batch=size.batch)


def parameters(module: nn.Module) -> float:
    """In millions."""
    return sum(p.numel() for p in module.parameters()) / 1e6


def compile_blocks(module: nn.Module) -> None:
    """Compile each block of a model's lists of blocks: what both sides recommend, and minutes shorter than the whole."""
    for part in module.modules():
        if isinstance(part, nn.ModuleList) and any("Block" in type(block).__name__ for block in part):
            for block in part:
                block.compile(dynamic=False)


def build(entry: Entry, size: Size, form: str, setting: Setting, master: torch.dtype) -> nn.Module:
    """A model with weights of `master`: bfloat16 to infer, float32 to train under autocast."""
    torch.manual_seed(0)
    module = filled(entry.build(size).to(setting.device, master))
    if form == "compiled":
        compile_blocks(module)
    return module


@torch.no_grad()
def filled(module: nn.Module) -> nn.Module:
    """What starts at zero would make products of zeros, which some machines do faster."""
    for p in module.parameters():
        if not p.any():
            p.normal_(std=0.02)
    return module
