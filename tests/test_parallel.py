"""Many processes do what one does: the same gradients, loss curve and checkpoints. On the CPU with gloo.

Processes are started as torchrun does, by environment variables, each group does several jobs, since starting
takes longest.
"""

import copy
import itertools
import json
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from video_gen.errors import ConfigError
from video_gen.model.text import ByteTextEncoder
from video_gen.model.transformer import VideoTransformer
from video_gen.model.transformer_config import TextConfig, TransformerConfig
from video_gen.model.wan.transformer import WanTransformer
from video_gen.training import loop as loop_module
from video_gen.training.config import LoopConfig, OptimConfig, ParallelConfig
from video_gen.training.context import Ring, Ulysses
from video_gen.training.diffusion_task import DiffusionTask
from video_gen.training.loop import TrainingInterrupted, train
from video_gen.training.lora_task import LoraTask
from video_gen.training.parallel import Mesh, matrices_to_rows, processes, rows_to_matrices, whole
from video_gen.training.recipes import DiffusionRun
from video_gen.training.state import latest

STEPS, CUT = 50, 13
CHANNELS, FRAMES, SIZE = 3, 5, (4, 8)  # 2 * 4 places with patch_size 2


class Latents:
    """In place of a LatentSet: moving dots."""

    buckets = [(FRAMES, *SIZE)] * 12
    entries, folder, vocabulary = (), Path("latents"), None

    def __len__(self):
        return len(self.buckets)

    def __getitem__(self, index):
        x = torch.full((CHANNELS, FRAMES, *SIZE), -0.5)
        for f in range(FRAMES):
            x[:, f, index % 4, (index + f) % 8] = 2.0
        return x

    def caption(self, index):
        return f"dot {index % 4}"

    def captions(self, index):
        return [(0, self.caption(index))]

    def frames(self, index):
        return self.buckets[index][0]

    def led(self, index):
        return False


def task(run: DiffusionRun, mesh: Mesh) -> DiffusionTask:
    torch.manual_seed(0)
    text, transformer, no_vae = ByteTextEncoder(run.text), VideoTransformer(run.transformer), torch.nn.Identity()
    with torch.no_grad():
        for p in transformer.parameters():  # zero-initialised layers would hide mistakes
            p.add_(0.05 * torch.randn_like(p))
    kind = LoraTask if run.lora.rank else DiffusionTask
    return kind(run, transformer, text, no_vae, Latents(), Latents(), mesh)  # type: ignore[arg-type]


def diffusion_run(**changes) -> DiffusionRun:
    sizes = {"latent_channels": CHANNELS, "width": 32, "depth": 3, "head_dim": 8, "text_width": 16, "joint_every": 3}
    loop = {"train_steps": STEPS, "batch_size": 4, "precision": "float32", "log_every": 1, "validate_every": STEPS // 2}
    loop |= {"checkpoint_every": STEPS, "sample_every": 0, "tensorboard": False, "device": "cpu"}
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
        made.save = lambda folder: None  # type: ignore[method-assign]  # there is no VAE for a model folder
        return train(made, run.loop, run.optim, folder, run.to_yaml(), mesh=mesh)


def losses(folder: Path) -> list[float]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if line["kind"] == "train"]


def at_step(step: int, act) -> None:
    """In this process, call `act` as the run's step number `step` begins."""
    original = loop_module.Session.run_step

    def run_step(self, batch):
        if self.state.step == step:
            act()
        original(self, batch)

    loop_module.Session.run_step = run_step  # type: ignore[method-assign]


# -------------------- jobs, each run by every process of a group


def job_curve(folder: Path, name: str, **changes) -> None:
    go(diffusion_run(**changes), folder / name)


