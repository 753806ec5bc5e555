"""Where streams stand, as a value and as a file, which knows the model that it is of."""

import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from video_gen.config import Config, differences, validate
from video_gen.errors import ConfigError, DataError
from video_gen.files import write_tensors
from video_gen.model.keys import KeyValue
from video_gen.model.transformer import History
from video_gen.model.vae_layers import Cache, Caches
from video_gen.sampling.config import Steering
from video_gen.sampling.model import VideoModel
from video_gen.sampling.rollout import RolloutState


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


class StateHeader(Config):
    """What a saved state holds besides tensors."""

    model: str | None
    """Where its model was loaded from, as `VideoModel.origin` has it."""
    loras: tuple[str, ...] = ()
    """What was added to that, as FILE:SCALE."""
    settings: dict[str, dict[str, Any]]
    """Of the model, by file."""
    weights: dict[str, str]
    """A hash of the weights of each part of the model."""
    steering: Steering
    block_frames: int = Field(ge=1)
    speed: float = Field(gt=0)
    seconds: float = Field(ge=0)


def save_state(state: StreamState, path: str | Path, model: VideoModel) -> None:
    """See `Streams.save`. Raises: DataError if the file cannot be written."""
    header = StateHeader(
        model=model.origin,
        loras=tuple(f"{Path(file).absolute()}:{scale}" for file, scale in model.loras),
        settings=settings_of(model),
        weights=weights_of(model),
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
    if rollout.actions is not None:
        tensors["actions"] = rollout.actions
    if rollout.history is not None and rollout.history.latest is not None:
        tensors["history.latest"] = rollout.history.latest
    if rollout.history is not None:
        for i, (k, v) in enumerate(rollout.history.layers):
            tensors |= {f"history.{i}.k": k, f"history.{i}.v": v}
    write_tensors(Path(path), tensors, {"stream": header.model_dump_json()})


def load_state(path: str | Path, model: VideoModel) -> StreamState:
    """See `Streams.load`."""
    path = Path(path)
    header, tensors = _read(path, with_tensors=True)
    for (file, *keys), was, now in differences(_as_now(header.settings, model), settings_of(model)):
        what = f"{file}: {'.'.join(keys)}"
        raise DataError(
            f"{path}: was made by another model: {what} was {was}, and is {now}; load that model, or start a new stream"
        )
    for (part, *_), _, _ in differences(header.weights, weights_of(model)):
        raise DataError(
            f"{path}: was made by another model: the weights of {part}/ are others; load that model, or start a new stream"
        )
    layers = [
        KeyValue(*(tensors[f"history.{i}.{part}"].to(model.device) for part in "kv"))
        for i in range(len(tensors))
        if f"history.{i}.k" in tensors
    ]
    block, actions, latest = (
        tensors[name].to(model.device) if name in tensors else None for name in ("block", "actions", "history.latest")
    )
    history = History(tuple(layers), layers[0].k.shape[2], latest) if layers else None
    decoder: list[Cache] = []
    while cache := _numbered(tensors, f"decoder.{len(decoder)}"):
        on_device = (x.to(model.device) for x in cache)
        decoder.append(tuple(x.contiguous(memory_format=torch.channels_last_3d) for x in on_device))
    randomness = tuple(_numbered(tensors, "randomness"))
    if any(len(state) != len(torch.Generator(model.device).get_state()) for state in randomness):
        raise DataError(f"{path}: was made on another kind of device, whose random numbers go on only there; use that")
    rollout = RolloutState(history, block, randomness, actions)
    return StreamState(
        rollout, tuple(decoder) or None, header.steering, header.block_frames, header.speed, header.seconds
    )


def model_of_state(path: Path) -> str:
    """Where the model of a saved state was. Raises: DataError if there is no such state, or its model is not there any more."""
    model = _read(path, with_tensors=False)[0].model
    if model is None:
        raise DataError(f"{path}: names no model, since it was made of one that was not loaded; give it as --model")
    if Path(model).is_absolute() and not Path(model).is_dir():
        raise DataError(f"{path}: its model {model} is not there any more; give the place where it is as --model")
    return model


def loras_of_state(path: Path) -> tuple[str, ...]:
    """The files of LoRA, and their scales, that its model had. Raises: DataError if there is no such state."""
    return _read(path, with_tensors=False)[0].loras


def size_of_state(path: Path) -> tuple[int, int]:
    """(height, width) of its frames. Raises: DataError if there is no such state."""
    clip = _read(path, with_tensors=False)[0].settings["model.json"]["clip"]
    return clip["height"], clip["width"]


def _read(path: Path, with_tensors: bool) -> tuple[StateHeader, dict[str, Tensor]]:
    if not path.is_file():
        raise DataError(f"{path}: no such file; give one that `video-gen stream --save` or `stream.save` wrote")
    try:
        with safe_open(path, "pt") as file:
            values = json.loads((file.metadata() or {}).get("stream", "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()} if with_tensors else {}  # noqa: SIM118
    except PermissionError:
        raise DataError(f"{path}: permission denied; change its rights") from None
    except (SafetensorError, ValueError, OSError) as error:
        raise DataError(f"{path}: damaged, or no saved stream ({error}); save it again") from None
    if values is None:
        raise DataError(f"{path}: holds no stream; give a file that `video-gen stream --save` or `stream.save` wrote")
    return validate(StateHeader, values, source=str(path)), tensors


def _numbered(tensors: dict[str, Tensor], name: str) -> list[Tensor]:
    return [tensors[f"{name}.{i}"] for i in range(len(tensors)) if f"{name}.{i}" in tensors]


# -------------------- of which model


def settings_of(model: VideoModel) -> dict[str, dict[str, Any]]:
    """All that a model folder's settings say, by file; but not where its text encoder lies, whose weights tell."""
    return {file: json.loads(config.model_dump_json(exclude={"name"})) for file, config in _configs(model).items()}


def _as_now(settings: dict[str, dict[str, Any]], model: VideoModel) -> dict[str, dict[str, Any]]:
    """Settings that an older version saved, with what came later as it is by default."""
    found = dict(settings)
    for file, config in _configs(model).items():
        name = {"name": config.name} if hasattr(config, "name") else {}
        with suppress(ConfigError):  # what is not known any more is told as a difference
            whole = validate(type(config), settings.get(file, {}) | name, file)
            found[file] = json.loads(whole.model_dump_json(exclude={"name"}))
    return found


def _configs(model: VideoModel) -> dict[str, Any]:
    return {
        "model.json": model.config,
        "vae/config.json": model.vae.config,
        "transformer/config.json": model.transformer.config,
        "text/config.json": model.text.config,
    }


def weights_of(model: VideoModel) -> dict[str, str]:
    return {name: fingerprint(getattr(model, name)) for name in ("vae", "transformer", "text")}


def fingerprint(module: nn.Module) -> str:
    """16 hexadecimal digits of names, shapes and all values of the weights."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]
