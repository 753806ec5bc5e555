"""The training loop, on a tiny network: resume is bit for bit, nothing is lost or torn, and what goes wrong is said."""

import errno
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from video_gen.errors import ConfigError, DataError, TrainingError
from video_gen.training import loop as loop_module
from video_gen.training import state as state_module
from video_gen.training.config import LoopConfig, OptimConfig
from video_gen.training.folder import whole_folder
from video_gen.training.judge import Judge
from video_gen.training.loop import TrainingInterrupted, train
from video_gen.training.optim import build_optimizer
from video_gen.training.state import TrainState, ema_weights, fresh_ema, latest, save_checkpoint, update_ema
from video_gen.training.task import normal, sample_generators, split_batch, uniform

CONFIG = "model: tiny\nloop: {seed: 0}\n"
TIMING = (
    "time",
    "seconds",
    "samples_per_s",
    "tokens_per_s",
    "memory_mb",
    "mfu",
    "data_s",
    "forward_s",
    "backward_s",
    "optimiser_s",
)


class Net(nn.Module):
    """Two layers, a convolution and a table that is never decayed."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.first, self.second, self.last = nn.Linear(8, 16), nn.Linear(16, 16), nn.Linear(16, 8)
            self.table = nn.Parameter(torch.zeros(2, 8))
            self.conv = nn.Conv3d(2, 2, (1, 3, 3), padding=(0, 1, 1)).to(memory_format=torch.channels_last_3d)
        self.register_buffer("calls", torch.zeros(()))

    def no_decay(self):
        return ["table"]

    def forward(self, x):  # (b, 8) -> (b, 8)
        self.calls += 1
        x = x + self.conv(x.view(-1, 2, 1, 2, 2)).flatten(1) + self.table.sum(0)
        return self.last(self.second(self.first(x).relu()).relu())


class Denoise:
    """A task: restore noisy vectors. `spoil`: the step whose batch holds a NaN; `pause`: seconds per batch."""

    tokens_per_step = 128

    def __init__(self, spoil: int | None = None, pause: float = 0.0, judge: Judge | None = None):
        self.net, self.spoil, self.pause, self.seen, self.judge = Net(), spoil, pause, [], judge

    def clips(self):
        return {"clip": "train"}

    def made_of(self):
        return {}

    def modules(self):
        return {"net": self.net}

    def batch(self, step):
        time.sleep(self.pause)
        x = torch.randn(16, 8, generator=torch.Generator().manual_seed(step))
        if step == self.spoil:
            x[3, 3] = math.nan
        return {"x": x, "caption": [f"clip {step}-{i}" for i in range(16)]}

    def loss(self, batch, step, generators):
        assert len(batch["caption"]) == len(batch["x"])
        noise = normal(generators, *batch["x"].shape[1:])
        loss = (self.net(batch["x"] + noise).float() - batch["x"]).square().mean()
        return loss, {"mse": loss}

    def flops(self, batch, step):
        return 3 * 2 * 16 * (8 * 16 + 16 * 16 + 16 * 8)

    def validate(self, step):
        assert not self.net.training and not torch.is_grad_enabled()
        self.seen.append((step, self.net.last.weight.detach().clone()))
        x = self.batch(10_000)["x"]
        return {"validation_mse": float((self.net(x).float() - x).square().mean())}

    def sample(self, step, folder):
        (folder / "sample.txt").write_text(str(step))

    def save(self, folder):
        torch.testing.assert_close(self.net.last.weight, self.seen[-1][1], rtol=0, atol=0)
        (folder / "config.json").write_text("{}")


def loop_config(**changes):
    few = {"train_steps": 12, "validate_every": 4, "checkpoint_every": 4, "log_every": 3, "sample_every": 6}
    return LoopConfig(**(few | {"tensorboard": False} | changes))


def run(folder, task=None, optim=None, **changes):
    return train(task or Denoise(), loop_config(**changes), optim or OptimConfig(warmup_steps=2), folder, CONFIG)


def stop_after(monkeypatch, steps):
    """Press Ctrl-C while step number `steps` runs (counted over the process)."""
    original, done = loop_module.Session.run_step, []

    def run_step(self, batch):
        done.append(1)
        if len(done) == steps:
            os.kill(os.getpid(), signal.SIGINT)
        original(self, batch)

    monkeypatch.setattr(loop_module.Session, "run_step", run_step)


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    return {f"{f.name}/{n}": t for f in sorted(folder.glob("*.safetensors")) for n, t in load_file(f).items()}


def log_of(run_dir: Path) -> list[dict]:
    lines = [json.loads(line) for line in (run_dir / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in TIMING} for line in lines]


def assert_same_run(a: Path, b: Path, step: int = 12) -> None:
    left, right = (tensors_of(r / "checkpoints" / f"step_{step:06d}") for r in (a, b))
    assert left.keys() == right.keys() and left
    for name, tensor in left.items():
        assert torch.equal(tensor, right[name]), name
    assert log_of(a) == log_of(b)


def fresh_state(optim=None) -> TrainState:
    modules: dict[str, nn.Module] = {"net": Net()}
    return TrainState(modules, build_optimizer(modules, optim or OptimConfig()), fresh_ema(modules))


# Resume


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_resumed_equals_uninterrupted_bit_for_bit(tmp_path, monkeypatch, optimizer, accumulation):
    settings = {"optim": OptimConfig(optimizer=optimizer, warmup_steps=2), "accumulation": accumulation}
    whole = run(tmp_path / "whole", **settings)
    with (
        monkeypatch.context() as patch,
        pytest.raises(TrainingInterrupted, match=r"after step 7 of 12.*the same command"),
    ):
        stop_after(patch, 7)  # neither a logged nor a checkpoint step
        run(tmp_path / "cut", **settings)
    resumed = run(tmp_path / "cut", **settings)
    assert_same_run(tmp_path / "whole", tmp_path / "cut")
    assert {k: v for k, v in whole.items() if k not in TIMING} == {k: v for k, v in resumed.items() if k not in TIMING}


SCRIPT = """
import sys, torch
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from test_training import CONFIG, Denoise, loop_config
from video_gen.errors import VideoGenError
from video_gen.training.config import OptimConfig
from video_gen.training.loop import train
torch.set_num_threads(1)
try:
    train(Denoise(pause=float(sys.argv[3])), loop_config(train_steps=40), OptimConfig(), Path(sys.argv[2]), CONFIG)
