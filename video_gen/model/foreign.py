"""What lies before us: weights that this project did not write, known by the names of their tensors and files.

A public model comes as a folder of diffusers (`model_index.json`), as the folder of its original release, or as single files,
one for each part, in folders of a kind of their own (ComfyUI) or in one. A part is found by what its file holds, so that only
diffusers' folders need names of their own. `find` gives the parts of one model; `model/wan/loading.py` builds them.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from video_gen.config import check_known
from video_gen.errors import ConfigError, DataError
from video_gen.model.families import CALLED, KNOWN, Role, expert_of, latent_channels, role_of
from video_gen.model.shards import PICKLES, Shards, check_downloaded, check_file, files_of, pickle_told

INDEX = "model_index.json"
"""What makes a folder one of diffusers."""
PIPELINES = (
    "WanPipeline",
    "WanImageToVideoPipeline",
    "WanVideoToVideoPipeline",
    "WanDMDPipeline",
    "WanCausalDMDPipeline",
)
"""What the index may call a model of the family: diffusers' classes, and FastVideo's for models of few steps."""
CLASSES: dict[str, str | None] = {
    "transformer": "WanTransformer3DModel", "transformer_2": "WanTransformer3DModel", "vae": "AutoencoderKLWan",
    "text_encoder": None, "tokenizer": None, "scheduler": None, "image_encoder": None, "image_processor": None,
}  # fmt: skip
"""The parts that it names, and of some the only class that is known here."""
SETTINGS = ("boundary_ratio", "expand_timesteps", "workload_type")
"""What else it says."""
PLACES = (
    ".", "diffusion_models", "unet", "vae", "text_encoders", "clip", "clip_vision", "high_noise_model", "low_noise_model",
    "transformer", "transformer_2",
)  # fmt: skip
"""Folders within one in which parts are looked for."""


@dataclass(frozen=True)
class Part:
    """One network: its files, and what is said of its sizes beside them."""

    files: tuple[Path, ...]
    config: Path | None = None
    """Its config.json, where there is one."""


@dataclass(frozen=True)
class Found:
    """The parts of one model."""

    root: Path
    """The folder, or the file, as it was named."""
    transformers: tuple[Part, ...]
    """One; or two experts, first the one for much noise."""
    vae: Part
    text: Part | None
    """None: as diffusers' folder, which transformers reads itself."""
    vision: Part | None = None
    tokeniser: Path | None = None
    """The folder of a tokeniser that lies there."""
    index: dict[str, Any] = field(default_factory=dict)
    """diffusers' `model_index.json`."""
    scheduler: dict[str, Any] = field(default_factory=dict)
    """diffusers' scheduler_config.json."""

    @property
    def is_diffusers(self) -> bool:
        return bool(self.index)


def is_foreign(path: Path) -> bool:
    """Whether to look for a public model here, and not for a model folder of this project or a part of one."""
    if path.is_file():
        return True
    if any((path / ours).is_file() for ours in ("model.safetensors", "vae/model.safetensors")):
        return False
    return path.is_dir() and not (path / "model.json").is_file() and any(_looks_like_weights(p) for p in _listed(path))


def find(path: Path) -> Found:
    """The parts of the public model in a folder; or of that whose transformer a file is, the other parts beside it.

    Raises: DataError if files are missing, damaged or no safetensors; ConfigError for another family's, or where several fit.
    """
    if path.is_file():
        return _find_beside(path)
    check_downloaded(path)
    return _find_in_diffusers(path) if (path / INDEX).is_file() else _find_by_names(path)


# -------------------- a folder of diffusers


