"""The transformer with a prompt, as guidance and a rollout want it: branches of one batch, and a history to append to."""

import copy
from dataclasses import replace
from typing import Any, Self, cast

import torch
from torch import Tensor

from video_gen.errors import ShapeError
from video_gen.model.actions import Actions
from video_gen.model.diffusion import Diffusion
from video_gen.model.keys import KeyValue
from video_gen.model.transformer import History, TextMemory
from video_gen.model.wan.memory import WanMemory
from video_gen.model.wan.transformer import WanTransformer
from video_gen.sampling.guidance import BY_TEXT, Branch, BranchDenoiser
from video_gen.sampling.parts import Transformer

WITHOUT_TEXT: tuple[Branch, ...] = ("history", "alone")
"""The branches that are told an empty or negative prompt."""


class TextConditioned:
    """A `rollout.BlockModel`.

    Args:
        text: the prompts, encoded; `empty`: as many empty or negative ones, or None where the text is not to be guided by,
            because no prompt was given or its guidance is off.
        window: latent frames of history that a block sees, besides the sink.
        ahead, gap: the frame to which the video leads, a history of its own, and the frames between a block and it; None, 0 = none.
        actions: (b, f, n) that lead to the block's frames; None = nothing is known of that.
        whole_times: see `SamplingConfig`.
        apart: branches are computed one after the other.
    """

    def __init__(
        self,
        transformer: Transformer,
        diffusion: Diffusion,
        text: TextMemory,
        empty: TextMemory | None,
        window: int,
        ahead: History | None = None,
        gap: int = 0,
        actions: Tensor | None = None,
        whole_times: int | None = None,
        apart: bool = False,
    ):
        self.transformer, self.diffusion, self.text, self.empty = transformer, diffusion, text, empty
        self.window, self.ahead, self.gap, self.actions = window, ahead, gap, actions
        self.whole_times, self.apart = whole_times, apart

    def towards(self, picture: Tensor, gap: int) -> Self:
        """The same, for a block with `gap` frames between it and a picture, (b or 1, c, 1, h, w) latents of it by itself."""
        if self.transformer.history_reads_text:
            raise ShapeError("a Wan model is not led to a last picture as history; leave last_image and loop out")
        ahead = self.transformer.encode_history(picture.expand(len(self.text.visible), -1, -1, -1, -1))
        return self._with(ahead=ahead, gap=gap)

    def doing(self, actions: Tensor) -> Self:
        """The same, for a block to whose frames the actions (b, f, n) lead."""
        return self._with(actions=actions)

    def showing(self, clip_tokens: Tensor | None, beside: Tensor) -> Self:
        """The same, for a clip of a model that knows pictures by CLIP's tokens (b, m, width) and by channels (b, n, f, h, w) beside
        its latents; every branch knows them."""
        transformer = cast(WanTransformer, self.transformer)
        text, empty = (
            None if memory is None else transformer.with_picture(cast(WanMemory, memory), clip_tokens, beside)
            for memory in (self.text, self.empty)
        )
        return self._with(text=text, empty=empty)

    def _with(self, **changes: Any) -> Self:
        other = copy.copy(self)
        vars(other).update(changes)
        return other

    def branches(self, history: History | None) -> tuple[Branch, ...]:
        differ: dict[Branch, bool] = {"full": True, "history": self.empty is not None, "alone": history is not None}
        differ |= {"unled": self.ahead is not None, "untold": self.actions is not None}
        return tuple(branch for branch, differs in differ.items() if differs)

    def denoiser(self, history: History | None, branches: tuple[Branch, ...]) -> BranchDenoiser:
        """All branches are one forward pass of as many times the batch, unless they are to be `apart`. What they see is put
        together once per block."""
        if self.apart and len(branches) > 1:
            each = [self.denoiser(history, (branch,)) for branch in branches]
            return lambda noisy, t: [one(noisy, t)[0] for one in each]
        count = len(branches)
        empty = self.text if self.empty is None else self.empty
        text = join_texts([empty if branch in WITHOUT_TEXT else self.text for branch in branches])
        if self.ahead is not None:
            led = None
            if "unled" in branches:
                led = torch.tensor([branch != "unled" for branch in branches], device=text.visible.device)
                led = led.repeat_interleave(len(self.text.visible))
            text = text.towards(cast(History, repeat_history(self.ahead, count)), self.gap, led)
        actions = None
        if self.actions is not None:
            known = None
            if "untold" in branches:
                known = torch.tensor([branch != "untold" for branch in branches], device=text.visible.device)
                known = known.repeat_interleave(len(self.text.visible))
            actions = Actions(repeat(self.actions, count), known)
        visible = None
        if "alone" in branches and history is not None:
            sees = torch.tensor([branch != "alone" for branch in branches], device=text.visible.device)
            visible = sees.repeat_interleave(len(self.text.visible))
        history = self._known(history, branches)

        def denoise(noisy: Tensor, t: Tensor) -> tuple[Tensor, ...]:
            many, times = repeat(noisy, count), repeat(t, count)
            told = times if self.whole_times is None else whole(times, self.whole_times)
            output = self.transformer.denoise(many, told, text, history, visible, actions)
            return self.diffusion.to_denoised(output.float(), many, times).chunk(count)

        return denoise

    def append(
        self,
        history: History | None,
        latents: Tensor,
        t: Tensor,
        actions: Tensor | None = None,
        before: Tensor | None = None,
    ) -> History:
        """Where history reads the text, there is one for the prompts and, behind it in the batch, one for the empty ones: each
        branch goes on from a video that it read as its own (as Self-Forcing does, arXiv:2506.08009)."""
        done, branches, text = None if actions is None else Actions(actions), BY_TEXT[:1], self.text
        if self.transformer.history_reads_text and self.empty is not None:
            branches, text = BY_TEXT, join_texts([self.text, self.empty])
            latents, t = repeat(latents, 2), repeat(t, 2)
        kept = self.transformer.encode_history(latents, t, self._known(history, branches), actions=done, text=text)
        if before is not None and kept.latest is not None:
            kept = replace(kept, latest=before[:, :, -1:])
        return kept.last(self.transformer.config.sink, self.window)

    def _known(self, history: History | None, branches: tuple[Branch, ...]) -> History | None:
        """History as each branch knows it. What was read with prompts alone, before there was guidance, serves all."""
        if history is None or len(history.layers[0].k) == len(self.text.visible):
            return repeat_history(history, len(branches))
        chosen = [int(branch in WITHOUT_TEXT) for branch in branches]
        return select_history(history, chosen)


