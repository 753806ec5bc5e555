"""Many processes do what one does: the same gradients, loss curve and checkpoints. On the CPU with gloo.

Processes are started as torchrun does, by environment variables, and run this file as a script; each group does several
jobs, since starting takes longest.
"""

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from video_gen.errors import ConfigError
from video_gen.model.transformer import VideoTransformer
from video_gen.model.transformer_config import TextConfig, TransformerConfig
from video_gen.model.text import ByteTextEncoder
from video_gen.model.vae_config import VAEConfig
from video_gen.model.video_vae import VideoVAE
from video_gen.training import loop as loop_module
from video_gen.training.config import LoopConfig, OptimConfig, ParallelConfig
from video_gen.training.diffusion_task import DiffusionTask
from video_gen.training.loop import TrainingInterrupted, train
from video_gen.training.optim import build_optimizer, clip_gradients, orthogonalise
from video_gen.training.parallel import (
    Mesh,
    local,
    matrices_to_rows,
    processes,
    rows_to_matrices,
    whole,
)
from video_gen.training.recipes import DiffusionRun
from video_gen.training.state import Saver, TrainState, fresh_ema, latest, load_checkpoint

STEPS, CUT = 50, 23
CHANNELS, FRAMES, SIZE = 3, 5, (4, 8)  # 2 * 4 places with patch_size 2


class Latents:
    """In place of a LatentSet: moving dots."""

    buckets = [(FRAMES, *SIZE)] * 12

    def __len__(self):
        return len(self.buckets)

    def __getitem__(self, index):
        x = torch.full((CHANNELS, FRAMES, *SIZE), -0.5)
        for f in range(FRAMES):
            x[:, f, index % 4, (index + f) % 8] = 2.0
        return x

    def caption(self, index):
        return f"dot {index % 4}"


def task(run: DiffusionRun, mesh: Mesh) -> DiffusionTask:
    torch.manual_seed(0)
    text, transformer, vae = ByteTextEncoder(run.text), VideoTransformer(run.transformer), VideoVAE(VAEConfig())
    with torch.no_grad():
        for p in transformer.parameters():  # zero-initialised layers would hide mistakes
            p.add_(0.05 * torch.randn_like(p))
    return DiffusionTask(run, transformer, text, vae, Latents(), Latents(), mesh)  # type: ignore[arg-type]


def diffusion_run(**changes) -> DiffusionRun:
    sizes = {"latent_channels": CHANNELS, "width": 32, "depth": 3, "head_dim": 8, "text_width": 16, "joint_every": 3}
    loop = {"train_steps": STEPS, "batch_size": 4, "precision": "float32", "log_every": 1, "validate_every": STEPS // 2}
    loop |= {"checkpoint_every": STEPS, "tensorboard": False, "device": "cpu"}
    return DiffusionRun(
        transformer=TransformerConfig(**sizes, attention="factorised", window=2),
        text=TextConfig(width=16, hash_buckets=64),
        loop=LoopConfig(**loop | changes.pop("loop", {})),
        optim=OptimConfig(warmup_steps=5, **changes.pop("optim", {})),
        **changes,
    )


def go(run: DiffusionRun, folder: Path) -> dict[str, float]:
    with processes(run.parallel, run.loop) as mesh:
        made = task(run, mesh)
        made.save = lambda folder: None  # type: ignore[method-assign]  # a pipeline of this VAE would not fit
        return train(made, run.loop, run.optim, folder, run.to_yaml(), mesh=mesh)


# -------------------- jobs, each run by every process of a group


def job_curve(folder: Path, name: str, **changes) -> None:
    go(diffusion_run(**changes), folder / name)


def run_rank(count: int, rank: int, port: int, folder: Path, jobs: list[tuple]) -> None:
    """One process of a group: its environment as torchrun makes it, and all it prints in a file."""
    with open(folder / f"output_{rank}.txt", "w") as output:
        os.dup2(output.fileno(), 1), os.dup2(output.fileno(), 2)
    places = {"WORLD_SIZE": count, "RANK": rank, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in places.items()})
    torch.set_num_threads(1)
    for name, changes in jobs:
        globals()[f"job_{name}"](folder, **changes)


def start(count: int, folder: Path, *jobs: tuple, how: str = "forkserver") -> list:
    """A group of processes that each do the jobs, one after the other."""
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context(how)
    group = [context.Process(target=run_rank, args=(count, r, port, folder, list(jobs))) for r in range(count)]
    for process in group:
        process.start()
    return group


def finish(group: list, folder: Path) -> None:
    for rank, process in enumerate(group):
        process.join(120)
        output = (folder / f"output_{rank}.txt").read_text()
        assert process.exitcode == 0, f"rank {rank}: exit code {process.exitcode}\n{output[-3000:]}"
