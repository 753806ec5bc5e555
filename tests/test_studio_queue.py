"""Jobs of the studio: what they make is what the command line makes, and nothing is lost, made twice or taken down."""

import contextlib
import io
import json
import os
import shlex
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

pytest.importorskip("fastapi")
from PIL import Image
from studios import client_of, small_model, until

from video_gen.cli import main
from video_gen.errors import ConfigError, DataError
from video_gen.web.studio.form import command, fields, python, said, sample_of
from video_gen.web.studio.gallery import PLACE, Gallery
from video_gen.web.studio.jobs import TRIES, Job, Store
from video_gen.web.studio.roots import Roots
from video_gen.web.studio.studio import Studio
from video_gen.web.studio.worker import DONE


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(small_model(tmp_path_factory.mktemp("models") / "small"))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("studio")


@pytest.fixture(scope="module")
def studio(model, place):
    return Studio(place / "out", model, Roots(()), Roots(()), "cpu")


@pytest.fixture(scope="module")
def client(studio):
    with client_of(studio) as found:
        yield found


def post(client, path, **body):
    answer = client.post(f"/api/{path}", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def results(client):
    return client.get("/api/results").json()["items"]


# -------------------- the form is the command line


def test_what_a_page_says_can_be_said_as_a_command_line_and_as_python():
    from video_gen.arguments.generate import Sample
    from video_gen.command_line import read

    values = {
        "prompt": "-3 o'clock \"sharp\"\n\\ and on", "model": "bounce", "seed": 2**62, "image": "/tmp/a b'c.png", "loop": True,
        "num_steps": 7, "guidance_scale": 0.1, "guidance_interval": [0.1, 0.9], "times": [0.9, 0.3], "negative_prompt": "--grey",
        "guidance_optimal_scale": False, "solver": "heun", "weights": "bf16", "vae_tile": 64,
        "loras": ["/tmp/a.safetensors", "/tmp/b:0.5"],
    }  # fmt: skip
    sample = sample_of(values)
    assert said(sample) == values
    words = shlex.split(command(sample))
    assert words[:2] == ["video-gen", "sample"] and read(Sample, words[2:], "video-gen sample") == sample
    text, got = python(sample, "cuda"), {}
    assert "Fit(weights='bf16', vae_tile=64)" in text
    for line in ("from video_gen.sample import load_model, sample_to_files\n", "import torch\n"):
        assert line in text
        text = text.replace(line, "")
    pretend = {
        "torch": type("T", (), {"device": staticmethod(lambda name: f"on {name}")}),
        "load_model": lambda *args: args,
        "sample_to_files": lambda *args, **options: got.update(options, args=args),
    }
    exec(text, pretend)
    opened, *rest = got.pop("args")
    assert opened == (Path("bounce"), "on cuda", sample.memory.fit, (), values["loras"])
    assert rest == [values["prompt"], Path("out")]
    given = {**values, "image": Path(values["image"]), "guidance_interval": (0.1, 0.9), "times": (0.9, 0.3)}
    assert got == {
        name: value for name, value in given.items() if name not in ("model", "prompt", "weights", "vae_tile", "loras")
    }


def test_every_setting_of_sampling_is_in_the_form_with_its_help():
    from video_gen.sampling.config import SamplingConfig

    found = {field["name"]: field for group in fields() for field in group["fields"]}
    assert set(SamplingConfig.model_fields) - set(found) == {"action_scale"}
    assert all(field["help"] for field in found.values())
    assert found["num_steps"]["kind"] == "whole" and (found["num_steps"]["low"], found["num_steps"]["high"]) == (
        1,
        10_000,
    )
    assert found["shift"]["above"] == 0 and found["solver"]["choices"][0] == "euler"
    assert (
        found["guidance_interval"]["many"] == 2 and found["loop"]["kind"] == "flag" and found["image"]["kind"] == "file"
    )


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"num_steps": 0}, "'num steps' is 0"),
        ({"num_steps": "many"}, "'num steps' is 'many'"),
        ({"guidance_scale": float("nan")}, "'guidance scale' is nan"),
        ({"nonsense": 1}, "no setting 'nonsense'"),
        ({"prompt": "a\0b"}, "NUL"),
        ({"prompt": 5}, "'prompt' is 5"),
    ],
)
def test_mistakes_of_a_page_are_one_line_in_its_words(values, line):
    with pytest.raises(ConfigError, match=line):
        sample_of(values)


# -------------------- made


