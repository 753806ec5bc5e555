"""Endless videos: an iterator whose whole state is a value that can be saved, and whose prompt can change on the way.

Two things happen at once: a thread makes the latents of the next block while the caller decodes, and uses, those of the
last. One block is made ahead and no more, so a slow reader holds the maker up. What was made ahead belongs to the state:
`RolloutState.block` is the block that is shown next. So a stream that goes on from a state gives what it would have given.
"""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Self, Unpack

import numpy as np

from video_gen.errors import ShapeError
from video_gen.sampling.config import ClipSettings, SamplingSettings, Steering
from video_gen.sampling.model import VideoModel
from video_gen.sampling.rollout import BlockModel, RolloutState, advance
from video_gen.sampling.stream_state import StreamState, load_state, save_state


class Streams:
    """Several endless videos, made together: an iterator of uint8 (n, f, h, w, 3), a block at a time.

    The first block of a video that starts from nothing is one frame (or as `sampling.first_block_frames` has it), later ones
    are `block_frames * temporal_stride`.
    Each `next` waits for the block under way, begins the one after it, and decodes. Frames that were given are not
    repeated; they are in `given`. Memory and time per block do not grow.

    Args: state: from `VideoPipeline.streams`, or another stream's `state()`.
    """

    def __init__(self, pipeline: VideoModel, state: StreamState, given: np.ndarray | None = None):
        self.given = given
        """uint8 (f, h, w, 3), the frames before the first block as the model was given them, or None."""
        self._pipeline = pipeline
        self._worker = ThreadPoolExecutor(1, "video-gen stream")
        self._closed = False
        self._decoder, self._block_frames = state.decoder, state.block_frames
        self._seconds, self._speed, self._fps = state.seconds, state.speed, self.clip.fps * state.speed
        self._steering, self._model = state.steering, self._encode(state.steering)
        made = state.rollout
        if made.block is None:
            first = self._steering.sampling.first_block_frames or self._block_frames
            self._size = first if made.history is None else self._block_frames
            self._ahead = self._begin(made, self._size)
        else:
            self._size, self._ahead = made.block.shape[2], Future()
            self._ahead.set_result(made)

    # -------------------- showing

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> np.ndarray:
        if self._closed:
            raise StopIteration
        made = self._ahead.result()
        assert made.block is not None
        after = self._begin(made, self._block_frames)
        with self._pipeline.inference():
            frames, decoder = self._pipeline.decode(made.block, self._decoder)
        self._ahead, self._size, self._decoder = after, self._block_frames, decoder
        self._fps = self.clip.fps * self._speed
        self._seconds, self._speed = self._seconds + frames.shape[1] / self._fps, self._steering.speed
        return frames

    @property
    def clip(self) -> ClipSettings:
        """Size and frame rate of the model's clips."""
        return self._pipeline.config.clip

    @property
    def fps(self) -> float:
        """Frames per second at which to play what `next` gave last: the training clips' times the speed."""
        return self._fps

    @property
    def seconds(self) -> float:
        """Length of what was shown so far."""
        return self._seconds

    @property
    def begins_at(self) -> float:
        """When, in seconds, the block starts that `next` will begin: what `steer` changes now is seen from there on."""
        stride, size = self._pipeline.vae.config.temporal_stride, self._size
        ahead = self._pipeline.vae.num_frames(size) if self._decoder is None else size * stride
        return self._seconds + ahead / (self.clip.fps * self._speed)

    # -------------------- steering

    @property
    def steering(self) -> Steering:
        return self._steering

    def steer(
        self,
        prompt: str | Sequence[str] | None = None,
        *,
        speed: float | None = None,
        **settings: Unpack[SamplingSettings],
    ) -> None:
        """Change what the blocks from now on show. The block under way stays as it is, and so does history, which saw no
        text: the only cost is that of encoding the text.

        Args:
            prompt: one for all streams, or one each; None = as before.
            speed: of playback, 1 = that of the training clips: the frames stay the same, `fps` changes. How fast things
                move in the video is the prompt's business.
            settings: fields of SamplingConfig, such as `guidance_scale=3.0`.
        Raises: ConfigError for an unknown setting, DataError for a text that is too long; the stream is then as before.
        """
        now = self._steering
        prompts = now.prompts if prompt is None else (prompt,) * len(now.prompts) if isinstance(prompt, str) else prompt
        if len(prompts) != len(now.prompts):
            raise ShapeError(f"{len(prompts)} prompts for {len(now.prompts)} streams; give one for all, or one each")
        sampling = now.sampling.replace(**settings)
        new = now.replace(prompts=tuple(prompts), sampling=sampling, speed=now.speed if speed is None else speed)
        if new.replace(speed=now.speed) != now:
            if self._pipeline.offloads:
                self._ahead.result()  # blocks that come and go serve one thread at a time
            self._model = self._encode(new)
        self._steering = new

    # -------------------- stopping and going on

    def state(self) -> StreamState:
        """All that is needed to go on; waits for the block under way."""
        place = (self._block_frames, self._speed, self._seconds)
        return StreamState(self._ahead.result(), self._decoder, self._steering, *place)

    def save(self, path: str | Path) -> None:
        """Write the state as safetensors with JSON in its header; the file appears whole or not at all."""
        save_state(self.state(), path, self._pipeline)

    @classmethod
    def load(cls, path: str | Path, pipeline: VideoModel) -> Self:
        """Go on from what `save` wrote, with the same model: the same frames as without a stop, given the same machine,
        library and number of threads.

        Raises: DataError if the file is damaged, or the model has other settings or weights than it had.
        """
        return cls(pipeline, load_state(path, pipeline))

    def close(self) -> None:
        """Let go of the thread; iterating ends."""
        self._closed = True
        self._worker.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # -------------------- parts

    def _encode(self, steering: Steering) -> BlockModel:
        with self._pipeline.inference():
            return self._pipeline.block_model(steering.prompts, steering.sampling, self._block_frames)

    def _begin(self, made: RolloutState, size: int) -> "Future[RolloutState]":
        return self._worker.submit(_next_block, self._pipeline, self._model, made, size, self._steering)


class Stream(Streams):
    """One endless video: an iterator of uint8 (f, h, w, 3). See `Streams`."""

    def __next__(self) -> np.ndarray:
        return super().__next__()[0]


def _next_block(
    pipeline: VideoModel, model: BlockModel, made: RolloutState, size: int, steering: Steering
) -> RolloutState:
    """`advance` in the worker; knows no stream, so that a forgotten one can go."""
    c, h, w = pipeline.latent_frame()
    with pipeline.inference():
        return advance(model, made, (c, size, h, w), pipeline.diffusion, steering.sampling, pipeline.device)
