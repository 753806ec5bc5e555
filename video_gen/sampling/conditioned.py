"""The transformer with a prompt, as guidance and a rollout want it: branches of one batch, and a history to append to."""

import copy
from typing import Any, Self, cast

import torch
from torch import Tensor

from video_gen.model.actions import Actions
from video_gen.model.diffusion import Diffusion
from video_gen.model.keys import KeyValue
from video_gen.model.transformer import History, TextMemory, VideoTransformer
from video_gen.sampling.guidance import Branch, BranchDenoiser


class TextConditioned:
    """A `rollout.BlockModel`.

    Args:
        text: the prompts, encoded; `empty`: as many empty or negative ones, or None where the text is not to be guided by,
            because no prompt was given or its guidance is off.
        window: latent frames of history that a block sees, besides the sink.
        ahead, gap: the frame to which the video leads, a history of its own, and the frames between a block and it; None, 0 = none.
        actions: (b, f, n) that lead to the block's frames; None = nothing is known of that.
        whole_times: see `SamplingConfig`.
    """

    def __init__(
        self,
        transformer: VideoTransformer,
        diffusion: Diffusion,
        text: TextMemory,
        empty: TextMemory | None,
        window: int,
        ahead: History | None = None,
        gap: int = 0,
        actions: Tensor | None = None,
        whole_times: int | None = None,
    ):
        self.transformer, self.diffusion, self.text, self.empty = transformer, diffusion, text, empty
        self.window, self.ahead, self.gap, self.actions = window, ahead, gap, actions
        self.whole_times = whole_times

    def towards(self, picture: Tensor, gap: int) -> Self:
        """The same, for a block with `gap` frames between it and a picture, (b or 1, c, 1, h, w) latents of it by itself."""
        ahead = self.transformer.encode_history(picture.expand(len(self.text.visible), -1, -1, -1, -1))
        return self._with(ahead=ahead, gap=gap)

    def doing(self, actions: Tensor) -> Self:
        """The same, for a block to whose frames the actions (b, f, n) lead."""
        return self._with(actions=actions)

    def _with(self, **changes: Any) -> Self:
        other = copy.copy(self)
        vars(other).update(changes)
        return other

    def branches(self, history: History | None) -> tuple[Branch, ...]:
        differ: dict[Branch, bool] = {"full": True, "history": self.empty is not None, "alone": history is not None}
        differ |= {"unled": self.ahead is not None, "untold": self.actions is not None}
        return tuple(branch for branch, differs in differ.items() if differs)

    def denoiser(self, history: History | None, branches: tuple[Branch, ...]) -> BranchDenoiser:
        """All branches are one forward pass of as many times the batch. What they see is put together once per block."""
        count = len(branches)
        empty = self.text if self.empty is None else self.empty
        text = join_texts([empty if branch in ("history", "alone") else self.text for branch in branches])
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
        history = repeat_history(history, count)

        def denoise(noisy: Tensor, t: Tensor) -> tuple[Tensor, ...]:
            many, times = repeat(noisy, count), repeat(t, count)
            told = times if self.whole_times is None else whole(times, self.whole_times)
            output = self.transformer.denoise(many, told, text, history, visible, actions)
            return self.diffusion.to_denoised(output.float(), many, times).chunk(count)

        return denoise

    def append(self, history: History | None, latents: Tensor, t: Tensor, actions: Tensor | None = None) -> History:
        done = None if actions is None else Actions(actions)
        kept = self.transformer.encode_history(latents, t, history, actions=done)
        return kept.last(self.transformer.config.sink, self.window)


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


def repeat(x: Tensor, count: int) -> Tensor:
    return x if count == 1 else torch.cat([x] * count)
