"""Training on many processes: the mesh `(replicate, shard, context)`, and what they tell each other.

torchrun starts the processes and says by environment variables which is which; without it a run is one process, and
nothing here does anything. Rank `(r * shard + s) * context + c` of the mesh: neighbours share a sample's tokens.

Every process computes the same function of (state, step) on its own samples.
"""

import copy
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

from video_gen.errors import ConfigError
from video_gen.training.config import LoopConfig, ParallelConfig
from video_gen.training.context import Group

PATIENCE = timedelta(days=2)
"""How long processes wait for what only rank 0 does (encoding, samples); a dead process is torchrun's to notice."""


def pick_device(choice: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """This process's device. Raises: ConfigError if CUDA is asked for and absent."""
    if choice == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device is 'cuda', but torch sees no CUDA device; use 'auto' or 'cpu'")
    if choice == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ["LOCAL_RANK"])) if world_size() > 1 else torch.device("cuda")


def world_size() -> int:
    """How many processes torchrun started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@dataclass(frozen=True)
class Mesh:
    """This process's place in the mesh; `Mesh()` is a run of one process."""

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    rank: int = 0
    sizes: tuple[int, int, int] = (1, 1, 1)
    """(replicate, shard, context)"""
    gather_dtype: torch.dtype | None = None
    sharding: Any = None
    """The DeviceMesh of FSDP: (shard,) or (replicate, shard), the context's processes counted to `shard`."""
    context: Group | None = None
    """Who shares this process's samples."""
    talk: dist.ProcessGroup | None = None
    """All processes, on the CPU: for flags, and for waiting as long as it takes."""

    @property
    def world(self) -> int:
        replicate, shard, context = self.sizes
        return replicate * shard * context

    @property
    def main(self) -> bool:
        """Whether this is the process that talks, logs, samples and saves."""
        return self.rank == 0

    @property
    def data_ranks(self) -> int:
        """Into how many shares a batch is dealt."""
        return self.sizes[0] * self.sizes[1]

    @property
    def data_rank(self) -> int:
        """Which share is this process's."""
        return self.rank // self.sizes[2]

    def share(self, count: int) -> slice:
        """This process's samples of a batch of `count`, which `check_batch` has seen to be divisible."""
        size = count // self.data_ranks
        return slice(self.data_rank * size, (self.data_rank + 1) * size)

    def mean(self, values: Tensor) -> Tensor:
        """The mean over all processes, element by element, on each of them."""
        if self.world == 1:
            return values
        values = values.clone()
        dist.all_reduce(values)
        return values / self.world

    def any(self, flag: bool) -> bool:
        """Whether `flag` is set on some process; all get the same answer."""
        if self.world == 1:
            return flag
        flags = torch.tensor([flag], dtype=torch.int32)
        dist.all_reduce(flags, dist.ReduceOp.MAX, group=self.talk)
        return bool(flags)

    def gather(self, value: Any) -> list[Any]:
        """The values of all shares of the data, in order, on each process; for small things, such as figures."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value, group=self.talk)
        return values[:: self.sizes[2]]

    def from_main(self, value: Any) -> Any:
        """Rank 0's value, on each process."""
        if self.world == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0, group=self.talk)
        return values[0]

    def wait(self) -> None:
        """Until all processes are here."""
        if self.world > 1:
            dist.barrier(group=self.talk)

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """Rank 0 does what is inside, then the others, who find it done."""
        if not self.main:
            self.wait()
        yield
        if self.main:
            self.wait()

    def distribute(self, modules: Mapping[str, nn.Module]) -> None:
        """Move modules to the device and, of several processes, spread their parameters: rank 0's, in place.

        Parts are gathered one after another: each of `blocks`, then the module's own; a module that is never called
        itself (VideoVAE, of which encoder and decoder are) is spread child by child.
        """
        for module in modules.values():
            if self.world > 1:
                for p in module.parameters():
                    p.data = p.data.contiguous()  # FSDP2 takes no channels-last weights
                for tensor in (*module.parameters(), *module.buffers()):
                    dist.broadcast(tensor.data, 0, group=self.talk)
                for unit in _units(module):
                    self._shard(unit)
            if getattr(module, "offload", None) is None:  # else what is to be there is there (model/offload.py)
                module.to(self.device)

    def _shard(self, unit: nn.Module) -> None:
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

        policy = MixedPrecisionPolicy(
            param_dtype=self.gather_dtype, reduce_dtype=torch.float32, cast_forward_inputs=False
        )
        fully_shard(unit, mesh=self.sharding, mp_policy=policy)
        for method in getattr(unit, "also_called", ()):
            register_fsdp_forward_method(unit, method)