def test_a_job_makes_what_its_command_and_its_python_make_bit_for_bit(client, tmp_path):
    red = io.BytesIO()
    Image.new("RGB", (20, 16), (200, 30, 30)).save(red, "PNG")
    sent = client.post("/api/uploads?name=red.png", content=red.getvalue()).json()
    image = f"upload:{sent['id']}"
    post(client, "jobs", prompt="a red circle", count=2, seed=4, num_steps=3, image=image, guidance_scale=1.5)
    made = until(lambda: len(results(client)) == 2 and results(client))
    assert [item["seed"] for item in made] == [5, 4] and {item["frames"] for item in made} == {9}
    for number, item in enumerate(made):
        told = client.get("/api/results/item", params={"name": item["name"]}).json()
        ours = client.get("/api/results/video", params={"name": item["name"]}).content
        out = tmp_path / f"command-{number}"
        assert main([*shlex.split(told["command"])[1:], "--output", str(out)]) == 0
        assert next(out.glob("*.mp4")).read_bytes() == ours
        with contextlib.chdir(tmp_path):
            exec(told["python"], {})
        assert (tmp_path / "out" / f"a-red-circle_seed_{item['seed']}.mp4").read_bytes() == ours
        poster = Image.open(io.BytesIO(client.get("/api/results/poster", params={"name": item["name"]}).content))
        assert poster.format == "WEBP" and poster.size == (16, 16)


def test_progress_is_told_with_a_draft_and_a_job_is_cancelled_in_its_middle(client, studio):
    before = len(results(client))
    number = post(client, "jobs", prompt="slow", num_steps=2000)["id"]
    with client.websocket_connect("/api/events?topics=progress") as socket:
        while not ((seen := json.loads(socket.receive_text())["progress"]) and seen["version"] and seen["left"]):
            pass
    assert seen["id"] == number and 0 < seen["done"] < 1
    draft = Image.open(io.BytesIO(client.get(f"/api/jobs/draft?id={number}").content))
    assert draft.format == "JPEG" and draft.size == (16 * seen["frames"], 16)
    post(client, "jobs/cancel", id=number)
    until(lambda: studio.queue.jobs[number].state == "cancelled")
    assert len(results(client)) == before and client.get("/api/jobs/draft?id=1").status_code == 404
    post(client, "jobs/dismiss", id=number)
    assert client.post("/api/jobs/retry", json={"id": number}).status_code == 404
    assert not list(studio.queue.store.work.iterdir())


@pytest.mark.slow
def test_a_job_that_fails_or_crashes_takes_no_other_down(client, studio):
    before = len(results(client))
    bad = post(client, "jobs", prompt=" ".join(["word"] * 500), num_steps=1)["id"]
    slow = post(client, "jobs", prompt="slow", num_steps=5000)["id"]
    good = post(client, "jobs", prompt="after", num_steps=1)["id"]
    until(lambda: studio.queue.under and studio.queue.under.job == slow and studio.queue.under.began)
    assert studio.queue.jobs[bad].state == "failed" and "shorten" in studio.queue.jobs[bad].error
    os.kill(studio.queue._process.pid, signal.SIGKILL)
    until(lambda: good not in studio.queue.jobs)
    assert len(results(client)) == before + 1 and results(client)[0]["prompt"] == "after"
    assert studio.queue.jobs[slow].state == "failed" and "SIGKILL" in studio.queue.jobs[slow].error
    for number in (bad, slow):
        post(client, "jobs/dismiss", id=number)


def test_a_full_disk_is_told_and_the_video_is_not_made_again(client, studio, monkeypatch):
    def full(folder):
        raise DataError("out: cannot be written: no space left on the disk")

    with monkeypatch.context() as patch:
        patch.setattr(studio.gallery, "take", full)
        number = post(client, "jobs", prompt="full", num_steps=1)["id"]
        until(lambda: studio.queue.jobs[number].state == "failed")
    assert "no space left" in studio.queue.jobs[number].error
    monkeypatch.setattr("video_gen.web.studio.queue.order_of", lambda *args: 1 / 0)  # it would be made again
    post(client, "jobs/retry", id=number)
    assert number not in studio.queue.jobs and results(client)[0]["prompt"] == "full"


def test_what_a_page_may_not_say_is_refused(client, tmp_path):
    secret = tmp_path / "secret.png"
    Image.new("RGB", (16, 16)).save(secret)
    for body, code in (
        ({"image": str(secret)}, 400),
        ({"image": f"upload:{secret}"}, 404),
        ({"image": "upload:../secret.png"}, 404),
        ({"video": "result:../../x"}, 404),
        ({"source": 5}, 400),
        ({"model": str(tmp_path)}, 404),
        ({"model": "owner/name"}, 404),
        ({"model": 5}, 400),
        ({"output": str(tmp_path)}, 400),
        ({"loras": [str(secret)]}, 404),
        ({"loras": "owner/name"}, 404),
        ({"device": "cuda"}, 400),
        ({"num_steps": 10**9}, 400),
        ([1], 400),
    ):
        assert client.post("/api/jobs", json=body).status_code == code, body
    for path in ("jobs/cancel", "jobs/dismiss", "jobs/retry", "jobs/first"):
        assert client.post(f"/api/{path}", json={"id": 10**9}).status_code == 404
        assert client.post(f"/api/{path}", json={"id": "x"}).status_code == 400
    assert client.post("/api/jobs", content=b'{"prompt": "\\ud800"}').status_code == 400
    assert client.post("/api/jobs", content=b"[" * 100_000).status_code == 400


