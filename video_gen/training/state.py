"""What training is made of between two steps, and its checkpoints: safetensors and JSON, whole or absent.

`checkpoints/step_000500/` holds the state after 500 optimiser steps. One process writes model.safetensors (with buffers),
ema.safetensors, optimizer.safetensors and state.json, at once. Several processes write shard-*.safetensors, each what it
holds, by torch's DCP in the background of the next steps, and rank 0 the state.json. Any number of processes reads either.

So DCP serves only several processes. For one it would bring no more than a process group's import and its plans: the
files would be the same safetensors, since DCP's own format is a pickle, which nothing here reads or writes.
"""

import hashlib
import json
import platform
import re
import shutil
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import yaml
from safetensors import safe_open
from torch import Tensor, nn

import video_gen
from video_gen.errors import TrainingError
from video_gen.files import explained, write_tensors, write_text
from video_gen.model.weights import frozen as frozen_in
from video_gen.training.folder import fixed_part, put_in_place, whole_folder
from video_gen.training.optim import Optimizer, named_parameters
from video_gen.training.parallel import Mesh, cpu_copy, local, row_range

TENSOR_FILES = ("model.safetensors", "ema.safetensors", "optimizer.safetensors")


@dataclass
class TrainState:
    """Everything that a resumed run needs. Randomness and the data's place are functions of `step`, so not here."""

    modules: dict[str, nn.Module]
    optimizer: Optimizer
    ema: dict[str, Tensor]
    """float32 averages of the trainable parameters, by the names of `named_parameters(modules)`; sharded as these are."""
    step: int = 0
    """Optimiser steps done, which is also the index of the next one."""
    seconds: float = 0.0
    """Time spent training, over all sessions."""
    sums: dict[str, list] = field(default_factory=dict)
    """Sums and counts since the last line of the log: name -> [sum, count]."""
    metrics: dict[str, float] = field(default_factory=dict)
    """The newest loss and validation figures."""

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """File name -> name -> live tensor. What is frozen is not among them: it comes from elsewhere at each start."""
        frozen = {f"{m}.{name}" for m, module in self.modules.items() for name in frozen_in(module)}
        model = {f"{m}.{n}": t for m, module in self.modules.items() for n, t in module.state_dict().items()}
        model = {name: tensor for name, tensor in model.items() if name not in frozen}
        return dict(zip(TENSOR_FILES, (model, self.ema, self.optimizer.tensors()), strict=True))

    def broken(self) -> str | None:
        """The name of a tensor that holds a NaN or an infinity, if there is one in this process's share."""
        for file, tensors in self.tensors().items():
            for name, tensor in tensors.items():
                if tensor.is_floating_point() and not local(tensor).isfinite().all():
                    return f"{file.removesuffix('.safetensors')}/{name}"
        return None


