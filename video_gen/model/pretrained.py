"""Model folders: `config.json` and `model.safetensors`, from a local folder or the Hub. Nothing is ever unpickled."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from video_gen.config import Config, validate
from video_gen.errors import ConfigError, DataError
from video_gen.files import write_tensors, write_text
from video_gen.model.transformer_config import Weights
from video_gen.model.weights import fill, in_eight_bits, keep_in, weightless
from video_gen.shipped import find_model, looks_like_hub_id, no_such_model

C = TypeVar("C", bound=Config)


class Pretrained:
    """Mixed into an `nn.Module` whose one argument is its `config`, of the class `Config`."""

    Config: type[Config]
    config: Any

    @classmethod
    def from_preset(cls, name: str, **overrides: Any) -> Self:
        """Fresh weights of a named size. Raises: ConfigError."""
        return cls(cls.Config.preset(name, **overrides))  # type: ignore[attr-defined, call-arg]

    @classmethod
    def from_pretrained(cls, path: str | Path, weights: Weights = "fp32", device: str | torch.device = "cpu") -> Self:
        """Load what `save_pretrained` wrote, in eval mode.

        Args:
            path: a local folder, or a Hub id such as "name/model".
            weights: how to keep those of its layers; it is never there as a whole in another way.
        Raises: DataError if files are missing, damaged or hold numbers that are not finite; ConfigError if they don't fit.
        """
        folder = local_folder(path)
        file, stored = folder / "config.json", folder / "model.safetensors"
        config = read_config(cls.Config, file)
        state = StoredWeights(stored)
        try:
            with weightless():
                model = cls(config)  # type: ignore[call-arg]
        except (RuntimeError, MemoryError, OverflowError) as error:
            raise ConfigError(f"{file}: its sizes make no model ({' '.join(str(error).split())[:120]})") from None
        assert isinstance(model, nn.Module)
        check_shapes(state.shapes, model, stored, file)
        for name, x in state.items():
            check_finite({name: x}, cls.__name__, stored)
        keep_in(model, weights)
        fill(model, state.items(), device)
        return model.eval()

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype | None = None) -> None:
        """Write config.json and model.safetensors; each file appears whole.

        Args: dtype: of the floating-point numbers in the file, which loading turns back into float32; None = as they are.
        Raises: DataError if they cannot be written; ConfigError if they are kept in eight bits.
        """
        assert isinstance(self, nn.Module)
        if in_eight_bits(self):
            raise ConfigError(
                f"{folder}: weights kept in eight bits are not saved; load the model with weights fp32 first"
            )
        state = self.state_dict()
        if dtype is not None:
            state = {name: x.to(dtype) if x.is_floating_point() else x for name, x in state.items()}
        write_tensors(Path(folder) / "model.safetensors", state)
        write_text(Path(folder) / "config.json", self.config.model_dump_json(indent=1))


# -------------------- files


def read_config(kind: type[C], file: Path) -> C:
    """Settings from a JSON file of a model folder. Raises: DataError if it is missing or damaged; ConfigError if it doesn't fit."""
    try:
        values = json.loads(_read(file).decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise DataError(f"{file}: damaged: is no text; copy the model again") from None
    except (ValueError, RecursionError) as error:
        what = "is empty" if not file.stat().st_size else f"is no whole JSON ({error})"
        raise DataError(f"{file}: damaged: {what}; copy the model again") from None
    return validate(kind, values, source=str(file))


class StoredWeights:
    """The tensors of a safetensors file by name, each read when it is asked for.

    Raises: DataError if the file is missing, damaged, or a git-lfs pointer.
    """

    def __init__(self, file: Path):
        start = _read(file, 64)
        if start.startswith(b"version https://git-lfs"):
            raise DataError(f"{file}: is a git-lfs pointer and not the weights; fetch them with `git lfs pull`")
        if not start:
            raise DataError(f"{file}: damaged: is empty; copy the model again")
        self.file = file
        with self._explained():
            self._opened: Any = safe_open(file, "pt")
            self.shapes = {name: tuple(self._opened.get_slice(name).get_shape()) for name in self._opened.keys()}  # noqa: SIM118

    def read(self, name: str) -> Tensor:
        with self._explained():
            return self._opened.get_tensor(name)

    def items(self) -> Iterator[tuple[str, Tensor]]:
        for name in self.shapes:
            yield name, self.read(name)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (ValueError, OSError, KeyError, SafetensorError) as error:
            reason = " ".join(str(error).split())[:200]
            raise DataError(f"{self.file}: damaged ({reason}); copy the model again") from None


def read_weights(file: Path) -> dict[str, Tensor]:
    """Tensors by name. Raises: as `StoredWeights`."""
    return dict(StoredWeights(file).items())


def _read(file: Path, size: int = -1) -> bytes:
    try:
        with file.open("rb") as stream:
            return stream.read(size)
    except FileNotFoundError:
        raise DataError(
            f"{file}: not there; vae/, transformer/ and text/ each hold config.json and their weights"
        ) from None
    except PermissionError:
        raise DataError(f"{file}: permission denied; change its rights") from None
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}") from None


def check_shapes(have: Mapping[str, tuple[int, ...]], model: nn.Module, weights: Path, config: Path) -> None:
    """Raises: ConfigError if the weights are not those of a model of these sizes, of which nothing need be allocated yet."""
    want = {name: tuple(x.shape) for name, x in model.state_dict().items()}
    if want == have:
        return
    different = [name for name in want if name in have and want[name] != have[name]]
    missing, other = [name for name in want if name not in have], [name for name in have if name not in want]
    if different:
        why = f"{different[0]} is {have[different[0]]}, and by the sizes there {want[different[0]]}"
    else:
        why = f"{missing[0]} is missing" if missing else f"it holds {other[0]}, which such a model has not"
    count = len(different) + len(missing) + len(other)
    more = f" (and {count - 1} more)" if count > 1 else ""
    remedy = "copy both from the same model, or train it anew if an earlier version made it"
    raise ConfigError(f"{weights}: does not fit {config}: {why}{more}; {remedy}")


def check_finite(state: dict[str, Tensor], name: str, source: object) -> None:
    """Raises: DataError if weights are NaN or infinite: every video would be black."""
    for key, x in state.items():
        if x.is_floating_point() and not torch.isfinite(x).all():
            raise DataError(
                f"{source}: the weights of this {name} are broken: {key} is not finite (NaN or infinite); "
                "copy the model again, or train from an earlier checkpoint"
            )


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
