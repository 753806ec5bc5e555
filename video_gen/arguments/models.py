"""What can be said to `model`."""

from pathlib import Path
from typing import Annotated, Literal

from video_gen.arguments.groups import LoraOptions
from video_gen.config import FLAT, POSITIONAL, Config
from video_gen.model.lora_config import Dialect


class ModelMerge(Config):
    """Write a model with LoRAs in it. From then on they cost nothing, and cannot be taken out."""

    base: Annotated[Path, POSITIONAL] = Path("model")
    """A model folder, a name, or OWNER/NAME on the Hub."""
    output: Annotated[Path, POSITIONAL] = Path("merged")
    """The new model's folder."""
    learned: Annotated[LoraOptions, FLAT] = LoraOptions()


class ModelExport(Config):
    """Write a model of the Wan family, or a LoRA, as another tool reads it. As a folder of diffusers or as ComfyUI's files; a LoRA
    in any dialect."""

    model: Annotated[Path, POSITIONAL] = Path("model")
    """A model folder, a public model, OWNER/NAME on the Hub; or a LoRA's file."""
    output: Annotated[Path, POSITIONAL] = Path("exported")
    """A folder to make; or a .safetensors file, for a LoRA, and for ComfyUI's transformer alone."""
    to: Dialect = "diffusers"
    """Whose; `kohya` names the parts of a LoRA as sd-scripts and musubi-tuner do."""
    dtype: Literal["bf16", "fp32"] = "bf16"
    """Of the transformer's numbers, or the LoRA's."""
    learned: Annotated[LoraOptions, FLAT] = LoraOptions()
    base: Path | None = None
    """Of a LoRA that is not of a Wan model: the model that it is for."""


class ModelCard(Config):
    """Write the card of a model or a LoRA. What it is, how it is used, and how it was trained, for whoever it is shared with."""

    path: Annotated[Path, POSITIONAL] = Path("model")
    """A model folder, such as runs/demo/diffusion/model; or a LoRA."""
    output: Path | None = None
    """Default: README.md beside it; what is there is kept."""


class ModelPush(Config):
    """Share a model or a LoRA on the Hub, with its card. As whoever is logged in there (`hf auth login`)."""

    path: Annotated[Path, POSITIONAL] = Path("model")
    """A model folder, or a LoRA."""
    repo: Annotated[str, POSITIONAL] = "OWNER/NAME"
    """Where to; it is made if it is not there."""
    private: bool = False
    """Make it one that others cannot see."""
    message: str = "A model of Video Gen"
    """What the upload is called."""