def job_cut(folder: Path, name: str, **changes) -> None:
    """One process of them gets a Ctrl-C: all stop after the same step, saved."""
    if os.environ["RANK"] == "1":
        at_step(CUT - 1, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(TrainingInterrupted, match=f"after step {CUT} of {STEPS}"):
        go(diffusion_run(**changes), folder / name)


def job_gradients(folder: Path) -> None:
    """A context's processes together: output, and mean gradient, of one process. 4 heads are dealt out, 3 cannot be."""
    count = int(os.environ["WORLD_SIZE"])
    moves = {"previous": True, "warp": True, "change": True, "inertia": True, "strides": (2, 4)}
    cases = (("joint", None, (1, 2, 2), {}), ("factorised", 1, (1, 2, 2), {}), ("joint", 1, (5,), {}))
    cases += (("joint", None, (1, 1, 1, 2), moves),)
    with processes(ParallelConfig(context=-1, shard=1), LoopConfig(batch_size=1)) as mesh:
        for (attention, window, blocks, more), heads in itertools.product(cases, (4, 3)):
            run, expected = diffusion_run(diffusion={"prediction": "denoised"}), Ring if heads == 3 else Ulysses
            sizes = {"attention": attention, "window": window, "width": 8 * heads, **more}
            run = run.replace(transformer=run.transformer.replace(**sizes))
            model, shared = task(run, Mesh()).transformer, mesh.context.context(heads)
            assert isinstance(shared, expected)
            generator = torch.Generator().manual_seed(1)
            for buffer in model.buffers():  # of a warp, which is zero
                torch.nn.init.normal_(buffer, std=0.3, generator=generator)
            noisy, clean, target = torch.randn(3, 2, CHANNELS, FRAMES, *SIZE, generator=generator)
            text = torch.randn(2, 4, 16, generator=generator)
            visible = torch.tensor([[True] * 4, [True, True, False, False]])
            t = torch.rand(2, FRAMES, generator=generator)
            hidden = {"history_visible": torch.tensor([True, False])}
            found = []
            for context in (None, shared):
                model.zero_grad()
                output = model(noisy, t, text, visible, clean, 0.3 * t, blocks, context=context, **hidden)
                (output - target).square().mean().backward()
                gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
                if context is not None:
                    for gradient in gradients.values():
                        dist.all_reduce(gradient)
                        gradient /= count
                found.append((output.detach(), gradients))
            torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-6)


def job_wan(folder: Path) -> None:
    """A WanTransformer of which processes share the tokens, and one whose weights are spread: as in one process."""
    count = int(os.environ["WORLD_SIZE"])
    generator = torch.Generator().manual_seed(1)
    noisy, clean, target = torch.randn(3, 2, CHANNELS, FRAMES, *SIZE, generator=generator)
    text, t = torch.randn(2, 4, 16, generator=generator), torch.rand(2, FRAMES, generator=generator)
    pictures = {"clip_tokens": torch.randn(2, 5, 9, generator=generator)}
    visible = torch.tensor([[True] * 4, [True, True, False, False]])
    sizes = {"latent_channels": CHANNELS, "in_channels": CHANNELS, "text_width": 16, "image_width": 9, "ffn_dim": 40}
    hidden = {"history_visible": torch.tensor([True, False])} | pictures
    with processes(ParallelConfig(context=-1, shard=1), LoopConfig(batch_size=1)) as mesh:
        for heads, window, blocks in ((4, None, (1, 2, 2)), (3, 1, (1, 2, 2)), (4, None, (5,)), (3, None, (5,))):
            torch.manual_seed(0)
            sizes |= {"dim": 8 * heads, "num_heads": heads, "window": window}
            model = WanTransformer.from_preset("tiny", **sizes)
            torch.nn.init.normal_(model.head.head.weight)  # which begins with zeros, and would hide mistakes
            spread = copy.deepcopy(model)
            found = []
            for shared in (None, mesh.context.context(heads), "spread"):
                made, context = (spread, None) if shared == "spread" else (model, shared)
                if shared == "spread":
                    mesh.distribute({"transformer": spread})
                model.zero_grad()
                output = made(noisy, t, text, visible, clean, 0.3 * t, blocks, context=context, **hidden)
                (output - target).square().mean().backward()
                gradients = {n: whole(p.grad).clone() for n, p in made.named_parameters() if p.grad is not None}
                if context is not None:
                    for gradient in gradients.values():
                        dist.all_reduce(gradient)
                        gradient /= count
                found.append((output.detach(), gradients))
            for other in found[1:]:
                torch.testing.assert_close(other, found[0], rtol=1e-4, atol=1e-6)


