"""Frozen text encoders of the `transformers` library: T5, UMT5, CLIP, decoders such as Gemma and Qwen, by folder or Hub id."""

import hashlib
import html
import re
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from video_gen.errors import ConfigError, DataError, VideoGenWarning
from video_gen.files import check_text, write_text
from video_gen.model.library import load_whole
from video_gen.model.pretrained import check_finite, read_config
from video_gen.model.transformer_config import TextConfig
from video_gen.model.umt5 import load_umt5

SINGLE_FILE = ".safetensors"


class TransformersTextEncoder(nn.Module):
    """A frozen encoder by folder or Hub id.

    Raises: ConfigError if the library is missing, or the encoder cannot be loaded.
    """

    def __init__(self, config: TextConfig):
        super().__init__()
        name = check_there(config)
        try:
            self.tokeniser = tokeniser_of(config)
            model = single_file(name) if name.endswith(SINGLE_FILE) else encoder_of(name, config.subfolder)
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            if isinstance(error, ConfigError | DataError):
                raise
            reason = " ".join(str(error).split())[:200]
            raise ConfigError(f"text.name '{name}': cannot be loaded: {reason}") from None
        self.tokeniser.padding_side = "right"  # so that a text's tokens do not move with the batch
        if self.tokeniser.pad_token is None:  # as with Llama; what is padded is not seen
            self.tokeniser.pad_token = self.tokeniser.eos_token
        self.config = config
        self.model = model.eval().requires_grad_(False)
        self.width = int(self.model.config.hidden_size)

    def train(self, mode: bool = True) -> "TransformersTextEncoder":
        """Stays in eval mode: a frozen encoder drops nothing out."""
        return super().train(False)

    def tokenise(self, texts: list[str]) -> Tensor:
        """(b, m, 2) int64: token ids and the attention mask.

        Raises: DataError if a text is too long, where it is not to be cut, or none, or if the encoder has no such tokens.
        """
        for text in texts:
            check_text(text, "the caption")
        read = [mended(text) for text in texts] if self.config.clean else texts
        # some tokenisers make nothing of an empty text, which must have a token, too
        read = [text if self.tokeniser(text, verbose=False)["input_ids"] else self.tokeniser.pad_token for text in read]
        found, most = self.tokeniser(read, padding=True, return_tensors="pt", verbose=False), self.config.max_tokens
        if found["input_ids"].shape[1] > most:
            for text, count in zip(texts, found["attention_mask"].sum(1).tolist()):
                self._too_long(text, count)
            found = self.tokeniser(read, padding=True, truncation=True, max_length=most, return_tensors="pt")
        self._check_known(found["input_ids"])
        return torch.stack([found["input_ids"], found["attention_mask"]], dim=-1)

    def _check_known(self, ids: Tensor) -> None:
        """Raises: DataError if the tokeniser is another encoder's, so that this one has no such tokens."""
        count = self.model.get_input_embeddings().num_embeddings
        if int(ids.max()) >= count:
            raise DataError(
                f"text.name '{self.config.name}': its tokeniser makes token {int(ids.max())}, and the encoder has {count}; copy "
                "both from the same model"
            )

    def _too_long(self, text: str, count: int) -> None:
        """Say so of a text that is; Python shows the same warning once. Raises: DataError if it is not to be cut."""
        most, told = self.config.max_tokens, f"caption '{text[:40]}...' makes {count} tokens"
        if count <= most:
            return
        if self.config.too_long == "error":
            raise DataError(f"{told}, at most {most} are taken; shorten it, or raise text.max_tokens")
        warnings.warn(f"{told}; the first {most} are used", VideoGenWarning, stacklevel=1)

    @torch.no_grad()
    def forward(self, entries: Tensor) -> tuple[Tensor, Tensor]:
        """(b, m, 2) to tokens (b, m, width), and (b, m) bool, False at padding."""
        ids, mask = entries.unbind(-1)
        return self.model(input_ids=ids, attention_mask=mask).last_hidden_state.float(), mask.bool()

    def save_pretrained(self, folder: str | Path) -> None:
        """Only the name is kept: the weights are the library's."""
        save_text_config(self.config, folder)


# -------------------- the library's models


def single_file(name: str) -> Any:
    model = load_umt5(Path(name))
    check_finite(model.state_dict(), "text encoder", name)
    return model


def encoder_of(name: str, subfolder: str | None = None) -> Any:
    """The part of a `transformers` model that reads text: of T5 and its kin the encoder alone, of CLIP that of the text, and of
    a language model its layers without the head."""
    import transformers  # type: ignore[import-not-found]

    where = {"subfolder": subfolder} if subfolder else {}
    settings = transformers.AutoConfig.from_pretrained(name, **where)
    told = (name, "text encoder", subfolder)
    alone = {"t5": "T5EncoderModel", "mt5": "MT5EncoderModel", "umt5": "UMT5EncoderModel", "clip": "CLIPTextModel"}
    alone["clip_text_model"] = "CLIPTextModel"
    if kind := alone.get(settings.model_type):
        return load_whole(getattr(transformers, kind), *told)
    model = load_whole(transformers.AutoModel, *told)
    if settings.is_encoder_decoder:
        return model.get_encoder()
    return next((getattr(model, part) for part in ("text_model", "language_model") if hasattr(model, part)), model)


