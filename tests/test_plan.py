"""What a run will cost: parts that are known exactly, and the planned memory against that of real steps."""

import json
import subprocess
import sys

import pytest
import torch
from torch import nn

from video_gen.cli import COMMANDS, of_what
from video_gen.command_line import find, parse
from video_gen.config import load_yaml
from video_gen.errors import ConfigError
from video_gen.model.allocations import AllocationTracker
from video_gen.plan import make_plan, train_a_little, uses_of, vae_of
from video_gen.shipped import CONFIGS
from video_gen.training.recipes import DiffusionRun, DistillRun, VAERun

VAE = load_yaml(VAERun, CONFIGS / "demo-vae.yaml")
DIFFUSION = load_yaml(DiffusionRun, CONFIGS / "demo-diffusion.yaml")


def test_the_tracker_counts_what_is_alive():
    with AllocationTracker() as tracker:
        kept = torch.zeros(1000)
        view = kept[:10]
        held = kept + 1
        del held
        assert tracker.bytes == 4000 and tracker.peak == 8000 and len(view) == 10


def test_autograd_holds_what_its_backward_needs():
    with AllocationTracker() as tracker:
        net, x = nn.Linear(100, 100, bias=False), torch.randn(50, 100)
        before = tracker.bytes
        out = net(x).relu().sum()
        assert before == 4 * (100 * 100 + 50 * 100)
        assert tracker.bytes - before == 4 * (50 * 100 + 1)  # relu's result; the product is gone
        out.backward()
        assert tracker.bytes - before == 4 * (100 * 100 + 1)  # the weight's gradient


@pytest.mark.slow
def test_a_plan_needs_neither_data_nor_a_trained_vae():
    plan = make_plan(DIFFUSION, VAE.vae, devices=2, steps=0)
    (bucket,) = plan.buckets
    total = sum(plan.parameters.values())
    assert bucket.memory.ema == bucket.memory.gradients == 4 * total <= bucket.memory.weights
    assert bucket.memory_of_n is not None and bucket.memory_of_n.ema == 2 * total
    assert bucket.memory_of_n.activations < 0.6 * bucket.memory.activations
    assert bucket.tokens == 16 * 5 * 16 and sum(use.share for use in bucket.uses) == pytest.approx(1)
    assert plan.hours is None and json.loads(plan.to_json())["buckets"][0]["flops"] == bucket.flops > 0


def test_uses_are_the_steps_that_training_draws():
    modes = {"teacher_forcing": 0.9, "block_sizes": [4, 4, 4, 2]}
    assert [(name, pytest.approx(share)) for name, share, _ in uses_of(DIFFUSION.replace(modes=modes))] == [
        ("bidirectional", 0.1), ("blocks of 2", 0.225), ("blocks of 4", 0.675),
    ]  # fmt: skip


def test_mistakes_are_told():
    with pytest.raises(ConfigError, match=r"holds no config\.json; give the YAML"):
        make_plan(DIFFUSION.replace(vae="nowhere"), steps=0)
    with pytest.raises(ConfigError, match=r"devices 3: loop\.batch_size 16 must be a multiple"):
        make_plan(DIFFUSION, VAE.vae, devices=3, steps=0)


def test_an_offloaded_lora_is_for_another_command():
    run = DiffusionRun(init="bounce", lora={"rank": 2, "offload": "blocks"}, loop={"checkpointing": "off"})
    with pytest.raises(ConfigError, match=r"lora\.offload is blocks; `video-gen plan lora --model bounce` plans"):
        make_plan(run, steps=0)


def test_the_command_takes_either_kind_of_file():
    for name in ("demo-vae.yaml", "demo-diffusion.yaml"):
        words = ["plan", str(CONFIGS / name), "--loop.batch-size", "8"]
        names, command = find(COMMANDS, of_what(words))
        assert parse(names, command, words[1:]).run.loop.batch_size == 8


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "kind", ["vae", "diffusion", pytest.param("consistency", marks=SLOW), pytest.param("matching", marks=SLOW)]
)
def test_steps_are_measured_and_say_nothing_of_a_run(kind, capfd):
    few = {"batch_size": 1, "accumulation": 1, "tensorboard": False}
    size = {"num_frames": 5, "height": 32, "width": 32}
    if kind in ("vae", "diffusion"):
        run = VAE if kind == "vae" else DIFFUSION
        run = run.replace(loop=run.loop.replace(**few), data=run.data.replace(**size))
        vae = VAE.vae
    else:
        run = DistillRun(teacher="bounce", distill={"method": kind}, loop=few, data=size, sampling={"num_steps": 1})
        run = run.replace(modes=run.modes.replace(teacher_forcing=1.0, block_sizes=(1,)))
        vae = vae_of(run, None)
        plan = make_plan(run, steps=0)
        assert plan.buckets[0].memory.weights > 4 * sum(plan.parameters.values()) and plan.hours is None
    seconds, peak = train_a_little(run, (5, 32, 32), vae, "a red circle", 1)
    assert (
        all(value > 0 for value in seconds.values())
        and {*seconds} == {name for name, _, _ in uses_of(run)}
        and peak > 0
    )
    assert capfd.readouterr() == ("", "")


def test_a_distillation_is_planned_from_its_teachers_sizes(tmp_path):
    run = load_yaml(DistillRun, "kicks-distill")
    with pytest.raises(ConfigError, match="is no model folder; a plan needs the sizes of one: --teacher bounce"):
        make_plan(run.replace(teacher=tmp_path / "nowhere"), steps=0)
    with pytest.raises(ConfigError, match="devices 2: `train distill` works on one device"):
        make_plan(run.replace(teacher="bounce"), steps=0, devices=2)


def test_the_peak_is_of_this_process_and_not_of_the_one_that_started_it():
    ballast = bytearray(b"x") * (700 << 20)
    code = "import torch; from video_gen.training.monitor import memory_mb; print(memory_mb(torch.device('cpu')))"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert 50 < float(found.stdout) < len(ballast) / 2**20


@pytest.mark.slow
@pytest.mark.parametrize("name", ["demo-vae", "demo-diffusion", "small"])
def test_planned_memory_is_within_15_per_cent_of_what_steps_take(tmp_path, name):
    file = "demo-vae.yaml" if name == "demo-vae" else "demo-diffusion.yaml"
    extra = [] if name == "demo-vae" else ["--vae-yaml", str(CONFIGS / "demo-vae.yaml")]
    sizes = ["--transformer.width", "512", "--transformer.depth", "9"] if name == "small" else []
    command = ["plan", str(CONFIGS / file), *extra, *sizes, "--steps", "2", "--output", str(tmp_path / "p.json")]
    subprocess.run([sys.executable, "-m", "video_gen.cli", *command], check=True)  # where nothing else takes memory
    found = json.loads((tmp_path / "p.json").read_text())
    assert found["memory_mb"] == pytest.approx(found["measured_mb"], rel=0.15)
