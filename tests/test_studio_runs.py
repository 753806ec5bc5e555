"""The studio's runs: what is found and told of them, whatever is in their files, and training that is started and stopped."""

import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

pytest.importorskip("fastapi")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from fastapi.testclient import TestClient

from benchmarks.made_runs import write_run
from video_gen.errors import TrainingError
from video_gen.shipped import CONFIGS, config_names
from video_gen.training.lock import locked
from video_gen.web.studio.app import make_app
from video_gen.web.studio.roots import Roots
from video_gen.web.studio.run_folder import flat, kind_of, read_config, steps_of
from video_gen.web.studio.run_log import Log, sketch
from video_gen.web.studio.run_process import start, stop
from video_gen.web.studio.run_recipe import Recipe, check
from video_gen.web.studio.run_rows import Folders, Rows
from video_gen.web.studio.run_state import condition
from video_gen.web.studio.studio import Studio


class RunsAlone(Studio):
    """Without the process that samples: it is of no use here."""

    def start(self):
        self.hub.start()
        self.watch.start()

    def close(self):
        self.watch.close()
        self.apart.close()


SETTINGS = (
    "data: {folder: data/clips, height: 16, width: 16, num_frames: 5, validation_fraction: 0.2}\n"
    "vae: {temporal_stride: 2, spatial_stride: 4, latent_channels: 4, widths: [16], blocks: 1}\n"
    "loop: {train_steps: 100000, batch_size: 2, validate_every: 0, sample_every: 0, log_every: 1, tensorboard: false}\n"
)


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    return tmp_path / "runs"


@pytest.fixture
def client(runs, tmp_path):
    studio = RunsAlone(tmp_path / "out", "bounce", Roots((Path("runs"),)), Roots((Path("data"),)))
    with TestClient(make_app(studio), headers={"host": "127.0.0.1:8000"}, raise_server_exceptions=False) as found:
        yield found


def rows(client):
    return {row["name"]: row for row in client.get("/api/runs").json()["runs"]}


def line(step, **values):
    return json.dumps({"kind": "train", "step": step} | values) + "\n"


def until(what, seconds=60):
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)
    return found


# -------------------- what is found


def test_runs_are_found_at_any_depth_and_not_through_links(runs, tmp_path):
    for name in ("a", "deep/er/b", "a/old-1", "c/stage-1"):
        write_run(runs / name, lines=3)
    (runs / "c" / "config.yaml").write_text("stages: [{}, {}]\n")
    (runs / "a" / "checkpoints" / "x").mkdir(parents=True)
    (runs / "a" / "checkpoints" / "x" / "config.yaml").write_text("")
    write_run(tmp_path / "beyond", lines=3)
    (runs / "link").symlink_to(tmp_path / "beyond")
    folders = Folders(Roots((runs,)))
    for _ in range(2):
        assert [place.name for place in folders.find()[0]] == ["a", "a/old-1", "c", "c/stage-1", "deep/er/b"]
    write_run(runs / "deep" / "new", lines=3)
    assert "deep/new" in [place.name for place in folders.find()[0]]


def test_a_row_says_what_the_files_say(client, runs):
    write_run(runs / "a", "vae", lines=40, every=5)
    row = rows(client)["a"]
    best = json.loads((runs / "a" / "best" / "figures.json").read_text())
    assert row["kind"] == "vae" and row["step"] == row["train_steps"] == 200 and row["state"] == "finished"
    assert row["best"] == {"figure": "psnr", "higher": True, "value": best["psnr"], "step": best["step"]}
    assert row["floor"] == best["psnr_linear"] and row["pace"] == pytest.approx(1 / 0.41)
    about = client.get("/api/runs/about?root=runs&name=a").json()
    assert about["settings"]["data.height"] == 32 and about["sizes"]["log"] == (runs / "a" / "log.jsonl").stat().st_size
    assert about["command"] == "video-gen train vae runs/a/config.yaml --run runs/a"
    assert about["words"]["psnr_linear"]["note"].startswith("the floor")


def test_a_held_out_figure_that_gets_worse_is_told_with_what_helps(client, runs):
    write_run(runs / "a", lines=20)
    assert rows(client)["a"]["worse"] is None
    with (runs / "a" / "log.jsonl").open("a") as log:
        log.write('{"kind": "validation", "step": 220, "loss": 2.5}\n' + line(230, loss=0.1, data_s=0.3, forward_s=0.1))
    row = rows(client)["a"]
    assert (
        row["worse"]["step"] == 220
        and "learned by heart" in row["worse"]["remedy"]
        and row["waits"] == pytest.approx(0.75)
    )


