"""What training is made of between two steps, and its checkpoints: safetensors and JSON, whole or absent.

`checkpoints/step_000500/` holds the state after 500 optimiser steps: model.safetensors (with buffers), ema.safetensors,
optimizer.safetensors and state.json.
"""

import hashlib
import json
import platform
import re
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import video_gen
from video_gen.errors import TrainingError
from video_gen.training.folder import whole_folder
from video_gen.training.optim import Optimizer, named_parameters

TENSOR_FILES = ("model.safetensors", "ema.safetensors", "optimizer.safetensors")


@dataclass
class TrainState:
    """Everything that a resumed run needs. Randomness and the data's place are functions of `step`, so not here."""

    modules: dict[str, nn.Module]
    optimizer: Optimizer
    ema: dict[str, Tensor]
    """float32 averages of the trainable parameters, by the names of `named_parameters(modules)`."""
    step: int = 0
    """Optimiser steps done, which is also the index of the next one."""
    seconds: float = 0.0
    """Time spent training, over all sessions."""
    sums: dict[str, list] = field(default_factory=dict)
    """Sums and counts since the last line of the log: name -> [sum, count]."""
    metrics: dict[str, float] = field(default_factory=dict)
    """The newest loss and validation figures."""

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """File name -> name -> live tensor."""
        model = {f"{m}.{n}": t for m, module in self.modules.items() for n, t in module.state_dict().items()}
        return dict(zip(TENSOR_FILES, (model, self.ema, self.optimizer.tensors()), strict=True))


def fresh_ema(modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """Averages that start at the parameters' values."""
    return {n: p.detach().to(torch.float32, copy=True) for n, p in named_parameters(modules).items()}


@torch.no_grad()
def update_ema(ema: Mapping[str, Tensor], parameters: Mapping[str, Tensor], step: int, ema_decay: float) -> None:
    """Move the averages towards the parameters of the same names after optimiser step `step` (counted from 0).

    The decay is min(ema_decay, (1 + step) / (10 + step)): an average over about the last tenth of the steps, early on.
    """
    decay = min(ema_decay, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(ema.values()), [parameters[name].float() for name in ema], 1 - decay)


@contextmanager
def ema_weights(modules: Mapping[str, nn.Module], ema: Mapping[str, Tensor]) -> Iterator[None]:
    """Inside, the modules hold the averaged weights and are in eval mode; afterwards, all is exactly as before."""
    parameters = named_parameters(modules)
    kept = {name: parameters[name].detach().clone() for name in ema}
    modes = {part: part.training for module in modules.values() for part in module.modules()}
    try:
        _copy(ema, parameters)
        for module in modules.values():
            module.eval()
        yield
    finally:
        _copy(kept, parameters)
        for part, mode in modes.items():
            part.training = mode


def save_checkpoint(run_dir: Path, state: TrainState, config_yaml: str, keep: int) -> Path:
    """Write `state` as the checkpoint of its step, whole or not at all, then remove all but the newest `keep`."""
    folder = run_dir / "checkpoints" / f"step_{state.step:06d}"
    with whole_folder(folder) as new:
        for name, tensors in state.tensors().items():
            save_file({k: t.detach().to("cpu", copy=True).contiguous() for k, t in tensors.items()}, new / name)
        (new / "state.json").write_text(json.dumps(_scalars(state, config_yaml, new), indent=1))
    older = [f for f in _checkpoints(run_dir) if _step(f) <= state.step]
    for old in older[:-keep]:
        shutil.rmtree(old)
    return folder


def latest(run_dir: Path, say: Callable[[str], None] = print) -> Path | None:
    """The newest whole checkpoint, or None. Says which ones it passed over, and why."""
    for folder in reversed(_checkpoints(run_dir)):
        problem = _damage(folder)
        if problem is None:
            return folder
        say(f"{folder}: passed over, {problem}")
    return None


def load_checkpoint(folder: Path, state: TrainState, config_yaml: str) -> None:
    """Fill `state` in place from a checkpoint.

    Raises: TrainingError if it belongs to another configuration, or a tensor's name or shape differs from the model's.
    """
    scalars = json.loads((folder / "state.json").read_text())
    if scalars["config_sha256"] != _sha256(config_yaml):
        raise TrainingError(f"{folder}: written by another configuration; use a new run folder, or --resume never")
    for name, wanted in state.tensors().items():
        found = load_file(folder / name)
        _check_fit(folder / name, {k: t.shape for k, t in found.items()}, {k: t.shape for k, t in wanted.items()})
        _copy(found, wanted)
    state.step, state.seconds = scalars["step"], scalars["seconds"]
    state.sums, state.metrics = scalars["sums"], scalars["metrics"]


def _scalars(state: TrainState, config_yaml: str, folder: Path) -> dict:
    files = {name: folder / name for name in TENSOR_FILES}
    return {
        "step": state.step,
        "seconds": state.seconds,
        "config_sha256": _sha256(config_yaml),
        "video_gen": video_gen.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "files": {name: {"bytes": file.stat().st_size, "crc32": _crc32(file)} for name, file in files.items()},
        "sums": {name: [float(total), count] for name, (total, count) in state.sums.items()},
        "metrics": state.metrics,
    }


def _checkpoints(run_dir: Path) -> list[Path]:
    """Checkpoint folders, oldest first; `.new-` and `.old-` leftovers do not count."""
    folders = (run_dir / "checkpoints").glob("step_*")
    return sorted((f for f in folders if re.fullmatch(r"step_\d+", f.name)), key=_step)


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix("step_"))


def _damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint, or None."""
    try:
        files = json.loads((folder / "state.json").read_text())["files"]
        for name in TENSOR_FILES:
            if (folder / name).stat().st_size != files[name]["bytes"] or _crc32(folder / name) != files[name]["crc32"]:
                return f"{name} is damaged"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"it is damaged ({' '.join(str(error).split())})"
    return None


def _check_fit(file: Path, found: dict[str, torch.Size], wanted: dict[str, torch.Size]) -> None:
    remedy = "the model has changed since; use a new run folder, or --resume never"
    for name in wanted | found:
        if name not in found:
            raise TrainingError(f"{file}: '{name}' is missing; {remedy}")
        if name not in wanted:
            raise TrainingError(f"{file}: '{name}' is not in the model; {remedy}")
        if found[name] != wanted[name]:
            shapes = f"{tuple(found[name])}, the model's is {tuple(wanted[name])}"
            raise TrainingError(f"{file}: '{name}' is {shapes}; {remedy}")


@torch.no_grad()
def _copy(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
    for name, tensor in source.items():
        target[name].copy_(tensor)


def _sha256(config_yaml: str) -> str:
    """Of the configuration's content: comments and layout do not count."""
    return hashlib.sha256(json.dumps(yaml.safe_load(config_yaml), sort_keys=True, default=str).encode()).hexdigest()


def _crc32(file: Path) -> int:
    total = 0
    with open(file, "rb") as stream:
        while piece := stream.read(1 << 22):
            total = zlib.crc32(piece, total)
    return total