def job_matrices(folder: Path) -> None:
    """Dealing matrices out and back, for numbers that divide and that do not."""
    with processes(ParallelConfig(), LoopConfig(batch_size=4)) as mesh:
        group = mesh.sharding.get_group()
        for n, rows in ((4, 6), (3, 5), (1, 1), (2, 7)):
            matrices = torch.randn(n, rows, 3, generator=torch.Generator().manual_seed(n))
            shards = matrices.chunk(mesh.world, dim=1)
            own = shards[mesh.rank] if mesh.rank < len(shards) else matrices[:, :0]
            each = -(-n // mesh.world)
            dealt = rows_to_matrices(own, rows, group)
            expected = torch.zeros(each * mesh.world, rows, 3)
            expected[:n] = matrices
            assert torch.equal(dealt, expected[mesh.rank * each : (mesh.rank + 1) * each])
            assert torch.equal(matrices_to_rows(dealt, (n, own.shape[1]), group), own)


def run_rank(count: int, rank: int, ports: list[int], folder: Path, jobs: list[tuple]) -> None:
    """One process of a group: its environment as torchrun makes it, and all it prints in a file."""
    with open(folder / f"output_{rank}.txt", "w") as output:
        os.dup2(output.fileno(), 1), os.dup2(output.fileno(), 2)
    places = {"WORLD_SIZE": count, "RANK": rank, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1"}
    os.environ.update({name: str(value) for name, value in places.items()})
    torch.set_num_threads(1)
    for port, (name, changes) in zip(ports, jobs):
        os.environ["MASTER_PORT"] = str(port)  # of its own, or a fast process meets the group before this one
        globals()[f"job_{name}"](folder, **changes)


def start(count: int, folder: Path, *jobs: tuple, how: str = "forkserver") -> list:
    """A group of processes that each do the jobs, one after the other."""
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        free = [stack.enter_context(socket.socket()) for _ in jobs]
        for one in free:
            one.bind(("127.0.0.1", 0))
        ports = [one.getsockname()[1] for one in free]
    context = multiprocessing.get_context(how)
    context.set_forkserver_preload([__name__])  # so that torch is imported once for all of them
    group = [context.Process(target=run_rank, args=(count, r, ports, folder, list(jobs))) for r in range(count)]
    for process in group:
        process.start()
    return group


def finish(group: list, folder: Path) -> None:
    for rank, process in enumerate(group):
        process.join(120)
        output = (folder / f"output_{rank}.txt").read_text()
        assert process.exitcode == 0, f"rank {rank}: exit code {process.exitcode}\n{output[-3000:]}"


# -------------------- what they must give


@pytest.fixture(scope="module")
def one(tmp_path_factory) -> list[float]:
    """The loss curve of one process."""
    folder = tmp_path_factory.mktemp("one")
    go(diffusion_run(), folder)
    return losses(folder)


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> Path:
    """What two processes did."""
    folder = tmp_path_factory.mktemp("pair")
    jobs = (
        ("matrices", {}),
        ("gradients", {}),
        ("wan", {}),
        ("curve", {"name": "context", "parallel": {"context": 2}}),
        ("cut", {"name": "cut", "parallel": {"shard": 2}}),
    )
    finish(start(2, folder, *jobs), folder)  # raises what a job asserts
    return folder


def test_the_loss_curve_of_two_processes_is_that_of_one(pair, one):
    """50 steps with a context that shares samples, and 13 with the samples dealt out and the state sharded."""
    assert losses(pair / "context") == pytest.approx(one, abs=1e-4) and len(one) == STEPS
    assert losses(pair / "cut") == pytest.approx(one[:CUT], abs=1e-4)


def test_what_two_processes_saved_goes_on_with_one(pair, one):
    assert latest(pair / "cut") == pair / "cut" / "checkpoints" / f"step_{CUT:06d}"
    shutil.copytree(pair / "cut", pair / "resumed")
    go(diffusion_run(), pair / "resumed")
    assert losses(pair / "resumed") == pytest.approx(one, abs=1e-4)


def test_a_damaged_shard_is_noticed(pair):
    shutil.copytree(pair / "cut", pair / "damaged")
    shard = next((pair / "damaged").rglob("shard-00002-*"))
    shard.write_bytes(shard.read_bytes()[:-9] + bytes(9))
    said: list[str] = []
    assert latest(pair / "damaged", said.append) is None and "is damaged" in said[0]


@pytest.mark.slow
def test_four_processes_and_what_two_saved_goes_on_with_four(pair, one, tmp_path):
    shutil.copytree(pair / "cut", tmp_path / "resumed")
    mixed = {"parallel": {"shard": 2, "context": 2}}
    jobs = (("gradients", {}), ("wan", {}), ("matrices", {}), ("curve", {"name": "mixed", **mixed}))
    finish(start(4, tmp_path, *jobs, ("curve", {"name": "resumed", **mixed})), tmp_path)
    for name in ("mixed", "resumed"):
        assert losses(tmp_path / name) == pytest.approx(one, abs=1e-4)


@pytest.mark.slow
def test_killed_and_restarted_by_torchrun_it_goes_on_from_the_last_checkpoint(one, tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts"]
    done = subprocess.run([*command, "1", __file__, str(tmp_path)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "goes on from step_000010" in done.stdout
    assert losses(tmp_path) == pytest.approx(one, abs=1e-4)


@pytest.mark.slow
def test_a_lora_of_two_processes_is_that_of_one(tmp_path):
    """Trained small matrices and frozen large ones, of two types, in one group of FSDP; the dropout is the same, too."""
    jobs = []
    for base, precision in (("fp32", "float32"), ("bf16", "bf16"), ("int8", "bf16")):
        lora = {"rank": 3, "base": base, "dropout": 0.3}
        loop = {"precision": precision, "train_steps": 8, "checkpoint_every": 8, "validate_every": 4}
        changes = {"lora": lora, "init": Path("base"), "loop": loop, "optim": {"learning_rate": 0.03}}
        go(diffusion_run(**copy.deepcopy(changes)), tmp_path / f"one-{base}")
        jobs.append(("curve", changes | {"name": base, "parallel": {"shard": 2}}))
    finish(start(2, tmp_path / "two", *jobs), tmp_path / "two")
    for base, close in (("fp32", 1e-5), ("bf16", 2e-3), ("int8", 2e-3)):
        found = losses(tmp_path / "two" / base)
        assert found == pytest.approx(losses(tmp_path / f"one-{base}"), abs=close) and found[-1] < found[0]


@pytest.mark.parametrize(
    ("settings", "count", "sizes"),
    [({}, 8, (1, 8, 1)), ({"replicate": 2, "context": 2}, 8, (2, 2, 2)), ({"shard": 2, "context": -1}, 8, (1, 2, 4))],
)
def test_the_mesh_takes_what_is_left(settings, count, sizes):
    assert ParallelConfig(**settings).sizes(count) == sizes


def test_meshes_and_batches_that_do_not_fit_are_errors(monkeypatch):
    with pytest.raises(ConfigError, match="do not multiply to the 8 processes"):
        ParallelConfig(shard=3).sizes(8)
    with pytest.raises(ConfigError, match="the 1 processes"), processes(ParallelConfig(context=2), LoopConfig()):
        pass
    monkeypatch.setenv("WORLD_SIZE", "3")
    odd = processes(ParallelConfig(), LoopConfig(device="cpu"))
    with pytest.raises(ConfigError, match=r"batch_size 16 must be a multiple.*= 3; use e\.g\. 15 or 18"), odd:
        pass
    with pytest.raises(ConfigError, match="tokens of a frame: latents of 4x8 with patch_size 2 have 8"):
        task(diffusion_run(), Mesh(sizes=(1, 1, 3)))


if __name__ == "__main__":  # under torchrun: the second process dies once
    torch.set_num_threads(1)
    if os.environ["RANK"] == "1" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        at_step(CUT, lambda: os.kill(os.getpid(), signal.SIGKILL))
    go(diffusion_run(loop={"checkpoint_every": 10}), Path(sys.argv[1]))
