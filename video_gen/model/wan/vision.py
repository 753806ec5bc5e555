"""The CLIP picture encoder of Wan 2.1's image to video, by `transformers`: of a picture the tokens before the last layer."""

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from video_gen.config import Config, validate
from video_gen.errors import ConfigError, DataError
from video_gen.files import write_text
from video_gen.model.foreign import Found, read_json
from video_gen.model.frozen_text import whole_name
from video_gen.model.library import load_whole
from video_gen.model.shards import Shards

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""Of CLIP's pixels (Radford et al. 2021, arXiv:2103.00020)."""
PREFIX = "vision_model."
"""Before the names, in files of whole CLIP models and of older versions."""
HEAD_DIM = 80
"""Of ViT-H/14, where no config.json says it."""


Deviation = Annotated[float, Field(gt=0)]


class VisionConfig(Config):
    """Where the encoder is, and how a picture is made for it."""

    name: str
    """A folder or Hub id of transformers, or a .safetensors file."""
    subfolder: str | None = None
    """The folder within it."""
    size: int = Field(default=224, ge=1, le=16_384)
    """Pixels of a side: the shorter side is scaled to it, and the longer one cropped."""
    mean: tuple[float, float, float] = MEAN
    std: tuple[Deviation, Deviation, Deviation] = STD


class PictureEncoder(nn.Module):
    """Frozen. Called with uint8 (b, h, w, 3); returns (b, tokens, width)."""

    def __init__(self, config: VisionConfig, model: nn.Module):
        super().__init__()
        self.config = config
        self.model = model.eval().requires_grad_(False)
        self.width = int(self.model.config.hidden_size)  # type: ignore[union-attr, arg-type]

    def train(self, mode: bool = True) -> "PictureEncoder":
        return super().train(False)

    @torch.no_grad()
    def forward(self, pictures: np.ndarray) -> Tensor:
        weight = next(self.model.parameters())
        seen = torch.stack([self.prepared(one) for one in pictures]).to(weight.device, weight.dtype)
        return self.model(pixel_values=seen, output_hidden_states=True).hidden_states[-2].float()

    def prepared(self, picture: np.ndarray) -> Tensor:
        """uint8 (h, w, 3) as CLIP takes it, (3, size, size): scaled by cubic interpolation, cropped in the middle."""
        from PIL import Image

        h, w, _ = picture.shape
        size, least = self.config.size, min(h, w)
        wide, high = (int(size * side / least) for side in (w, h))
        small = np.asarray(Image.fromarray(picture).resize((wide, high), Image.Resampling.BICUBIC))
        top, left = (high - size) // 2, (wide - size) // 2
        pixels = torch.from_numpy(small[top : top + size, left : left + size].copy()).float() / 255
        return ((pixels - torch.tensor(self.config.mean)) / torch.tensor(self.config.std)).permute(2, 0, 1)

    def save_pretrained(self, folder: str | Path) -> None:
        """Only the name is kept. Raises: DataError if it cannot be written."""
        kept = self.config.replace(name=whole_name(self.config.name))
        write_text(Path(folder) / "config.json", kept.model_dump_json(indent=1))


def vision_config(found: Found, origin: str | Path) -> VisionConfig:
    """How the encoder of a public model is loaded.

    Raises: DataError if its files are damaged; ConfigError if they do not belong together.
    """
    assert found.vision is not None
    if not found.is_diffusers:
        file = found.vision.files[0]
        _, size = _grid(_opened(file))
        return validate(VisionConfig, {"name": str(file.absolute()), "size": size}, source=str(file))
    file = found.root / "image_processor" / "preprocessor_config.json"
    told = read_json(file) if file.is_file() else {}
    takes = read_json(found.vision.config).get("image_size", 224) if found.vision.config else 224
    size = told.get("crop_size", takes)
    if size not in (takes, {"height": takes, "width": takes}):
        raise ConfigError(
            f"{file}: crop_size is {size}, and {found.vision.config} takes {takes}; copy both from the same model"
        )
    values: dict[str, Any] = {key: told[f"image_{key}"] for key in ("mean", "std") if f"image_{key}" in told}
    values |= {"name": str(origin), "subfolder": "image_encoder", "size": takes}
    return validate(VisionConfig, values, source=str(file))


def load_vision(config: VisionConfig) -> PictureEncoder:
    """Raises: ConfigError if the library is missing, or the encoder cannot be loaded; DataError if it is damaged."""
    try:
        import transformers  # type: ignore[import-not-found]
    except ImportError:
        raise ConfigError(
            f"{config.name}: wants transformers, which is not installed; pip install 'video-gen[hf]'"
        ) from None
    if config.name.endswith(".safetensors"):
        return PictureEncoder(config, _from_file(Path(config.name)))
    model = load_whole(transformers.CLIPVisionModel, config.name, "picture encoder", config.subfolder)
    return PictureEncoder(config, model)


def _from_file(file: Path) -> Any:
    """CLIP's vision model with transformers' names, from one file. Raises: ConfigError if that does not hold one, whole."""
    import transformers  # type: ignore[import-not-found]

    shards = _opened(file)
    patch, size = _grid(shards)
    shapes = shards.shapes
    width, inner = shapes["embeddings.patch_embedding.weight"][0], shapes["encoder.layers.0.mlp.fc1.weight"][0]
    layers = 1 + max(int(name.split(".")[2]) for name in shapes if name.startswith("encoder.layers."))
    settings = transformers.CLIPVisionConfig(
        hidden_size=width, intermediate_size=inner, num_hidden_layers=layers, num_attention_heads=max(1, width // HEAD_DIM),
        patch_size=patch, image_size=size, hidden_act="gelu",
    )  # fmt: skip
    model = transformers.CLIPVisionModel(settings)
    theirs = {name.removeprefix(PREFIX): name for name in model.state_dict()}  # older versions have the prefix
    wanted = {name: tuple(model.state_dict()[own].shape) for name, own in theirs.items()}
    shapes = shards.without(("embeddings.position_ids", "visual_projection.weight")).shapes
    if wrong := sorted(name for name in wanted.keys() | shapes.keys() if wanted.get(name) != shapes.get(name)):
        raise DataError(f"{file}: {wrong[0]} is missing, left over or of another shape; download it again")
    model.load_state_dict({theirs[name]: x for name, x in shards.items()})
    return model


def _opened(file: Path) -> Shards:
    """Its tensors under transformers' newer names."""
    return Shards([file]).renamed(lambda name: name.removeprefix(PREFIX))


def _grid(shards: Shards) -> tuple[int, int]:
    """Pixels of a side, of a patch and of a picture. Raises: ConfigError if it is no CLIP vision model."""
    shapes = shards.shapes
    try:
        _, _, patch, _ = shapes["embeddings.patch_embedding.weight"]
        places = shapes["embeddings.position_embedding.weight"][0] - 1
        shapes["encoder.layers.0.mlp.fc1.weight"]
    except (KeyError, ValueError):
        raise ConfigError(
            f"{shards}: is no CLIP vision model under transformers' names; take clip_vision_h.safetensors"
        ) from None
    return patch, patch * round(places**0.5)
