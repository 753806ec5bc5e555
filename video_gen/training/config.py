"""How training runs: the optimiser's settings, the loop's, and the mesh of processes. No torch here."""

import math
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from video_gen.config import Config
from video_gen.errors import ConfigError


class OptimConfig(Config):
    """The optimiser, its learning rate over the steps, and clipping."""

    optimizer: Literal["adamw", "muon"] = "adamw"
    """`muon` moves hidden matrices and convolutions by an orthogonalised momentum, and everything else by AdamW."""
    learning_rate: float = Field(default=1e-3, gt=0, le=1_000)
    """Peak rate. Muon's updates are scaled so that a rate that suits AdamW suits Muon too."""
    adam_learning_rate: float | None = Field(default=None, gt=0, le=1_000)
    """With `muon`: the peak rate of the parameters left to AdamW; default `learning_rate`. Unused with `adamw`."""
    adam_names: tuple[str, ...] = ()
    """With `muon`: a parameter whose name contains one of these stays with AdamW (input and output layers, say)."""
    betas: tuple[float, float] = (0.9, 0.99)
    """AdamW's decay rates of the mean gradient and the mean square. The second forgets in 100 steps, for short runs."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Decoupled decay, times the rate. Vectors and what a model lists in `no_decay()` are not decayed."""
    warmup_steps: int = Field(default=50, ge=0)
    """Steps of linear rise to the peak rate."""
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    """Shape of the fall from the peak, after the warm-up, to `final_lr` at the last step."""
    final_lr: float = Field(default=0.05, ge=0, le=1)
    """The rate of the last step as a fraction of the peak. Unused with `constant`."""
    clip_norm: float = Field(default=1.0, gt=0)
    """Gradients are scaled down to this global norm; a huge value turns clipping off."""

    @model_validator(mode="after")
    def _betas(self):
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must lie in [0, 1), got {self.betas}; use e.g. (0.9, 0.99)")
        return self


class LoopConfig(Config):
    """The training loop, the same for every model. A period of 0 means never."""

    train_steps: int = Field(default=1000, ge=1, le=1_000_000_000)
    """Optimiser steps of the whole run."""
    batch_size: int = Field(default=16, ge=1, le=1_000_000)
    """Samples per optimiser step, over all micro-batches; of a smaller bucket as many more as cost about the same. The loss
    is the mean over a step's samples, in the log over steps: buckets count by their work, not by their samples."""
    accumulation: int = Field(default=1, ge=1)
    """Micro-batches per step: more takes less memory and gives the same gradient; must divide `batch_size`."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Every random number of step s comes from (seed, s): a resumed run repeats an uninterrupted one bit for bit."""
    precision: Literal["bf16", "float32"] = "bf16"
    """Arithmetic of the forward pass (autocast); weights, gradients and the optimiser are float32 either way."""
    ema_decay: float = Field(default=0.999, ge=0, lt=1)
    """Decay per step of the averaged weights that are validated, sampled, saved; warms up as (1 + s) / (10 + s)."""
    validate_every: int = Field(default=200, ge=0)
    """Steps between validations; the last step is validated too, unless this is 0."""
    sample_every: int | None = Field(default=None, ge=0)
    """Steps between samples; the last step is sampled too. Default: four times a run; 0 = never."""
    checkpoint_every: int = Field(default=200, ge=1)
    """Steps between checkpoints: the most that a kill or a power cut can lose."""
    keep_checkpoints: int = Field(default=2, ge=1)
    """How many of the newest checkpoints stay on disk."""
    keep: Literal["best", "last"] = "best"
    """Which averaged weights the model is made of: those with the best held-out figure, or the last."""
    log_every: int = Field(default=10, ge=1)
    """Steps per line of log.jsonl; a line holds the means over them."""
    compile: Literal["auto", "on", "off"] = "auto"
    """torch.compile for a model's `blocks`, where a compiler works; `auto`: for runs of 200 steps on a GPU, 2,000 on a CPU."""
    checkpointing: Literal["off", "selective", "full"] = "off"
    """Compute a block's activations again in the backward pass: takes less memory. `selective` keeps attention's outputs."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` takes the GPU when there is one."""
    tensorboard: bool = True
    """Write TensorBoard events to the run folder, beside log.jsonl."""

    @property
    def sampling_period(self) -> int:
        """Steps between samples; 0 = never."""
        return max(1, self.train_steps // 4) if self.sample_every is None else self.sample_every

    @field_validator("compile", mode="before")
    @classmethod
    def _yaml_word(cls, value: Any) -> Any:
        """YAML reads an unquoted on or off as true or false."""
        return {True: "on", False: "off"}[value] if isinstance(value, bool) else value

    @model_validator(mode="after")
    def _accumulation(self):
        if self.batch_size % self.accumulation:
            raise ValueError(f"accumulation {self.accumulation} must divide batch_size {self.batch_size}")
        return self


class ParallelConfig(Config):
    """The mesh of the processes that torchrun starts; one of the three sizes may be -1: what the others leave.

    It says how a run is computed, not what: a run goes on with another mesh, and gets the same numbers up to rounding.
    """

    replicate: int = 1
    """Copies of the sharded model, each fed with other samples; for many nodes, between which gathering is slow."""
    shard: int = -1
    """Processes over which weights, gradients, optimiser state and averages are spread, each fed with other samples."""
    context: int = 1
    """Processes that share the tokens of the same samples, for long clips: by heads where it divides them (Ulysses), else in
    a ring. It must divide the tokens of a frame. Only for the transformer."""
    gather: Literal["float32", "bf16"] = "float32"
    """Precision in which shards are gathered for use; gradients are summed, and all that is kept stays, in float32."""

    @model_validator(mode="after")
    def _sizes(self):
        sizes = {"replicate": self.replicate, "shard": self.shard, "context": self.context}
        for name, size in sizes.items():
            if size < 1 and size != -1:
                raise ValueError(f"{name} {size} must be at least 1, or -1 for what the other two leave")
        if list(sizes.values()).count(-1) > 1:
            raise ValueError(f"only one of replicate, shard and context may be -1, got {sizes}")
        return self

    def sizes(self, processes: int) -> tuple[int, int, int]:
        """(replicate, shard, context) of so many processes. Raises: ConfigError if they don't multiply to it."""
        given = (self.replicate, self.shard, self.context)
        known = math.prod(size for size in given if size > 0)
        replicate, shard, context = (processes // known if size == -1 else size for size in given)
        sizes = (replicate, shard, context)
        if math.prod(sizes) != processes:
            raise ConfigError(
                f"parallel: replicate {self.replicate}, shard {self.shard}, context {self.context} do not multiply to "
                f"the {processes} processes that torchrun started; change one of them, or set one to -1"
            )
        return sizes