def join_texts(memories: list[TextMemory]) -> TextMemory:
    """Several memories as one batch."""
    return memories[0] if len(memories) == 1 else memories[0].joined(memories[1:])


def whole(t: Tensor, parts: int) -> Tensor:
    """Times rounded down to one of so many parts; what is a hair below one by its own rounding is that one."""
    return (t * parts + 1e-4).floor() / parts


def repeat_history(history: History | None, count: int) -> History | None:
    """The history of a batch for `count` times that batch."""
    if history is None or count == 1:
        return history
    layers = tuple(KeyValue(repeat(layer.k, count), repeat(layer.v, count)) for layer in history.layers)
    latest = None if history.latest is None else repeat(history.latest, count)
    return History(layers, history.frames, latest)


def select_history(history: History, parts: list[int]) -> History:
    """Halves of a history's batch, the first (0) and the last (1), as often and in the order as `parts` says."""

    def chosen(x: Tensor) -> Tensor:
        halves = x.chunk(2)
        return halves[parts[0]] if len(parts) == 1 else torch.cat([halves[part] for part in parts])

    layers = tuple(KeyValue(chosen(layer.k), chosen(layer.v)) for layer in history.layers)
    return History(layers, history.frames, None if history.latest is None else chosen(history.latest))


def repeat(x: Tensor, count: int) -> Tensor:
    return x if count == 1 else torch.cat([x] * count)
