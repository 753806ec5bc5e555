"""The training loop, one for every model: what is trained, on what and against which loss is the task's business.

A run folder holds config.yaml (resolved), log.jsonl, tensorboard/, checkpoints/, best/, samples/ and, at the end, model/.
A step is a pure function of (state, step index): batch and randomness come from the index, so a resumed run repeats an
uninterrupted one bit for bit on a CPU. Several processes (`parallel.py`) make the same steps together, each with its share
of the samples and of the state; rank 0 writes the run folder.
"""

import ctypes
import platform
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from video_gen.errors import TrainingError, VideoGenError
from video_gen.interrupt import stop_signals
from video_gen.progress import duration
from video_gen.training.best import Best
from video_gen.training.compiling import compile_blocks, or_eagerly
from video_gen.training.config import LoopConfig, OptimConfig
from video_gen.training.finite import FiniteCheck
from video_gen.training.folder import open_run_folder, remember_clips, whole_folder
from video_gen.training.lock import locked
from video_gen.training.monitor import Monitor, Silent, memory_mb, say
from video_gen.training.optim import build_optimizer, clip_gradients, learning_rate
from video_gen.training.parallel import Mesh, blueprints, built, pick_device
from video_gen.training.profile import profiled
from video_gen.training.state import Saver, TrainState, ema_weights, fresh_ema, latest, load_checkpoint, update_ema
from video_gen.training.task import Task, prefetched, sample_generators, samples_in, split_batch
from video_gen.training.watch import Watch, group_norms

Resume = Literal["auto", "never"]
SIGNAL_SECONDS = 2.0
"""Of several processes, a second signal within this time is the first one again."""


class TrainingInterrupted(VideoGenError):
    """Ctrl-C or SIGTERM: the step was finished and saved; the message says how to go on."""


def train(
    task: Task,
    loop: LoopConfig,
    optim: OptimConfig,
    run_dir: str | Path,
    config_yaml: str,
    resume: Resume = "auto",
    profile: int = 0,
    mesh: Mesh | None = None,
) -> dict[str, float]:
    """Train to the end, from the newest checkpoint of the run folder or from nothing.

    Args:
        config_yaml: the whole resolved configuration; a run folder belongs to one configuration.
        resume: "never" moves an earlier run of the folder to old-1/ (old-2/, ...) and starts anew.
        profile: steps to trace into the run folder's profile/, after a few to warm up.
        mesh: the processes that train together, as `parallel.processes` gives it, each of which calls this; None = alone.
    Returns: "step", "seconds", "train_loss" (the last line's mean) and the held-out figures of the weights that are saved,
        with "kept_step" where these are not the last.
    Raises: TrainingError at the first NaN or infinite loss or gradient (the batch is saved) or weight, if the folder holds a
        run of another configuration, or a checkpoint that does not fit, or is another process's; DataError if something
        cannot be written, such as on a full disk; TrainingInterrupted after Ctrl-C or SIGTERM.
    """
    keep_freed_memory()
    run_dir, mesh = Path(run_dir), mesh or Mesh(pick_device(loop.device))
    with locked(run_dir, say) if mesh.main else nullcontext():
        return _train(task, loop, optim, run_dir, config_yaml, resume, profile, mesh)


