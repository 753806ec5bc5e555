"""How a model is made to fit into a device's memory. No torch here."""

from typing import Literal

from pydantic import Field

from video_gen.config import Config
from video_gen.model.transformer_config import Offloading, Weights

TextPlace = Literal["device", "freed", "cpu"]
Branches = Literal["together", "apart"]


class Fit(Config):
    """What is where, and in how many bits, while a model samples. Left as it is, everything is on the device, as it was trained."""

    weights: Weights = "fp32"
    """Of the transformer's layers. `bf16` gives the same numbers in half the memory; `int8` and `fp8` round, to half of that."""
    offload: Offloading = "off"
    """`blocks`: the transformer's stay in the CPU's memory, and each comes to the device when it is its turn. Same numbers."""
    text_encoder: TextPlace = "device"
    """`freed`: loaded when there is a text to encode, and let go of after that; `cpu`: computes on the CPU, where it stays."""
    branches: Branches = "together"
    """Of guidance, with and without the text, and so on: one batch, or one after the other, which takes less memory."""
    vae_tile: int | None = Field(default=None, ge=8, le=65_536)
    """Pixels of a side of the tiles in which frames are encoded and decoded; without it whole frames up to 512x512, else 512."""
    vae_chunk: int | None = Field(default=None, ge=1, le=1_000_000)
    """Latent frames that are encoded or decoded at once; without it 4."""
