"""Captions to tokens: a small byte-level encoder that is trained with the model, or any frozen `transformers` encoder.

Both have `config`, `width`, and are called as `encoder(tokenised) -> (tokens, visible)` with `tokenised = tokenise(texts)`.
"""

import hashlib
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn

from video_gen.errors import ConfigError, DataError
from video_gen.files import write_text
from video_gen.model.layers import sinusoids
from video_gen.model.pretrained import Pretrained, check_finite, read_config
from video_gen.model.transformer_config import NEIGHBOURS, TextConfig

PIECE_BYTES = 12
"""A word of more bytes is cut into pieces: a text without spaces still makes tokens."""
NGRAMS = (1, 2, 3)


class ByteTextEncoder(nn.Module, Pretrained):
    """A token per word: the mean of embeddings of the word and its groups of 1 to 3 bytes, hashed into one table.

    The idea of hashed byte n-grams is that of the Byte Latent Transformer (arXiv:2412.09871, section 3.2.1); a caption of
    ten words costs ten tokens, any UTF-8 works, and nothing has to be downloaded.
    """

    Config = TextConfig

    def __init__(self, config: TextConfig):
        super().__init__()
        self.config, self.width = config, config.width
        self.table = nn.Embedding(config.hash_buckets + 1, config.width, padding_idx=0)
        self.start = nn.Parameter(torch.randn(config.width))
        self.mix = nn.Linear(NEIGHBOURS * config.width, config.width)
        self.out = nn.Linear(config.width, config.width)

    def no_decay(self) -> set[str]:
        return {"table.weight", "start"}

    def tokenise(self, texts: list[str]) -> Tensor:
        """Texts to rows of the table: (b, words, entries) int64, 0 = nothing. Raises: DataError if a text is too long."""
        rows = [[self._entries(piece) for word in text.split() for piece in _pieces(word)] for text in texts]
        for text, row in zip(texts, rows):
            if len(row) >= self.config.max_tokens:
                raise DataError(
                    f"caption '{text[:40]}...' has {len(row)} words, the model takes {self.config.max_tokens - 1}; "
                    "shorten it, or train with a larger text.max_tokens"
                )
        words = max(map(len, rows), default=0)
        entries = max((len(e) for row in rows for e in row), default=1)
        table = torch.zeros(len(texts), words, entries, dtype=torch.long)
        for b, row in enumerate(rows):
            for w, found in enumerate(row):
                table[b, w, : len(found)] = torch.tensor(found)
        return table

    def forward(self, entries: Tensor) -> tuple[Tensor, Tensor]:
        """
        Args: entries: (b, m, k) from `tokenise`.
        Returns: (b, 1 + m, width) tokens, of which the first says no more than that a text begins, so that the empty text
            has a token, too; and (b, 1 + m) bool, False at padding.
        """
        used = entries > 0
        words = self.table(entries).sum(2) / used.sum(2, keepdim=True).clamp(min=1) ** 0.5
        positions = sinusoids(torch.arange(entries.shape[1], device=entries.device), self.width, max_period=256.0)
        padded = F.pad(words, (0, 0, NEIGHBOURS - 1, 0))
        phrases = torch.cat([padded[:, i : i + words.shape[1]] for i in range(NEIGHBOURS)], dim=-1)  # (b, m, 3 * width)
        words = self.out(F.silu(self.mix(phrases) + positions)) + words
        tokens = torch.cat([self.start.to(words.dtype).expand(len(entries), 1, -1), words], dim=1)
        first = torch.ones(len(entries), 1, dtype=torch.bool, device=entries.device)
        return tokens, torch.cat([first, used.any(2)], dim=1)

    def _entries(self, piece: bytes) -> list[int]:
        """Rows of one word: itself, and its groups of bytes with the borders marked."""
        marked = b"<" + piece + b">"
        groups = [b"=" + marked] + [marked[i : i + n] for n in NGRAMS for i in range(len(marked) - n + 1)]
        return [1 + zlib.crc32(group) % self.config.hash_buckets for group in groups]