def _train(
    task: Task,
    loop: LoopConfig,
    optim: OptimConfig,
    run_dir: Path,
    config_yaml: str,
    resume: Resume,
    profile: int,
    mesh: Mesh,
) -> dict[str, float]:
    device = mesh.device
    if mesh.main:
        open_run_folder(run_dir, config_yaml, resume)
    plans = blueprints(task.modules()) if mesh.world > 1 else {}
    state = _start(task, loop, optim, run_dir, config_yaml, mesh)
    if state.step >= loop.train_steps and (run_dir / "model").exists():
        say(f"{run_dir}: finished already, {state.step} steps; a larger loop.train_steps goes on")
        return state.metrics
    if mesh.main:
        remember_clips(run_dir, task.clips(), task.made_of(), say)
    compiled = compile_blocks(state.modules, loop, device)
    with (
        (Monitor if mesh.main else Silent)(run_dir, state.step, loop.train_steps, loop.tensorboard) as monitor,
        _stop_signals(monitor, mesh) as stop,
        prefetched(task, state.step, loop.train_steps, device) as batches,
        profiled(
            run_dir / "profile", profile if mesh.main else 0, loop.train_steps - state.step, device, monitor.say
        ) as traced,
    ):
        saver = Saver(run_dir, config_yaml, loop.keep_checkpoints, mesh)
        session = Session(task, loop, optim, run_dir, mesh, plans, saver, state, monitor, compiled)
        if state.step == 0 and loop.validate_every:
            session.validate()  # what a run starts from is one of the weights that it may end with
        for batch in batches:
            session.run_step(batch)
            traced()
            stopping = mesh.any(stop.is_set())  # read once: a signal during after_step counts for the next step
            session.after_step(stopping)
            if stopping and state.step < loop.train_steps:
                saver.wait()
                raise TrainingInterrupted(
                    f"stopped after step {state.step} of {loop.train_steps}, saved in {run_dir}; "
                    "the same command goes on from there"
                )
        session.save_model()
    return state.metrics


