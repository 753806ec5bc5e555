"""torch.compile by region: each of a model's `blocks` is compiled, equal ones share it, and shapes are static.

Compiled code differs from eager code by rounding. So whether to compile follows from the configuration, the device and
whether a compiler works here, never from a measured time: a resumed run repeats an uninterrupted one.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import torch
from torch import nn

from video_gen.training.config import LoopConfig
from video_gen.training.monitor import say

Result = TypeVar("Result")

LONG_RUN = {"cpu": 2000, "cuda": 200}
"""Steps from which `auto` compiles. The demo's model pays 78 s of compiling for .06 s less of .27 a step on two cores; on an
H200 a step of 619 M parameters is .08 s shorter by it (docs/speed.md). How long it compiles there sets the 200, by guess."""
VECTORS: dict[str, str | int | bool] = {"cpp.simdlen": 256}
"""For CPUs that have vectors of 512 bits: with those, code of torch 2.13 transposes some tiles of bfloat16 wrongly, and gradients
are NaN, or made of whatever lies in memory. Shorter vectors take no longer (docs/speed.md)."""
VARIANTS = 128
"""Compiled variants of one block: kinds of attention x streams x divisions into blocks x buckets. torch's own limit of 8
would have later ones run eagerly without a word."""


def compile_blocks(modules: Mapping[str, nn.Module], loop: LoopConfig, device: torch.device) -> bool:
    """Have the blocks compiled at their first use; names of parameters stay as they are. Says why if not.

    Returns: whether there is anything compiled.
    """
    whole = [module for module in modules.values() if getattr(module, "offload", None) is None]
    blocks = [block for module in whole for block in getattr(module, "blocks", [])]
    if not blocks or loop.compile == "off":
        return False
    if not wants_compilation(loop, device):
        say(f"not compiled: a run of {loop.train_steps} steps is too short to repay it; loop.compile on forces it")
        return False
    if reason := compiler_fault(device):
        say(f"not compiled: {reason}")
        return False
    _compile(blocks)
    return True


def compile_to_sample(module: nn.Module, device: torch.device) -> None:
    """Have a model's `blocks` compiled at their first use. Says why if not."""
    if reason := compiler_fault(device):
        say(f"not compiled: {reason}")
    else:
        _compile(list(module.blocks))  # type: ignore[arg-type]


def wants_compilation(loop: LoopConfig, device: torch.device) -> bool:
    """Whether a run of this configuration compiles, if a compiler works."""
    worth = loop.train_steps >= LONG_RUN[device.type]
    return loop.compile == "on" or (loop.compile == "auto" and worth)


def compiler_fault(device: torch.device) -> str | None:
    """Why torch.compile does not work here, in one line, or None: found by compiling one small function."""
    try:
        torch.compile(_probe, dynamic=False)(torch.ones(64, device=device))
    except Exception as error:  # whatever the compiler, its tools and its cache may raise
        return f"torch.compile does not work here: {_one_line(error)}"
    return None


def or_eagerly(step: Callable[[], Result], modules: Mapping[str, nn.Module]) -> Result:
    """What `step` returns; if a block cannot be compiled, say so, take compilation off and do the step again.

    `step` must be safe to repeat.
    """
    from torch._dynamo.exc import TorchDynamoException

    try:
        return step()
    except TorchDynamoException as error:
        say(f"goes on without compilation, which failed: {_one_line(error)}")
    for module in modules.values():
        for block in getattr(module, "blocks", []):
            block._compiled_call_impl = None  # what `compile()` set
    return step()


def _compile(blocks: Sequence[nn.Module]) -> None:
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, VARIANTS)
    options = VECTORS if torch.backends.cpu.get_cpu_capability() == "AVX512" else None
    for block in blocks:
        block.compile(dynamic=False, options=options)


def _probe(x: torch.Tensor) -> torch.Tensor:
    return (x.sin() + 1).sum()


def _one_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines[:2])[:200]}" if lines else type(error).__name__
