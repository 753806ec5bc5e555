"""Endless videos: what streams, clips, batches, stops and goes on must give the same frames, and no more memory."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from test_files import small_files  # noqa: F401

from video_gen.cli import main
from video_gen.data.video_file import all_frames, probe, read_metadata
from video_gen.errors import ConfigError, DataError, ShapeError
from video_gen.model.diffusion_config import DiffusionConfig
from video_gen.model.text import ByteTextEncoder
from video_gen.model.transformer import VideoTransformer
from video_gen.model.transformer_config import TextConfig, TransformerConfig
from video_gen.model.vae_config import VAEConfig
from video_gen.model.video_vae import VideoVAE
from video_gen.sampling.config import ClipSettings, SamplingConfig
from video_gen.sampling.pipeline import VideoPipeline
from video_gen.sampling.rollout import advance
from video_gen.sampling.stream import Stream
from video_gen.stream import open_stream, read_script, steer_on_cue

PROMPT = "a red circle, fast"


def pipeline(kind: type[VideoPipeline] = VideoPipeline, seed: int = 0, **transformer) -> VideoPipeline:
    """Small, random, and sensitive to prompt and history: 2 latent frames a block, 1 + 2 of history."""
    torch.manual_seed(seed)
    vae = VideoVAE(VAEConfig(spatial_stride=4, latent_channels=4, widths=(16,), stem=4)).eval()
    vae.fit_linear_path(torch.rand(4, 3, 9, 16, 16) * 2 - 1)
    text = ByteTextEncoder(TextConfig(width=16)).eval()
    sizes = dict(latent_channels=4, width=32, depth=2, head_dim=16, text_width=16, sink=1, window=2) | transformer
    model = VideoTransformer(TransformerConfig(**sizes)).eval()
    for parameter in (*model.parameters(), *vae.decoder.parameters()):
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    clip = ClipSettings(num_frames=17, fps=8, height=16, width=16)
    return kind(vae, model, text, DiffusionConfig(), clip, SamplingConfig(num_steps=2, solver="renoise"))


@pytest.fixture(scope="module")
def pipe() -> VideoPipeline:
    return pipeline()


def take(stream, blocks: int) -> np.ndarray:
    return np.concatenate([next(stream) for _ in range(blocks)])


def video(frames: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (frames, 16, 16, 3), dtype=np.uint8)


# -------------------- a stream is a long clip


@pytest.mark.parametrize("solver, history_noise", [("renoise", 0.0), ("two_step", 0.3)])
@pytest.mark.parametrize("block_frames", [1, 2, 3])
def test_blocks_of_a_stream_equal_a_clip(pipe, block_frames, solver, history_noise):
    settings = dict(seed=3, block_frames=block_frames, solver=solver, history_noise=history_noise)
    with pipe.stream(PROMPT, **settings) as stream:
        chunks = [next(stream) for _ in range(6)]
    assert [len(chunk) for chunk in chunks] == [1] + 5 * [4 * block_frames] and chunks[0].dtype == np.uint8
    whole = pipe(PROMPT, num_frames=1 + 20 * block_frames, **settings)
    assert np.array_equal(np.concatenate(chunks), whole)


def test_a_first_block_may_have_steps_of_its_own(pipe):
    settings = dict(seed=3, block_frames=2, num_frames=17)
    made = pipe(PROMPT, num_steps=2, first_steps=5, **settings)
    assert np.array_equal(made[0], pipe(PROMPT, num_steps=5, **settings)[0])
    assert not np.array_equal(made[1:], pipe(PROMPT, num_steps=5, **settings)[1:])
    assert not np.array_equal(made[0], pipe(PROMPT, num_steps=2, **settings)[0])
    with pipe.stream(PROMPT, seed=3, block_frames=2, num_steps=2, first_steps=5) as stream:
        assert np.array_equal(take(stream, 3), made)
    given = dict(image=video(1)[0], num_steps=2, **settings)
    assert np.array_equal(pipe(PROMPT, first_steps=5, **given), pipe(PROMPT, **given))


def test_a_model_has_a_block_size_of_its_own_for_what_is_longer_than_its_training_clips(pipe):
    settings = dict(seed=3, long_block_frames=3)
    with pipe.stream(PROMPT, **settings) as stream:
        chunks = [next(stream) for _ in range(3)]
    assert [len(chunk) for chunk in chunks] == [1, 12, 12]
    assert np.array_equal(np.concatenate(chunks), pipe(PROMPT, num_frames=25, **settings))
    assert np.array_equal(pipe(PROMPT, num_frames=25, seed=3, block_frames=3), pipe(PROMPT, num_frames=25, **settings))


@pytest.mark.parametrize("frames", [1, 13])
def test_a_stream_from_given_frames_equals_a_clip(pipe, frames):
    given = video(frames)
    with pipe.stream(PROMPT, video=given, seed=1) as stream:
        made = take(stream, 4)
        assert np.array_equal(stream.given, given) and len(made) == 32
    assert np.array_equal(made, pipe(PROMPT, video=given, seed=1, num_frames=frames + 32)[frames:])


def test_a_stream_decodes_like_the_whole(pipe):
    """Decoded block by block, next to all latents at once."""
    with pipe.stream(PROMPT, seed=3) as stream:
        latents, frames = [], []
        for _ in range(5):
            latents.append(stream.state().rollout.block)
            frames.append(next(stream))
    with pipe.inference():
        whole = pipe.vae.decode(torch.cat(latents, dim=2))[0]
    whole = ((whole.clamp(-1, 1) + 1) * 127.5).movedim(0, -1).numpy()
    assert abs(np.concatenate(frames) - whole).max() < 3  # bfloat16


class Float32(VideoPipeline):
    """Without autocast."""

    @contextmanager
    def inference(self):
        with torch.no_grad():
            yield


def test_streams_made_together_are_as_they_are_alone():
    pipe = pipeline(Float32)
    prompts, seeds = [PROMPT, "a blue square", "", PROMPT], [1, 2, 3, 4]
    with pipe.streams(prompts, seeds=seeds) as together:
        made = np.concatenate([next(together) for _ in range(6)], axis=1)
    for prompt, seed, found in zip(prompts, seeds, made):
        with pipe.stream(prompt, seed=seed) as alone:
            assert abs(found.astype(int) - take(alone, 6)).max() <= 1  # another order of sums
    assert abs(made[0].astype(int) - made[3]).max() > 20


# -------------------- order of work


class Watched(VideoPipeline):
    """Reports what its model does: begins to work on a later block when it appends the one before to history."""

    def block_model(self, *arguments):
        model = super().block_model(*arguments)
        append = model.append

        def watched(*arguments):
            self.begun.append(len(self.begun) + 2)
            assert self.go_on.wait(30)
            return append(*arguments)

        model.append = watched
        return model


def test_the_first_frames_come_before_the_second_block_and_one_block_is_made_ahead():
    pipe = pipeline(Watched)
    pipe.begun, pipe.go_on = [], threading.Event()
    with pipe.stream(PROMPT) as stream:
        assert next(stream).shape == (1, 16, 16, 3)  # while block 2 is held up
        assert pipe.begun in ([], [2])
        pipe.go_on.set()
        stream.state()
        time.sleep(0.2)
        assert pipe.begun == [2]  # block 2 is there, and nobody asked for more
        take(stream, 2)
        stream.state()
        assert pipe.begun == [2, 3, 4]
    with pytest.raises(StopIteration):
        next(stream)


# -------------------- memory


@pytest.mark.parametrize("window", [2, None])
def test_the_state_does_not_grow(window):
    pipe = pipeline(window=window)

    def size(state):
        history = [x for layer in state.rollout.history.layers for x in layer]
        tensors = [
            *history,
            state.rollout.block,
            *state.rollout.randomness,
            *(x for cache in state.decoder for x in cache),
        ]
        return sum(x.untyped_storage().nbytes() for x in tensors)

    with pipe.stream(PROMPT) as stream:
        take(stream, 4)
        before = size(stream.state())
        take(stream, 20)
        assert size(stream.state()) == before
        assert stream.state().rollout.history.frames == 3


def test_a_model_without_window_sees_in_a_clip_of_its_training_all_there_is():
    limited, unlimited = pipeline(window=9), pipeline(window=None)
    for block_frames in (1, 2):
        clips = [pipe(PROMPT, seed=1, num_frames=17, block_frames=block_frames) for pipe in (limited, unlimited)]
        assert np.array_equal(*clips)
    assert unlimited.window(2) == 2 and unlimited.window(1) == 3 and unlimited.window(4) == 1 and limited.window(4) == 9


# -------------------- steering


def test_steering_changes_the_block_after_the_one_under_way_and_leaves_history(pipe):
    with pipe.stream(PROMPT, seed=2) as steered, pipe.stream(PROMPT, seed=2) as plain:
        take(steered, 3)
        before = steered.state()
        steered.steer("a blue square, slow", guidance_scale=4.0)
        assert steered.state().rollout is before.rollout
        made, unsteered = take(steered, 4), take(plain, 7)[-32:]
    assert np.array_equal(made[:8], unsteered[:8]) and not np.array_equal(made[8:16], unsteered[8:16])
    state, decoder, want = before.rollout, before.decoder, []
    sampling = pipe.config.sampling.replace(guidance_scale=4.0)
    with pipe.inference():
        model = pipe.block_model(["a blue square, slow"], sampling, 2)
        for _ in range(4):
            frames, decoder = pipe.decode(state.block, decoder)
            want.append(frames[0])
            state = advance(model, state, (4, 2, 4, 4), pipe.diffusion, sampling)
    assert np.array_equal(made, np.concatenate(want))


def test_speed_is_of_playback(pipe):
    with pipe.stream(PROMPT, speed=0.5) as stream, pipe.stream(PROMPT) as plain:
        assert stream.fps == 4 and stream.begins_at == 0.25
        first = next(stream)
        stream.steer(speed=2.0)
        assert (stream.seconds, stream.begins_at) == (0.25, 2.25)
        rest = [next(stream) for _ in range(2)]
        assert stream.fps == 16 and stream.seconds == 0.25 + 2 + 0.5
        assert np.array_equal(np.concatenate([first, *rest]), take(plain, 3))


def test_mistakes_in_steering_leave_a_stream_as_it_was(pipe):
    with pipe.streams([PROMPT, ""], seeds=[1, 2]) as streams:
        before = streams.steering
        for change, error, message in (
            (dict(prompt=["a", "b", "c"]), ShapeError, "3 prompts for 2 streams"),
            (dict(guidance=2.0), ConfigError, "perhaps you meant 'guidance_scale'"),
            (dict(speed=0.0), ConfigError, "speed"),
            (dict(prompt="word " * 200), DataError, "max_tokens"),
        ):
            with pytest.raises(error, match=message):
                streams.steer(**change)
        assert streams.steering == before
        streams.steer("a dog")
        assert streams.steering.prompts == ("a dog", "a dog")
    with pytest.raises(ShapeError, match="one seed per prompt"):
        pipe.streams(["a"], seeds=[1, 2])
    with pytest.raises(ConfigError, match="speed"):
        pipe.stream("a", speed=-1.0)


# -------------------- scripts


def test_a_script_steers_at_its_times_also_after_a_stop(pipe, tmp_path):
    cues = [
        {"time": 0, "prompt": "a blue square"},
        {"time": 1.125, "guidance_scale": 4.0},  # the moment at which the third block begins
        {"time": 1.2, "prompt": "a green triangle"},  # while it goes on: the fourth
        {"time": 4, "speed": 2.0},
    ]
    (tmp_path / "script.jsonl").write_text("\n\n".join(map(json.dumps, cues)))
    cues = read_script(tmp_path / "script.jsonl")

    def follow(stream, blocks):
        followed, frames, seen = stream.seconds, [], []
        for _ in range(blocks):
            followed = steer_on_cue(stream, cues, followed)
            seen.append((stream.begins_at, stream.steering.prompts[0], stream.steering.sampling.guidance_scale))
            frames.append(next(stream))
        return np.concatenate(frames), seen

    with open_stream(pipe, "a red circle", cues=cues, seed=1) as stream:
        whole, seen = follow(stream, 8)
        assert seen[:3] == [
            (0.125, "a blue square", 2.0),
            (1.125, "a blue square", 4.0),
            (2.125, "a green triangle", 4.0),
        ]
        assert stream.seconds == 0.125 + 4 + 1.5  # the blocks that begin at 4.125 and later take half a second
    with open_stream(pipe, "a red circle", cues=cues, seed=1) as stream:
        parts = [follow(stream, 2)[0]]
        stream.save(tmp_path / "state")
    with open_stream(pipe, None, resume=tmp_path / "state", cues=cues) as stream:
        parts.append(follow(stream, 6)[0])
    assert np.array_equal(np.concatenate(parts), whole)
    for name in ("seed", "first_steps"):
        with pytest.raises(ConfigError, match=f"{name} is given with resume"):
            open_stream(pipe, None, resume=tmp_path / "state", **{name: 3})


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: not JSON"),
        ('{"time": 1, "prompt": "a", "prompt": "b"}', "line 2: .*'prompt' is given twice"),
        ("[1]", "line 2: expected a mapping"),
        ('{"time": -1, "prompt": "a"}', "line 2: 'time' is -1"),
        ('{"time": 1, "promt": "a"}', "line 2: unknown key 'promt'; perhaps you meant 'prompt'"),
        ('{"time": 1}', "line 2: .* would change nothing"),
        ('{"time": 0.5, "prompt": "b"}', "line 2: time 0.5 is before 1.0"),
    ],
)
def test_bad_lines_of_a_script_are_named(line, message, tmp_path):
    file = tmp_path / "script.jsonl"
    file.write_text(f'{{"time": 1, "prompt": "a"}}\n{line}\n')
    with pytest.raises((ConfigError, DataError), match=message):
        read_script(file)


def test_a_script_is_checked_before_the_first_frame(model, tmp_path, capsys):
    threads, script = torch.get_num_threads(), tmp_path / "s.jsonl"
    lines = [{"time": 1, "prompt": "a\u2028b\u0085c"}, {"time": 50, "prompt": "word " * 200}]
    script.write_text("\ufeff" + "\n".join(json.dumps(line, ensure_ascii=False) for line in lines), encoding="utf-8")
    assert read_script(script)[0].prompt == "a\u2028b\u0085c"
    words = ["--script", str(script), "--output", str(tmp_path / "x.mp4"), "--seconds", "1"]
    assert main(["stream", "x", "--model", model, *words]) == 2
    torch.set_num_threads(threads)
    error = capsys.readouterr().err
    assert "script, at 50 s: caption 'word " in error and error.count("\n") == 1
    assert not (tmp_path / "x.mp4").exists()


# -------------------- the command


@pytest.fixture(scope="module")
def model(pipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    pipe.save_pretrained(folder)
    return str(folder)


def command(model, *words):
    return [sys.executable, "-m", "video_gen.cli", "stream", PROMPT, "--model", model, "--seed", "3", *words]


def test_the_command_writes_a_file(pipe, model, tmp_path, capsys):
    out, state = tmp_path / "new" / "x.mp4", tmp_path / "state"
    threads = torch.get_num_threads()
    words = ["--seconds", "2.125", "--output", str(out), "--enlarge", "2", "--save", str(state)]
    assert main(["stream", PROMPT, "--model", model, "--seed", "3", *words]) == 0
    torch.set_num_threads(threads)
    info = probe(out)
    assert (info.num_frames, info.width, info.fps) == (17, 32, pytest.approx(8, abs=0.01))
    assert json.loads(read_metadata(out)["prompt"]) == PROMPT
    error = capsys.readouterr().err
    assert "17 frames, 2.1 s of video" in error and "x real time" in error and "first frame after" in error
    with Stream.load(state, pipe) as stream:
        assert stream.seconds == 2.125
    before = out.read_bytes()
    assert main(["stream", PROMPT, "--model", model, "--seconds", "0.1", "--output", str(out)]) == 0
    torch.set_num_threads(threads)
    assert f"goes to {out.with_name('x_2.mp4')}" in capsys.readouterr().err
    assert out.read_bytes() == before and probe(out.with_name("x_2.mp4")).num_frames == 1
    (tmp_path / "file").write_text("", encoding="utf-8")
    wrong = (
        ([], "x.gif", "written as .mp4"),
        (["--format", "raw"], "x.mp4", "use --output -"),
        (["--resume", "nowhere"], "x.mp4", "no such file"),
        (["--script", "nowhere"], "x.mp4", "cannot be read"),
    )
    for words, name, message in wrong:
        assert main(["stream", "--model", model, "--output", str(tmp_path / name), *words]) == 2
        assert message in capsys.readouterr().err
    for words in (["--output", str(tmp_path / "file" / "x.mp4")], ["--save", str(tmp_path / "file" / "s")]):
        assert main(["stream", "--model", "nowhere", "--output", str(tmp_path / "y.mp4"), *words]) == 2
        error = capsys.readouterr().err
        assert "is a file" in error and error.count("\n") == 1  # before the model is looked for


def test_a_full_disk_ends_a_stream_with_one_line_and_a_file_that_plays(model, tmp_path, capsys, small_files):  # noqa: F811
    threads, out = torch.get_num_threads(), tmp_path / "x.mp4"
    words = ["--seconds", "40", "--output", str(out), "--enlarge", "4", "--num-steps", "1"]
    assert main(["stream", PROMPT, "--model", model, *words]) == 2
    torch.set_num_threads(threads)
    error = capsys.readouterr().err.splitlines()
    assert "x.mp4: cannot be written: " in error[-1] and "ulimit -f" in error[-1]
    assert 0 < probe(out).num_frames == len(list(all_frames(out)))


@pytest.mark.slow
def test_the_command_streams_to_standard_output_until_the_reader_has_enough(pipe, model, tmp_path):
    given = tmp_path / "x.png"
    from PIL import Image

    Image.fromarray(video(1)[0]).save(given)
    words = ["--format", "raw", "--output", "-", "--image", str(given), "--num-steps", "1"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    streaming = subprocess.Popen(
        command(model, *words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    )
    frame = 16 * 16 * 3
    got = np.frombuffer(streaming.stdout.read(17 * frame), np.uint8).reshape(17, 16, 16, 3)
    streaming.stdout.close()
    error = streaming.stderr.read().decode()
    assert streaming.wait() == 0
    assert "ffplay -f rawvideo" in error and "the reader has gone" in error and "Traceback" not in error
    assert np.array_equal(got[0], video(1)[0])
    want = pipe(PROMPT, image=video(1)[0], seed=3, num_frames=17, block_frames=2, num_steps=1)
    assert abs(got.astype(int) - want).max() <= 2  # another number of threads


@pytest.mark.slow
def test_ctrl_c_closes_the_file(model, tmp_path):
    out = tmp_path / "x.mp4"
    streaming = subprocess.Popen(command(model, "--output", str(out)), stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 300
    while (not out.exists() or out.stat().st_size < 10_000) and time.monotonic() < deadline:
        time.sleep(0.02)
    streaming.send_signal(signal.SIGINT)
    error = streaming.stderr.read()
    assert streaming.wait() == 0 and "real time" in error
    made = int(error.split(" frames,")[0].split()[-1])
    assert probe(out).num_frames == made == len(list(all_frames(out))) > 8
