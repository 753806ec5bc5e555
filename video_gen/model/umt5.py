"""A UMT5 encoder from one .safetensors file, as the original Wan release and ComfyUI name its weights, as transformers' class."""

import re
from pathlib import Path
from typing import Any

from torch import Tensor

from video_gen.errors import ConfigError
from video_gen.model.shards import Shards
from video_gen.model.weights import weightless

OUTER = {
    "token_embedding.weight": "shared.weight",
    "norm.weight": "encoder.final_layer_norm.weight",
}
INNER = {
    "norm1.weight": "layer.0.layer_norm.weight",
    "attn.q.weight": "layer.0.SelfAttention.q.weight",
    "attn.k.weight": "layer.0.SelfAttention.k.weight",
    "attn.v.weight": "layer.0.SelfAttention.v.weight",
    "attn.o.weight": "layer.0.SelfAttention.o.weight",
    "pos_embedding.embedding.weight": "layer.0.SelfAttention.relative_attention_bias.weight",
    "norm2.weight": "layer.1.layer_norm.weight",
    "ffn.gate.0.weight": "layer.1.DenseReluDense.wi_0.weight",
    "ffn.fc1.weight": "layer.1.DenseReluDense.wi_1.weight",
    "ffn.fc2.weight": "layer.1.DenseReluDense.wo.weight",
}
"""The original release's names to those of transformers, outside and inside of `blocks.N`; ComfyUI's are the latter."""
BESIDE = ("spiece_model", "encoder.embed_tokens.weight")
"""What ComfyUI's file holds besides: the tokeniser's model as bytes; and the embedding by its second name."""


def load_umt5(file: Path) -> Any:
    """transformers' UMT5EncoderModel, whose sizes are those of the file's tensors, in the file's type.

    Weights in eight bits become bfloat16. Raises: DataError if the file is damaged; ConfigError if it is no UMT5 encoder.
    Source: names and sizes: Wan-Video/Wan2.1, wan/modules/t5.py (`umt5_xxl`); heads of 64 features.
    """
    import transformers  # type: ignore[import-not-found]

    stored = Shards([file]).without(BESIDE)
    known = {name: to_transformers(name) for name in stored.shapes}
    if strange := next((name for name, theirs in known.items() if theirs is None), None):
        raise ConfigError(
            f"{file}: holds {strange}, and is no UMT5 encoder; take umt5-xxl-enc-bf16.safetensors, umt5_xxl_fp16.safetensors or a "
            "folder of transformers"
        )
    names = {name: str(theirs) for name, theirs in known.items()}
    shapes = {theirs: stored.shapes[name] for name, theirs in names.items()}
    with weightless():
        model = transformers.UMT5EncoderModel(transformers.UMT5Config(**sizes_of(shapes, file)))
    wanted = {name: tuple(x.shape) for name, x in model.state_dict().items() if name not in BESIDE}
    if wrong := sorted(name for name in wanted.keys() | shapes.keys() if wanted.get(name) != shapes.get(name)):
        raise ConfigError(f"{file}: {wrong[0]} is missing, or has another shape than a UMT5 encoder's; copy it again")
    state: dict[str, Tensor] = {names[name]: x for name, x in stored.items()}
    state["encoder.embed_tokens.weight"] = state["shared.weight"]
    model.load_state_dict(state, assign=True)
    return model


def to_transformers(name: str) -> str | None:
    """None if it is no name of a UMT5 encoder."""
    if name in OUTER:
        return OUTER[name]
    if found := re.fullmatch(r"blocks\.(\d+)\.(.+)", name):
        return f"encoder.block.{found[1]}.{INNER[found[2]]}" if found[2] in INNER else None
    found = re.fullmatch(r"encoder\.block\.\d+\.(.+)", name)
    return name if name in OUTER.values() or (found and found[1] in INNER.values()) else None


def sizes_of(shapes: dict[str, tuple[int, ...]], file: Path) -> dict[str, Any]:
    """Raises: ConfigError if names are missing from which sizes are read."""
    first = "encoder.block.0.layer.0.SelfAttention"
    try:
        vocabulary, d_model = shapes["shared.weight"]
        buckets, heads = shapes[f"{first}.relative_attention_bias.weight"]
        inner, d_ff = shapes[f"{first}.q.weight"][0], shapes["encoder.block.0.layer.1.DenseReluDense.wi_0.weight"][0]
    except (KeyError, ValueError) as error:
        raise ConfigError(f"{file}: no whole UMT5 encoder: {error} is missing; copy it again") from None
    layers = 1 + max(int(name.split(".")[2]) for name in shapes if name.startswith("encoder.block."))
    return dict(
        vocab_size=vocabulary, d_model=d_model, d_kv=inner // heads, d_ff=d_ff, num_layers=layers, num_heads=heads,
        relative_attention_num_buckets=buckets,
    )  # fmt: skip
