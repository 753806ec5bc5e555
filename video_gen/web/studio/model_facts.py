"""What a model's folder says of it, without loading it: parts with their sizes, out of the heads of their files. No torch."""

import json
import os
import stat
from collections import Counter
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any

from video_gen.web.studio.plain_files import plain
from video_gen.web.studio.run_folder import best_of

LARGEST_HEAD, LARGEST_TEXT = 64 << 20, 1 << 20
MOST_FILES, DEEPEST = 500, 3
WEIGHTS = ".safetensors"
CARDS = ("README.md", "README", "MODEL_CARD.md", "card.md")
LICENCES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE")
ROLES = {
    "transformer": "denoises", "transformer_2": "denoises, where little noise is left", "vae": "pixels and latents",
    "text": "reads the prompt", "text_encoder": "reads the prompt", "image_encoder": "looks at the first frame",
}  # fmt: skip
OF_VAE = ("temporal_stride", "spatial_stride", "latent_channels", "widths")
OF_PUBLIC_VAE = ("z_dim", "scale_factor_temporal", "scale_factor_spatial")
OF_TEXT = ("kind", "name", "width", "max_tokens", "d_model", "num_layers", "vocab_size")


def facts_of(folder: Path) -> dict[str, Any]:
    """A model's parts, its card and what lies beside it, as plain values. What cannot be read is said, and no error."""
    files = list(_files(folder))
    parts = _parts(folder, files)
    card = _text(folder, CARDS)
    front, body = split_card(card)
    licence = front.get("license") or front.get("licence")
    index = _json(folder, "model_index.json")
    own = _json(folder, "model.json")
    return plain({
        "parts": parts,
        "family": own.get("family") or index.get("_class_name"),
        "world": own.get("world"),
        "bytes": sum(part["bytes"] for part in parts),
        "parameters": sum(part["parameters"] for part in parts),
        "vae": _chosen(folder, ("vae",), OF_VAE + OF_PUBLIC_VAE),
        "text": _chosen(folder, ("text", "text_encoder"), OF_TEXT),
        "licence": licence if isinstance(licence, str) else None,
        "licence_text": _text(folder, LICENCES)[:4000] or None,
        "tags": front.get("tags") if isinstance(front.get("tags"), list) else [],
        "card": body or None,
        "best": _best(folder),
        "others": [path.relative_to(folder).as_posix() for path in files if path.suffix in (".json", ".yaml", ".webp")][:60],
    })  # fmt: skip


def split_card(text: str) -> tuple[Mapping[str, Any], str]:
    """What stands at the top between lines of ---, as far as it is simple, and the rest."""
    import yaml

    if not text.startswith("---\n") or (end := text.find("\n---", 4)) < 0 or end > 20_000:
        return {}, text.strip()
    try:
        front = yaml.safe_load(text[4:end]) if text.count("&", 4, end) == 0 else {}  # no references, which can grow
    except (yaml.YAMLError, ValueError, RecursionError):
        front = {}
    return front if isinstance(front, dict) else {}, text[end + 4 :].lstrip("-").strip()


def _best(folder: Path) -> dict[str, Any] | None:
    """The held-out figures of the run that the folder lies in."""
    figures = best_of(folder.parent) or best_of(folder.parent.parent)
    return figures or None


# -------------------- files


def _files(folder: Path) -> Iterator[Path]:
    """Of a model, at most `MOST_FILES`; no folder that is a link is entered."""
    left, count = [(folder, 0)], 0
    while left:
        place, depth = left.pop(0)
        try:
            entries = sorted(os.scandir(place), key=lambda entry: entry.name)
        except OSError:
            continue
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                if depth + 1 < DEEPEST:
                    left.append((Path(entry.path), depth + 1))
                continue
            count += 1
            if count > MOST_FILES:
                return
            yield Path(entry.path)


def _readable(folder: Path, path: Path) -> Path | None:
    """Where it lies: in the folder, or, as the Hub's cache has it, in the blobs beside; None = anywhere else, or no file."""
    try:
        whole, root = path.resolve(strict=True), folder.resolve(strict=True)
        is_file = stat.S_ISREG(whole.stat().st_mode)
    except (OSError, RuntimeError, ValueError):
        return None
    blobs = (
        whole.parent.name == "blobs" and root.parent.name == "snapshots" and whole.parent.parent == root.parent.parent
    )
    return whole if is_file and (whole.is_relative_to(root) or blobs) else None


def _read(folder: Path, name: str) -> bytes:
    path = _readable(folder, folder / name)
    if path is None:
        return b""
    try:
        with path.open("rb") as file:
            return file.read(LARGEST_TEXT)
    except OSError:
        return b""


def _text(folder: Path, names: tuple[str, ...]) -> str:
    return next((text for name in names if (text := _read(folder, name).decode("utf-8", "replace"))), "")


def _json(folder: Path, name: str) -> dict[str, Any]:
    try:
        found = json.loads(_read(folder, name) or b"{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _chosen(folder: Path, places: tuple[str, ...], names: tuple[str, ...]) -> dict[str, Any] | None:
    """What a part's config.json says under these names."""
    for place in places:
        if config := _json(folder, f"{place}/config.json"):
            return {name: config[name] for name in names if isinstance(config.get(name), int | str | list)}
    return None


# -------------------- parts


def _parts(folder: Path, files: list[Path]) -> list[dict[str, Any]]:
    """Each network: the files of one folder, or, of those that lie in the model's own, each file."""
    groups: dict[str, list[Path]] = {}
    for path in files:
        if path.suffix == WEIGHTS:
            place = path.parent.relative_to(folder).as_posix()
            groups.setdefault(path.name if place == "." else place, []).append(path)
    return [_part(folder, name, paths) for name, paths in sorted(groups.items())]


def _part(folder: Path, name: str, paths: list[Path]) -> dict[str, Any]:
    kinds: Counter[str] = Counter()
    told: dict[str, Any] = {"name": name, "role": ROLES.get(name, ""), "files": len(paths), "bytes": 0, "tensors": 0}
    for path in paths:
        whole = _readable(folder, path)
        if whole is None:
            told["error"] = f"{path.name}: leads out of the model's folder"
            continue
        told["bytes"] += whole.stat().st_size
        try:
            head = head_of(whole)
        except ValueError as error:
            told["error"] = f"{path.name}: {error}"
            continue
        for kind, count in head:
            kinds[kind] += count
            told["tensors"] += 1
    return told | {"parameters": sum(kinds.values()), "kinds": dict(kinds.most_common())}


def head_of(path: Path) -> list[tuple[str, int]]:
    """(number format, how many numbers) of each tensor of a safetensors file. Raises: ValueError, which says what is wrong."""
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            if not 2 <= size <= LARGEST_HEAD:
                raise ValueError("is no safetensors file, or damaged")
            tensors = json.loads(file.read(size))
            return [
                (str(tensor["dtype"]), prod(int(side) for side in tensor["shape"]))
                for name, tensor in tensors.items()
                if name != "__metadata__"
            ]
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror})") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
        raise ValueError("is no safetensors file, or damaged") from None