class TransformersTextEncoder(nn.Module):
    """A frozen encoder of the `transformers` library: T5, CLIP, Qwen, ... by folder or Hub id.

    Raises: ConfigError if the library is missing, or the encoder cannot be loaded.
    """

    def __init__(self, config: TextConfig):
        super().__init__()
        assert config.name is not None  # the config checks that
        try:
            import transformers  # type: ignore[import-not-found]
        except ImportError:
            raise ConfigError(
                f"text.name is '{config.name}', but transformers is not installed; pip install 'video-gen[hf]'"
            ) from None
        if is_local(config.name) and not Path(config.name).is_dir():
            raise ConfigError(
                f"text.name '{config.name}': no such folder; put the text encoder back there, or name where it is"
            )
        try:
            self.tokeniser = transformers.AutoTokenizer.from_pretrained(config.name)
            model = encoder_of(config.name)
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ConfigError(f"text.name '{config.name}': cannot be loaded: {reason}") from None
        self.tokeniser.padding_side = "right"  # so that a text's tokens do not move with the batch
        if self.tokeniser.pad_token is None:  # as with Llama; what is padded is not seen
            self.tokeniser.pad_token = self.tokeniser.eos_token
        self.config = config
        self.model = model.eval().requires_grad_(False)
        check_finite(self.model.state_dict(), "text encoder", config.name)
        self.width = int(self.model.config.hidden_size)

    def train(self, mode: bool = True) -> "TransformersTextEncoder":
        """Stays in eval mode: a frozen encoder drops nothing out."""
        return super().train(False)

    def tokenise(self, texts: list[str]) -> Tensor:
        """(b, m, 2) int64: token ids and the attention mask. Raises: DataError if a text is too long."""
        # some tokenisers make nothing of an empty text, which must have a token, too
        texts = [text if self.tokeniser(text)["input_ids"] else self.tokeniser.pad_token for text in texts]
        found = self.tokeniser(texts, padding=True, return_tensors="pt")
        if found["input_ids"].shape[1] > self.config.max_tokens:
            longest = max(texts, key=len)
            raise DataError(
                f"caption '{longest[:40]}...' makes {found['input_ids'].shape[1]} tokens, at most "
                f"{self.config.max_tokens} are taken; shorten it, or raise text.max_tokens"
            )
        return torch.stack([found["input_ids"], found["attention_mask"]], dim=-1)

    @torch.no_grad()
    def forward(self, entries: Tensor) -> tuple[Tensor, Tensor]:
        """(b, m, 2) to tokens (b, m, width), and (b, m) bool, False at padding."""
        ids, mask = entries.unbind(-1)
        return self.model(input_ids=ids, attention_mask=mask).last_hidden_state.float(), mask.bool()

    def save_pretrained(self, folder: str | Path) -> None:
        """Only the name is kept: the weights are the library's."""
        save_text_config(self.config, folder)


class CachedTextEncoder(nn.Module):
    """A frozen encoder's output, read instead of computed: in training it stands in for the encoder, which is not loaded.

    Args:
        read: a text to its tokens (m, width); raises KeyError for one that was not encoded.
    """

    def __init__(self, config: TextConfig, read: Callable[[str], Tensor]):
        super().__init__()
        self.config, self.read = config, read
        self.width = read("").shape[1]

    def tokenise(self, texts: list[str]) -> Tensor:
        """(b, m, width + 1): the tokens, padded with zeros, and 1 where they are none of the padding.

        Raises: DataError if a text was not encoded.
        """
        try:
            tokens = [self.read(text) for text in texts]
        except KeyError:
            raise DataError("a caption is not among the encoded ones; run `video-gen data encode` again") from None
        marked = [torch.cat([x, torch.ones_like(x[:, :1])], dim=1) for x in tokens]
        return nn.utils.rnn.pad_sequence(marked, batch_first=True)

    def forward(self, entries: Tensor) -> tuple[Tensor, Tensor]:
        """What `tokenise` gave to tokens (b, m, width), and (b, m) bool, False at padding."""
        return entries[..., :-1], entries[..., -1] > 0

    def save_pretrained(self, folder: str | Path) -> None:
        save_text_config(self.config, folder)


