"""A text encoder that is loaded when there is something to encode, and freed after that: it can be larger than all else."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from video_gen.model.text import CachedTextEncoder, TextEncoder
from video_gen.model.transformer_config import TextConfig

REMEMBERED = 64
"""Texts whose tokens are kept, the latest."""


class Lender:
    """Tokens of texts, for a `CachedTextEncoder`.

    Args: load: the encoder, on the CPU; `device`: where it computes.
    """

    def __init__(self, load: Callable[[], TextEncoder], device: str | torch.device = "cpu"):
        self.load, self.device = load, torch.device(device)
        self.kept: dict[str, Tensor] = {}

    def encode(self, texts: Sequence[str]) -> None:
        """Encode those that are not known yet, with the encoder loaded once, and freed. Raises: DataError if one is too long."""
        new = [text for text in dict.fromkeys(texts) if text not in self.kept]
        if not new:
            return
        encoder = self.load().eval()
        entries = [encoder.tokenise([text]) for text in new]
        encoder.to(self.device)
        with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16):
            for text, entry in zip(new, entries):
                tokens, visible = encoder(entry.to(self.device))
                self.kept[text] = tokens[0, visible[0]].clone()
        while len(self.kept) > max(REMEMBERED, len(new)):
            del self.kept[next(iter(self.kept))]

    def read(self, text: str) -> Tensor:
        """(m, width)."""
        self.encode([text])
        return self.kept[text]


def lent_text(
    load: Callable[[], TextEncoder], config: TextConfig, texts: Sequence[str] = (), device: str | torch.device = "cpu"
) -> CachedTextEncoder:
    """A stand-in for an encoder, which is loaded now for `texts` and no text at all, and later for each that is new."""
    lender = Lender(load, device)
    lender.encode(["", *texts])
    return CachedTextEncoder(config, lender.read)
