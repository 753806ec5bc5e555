"""Worlds that are played: a stream of one latent frame a block, none of which is made before it is said what is done.

The state is that of a stream, a value that can be saved. What led to a frame goes into the history with it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self, Unpack

import numpy as np
import torch
from torch import Tensor

from video_gen.data.actions import scaled
from video_gen.data.clips import checked_frames
from video_gen.errors import ConfigError, DataError, ShapeError
from video_gen.model.actions import latent_actions
from video_gen.sampling.config import SamplingSettings, Steering
from video_gen.sampling.model import VideoModel
from video_gen.sampling.rollout import advance
from video_gen.sampling.stream_state import StreamState, load_state, save_state
from video_gen.vocabulary import Action, Vocabulary, parse_action


class Plays:
    """Several worlds that are played together.

    Args: state, frames: from `VideoPipeline.plays`, or another one's `state()`.
    """

    def __init__(self, pipeline: VideoModel, state: StreamState, frames: np.ndarray | None = None):
        self.frames = frames
        """uint8 (n, f, h, w, 3), the frames made or given last; None = none since the state was loaded."""
        self.vocabulary = vocabulary_of(pipeline)
        """What can be done."""
        self._pipeline, self._state = pipeline, state
        with pipeline.inference():
            self._model = pipeline.block_model(state.steering.prompts, state.steering.sampling, 1)

    @property
    def fps(self) -> float:
        """Frames a second at which the world is as fast as it was in training."""
        return self._pipeline.config.clip.fps

    @property
    def frames_per_step(self) -> int:
        return self._pipeline.vae.config.temporal_stride

    @property
    def seconds(self) -> float:
        """Length of what was shown so far."""
        return self._state.seconds

    @property
    def steering(self) -> Steering:
        return self._state.steering

    def step_rows(self, rows: np.ndarray) -> np.ndarray:
        """The next frames.

        Args: rows: (n, frames_per_step, a) what is done before each of them, as `Vocabulary.row` has it.
        Returns: uint8 (n, frames_per_step, h, w, 3).
        Raises: ShapeError if there are others; DataError for a number that is none, or out of its range.
        """
        pipeline, state = self._pipeline, self._state
        wanted = (len(state.steering.prompts), self.frames_per_step, self.vocabulary.size)
        check_rows(rows, [wanted], self.vocabulary)
        values = torch.from_numpy(scaled(rows, self.vocabulary)).flatten(1)[:, None].to(pipeline.device)
        c, h, w = pipeline.latent_frame()
        with pipeline.inference():
            made = advance(
                self._model,
                state.rollout,
                (c, 1, h, w),
                pipeline.diffusion,
                state.steering.sampling,
                pipeline.device,
                actions=values,
            )
            assert made.block is not None
            self.frames, decoder = pipeline.decode(made.block, state.decoder)
        seconds = state.seconds + self.frames.shape[1] / self.fps
        self._state = StreamState(made, decoder, state.steering, 1, seconds=seconds)
        return self.frames

    def steer(self, prompt: str | None = None, **settings: Unpack[SamplingSettings]) -> None:
        """Another prompt, or settings of sampling, from the next step on.

        Raises: ConfigError for an unknown setting, DataError for a text that is too long; the world is then as before.
        """
        state, now = self._state, self._state.steering
        prompts = now.prompts if prompt is None else (prompt,) * len(now.prompts)
        new = now.replace(prompts=prompts, sampling=now.sampling.replace(**settings))
        with self._pipeline.inference():
            self._model = self._pipeline.block_model(new.prompts, new.sampling, 1)
        self._state = StreamState(state.rollout, state.decoder, new, 1, seconds=state.seconds)

    def state(self) -> StreamState:
        """All that is needed to go on."""
        return self._state

    def save(self, path: str | Path) -> None:
        """Write the state as safetensors with JSON in its header; the file appears whole or not at all."""
        save_state(self._state, path, self._pipeline)

    @classmethod
    def load(cls, path: str | Path, pipeline: VideoModel) -> Self:
        """Go on from what `save` wrote, with the same model. Raises: DataError if it is damaged, or of another model."""
        vocabulary_of(pipeline)
        state = load_state(path, pipeline)
        if state.block_frames != 1 or (state.rollout.actions is None and state.rollout.block is not None):
            raise DataError(f"{path}: holds a stream, and no world that was played; give a file that `play` saved")
        return cls(pipeline, state)


class Play(Plays):
    """One world that is played: `frames = world.step(actions)`."""

    def step(self, actions: Any = None) -> np.ndarray:
        """The next frames, uint8 (frames_per_step, h, w, 3).

        Args: actions: what is done before each of them: an `Action` or plain values such as `{"keys": ["forward"], "axes": {}}`,
            for all of them, where changes are shared out; or a list of one each; None = nothing.
        Raises: DataError that names what the vocabulary has not.
        """
        return self.step_rows(rows_of(actions, self.vocabulary, self.frames_per_step)[None])[0]


def rows_of(actions: Any, vocabulary: Vocabulary, count: int) -> np.ndarray:
    """(count, a) of what `Play.step` is given. Raises: DataError."""
    said = list(actions) if isinstance(actions, Sequence) and not isinstance(actions, str) else None
    if said is not None and len(said) != count:
        raise DataError(f"{len(said)} actions for {count} frames; give one for each, or a single one for all")
    try:
        each = [_action(one) for one in (said if said is not None else [actions] * count)]
        if said is None:
            deltas = {axis.name for axis in vocabulary.axes if axis.kind == "delta"}
            each = [
                Action(keys=one.keys, axes={n: v / count if n in deltas else v for n, v in one.axes.items()})
                for one in each
            ]
        return np.array([vocabulary.row(action) for action in each])
    except ValueError as error:
        raise DataError(f"actions: {error}") from None


def _action(said: Any) -> Action:
    if said is None:
        return Action()
    if not isinstance(said, Action | Mapping):
        raise ValueError(
            f'{said!r:.60} is none; give {{"keys": ["forward"], "axes": {{}}}} or an Action, a list of one for each frame, or None'
        )
    return said if isinstance(said, Action) else parse_action(said)


def check_rows(rows: Any, shapes: Sequence[tuple[int, ...]], vocabulary: Vocabulary) -> None:
    """Raises: ShapeError if actions are no array of one of the shapes (..., frames, a); DataError for a number that is none, or
    out of its range."""
    if not isinstance(rows, np.ndarray) or rows.dtype.kind not in "biuf" or rows.shape not in shapes:
        got = f"{rows.shape} {rows.dtype}" if isinstance(rows, np.ndarray) else type(rows).__name__
        raise ShapeError(
            f"actions are {got}; give an array {' or '.join(map(str, dict.fromkeys(shapes)))}: for each world and frame "
            f"{', '.join(vocabulary.names)}"
        )
    low, high = np.array(vocabulary.ranges).T
    if len(wrong := np.argwhere(~((rows >= low) & (rows <= high)))):  # which a NaN is not, either
        frame, column = wrong[0][-2:]
        raise DataError(
            f"actions: '{vocabulary.names[column]}' of frame {frame} is {float(rows[tuple(wrong[0])]):g}; give a number from "
            f"{low[column]:g} to {high[column]:g}"
        )


def vocabulary_of(pipeline: VideoModel) -> Vocabulary:
    """What can be done in a model's world. Raises: ConfigError if nothing can."""
    found = pipeline.transformer.config.actions
    if found is None:
        raise ConfigError(
            f"model {pipeline.origin or '(not saved)'}: was trained without actions and cannot be played; take one that was, such "
            "as maze, or train one on clips with actions (docs/worlds.md)"
        )
    return found


