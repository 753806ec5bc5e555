"""Optimisers: AdamW, or Muon for the hidden matrices with AdamW for the rest, behind one small interface.

Parameters may be sharded by rows (FSDP2's DTensors): AdamW and clipping then work on shards, and Muon on whole matrices
that the processes deal out among themselves.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from video_gen.errors import ConfigError
from video_gen.training.config import OptimConfig
from video_gen.training.parallel import local, matrices_to_rows, rows_to_matrices, sharded_like, sharding_of, whole

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Quintic coefficients: steepest at zero, singular values end in about [0.7, 1.2]. Source: Keller Jordan 2024, Muon."""
MUON_RMS = 0.2
"""Root mean square of AdamW's typical update, which Muon's is scaled to. Source: Moonlight, arXiv:2502.16982, eq. 4."""


def learning_rate(step: int, config: OptimConfig, train_steps: int) -> float:
    """Rate of optimiser step `step` (counted from 0) in a run of `train_steps`: warm-up, then the schedule's fall."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    done = min(1.0, (step - config.warmup_steps) / max(1, train_steps - 1 - config.warmup_steps))
    height = {"constant": 1.0, "linear": 1 - done, "cosine": 0.5 * (1 + math.cos(math.pi * done))}[config.schedule]
    return config.learning_rate * (height if config.schedule == "constant" else _lerp(config.final_lr, 1.0, height))


def clip_gradients(parameters: Sequence[nn.Parameter], clip_norm: float) -> Tensor:
    """Scale all gradients in place to a global norm of at most `clip_norm`, without waiting for the device.

    Returns: () the norm before clipping; NaN or infinite when any gradient is.
    """
    grads = [p.grad for p in parameters if p.grad is not None]
    norm = whole(torch.nn.utils.get_total_norm(grads))
    scale = (clip_norm / (norm + 1e-6)).clamp(max=1.0)
    torch._foreach_mul_([local(grad) for grad in grads], scale)
    return norm


def named_parameters(modules: Mapping[str, nn.Module]) -> dict[str, nn.Parameter]:
    """The trainable parameters of several modules under one set of names, "module.path.to.weight"."""
    return {f"{m}.{n}": p for m, module in modules.items() for n, p in module.named_parameters() if p.requires_grad}


def orthogonalise(matrices: Tensor, iterations: int = 5) -> Tensor:
    """The nearest semi-orthogonal matrix to each of a batch, roughly: U V^T of its singular value decomposition.

    Args:
        matrices: (n, rows, cols), any scale; zero stays zero.
    Returns: (n, rows, cols) bfloat16 with singular values in about [0.7, 1.2].
    Source: Keller Jordan 2024, https://kellerjordan.github.io/posts/muon; Newton-Schulz in bfloat16.
    """
    a, b, c = NEWTON_SCHULZ
    x = matrices.bfloat16() / (matrices.norm(dim=(1, 2), keepdim=True) + 1e-7).bfloat16()
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    for _ in range(iterations):
        gram = x @ x.mT  # (n, short, short)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised: every direction of a matrix moves equally far.

    A weight of more than two axes counts as a matrix (out, rest). Matrices of one shape are stacked, and their momenta
    are slices of one tensor, so that a model's equal layers cost one batch of products. A missing gradient counts as 0.
    Of sharded weights each process keeps its rows of the momenta; the stack is dealt out for the products, matrix by
    matrix, so that none is computed twice.
    Source: Keller Jordan 2024; weight decay and the scale 0.2 sqrt(max(rows, cols)) from Moonlight, arXiv:2502.16982.
    """

    def __init__(self, params: Sequence[nn.Parameter], lr: float, weight_decay: float = 0.0, momentum: float = 0.95):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        self.found_inf: Tensor | None = None
        """() 1.0 on the device skips the step without waiting for it; the same convention as fused AdamW's."""
        self.stacks: list[tuple[list[nn.Parameter], Tensor]] = []
        by_shape = defaultdict(list)
        for p in params:
            by_shape[(p.shape[0], p.shape[1:].numel(), p.device)].append(p)
        for (rows, cols, device), members in by_shape.items():
            momenta = torch.zeros(len(members), len(local(members[0])), cols, device=device)
            self.stacks.append((members, momenta))
            for p, slot in zip(members, momenta, strict=True):
                self.state[p]["momentum"] = sharded_like(p, slot, (rows, cols))

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        group = self.param_groups[0]
        for members, momenta in self.stacks:
            rows, like = members[0].shape[0], members[0]
            # as matrices first: kernels of two axes and of three may be of one size
            grads = torch.stack(
                [local(torch.zeros_like(p) if p.grad is None else p.grad).flatten(1) for p in members]
            ).float()
            updates = self._updates(grads, momenta, group["momentum"], like)
            weights = [local(p) for p in members]
            scale = group["lr"] * MUON_RMS * math.sqrt(max(rows, momenta.shape[2]))
            if group["weight_decay"]:
                torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"] * self._go())
            for weight, update in zip(weights, updates, strict=True):
                weight.sub_(update.view(weight.shape), alpha=scale)

    def _updates(self, grads: Tensor, momenta: Tensor, momentum: float, like: nn.Parameter) -> Tensor:
        """(n, rows, cols) orthogonal updates, moving `momenta` in place; zeros and no move when the step is skipped.

        Args: like: one of the n parameters; the rows are those of its shard. `grads` is used up.
        """
        if self.found_inf is not None:  # between equal ends the momenta stay where they are
            grads = torch.where(self.found_inf > 0, momenta, grads)
        momenta.lerp_(grads, 1 - momentum)
        direction, group = grads.lerp_(momenta, momentum), sharding_of(like)  # Nesterov
        if group is None:
            updates = orthogonalise(direction)
        else:
            matrices = rows_to_matrices(direction, like.shape[0], group)
            updates = matrices_to_rows(orthogonalise(matrices), (direction.shape[0], direction.shape[1]), group)
        if self.found_inf is not None:
            updates = torch.where(self.found_inf > 0, torch.zeros_like(updates), updates)
        return updates

    def _go(self) -> float | Tensor:
        return 1.0 if self.found_inf is None else 1 - self.found_inf


