"""Two transformers of one interface: one for much noise, one for little, switched at a diffusion time (Wan 2.2's A14B).

What the layers remember of text, picture and history is that of both, one behind the other: so all that handles such memories,
which knows layers and not what they are of, handles these.
"""

from dataclasses import replace
from typing import Any, cast

from torch import Tensor, nn

from video_gen.errors import ConfigError, ShapeError
from video_gen.model.actions import Actions
from video_gen.model.transformer import History, TextMemory
from video_gen.model.wan.config import WanTransformerConfig
from video_gen.model.wan.memory import WanMemory
from video_gen.model.wan.transformer import WanTransformer

ROUNDING = 1e-6
"""A time that is below the boundary by no more than this is at it."""


class Experts(nn.Module):
    """
    Args:
        high, low: for diffusion times from `boundary` up, and for those below.
    Raises: ConfigError if they are of different sizes.
    """

    Config = WanTransformerConfig
    history_reads_text = True

    def __init__(self, high: WanTransformer, low: WanTransformer, boundary: float):
        super().__init__()
        for name, own in high.config:
            if own != (other := getattr(low.config, name)):
                raise ConfigError(
                    f"the two experts are of different sizes: {name} is {own} in that for much noise, and {other} in that for "
                    "little; take both of one model"
                )
        self.config, self.boundary = high.config, boundary
        self.high, self.low = high, low

    def at(self, t: Tensor) -> int:
        """0 where the expert for much noise is asked, 1 for little. Raises: ShapeError if a batch needs both."""
        late = (t.amax(dim=1) if t.ndim == 2 else t) < self.boundary - ROUNDING
        if bool(late.any()) != bool(late.all()):
            raise ShapeError(
                f"times {t.tolist()} of one batch lie on both sides of the experts' boundary {self.boundary}"
            )
        return int(late.any())

    # -------------------- the interface of one

    def encode_text(self, tokens: Tensor, visible: Tensor) -> WanMemory:
        return _joined(self.high.encode_text(tokens, visible), self.low.encode_text(tokens, visible))

    def with_picture(
        self, memory: WanMemory, clip_tokens: Tensor | None = None, beside: Tensor | None = None
    ) -> WanMemory:
        both = (
            one.with_picture(self._of(memory, i), clip_tokens, beside) for i, one in enumerate((self.high, self.low))
        )
        return _joined(*both)

    def encode_history(
        self,
        latents: Tensor,
        t: Tensor | None = None,
        history: History | None = None,
        blocks: tuple[int, ...] | None = None,
        actions: Actions | None = None,
        text: TextMemory | None = None,
    ) -> History:
        both = [
            one.encode_history(latents, t, self._past(history, i), blocks, actions, self._of(cast(WanMemory, text), i))
            for i, one in enumerate((self.high, self.low))
        ]
        return replace(both[0], layers=both[0].layers + both[1].layers)

    def denoise(
        self,
        noisy: Tensor,
        t: Tensor,
        text: TextMemory,
        history: History | None = None,
        history_visible: Tensor | None = None,
        actions: Actions | None = None,
    ) -> Tensor:
        i = self.at(t)
        memory, past = self._of(cast(WanMemory, text), i), self._past(history, i)
        return (self.high, self.low)[i].denoise(noisy, t, memory, past, history_visible, actions)

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        raise ConfigError("two experts are not trained together; take one of them, `high` or `low`")

    def no_decay(self) -> set[str]:
        return {f"{name}.{inner}" for name in ("high", "low") for inner in getattr(self, name).no_decay()}

    # -------------------- what is whose

    def _of(self, memory: WanMemory, i: int) -> WanMemory:
        """Expert `i`'s part of what is remembered of text and picture."""
        picture = None if memory.picture is None else self._half(memory.picture, i)
        return replace(memory, layers=self._half(memory.layers, i), picture=picture)

    def _past(self, history: History | None, i: int) -> History | None:
        return None if history is None else replace(history, layers=self._half(history.layers, i))

    def _half(self, layers: tuple[Any, ...], i: int) -> tuple[Any, ...]:
        depth = self.config.depth
        return layers[i * depth : (i + 1) * depth]


def _joined(high: WanMemory, low: WanMemory) -> WanMemory:
    picture = None if high.picture is None or low.picture is None else high.picture + low.picture
    return replace(high, layers=high.layers + low.layers, picture=picture)