def fresh_ema(modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """Averages that start at the parameters' values."""
    return {n: p.detach().to(torch.float32, copy=True) for n, p in named_parameters(modules).items()}


@torch.no_grad()
def update_ema(ema: Mapping[str, Tensor], parameters: Mapping[str, Tensor], step: int, ema_decay: float) -> None:
    """Move the averages towards the parameters of the same names after optimiser step `step` (counted from 0).

    The decay is min(ema_decay, (1 + step) / (10 + step)): an average over about the last tenth of the steps, early on.
    """
    decay = min(ema_decay, (1 + step) / (10 + step))
    averages = [local(average) for average in ema.values()]
    torch._foreach_lerp_(averages, [local(parameters[name]).float() for name in ema], 1 - decay)


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
            write_tensors(new / name, tensors)
        files = {name: _file_facts(new / name) for name in TENSOR_FILES}
        write_text(new / "state.json", json.dumps(_scalars(state, config_yaml) | {"files": files}, indent=1))
    _remove_older(folder, keep)
    return folder


class Saver:
    """Saves the checkpoints of a run: of one process at once, of several in the background.

    There, the state is copied to the CPU's memory before `save` returns; then a thread of each process writes its shards,
    and last, that of rank 0 gives the whole folder its name. The next save, and `wait`, wait for that.
    """

    def __init__(self, run_dir: Path, config_yaml: str, keep: int, mesh: Mesh):
        self.run_dir, self.config_yaml, self.keep, self.mesh = run_dir, config_yaml, keep, mesh
        self.pending: Future[None] | None = None
        if mesh.world > 1:
            group = dist.new_group(backend="gloo")  # its own, since the thread talks beside the steps
            assert isinstance(group, dist.ProcessGroup)  # every process is of it
            self.group = group
            self.thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")

    def save(self, state: TrainState) -> None:
        """Save `state` as the checkpoint of its step, then remove all but the newest `keep`."""
        if self.mesh.world == 1:
            save_checkpoint(self.run_dir, state, self.config_yaml, self.keep)
            return
        from torch.distributed.checkpoint import HuggingFaceStorageWriter, async_save

        self.wait()
        folder = self.run_dir / "checkpoints" / f"step_{state.step:06d}"
        new = folder.with_name(f".new-{folder.name}")
        if self.mesh.main:
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir(parents=True)
        self.mesh.wait()
        writer = HuggingFaceStorageWriter(str(new), save_distributed=True)
        stager: Any = Copies()
        written = async_save(_flat(state), storage_writer=writer, async_stager=stager, process_group=self.group)
        scalars = _scalars(state, self.config_yaml)
        self.pending = self.thread.submit(self._finish, written, new, folder, scalars)

    def wait(self) -> None:
        """Until the last checkpoint is there. Raises: what went wrong with it."""
        if self.pending is not None:
            self.pending.result()
            self.pending = None
            self.mesh.wait()

    def _finish(self, written: Any, new: Path, folder: Path, scalars: dict[str, Any]) -> None:
        written.result()
        own = {file.name: _file_facts(file) for file in new.glob(f"shard-{self.mesh.rank + 1:05d}-*.safetensors")}
        every: list[dict] = [{}] * self.mesh.world
        dist.all_gather_object(every, own, group=self.group)
        if self.mesh.main:
            files = {name: facts for found in every for name, facts in found.items()}
            with explained(new):
                write_text(new / "state.json", json.dumps(scalars | {"files": files}, indent=1))
                put_in_place(new, folder)
            _remove_older(folder, self.keep)


class Copies:
    """How DCP is to take the state off the devices (an `AsyncStager`): copied when `stage` returns, however it is laid
    out. DCP's own stagers copy a tensor's whole storage, and cannot that of a DTensor made of a slice, such as Muon's."""

    should_synchronize_after_execute = False

    def stage(self, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: cpu_copy(tensor) for name, tensor in state_dict.items()}

    def synchronize_staging(self) -> None:
        """Nothing is left to do."""

    def close(self) -> None:
        """Nothing is held."""


def latest(run_dir: Path, say: Callable[[str], None] = print) -> Path | None:
    """The newest whole checkpoint, or None. Says which ones it passed over, and why.

    Raises: TrainingError if this user may not read one: to begin anew would lose it.
    """
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
    scalars = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    if scalars["config_sha256"] != _sha256(config_yaml):
        raise TrainingError(f"{folder}: written by another configuration; use a new run folder, or --resume never")
    if (folder / TENSOR_FILES[0]).exists():
        for name, wanted in state.tensors().items():
            _fill(folder / name, wanted)
    else:
        _fill_from_shards(folder, _flat(state))
    state.step, state.seconds = scalars["step"], scalars["seconds"]
    state.sums, state.metrics = scalars["sums"], scalars["metrics"]


def _flat(state: TrainState) -> dict[str, Tensor]:
    """All live tensors as "model/vae.encoder...", "ema/...", "optimizer/..."."""
    parts = {file.removesuffix(".safetensors"): tensors for file, tensors in state.tensors().items()}
    return {f"{part}/{name}": tensor.detach() for part, tensors in parts.items() for name, tensor in tensors.items()}


@torch.no_grad()
def _fill(file: Path, tensors: Mapping[str, Tensor]) -> None:
    """Read a file of whole tensors into these, of each sharded one only its own rows. Raises: TrainingError."""
    with safe_open(file, "pt") as stored:
        found = {name: torch.Size(stored.get_slice(name).get_shape()) for name in stored.keys()}  # noqa: SIM118
        _check_fit(file, found, {name: tensor.shape for name, tensor in tensors.items()})
        for name, tensor in tensors.items():
            rows = row_range(tensor)
            local(tensor).copy_(stored.get_tensor(name) if rows is None else stored.get_slice(name)[rows])


def _fill_from_shards(folder: Path, tensors: dict[str, Tensor]) -> None:
    """Read what several processes wrote into these, sharded or not. Raises: TrainingError."""
    from torch.distributed.checkpoint import HuggingFaceStorageReader, load

    reader = HuggingFaceStorageReader(str(folder))
    found = {name: facts.size for name, facts in reader.read_metadata().state_dict_metadata.items()}  # type: ignore[union-attr]
    _check_fit(folder, found, {name: tensor.shape for name, tensor in tensors.items()})
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        load(tensors, storage_reader=reader, no_dist=not dist.is_initialized())


def _remove_older(folder: Path, keep: int) -> None:
    older = [f for f in _checkpoints(folder.parent.parent) if _step(f) <= _step(folder)]
    for old in older[:-keep]:
        shutil.rmtree(old)


def _file_facts(file: Path) -> dict[str, int]:
    return {"bytes": file.stat().st_size, "crc32": _crc32(file)}


def _scalars(state: TrainState, config_yaml: str) -> dict[str, Any]:
    return {
        "step": state.step,
        "seconds": state.seconds,
        "config_sha256": _sha256(config_yaml),
        "video_gen": video_gen.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
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
        files = json.loads((folder / "state.json").read_text(encoding="utf-8"))["files"]
        for name, facts in files.items():
            if _file_facts(folder / name) != facts:
                return f"{name} is damaged"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except PermissionError as error:
        raise TrainingError(
            f"{error.filename}: permission denied; change its rights, or train as the user whose run it is"
        ) from None
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
        local(target[name]).copy_(local(tensor))


def _sha256(config_yaml: str) -> str:
    """Of what is trained: comments, layout and machines do not count, nor what is off, as settings are that come later."""
    fixed = _without_off(fixed_part(yaml.safe_load(config_yaml)))
    return hashlib.sha256(json.dumps(fixed, sort_keys=True, default=str).encode()).hexdigest()


def _without_off(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: part for key, old in value.items() if (part := _without_off(old))}
    return [_without_off(part) for part in value] if isinstance(value, list) else value


def _crc32(file: Path) -> int:
    total = 0
    with open(file, "rb") as stream:
        while piece := stream.read(1 << 22):
            total = zlib.crc32(piece, total)
    return total