# -------------------- killed


def job_of(**changes):
    return Job(id=1, place=1, options={"prompt": "x"}, model="m", count=2, seed=0, created=0, **changes)


def finished(store, number):
    folder = store.work / "000001" / str(number)
    folder.mkdir(parents=True)
    for suffix in (".mp4", ".json", ".webp"):
        (folder / f"x_seed_{number}{suffix}").write_text(f"{number}{suffix}", encoding="utf-8")
    (folder / DONE).write_text("", encoding="utf-8")
    return folder


@pytest.mark.parametrize("moved", [0, 1, 2, 3])
def test_a_finished_video_is_kept_once_wherever_the_studio_was_killed(tmp_path, moved):
    """After so many of its files were moved; its job not written down yet."""
    gallery = Gallery(tmp_path / "results", tmp_path / "bin")
    store = Store(tmp_path, gallery)
    store.save(job_of(state="running"))
    folder = finished(store, 0)
    (tmp_path / "results").mkdir()
    if moved:
        (folder / PLACE).write_text("x_seed_0", encoding="utf-8")
        for suffix in (".webp", ".json", ".mp4")[:moved]:
            (folder / f"x_seed_0{suffix}").rename(tmp_path / "results" / f"x_seed_0{suffix}")
    for _ in range(2):  # and once more
        (job,) = store.load()
        assert job.made == ("x_seed_0",) and job.state in ("waiting", "running") and job.tries <= 1
        assert sorted(path.name for path in (tmp_path / "results").iterdir()) == [
            "x_seed_0.json",
            "x_seed_0.mp4",
            "x_seed_0.webp",
        ]
        assert not folder.exists()


def test_what_is_not_whole_is_made_anew_and_what_is_done_is_forgotten(tmp_path):
    store = Store(tmp_path, Gallery(tmp_path / "results", tmp_path / "bin"))
    store.save(job_of(state="running", made=("x_seed_0",)))
    folder = finished(store, 1)
    (folder / DONE).unlink()
    (job,) = store.load()
    assert len(job.made) == 1 and job.state == "waiting" and list(store.room(job).iterdir()) == []
    finished_again = store.work / "000001" / "1"
    finished_again.rmdir()
    finished(store, 1)
    assert list(store.load()) == [] and not list(store.queue.glob("*.json"))
    assert [entry.name for entry in store.gallery.entries()] == ["x_seed_1"]


def test_a_video_that_ends_the_studio_again_and_again_is_given_up(tmp_path):
    store = Store(tmp_path, Gallery(tmp_path / "results", tmp_path / "bin"))
    store.save(job_of(state="running", tries=TRIES - 1))
    (job,) = store.load()
    assert job.state == "failed" and "try again" in job.error
    for nonsense in ("", "{", "[]", '{"id": 1}', "[" * 10_000, job_of().replace(id=7).model_dump_json()):
        (store.queue / "000001.json").write_text(nonsense, encoding="utf-8")
        assert list(store.load()) == []


@pytest.mark.slow
def test_kill_nine_loses_no_finished_video_and_the_queue_comes_back(model, tmp_path):
    def begin():
        words = [sys.executable, "-m", "video_gen.cli", "studio", "--model", model, "--output", str(tmp_path / "out"),
                 "--no-browser", "--port", "0", "--runs", str(tmp_path / "r"), "--data", str(tmp_path / "d")]  # fmt: skip
        process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        return process, process.stdout.readline().split()[2]

    def asked(path, body=None):
        sent = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(urllib.request.Request(address + path, sent)) as answer:
            return json.load(answer)

    for kill in range(4):
        process, address = begin()
        if kill == 0:
            asked("api/jobs", {"prompt": "x", "count": 6, "num_steps": 20, "seed": 10})
        before = asked("api/results")["total"]
        try:
            wanted = 6 if kill == 3 else before + 1
            until(lambda wanted=wanted: asked("api/results")["total"] >= wanted)
        finally:
            process.kill()
            process.wait()
    found = [
        json.loads(path.read_text(encoding="utf-8"))["seed"] for path in (tmp_path / "out" / "results").glob("*.json")
    ]
    assert sorted(found) == [10, 11, 12, 13, 14, 15] and not list((tmp_path / "out" / "queue").iterdir())
