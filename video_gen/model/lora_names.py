"""How LoRA files name their tensors: the dialects of several tools, as facts, and which parameter of a model each is for.

| dialect | a key | read by |
| --- | --- | --- |
| comfy | `diffusion_model.blocks.0.self_attn.q.lora_A.weight`, `lora_B`, `alpha`, names of the original release | most |
| diffusers | `transformer.blocks.0.attn1.to_q.lora_A.weight`, names of diffusers' classes | diffusers, PEFT |
| kohya | `lora_unet_blocks_0_self_attn_q.lora_down.weight`, `lora_up`, `alpha` | sd-scripts, musubi-tuner |

DiffSynth's and PEFT's files have an adapter's name in front of `weight` (`lora_A.default.weight`). Extracted files also hold whole
differences: `.diff` of a weight, or of a parameter that has no module of its own, and `.diff_b` of a bias.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from video_gen.errors import DataError

Part = Literal["down", "up", "up_bias", "alpha", "diff", "diff_b"]

PREFIXES = (
    "diffusion_model.",
    "model.diffusion_model.",
    "transformer.",
    "base_model.model.",
    "base_model.model.transformer.",
    "pipe.dit.",
    "dit.",
    "model.",
    "unet.",
    "",
)
"""What dialects put in front of a model's own names."""
FLAT_PREFIXES = ("lora_unet_", "lora_transformer_", "lycoris_")
"""In front of names with underscores for dots."""
LOW_RANK = re.compile(
    r"(?P<place>.+?)\.lora[._]?(?P<side>A|B|down|up)(?:\.(?!weight$|bias$)[^.]+)?\.(?P<what>weight|bias)"
)
SINGLE: dict[str, Part] = {"alpha": "alpha", "diff": "diff", "diff_b": "diff_b", "w_norm": "diff", "b_norm": "diff_b"}
"""The last word of other keys; those of norms are LyCORIS's."""
REFUSED = {
    "dora_scale": "DoRA",
    "lora_magnitude_vector": "DoRA",
    "hada_": "LoHa",
    "lokr_": "LoKr",
    "oft_": "OFT",
    "glora": "GLoRA",
    "lora_mid": "LoCon with a middle tensor",
    "lora_embedding": "LoRA of an embedding table",
    "reshape_weight": "a change of a weight's shape",
    "set_weight": "a weight to be put in place of the model's",
}
"""What stands in a key of a kind that is no LoRA, or no plain one."""


@dataclass(frozen=True)
class Key:
    """What a key of a LoRA file says."""

    place: str
    """As the file names it, with prefix."""
    part: Part


def parse(key: str, source: object) -> Key | None:
    """What a key is for; None = it is of no known form. Raises: DataError for a kind of adapter that is not read."""
    for sign, kind in REFUSED.items():
        if sign in key.rpartition(".")[2] or f".{sign}" in key:
            raise DataError(
                f"{source}: '{key}' is of {kind}, which is not read; merge it with the tool that made it, or save it as LoRA"
            )
    if found := LOW_RANK.fullmatch(key):
        up = found["side"] in ("B", "up")
        if found["what"] == "weight":
            return Key(found["place"], "up" if up else "down")
        return Key(found["place"], "up_bias") if up else None
    place, _, last = key.rpartition(".")
    return Key(place, SINGLE[last]) if place and last in SINGLE else None


class Places:
    """Which module, or parameter without one, of a model a file means, however it names it.

    Args:
        parameters: the model's, by its own names.
        foreign: what diffusers calls a module or parameter of the model; None = the same.
    """

    def __init__(self, parameters: Iterable[str], foreign: Callable[[str], str] | None = None):
        self.parameters = set(parameters)
        own = dict.fromkeys(p.removesuffix(".weight").removesuffix(".bias") for p in sorted(self.parameters))
        self.dotted = {name: name for name in own}
        if foreign is not None:
            self.dotted |= {foreign(name): name for name in own} | {name: name for name in own}
        self.flat = {name.replace(".", "_"): place for name, place in self.dotted.items()}

    def find(self, place: str) -> str | None:
        """The model's own name of a place; None = it has none such."""
        for prefix in PREFIXES:
            if place.startswith(prefix) and place[len(prefix) :] in self.dotted:
                return self.dotted[place[len(prefix) :]]
        for prefix in FLAT_PREFIXES:
            if place.startswith(prefix):
                return self.flat.get(place[len(prefix) :].lstrip("_"))
        return None

    def parameter(self, place: str, part: Part) -> str | None:
        """The parameter that a part of a place changes; None = there is none such."""
        bias = part in ("diff_b", "up_bias")
        name = f"{place}.bias" if bias else f"{place}.weight"
        if name in self.parameters:
            return name
        return place if part == "diff" and place in self.parameters else None
