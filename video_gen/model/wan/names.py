"""Names of the Wan transformer's modules and parameters: the original release's, which are ours, and those of diffusers.

What stands in the tables is a module; names of what is in it follow, and stay as they are.
"""

from video_gen.errors import ConfigError

_ATTENTION = {
    "q": "to_q",
    "k": "to_k",
    "v": "to_v",
    "o": "to_out.0",
    "norm_q": "norm_q",
    "norm_k": "norm_k",
    "k_img": "add_k_proj",
    "v_img": "add_v_proj",
    "norm_k_img": "norm_added_k",
}
OUTER = {
    "patch_embedding": "patch_embedding",
    "text_embedding.0": "condition_embedder.text_embedder.linear_1",
    "text_embedding.2": "condition_embedder.text_embedder.linear_2",
    "time_embedding.0": "condition_embedder.time_embedder.linear_1",
    "time_embedding.2": "condition_embedder.time_embedder.linear_2",
    "time_projection.1": "condition_embedder.time_proj",
    "img_emb.proj.0": "condition_embedder.image_embedder.norm1",
    "img_emb.proj.1": "condition_embedder.image_embedder.ff.net.0.proj",
    "img_emb.proj.3": "condition_embedder.image_embedder.ff.net.2",
    "img_emb.proj.4": "condition_embedder.image_embedder.norm2",
    "img_emb.emb_pos": "condition_embedder.image_embedder.pos_embed",
    "head.head": "proj_out",
    "head.modulation": "scale_shift_table",
}
"""Original name -> diffusers' name, outside of the blocks."""
INNER = {
    **{f"self_attn.{ours}": f"attn1.{theirs}" for ours, theirs in _ATTENTION.items() if "img" not in ours},
    **{f"cross_attn.{ours}": f"attn2.{theirs}" for ours, theirs in _ATTENTION.items()},
    "norm3": "norm2",
    "ffn.0": "ffn.net.0.proj",
    "ffn.2": "ffn.net.2",
    "modulation": "scale_shift_table",
}
"""The same within `blocks.N`."""


def to_diffusers(name: str) -> str:
    """Diffusers' name of a parameter or module of the original release. Raises: ConfigError if there is none of that name."""
    return _renamed(name, OUTER, INNER)


def to_original(name: str) -> str:
    """The original name of a parameter or module of diffusers' class. Raises: ConfigError if there is none of that name."""
    return _renamed(name, _reversed(OUTER), _reversed(INNER))


def _reversed(table: dict[str, str]) -> dict[str, str]:
    return {theirs: ours for ours, theirs in table.items()}


def _renamed(name: str, outer: dict[str, str], inner: dict[str, str]) -> str:
    prefix, rest, table = "", name, outer
    parts = name.split(".", 2)
    if len(parts) == 3 and parts[0] == "blocks" and parts[1].isdigit():
        prefix, rest, table = f"blocks.{parts[1]}.", parts[2], inner
    for module, other in table.items():
        if rest == module or rest.startswith(f"{module}."):
            return prefix + other + rest[len(module) :]
    raise ConfigError(f"'{name}' is no parameter of a Wan transformer")
