"""Endless videos: an iterator whose whole state is a value that can be saved, and whose prompt can change on the way.

Two things happen at once: a thread makes the latents of the next block while the caller decodes, and uses, those of the
last. One block is made ahead and no more, so a slow reader holds the maker up. What was made ahead belongs to the state:
`RolloutState.block` is the block that is shown next. So a stream that goes on from a state gives what it would have given.
"""

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Self, Unpack

import numpy as np
import torch
from pydantic import Field
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from video_gen.config import Config, validate
from video_gen.errors import DataError, ShapeError
from video_gen.files import write_tensors
from video_gen.model.keys import KeyValue
from video_gen.model.transformer import History
from video_gen.model.vae_layers import Cache, Caches
from video_gen.sampling.config import ClipSettings, SamplingSettings, Steering
from video_gen.sampling.model import VideoModel
from video_gen.sampling.rollout import BlockModel, RolloutState, advance


@dataclass(frozen=True)
class StreamState:
    """Where streams stand: a value, which later blocks leave as it is."""

    rollout: RolloutState
    """Its block is the next to be shown; none before the first block is made."""
    decoder: Caches | None
    """The VAE's cache of each tile after the frames shown so far, or given; None = there are none."""
    steering: Steering
    """For the blocks after that one."""
    block_frames: int
    """Latent frames per block."""
    speed: float = 1.0
    """At which its block is shown."""
    seconds: float = 0.0
    """Length of what was shown so far."""


class Streams:
    """Several endless videos, made together: an iterator of uint8 (n, f, h, w, 3), a block at a time.

    The first block of a video that starts from nothing is one frame, later ones are `block_frames * temporal_stride`.
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
            self._size = 1 if made.history is None else self._block_frames
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
        library and number of threads. Raises: DataError if the file is damaged, or of another model."""
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


# -------------------- files


class StateHeader(Config):
    """What a saved state holds besides tensors."""

    model: str
    """Fingerprint of the model that made it."""
    steering: Steering
    block_frames: int = Field(ge=1)
    speed: float = Field(gt=0)
    seconds: float = Field(ge=0)


def save_state(state: StreamState, path: str | Path, pipeline: VideoModel) -> None:
    """See `Streams.save`. Raises: DataError if the file cannot be written."""
    header = StateHeader(
        model=fingerprint(pipeline.transformer, pipeline.vae, pipeline.text),
        steering=state.steering,
        block_frames=state.block_frames,
        speed=state.speed,
        seconds=state.seconds,
    )
    rollout = state.rollout
    tensors = {f"randomness.{i}": x for i, x in enumerate(rollout.randomness)}
    for tile, cache in enumerate(state.decoder or ()):
        tensors |= {f"decoder.{tile}.{i}": x for i, x in enumerate(cache)}
    if rollout.block is not None:
        tensors["block"] = rollout.block
    if rollout.history is not None:
        for i, (k, v) in enumerate(rollout.history.layers):
            tensors |= {f"history.{i}.k": k, f"history.{i}.v": v}
    write_tensors(Path(path), tensors, {"stream": header.model_dump_json()})


def load_state(path: str | Path, pipeline: VideoModel) -> StreamState:
    """See `Streams.load`."""
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file; give one that `video-gen stream --save` or `stream.save` wrote")
    try:
        with safe_open(path, "pt") as file:
            values = json.loads((file.metadata() or {}).get("stream", "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError, OSError) as error:
        raise DataError(f"{path}: damaged, or no saved stream ({error}); save it again") from None
    if values is None:
        raise DataError(f"{path}: holds no stream; give a file that `video-gen stream --save` or `stream.save` wrote")
    header = validate(StateHeader, values, source=str(path))
    if header.model != fingerprint(pipeline.transformer, pipeline.vae, pipeline.text):
        raise DataError(f"{path}: was made by another model; load the model that made it, or start a new stream")
    layers = [
        KeyValue(*(tensors[f"history.{i}.{part}"].to(pipeline.device) for part in "kv"))
        for i in range(pipeline.transformer.config.depth)
        if f"history.{i}.k" in tensors
    ]
    history = History(tuple(layers), layers[0].k.shape[2]) if layers else None
    block = tensors["block"].to(pipeline.device) if "block" in tensors else None
    decoder: list[Cache] = []
    while cache := _numbered(tensors, f"decoder.{len(decoder)}"):
        on_device = (x.to(pipeline.device) for x in cache)
        decoder.append(tuple(x.contiguous(memory_format=torch.channels_last_3d) for x in on_device))
    rollout = RolloutState(history, block, tuple(_numbered(tensors, "randomness")))
    return StreamState(
        rollout, tuple(decoder) or None, header.steering, header.block_frames, header.speed, header.seconds
    )


def _numbered(tensors: dict[str, Tensor], name: str) -> list[Tensor]:
    return [tensors[f"{name}.{i}"] for i in range(len(tensors)) if f"{name}.{i}" in tensors]


def fingerprint(*modules: nn.Module) -> str:
    """Of names, shapes and the first values of all weights: tells models apart without reading all of a large one."""
    digest = hashlib.sha256()
    for module in modules:
        for name, tensor in module.state_dict().items():
            digest.update(f"{name} {tuple(tensor.shape)}".encode())
            digest.update(tensor.flatten()[:64].float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