TextEncoder = ByteTextEncoder | TransformersTextEncoder | CachedTextEncoder


def is_local(name: str) -> bool:
    """Whether a text encoder's name is that of a folder, and cannot be one of the Hub."""
    return Path(name).is_absolute() or name.startswith((".", "~")) or name.count("/") > 1 or Path(name).is_dir()


def whole_name(name: str | None) -> str | None:
    """A text encoder's name as it holds from any working folder: a folder's absolute path, or the Hub's name as it is."""
    return str(Path(name).absolute()) if name is not None and Path(name).is_dir() else name


def encoder_of(name: str) -> Any:
    """The part of a `transformers` model that reads text: of T5 and its kin the encoder alone, of CLIP that of the text."""
    import transformers  # type: ignore[import-not-found]

    settings = transformers.AutoConfig.from_pretrained(name)
    alone = {"t5": "T5EncoderModel", "mt5": "MT5EncoderModel", "umt5": "UMT5EncoderModel", "clip": "CLIPTextModel"}
    if kind := alone.get(settings.model_type):
        return getattr(transformers, kind).from_pretrained(name)
    model = transformers.AutoModel.from_pretrained(name)
    if settings.is_encoder_decoder:
        return model.get_encoder()
    return getattr(model, "text_model", model)


def load_text_config(folder: str | Path) -> TextConfig:
    """Raises: DataError if there is none, or it is damaged; ConfigError if it does not fit."""
    return read_config(TextConfig, Path(folder) / "config.json")


def save_text_config(config: TextConfig, folder: str | Path) -> None:
    """Of a text encoder in a folder the whole path is kept. Raises: DataError if it cannot be written."""
    kept = config.replace(name=whole_name(config.name))
    write_text(Path(folder) / "config.json", kept.model_dump_json(indent=1))


def encoder_fingerprint(name: str) -> str:
    """16 hexadecimal digits of a `transformers` encoder's files: folder or Hub id, which is not loaded.

    Files of the Hub's cache are known by the names of their blobs, which are hashes; others are read.
    Raises: ConfigError if there is none.
    """
    try:
        from transformers.utils import cached_file  # type: ignore[import-not-found]

        config = cached_file(name, "config.json")
    except (ImportError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"text.name '{name}': cannot be found: {reason}") from None
    digest = hashlib.blake2b(digest_size=8)
    for path in sorted(Path(str(config)).parent.iterdir()):
        if path.suffix in (".json", ".safetensors", ".bin", ".txt", ".model"):
            digest.update(path.name.encode())
            if path.is_symlink():
                digest.update(path.resolve().name.encode())
                continue
            with path.open("rb") as stream:
                while piece := stream.read(1 << 22):
                    digest.update(piece)
    return digest.hexdigest()


def build_text_encoder(config: TextConfig) -> TextEncoder:
    return ByteTextEncoder(config) if config.kind == "bytes" else TransformersTextEncoder(config)


def load_text_encoder(folder: str | Path) -> TextEncoder:
    """What `save_pretrained` wrote. Raises: ConfigError, DataError."""
    config = load_text_config(folder)
    if config.kind == "bytes":
        return ByteTextEncoder.from_pretrained(folder)
    try:
        return TransformersTextEncoder(config)
    except ConfigError as error:
        raise ConfigError(f"{folder}: {error}") from None


def _pieces(word: str) -> list[bytes]:
    data = word.encode()
    return [data[i : i + PIECE_BYTES] for i in range(0, len(data), PIECE_BYTES)]
