"""LoRA files: any dialect in, each key in its place or an error; out in the one that most tools read, or another."""

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from video_gen.errors import ConfigError, DataError
from video_gen.files import write_tensors
from video_gen.model.lora import Change, Changes, named, own_names
from video_gen.model.lora_config import Dialect
from video_gen.model.lora_names import Part, Places, parse
from video_gen.model.pretrained import StoredWeights, check_finite, local_folder
from video_gen.model.shards import check_file
from video_gen.shipped import looks_like_hub_id

FILE = "lora.safetensors"
"""What a run calls its adapter."""
PEFT_FILE, PEFT_CONFIG = "adapter_model.safetensors", "adapter_config.json"
FILES = (FILE, PEFT_FILE, "pytorch_lora_weights.safetensors")
"""What folders call one; the last is diffusers'."""
PEFT_METADATA = "lora_adapter_metadata"
"""Under which diffusers writes PEFT's settings into a file."""


@dataclass(frozen=True)
class Lora:
    """A LoRA as it lies in a file: changes of parameters, and what is noted of it."""

    changes: Changes
    metadata: dict[str, str] = field(default_factory=dict)


def places_of(model: nn.Module) -> Places:
    """How the parameters of a model may be named; a family whose classes elsewhere have other names says so in `foreign_name`."""
    return Places(own_names(model), getattr(model, "foreign_name", None))


# -------------------- reading


def lora_file(path: str | Path) -> Path:
    """The file that a path means: itself; of a folder the only LoRA in it; of OWNER/NAME on the Hub, or OWNER/NAME/FILE, likewise.

    Raises: DataError if there is none, or several.
    """
    path = Path(path)
    if not path.exists() and looks_like_hub_id(Path(*path.parts[:2])):
        path = _from_hub(path)
    if path.suffix.lower() in (".pt", ".pth", ".ckpt", ".bin"):
        raise DataError(
            f"{path}: is a pickle, which is not read; save its tensors as .safetensors with the tool that made it"
        )
    if not path.is_dir():
        return path
    found = _in_folder(path)
    if len(found) != 1:
        raise DataError(f"{path}: holds {len(found)} .safetensors files; give the LoRA's own path")
    return found[0]


