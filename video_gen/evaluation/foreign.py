"""Models of `transformers` that look at frames: loaded from a folder or the Hub, by safetensors alone, and known by their hash."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from video_gen.data.folder import content_hash
from video_gen.errors import ConfigError, DataError
from video_gen.shipped import looks_like_hub_id

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and deviation of colours, where the folder holds no preprocessor_config.json that says others."""
CLASSES = {"clip": "CLIPVisionModelWithProjection", "clip_vision_model": "CLIPVisionModelWithProjection"}
"""Of CLIP the part that looks; of others what `AutoModel` takes."""


@dataclass(frozen=True)
class Foreign:
    name: str
    kind: str
    """`model_type` of its config."""
    model: Any
    weights: str
    """Hash of its files."""
    mean: Tensor
    deviation: Tensor

    def normalise(self, video: Tensor) -> Tensor:
        """(b, 3, ...) in [-1, 1] to what the model was trained on."""
        shape = (1, 3, *(1,) * (video.ndim - 2))
        return ((video + 1) / 2 - self.mean.view(shape)) / self.deviation.view(shape)


def load_foreign(name: str, kinds: tuple[str, ...], option: str, device: torch.device) -> Foreign:
    """A model of one of `kinds`.

    Raises: ConfigError if `transformers` is missing, or it is of another kind; DataError if there is none, or no safetensors.
    """
    try:
        import transformers  # type: ignore[import-not-found]
    except ImportError:
        raise ConfigError(f"--{option} {name} needs transformers; pip install 'video-gen[hf]'") from None
    folder = _folder(name, option)
    try:
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"]
    except (OSError, ValueError, KeyError, TypeError):
        raise DataError(
            f"--{option} {name}: holds no config.json of transformers; give a model's folder or Hub id"
        ) from None
    if kind not in kinds:
        raise ConfigError(f"--{option} {name}: is a {kind}; takes {', '.join(kinds)}")
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise DataError(
            f"--{option} {name}: holds no .safetensors; pickles are not read: save it anew by save_pretrained"
        )
    digest = hashlib.blake2b("".join(map(content_hash, files)).encode(), digest_size=8)
    loader = getattr(transformers, CLASSES.get(kind, "AutoModel"))
    try:
        model = loader.from_pretrained(folder, use_safetensors=True, local_files_only=True)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise DataError(f"--{option} {name}: cannot be loaded ({' '.join(str(error).split())[:160]})") from None
    mean, deviation = (torch.tensor(x, device=device) for x in _colours(folder))
    model = model.to(device).eval().requires_grad_(False)
    return Foreign(Path(name).name, kind, model, digest.hexdigest(), mean, deviation)


def _folder(name: str, option: str) -> Path:
    if Path(name).is_dir():
        return Path(name)
    if not looks_like_hub_id(name):
        raise DataError(f"--{option} {name}: no such folder, and no OWNER/NAME of the Hub")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors"]))
    except (OSError, ValueError, HFValidationError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"--{option} {name}: no such folder, and not to be had from the Hub: {reason}") from None


def _colours(folder: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    for file in ("preprocessor_config.json", "video_preprocessor_config.json"):
        if (folder / file).is_file():
            values = json.loads((folder / file).read_text(encoding="utf-8"))
            if "image_mean" in values and "image_std" in values:
                return tuple(values["image_mean"]), tuple(values["image_std"])
    return IMAGENET
