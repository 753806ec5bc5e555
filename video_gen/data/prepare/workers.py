"""Where the work on files is done: in this process, in several on this machine, or on a Ray cluster."""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from video_gen.data.processes import in_processes
from video_gen.errors import ConfigError, DataError, VideoGenError

Item = TypeVar("Item")
Result = TypeVar("Result")

Progress = Callable[[str, int, int], None]
"""Is told what is done, and how much of it, of how much."""
IN_FLIGHT = 4
"""Items per core of a cluster that are handed out at a time: a million of them need not be described at once."""
RETRIES = 3
"""How often an item is tried again whose node was lost."""


@dataclass(frozen=True)
class Workers:
    """
    Args:
        count: processes on this machine; None = as many as it has cores.
        ray: address of a Ray cluster, `auto` for the one of this machine; None = none. All its nodes must see the same folders.
    """

    count: int | None = None
    ray: str | None = None

    def each(self, make: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[tuple[Item, Result]]:
        """Items and what `make` makes of them, as they are done.

        Args: make: a function of a module, or a `functools.partial` of one.
        Raises: what `make` raises of this project's errors; DataError if a process or node is lost too often.
        """
        if not items:
            return
        if self.ray is not None:
            yield from _on_ray(make, items, self.ray)
            return
        count = min(self.count or os.cpu_count() or 1, len(items))
        yield from in_processes(make, items, count)


def _on_ray(make: Callable[[Any], Any], items: Sequence[Any], address: str) -> Iterator[tuple[Any, Any]]:
    try:
        import ray  # pyright: ignore[reportMissingImports]
        from ray.exceptions import RayError  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ConfigError("--ray needs Ray; pip install 'video-gen[ray]'") from None
    if not ray.is_initialized():
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise ConfigError(
                f"--ray {address}: no Ray cluster answers there ({' '.join(str(error).split())[:120]}); `ray start --head` "
                "starts one"
            ) from None
    run = ray.remote(_safely).options(max_retries=RETRIES, num_cpus=1)
    most = IN_FLIGHT * max(1, int(ray.cluster_resources().get("CPU", 1)))
    made = ray.put(make)
    running: dict[Any, Any] = {}
    left = iter(items)
    try:
        while True:
            while len(running) < most and (item := next(left, None)) is not None:
                running[run.remote(made, item)] = item
            if not running:
                return
            done, _ = ray.wait(list(running), num_returns=1)
            item = running.pop(done[0])
            try:
                result = ray.get(done[0])
            except RayError as error:
                raise DataError(
                    f"{getattr(item, 'name', item)}: its node or process was lost {RETRIES + 1} times "
                    f"({type(error).__name__}); the same command goes on"
                ) from None
            if isinstance(result, VideoGenError):
                raise result
            yield item, result
    finally:
        for reference in running:
            ray.cancel(reference, force=True)


def _safely(make: Callable[[Any], Any], item: Any) -> Any:
    """An error of ours is a result: Ray would wrap it."""
    try:
        return make(item)
    except VideoGenError as error:
        return error