@contextmanager
def processes(config: ParallelConfig, loop: LoopConfig) -> Iterator[Mesh]:
    """This process's mesh, inside; of several processes only rank 0 prints.

    Raises: ConfigError if the mesh does not fit the number of processes, or the batch cannot be dealt out equally.
    """
    sizes, device, world = config.sizes(world_size()), pick_device(loop.device), world_size()
    _check(config, loop, sizes)
    if world == 1:
        yield Mesh(device)
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    store, rank, _ = next(dist.rendezvous("env://"))
    attempt = os.environ.get(
        "TORCHELASTIC_RESTART_COUNT", "0"
    )  # the store outlives a restart, and so do dead addresses
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=dist.PrefixStore(f"attempt_{attempt}", store), rank=rank, world_size=world)
    try:
        dtype = torch.bfloat16 if config.gather == "bf16" else None
        mesh = _mesh(sizes, device, dtype)
        with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(sys.stdout if mesh.main else nowhere):
            yield mesh
    finally:
        dist.destroy_process_group()


def _check(config: ParallelConfig, loop: LoopConfig, sizes: tuple[int, int, int]) -> None:
    replicate, shard, _ = sizes
    shares = replicate * shard * loop.accumulation
    if loop.batch_size % shares:
        low = max(1, loop.batch_size // shares) * shares
        raise ConfigError(
            f"loop.batch_size {loop.batch_size} must be a multiple of replicate {replicate} * shard {shard} * "
            f"accumulation {loop.accumulation} = {shares}; use e.g. {low} or {low + shares}, or a larger parallel.context, "
            "whose processes share samples"
        )
    if config.gather == "bf16" and loop.precision == "float32":
        raise ConfigError("parallel.gather is 'bf16' and loop.precision 'float32'; make both one or the other")


def _mesh(sizes: tuple[int, int, int], device: torch.device, gather_dtype: torch.dtype | None) -> Mesh:
    from torch.distributed.device_mesh import init_device_mesh

    rank, (replicate, shard, context) = dist.get_rank(), sizes
    names = ("replicate", "shard")
    sharding = init_device_mesh(device.type, (replicate, shard * context), mesh_dim_names=names)
    group = None
    if context > 1:
        of_data = init_device_mesh(device.type, (replicate * shard, context), mesh_dim_names=("data", "context"))
        group = Group(of_data.get_group("context"), rank % context, context)
    talk = dist.new_group(backend="gloo", timeout=PATIENCE)
    assert isinstance(talk, dist.ProcessGroup)  # every process is of it
    return Mesh(device, rank, sizes, gather_dtype, sharding["shard"] if replicate == 1 else sharding, group, talk)


def _units(module: nn.Module) -> list[nn.Module]:
    """The parts of a module whose parameters are gathered together, inner ones first."""
    blocks = list(getattr(module, "blocks", []))
    if type(module).forward is not nn.Module.forward:
        return [*blocks, module]
    return [child for child in module.children() if any(True for _ in child.parameters())]


# -------------------- sharded tensors, and whole ones


def local(tensor: Tensor) -> Tensor:
    """This process's shard of a DTensor, sharing its memory; a plain tensor as it is."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor  # type: ignore[attr-defined]


def row_range(tensor: Tensor) -> slice | None:
    """Which rows of the whole a DTensor's shard is; None for a plain tensor."""
    group = sharding_of(tensor)
    if group is None:
        return None
    most = -(-len(tensor) // group.size())  # as torch.chunk cuts
    start = min(len(tensor), group.rank() * most)
    return slice(start, min(len(tensor), start + most))


def cpu_copy(tensor: Tensor) -> Tensor:
    """A copy in the CPU's memory, as sharded as the original."""
    copied = local(tensor).detach().to("cpu", copy=True).contiguous()
    if sharding_of(tensor) is None:
        return copied
    from torch.distributed.tensor import DTensor

    return DTensor(copied, tensor._spec, requires_grad=False)  # type: ignore[attr-defined, call-arg]


def whole(tensor: Tensor) -> Tensor:
    """A DTensor gathered, by all its processes together; a plain tensor as it is."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor  # type: ignore[attr-defined]


def blueprints(modules: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    """Copies without weights, to be filled by `built`; made before the modules are distributed."""
    copies = {}
    for name, module in modules.items():
        memo: dict[int, Any] = {
            id(p): nn.Parameter(torch.empty_like(p, device="meta"), False) for p in module.parameters()
        }
        copies[name] = copy.deepcopy(module, memo)
    return copies


@torch.no_grad()
def built(
    plans: Mapping[str, nn.Module], modules: Mapping[str, nn.Module], weights: Mapping[str, Tensor]
) -> dict[str, nn.Module]:
    """Whole modules in eval mode, like `modules` but with `weights` ("module.name") where there are some: plain tensors
    on every process, so each can do with them what it likes. All processes together."""
    result = {}
    for name, module in modules.items():
        own = {n: whole(weights.get(f"{name}.{n}", tensor)).detach() for n, tensor in module.state_dict().items()}
        result[name] = copy.deepcopy(plans[name])
        result[name].load_state_dict(own, assign=True)
        result[name].eval()
    return result


# -------------------- whole matrices of sharded ones


def sharding_of(p: Tensor) -> dist.ProcessGroup | None:
    """The processes over which the rows of a parameter are spread; None if it is whole."""
    return p.device_mesh.get_group(p.device_mesh.ndim - 1) if hasattr(p, "device_mesh") else None  # type: ignore[attr-defined]


def sharded_like(p: Tensor, rows: Tensor, shape: tuple[int, ...]) -> Tensor:
    """`rows`, of the same number as those of `p`'s shard, as what they are of a tensor of `shape`; shares memory."""
    if sharding_of(p) is None:
        return rows
    from torch.distributed.tensor import DTensor

    stride = torch.empty(shape, device="meta").stride()
    return DTensor.from_local(
        rows,
        p.device_mesh,  # type: ignore[attr-defined]
        p.placements,  # type: ignore[attr-defined]
        run_check=False,
        shape=torch.Size(shape),
        stride=stride,
    )


def rows_to_matrices(shards: Tensor, rows: int, group: dist.ProcessGroup) -> Tensor:
    """Deal out a stack of matrices, of each of which every process has some rows.

    Args: shards: (n, this process's rows, cols) of n matrices (rows, cols), cut as `torch.chunk` cuts.
    Returns: (ceil(n / processes), rows, cols): whole matrices, the last ones zero where n does not suffice.
    """
    size, each = group.size(), -(-len(shards) // group.size())
    most = -(-rows // size)
    sent = shards.new_zeros(size * each, most, shards.shape[2])
    sent[: len(shards), : shards.shape[1]] = shards
    received = torch.empty_like(sent)
    dist.all_to_all_single(received, sent, group=group)
    parts = received.view(size, each, most, -1)  # (process whose rows these are, matrix, row, col)
    return parts.transpose(0, 1).flatten(1, 2)[:, :rows]


def matrices_to_rows(matrices: Tensor, shape: tuple[int, int], group: dist.ProcessGroup) -> Tensor:
    """The inverse of `rows_to_matrices`: (n, this process's rows, cols), `shape` being the first two."""
    size, (each, rows, cols) = group.size(), matrices.shape
    most = -(-rows // size)
    sent = matrices.new_zeros(each, size * most, cols)
    sent[:, :rows] = matrices
    sent = sent.view(each, size, most, cols).transpose(0, 1).contiguous()
    received = torch.empty_like(sent)
    dist.all_to_all_single(received, sent, group=group)
    return received.view(size * each, most, cols)[: shape[0], : shape[1]]