def test_every_shipped_configuration_is_of_the_kind_that_its_command_trains():
    for name in config_names():
        path = CONFIGS / f"{name}.yaml"
        command = path.read_text(encoding="utf-8").split()
        assert (
            kind_of(__import__("yaml").safe_load(path.read_text(encoding="utf-8")))
            == command[command.index("train") + 1]
        ), name


def test_a_curriculum_is_told_by_its_stages(client, runs):
    write_run(runs / "c" / "stage-1", lines=10)
    write_run(
        runs / "c" / "stage-2", lines=10, done=0.5, lock="ended (now) TrainingInterrupted: stopped after step 100"
    )
    (runs / "c" / "config.yaml").write_text("loop: {train_steps: 200}\nstages: [{loop: {train_steps: 100}}, {}, {}]\n")
    row = rows(client)["c"]
    assert (row["step"], row["train_steps"], row["state"]) == (200, 500, "stopped")
    assert row["note"] == "stage 2 of 3: stopped after step 100"


# -------------------- the log


def test_a_log_read_as_it_grows_is_the_log_read_whole(runs):
    write_run(runs / "a", lines=300)
    text = (runs / "a" / "log.jsonl").read_bytes()
    growing, path = Log(runs / "grown"), runs / "grown"
    for cut in (0, 10, 4000, 4001, len(text) // 2, len(text)):
        with path.open("ab") as file:
            file.write(text[path.stat().st_size : cut])
        growing.read()
    whole = Log(runs / "a" / "log.jsonl")
    whole.read()
    assert growing.curves == whole.curves and growing.lines == whole.lines == text.count(b"\n")
    assert growing.troubles() == []


def test_a_log_that_was_cut_back_is_read_anew(runs):
    path = runs / "log"
    path.write_text("".join(line(step, loss=1.0) for step in range(10)))
    log = Log(path)
    log.read()
    new = runs / "new"
    new.write_text("".join(line(step, loss=2.0) for step in range(20)))
    os.replace(new, path)
    log.read()
    assert set(log.curves["train/loss"].values) == {2.0} and log.lines == 20


def test_a_coarse_log_has_some_lines_of_training_and_all_others(runs):
    write_run(runs / "a", lines=3000)
    path = runs / "a" / "log.jsonl"
    whole, coarse = Log(path), Log(path, coarse=200)
    whole.read()
    coarse.read()
    assert coarse.curves["validation/loss"] == whole.curves["validation/loss"]
    loss, known = (
        coarse.curves["train/loss"],
        dict(zip(whole.curves["train/loss"].steps, whole.curves["train/loss"].values)),
    )
    assert 150 <= len(loss.steps) <= 250 and all(known[step] == value for step, value in zip(loss.steps, loss.values))
    with path.open("a") as log:
        log.write(line(40_000, loss=0.5) + '{"kind": "validation", "step": 40000, "loss": 0.25}\n')
    coarse.read()
    assert coarse.curves["validation/loss"].steps[-1] == coarse.curves["train/loss"].steps[-1] == 40_000


def test_a_thinned_curve_keeps_means_and_extremes(runs):
    path = runs / "log"
    path.write_text("".join(line(step, loss=float(step % 7)) for step in range(1000)))
    log = Log(path)
    log.read()
    thin = log.curves["train/loss"].thin(100, 0, 999)
    assert (
        len(thin["steps"]) == 100
        and thin["steps"][0] == 4.5
        and thin["values"][0] == pytest.approx(sum(i % 7 for i in range(10)) / 10)
    )
    assert (thin["low"][0], thin["high"][0]) == (0, 6)
    part = log.curves["train/loss"].thin(100, 500, 520)
    assert part["steps"] == list(range(500, 521)) and "low" not in part


def test_lines_that_are_none_are_counted_and_the_rest_is_drawn(client, runs):
    write_run(runs / "a", lines=20)
    with (runs / "a" / "log.jsonl").open("ab") as log:
        log.write(b'{"kind": "train", "step": 210, "loss": 0.5}\n')
        log.write(b'{"kind": "train", "step": 220, "lo\n')  # torn
        log.write(b"\xff\x00\xfe binary\n[1, 2]\nnull\n7\n\n")
        log.write(b'{"kind": "train", "step": "x", "loss": 1}\n{"step": 3}\n{"kind": 4, "step": 4}\n')
        log.write(
            b'{"kind": "train", "step": 230, "loss": NaN, "grad_norm": Infinity, "lr": 1e999, "text": "a", "odd": null}\n'
        )
        log.write(b'{"kind": "train", "step": 240, "loss": %s}\n' % (b"9" * 400))
        log.write(b'{"kind": "train", "step": 250, "loss": %s}\n' % (b"9" * 5000))
        log.write(b'{"kind": "train", "step": 100, "loss": 0.25, "deep": {"a": 1}}\n')
        log.write(b'{"kind": "train", "step": 300, "loss": 0.125')  # being written
    found = client.get("/api/runs/curves?root=runs&name=a").json()
    loss = found["curves"]["train/loss"]
    assert loss["steps"] == sorted(loss["steps"]) and loss["steps"][-1] == 210 and 0.25 in loss["values"]
    told = " ".join(found["troubles"])
    assert "9 of " in told and "4 values are no finite number" in told and "steps go back" in told
    assert rows(client)["a"]["step"] == 100


@pytest.mark.parametrize(
    "content", [b"", b"\x00" * 100_000, os.urandom(50_000), b"x" * 3_000_000, b"{" * 100_000 + b"\n", b"\n" * 1000]
)
@pytest.mark.parametrize(
    "file", ["log.jsonl", "config.yaml", "best/figures.json", ".lock", "started.json", "console.txt", "samples"]
)
def test_no_content_of_a_file_breaks_anything(client, runs, file, content):
    write_run(runs / "a", lines=5)
    (runs / "a" / file).write_bytes(content)
    assert "a" in rows(client)
    for address in ("curves", "about"):
        assert client.get(f"/api/runs/{address}?root=runs&name=a").status_code == 200


def test_links_pipes_and_folders_in_the_place_of_files_are_not_read(client, runs, tmp_path):
    (tmp_path / "secret").write_text("secret: 1\n")
    write_run(runs / "a", lines=5)
    for name in ("config.yaml", "log.jsonl", "console.txt"):
        (runs / "a" / name).unlink(missing_ok=True)
        (runs / "a" / name).symlink_to(tmp_path / "secret")
    os.mkfifo(runs / "a" / "recipe.yaml")
    (runs / "a" / "started.json").mkdir()
    (runs / "a" / "samples").symlink_to(tmp_path)
    for address in ("", "/curves?root=runs&name=a", "/about?root=runs&name=a"):
        answer = client.get(f"/api/runs{address}")
        assert answer.status_code == 200 and "secret" not in answer.text


def test_a_curve_of_hundreds_of_figures_is_cut_and_told(runs):
    path = runs / "log"
    path.write_text("".join(line(step, **{f"figure_{i}": 1.0 for i in range(300)}) for step in range(3)))
    log = Log(path)
    log.read()
    assert len(log.curves) == 200 and "more than 200 figures; 300 values" in " ".join(log.troubles())


def test_a_sketch_is_of_lines_of_the_log(runs):
    write_run(runs / "a", lines=3000)
    log = Log(runs / "a" / "log.jsonl")
    log.read()
    loss = log.curves["train/loss"]
    known = dict(zip(loss.steps, loss.values))
    found = sketch(runs / "a" / "log.jsonl")
    assert len(found) == 48 and all(value == pytest.approx(known[step], rel=1e-4) for step, value in found)


def test_settings_whose_aliases_multiply_are_refused(runs):
    bomb = "a: &a0 [x, x]\n" + "".join(f"b{i}: &a{i + 1} [*a{i}, *a{i}, *a{i}, *a{i}]\n" for i in range(30))
    (runs / "config.yaml").write_text(bomb)
    assert "120 aliases" in read_config(runs)[1]
    assert "120 aliases" in check(Recipe(text=bomb, root="runs", name="x"), Roots((runs,)), ()).problems[0].text
    assert list(flat({"a": {"b": [1, {"c": 2}]}, "d": {}})) == [("a.b.1", 1), ("a.b.2.c", 2), ("d", {})]
    assert steps_of({"loop": {"train_steps": True}}) is None and steps_of({"loop": {"train_steps": 5}}) == 5


# -------------------- how a run is


def test_how_a_run_ended_is_told_by_its_lock(tmp_path):
    with locked(tmp_path, print):
        assert (tmp_path / ".lock").read_text().startswith(f"process {os.getpid()} on ")
    assert condition(tmp_path).state == "finished"
    with pytest.raises(ValueError), locked(tmp_path, print):
        raise ValueError("of two\nlines")
    assert (condition(tmp_path).state, condition(tmp_path).note) == ("crashed", "of two lines")
    with pytest.raises(KeyboardInterrupt), locked(tmp_path, print):
        raise KeyboardInterrupt
    assert condition(tmp_path).state == "stopped"


def test_a_run_that_is_at_work_is_told_from_one_that_was_killed(tmp_path):
    code = (
        "import pathlib, sys, time\nfrom video_gen.training.lock import locked\n"
        "with locked(pathlib.Path(sys.argv[1]), print):\n    print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        assert (condition(tmp_path).state, condition(tmp_path).pid) == ("running", holder.pid)
    finally:
        holder.kill()
        holder.wait()
    assert condition(tmp_path).state == "killed" and condition(tmp_path).pid is None


# -------------------- samples


def test_samples_are_listed_in_order_and_nothing_else_is_handed_out(client, runs, tmp_path):
    write_run(runs / "a", lines=5)
    for step in (5, 20, 100):
        folder = runs / "a" / "samples" / f"step_{step:06d}"
        folder.mkdir(parents=True)
        (folder / "00.mp4").write_bytes(b"video")
        (folder / "sheet.png").write_bytes(b"png")
        (folder / "captions.txt").write_text("a red circle\n")
    (tmp_path / "secret.mp4").write_text("secret")
    (runs / "a" / "samples" / "step_000005" / "01.mp4").symlink_to(tmp_path / "secret.mp4")
    found = client.get("/api/runs/about?root=runs&name=a").json()["samples"]
    assert [sample["step"] for sample in found] == [5, 20, 100] and found[0]["captions"] == ["a red circle"]

    def get(step, file):
        return client.get("/api/runs/file", params={"root": "runs", "name": "a", "step": step, "file": file})

    answer = get("step_000005", "00.mp4")
    assert answer.content == b"video" and answer.headers["content-type"] == "video/mp4"
    beyond = [("step_000005", file) for file in ("01.mp4", "captions.txt", "../00.mp4", "")]
    for step, file in (*beyond, ("..", "sheet.png"), ("step_000009", "00.mp4"), ("", "00.mp4")):
        assert get(step, file).status_code == 404, (step, file)
    for name in ("..", "/etc", "nothing", "a/samples", "a\0"):
        assert client.get("/api/runs/curves", params={"root": "runs", "name": name}).status_code == 404


# -------------------- a recipe


def problems(text, runs, kind="auto", name="new", data=("data",)):
    found = check(
        Recipe(text=text, kind=kind, root="runs", name=name), Roots((runs,)), (Roots(tuple(map(Path, data))),)
    )
    return [(problem.line, problem.text) for problem in found.problems]


def test_every_mistake_has_its_line(runs):
    Path("data/clips").mkdir(parents=True)
    assert problems(SETTINGS, runs) == []
    assert problems(
        "data:\n  folder: data/clips\n  hight: 3\n  fps: -1\nloop:\n  batch_size: two\nvae: {}\n", runs
    ) == [
        (4, "'data.fps' is -1: Input should be greater than 0"),
        (3, "unknown key 'data.hight'; perhaps you meant 'height'"),
        (6, "'loop.batch_size' is 'two': Input should be a valid integer, unable to parse string as an integer"),
    ]
    assert problems("data: {folder: data/clips}\nvae: {}\nloop:\n  batch_size: 5\n  accumulation: 2\n", runs) == [
        (3, "loop: accumulation 2 must divide batch_size 5")
    ]
    assert problems("data: {\n", runs)[0][0] is not None
    assert problems("- a\n", runs) == [(None, "expected a mapping of settings, found list")]
    assert problems("a: 1\na: 2\n", runs)[0][1].endswith("leave one out")
    stage = "data: {folder: data/clips}\nvae: bounce/vae\nstages:\n  - {}\n  - loop:\n      train_stepz: 5\n"
    assert problems(stage, runs) == [
        (6, "stages, number 2, loop: unknown key 'train_stepz'; perhaps you meant 'train_steps'")
    ]


def test_the_mistakes_are_those_of_the_command_line(runs, capsys):
    from video_gen.cli import main

    Path("data/clips").mkdir(parents=True)
    for text in ("loop: {train_steps: 0}\nvae: {}\n", "vae: {latent_chanels: 3}\n", "crop: 4\nvae: {}\n"):
        Path("a.yaml").write_text(text)
        assert main(["train", "vae", "a.yaml", "--run", "runs/x"]) == 2
        line = capsys.readouterr().err.strip().removeprefix("video-gen: a.yaml: ")
        assert [text for _, text in problems(text, runs) if "data.folder" not in text] == [line]


def test_places_beyond_the_folders_are_refused(runs, tmp_path):
    Path("data/clips").mkdir(parents=True)
    (tmp_path / "else").mkdir()
    (Path("data") / "out").symlink_to(tmp_path / "else")
    transformer = "data: {folder: data/clips}\nvae: bounce/vae\n"
    assert problems(transformer, runs) == []
    for text, line in (
        ("latents: /tmp/latents\n", 3),
        ("latents: runs/../else/latents\n", 3),
        ("init: else\n", 3),
        ("text: {kind: transformers, name: /etc}\n", 3),
        ("stages:\n  - data: {folder: data/clips}\n  - data:\n      folder: else\n", 6),
    ):
        found = problems(transformer + text, runs)
        assert [at for at, _ in found] == [line] and "outside of the studio's folders" in found[0][1], text
    for folder in ("/etc", "else", "data/../else", "data/out", "~"):
        assert "outside" in problems(f"data: {{folder: '{folder}'}}\nvae: {{}}\n", runs)[0][1], folder
    assert "no such file or folder" in problems("data: {folder: data/none}\nvae: {}\n", runs)[0][1]
    for name in (
        "",
        "..",
        "../x",
        "/tmp/x",
        "a//b",
        ".hidden",
        "a/checkpoints",
        "-x",
        "a\\b",
        "x" * 200,
        "a/b/c/d/e",
        "stage-1",
        "a\0",
    ):
        assert [line for line, _ in problems(SETTINGS, runs, name=name)] == [None], name
    (runs / "away").symlink_to(tmp_path / "else")
    assert "outside" in problems(SETTINGS, runs, name="away/x")[0][1]


# -------------------- started, stopped, gone on


@pytest.fixture
def clips(runs):
    from video_gen.data.config import WorldConfig
    from video_gen.data.worlds import render_world

    render_world(WorldConfig(num_clips=12, num_frames=5, height=16, width=16), Path("data/clips"))


@pytest.mark.slow
def test_a_run_is_started_stopped_and_gone_on_with(client, clips, runs, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    wanted = {"text": SETTINGS, "root": "runs", "name": "deep/new"}
    assert client.post("/api/runs/check", json=wanted).json()["problems"] == []
    begun = client.post("/api/runs/start", json=wanted).json()
    assert begun["command"] == "video-gen train vae runs/deep/new/recipe.yaml --run runs/deep/new"
    try:
        assert rows(client)["deep/new"]["state"] in ("starting", "running")
        assert "trains there already" in client.post("/api/runs/start", json=wanted).json()["error"]
        until(lambda: (rows(client)["deep/new"]["step"] or 0) > 2)
        row = rows(client)["deep/new"]
        assert row["state"] == "running" and condition(runs / "deep/new").pid == begun["pid"]
        assert os.getpgid(begun["pid"]) == begun["pid"] != os.getpgid(0)
        assert client.post("/api/runs/stop", json={"root": "runs", "name": "deep/new"}).json() == {"stopping": True}
        until(lambda: rows(client)["deep/new"]["state"] == "stopped")
    finally:
        if condition(runs / "deep/new").pid:
            os.kill(begun["pid"], 9)
    row = rows(client)["deep/new"]
    assert row["note"].startswith("stopped after step ") and row["saved"] >= row["step"] > 0
    again = {"root": "runs", "name": "deep/new", "train_steps": row["saved"] + 2}
    assert client.post("/api/runs/resume", json=again).status_code == 200
    until(lambda: rows(client)["deep/new"]["state"] == "finished")
    until(lambda: rows(client)["deep/new"]["made"])
    about = client.get("/api/runs/about?root=runs&name=deep/new").json()
    assert sum(said.startswith("$ video-gen train vae") for said in about["console"]) == 2
    assert any(f"goes on from step_{row['saved']:06d}" in said for said in about["console"])
    assert (
        "no process of this machine"
        in client.post("/api/runs/stop", json={"root": "runs", "name": "deep/new"}).json()["error"]
    )


@pytest.mark.slow
def test_what_a_recipe_would_cost_is_told_without_a_name(client, clips, runs):
    answer = client.post("/api/runs/plan", json={"text": SETTINGS}).json()
    assert (
        answer["hours"] > 0 and answer["memory_mb"] > 100 and answer["parameters"] > 1000 and not list(runs.iterdir())
    )
    refused = client.post("/api/runs/plan", json={"text": SETTINGS.replace("batch_size: 2", "batch_size: x")})
    assert refused.status_code == 400 and refused.json()["error"].startswith("line 3: 'loop.batch_size' is 'x'")


def test_what_was_started_outlives_the_studio_and_is_found_again(runs):
    # as good as training, and quicker there
    words = ["video-gen", "worlds", "--num-clips", "2000", "--output", "data/made"]
    code = (
        f"from pathlib import Path\nfrom video_gen.web.studio.run_process import start\nstart({words}, Path('runs/a'))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    found = condition(runs / "a")
    assert found.state == "starting" and found.pid is not None and os.getsid(found.pid) == found.pid
    try:
        with pytest.raises(TrainingError, match="trains there already"):
            start(words, runs / "a")
        until(lambda: list(Path("data").rglob("*.mp4")))
        stop(found, runs / "a", again=False)
        until(lambda: condition(runs / "a").pid is None)
    finally:
        with suppress(ProcessLookupError):
            os.kill(found.pid, 9)
    ended = condition(runs / "a")
    assert ended.state == "stopped" and ended.note.startswith("stopped: ")


@pytest.mark.slow
def test_a_run_that_cannot_begin_shows_its_last_line(client, clips, runs):
    text = SETTINGS.replace("num_frames: 5", "num_frames: 4")
    assert client.post("/api/runs/start", json={"text": text, "root": "runs", "name": "new"}).status_code == 200
    row = until(lambda: (found := rows(client)["new"])["state"] == "crashed" and found)
    assert "frames" in row["note"] and "Traceback" not in row["note"]


def test_what_may_not_be_started_is_not(client, runs):
    Path("data/clips").mkdir(parents=True)
    (runs / "full").mkdir()
    (runs / "full" / "thesis.txt").write_text("mine")
    start = lambda **said: client.post("/api/runs/start", json={"root": "runs"} | said)  # noqa: E731
    for said, told in (
        ({"text": SETTINGS, "name": "../x"}, "is no name of a folder"),
        ({"text": SETTINGS, "name": "full"}, "holds other files"),
        ({"text": SETTINGS, "name": "x", "root": "nothing"}, "no folder 'nothing'"),
        ({"text": "data: {folder: /etc}", "name": "x"}, "line 1: 'data.folder' is '/etc', outside"),
        ({"text": "loop: {", "name": "x"}, "not valid YAML"),
        ({"name": "x"}, "'text' is required"),
    ):
        answer = start(**said)
        assert answer.status_code == 400 and told in answer.json()["error"], said
    assert sorted(path.name for path in runs.iterdir()) == ["full"]
    write_run(runs / "foreign", lines=3, done=0.5)
    (runs / "foreign" / "config.yaml").write_text("data: {folder: /etc}\nvae: {}\n")
    answer = client.post("/api/runs/resume", json={"root": "runs", "name": "foreign"})
    assert answer.status_code == 400 and "outside of the studio's folders" in answer.json()["error"]
    for path in ("stop", "resume"):
        assert client.post(f"/api/runs/{path}", json={"root": "runs", "name": "nothing"}).status_code == 404


def test_pages_are_told_which_runs_have_changed(client, runs):
    write_run(runs / "a", lines=5)
    with client.websocket_connect("/api/events?topics=runs") as socket:
        first = json.loads(socket.receive_text())["runs"]
        with (runs / "a" / "log.jsonl").open("a") as log:
            log.write(line(60, loss=0.5))
        then = json.loads(socket.receive_text())["runs"]
        assert then["runs/a"] > first["runs/a"]


def test_rows_are_read_again_only_where_something_changed(runs, monkeypatch):
    from video_gen.web.studio import run_rows

    write_run(runs / "a", lines=5)
    write_run(runs / "b", lines=5)
    looked, places, known = [], Folders(Roots((runs,))).find()[0], Rows()
    facts = run_rows.facts
    monkeypatch.setattr(run_rows, "facts", lambda folder: looked.append(folder.name) or facts(folder))
    known.rows(places)
    known.rows(places)
    with (runs / "b" / "log.jsonl").open("a") as log:
        log.write(line(60, loss=0.5))
    known.rows(places)
    assert looked == ["a", "b", "b"]