def _from_hub(path: Path) -> Path:
    """A file of the Hub, or the folder of all of a name, from its cache or downloaded. Raises: DataError."""
    if len(path.parts) == 2:
        return local_folder(path)
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HFValidationError

    try:
        return Path(hf_hub_download("/".join(path.parts[:2]), "/".join(path.parts[2:])))
    except (OSError, ValueError, HFValidationError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: no such file, and not to be had from the Hub: {reason}") from None


def file_and_scale(text: str) -> tuple[str, float]:
    """FILE or FILE:SCALE, as the command line says it. Raises: ConfigError if the scale is not finite."""
    file, colon, number = text.rpartition(":")
    try:
        scale = float(number)
    except ValueError:
        return text, 1.0
    if not colon or Path(text).exists():
        return text, 1.0
    if not math.isfinite(scale):
        raise ConfigError(f"--lora {text}: the scale is {number}; give a number, such as 0.8")
    return file, scale


def is_lora(path: Path) -> bool:
    """Whether a path means a LoRA, and not a model. Raises: DataError if its file is damaged."""
    if path.is_dir():
        models = ("model.json", "model_index.json")
        found = _in_folder(path) if not any((path / name).is_file() for name in models) else []
        path = found[0] if len(found) == 1 else path
    if path.suffix != ".safetensors" or not path.is_file():
        return False
    keys = (parse(name, path) for name in _opened(path).shapes)
    return any(key is not None and key.part in ("down", "diff", "diff_b") for key in keys)


def _in_folder(folder: Path) -> list[Path]:
    """What may be the LoRA of a folder: the file that has one of the usual names, else all there are."""
    usual = [folder / name for name in FILES if (folder / name).is_file()]
    return usual[:1] or sorted(folder.glob("*.safetensors"))


def _opened(file: Path) -> StoredWeights:
    """Raises: DataError if there is none, or it is no whole safetensors file: what it is, and what to do."""
    if not file.is_file():
        raise DataError(f"{file}: no such file; give a LoRA's .safetensors, or the folder that holds it")
    check_file(file)
    return StoredWeights(file)


def read_metadata(file: Path) -> dict[str, str]:
    """What a LoRA's file says of itself. Raises: DataError if it is damaged."""
    _opened(file)
    with safe_open(file, "pt") as stored:
        return dict(stored.metadata() or {})


def read_lora(path: str | Path, places: Places) -> Lora:
    """A LoRA of any dialect, for the model that has these places.

    Raises: DataError if it is missing, damaged, or of another kind, or if a key of it belongs nowhere, which lists the first.
    """
    file = lora_file(path)
    tensors = dict(_opened(file).items())
    metadata = read_metadata(file)
    tensors = {
        name: x.float() if x.is_floating_point() and x.element_size() == 1 else x for name, x in tensors.items()
    }  # of fp8 torch knows little
    check_finite(tensors, "LoRA", file)
    found: dict[tuple[str, Part], Tensor] = {}
    said: dict[str, str] = {}
    strangers = []
    for name, tensor in tensors.items():
        key = parse(name, file)
        place = None if key is None else places.find(key.place)
        if key is None or place is None or (key.part != "alpha" and places.parameter(place, key.part) is None):
            strangers.append(name)
        elif (place, key.part) in found:
            raise DataError(f"{file}: {name}: the same place is there twice, in two dialects; take one of them out")
        elif tensor.is_complex() or (key.part != "alpha" and not tensor.is_floating_point()):
            kind = str(tensor.dtype).removeprefix("torch.")
            raise DataError(f"{file}: {name} is kept as {kind}, which is not read here; save it as bf16, fp16 or fp32")
        else:
            found[place, key.part], said[place] = tensor, key.place
    if strangers or not found:
        raise DataError(f"{file}: {_lost(strangers, len(tensors))}")
    scale = _scales(file, metadata)
    return Lora(_changes(found, places, lambda place, rank: scale(said[place], rank), file), metadata)


def _lost(strangers: list[str], count: int) -> str:
    if not strangers:
        return "holds no tensors; it is no LoRA"
    if any(name.startswith(("lora_te", "text_encoder")) for name in strangers):
        why = "some are of a text encoder, which is not adapted here"
    elif not any(parse(name, "") for name in strangers):
        why = "these are no keys of a LoRA"
    else:
        why = "it is of another model"
    return f"{len(strangers)} of its {count} keys belong nowhere in this model: {named(strangers)}; {why}"


def _changes(
    found: Mapping[tuple[str, Part], Tensor], places: Places, scale_of: Callable[[str, int], float], file: Path
) -> Changes:
    changes: Changes = {}
    for place in dict.fromkeys(place for place, _ in found):
        parts = {part: found[key] for key in found for part in (key[1],) if key[0] == place}
        scale = 1.0
        if "down" in parts or "up" in parts:
            if "down" not in parts or "up" not in parts:
                raise DataError(f"{file}: of {place} one of the two matrices is missing; copy the file again")
            rank = _rank(parts["down"], parts["up"], f"{file}: of {place}")
            scale = _alpha(parts["alpha"], file, place) / rank if "alpha" in parts else scale_of(place, rank)
            changes[f"{place}.weight"] = Change(parts["up"], parts["down"], scale)
        elif "alpha" in parts and len(parts) == 1:
            raise DataError(f"{file}: of {place} there is an alpha alone; copy the file again")
        for part in ("diff", "diff_b", "up_bias"):
            if part in parts:
                name = places.parameter(place, part)
                assert name is not None  # looked up before
                if name in changes:
                    raise DataError(
                        f"{file}: {name} is changed twice, by a LoRA and by a difference; merge it elsewhere"
                    )
                changes[name] = Change(parts[part], None, scale if part == "up_bias" else 1.0)
    return changes


def _rank(down: Tensor, up: Tensor, what: str) -> int:
    """Raises: DataError if two matrices are none, or have no rank."""
    for name, matrix in (("down", down), ("up", up)):
        if matrix.ndim < 2 or not matrix.numel():
            raise DataError(
                f"{what} the matrix '{name}' is of shape {tuple(matrix.shape)}, which is none; copy the file again"
            )
    return len(down)


def _alpha(alpha: Tensor, file: Path, place: str) -> float:
    if alpha.numel() != 1:
        raise DataError(f"{file}: of {place} alpha is {alpha.numel()} numbers, and must be one; copy the file again")
    return float(alpha)


def _scales(file: Path, metadata: Mapping[str, str]) -> Callable[[str, int], float]:
    """From a place, as the file names it, and its rank to the scale, where there is no alpha for it: PEFT notes that elsewhere.

    Raises: DataError if the note is damaged.
    """
    beside = file.with_name(PEFT_CONFIG)
    try:
        if PEFT_METADATA in metadata:
            values = {k.removeprefix("transformer."): v for k, v in json.loads(metadata[PEFT_METADATA]).items()}
        elif file.name == PEFT_FILE and beside.is_file():
            values = json.loads(beside.read_text(encoding="utf-8"))
        else:
            return lambda place, rank: 1.0
        usual, root = _noted(values.get("lora_alpha"), "lora_alpha"), values.get("use_rslora")
        patterns = {
            re.compile(rf"(.*\.)?({key})"): _noted(alpha, f"alpha_pattern of {key}")
            for key, alpha in (values.get("alpha_pattern") or {}).items()
        }
    except (ValueError, AttributeError, OSError, re.error) as error:
        raise DataError(f"{file}: what PEFT noted beside its tensors is damaged ({error}); copy it again") from None

    def scale(place: str, rank: int) -> float:
        alpha = next((alpha for pattern, alpha in patterns.items() if pattern.fullmatch(place)), usual)
        return 1.0 if alpha is None else alpha / (math.sqrt(rank) if root else rank)

    return scale


def _noted(alpha: Any, name: str) -> float | None:
    """Raises: ValueError if it is no number, or not finite."""
    if alpha is None:
        return None
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not math.isfinite(alpha):
        raise ValueError(f"{name} is {alpha!r}, and no finite number")
    return float(alpha)


# -------------------- writing


def write_lora(
    file: Path,
    changes: Mapping[str, Change],
    metadata: Mapping[str, str],
    dialect: Dialect = "comfy",
    foreign: Callable[[str], str] | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Write a LoRA, whole or not at all.

    The scale is multiplied into the second matrix, and alpha is the rank. So tools that read no alpha, and those that want one,
    do the same.

    Args:
        foreign: what diffusers calls a module, for its dialect; None = as here.
        dtype: of the numbers; None = as they are.
    Raises: DataError if the dialect has no way to say something, or the file cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    for name, change in changes.items():
        module, bias = name.removesuffix(".weight").removesuffix(".bias"), name.endswith(".bias")
        if change.down is None:
            if dialect == "diffusers":
                raise DataError(
                    f"{file}: {name} differs as a whole, which diffusers' LoRA files cannot say; write comfy or kohya"
                )
            tensors[f"{_said(module, dialect, foreign)}.{'diff_b' if bias else 'diff'}"] = change.up * change.scale
            continue
        place, (down, up) = _said(module, dialect, foreign), PARTS[dialect]
        tensors[f"{place}.{down}.weight"] = change.down
        tensors[f"{place}.{up}.weight"] = change.up * change.scale
        if dialect == "kohya" or (dialect == "comfy" and module.startswith("blocks.")):
            tensors[f"{place}.alpha"] = torch.tensor(
                float(change.rank)
            )  # diffusers refuses a comfy file's outside of blocks
    if dtype is not None:
        tensors = {name: tensor.to(dtype) for name, tensor in tensors.items()}
    write_tensors(file, tensors, {"format": "pt", **metadata})


PARTS = {"comfy": ("lora_A", "lora_B"), "diffusers": ("lora_A", "lora_B"), "kohya": ("lora_down", "lora_up")}


def _said(module: str, dialect: Dialect, foreign: Callable[[str], str] | None) -> str:
    if dialect == "kohya":
        return f"lora_unet_{module.replace('.', '_')}"
    if dialect == "diffusers":
        return f"transformer.{foreign(module) if foreign else module}"
    return f"diffusion_model.{module}"