def _find_in_diffusers(root: Path) -> Found:
    index = read_json(root / INDEX)
    name, source = index.get("_class_name"), str(root / INDEX)
    if name not in PIPELINES:
        raise ConfigError(f"{root}: is diffusers' {name}; {KNOWN}")
    check_known(index, (*CLASSES, *SETTINGS), source)
    named = [key for key in ("transformer", "transformer_2") if class_of(index, key, source)]
    for key in (*named, "vae"):
        if (kind := class_of(index, key, source)) not in (CLASSES[key], None):
            raise ConfigError(f"{source}: {key} is a {kind}, and only {CLASSES[key]} is known here")
    if not named:
        raise ConfigError(f"{source}: names no transformer; copy it again")
    transformers = tuple(_in_folder(root / key, root) for key in named)
    if index.get("boundary_ratio") is not None and len(transformers) == 1:
        other = ({"transformer", "transformer_2"} - set(named)).pop()
        raise DataError(f"{root / other}: is missing, one of two experts of which the model is made; download it, too")
    scheduler = root / "scheduler" / "scheduler_config.json"
    if not scheduler.is_file():
        raise DataError(f"{scheduler}: is missing; download the model again, whole")
    for key in ("text_encoder", "tokenizer"):
        if not (root / key).is_dir():
            raise DataError(f"{root / key}: is missing; download the model again, whole")
    files_of(root / "text_encoder")  # all of those that its index names
    vision = class_of(index, "image_encoder", source) is not None and (root / "image_encoder").is_dir()
    return Found(
        root=root,
        transformers=transformers,
        vae=_in_folder(root / "vae", root),
        text=None,
        vision=_in_folder(root / "image_encoder", root) if vision else None,
        tokeniser=root / "tokenizer",
        index=index,
        scheduler=read_json(scheduler),
    )


def class_of(index: dict[str, Any], key: str, source: str) -> str | None:
    """The class of a part; None = there is none. Raises: ConfigError if that is not said as [library, class]."""
    told = index.get(key)
    if told is None or told == [None, None]:
        return None
    if not isinstance(told, list) or len(told) != 2 or not all(isinstance(word, str) for word in told):
        raise ConfigError(f"{source}: {key} is {told!r}, and must be a library and a class, or null; copy it again")
    return told[1]


def _in_folder(folder: Path, root: Path) -> Part:
    """The one network of a folder, which has a config.json."""
    if not folder.is_dir():
        raise DataError(f"{folder}: is missing; download {root.name} again, whole")
    found = files_of(folder)
    if len(found) != 1:
        pickle = next((file for file in sorted(folder.iterdir()) if file.suffix in PICKLES), None)
        if pickle is not None and not found:
            raise DataError(pickle_told(pickle))
        told = f"holds {len(found)} networks ({', '.join(found)})" if found else "holds no .safetensors"
        raise DataError(f"{folder}: {told}; it must hold one: download {root.name} again, whole")
    config = folder / "config.json"
    if not config.is_file():
        raise DataError(f"{config}: is missing; download {root.name} again, whole")
    return Part(next(iter(found.values())), config)


# -------------------- single files, by what they hold


def _find_beside(file: Path) -> Found:
    """The model whose transformer a file is: its other parts lie beside it, or in the folders beside its own."""
    check_file(file)
    part = _part(_together(file))
    role = role_of(Shards(part.files))
    if role != "transformer":
        raise ConfigError(
            f"{file}: is a {CALLED[role]} alone; give a transformer's file, or the folder of the whole model"
        )
    root = file.parent.parent if file.parent.name in PLACES else file.parent
    if (root / INDEX).is_file():
        raise ConfigError(f"{file}: is a part of diffusers' folder {root}; give that")
    others, _ = _sorted(root)
    others.pop("transformer", None)
    both = (part, _twin(part)) if expert_of(file) else (part,)
    return _made(
        file, root, tuple(sorted((p for p in both if p), key=lambda p: expert_of(p.files[0]) == "low")), others
    )


def _find_by_names(root: Path) -> Found:
    parts, strange = _sorted(root)
    transformers = parts.pop("transformer", [])
    if len(transformers) > 1:
        kinds = [expert_of(part.files[0]) for part in transformers]
        if sorted(map(str, kinds)) != ["high", "low"]:
            raise ConfigError(
                f"{root}: holds several transformers: {_names(transformers)}; give the one as the model, by its file"
            )
        transformers = sorted(transformers, key=lambda part: expert_of(part.files[0]) == "low")
    if not transformers:
        if strange:
            raise strange[0]
        refuse_pickles(root)
        raise DataError(
            f"{root}: holds no transformer as .safetensors; give the folder of a whole public model, or its transformer's file"
        )
    return _made(root, root, tuple(transformers), parts)