@dataclass
class Session:
    """One process's share of a run: all that a step touches."""

    task: Task
    loop: LoopConfig
    optim: OptimConfig
    run_dir: Path
    mesh: Mesh
    plans: dict[str, nn.Module]
    """Of several processes: what to build whole modules from, see `_averaged`."""
    saver: Saver
    state: TrainState
    monitor: Monitor
    compiled: bool = False

    def __post_init__(self) -> None:
        self.device = self.mesh.device
        self.finite = FiniteCheck(self.task, self.run_dir, self.mesh)
        self.clock = self.line_time = time.monotonic()
        self.line_step, self.line_samples = self.state.step, 0
        dtype = torch.bfloat16 if self.loop.precision == "bf16" else torch.float32
        self.watch = Watch(self.device, dtype, self.monitor.say)
        judge = self.task.judge
        self.best = Best(self.run_dir, judge, self.monitor.say, self.loop.keep == "best") if judge else None

    def run_step(self, batch: Mapping[str, Any]) -> None:
        """One optimiser step: gradients of all micro-batches, clipping, the check for NaN, update, averages."""
        state, step = self.state, self.state.step
        self.watch.clock.lap("data")
        self.watch.count(self.task.flops(batch, step))
        self.watch.clock.start()
        self.line_samples += samples_in(batch) * self.mesh.data_ranks
        loss, logs = self._mean(*or_eagerly(lambda: self._backward(batch, step), state.modules))
        if (step + 1) % self.loop.log_every == 0:
            logs |= group_norms(state.optimizer.parameters)
        norm = clip_gradients(list(state.optimizer.parameters.values()), self.optim.clip_norm)
        skip = self.finite(step, loss, norm)
        state.optimizer.step(learning_rate(step, self.optim, self.loop.train_steps), skip)
        update_ema(state.ema, state.optimizer.parameters, step, self.loop.ema_decay)
        for name, value in ({"loss": loss, "grad_norm": norm} | logs).items():
            total, count = state.sums.get(name, (0.0, 0))
            state.sums[name] = [total + value, count + 1]
        state.step += 1
        self.watch.clock.lap("optimiser")
        self.monitor.advance(state.step, float(loss) if self.device.type == "cpu" else None)

    def after_step(self, stopping: bool) -> None:
        """What is due after a step: a line of the log, validation, samples, a checkpoint; all after the last step."""
        state, loop = self.state, self.loop
        last = state.step == loop.train_steps
        if last or state.step % loop.log_every == 0:
            self._log()
        logged = time.monotonic()
        validating = loop.validate_every and (last or state.step % loop.validate_every == 0)
        saving = last or stopping or state.step % loop.checkpoint_every == 0
        if validating or saving:
            self._refuse_broken_weights()
        if validating:
            self.validate()
        if loop.sampling_period and (last or state.step % loop.sampling_period == 0):
            self._sample()
        if saving:
            self.finite.settle()
            self._tick()
            self.monitor.sync()
            self.saver.save(state)
        self.line_time += time.monotonic() - logged  # the log's rates are of training alone
        self.watch.clock.start()

    def save_model(self) -> None:
        """The model folder, once the last checkpoint is there: from the averaged weights with the best held-out figure, or the
        last ones, as `loop.keep` says."""
        self.saver.wait()
        state, kept = self.state, None
        with self._averaged() as task:
            if self.best is not None and self.best.kept:
                kept = self.best.restore(task.modules())
            if self.mesh.main:
                with whole_folder(self.run_dir / "model") as folder:
                    task.save(folder)
        self.mesh.wait()
        self.monitor.say(
            f"trained {state.step} steps in {duration(state.seconds)}, loss {state.metrics['train_loss']:.4g}"
        )
        which = ""
        if kept is not None and kept["step"] != state.step:
            figures = {name: value for name, value in kept.items() if name != "step"}
            state.metrics = state.metrics | figures | {"kept_step": kept["step"]}
            which = f", of step {kept['step']:.0f}, where held-out {self.best.judge.figure} was best"  # type: ignore[union-attr]
        self.monitor.say(f"the model is in {self.run_dir / 'model'}{which}")

    def validate(self) -> None:
        """Held-out figures of the averaged weights, which are kept if they are the best so far."""
        step = self.state.step
        with self._averaged() as task:
            figures = {name: float(value) for name, value in task.validate(step).items()}
            if not figures:
                return
            if self.best is not None and self.mesh.main:
                self.best.consider(step, figures, task.modules())
        self.mesh.wait()
        self.state.metrics = self.state.metrics | figures
        self.monitor.record("validation", step, figures)
        shown = "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
        self.monitor.say(f"step {step}  validation: {shown}")

    def _refuse_broken_weights(self) -> None:
        """Raises: TrainingError if an update, which is not looked at when it is made, has spoilt a tensor."""
        broken = self.state.broken()
        if self.mesh.any(broken is not None):
            raise TrainingError(
                f"step {self.state.step}: {broken or 'a tensor of another process'} is no longer finite; nothing was saved, and "
                "the last checkpoint is as it was; lower optim.learning_rate, or raise optim.warmup_steps"
            )

    def _backward(self, batch: Mapping[str, Any], step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Gradients of the step's mean loss, summed up in `.grad`. Returns: () float32 loss of this process's samples, and
        its parts."""
        self.state.optimizer.zero_grad()
        means: dict[str, Tensor] = {}
        count = samples_in(batch) * self.mesh.data_ranks
        own = range(count)[self.mesh.share(count)]
        size = len(own) // self.loop.accumulation
        for index, micro in enumerate(split_batch(batch, self.loop.accumulation)):
            samples = own[index * size : (index + 1) * size]
            generators = sample_generators(self.loop.seed, step, samples, self.device)
            with self._autocast():
                loss, logs = self.task.loss(micro, step, generators)
            self.watch.clock.lap("forward")
            (loss / self.loop.accumulation).backward()
            self.watch.clock.lap("backward")
            for name, value in (logs | {"loss": loss}).items():
                share = torch.as_tensor(value).detach().float() / self.loop.accumulation
                means[name] = means[name] + share if name in means else share
        return means.pop("loss"), means

    def _mean(self, loss: Tensor, logs: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """The same over all processes."""
        if self.mesh.world == 1:
            return loss, logs
        values = self.mesh.mean(torch.stack([loss, *(value.to(loss.device) for value in logs.values())]))
        return values[0], dict(zip(logs, values[1:]))

    def _log(self) -> None:
        self.finite.settle()
        self._tick()
        state, now = self.state, self.clock
        values = {name: float(total) / count for name, (total, count) in state.sums.items()}
        state.sums = {}
        seconds = max(now - self.line_time, 1e-9)
        rate, samples_per_s = (state.step - self.line_step) / seconds, self.line_samples / seconds
        self.line_step, self.line_samples, self.line_time = state.step, 0, now
        state.metrics = state.metrics | {"step": state.step, "train_loss": values["loss"], "seconds": state.seconds}
        values["lr"] = learning_rate(state.step - 1, self.optim, self.loop.train_steps)
        values["samples_per_s"] = samples_per_s
        if self.task.tokens_per_step is not None:
            values["tokens_per_s"] = rate * self.task.tokens_per_step
        values |= self.watch.line()
        values |= {"time": state.seconds, "memory_mb": memory_mb(self.device)}
        self.monitor.record("train", state.step, values)
        self.monitor.advance(state.step, values["loss"])

    def _sample(self) -> None:
        folder = self.run_dir / "samples" / f"step_{self.state.step:06d}"
        with self._averaged() as task:
            if self.mesh.main:
                folder.mkdir(parents=True, exist_ok=True)
                task.sample(self.state.step, folder)
                self.monitor.pictures(self.state.step, folder)
        self.mesh.wait()

    @contextmanager
    def _averaged(self) -> Iterator[Task]:
        """The task with the averaged weights: of one process swapped in; of several, gathered into modules of their own
        on each, since shards can only be used by all together."""
        state = self.state
        eager = torch.compiler.set_stance("force_eager") if self.compiled else nullcontext()  # used once: not worth it
        with torch.no_grad(), self._autocast(), eager:
            if self.mesh.world == 1:
                with ema_weights(state.modules, state.ema):
                    yield self.task
            else:
                yield self.task.on(built(self.plans, state.modules, state.ema))

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.loop.precision == "bf16")

    def _tick(self) -> None:
        now = time.monotonic()
        self.state.seconds += now - self.clock
        self.clock = now


def keep_freed_memory() -> None:
    """Have glibc keep large freed blocks for the next allocation instead of returning them to the system.

    Activations are allocated and freed at every step. By default each block above 32 MB comes fresh from the system,
    which has to clear every page on first touch. Measured, one thread, (10240, 256) by (256, 1024): the float32 product
    1.2x as fast with this, bfloat16 product, ReLU and product back 1.35x, a ReLU alone 6x. No-op without glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
    libc = ctypes.CDLL(None)
    libc.mallopt(mmap_threshold, 1 << 30)
    libc.mallopt(trim_threshold, (1 << 31) - 1)


def _start(task: Task, loop: LoopConfig, optim: OptimConfig, run_dir: Path, config_yaml: str, mesh: Mesh) -> TrainState:
    """The state of the newest checkpoint, or a fresh one."""
    modules = {name: module.train() for name, module in task.modules().items()}
    for module in modules.values():
        if hasattr(module, "checkpointing"):
            module.checkpointing = loop.checkpointing  # type: ignore[assignment]
    mesh.distribute(modules)
    state = TrainState(modules, build_optimizer(modules, optim), fresh_ema(modules))
    folder = mesh.from_main(latest(run_dir, say) if mesh.main else None)
    if folder is not None:
        load_checkpoint(folder, state, config_yaml)
        say(f"{run_dir}: goes on from {folder.name}")
    return state


def _stop_signals(monitor: Monitor, mesh: Mesh) -> AbstractContextManager[threading.Event]:
    """Of several processes each gets a Ctrl-C twice, from the terminal and from torchrun, which ends them 30 s later."""

    def first(name: str) -> None:
        monitor.say(f"{name}: finishing the step and saving; once more stops at once")

    return stop_signals(first, SIGNAL_SECONDS if mesh.world > 1 else 0.0)
