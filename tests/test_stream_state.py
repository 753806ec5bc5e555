"""A stream's state: a value, and a file, from which another process goes on as if nothing had happened."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from test_stream import PROMPT, pipeline, take, video

from video_gen.cli import main
from video_gen.errors import DataError
from video_gen.sampling.pipeline import VideoPipeline
from video_gen.sampling.stream import Stream


@pytest.fixture(scope="module")
def pipe() -> VideoPipeline:
    return pipeline()


def test_a_state_goes_on_from_wherever_it_was_taken(pipe, tmp_path):
    with pipe.stream(PROMPT, seed=5, video=video(5), history_noise=0.2) as stream:
        states = []
        for number in range(4):
            states.append(stream.state())
            stream.save(tmp_path / f"{number}.safetensors")
            next(stream)
        later = [take(stream, 2)]
    with Stream(pipe, states[0]) as again:
        whole = take(again, 6)
    assert np.array_equal(later[0], whole[-16:])
    for number, state in enumerate(states):
        with Stream(pipe, state) as a, Stream.load(tmp_path / f"{number}.safetensors", pipe) as b:
            assert a.seconds == b.seconds == number
            assert np.array_equal(take(a, 3), whole[8 * number : 8 * number + 24])
            assert np.array_equal(take(b, 3), whole[8 * number : 8 * number + 24])


CONTINUE = """
import sys, numpy, torch
from video_gen import VideoPipeline
from video_gen.sampling.stream import Stream
torch.set_num_threads(int(sys.argv[4]))
with Stream.load(sys.argv[2], VideoPipeline.from_pretrained(sys.argv[1])) as stream:
    numpy.save(sys.argv[3], numpy.concatenate([next(stream) for _ in range(3)]))
    assert stream.fps == 24
"""


@pytest.mark.slow
def test_a_stream_goes_on_in_another_process(pipe, tmp_path):
    pipe.save_pretrained(tmp_path / "model")
    file = tmp_path / "state.safetensors"
    with pipe.stream(PROMPT, seed=5) as stream:
        take(stream, 5)
        stream.steer("a blue square", guidance_scale=3.0, speed=3.0)  # for the block after the one under way
        stream.save(file)
        want = take(stream, 3)
    arguments = [tmp_path / "model", file, tmp_path / "made.npy", torch.get_num_threads()]
    subprocess.run([sys.executable, "-c", CONTINUE, *map(str, arguments)], check=True)
    assert np.array_equal(np.load(tmp_path / "made.npy"), want)
    for damage in (b"", file.read_bytes()[:-100], b"\x80\x04" + bytes(200)):
        file.write_bytes(damage)
        with pytest.raises(DataError, match="damaged"):
            Stream.load(file, pipe)
    with pytest.raises(DataError, match="holds no stream"):
        Stream.load(tmp_path / "model" / "vae" / "model.safetensors", pipe)
    with pytest.raises(DataError, match="no such file"):
        Stream.load(tmp_path / "none", pipe)


def test_another_models_state_is_refused(pipe, tmp_path):
    with pipe.stream() as stream:
        stream.save(tmp_path / "state")
    with pytest.raises(DataError, match="another model"):
        Stream.load(tmp_path / "state", pipeline(seed=1))


def test_a_model_that_was_changed_since_is_refused_with_what_differs(tmp_path, monkeypatch):
    pipeline().save_pretrained(tmp_path / "model")
    with VideoPipeline.from_pretrained(tmp_path / "model").stream() as stream:
        stream.save(tmp_path / "state")
    for file, keys, value, message in (
        ("model.json", ("clip", "fps"), 9.0, r"model\.json: clip\.fps was 8\.0, and is 9\.0"),
        ("model.json", ("diffusion", "path"), "cosine", r"model\.json: diffusion\.path was straight, and is cosine"),
        ("transformer/config.json", ("rope_theta",), 500.0, r"transformer/config\.json: rope_theta was 1000\.0"),
    ):
        path = tmp_path / "model" / file
        before = path.read_text(encoding="utf-8")
        values = json.loads(before)
        at = values
        for key in keys[:-1]:
            at = at[key]
        at[keys[-1]] = value
        path.write_text(json.dumps(values), encoding="utf-8")
        with pytest.raises(DataError, match=message):
            Stream.load(tmp_path / "state", VideoPipeline.from_pretrained(tmp_path / "model"))
        path.write_text(before, encoding="utf-8")
    other = VideoPipeline.from_pretrained(tmp_path / "model")
    list(other.transformer.parameters())[-1].data.view(-1)[-1] += 1e-3  # one value of all
    with pytest.raises(DataError, match="the weights of transformer/ are others"):
        Stream.load(tmp_path / "state", other)


def test_a_state_of_an_older_version_has_later_settings_as_they_are_by_default(pipe, tmp_path):
    file, other = tmp_path / "new.safetensors", tmp_path / "old.safetensors"
    with pipe.stream(PROMPT, seed=5) as stream:
        take(stream, 2)
        stream.save(file)
        want = take(stream, 2)
    tensors, header = load_file(file), json.loads(safe_open(file, "pt").metadata()["stream"])
    for setting in ("spacing", "first_block_frames", "negative_prompt"):
        del header["settings"]["model.json"]["sampling"][setting]
    save_file(tensors, other, {"stream": json.dumps(header)})
    with Stream.load(other, pipe) as again:
        assert np.array_equal(take(again, 2), want)
    header["settings"]["model.json"]["sampling"]["num_steps"] = 99
    save_file(tensors, other, {"stream": json.dumps(header)})
    with pytest.raises(DataError, match=r"sampling\.num_steps was 99"):
        Stream.load(other, pipe)


def test_a_state_names_its_model(tmp_path, monkeypatch, capsys):
    threads = torch.get_num_threads()
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    monkeypatch.chdir(tmp_path / "a")
    pipeline().save_pretrained("model")
    short = ["--seconds", "0.1", "--num-steps", "1"]
    assert main(["stream", "x", "--model", "model", *short, "--output", "x.mp4", "--save", "state"]) == 0
    monkeypatch.chdir(tmp_path / "b")
    assert main(["stream", "--resume", "../a/state", *short, "--output", "x.mp4"]) == 0
    (tmp_path / "a" / "model").rename(tmp_path / "b" / "moved")
    capsys.readouterr()
    assert main(["stream", "--resume", "../a/state", *short, "--output", "y.mp4"]) == 2
    error = capsys.readouterr().err
    assert "a/model is not there any more" in error and "--model" in error and error.count("\n") == 1
    assert main(["stream", "--resume", "../a/state", "--model", "moved", *short, "--output", "y.mp4"]) == 0
    with pipeline().stream() as stream:
        stream.save("of-python")
    capsys.readouterr()
    assert main(["stream", "--resume", "of-python", "--output", "z.mp4"]) == 2
    assert "names no model" in capsys.readouterr().err
    torch.set_num_threads(threads)


def test_a_state_is_a_value(pipe):
    """Going on twice from one state, with other settings the second time, changes neither the state nor the first."""
    with pipe.stream(PROMPT, seed=9) as stream:
        take(stream, 2)
        state = stream.state()
    with Stream(pipe, state) as first:
        before = take(first, 3)
    other = replace(state, steering=state.steering.replace(prompts=("a dog",)))
    with Stream(pipe, other) as second:
        changed = take(second, 3)
    with Stream(pipe, state) as third:
        assert np.array_equal(take(third, 3), before)
    assert np.array_equal(changed[:8], before[:8]) and not np.array_equal(changed, before)