class Optimizer:
    """One or two torch optimisers as one, with its state as flat named tensors that can be read and filled in place."""

    def __init__(self, parameters: dict[str, nn.Parameter], parts: list[tuple[torch.optim.Optimizer, float]]):
        """`parts`: each with its rate as a multiple of the schedule's."""
        self.parameters = parameters
        self.parts = parts

    def step(self, rate: float, skip: Tensor | None = None) -> None:
        """Update the parameters at learning rate `rate`; not at all if `skip`, () float on the device, is 1."""
        for part, multiple in self.parts:
            for group in part.param_groups:
                group["lr"] = rate * multiple
            part.found_inf = skip  # type: ignore[attr-defined]  # read by fused AdamW and by Muon
            part.step()

    def zero_grad(self) -> None:
        for p in self.parameters.values():
            p.grad = None

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor of the state as "parameter name:kind"; complete from the start, and live."""
        held = [(n, part.state[p]) for n, p in self.parameters.items() for part, _ in self.parts if p in part.state]
        return {f"{name}:{kind}": tensor for name, state in held for kind, tensor in state.items()}


def build_optimizer(modules: Mapping[str, nn.Module], config: OptimConfig) -> Optimizer:
    """The optimiser of all trainable parameters of `modules`.

    A module may have `no_decay() -> iterable of its own parameter names` (embeddings, modulation tables): these are
    never decayed and never given to Muon, and neither are parameters of fewer than two axes.
    Raises: ConfigError if `no_decay()` or `adam_names` name nothing.
    """
    parameters = named_parameters(modules)
    plain = {n for n, p in parameters.items() if p.ndim < 2} | _listed_no_decay(modules)
    muon = _muon_names(parameters, plain, config) if config.optimizer == "muon" else set()
    decayed = [p for n, p in parameters.items() if n not in plain | muon]
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": [p for n, p in parameters.items() if n in plain], "weight_decay": 0.0},
    ]
    parts: list[tuple[torch.optim.Optimizer, float]] = []
    if muon:
        chosen = [p for n, p in parameters.items() if n in muon]
        parts.append((Muon(chosen, config.learning_rate, config.weight_decay), 1.0))
    if any(group["params"] for group in groups):
        rate = config.adam_learning_rate if config.optimizer == "muon" else None
        rate = rate or config.learning_rate
        parts.append((_adamw([g for g in groups if g["params"]], rate, config.betas), rate / config.learning_rate))
    return Optimizer(parameters, parts)


def _adamw(groups: list[dict], rate: float, betas: tuple[float, float]) -> torch.optim.AdamW:
    """AdamW, fused where it exists (also the fastest on a CPU), with its state made now, not at the first step."""
    fused = all(p.device.type in ("cpu", "cuda", "mps") for group in groups for p in group["params"])
    adamw = torch.optim.AdamW(groups, lr=rate, betas=betas, fused=fused)
    for p in (p for group in groups for p in group["params"]):
        step = torch.zeros((), device=p.device if fused else "cpu")
        adamw.state[p] = {"step": step, "exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
    return adamw


def _listed_no_decay(modules: Mapping[str, nn.Module]) -> set[str]:
    listed: set[str] = set()
    for name, module in modules.items():
        own = getattr(module, "no_decay", None)
        names = set(own()) if callable(own) else set()  # type: ignore[arg-type]
        unknown = sorted(names - {n for n, _ in module.named_parameters()})
        if unknown:
            raise ConfigError(f"{type(module).__name__}.no_decay() lists '{unknown[0]}', which is no parameter of it")
        listed |= {f"{name}.{n}" for n in names}
    return listed


def _muon_names(parameters: Mapping[str, nn.Parameter], plain: set[str], config: OptimConfig) -> set[str]:
    """Names of the parameters for Muon: true matrices (at least 2x2 as (out, rest)) that nothing keeps with AdamW."""
    for part in config.adam_names:
        if not any(part in name for name in parameters):
            some = next(iter(parameters))
            raise ConfigError(f"optim.adam_names: no parameter's name contains '{part}'; one is '{some}'")
    matrices = {n for n, p in parameters.items() if n not in plain and min(p.shape[0], p.shape[1:].numel()) > 1}
    return {n for n in matrices if not any(part in n for part in config.adam_names)}


def _lerp(a: float, b: float, share: float) -> float:
    return a + (b - a) * share