def _made(given: Path, root: Path, transformers: tuple[Part, ...], others: dict[Role, list[Part]]) -> Found:
    if len(transformers) == 1 and (kind := expert_of(transformers[0].files[0])):
        other = "low" if kind == "high" else "high"
        raise DataError(
            f"{given}: one of two experts is missing: {_names(transformers)} is that for {kind} noise; "
            f"put the one for {other} noise beside it"
        )
    for role in ("vae", "text"):
        if not others.get(role):
            refuse_pickles(root)
            raise DataError(
                f"{root}: holds no {CALLED[role]} as .safetensors; put it beside the transformer, or into "
                f"{'vae' if role == 'vae' else 'text_encoders'}/"
            )
    if len(others["vae"]) > 1:  # of both releases, of which the transformer takes one
        channels = latent_channels(Shards(transformers[0].files).shapes)
        others["vae"] = [p for p in others["vae"] if latent_channels(Shards(p.files).shapes) == channels] or others[
            "vae"
        ]
    chosen = {role: _only(others.get(role, []), role, root) for role in ("vae", "text", "vision")}
    assert chosen["vae"] is not None
    return Found(given, transformers, chosen["vae"], chosen["text"], chosen["vision"], tokeniser_in(root))


def _only(parts: list[Part], role: Role, root: Path) -> Part | None:
    if len(parts) > 1:
        raise ConfigError(
            f"{root}: holds several parts of one kind, {CALLED[role]}: {_names(parts)}; leave the one that belongs"
        )
    return parts[0] if parts else None


def _sorted(root: Path) -> tuple[dict[Role, list[Part]], list[ConfigError]]:
    """All networks in a folder, and in those within it that are known, by their roles; and why others are none of the family's,
    such as lie in the same folders of ComfyUI."""
    found: dict[Role, list[Part]] = {}
    strange: list[ConfigError] = []
    for place in PLACES:
        folder = root / place
        if not folder.is_dir():
            continue
        for file in sorted(folder.iterdir()):
            if file.suffix.lower() == ".gguf":
                check_file(file)
        for files in files_of(folder).values():
            try:
                found.setdefault(role_of(Shards(files)), []).append(_part(files))
            except ConfigError as error:
                strange.append(error)
    return found, strange


def _part(files: tuple[Path, ...]) -> Part:
    config = files[0].parent / "config.json"
    return Part(files, config if config.is_file() else None)


def _together(file: Path) -> tuple[Path, ...]:
    """The file, and those that hold the rest of the same network."""
    return next((files for files in files_of(file.parent).values() if file in files), (file,))


def _twin(part: Part) -> Part | None:
    """The other expert beside one, whose name differs in that word alone."""
    own = part.files[0]
    known = expert_of(own)
    assert known is not None
    other = "low" if known == "high" else "high"
    for place in {own.parent, own.parent.parent / own.parent.name.replace(known, other)}:
        for files in files_of(place).values() if place.is_dir() else ():
            if files[0] != own and expert_of(files[0]) == other and _bare(files[0]) == _bare(own):
                return _part(files)
    return None


def _bare(file: Path) -> str:
    """A file's name and its folder's without the words that tell experts apart."""
    return re.sub(r"(high|low)", "", f"{file.parent.name}/{file.name}", flags=re.I)


def tokeniser_in(root: Path) -> Path | None:
    """The folder of a UMT5 tokeniser within a model's: `google/umt5-xxl` in the original release."""
    for place in ("google/umt5-xxl", "tokenizer", "umt5-xxl", "text_encoders/umt5-xxl", "text_encoders/tokenizer"):
        folder = root / place
        if any((folder / name).is_file() for name in ("tokenizer.json", "spiece.model", "tokenizer_config.json")):
            return folder
    return None


# -------------------- files


def read_json(file: Path) -> dict[str, Any]:
    """Raises: DataError if it is missing, or no JSON of names and values."""
    try:
        values = json.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise DataError(f"{file}: {(error.strerror or str(error)).lower()}; download the model again, whole") from None
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise DataError(f"{file}: damaged: is no JSON of names and values; download the model again")
    return values


def refuse_pickles(root: Path) -> None:
    """Raises: DataError for the first pickle in a model's folders, which may be what is missing."""
    for place in PLACES:
        folder = root / place
        for file in sorted(folder.iterdir()) if folder.is_dir() else ():
            if file.suffix.lower() in PICKLES:
                raise DataError(pickle_told(file))


def _listed(root: Path) -> list[Path]:
    return [file for place in PLACES if (root / place).is_dir() for file in (root / place).iterdir()]


def _looks_like_weights(file: Path) -> bool:
    return file.name == INDEX or file.suffix.lower() in (".safetensors", ".gguf", ".incomplete", *PICKLES)


def _names(parts: Iterable[Part]) -> str:
    return ", ".join(part.files[0].name for part in parts)
