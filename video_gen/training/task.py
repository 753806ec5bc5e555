"""What the loop trains: the protocol of a task, how its batches reach the loop, and where random numbers come from.

Each sample of each step has a generator of its own, so that a run draws the same numbers for it however the batch is
dealt out to micro-batches and processes.
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from video_gen.errors import TrainingError
from video_gen.training.judge import Judge

PREFETCH = 2
"""Batches made ahead of the step that needs them."""


class Task(Protocol):
    """What the loop trains. In `batch` and `loss`, `step` is an optimiser step's index from 0; else it counts them."""

    tokens_per_step: float | None
    """Tokens of one optimiser step, on average over an epoch, for the log; None leaves the figure out."""

    judge: Judge | None
    """By which held-out figure weights are compared; None = by none, and the last ones are the run's."""

    def clips(self) -> dict[str, str]:
        """What is trained on: clip -> its side of the split and caption, so that a run that goes on can tell what has changed."""
        ...

    def made_of(self) -> dict[str, str]:
        """Frozen parts that must be the same when a run goes on: name -> fingerprint of the content."""
        ...

    def modules(self) -> dict[str, nn.Module]:
        """The modules to train, by name, which the loop moves to the device. Frozen parameters stay as they are.

        A module may list `no_decay()` (see `build_optimizer`) and hold `blocks` and `checkpointing` (see
        `LoopConfig`).
        """
        ...

    def batch(self, step: int) -> Mapping[str, Any]:
        """This process's samples of step `step` (`Mesh.share`), on the CPU: tensors (samples, ...) and lists such as
        captions.

        There may be more than `batch_size` where samples are smaller (see `data.batches`). A pure function of `step`; called
        from another thread, ahead of time, and perhaps more than once.
        """
        ...

    def loss(
        self, batch: Mapping[str, Any], step: int, generators: Sequence[torch.Generator]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean loss () over a micro-batch's samples, on the device and under autocast, and parts of it () to log.

        Every random number of a sample must come from its generator, which is on the device (`normal`, `uniform`); one
        of the whole step, from (seed, step).
        """
        ...

    def flops(self, batch: Mapping[str, Any], step: int) -> int | None:
        """Operations of the step's forward and backward on `batch`, from shapes alone; None = not known."""
        ...

    def validate(self, step: int) -> dict[str, float]:
        """Held-out figures, none if nothing is held out; called with the averaged weights, in eval mode, without gradients,
        under autocast.

        Every process calls it and must return the same: each may take its share and use `Mesh.gather`.
        """
        ...

    def sample(self, step: int, folder: Path) -> None:
        """Write samples into `folder`; called like `validate`, by rank 0 alone. PNG files show up in TensorBoard."""
        ...

    def save(self, folder: Path) -> None:
        """Write the model folder; called at the end like `sample`."""
        ...

    def on(self, modules: Mapping[str, nn.Module]) -> Self:
        """The same task with other modules in place of its own; only of several processes, where the task's own are
        sharded and these are whole."""
        ...


def split_batch(batch: Mapping[str, Any], parts: int) -> list[dict[str, Any]]:
    """Cut every tensor and list along its first axis into `parts` equal micro-batches; a () tensor goes into each."""
    return [{k: _part(k, v, m, parts) for k, v in batch.items()} for m in range(parts)] if parts > 1 else [dict(batch)]


def samples_in(batch: Mapping[str, Any]) -> int:
    return next(len(v) for v in batch.values() if not (isinstance(v, Tensor) and v.ndim == 0))


def sample_generators(seed: int, step: int, samples: range, device: torch.device) -> list[torch.Generator]:
    """A generator for each of the `samples` of a step, counted over the whole batch: independent of all others, and
    nothing to store for a resume."""
    seeds = [np.random.SeedSequence([seed, step, i]).generate_state(1, np.uint64)[0] for i in samples]
    return [torch.Generator(device).manual_seed(int(mixed) >> 1) for mixed in seeds]  # fits a signed 64-bit seed


def normal(generators: Sequence[torch.Generator], *shape: int) -> Tensor:
    """(samples, *shape) of the unit Gaussian, float32, each sample's from its generator."""
    numbers = torch.empty(len(generators), *shape, device=generators[0].device)
    for row, generator in zip(numbers, generators):
        row.normal_(generator=generator)
    return numbers


def uniform(generators: Sequence[torch.Generator], *shape: int) -> Tensor:
    """(samples, *shape) in [0, 1), float32, each sample's from its generator."""
    numbers = torch.empty(len(generators), *shape, device=generators[0].device)
    for row, generator in zip(numbers, generators):
        row.uniform_(generator=generator)
    return numbers


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

    pool = ThreadPoolExecutor(1, thread_name_prefix="batches", initializer=_without_helpers)
    try:
        yield consume()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _without_helpers() -> None:
    """Have this thread do its operators alone. A second team of OpenMP threads would be more threads than cores: then all of
    them sleep and wake around every operator of the training thread, too, which makes a compiled step 1.5 times as long."""
    torch.get_num_threads()  # torch sets a new thread's count at its first question; ours must come after
    threadpool_limits(1, user_api="openmp")


def _part(name: str, value: Any, index: int, parts: int) -> Any:
    if isinstance(value, Tensor) and value.ndim == 0:
        return value
    if len(value) % parts:
        raise TrainingError(f"batch entry '{name}' has {len(value)} samples; accumulation {parts} does not divide that")
    size = len(value) // parts
    return value[index * size : (index + 1) * size]
