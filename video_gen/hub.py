"""Sharing on the Hub: a model folder, or a LoRA, with a card, and nothing that only this machine has."""

from pathlib import Path
from typing import Any, Protocol

from video_gen.card import CARD, card
from video_gen.errors import ConfigError, DataError
from video_gen.files import write_text
from video_gen.model.frozen_text import is_local
from video_gen.model.lora_files import PEFT_CONFIG, is_lora, lora_file
from video_gen.model.pretrained import read_config
from video_gen.model.transformer_config import TextConfig
from video_gen.model.wan.vision import VisionConfig
from video_gen.sampling.parts import SECOND
from video_gen.shipped import HUB_ID

PARTS = ("vae", "transformer", SECOND, "text", "vision")
SHOWN = (".png", ".jpg", ".webp", ".gif", ".mp4")
"""What a card can show."""


class Hub(Protocol):
    """What of `huggingface_hub.HfApi` is used."""

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> Any: ...

    def upload_folder(
        self,
        *,
        repo_id: str,
        folder_path: Path,
        commit_message: str,
        allow_patterns: list[str],
    ) -> Any: ...

    def upload_file(
        self, *, path_or_fileobj: Path | bytes, path_in_repo: str, repo_id: str, commit_message: str
    ) -> Any: ...


def write_card(path: Path, output: Path | None = None) -> Path:
    """Write the card of a model or LoRA beside it. A card that is there is kept. Raises: DataError if one is there already."""
    file = output or (path if path.is_dir() else path.parent) / CARD
    if file.exists():
        raise DataError(f"{file}: is there already, and is kept; give another place with --output")
    write_text(file, card(path))
    return file


def push_to_hub(
    path: Path, repo: str, private: bool = False, message: str = "A model of Video Gen", hub: Hub | None = None
) -> str:
    """Send a model folder or a LoRA, with its card, which is made if there is none.

    Args:
        repo: OWNER/NAME, which is made if it is not there.
        hub: who sends it; None = huggingface_hub, as whoever is logged in.
    Returns: the address.
    Raises: ConfigError for an impossible name; DataError if the folder is no model, if it names what only this machine has, or if
        the Hub says no.
    """
    if not HUB_ID.fullmatch(repo):
        raise ConfigError(f"'{repo}' is no name on the Hub; give OWNER/NAME")
    if not path.exists():
        raise DataError(f"{path}: no such model; give a model folder, or a LoRA")
    check_shareable(path)
    alone = path.is_file()
    place = path.parent if alone else path
    text = None if (place / CARD).is_file() else card(path)
    hub = hub or _hub()
    try:
        hub.create_repo(repo, private=private, exist_ok=True)
        if text is not None and not alone:
            write_text(place / CARD, text)
        if alone:
            hub.upload_file(path_or_fileobj=path, path_in_repo=path.name, repo_id=repo, commit_message=message)
            about = (text or (place / CARD).read_text(encoding="utf-8")).encode()
            hub.upload_file(path_or_fileobj=about, path_in_repo=CARD, repo_id=repo, commit_message=message)
        else:
            hub.upload_folder(repo_id=repo, folder_path=place, commit_message=message, allow_patterns=belonging(place))
    except (OSError, ValueError) as error:  # what huggingface_hub raises is one of them
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(f"{repo}: the Hub did not take it: {reason}; `hf auth login` logs in") from None
    return f"https://huggingface.co/{repo}"


def belonging(folder: Path) -> list[str]:
    """The files that are sent of a model folder or a LoRA's: its own, its card, and the pictures that the card names."""
    if is_lora(folder):
        own = [lora_file(folder).name, PEFT_CONFIG]
    else:
        own = ["model.json", *(f"{part}/{name}" for part in PARTS for name in ("config.json", "model.safetensors"))]
    text = (folder / CARD).read_text(encoding="utf-8") if (folder / CARD).is_file() else ""
    shown = [file.name for file in folder.iterdir() if file.suffix.lower() in SHOWN and file.name in text]
    return [name for name in (*own, CARD, *sorted(shown)) if (folder / name).is_file()]


def check_shareable(path: Path) -> None:
    """Raises: DataError if a model folder is none, or names a text or picture encoder in a folder of this machine."""
    if is_lora(path):
        lora_file(path)
        return
    if not (path / "model.json").is_file():
        raise DataError(f"{path}: holds no model.json; give a model folder of this project, or a LoRA")
    for part, kind in (("text", TextConfig), ("vision", VisionConfig)):
        if not (path / part / "config.json").is_file():
            continue
        name = read_config(kind, path / part / "config.json").name
        if name is not None and is_local(name):
            raise DataError(
                f"{path / part}/config.json: its encoder is {name}, which only this machine has; name the one on the Hub there"
            )


def _hub() -> Hub:
    from huggingface_hub import HfApi

    return HfApi()