def tokeniser_of(config: TextConfig) -> Any:
    """Raises: what the library does, if there is none."""
    import transformers  # type: ignore[import-not-found]
    from huggingface_hub import snapshot_download

    name, own = str(config.name), config.tokeniser
    inside = config.subfolder if own is None else own if "/" not in own else None
    if own is not None and inside is None:
        name = own
    if inside is None:
        return transformers.AutoTokenizer.from_pretrained(name)
    # not by the library's own `subfolder`, which asks the Hub for more than there is, and fails without it
    root = Path(name) if is_local(name) else Path(snapshot_download(name, allow_patterns=[f"{inside}/*"]))
    return transformers.AutoTokenizer.from_pretrained(str(root / inside))


def mended(text: str) -> str:
    """A caption as Wan was trained on: wrongly decoded letters and HTML made good, all spaces made one.

    Raises: ConfigError if `ftfy` is missing.
    Source: Wan-Video/Wan2.1, wan/modules/tokenizers.py, `clean='whitespace'`.
    """
    try:
        import ftfy  # type: ignore[import-not-found]
    except ImportError:
        raise ConfigError("text.clean needs ftfy, which is not installed; pip install 'video-gen[hf]'") from None
    return re.sub(r"\s+", " ", html.unescape(html.unescape(ftfy.fix_text(text)))).strip()


# -------------------- names


def check_there(config: TextConfig) -> str:
    """The name of an encoder that can be there. Raises: ConfigError if the library is missing, or a folder or file is."""
    assert config.name is not None  # the config checks that
    try:
        import transformers  # type: ignore[import-not-found]  # noqa: F401
    except ImportError:
        raise ConfigError(
            f"text.name is '{config.name}', but transformers is not installed; pip install 'video-gen[hf]'"
        ) from None
    if is_local(config.name) and not Path(config.name).exists():
        kind = "file" if config.name.endswith(SINGLE_FILE) else "folder"
        raise ConfigError(
            f"text.name '{config.name}': no such {kind}; put the text encoder back there, or name where it is"
        )
    return config.name


def is_local(name: str) -> bool:
    """Whether a text encoder's name is that of a folder or file, and cannot be one of the Hub."""
    path = Path(name)
    return (
        path.is_absolute()
        or name.startswith((".", "~"))
        or name.count("/") > 1
        or path.suffix == SINGLE_FILE
        or path.is_dir()
    )


def whole_name(name: str | None) -> str | None:
    """A text encoder's name as it holds from any working folder: the absolute path of a folder or file, or the Hub's name."""
    return str(Path(name).absolute()) if name is not None and Path(name).exists() else name


def load_text_config(folder: str | Path) -> TextConfig:
    """Raises: DataError if there is none, or it is damaged; ConfigError if it does not fit."""
    return read_config(TextConfig, Path(folder) / "config.json")


def save_text_config(config: TextConfig, folder: str | Path) -> None:
    """Of a text encoder in a folder the whole path is kept. Raises: DataError if it cannot be written."""
    own = config.tokeniser
    kept = config.replace(name=whole_name(config.name), tokeniser=whole_name(own) if own and "/" in own else own)
    write_text(Path(folder) / "config.json", kept.model_dump_json(indent=1))


def encoder_fingerprint(config: TextConfig) -> str:
    """16 hexadecimal digits of a `transformers` encoder's files, and of how it reads; it is not loaded.

    Files of the Hub's cache are known by the names of their blobs, which are hashes; others are read.
    Raises: ConfigError if there is none.
    """
    digest = hashlib.blake2b(digest_size=8)
    for path in _files_of(config):
        digest.update(path.name.encode())
        if path.is_symlink():
            digest.update(path.resolve().name.encode())
            continue
        with path.open("rb") as stream:
            while piece := stream.read(1 << 22):
                digest.update(piece)
    if config.clean or config.too_long == "cut":
        digest.update(f"{config.clean} {config.too_long} {config.max_tokens}".encode())
    return digest.hexdigest()


def _files_of(config: TextConfig) -> list[Path]:
    name = str(config.name)
    if name.endswith(SINGLE_FILE):
        return [Path(check_there(config))]
    try:
        from transformers.utils import cached_file  # type: ignore[import-not-found]

        where = {"subfolder": config.subfolder} if config.subfolder else {}
        found = cached_file(name, "config.json", **where)
    except (ImportError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"text.name '{name}': cannot be found: {reason}") from None
    kept = (".json", ".safetensors", ".txt", ".model")
    return sorted(path for path in Path(str(found)).parent.iterdir() if path.suffix in kept)
