"""Which network a file holds, and which of two experts: by the names of its tensors, and its own."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from video_gen.errors import ConfigError
from video_gen.model.shards import Shards
from video_gen.model.wan.vae_names import is_wan_vae

Role = Literal["transformer", "vae", "text", "vision"]
KNOWN = "of public models those of the Wan family are read here"
CALLED = {"transformer": "transformer", "vae": "VAE", "text": "UMT5 text encoder", "vision": "CLIP picture encoder"}
OTHERS: dict[str, tuple[str, ...]] = {
    "a LoRA, and no model by itself; give the model that it is for, and this as --lora": (
        "lora_A",
        "lora_down",
        "lora_up",
    ),
    "CLIP under open_clip's names; take ComfyUI's clip_vision_h.safetensors": (
        "visual.cls_embedding",
        "visual.pre_norm.weight",
    ),
    "a HunyuanVideo transformer": ("double_blocks.0.img_attn_qkv", "txt_in.individual_token_refiner"),
    "an LTX-Video transformer": ("patchify_proj.weight", "adaln_single.linear.weight"),
    "a CogVideoX transformer": ("patch_embed.text_proj.weight",),
    "a Mochi transformer": ("blocks.0.attn.qkv_x.weight", "t5_y_embedder"),
    "a Flux transformer": ("double_blocks.0.img_attn.qkv",),
    "a Stable Diffusion network": ("input_blocks.0.0.weight", "down_blocks.0.attentions.0", "first_stage_model."),
    "a VAE of Stable Diffusion's kind": ("encoder.down.0.block.0", "encoder.down_blocks.0.resnets.0.norm1.weight"),
    "a transformer of this project, without the rest of its model folder": ("embed_patch.weight",),
}
"""What other tensors make a file: by a part of a name that only it has. The first that fits counts."""
EXPERTS = ("high", "low")
"""Words in the names of files and folders that tell of two experts, with "noise" behind; or alone, of Wan 2.2's files."""
RELEASE = re.compile(r"2[._]2|wan[-_ ]?22|a14b")
MAKE = r"lora|lightning|lightx2v|model|expert|scaled|comfy|t2v|i2v|a?14b|((fp|bf|int|q|v|r|rank|e|step|epoch)?\d+(steps?|m\d\w*)?)"
BEHIND = rf"(?=$|[-_. ]+({MAKE})(?![a-z0-9]))"
"""What may follow a word that stands alone: an end, or words of a file's make. So "high quality" and "low poly" tell of none."""


def role_of(weights: Shards) -> Role:
    """Raises: ConfigError, which says what else it is."""
    names = weights.shapes
    if is_transformer(names):
        return "transformer"
    if is_wan_vae(names):
        return "vae"
    if _has(names, ("blocks.0.attn.q.weight", "token_embedding.weight")) or _has(
        names, ("encoder.block.0.layer.0.SelfAttention.q.weight", "shared.weight")
    ):
        return "text"
    if "vision_model.embeddings.class_embedding" in names or "embeddings.class_embedding" in names:
        return "vision"
    for kind, signs in OTHERS.items():
        if any(sign in name for sign in signs for name in names):
            raise ConfigError(f"{weights}: is {kind}" + ("" if ";" in kind else f"; {KNOWN}"))
    raise ConfigError(
        f"{weights}: is of no family that is known here, with tensors such as {next(iter(names))}; {KNOWN}"
    )


def latent_channels(shapes: dict[str, tuple[int, ...]]) -> int | None:
    """Of a transformer's tensors or a VAE's, in either dialect."""
    patch = shapes.get("patch_embedding.weight", (1,))[-1]
    names = ("head.head.weight", "proj_out.weight", "conv2.weight", "post_quant_conv.weight")
    return next((shapes[name][0] // patch**2 for name in names if name in shapes), None)


def is_transformer(names: Iterable[str]) -> bool:
    """Of the Wan family, in its own names or diffusers'."""
    return _has(names, ("patch_embedding.weight", "blocks.0.self_attn.q.weight", "head.modulation")) or _has(
        names, ("patch_embedding.weight", "blocks.0.attn1.to_q.weight", "condition_embedder.time_proj.weight")
    )


def _has(names: Iterable[str], wanted: tuple[str, ...]) -> bool:
    return all(name in names for name in wanted)


def expert_of(file: Path) -> str | None:
    """high or low, if a file's name or its folder's says that it is such an expert."""
    for name in (file.stem.lower(), file.parent.name.lower()):
        for kind in EXPERTS:
            alone = RELEASE.search(name) and re.search(rf"(?<![a-z]){kind}{BEHIND}", name)
            if alone or re.search(rf"(?<![a-z]){kind}[-_ ]?noise", name):
                return kind
    return None
