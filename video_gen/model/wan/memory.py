"""What a Wan transformer knows besides the video: text, and a picture from which it begins."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from video_gen.errors import ShapeError
from video_gen.model.keys import KeyValue
from video_gen.model.transformer import History, TextMemory

PADDING = 2
"""Keys in front of the words that stand for all of the padding, see `text_bias`."""


@dataclass(frozen=True)
class WanMemory(TextMemory):
    """Text, behind keys of its padding; `visible` (b, PADDING + tokens)."""

    text_len: int = 0
    """Tokens to which each text was filled up with padding."""
    picture: tuple[KeyValue, ...] | None = None
    """A picture's CLIP tokens as every layer sees them."""
    beside: Tensor | None = None
    """(b, channels, f, h, w) that go in beside the latents of the same frames: mask and latents of a picture."""

    def select(self, keep: Tensor) -> "WanMemory":
        picture = None if self.picture is None else _selected(self.picture, keep)
        beside = None if self.beside is None else self.beside[keep]
        layers = _selected(self.layers, keep)
        return replace(self, layers=layers, visible=self.visible[keep], picture=picture, beside=beside)

    def frames(self, start: int, stop: int) -> "WanMemory":
        """The same for some of the latent frames."""
        return self if self.beside is None else replace(self, beside=self.beside[:, :, start:stop])

    def towards(self, ahead: History, gap: int, visible: Tensor | None = None) -> "WanMemory":
        raise ShapeError(
            "a Wan transformer sees no frame that lies ahead as history; give it a last picture as it was trained"
        )

    def joined(self, others: Sequence[TextMemory]) -> "WanMemory":
        words = super().joined(others)
        every = [self, *(other for other in others if isinstance(other, WanMemory))]
        pictures, besides = [m.picture for m in every if m.picture], [m.beside for m in every if m.beside is not None]
        if len(pictures) not in (0, len(every)) or len(besides) not in (0, len(every)):
            raise ShapeError("of texts in one batch some have a picture and some have none; give all of them one")
        picture = tuple(_catenated(layer) for layer in zip(*pictures)) if pictures else None
        beside = torch.cat(besides) if besides else None
        return replace(self, layers=words.layers, visible=words.visible, picture=picture, beside=beside)


def text_bias(visible: Tensor, text_len: int, dtype: torch.dtype) -> Tensor:
    """What is added to the scores of text keys: (b, 1, 1, PADDING + tokens).

    A model of this family saw every text filled up with zeros, unmasked. All padding has the same key and value, so one key
    counts for all of them if the logarithm of their number is added to its score. In half precision that is coarse: so the
    key is there twice, and the second one counts for what rounding took from the first.

    Args: visible: (b, PADDING + tokens), False where there is no word.
    """
    words = visible[:, PADDING:]
    count = (text_len - words.sum(dim=1)).float()
    first = count.log().to(dtype)
    rest = count - first.float().exp()
    # rounded up: as far down again, so that something is left for the second key
    first = torch.where(rest < 0, (count * (1 - torch.finfo(dtype).eps * 8)).log().to(dtype), first)
    rest = (count - first.float().exp()).clamp(min=0)
    bias = torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill(~visible, float("-inf"))
    bias[:, 0], bias[:, 1] = first, rest.log().to(dtype)
    return bias[:, None, None]


def _selected(layers: tuple[KeyValue, ...], keep: Tensor) -> tuple[KeyValue, ...]:
    return tuple(KeyValue(k[keep], v[keep]) for k, v in layers)


def _catenated(parts: Sequence[KeyValue]) -> KeyValue:
    return KeyValue(*(torch.cat(x) for x in zip(*parts)))
