"""How much memory a training step will take, without taking it: the step runs on tensors that have shapes and no content.

A `TorchDispatchMode` sees every allocation and every release, as they would happen, for models of any size.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from video_gen.model.allocations import AllocationTracker, materialise
from video_gen.training.config import LoopConfig, OptimConfig
from video_gen.training.optim import build_optimizer, clip_gradients, named_parameters
from video_gen.training.state import fresh_ema, update_ema
from video_gen.training.task import Task, sample_generators, samples_in, split_batch

HOLES, SMALL_HOLES, SMALL = 0.28, 0.6, 333 * 2**20
"""On a CPU, memory that comes and goes within a step costs more than its tensors' bytes, in holes of the heap that aligned
blocks leave: a share of all of it, and a further one of the first bytes. Fitted with glibc 2.36 to VAEs at 32, 64 and 128 and
transformers of 6 to 95 M parameters, whose processes then take 0.92 to 1.1 times what is planned."""


@dataclass(frozen=True)
class StepMemory:
    """Bytes of a training step."""

    weights: int
    gradients: int
    optimiser: int
    ema: int
    activations: int
    """What else is held at the peak. Gradients take the place of activations as the backward pass frees them, so that this
    and `gradients` add up to the peak of both."""
    workspace: int
    """On a CPU the heap's holes, or the copy that a checkpoint makes where that is more; of several devices the weights
    that are gathered for use."""

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimiser + self.ema + self.activations + self.workspace


def step_memory(
    task: Task,
    batch: Mapping[str, Any],
    loop: LoopConfig,
    optim: OptimConfig,
    devices: int = 1,
    cpu: bool = True,
    frozen: Iterable[nn.Module] = (),
) -> StepMemory:
    """The memory of one step on each of so many devices, between which weights, gradients and states are divided.

    Args:
        task: its modules on the device "meta"; they are on a fake one afterwards.
        batch: of one device.
        cpu: with the heap of a CPU; on a GPU the allocator's tensors alone.
        frozen: what else the step calls and does not train, on "meta" too.
    """
    with FakeTensorMode() as fake, AllocationTracker() as tracker:
        modules = task.modules()
        for module in modules.values():
            materialise(module.train())
            if hasattr(module, "checkpointing"):
                module.checkpointing = loop.checkpointing  # type: ignore[assignment]
        for module in frozen:
            materialise(module)
        weights = tracker.bytes
        ema = fresh_ema(modules)
        with_ema = tracker.bytes
        optimizer = build_optimizer(modules, optim)
        kept = tracker.bytes
        entries = {k: fake.from_tensor(v) if isinstance(v, Tensor) else v for k, v in batch.items()}
        for index, micro in enumerate(split_batch(entries, loop.accumulation)):
            first, count = index * samples_in(micro), samples_in(micro)
            generators = sample_generators(loop.seed, 0, range(first, first + count), torch.device("cpu"))
            with torch.autocast("cpu", torch.bfloat16, enabled=loop.precision == "bf16"):
                loss, _ = task.loss(micro, 0, generators)
            loss.backward()
            del loss
        clip_gradients(list(optimizer.parameters.values()), optim.clip_norm)
        optimizer.step(optim.learning_rate)
        update_ema(ema, optimizer.parameters, 0, loop.ema_decay)
        gradients = sum(p.grad.nbytes for p in optimizer.parameters.values() if p.grad is not None)
        comes_and_goes = tracker.peak - kept
        activations = max(0, comes_and_goes - gradients)
        share = lambda whole: -(-whole // devices)  # noqa: E731
        workspace = _gathered(modules) if devices > 1 else 0
        if cpu:
            copy = share(max(weights, with_ema - weights, kept - with_ema))
            peak = activations + share(gradients)
            workspace += max(heap_holes(peak), share(gradients) + copy - peak)
        return StepMemory(
            share(weights), share(gradients), share(kept - with_ema), share(with_ema - weights), activations, workspace
        )


def heap_holes(size: int) -> int:
    """What memory that comes and goes costs on a CPU beside its own bytes."""
    return int(HOLES * size + SMALL_HOLES * min(size, SMALL))


def parameters_by_part(modules: Mapping[str, nn.Module], group_of: Any) -> dict[str, int]:
    """How many trainable parameters each group has."""
    counts: dict[str, int] = {}
    for name, p in named_parameters(modules).items():
        counts[group_of(name)] = counts.get(group_of(name), 0) + p.numel()
    return counts


def _gathered(modules: Mapping[str, nn.Module]) -> int:
    """Bytes of the two largest units that are whole at once: the block in use and the next one."""
    units = [block for module in modules.values() for block in getattr(module, "blocks", [])]
    sizes = sorted((sum(p.nbytes for p in unit.parameters()) for unit in units), reverse=True)
    return sum(sizes[:2])
