"""What a person sees of a training run: a progress bar or plain lines, log.jsonl, and TensorBoard."""

import json
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from video_gen.files import explained, write_text
from video_gen.progress import duration, plain_console

PLAIN_SECONDS = 30.0
"""Time between two progress lines where the output is no terminal."""


class Monitor:
    """Reports one run; a context manager. Steps here count optimiser steps done."""

    def __init__(self, run_dir: Path, first_step: int, train_steps: int, tensorboard: bool):
        self.console, self.run_dir = plain_console(), run_dir
        self.first_step, self.step, self.train_steps = first_step, first_step, train_steps
        self.started = self.last_line = time.monotonic()
        self.loss = float("nan")
        truncate_log(run_dir / "log.jsonl", first_step)
        self.log = open(run_dir / "log.jsonl", "a", encoding="utf-8")  # noqa: SIM115  (closed in __exit__)
        self.writer = _summary_writer(run_dir / "tensorboard", first_step) if tensorboard else None
        self.bar = _progress_bar(self.console) if self.console.is_terminal else None
        if self.bar:
            self.bar.add_task("train", total=train_steps, completed=first_step, rate="", loss="")

    def __enter__(self) -> "Monitor":
        if self.bar:
            self.bar.start()
        return self

    def __exit__(self, *error: Any) -> None:
        if self.bar:
            self.bar.stop()
        with suppress(OSError):  # what could not be written has been said
            self.log.close()
        if self.writer:
            with suppress(Exception):
                self.writer.close()

    def say(self, text: str) -> None:
        """One line for the person, above the progress bar when there is one."""
        say(text, self.console)

    def advance(self, step: int, loss: float | None = None) -> None:
        """Note that `step` steps are done; `loss` when it is known without waiting for the device."""
        self.step = step
        self.loss = self.loss if loss is None else loss
        rate = f"{self._rate():.3g} steps/s"
        if self.bar:
            self.bar.update(self.bar.task_ids[0], completed=step, rate=rate, loss=f"loss {self.loss:.4g}")
        elif time.monotonic() - self.last_line >= PLAIN_SECONDS:
            self.last_line = time.monotonic()
            left = (self.train_steps - step) / max(self._rate(), 1e-9)
            self.say(f"step {step}/{self.train_steps}  loss {self.loss:.4g}  {rate}  {duration(left)} left")

    def record(self, kind: str, step: int, values: dict[str, float]) -> None:
        """One line of log.jsonl, {"kind": kind, "step": step, ...}, and the same as TensorBoard scalars."""
        with explained(self.run_dir / "log.jsonl"):
            self.log.write(json.dumps({"kind": kind, "step": step} | values) + "\n")
            self.log.flush()
        with self._tensorboard() as writer:
            for name, value in values.items():
                writer.add_scalar(f"{kind}/{name}", value, step)

    def pictures(self, step: int, folder: Path) -> None:
        """Show the PNG files of a samples folder in TensorBoard."""
        with self._tensorboard() as writer:
            for file in sorted(folder.rglob("*.png")):
                pixels = np.asarray(Image.open(file).convert("RGB"))  # (h, w, 3)
                writer.add_image(file.relative_to(folder).stem, pixels, step, dataformats="HWC")

    @contextmanager
    def _tensorboard(self) -> Iterator[Any]:
        """The writer of events, or one that does nothing; a disk that takes no more of them does not end the run."""
        try:
            yield self.writer or _Nothing()
        except Exception as error:  # TensorBoard hands on what its own thread met, of any kind
            self.say(f"TensorBoard's events cannot be written ({error}); goes on without them")
            self.writer = None

    def sync(self) -> None:
        """Have the disk hold every line so far, so that no checkpoint is newer than its log."""
        with explained(self.run_dir / "log.jsonl"):
            self.log.flush()
            os.fsync(self.log.fileno())

    def _rate(self) -> float:
        return (self.step - self.first_step) / max(time.monotonic() - self.started, 1e-9)


class _Nothing:
    """Takes what a writer of events takes."""

    def add_scalar(self, *values: Any) -> None:
        pass

    def add_image(self, *values: Any, **how: Any) -> None:
        pass


class Silent(Monitor):
    """In a Monitor's place in the processes of a run that leave the talking to rank 0."""

    def __init__(self, run_dir: Path, first_step: int, train_steps: int, tensorboard: bool):
        pass

    def __enter__(self) -> "Silent":
        return self

    def __exit__(self, *error: Any) -> None:
        pass

    def say(self, text: str) -> None:
        pass

    def advance(self, step: int, loss: float | None = None) -> None:
        pass

    def record(self, kind: str, step: int, values: dict[str, float]) -> None:
        pass

    def pictures(self, step: int, folder: Path) -> None:
        pass

    def sync(self) -> None:
        pass


def say(text: str, console: Console | None = None) -> None:
    """Print one line as it is: not wrapped, not coloured, no markup."""
    (console or plain_console()).print(text, soft_wrap=True, highlight=False)


def truncate_log(file: Path, step: int) -> None:
    """Drop the lines after `step`, all of a run that begins at 0, and a last line that a kill tore, so that no step stands
    twice. Atomic."""
    if not file.exists():
        return
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    whole = [(line, _step_of(line)) for line in lines if line.endswith("\n")]
    kept = [line for line, found in whole if found is not None and found <= step] if step else []
    if kept != lines:
        write_text(file, "".join(kept))


def memory_mb(device: torch.device) -> float:
    """Peak memory so far in MB: of the GPU's tensors there, of the process on a CPU; 0 where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    # What `getrusage` tells on Linux starts at the size of the process that started this one.
    status = Path("/proc/self/status")
    if status.exists() and (found := re.search(r"VmHWM:\s+(\d+) kB", status.read_text(encoding="utf-8"))):
        return int(found[1]) / 2**10
    try:
        import resource
    except ImportError:  # Windows does not tell
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)  # bytes there, kilobytes elsewhere


def _step_of(line: str) -> int | None:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return None


def _progress_bar(console: Console) -> Progress:
    return Progress(
        BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn(),
        TextColumn("{task.fields[loss]}"), console=console,
    )  # fmt: skip


def _summary_writer(folder: Path, first_step: int) -> Any:
    """A TensorBoard writer that hides what an earlier session wrote after `first_step`. Imported late: it is slow."""
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=first_step + 1 if first_step else None)
