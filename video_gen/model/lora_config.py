"""Settings of LoRA: small matrices that are trained beside a frozen model. No torch here."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from video_gen.config import Config
from video_gen.model.transformer_config import Weights

Dialect = Literal["comfy", "diffusers", "kohya"]
"""Ways in which files name the parts of an adapter, see `lora_files.py`."""


class LoraConfig(Config):
    """LoRA: train small matrices beside a frozen model, which `init` names (model/lora.py)."""

    rank: int = Field(default=0, ge=0, le=4096)
    """Width of the small matrices; 0 = off, and the whole model is trained."""
    alpha: float | None = Field(default=None, gt=0, le=65_536)
    """What they add counts alpha / rank times; default: the rank, so once."""
    targets: tuple[Annotated[str, Field(min_length=1)], ...] = Field(default=("blocks.*",), min_length=1)
    """Which linear layers get some, by name; * stands for anything: blocks.*.self_attn.* for instance. A name that is no layer's
    is an error that lists those there are."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of an adapter's inner features that a training step leaves out."""
    base: Weights = "bf16"
    """How the frozen weights are kept. With loop.precision bf16 that gives the same numbers as fp32, bit for bit; fp8 and int8
    take half as much, and round."""
    offload: Literal["off", "blocks", "tokens"] = "off"
    """`blocks`: frozen weights of the blocks stay in the CPU's memory, and come to the device when they are used. `tokens`: so do,
    with loop.checkpointing full, the tokens that each block begins with, until the backward pass. Same numbers; not with
    loop.checkpointing selective, nor compiled, nor on several devices."""
    start: Path | None = None
    """A LoRA file to go on from, of the same rank and targets, in any dialect that can be read."""
    trigger: str = ""
    """What a prompt should say for it to show; noted in the file."""
    merged: bool = False
    """Write the whole model with the adapter in it, too, as model/merged/."""

    @model_validator(mode="after")
    def _off(self):
        said = self.model_fields_set - {"rank"}
        if not self.rank and any(getattr(self, name) != type(self).model_fields[name].default for name in said):
            raise ValueError(
                f"rank is 0, which is off, but {', '.join(sorted(said))} is given; set rank, to 16 for instance"
            )
        return self

    @property
    def scale(self) -> float:
        """By which the product of the two matrices counts."""
        return 1.0 if self.alpha is None else self.alpha / self.rank