except VideoGenError as error:
    print(error)
    sys.exit(2)
"""


def launch(tmp_path: Path, run_dir: Path, pause: float) -> subprocess.Popen:
    script = tmp_path / "go.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(Path(__file__).parent), str(run_dir), str(pause)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for(path: Path, process: subprocess.Popen) -> None:
    until = time.monotonic() + 60
    while not path.exists():
        assert process.poll() is None and time.monotonic() < until, process.communicate()[0]
        time.sleep(0.01)


def test_kill_9_then_the_same_command_equals_an_uninterrupted_run(tmp_path):
    cut, whole = tmp_path / "cut", tmp_path / "whole"
    reference = launch(tmp_path, whole, 0)
    process = launch(tmp_path, cut, 0.05)
    wait_for(cut / "checkpoints" / "step_000008" / "state.json", process)
    time.sleep(0.1)  # a few steps beyond the checkpoint
    process.kill()
    process.communicate()
    assert not (cut / "model").exists()
    again = launch(tmp_path, cut, 0)
    output, _ = again.communicate(timeout=60)
    assert again.returncode == 0 and "goes on from step_0000" in output, output
    assert reference.communicate(timeout=60) and reference.returncode == 0
    assert_same_run(whole, cut, step=40)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_signal_saves_and_says_how_to_go_on(tmp_path, number):
    process = launch(tmp_path, tmp_path / "run", 0.1)
    wait_for(tmp_path / "run" / "log.jsonl", process)
    time.sleep(0.3)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 2 and "the same command goes on from there" in output, output
    newest = latest(tmp_path / "run")
    assert newest is not None and f"after step {int(newest.name[5:])} of 40" in output


def test_a_finished_run_says_so_and_returns_its_figures(tmp_path, capsys):
    first = run(tmp_path)
    lines = log_of(tmp_path)
    assert run(tmp_path) == first and "finished already" in capsys.readouterr().out
    assert log_of(tmp_path) == lines and first["step"] == 12 and {"train_loss", "validation_mse"} <= first.keys()


def test_a_torn_or_later_log_line_goes_when_a_run_resumes(tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(TrainingInterrupted):
        stop_after(patch, 5)
        run(tmp_path / "cut")
    with open(tmp_path / "cut" / "log.jsonl", "a") as log:
        log.write('{"kind": "train", "step": 6, "loss": 1}\n{"kind": "train", "ste')
    run(tmp_path / "cut")
    run(tmp_path / "whole")
    assert log_of(tmp_path / "cut") == log_of(tmp_path / "whole")
    assert [line["step"] for line in log_of(tmp_path / "cut") if line["kind"] == "train"] == [3, 6, 9, 12]


# The run folder


def test_a_run_folder_has_what_it_should(tmp_path):
    run(tmp_path, tensorboard=True)
    expected = {".lock", "config.yaml", "clips.json", "log.jsonl", "checkpoints", "samples", "tensorboard", "model"}
    assert {p.name for p in tmp_path.iterdir()} == expected
    assert [p.name for p in sorted((tmp_path / "checkpoints").iterdir())] == ["step_000008", "step_000012"]
    assert (tmp_path / "samples/step_000006/sample.txt").read_text() == "6" and list(
        (tmp_path / "tensorboard").iterdir()
    )
    line = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[1])
    assert {"loss", "mse", "lr", "grad_norm", "samples_per_s", "tokens_per_s", "time", "memory_mb"} <= line.keys()


def test_another_configuration_in_the_same_folder_is_an_error(tmp_path):
    run(tmp_path)
    with pytest.raises(
        TrainingError, match=r"loop\.seed was 0 and is now 1: every random number.*new run folder.*--resume never"
    ):
        train(Denoise(), loop_config(), OptimConfig(), tmp_path, CONFIG.replace("seed: 0", "seed: 1"))
    commented = "# a comment changes nothing\n" + CONFIG
    assert train(Denoise(), loop_config(), OptimConfig(), tmp_path, commented)["step"] == 12


def test_a_setting_that_came_later_and_is_off_ends_no_run(tmp_path):
    run(tmp_path)
    later = CONFIG + "later: {bound: 0, name: null, list: []}\nmore: false\n"
    assert train(Denoise(), loop_config(train_steps=14), OptimConfig(), tmp_path, later)["step"] == 14
    with pytest.raises(TrainingError, match=r"later\.bound was 0 and is now 2"):
        train(Denoise(), loop_config(train_steps=16), OptimConfig(), tmp_path, later.replace("bound: 0", "bound: 2"))


def test_resume_never_sets_the_old_run_aside(tmp_path):
    run(tmp_path)
    train(Denoise(), loop_config(train_steps=4), OptimConfig(), tmp_path, "model: other\n", resume="never")
    assert latest(tmp_path) == tmp_path / "checkpoints/step_000004"
    assert latest(tmp_path / "old-1") == tmp_path / "old-1/checkpoints/step_000012"


def test_a_checkpoint_of_another_model_names_the_first_key(tmp_path):
    save_checkpoint(tmp_path, fresh_state(), CONFIG, keep=1)
    other = fresh_state()
    other.modules["net"].last = nn.Linear(16, 9)
    with pytest.raises(
        TrainingError, match=r"'net\.last\.weight' is \(8, 16\), the model's is \(9, 16\); .*new run folder"
    ):
        state_module.load_checkpoint(tmp_path / "checkpoints/step_000000", other, CONFIG)
    other.modules["net"].more = nn.Linear(1, 1)
    other.modules["net"].last = nn.Linear(16, 8)
    with pytest.raises(TrainingError, match=r"'net\.more\.weight' is missing"):
        state_module.load_checkpoint(tmp_path / "checkpoints/step_000000", other, CONFIG)


# Checkpoints


@pytest.mark.parametrize("damage", ["truncate", "flip", "remove", "state"])
def test_a_damaged_newest_checkpoint_gives_way_to_the_older(tmp_path, capsys, damage):
    run(tmp_path / "run")
    run(tmp_path / "whole")
    newest = tmp_path / "run/checkpoints/step_000012"
    file = newest / ("state.json" if damage == "state" else "optimizer.safetensors")
    content = file.read_bytes()
    if damage == "remove":
        file.unlink()
    else:
        file.write_bytes(content[:-9] + (bytes(9) if damage == "flip" else b""))
    capsys.readouterr()
    run(tmp_path / "run")
    output = capsys.readouterr().out
    assert "step_000012: passed over" in output and "goes on from step_000008" in output
    assert_same_run(tmp_path / "whole", tmp_path / "run")


def test_a_crash_in_mid_save_leaves_the_older_checkpoint(tmp_path, monkeypatch):
    state = fresh_state()
    good = save_checkpoint(tmp_path, state, CONFIG, keep=1)
    state.step = 5
    calls = []

    def fail(file, tensors):
        calls.append(file)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(file, tensors)

    write = state_module.write_tensors
    with monkeypatch.context() as patch, pytest.raises(DataError, match="no space left on the disk; free some"):
        patch.setattr(state_module, "write_tensors", fail)
        save_checkpoint(tmp_path, state, CONFIG, keep=1)
    assert latest(tmp_path) == good and [p.name for p in (tmp_path / "checkpoints").iterdir()] == [good.name]
    assert save_checkpoint(tmp_path, state, CONFIG, keep=1) == latest(tmp_path)


def test_whole_folder_replaces_an_older_one_only_on_success(tmp_path):
    with whole_folder(tmp_path / "model") as new:
        (new / "a").write_text("1")
    with pytest.raises(RuntimeError), whole_folder(tmp_path / "model") as new:
        (new / "a").write_text("2")
        raise RuntimeError
    assert (tmp_path / "model/a").read_text() == "1"
    with whole_folder(tmp_path / "model") as new:
        (new / "b").write_text("3")
    assert [p.name for p in (tmp_path / "model").iterdir()] == ["b"] and len(list(tmp_path.iterdir())) == 1


# NaN


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_the_first_nan_stops_before_the_update_and_saves_the_batch(tmp_path, optimizer):
    optim = OptimConfig(optimizer=optimizer, schedule="constant")  # so that the length of the run does not matter
    good, bad = Denoise(), Denoise(spoil=6)
    run(tmp_path / "good", good, optim, train_steps=6)
    with pytest.raises(TrainingError, match=r"step 6: loss nan, gradient norm nan; .*nan_step_6"):
        run(tmp_path / "bad", bad, optim)
    for name, tensor in bad.net.named_parameters():
        assert torch.equal(tensor, good.net.get_parameter(name)), name
    folder = tmp_path / "bad/nan_step_6"
    assert load_file(folder / "batch.safetensors")["x"][3, 3].isnan()
    assert json.loads((folder / "batch.json").read_text())["caption"][0] == "clip 6-0"
    assert json.loads((folder / "report.json").read_text())["step"] == 6
    assert latest(tmp_path / "bad") == tmp_path / "bad/checkpoints/step_000004"


def test_ema_follows_the_formula_and_is_swapped_in_and_out():
    state = fresh_state()
    weight = state.optimizer.parameters["net.last.weight"]
    expected, start = weight.detach().clone(), weight.detach().clone()
    for step in range(3):
        with torch.no_grad():
            weight.add_(1.0)
        update_ema(state.ema, state.optimizer.parameters, step, ema_decay=0.15)
        decay = min(0.15, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * weight.detach()
    torch.testing.assert_close(state.ema["net.last.weight"], expected)
    with ema_weights(state.modules, state.ema):
        assert torch.equal(weight, state.ema["net.last.weight"]) and not state.modules["net"].training
    assert torch.equal(weight, start + 1 + 1 + 1) and state.modules["net"].training


def test_micro_batches_are_equal_cuts_of_the_batch():
    batch = Denoise().batch(0)
    parts = split_batch(batch, 4)
    assert torch.equal(torch.cat([p["x"] for p in parts]), batch["x"])
    assert [caption for p in parts for caption in p["caption"]] == batch["caption"]
    with pytest.raises(TrainingError, match="'x' has 16 samples; accumulation 3"):
        split_batch({"x": batch["x"]}, 3)
    with pytest.raises(ValueError, match="accumulation 3 must divide batch_size 16"):
        LoopConfig(accumulation=3)


def test_accumulation_gives_the_same_mean_gradient(tmp_path):
    """With noise, since that is drawn per sample."""
    norms = []
    for accumulation in (1, 4):
        folder = tmp_path / str(accumulation)
        run(folder, accumulation=accumulation, precision="float32", log_every=1, train_steps=1)
        norms.append(log_of(folder)[1]["grad_norm"])
    assert norms[0] == pytest.approx(norms[1], rel=1e-5)


@pytest.mark.parametrize("draw", [normal, uniform])
def test_each_sample_has_its_own_randomness_however_the_batch_is_cut(draw):
    cpu = torch.device("cpu")
    whole = draw(sample_generators(0, 5, range(4), cpu), 20)
    assert torch.equal(whole[2:], draw(sample_generators(0, 5, range(2, 4), cpu), 20))
    others = [draw(sample_generators(*place, range(4), cpu), 20) for place in ((0, 6), (1, 5))]
    assert len({tuple(row.tolist()) for x in (whole, *others) for row in x}) == 12


def test_an_error_of_the_data_thread_reaches_the_caller(tmp_path):
    class Broken(Denoise):
        def batch(self, step):
            if step == 3:
                raise ConfigError("clip.mp4: gone")
            return super().batch(step)

    with pytest.raises(ConfigError, match="gone"):
        run(tmp_path, Broken())
