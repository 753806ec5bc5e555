"""Model folders: `config.json` and `model.safetensors`, from a local folder or the Hub. Nothing is ever unpickled."""

import json
import os
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from video_gen.config import Config, validate
from video_gen.errors import ConfigError, DataError
from video_gen.shipped import find_model, looks_like_hub_id, no_such_model


class Pretrained:
    """Mixed into an `nn.Module` whose one argument is its `config`, of the class `Config`."""

    Config: type[Config]
    config: Any

    @classmethod
    def from_preset(cls, name: str, **overrides: Any) -> Self:
        """Fresh weights of a named size. Raises: ConfigError."""
        return cls(cls.Config.preset(name, **overrides))  # type: ignore[attr-defined, call-arg]

    @classmethod
    def from_pretrained(cls, path: str | Path) -> Self:
        """Load what `save_pretrained` wrote, in eval mode.

        Args: path: a local folder, or a Hub id such as "name/model".
        Raises: DataError if files are missing or damaged; ConfigError if they don't fit this class.
        """
        folder = local_folder(path)
        file, weights = folder / "config.json", folder / "model.safetensors"
        for needed in (file, weights):
            if not needed.is_file():
                raise DataError(f"{needed}: not there; {cls.__name__} needs config.json and model.safetensors")
        try:
            values = json.loads(file.read_text())
            state = load_file(weights)
        except (ValueError, OSError, SafetensorError) as error:
            raise DataError(f"{folder}: damaged ({error}); copy it again") from None
        with torch.device("meta"):
            model = cls(validate(cls.Config, values, source=str(file)))  # type: ignore[call-arg]
        assert isinstance(model, nn.Module)
        model.to_empty(device="cpu")  # keeps the memory format that the constructor chose
        try:
            model.load_state_dict(state)
        except RuntimeError as error:
            reason = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
            raise ConfigError(f"{weights}: does not fit {file}: {reason}") from None
        return model.eval()

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype | None = None) -> None:
        """Write config.json and model.safetensors; each file appears whole.

        Args: dtype: of the floating-point numbers in the file, which loading turns back into float32; None = as they are.
        """
        assert isinstance(self, nn.Module)
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        state = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        if dtype is not None:
            state = {name: x.to(dtype) if x.is_floating_point() else x for name, x in state.items()}
        save_file(state, folder / ".model.safetensors")
        os.replace(folder / ".model.safetensors", folder / "model.safetensors")
        (folder / ".config.json").write_text(self.config.model_dump_json(indent=1))
        os.replace(folder / ".config.json", folder / "config.json")


def local_folder(path: str | Path) -> Path:
    """A local folder as it is, the model of that name that ships with the package, or a Hub id, downloaded or from its cache.

    Raises: DataError, which names the models there are. Only what looks like OWNER/NAME is looked for on the Hub.
    """
    if (folder := find_model(path)) is not None:
        return folder
    if not looks_like_hub_id(path):
        raise no_such_model(path)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        return Path(snapshot_download(str(path)))
    except (OSError, ValueError, HFValidationError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise no_such_model(path, f"no such folder, and not to be had from the Hub: {reason}") from None
