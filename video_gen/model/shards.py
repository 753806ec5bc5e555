"""Weights of others: one model's tensors in one safetensors file or several, under a common prefix, in eight bits with scales.

A tensor is read when it is asked for. What is no safetensors file, or is not whole, is an error that says what it is and what
to do; nothing is ever unpickled.
"""

import json
import re
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from video_gen.errors import ConfigError, DataError
from video_gen.model.pretrained import StoredWeights

PICKLES = (".pth", ".pt", ".ckpt", ".bin", ".pkl")
PREFIXES = (
    "model.diffusion_model.", "diffusion_model.", "generator_ema.model.", "generator_ema.", "generator.model.", "generator.",
    "model.", "module.",
)  # fmt: skip
"""Under which whole models stand in the files of ComfyUI, of CausVid and Self-Forcing, and of wrapped modules."""
WRAPPERS = re.compile(r"(_fsdp_wrapped_module|_checkpoint_wrapped_module|_orig_mod)\.")
"""What torch puts into the names of modules that it wraps, and some checkpoints of training have kept."""
MARKER = "scaled_fp8"
"""ComfyUI's name beside weights in eight bits, of which each `X.weight` has its `X.scale_weight`."""
SCALES = (".scale_weight", ".weight_scale")
INPUT_SCALES = (".scale_input", ".input_scale")
"""For inputs that are rounded, too, which they are not here."""
FORMAT = ".comfy_quant"
"""In newer files, beside each weight in eight bits: bytes of JSON, such as {"format": "float8_e4m3fn"}."""
COUNTS = "position_ids"
"""The end of the names of tensors that are whole numbers, and no weights."""
TAKE = "take the model's bf16, fp16 or fp8_scaled file"
FORMATS = ("float8_e4m3fn", "float8_e5m2")
EIGHT_BITS = (torch.float8_e4m3fn, torch.float8_e5m2)
SHARD = re.compile(r"(?P<name>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.safetensors")


class Shards:
    """The tensors of one model by name, from all of its files.

    Weights in eight bits become bfloat16, multiplied by their scales where they have some.
    Raises: DataError if a file is missing, damaged or no safetensors; ConfigError for a form that is not known.
    """

    def __init__(self, files: Sequence[Path]):
        self.files = tuple(files)
        self._places: dict[str, tuple[StoredWeights, str]] = {}
        for file in files:
            check_file(file)
            stored = StoredWeights(file)
            if twice := next((name for name in stored.shapes if name in self._places), None):
                raise DataError(
                    f"{file}: holds {twice}, which {self._places[twice][0].file} holds, too; keep one of them"
                )
            self._places |= {name: (stored, name) for name in stored.shapes}
        if not self._places:
            raise DataError(f"{self}: holds no tensors; download it again")
        self._strip_prefix()
        self._scales = self._take_scales()

    def __str__(self) -> str:
        return str(self.files[0] if len(self.files) == 1 else self.files[0].parent)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: stored.shapes[kept] for name, (stored, kept) in self._places.items()}

    def read(self, name: str) -> Tensor:
        stored, kept = self._places[name]
        tensor = stored.read(kept)
        if tensor.dtype not in EIGHT_BITS:
            if name in self._scales or not (tensor.is_floating_point() or name.endswith(COUNTS)):
                kind = str(tensor.dtype).removeprefix("torch.")
                scaled = ", with a scale" if name in self._scales else ""
                raise ConfigError(f"{stored.file}: {name} is kept as {kind}{scaled}, which is not read here; {TAKE}")
            return tensor
        if name not in self._scales:
            return tensor.bfloat16()
        place, scale_name = self._scales[name]
        scale = place.read(scale_name).float().flatten()  # one for all, or one for each output
        if len(scale) not in (1, len(tensor)):
            raise ConfigError(
                f"{place.file}: {scale_name} has {len(scale)} scales for the {len(tensor)} outputs of {name}, which is "
                f"not read here; {TAKE}"
            )
        return (tensor.float() * scale.view(-1, *(1 for _ in tensor.shape[1:]))).bfloat16()

    def items(self) -> Iterator[tuple[str, Tensor]]:
        for name in self._places:
            yield name, self.read(name)

    def renamed(self, new: Callable[[str], str]) -> Self:
        """The same under other names, in place. Raises: what `new` does for a name that it does not know."""
        self._scales = {new(name): scale for name, scale in self._scales.items()}
        self._places = {new(name): place for name, place in self._places.items()}
        return self

    def without(self, names: Sequence[str]) -> Self:
        """The same, but for some names, in place."""
        self._places = {name: place for name, place in self._places.items() if name not in names}
        return self

    def _strip_prefix(self) -> None:
        self._places = {WRAPPERS.sub("", name): place for name, place in self._places.items()}
        names = [name for name in self._places if name != MARKER]
        for prefix in PREFIXES:
            if all(name.startswith(prefix) for name in names):
                self._places = {name.removeprefix(prefix): place for name, place in self._places.items()}
                return

    def _take_scales(self) -> dict[str, tuple[StoredWeights, str]]:
        """Of each weight that has a scale the scale's place; these and their markers are taken out of the names."""
        found: dict[str, tuple[StoredWeights, str]] = {}
        for name, (stored, kept) in list(self._places.items()):
            suffix = next((suffix for suffix in (*SCALES, *INPUT_SCALES, FORMAT) if name.endswith(suffix)), None)
            weight = f"{name.removesuffix(suffix or '')}.weight"
            if name != MARKER and (suffix is None or weight not in self._places):
                continue
            if suffix == FORMAT:
                self._check_format(name, stored.file, bytes(stored.read(kept).tolist()))
            if suffix in SCALES:
                found[weight] = (stored, kept)
            del self._places[name]
        return found

    def _check_format(self, name: str, file: Path, content: bytes) -> None:
        try:
            kind = json.loads(content)["format"]
        except (ValueError, KeyError, TypeError):
            kind = "something that is not said"
        if kind not in FORMATS:
            raise ConfigError(f"{file}: {name.removesuffix(FORMAT)} is kept as {kind}, which is not read here; {TAKE}")


