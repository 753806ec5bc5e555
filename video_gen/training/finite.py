"""A run stops at the first number that is none, before it reaches a weight, and keeps what it was made of."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from video_gen.errors import TrainingError
from video_gen.files import write_tensors, write_text
from video_gen.training.folder import whole_folder
from video_gen.training.parallel import Mesh
from video_gen.training.task import Task


class FiniteCheck:
    """Stops the run at the first loss or gradient norm that is NaN or infinite, before it reaches a parameter.

    On a CPU the values are read at once. On a GPU reading them would stall it, so the optimiser is given a flag on the
    device to skip the step by, and the values are read after the next step has been queued.
    """

    def __init__(self, task: Task, run_dir: Path, mesh: Mesh):
        self.task, self.run_dir, self.mesh = task, run_dir, mesh  # and no session, which would then outlive its run
        self.pending: tuple[int, Tensor, torch.cuda.Event] | None = None

    def __call__(self, step: int, loss: Tensor, norm: Tensor) -> Tensor | None:
        """Check step `step`. Returns: on a GPU () 1.0 where the update must be skipped, else None."""
        values = torch.stack([loss, norm.float()])
        if self.mesh.device.type != "cuda":
            self._read(step, values)
            return None
        self.settle()
        host = torch.empty(2, pin_memory=True)
        host.copy_(values, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        self.pending = (step, host, event)
        return (~values.isfinite().all()).float()

    def settle(self) -> None:
        """Read what is still unread; waits for that step only, not for what was queued after it."""
        if self.pending:
            step, host, event = self.pending
            event.synchronize()
            self.pending = None
            self._read(step, host)

    def _read(self, step: int, values: Tensor) -> None:
        if values.isfinite().all():
            return
        loss, norm = values.tolist()
        share = f"_share_{self.mesh.data_rank}" if self.mesh.world > 1 else ""
        folder = self.run_dir / f"nan_step_{step}{share}"
        save_batch(folder, self.task.batch(step), {"step": step, "loss": str(loss), "grad_norm": str(norm)})
        raise TrainingError(
            f"step {step}: loss {loss:g}, gradient norm {norm:g}; its update was not made, its batch is in {folder}; "
            "a lower optim.learning_rate or a longer optim.warmup_steps may help, with which the same command goes on"
        )


def save_batch(folder: Path, batch: Mapping[str, Any], report: dict[str, Any]) -> None:
    """For a post-mortem: a batch's tensors to batch.safetensors, the rest to batch.json, figures to report.json."""
    with whole_folder(folder) as new:
        tensors = {k: v for k, v in batch.items() if isinstance(v, Tensor)}
        write_tensors(new / "batch.safetensors", tensors)
        others = {k: v for k, v in batch.items() if k not in tensors}
        write_text(new / "batch.json", json.dumps(others, indent=1, default=str))
        write_text(new / "report.json", json.dumps(report, indent=1))
