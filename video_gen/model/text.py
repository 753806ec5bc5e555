"""Captions to tokens: a small byte-level encoder that is trained with the model, or any frozen `transformers` encoder
(`frozen_text.py`).

Both have `config`, `width`, and are called as `encoder(tokenised) -> (tokens, visible)` with `tokenised = tokenise(texts)`.
"""

import zlib
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from video_gen.errors import ConfigError, DataError
from video_gen.files import check_text
from video_gen.model.frozen_text import TransformersTextEncoder, load_text_config, save_text_config
from video_gen.model.layers import sinusoids
from video_gen.model.pretrained import Pretrained
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
        """Texts to rows of the table: (b, words, entries) int64, 0 = nothing. Raises: DataError if a text is too long, or none."""
        for text in texts:
            check_text(text, "the caption")
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
