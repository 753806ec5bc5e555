"""What the loop trains: the protocol of a task, and how its batches reach the loop."""

from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from video_gen.errors import TrainingError

PREFETCH = 2
"""Batches made ahead of the step that needs them."""


class Task(Protocol):
    """What the loop trains. In `batch` and `loss`, `step` is an optimiser step's index from 0; else it counts them."""

    tokens_per_step: float | None
    """Tokens of one optimiser step, on average over an epoch, for the log; None leaves the figure out."""

    def modules(self) -> dict[str, nn.Module]:
        """The modules to train, by name, which the loop moves to the device. Frozen parameters stay as they are.

        A module may list `no_decay()` (see `build_optimizer`) and hold `blocks` and `checkpointing` (see
        `LoopConfig`).
        """
        ...

    def batch(self, step: int) -> Mapping[str, Any]:
        """All samples of step `step`, on the CPU: tensors (samples, ...) and lists such as captions.

        There may be more than `batch_size` where samples are smaller (see `data.batches`). A pure function of `step`; called
        from another thread, ahead of time, and perhaps more than once.
        """
        ...

    def loss(self, batch: Mapping[str, Any], step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean loss () of one micro-batch, on the device and under autocast, and parts of it () to log.

        Every random number must come from `generator`, which is on the device.
        """
        ...

    def flops(self, batch: Mapping[str, Any], step: int) -> int | None:
        """Operations of the step's forward and backward on `batch`, from shapes alone; None = not known."""
        ...

    def validate(self, step: int) -> dict[str, float]:
        """Held-out figures; called with the averaged weights, in eval mode, without gradients, under autocast."""
        ...

    def sample(self, step: int, folder: Path) -> None:
        """Write samples into `folder`; called like `validate`. PNG files show up in TensorBoard."""
        ...

    def save(self, folder: Path) -> None:
        """Write the model folder; called at the end with the averaged weights."""
        ...


def split_batch(batch: Mapping[str, Any], parts: int) -> list[dict[str, Any]]:
    """Cut every tensor and list along its first axis into `parts` equal micro-batches; a () tensor goes into each."""
    return [{k: _part(k, v, m, parts) for k, v in batch.items()} for m in range(parts)] if parts > 1 else [dict(batch)]


def samples_in(batch: Mapping[str, Any]) -> int:
    return next(len(v) for v in batch.values() if not (isinstance(v, Tensor) and v.ndim == 0))


def step_generator(seed: int, step: int, micro: int, device: torch.device) -> torch.Generator:
    """The generator of one micro-batch of one step: independent of all others, and nothing to store for a resume."""
    mixed = np.random.SeedSequence([seed, step, micro]).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(mixed) >> 1)  # fits a signed 64-bit seed


@contextmanager
def prefetched(task: Task, first: int, end: int, device: torch.device) -> Iterator[Iterator[Mapping[str, Any]]]:
    """The batches of steps first..end-1 on the device, made ahead in one thread, whose errors come out here."""

    def produce(step: int) -> Mapping[str, Any]:
        batch = task.batch(step)
        if device.type != "cuda":
            return batch
        return {k: v.pin_memory() if isinstance(v, Tensor) else v for k, v in batch.items()}

    def consume() -> Iterator[Mapping[str, Any]]:
        waiting: deque[Future] = deque()
        for step in range(first, end):
            while len(waiting) <= PREFETCH and step + len(waiting) < end:
                waiting.append(pool.submit(produce, step + len(waiting)))
            batch = waiting.popleft().result()
            yield {k: v.to(device, non_blocking=True) if isinstance(v, Tensor) else v for k, v in batch.items()}

    pool = ThreadPoolExecutor(1, thread_name_prefix="batches")
    try:
        yield consume()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _part(name: str, value: Any, index: int, parts: int) -> Any:
    if isinstance(value, Tensor) and value.ndim == 0:
        return value
    if len(value) % parts:
        raise TrainingError(f"batch entry '{name}' has {len(value)} samples; accumulation {parts} does not divide that")
    size = len(value) // parts
    return value[index * size : (index + 1) * size]