# -------------------- files


def check_file(file: Path) -> None:
    """Raises: DataError if it is no whole safetensors file: what it is, and what to do."""
    if file.suffix.lower() in PICKLES:
        raise DataError(pickle_told(file))
    try:
        with file.open("rb") as stream:
            start = stream.read(8)
            size = file.stat().st_size
            header = stream.read(min(struct.unpack("<Q", start)[0], size)) if len(start) == 8 else b""
    except OSError as error:
        raise DataError(f"{file}: {(error.strerror or str(error)).lower()}; download it again") from None
    if start[:4] == b"GGUF" or file.suffix.lower() == ".gguf":
        raise DataError(f"{file}: is a GGUF file, which is not read here; take the .safetensors (bf16, fp16 or fp8)")
    if start == b"version ":
        raise DataError(f"{file}: is a git-lfs pointer and not the weights; fetch them with `git lfs pull`")
    try:
        tensors = {name: one for name, one in json.loads(header).items() if name != "__metadata__"}
        whole = 8 + len(header) + max((int(one["data_offsets"][1]) for one in tensors.values()), default=0)
    except (ValueError, KeyError, TypeError, AttributeError):
        if start[:2] == b"PK" or start[:1] == b"\x80":
            raise DataError(pickle_told(file)) from None
        raise DataError(f"{file}: is no whole safetensors file ({size:,} bytes); download it again") from None
    if size < whole:
        raise DataError(f"{file}: is cut short, {size:,} of {whole:,} bytes; download it again")


def pickle_told(file: Path) -> str:
    """Why a pickle is refused, and how to convert it."""
    convert = (
        "import sys, torch, safetensors.torch as s; d = torch.load(sys.argv[1], weights_only=True, map_location='cpu'); "
        "d = d.get('generator_ema', d.get('generator', d.get('state_dict', d))); "
        "s.save_file({k: v.contiguous() for k, v in d.items()}, sys.argv[2])"
    )
    converted = (
        file.with_suffix(".safetensors") if file.suffix != ".safetensors" else file.with_stem(f"{file.stem}_converted")
    )
    return (
        f"{file}: is a pickle, which can run any code and is not opened here; convert it once, if you trust it: "
        f'python -c "{convert}" {file} {converted}'
    )


def files_of(folder: Path) -> dict[str, tuple[Path, ...]]:
    """The safetensors in a folder by name, a model in several files being one.

    Raises: DataError if a file is missing that an index or the others' numbers name.
    """
    found: dict[str, tuple[Path, ...]] = {}
    for index in sorted(folder.glob("*.safetensors.index.json")):
        found[index.name.removesuffix(".safetensors.index.json")] = _indexed(index)
    indexed = {file for files in found.values() for file in files}
    for file in sorted(folder.glob("*.safetensors")):
        if file in indexed:
            continue
        if not (numbered := SHARD.fullmatch(file.name)):
            found[file.stem] = (file,)
            continue
        name, count = numbered["name"], int(numbered["count"])
        files = tuple(folder / f"{name}-{i:05}-of-{count:05}.safetensors" for i in range(1, count + 1))
        if missing := next((path for path in files if not path.is_file()), None):
            raise DataError(f"{missing}: is missing, one of {count} files of a model; download it again, whole")
        found[name] = files
    return found


def _indexed(index: Path) -> tuple[Path, ...]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        files = tuple(index.parent / name for name in names)
    except (ValueError, KeyError, TypeError, AttributeError, OSError):
        raise DataError(f"{index}: damaged: is no index of weights; download it again") from None
    if missing := next((file for file in files if not file.is_file()), None):
        raise DataError(f"{missing}: is missing, which {index.name} names; download the model again, whole")
    return files


def check_downloaded(folder: Path) -> None:
    """Raises: DataError if a download into the folder did not end."""
    for place in (folder, folder / ".cache" / "huggingface" / "download"):
        if left := next(place.rglob("*.incomplete") if place != folder else place.glob("*.incomplete"), None):
            raise DataError(f"{left}: is half of a download; download {folder.name} again, it goes on where it stopped")
