"""What a run on many machines needs of them, tried before it starts: started by torchrun just as the run will be.

    torchrun ... -m video_gen.training.cluster_check FOLDER

Checks that all processes find each other, that sums and exchanges arrive right and how fast, and that a file that one
process puts in FOLDER (where the run folder will be) is seen by all.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist

from video_gen.errors import VideoGenError, exit_code
from video_gen.training.config import LoopConfig, ParallelConfig
from video_gen.training.context import Ulysses
from video_gen.training.parallel import Mesh, processes, world_size

MEBIBYTES = 64
SECONDS_TO_SEE = 30.0
"""How late a file may show up on another machine: network file systems cache the lists of names."""


class ClusterError(VideoGenError):
    """The machines do not do what a run needs; the message says which process found what."""


def check(folder: Path, mebibytes: int = MEBIBYTES) -> None:
    """Try everything, and print a line for each. Raises: ClusterError on every process if one finds a fault."""
    with processes(ParallelConfig(), LoopConfig(batch_size=world_size())) as mesh:
        print(f"{mesh.world} processes found each other; rank 0 is on {mesh.device}, torch {torch.__version__}")
        for what, test in (("all-reduce", all_reduce), ("all-to-all", all_to_all)):
            rate = agreed(mesh, lambda test=test: test(mesh, mebibytes << 20))
            print(f"{what}: right, {rate:.2f} GB/s per process ({mebibytes} MiB)")
        seconds = agreed(mesh, lambda: shared_folder(mesh, folder))
        print(f"{folder}: shared, a new file was seen everywhere within {seconds:.1f} s")


def agreed(mesh: Mesh, test: Callable[[], float]) -> float:
    """Rank 0's result of a test of all processes; a fault of one is an error on all."""
    try:
        result, fault = test(), ""
    except ClusterError as error:
        result, fault = 0.0, f"rank {mesh.rank}: {error}"
    faults = [found for found in mesh.gather(fault) if found]
    if faults:
        raise ClusterError(faults[0] if len(faults) == 1 else f"{faults[0]}; and {len(faults) - 1} more processes")
    return float(mesh.from_main(result))


def all_reduce(mesh: Mesh, size: int) -> float:
    """GB/s."""
    values = torch.full((size // 4,), float(mesh.rank + 1), device=mesh.device)
    mesh.mean(values[:1])  # connections are made at the first use
    start = time.perf_counter()
    mean = mesh.mean(values)
    if not bool((mean == (mesh.world + 1) / 2).all()):
        raise ClusterError(f"all-reduce gave {mean[0].item():g}, not {(mesh.world + 1) / 2:g}")
    return size / (time.perf_counter() - start) / 1e9


def all_to_all(mesh: Mesh, size: int) -> float:
    """GB/s, through the exchange that a context uses."""
    if mesh.world == 1:
        return float("inf")
    everyone = Ulysses(dist.group.WORLD, mesh.rank, mesh.world)  # type: ignore[arg-type]
    columns = max(1, size // 4 // mesh.world)
    values = torch.full((mesh.world, columns), float(mesh.rank), device=mesh.device)
    everyone.exchange(values[:, :1], split=0, join=1)
    start = time.perf_counter()
    received = everyone.exchange(values, split=0, join=1)[0]  # (world * columns,)
    expected = torch.arange(mesh.world, device=mesh.device).repeat_interleave(columns).float()
    if not torch.equal(received, expected):
        raise ClusterError("all-to-all delivered wrong values")
    return size / (time.perf_counter() - start) / 1e9


def shared_folder(mesh: Mesh, folder: Path) -> float:
    """Seconds until rank 0's new file is seen here, whole."""
    word = mesh.from_main(f"{time.time_ns()}")
    file = folder / f".cluster-check-{word}"
    if mesh.main:
        folder.mkdir(parents=True, exist_ok=True)
        file.write_text(word, encoding="utf-8")
    mesh.wait()
    start = time.monotonic()
    try:
        while not (file.exists() and file.read_text(encoding="utf-8") == word):
            if time.monotonic() - start > SECONDS_TO_SEE:
                raise ClusterError(
                    f"{folder} is not shared: a file of rank 0 does not show up; use a shared file system"
                )
            time.sleep(0.05)
        return time.monotonic() - start
    finally:
        mesh.wait()
        if mesh.main:
            file.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(exit_code("cluster check", lambda: check(Path(sys.argv[1] if len(sys.argv) > 1 else "runs"))))