def begin_with(
    pipeline: VideoModel, image: np.ndarray | None, video: np.ndarray | None, actions: np.ndarray | None, count: int
) -> np.ndarray | None:
    """What so many worlds begin with, (n, f, h, w, 3) at the model's size, n 1 or as many; None = nothing is given.

    Args: as of `VideoPipeline.plays`. Raises: ShapeError, DataError for what does not fit.
    """
    vocabulary = vocabulary_of(pipeline)
    if image is None and video is None:
        given = None
    elif image is None and isinstance(video, np.ndarray) and video.ndim == 5:
        given, clip = checked_frames(video, 5), pipeline.config.clip
        if len(given) not in (1, count) or given.shape[2:4] != (clip.height, clip.width):
            raise ShapeError(
                f"the videos are {given.shape}; give ({count}, f, {clip.height}, {clip.width}, 3), one for each world, or one "
                "for all"
            )
    else:
        given = pipeline.given(image, video)[None]
    if actions is not None:
        if video is None:
            raise ShapeError("actions without a video; give that which they led to, too")
        shape = (video.shape[-4], vocabulary.size)
        check_rows(actions, [shape, (count, *shape), (1, *shape)], vocabulary)
    return given


def still(pipeline: VideoModel, frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A picture (n, 1, h, w, 3) as a video of two latent frames in which nothing is done, and its actions (1, f, a)."""
    vocabulary, stride = vocabulary_of(pipeline), pipeline.vae.config.temporal_stride
    rows = np.array([[vocabulary.row(Action())] * (1 + stride)])
    return np.repeat(frame, 1 + stride, axis=1), rows


def actions_before(pipeline: VideoModel, given: np.ndarray, actions: np.ndarray | None, count: int) -> Tensor | None:
    """(n, f', size) that led to the latent frames of the video (n, f, h, w, 3) that worlds begin with; None if nobody says."""
    if actions is None:
        return None
    rows, frames = scaled(actions if actions.ndim == 3 else actions[None], vocabulary_of(pipeline)), given.shape[1]
    rows = rows[:, rows.shape[1] - frames :]
    led = latent_actions(torch.from_numpy(rows), pipeline.vae.config.temporal_stride).to(pipeline.device)
    return led.expand(count, -1, -1)
