"""A run folder over its life: the best weights, what may change when it goes on, one process at a time, and a disk that is full."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_curriculum import made as made  # a fixture
from test_training import Denoise, loop_config, stop_after, tensors_of

from video_gen.cli import main
from video_gen.data.config import ClipConfig
from video_gen.errors import DataError, TrainingError
from video_gen.progress import duration
from video_gen.training import loop as loop_module
from video_gen.training.best import Best
from video_gen.training.config import OptimConfig
from video_gen.training.judge import Judge
from video_gen.training.known_data import inherited, say_held_out
from video_gen.training.loop import TrainingInterrupted, train

JUDGE = Judge("validation_mse", higher=False, margin=0.01, remedy="more clips help")
CONFIG = """model: tiny
data: {folder: a, fps: 8}
loop: {train_steps: 12, seed: 0, log_every: 3, batch_size: 16, device: auto, keep: best}
optim: {learning_rate: 0.001, optimizer: adamw}
"""


class Falling(Denoise):
    """A task whose held-out figure is best at step 4, and which saves its weights."""

    figures = {0: 3.0, 4: 1.0, 8: 2.0, 12: 2.5}  # noqa: RUF012

    def __init__(self, judge=JUDGE, held_out=True):
        super().__init__(judge=judge)
        self.held_out = held_out

    def validate(self, step):
        self.seen.append((step, self.net.last.weight.detach().clone()))
        return {"validation_mse": self.figures[step]} if self.held_out else {}

    def save(self, folder):
        (folder / "weights.json").write_text(json.dumps(self.net.last.weight.tolist()), encoding="utf-8")


def run(folder, task=None, config=CONFIG, optim=None, **changes):
    return train(task or Falling(), loop_config(**changes), optim or OptimConfig(warmup_steps=2), folder, config)


def saved(folder: Path) -> list:
    return json.loads((folder / "model" / "weights.json").read_text(encoding="utf-8"))


# -------------------- the best weights


def test_the_model_is_made_of_the_best_weights(tmp_path, capsys):
    task = Falling()
    found = run(tmp_path, task)
    weights = dict(task.seen)
    assert saved(tmp_path) == weights[4].tolist() != weights[12].tolist()
    assert found["validation_mse"] == 1.0 and found["kept_step"] == 4
    said = capsys.readouterr().out
    assert "of step 4, where held-out validation_mse was best" in said
    assert said.count("is worse than 1 at step 4: the model is made of the weights of step 4") == 2
    assert said.count("more clips help") == 1


def test_last_keeps_the_last_weights_and_still_says_that_they_are_worse(tmp_path, capsys):
    task = Falling()
    assert "kept_step" not in run(tmp_path, task, keep="last")
    assert saved(tmp_path) == dict(task.seen)[12].tolist()
    assert "is worse than 1 at step 4: loop.keep is 'last'" in capsys.readouterr().out


def test_the_start_counts(tmp_path):
    task = Falling()
    task.figures = {0: 0.5, 4: 1.0, 8: 2.0, 12: 2.5}
    assert run(tmp_path, task)["kept_step"] == 0
    assert saved(tmp_path) == Falling().net.last.weight.tolist()


@pytest.mark.parametrize("stop", [3, 7])
def test_resumed_keeps_the_same_weights_as_uninterrupted(tmp_path, monkeypatch, stop):
    run(tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(TrainingInterrupted):
        stop_after(patch, stop)
        run(tmp_path / "cut")
    run(tmp_path / "cut")
    assert saved(tmp_path / "cut") == saved(tmp_path / "whole")
    best = [tensors_of(tmp_path / name / "best") for name in ("cut", "whole")]
    assert best[0] and all(torch.equal(x, best[1][name]) for name, x in best[0].items())


def test_nothing_held_out_keeps_the_last(tmp_path, capsys):
    task = Falling(held_out=False)
    run(tmp_path, task)
    assert saved(tmp_path) == dict(task.seen)[12].tolist() and not (tmp_path / "best").exists()


@pytest.mark.parametrize("case", ["one file", "fraction 0", "two copies"])
def test_without_held_out_clips_both_models_train_and_say_so(made, tmp_path, capsys, case):
    files = sorted((made / "data").glob("*.mp4"))
    folder = tmp_path / "data"
    folder.mkdir()
    for index in range(1 if case == "one file" else 2):
        content = files[0 if case == "two copies" else index].read_bytes()
        (folder / f"{index}.mp4").write_bytes(content)
    data = ["--data.folder", str(folder), "--data.num-frames", "9", "--data.height", "16", "--data.width", "16"]
    data += ["--data.validation-fraction", "0"] if case == "fraction 0" else []
    few = ["--loop.train-steps", "1", "--loop.batch-size", "1", "--loop.sample-every", "1", "--loop.no-tensorboard"]
    vae = ["--vae.widths", "16", "--vae.latent-channels", "4", "--vae.spatial-stride", "4"]
    assert main(["train", "vae", *data, *few, *vae, "--run", str(tmp_path / "vae")]) == 0
    assert "nothing is held out" in capsys.readouterr().out
    small = [
        "--transformer.width",
        "32",
        "--transformer.depth",
        "1",
        "--transformer.head-dim",
        "16",
        "--num-samples",
        "1",
    ]
    here = ["--vae", str(tmp_path / "vae/model/vae"), "--latents", str(tmp_path / "z"), "--run", str(tmp_path / "run")]
    assert main(["train", "diffusion", *data, *few, *small, *here, "--sampling.num-steps", "1"]) == 0
    assert "nothing is held out" in capsys.readouterr().out
    assert (tmp_path / "run/model/model.json").is_file()


# -------------------- going on with other settings


@pytest.mark.parametrize(
    "old, new, said",
    [
        ("log_every: 3", "log_every: 5", "goes on with loop.log_every 5 (was 3)"),
        ("device: auto", "device: cpu", "goes on with loop.device 'cpu' (was 'auto')"),
        ("folder: a", "folder: b", "goes on with data.folder 'b' (was 'a')"),
        ("learning_rate: 0.001", "learning_rate: 0.01", "goes on with optim.learning_rate 0.01 (was 0.001)"),
    ],
)
def test_what_is_safe_may_change(tmp_path, monkeypatch, capsys, old, new, said):
    with monkeypatch.context() as patch, pytest.raises(TrainingInterrupted):
        stop_after(patch, 5)
        run(tmp_path)
    run(tmp_path, config=CONFIG.replace(old, new))
    output = capsys.readouterr().out
    assert said in output and "goes on from step_000005" in output
    assert new in (tmp_path / "config.yaml").read_text(encoding="utf-8")


def test_a_finished_run_goes_on_with_more_steps(tmp_path, capsys):
    run(tmp_path)
    task = Falling()
    task.figures = Falling.figures | {16: 0.5}
    found = run(tmp_path, task, CONFIG.replace("train_steps: 12", "train_steps: 16"), train_steps=16)
    assert found["step"] == 16 and saved(tmp_path) == dict(task.seen)[16].tolist()
    assert "loop.train_steps 16 (was 12); the learning rate follows the new length" in capsys.readouterr().out


@pytest.mark.parametrize(
    "old, new, reason",
    [
        (
            "batch_size: 16",
            "batch_size: 8",
            "loop.batch_size was 16 and is now 8: the place in the data is counted in batches",
        ),
        ("fps: 8", "fps: 16", "data.fps was 8 and is now 16: the clips would be others"),
        ("adamw", "muon", "optim.optimizer was 'adamw' and is now 'muon': the optimiser's state belongs to it"),
        ("tiny", "large", "model was 'tiny' and is now 'large'"),
    ],
)
def test_what_is_not_safe_is_refused_with_the_reason(tmp_path, old, new, reason):
    run(tmp_path)
    with pytest.raises(TrainingError) as error:
        run(tmp_path, config=CONFIG.replace(old, new))
    assert reason in str(error.value) and "--init" in str(error.value) and "\n" not in str(error.value)
    assert (tmp_path / "config.yaml").read_text(encoding="utf-8") == CONFIG


def test_other_clips_are_told_in_one_line(tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch, pytest.raises(TrainingInterrupted):
        stop_after(patch, 5)
        run(tmp_path)
    task = Falling()
    task.clips = lambda: {"clip": "train, another caption", "new": "train"}
    run(tmp_path, task)
    assert "0 went, 1 came, 1 have another caption or side of the split; 2 in all" in capsys.readouterr().out


def test_another_vae_is_refused(tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(TrainingInterrupted):
        stop_after(patch, 5)
        run(tmp_path)
    task = Falling()
    for facts in ({"VAE": "a"}, {"VAE": "b"}):
        (tmp_path / "clips.json").write_text(json.dumps({"made_of": facts, "clips": {}}), encoding="utf-8")
    task.made_of = lambda: {"VAE": "a"}
    with pytest.raises(TrainingError, match=r"its VAE is not the one that the run began with \(b and a\)"):
        run(tmp_path, task)


# -------------------- one process at a time


def test_a_second_process_is_refused_with_the_name_of_the_first(tmp_path):
    code = (
        "import pathlib, sys, time\nfrom video_gen.training.lock import locked\n"
        "with locked(pathlib.Path(sys.argv[1]), print):\n    print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(TrainingError, match=rf"process {holder.pid} on .* trains there"):
            run(tmp_path)
        assert not (tmp_path / "config.yaml").exists()
    finally:
        holder.kill()
        holder.wait()
    assert run(tmp_path)["step"] == 12  # the lock died with its process


# -------------------- what must not be saved


def test_an_update_that_spoils_the_weights_is_not_saved(tmp_path):
    with pytest.raises(TrainingError, match=r"step 1: model/net\..* no longer finite.*lower optim.learning_rate"):
        run(tmp_path, optim=OptimConfig.model_construct(**OptimConfig(warmup_steps=0).model_dump() | {"learning_rate": math.inf}),
            validate_every=0, checkpoint_every=100, sample_every=0, train_steps=1)  # fmt: skip
    assert not (tmp_path / "model").exists() and not list((tmp_path / "checkpoints").glob("*"))


def test_a_full_disk_is_one_line_and_the_run_goes_on_after(tmp_path, monkeypatch, capsys):
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    original = loop_module.Session.run_step

    def run_step(self, batch):
        if self.state.step == 9:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
        original(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(loop_module.Session, "run_step", run_step)
        try:
            with pytest.raises(DataError, match=r"cannot be written: .*ulimit -f"):
                run(tmp_path / "cut", log_every=12)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    folders = [path.name for path in (tmp_path / "cut/checkpoints").iterdir()]
    assert folders == ["step_000004", "step_000008"] or sorted(folders) == ["step_000004", "step_000008"]
    run(tmp_path / "cut", log_every=12)
    run(tmp_path / "whole", log_every=12)
    assert saved(tmp_path / "cut") == saved(tmp_path / "whole")


def test_a_checkpoint_of_another_user_is_no_damaged_one(tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(TrainingInterrupted):
        stop_after(patch, 5)
        run(tmp_path)
    original = Path.read_text

    def refuse(self, *args, **kwargs):
        if self.name == "state.json":
            raise PermissionError(13, "Permission denied", str(self))
        return original(self, *args, **kwargs)

    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(TrainingError, match=r"state\.json: permission denied"):
        run(tmp_path)


def test_checkpoints_and_models_follow_the_umask(tmp_path):
    before = os.umask(0o022)
    try:
        run(tmp_path)
    finally:
        os.umask(before)
    modes = {path.stat().st_mode & 0o777 for path in tmp_path.rglob("*") if path.is_file()}
    assert modes == {0o644}


# -------------------- which clips are held out


@pytest.mark.slow
def test_the_split_of_the_vae_goes_along(made, tmp_path, capsys):
    data = ["--data.folder", str(made / "data"), "--data.num-frames", "9", "--data.height", "16", "--data.width", "16"]
    few = ["--loop.train-steps", "1", "--loop.batch-size", "1", "--loop.no-tensorboard"]
    vae = ["--vae.widths", "16", "--vae.latent-channels", "4", "--vae.spatial-stride", "4"]
    split = ["--data.validation-fraction", "0.4", "--data.split-seed", "3"]
    assert main(["train", "vae", *data, *split, *few, *vae, "--run", str(tmp_path / "vae")]) == 0
    first = json.loads((tmp_path / "vae/clips.json").read_text(encoding="utf-8"))
    small = ["--transformer.width", "32", "--transformer.depth", "1", "--transformer.head-dim", "16"]
    here = ["--vae", str(tmp_path / "vae/model/vae"), "--latents", str(tmp_path / "z")]
    assert main(["train", "diffusion", *data, *few, *small, *here, "--run", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().out
    assert "as the VAE's: data.validation_fraction 0.4, data.split_seed 3" in said
    held = [row.split("-")[0] for row in first["clips"]]
    index = next((tmp_path / "z").glob("*/index-*.jsonl")).read_text(encoding="utf-8").splitlines()[1:]
    rows = [json.loads(line) for line in index]
    assert {row["clip_id"].split("-")[0] for row in rows} == set(held)
    assert (
        main(["train", "diffusion", *data, *few, *small, *here, "--data.split-seed", "5", "--run", str(tmp_path / "b")])
        == 0
    )
    assert "data.split_seed is 5, the VAE's is 3: what is held out here" in capsys.readouterr().out
    assert (tmp_path / "run/model/vae/data.json").is_file()  # and along to whoever uses the model
    again = ["--init", str(tmp_path / "vae/model"), "--optim.learning-rate", "1e-30", "--optim.weight-decay", "0"]
    assert main(["train", "vae", *data, *split, *few, *vae, *again, "--run", str(tmp_path / "more")]) == 0
    old, new = (load_file(tmp_path / name / "model/vae/model.safetensors") for name in ("vae", "more"))
    assert all(torch.allclose(new[name], x, atol=1e-6) for name, x in old.items())
    assert main(["train", "vae", *data, *few, *vae, *again, "--vae.widths", "32", "--run", str(tmp_path / "c")]) == 2
    assert "vae.widths is (32,), and (16,) in init" in capsys.readouterr().err


def test_what_nobody_said_is_inherited_and_the_rest_named():
    said: list[str] = []
    data = inherited(
        ClipConfig(height=32, width=64), {"fps": 8.0, "height": 48, "width": 48}, "the teacher's", said.append
    )
    assert (data.fps, data.height, data.width) == (8.0, 32, 64)  # 64 is the default, and was said
    assert said[:2] == ["data.height is 32, the teacher's is 48", "data.width is 64, the teacher's is 48"]
    assert said[2:] == ["as the teacher's: data.fps 8.0"]


@pytest.mark.parametrize(
    "clips, files, said",
    [
        (
            0,
            0,
            [
                "nothing is held out, so no figure will tell how well the model does on other clips, and its last weights are kept"
            ],
        ),
        (1, 1, ["only 1 clip of 1 file held out: held-out figures are rough"]),
        (40, 7, ["only 40 clips of 7 files held out: held-out figures are rough"]),
        (8, 8, []),
    ],
)
def test_few_held_out_files_are_told(clips, files, said):
    lines: list[str] = []
    say_held_out(clips, files, lines.append)
    assert lines == said


def test_durations_in_words():
    assert [duration(x) for x in (0.4, 59, 60, 3_599, 8_280, 90_000)] == [
        "0 s", "59 s", "1 min 0 s", "59 min 59 s", "2 h 18 min", "1 d 1 h"
    ]  # fmt: skip


# -------------------- which weights are the best


def best_of(folder: Path, kept: bool) -> Best:
    return Best(folder, Judge("loss", higher=False, margin=0.01, remedy=""), lambda text: None, kept)


def test_a_figure_that_is_no_number_is_refused_and_the_best_stay(tmp_path):
    modules = {"part": torch.nn.Linear(2, 2)}
    best_of(tmp_path, True).consider(1, {"loss": 2.0}, modules)
    with pytest.raises(TrainingError, match="step 2: held-out loss is NaN"):
        best_of(tmp_path, True).consider(2, {"loss": float("nan")}, modules)
    assert best_of(tmp_path, True).figures() == {"step": 1.0, "loss": 2.0}


def test_figures_without_weights_are_no_best_where_weights_are_wanted(tmp_path):
    modules = {"part": torch.nn.Linear(2, 2)}
    best_of(tmp_path, False).consider(1, {"loss": 1.0}, modules)
    kept = best_of(tmp_path, True)
    assert best_of(tmp_path, False).figures() == {"step": 1.0, "loss": 1.0} and kept.figures() is None
    kept.consider(2, {"loss": 2.0}, modules)
    assert kept.restore(modules) == {"step": 2.0, "loss": 2.0}
