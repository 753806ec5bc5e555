"""From a folder of clips to a sampled file, small: every stage, its reuse, its errors, and the README's promises."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from video_gen.cli import COMMANDS, main
from video_gen.config import load_yaml
from video_gen.data.video_file import probe, read_metadata
from video_gen.errors import ConfigError, DataError, ShapeError
from video_gen.model.diffusion_config import DiffusionConfig
from video_gen.model.text import ByteTextEncoder, build_text_encoder, load_text_encoder
from video_gen.model.transformer import VideoTransformer
from video_gen.model.transformer_config import TextConfig, TransformerConfig
from video_gen.model.vae_config import VAEConfig
from video_gen.model.video_vae import VideoVAE
from video_gen.sampling.config import ClipSettings, SamplingConfig
from video_gen.sampling.model import plan_blocks
from video_gen.sampling.pipeline import VideoPipeline
from video_gen.shipped import CONFIGS
from video_gen.training.latent_task import block_sizes
from video_gen.training.recipes import DiffusionRun, DistillRun, VAERun
from video_gen.training.warp_fit import warp_sizes

SIZE = ["--data.num-frames", "9", "--data.height", "16", "--data.width", "16", "--data.validation-fraction", "0.3"]
LOOP = [
    "--loop.train-steps",
    "4",
    "--loop.batch-size",
    "2",
    "--loop.checkpoint-every",
    "2",
    "--loop.log-every",
    "1",
    "--loop.no-tensorboard",
]
VAE = ["--vae.spatial-stride", "4", "--vae.latent-channels", "4", "--vae.widths", "16", "--vae.stem", "4"]
DIT = [
    "--transformer.width",
    "32",
    "--transformer.depth",
    "2",
    "--transformer.head-dim",
    "16",
    "--text.width",
    "16",
    "--num-samples",
    "1",
]


def tiny_pipeline(frames=9) -> VideoPipeline:
    torch.manual_seed(0)
    vae = VideoVAE(VAEConfig(spatial_stride=4, latent_channels=4, widths=(16,), stem=4)).eval()
    vae.fit_linear_path(torch.rand(4, 3, 9, 16, 16) * 2 - 1)
    text = ByteTextEncoder(TextConfig(width=16)).eval()
    settings = dict(latent_channels=4, width=32, depth=2, head_dim=16, text_width=16, sink=1, window=2)
    transformer = VideoTransformer(TransformerConfig(**settings)).eval()
    for parameter in transformer.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    clip = ClipSettings(num_frames=frames, fps=8, height=16, width=16)
    return VideoPipeline(vae, transformer, text, DiffusionConfig(), clip, SamplingConfig(num_steps=3))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A data set, a VAE and a transformer, made with the commands of the README."""
    folder = tmp_path_factory.mktemp("trained")
    world = [
        "--num-clips",
        "6",
        "--num-frames",
        "9",
        "--height",
        "16",
        "--width",
        "16",
        "--output",
        str(folder / "data"),
    ]
    assert main(["worlds", *world]) == 0
    data = ["--data.folder", str(folder / "data"), *SIZE]
    assert main(["train", "vae", "--run", str(folder / "vae"), *data, *VAE, *LOOP]) == 0
    vae = ["--vae", str(folder / "vae/model/vae"), "--latents", str(folder / "latents")]
    assert main(["data", "encode", *vae, *data]) == 0
    assert main(["train", "diffusion", "--run", str(folder / "diffusion"), *vae, *data, *DIT, *LOOP]) == 0
    return folder


# -------------------- commands


def test_training_leaves_a_model_that_samples(trained, tmp_path, capsys):
    model = trained / "diffusion" / "model"
    assert {p.name for p in model.iterdir()} == {"vae", "transformer", "text", "model.json"}
    assert VideoVAE.from_pretrained(model / "vae").config.latent_std is not None
    prompt = "a red circle, fast"
    assert (
        main(["sample", prompt, "--model", str(model), "-n", "2", "--seed", "3", "--output", str(tmp_path / "out")])
        == 0
    )
    made = {p.name for p in (tmp_path / "out").iterdir()}
    assert made == {
        *(f"a-red-circle-fast_seed_{n}.{s}" for n in (3, 4) for s in ("mp4", "json")),
        "a-red-circle-fast_sheet.png",
    }
    info = probe(tmp_path / "out" / "a-red-circle-fast_seed_3.mp4")
    assert (info.num_frames, info.width, info.height, info.codec) == (9, 16, 16, "h264")
    assert json.loads(read_metadata(tmp_path / "out" / "a-red-circle-fast_seed_3.mp4")["prompt"]) == prompt
    assert json.loads((tmp_path / "out" / "a-red-circle-fast_seed_4.json").read_text())["seed"] == 4
    Image.fromarray(np.full((40, 60, 3), 200, np.uint8)).save(tmp_path / "x.png")
    again = [
        "sample",
        "--model",
        str(model),
        "--image",
        str(tmp_path / "x.png"),
        "--num-frames",
        "17",
        "--format",
        "gif",
    ]
    assert main([*again, "--output", str(tmp_path / "g"), "--enlarge", "2"]) == 0
    assert probe(tmp_path / "g" / "seed_0.gif").num_frames == 17 and probe(tmp_path / "g" / "seed_0.gif").width == 32
    video = str(trained / "data" / "clip_000000.mp4")
    assert (
        main(["sample", "--model", str(model), "--video", video, "--num-frames", "13", "--output", str(tmp_path / "v")])
        == 0
    )


def test_evaluating(trained, tmp_path):
    data = [x.replace("--data.", "--") for x in ["--data.folder", str(trained / "data"), *SIZE]]
    out = tmp_path / "f.json"
    assert main(["evaluate", "vae", "--vae", str(trained / "vae/model/vae"), *data, "--output", str(out)]) == 0
    found = json.loads(out.read_text())
    assert 5 < found["psnr"] < 60 and found["psnr_linear"] > 5 and len(found["psnr_per_frame"]) == 9
    assert json.loads((trained / "diffusion/model/model.json").read_text(encoding="utf-8"))["world"] == "bounce"
    motion = ["--model", str(trained / "diffusion/model"), "--num-videos", "2", "--output", str(out)]
    assert main(["evaluate", "motion", *motion]) == 0
    assert json.loads(out.read_text())["figures"]["videos"] == 2


def test_a_finished_run_is_not_repeated_and_another_config_is_refused(trained, capsys):
    data = ["--data.folder", str(trained / "data"), *SIZE]
    command = ["train", "vae", "--run", str(trained / "vae"), *data, *VAE, *LOOP]
    assert main(command) == 0
    assert "finished already" in capsys.readouterr().out
    assert main([*command, "--loss.mse", "0.5"]) == 2
    assert "loss.mse was 0.0 and is now 0.5" in capsys.readouterr().err


@pytest.mark.slow
def test_resume_is_bit_for_bit_after_a_kill(trained, tmp_path):
    """A run that is killed at a moment of its own choosing, and resumed, ends in the same weights as one that is not."""
    vae = ["--vae", str(trained / "vae/model/vae"), "--latents", str(trained / "latents")]
    data = ["--data.folder", str(trained / "data"), *SIZE]
    steps = ["--loop.train-steps", "40"]
    command = [sys.executable, "-m", "video_gen.cli", "train", "diffusion", *vae, *data, *DIT, *LOOP, *steps]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    one, two = tmp_path / "one", tmp_path / "two"
    subprocess.run([*command, "--run", str(one)], check=True, env=environment, capture_output=True)
    killed = subprocess.Popen([*command, "--run", str(two)], env=environment, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list((two / "checkpoints").glob("step_*4")) and killed.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    resumed = subprocess.run([*command, "--run", str(two)], check=True, env=environment, capture_output=True, text=True)
    for part in ("transformer", "text"):
        a, b = (load_file(run / "model" / part / "model.safetensors") for run in (one, two))
        assert all(torch.equal(a[name], b[name]) for name in a)
    assert "goes on from" in resumed.stdout or killed.returncode == 0
    losses = [
        [json.loads(line).get("loss") for line in (run / "log.jsonl").read_text().splitlines()] for run in (one, two)
    ]
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["no", "such"], "there are demo, sample"),
        (["train", "vae", "nowhere.yaml"], "no such configuration file"),
        (["data", "check", "nowhere"], "no such folder"),
        (["sample", "x", "--model", "nowhere"], "no such folder"),
        (["evaluate", "vae", "--vae", "nowhere"], "no such folder"),
        (["train", "diffusion", "--vae", "nowhere"], "is no folder"),
        (["worlds", "--num-clips", "-1"], "--num-clips' is '-1'"),
        (["train", "vae", "--data.num-frames", "10"], "nearest are 9 and 13"),
        (["train", "vae", "--crop", "20"], "crop 20 must be a multiple of the VAE's spatial stride 8, and at most 64"),
    ],
)
def test_bad_input_gives_one_line_and_code_2(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_unknown_options_are_errors(capsys):
    assert main(["train", "vae", "--loop.train-step", "3"]) == 2
    assert main(["train", "vae", "--loop.train-steps", "many"]) == 2


@pytest.mark.parametrize("names", COMMANDS)
def test_help(names, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([*names, "--help"])
    assert stopped.value.code == 0 and "usage" in capsys.readouterr().out


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda p: p.name)
def test_every_config_loads_and_names_its_command(path):
    command = path.read_text().splitlines()[0].removeprefix("# video-gen ").split()[:2]
    kind = {"vae": VAERun, "diffusion": DiffusionRun, "distill": DistillRun}[command[1]]
    run = load_yaml(kind, path)
    assert command[0] == "train"
    with torch.device("meta"):
        if isinstance(run, VAERun):
            VideoVAE(run.vae)
        elif isinstance(run, DiffusionRun):
            VideoTransformer(run.transformer.replace(**warp_sizes(run, VAEConfig())))


def test_configs_name_unknown_and_mistyped_keys(tmp_path):
    file = tmp_path / "c.yaml"
    for text, message in (
        ("loop: {train_step: 3}", "unknown key 'loop.train_step'; perhaps you meant 'train_steps'"),
        ("loop: {train_steps: many}", "'loop.train_steps' is 'many'"),
        ("vae: {preset: huge}", "vae.preset is 'huge'"),
        ("vae: {preset: tiny, latent_channels: 0}", "latent_channels"),
        ("- 1", "expected a mapping"),
        ("a: [", "not valid YAML"),
    ):
        file.write_text(text)
        with pytest.raises(ConfigError, match=message.replace(".", r"\.").replace("[", r"\[")):
            load_yaml(VAERun, file)
    file.write_text("transformer: {preset: small, depth: 2}")
    assert (load_yaml(DiffusionRun, file).transformer.width, load_yaml(DiffusionRun, file).transformer.depth) == (
        512,
        2,
    )


# -------------------- the pipeline


def test_a_seed_gives_its_video_whatever_the_batch():
    pipe = tiny_pipeline()
    alone = pipe("a red circle, fast", seed=5)
    among = pipe.generate(["a blue square, slow", "a red circle, fast"], seeds=[1, 5])
    assert alone.shape == (9, 16, 16, 3) and alone.dtype == np.uint8
    assert abs(alone.astype(int) - among[1]).max() <= 2  # padding of the text changes the order of sums
    assert np.array_equal(alone, pipe("a red circle, fast", seed=5))
    assert abs(alone.astype(int) - pipe("a red circle, fast", seed=6)).max() > 20
    assert abs(alone.astype(int) - pipe("a white square, slow", seed=5)).max() > 2


def test_given_frames_are_kept():
    pipe = tiny_pipeline()
    video = np.random.default_rng(0).integers(0, 255, (7, 16, 16, 3), dtype=np.uint8)
    assert np.array_equal(pipe(image=video[0])[0], video[0])
    made = pipe(video=video, num_frames=17)
    assert made.shape[0] == 17 and np.array_equal(made[:5], video[2:])  # the last 1 + 4 k frames
    assert np.array_equal(pipe(video=video[:5], num_frames=17, seed=1)[:5], video[:5])


def test_blocks():
    assert plan_blocks(0, 5, None) == [5] and plan_blocks(1, 5, None) == [4]
    assert plan_blocks(0, 6, 2) == [1, 2, 2, 1] and plan_blocks(3, 6, 2) == [2, 1]
    assert block_sizes(5, 4) == (1, 4) and block_sizes(5, 3) == (1, 3, 1) and block_sizes(1, 4) == (1,)


def test_a_stream_equals_a_long_rollout():
    pipe = tiny_pipeline()
    stream = pipe.stream("a red circle, fast", seed=3, block_frames=1)
    chunks = [next(stream) for _ in range(7)]
    assert [len(c) for c in chunks] == [1, 4, 4, 4, 4, 4, 4]
    whole = pipe("a red circle, fast", seed=3, num_frames=25, block_frames=1)
    assert abs(np.concatenate(chunks).astype(int) - whole).max() <= 2


def test_saved_equals_loaded(tmp_path):
    pipe = tiny_pipeline()
    pipe.save_pretrained(tmp_path)
    loaded = VideoPipeline.from_pretrained(tmp_path)
    assert np.array_equal(pipe("a dog", seed=1), loaded("a dog", seed=1))
    with pytest.raises(DataError, match=r"model\.json"):
        VideoPipeline.from_pretrained(tmp_path / "vae")


def test_pipeline_mistakes():
    pipe, picture = tiny_pipeline(), np.zeros((16, 16, 3), np.uint8)
    for arguments, message in (
        (dict(num_frames=10), "nearest are 9 and 13"),
        (dict(image=picture, video=picture[None]), "one of them"),
        (dict(image=picture, num_frames=1), "given already"),
        (dict(image=picture.astype(float)), "uint8"),
    ):
        with pytest.raises(ShapeError, match=message):
            pipe("x", **arguments)
    with pytest.raises(ConfigError, match="perhaps you meant 'num_steps'"):
        pipe("x", num_step=3)
    with pytest.raises(DataError, match="max_tokens"):
        pipe("word " * 200)


# -------------------- text, the discriminator


def test_byte_text_encoder():
    encoder = build_text_encoder(TextConfig(width=16))
    entries = encoder.tokenise(["a red circle, fast", "", "rot"])
    tokens, visible = encoder(entries)
    assert tokens.shape == (3, 5, 16) and visible.sum(1).tolist() == [5, 1, 2]
    alone, _ = encoder(encoder.tokenise(["rot"]))
    torch.testing.assert_close(alone[0], tokens[2, :2])
    assert not torch.allclose(encoder(encoder.tokenise(["a b"]))[0], encoder(encoder.tokenise(["b a"]))[0])
    assert encoder.tokenise(["x" * 30]).shape[1] == 3


def test_a_transformers_encoder_from_a_folder(tmp_path, trained):
    transformers = pytest.importorskip("transformers")
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "red", "circle"]))
    transformers.BertTokenizer(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    sizes = dict(vocab_size=7, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    transformers.BertModel(transformers.BertConfig(**sizes)).save_pretrained(tmp_path)
    encoder = build_text_encoder(TextConfig(kind="transformers", name=str(tmp_path)))
    tokens, visible = encoder(encoder.tokenise(["a red circle", "a"]))
    assert tokens.shape == (2, 5, 16) and visible.sum(1).tolist() == [5, 3] and not tokens.requires_grad
    encoder.save_pretrained(tmp_path / "text")
    vae = ["--vae", str(trained / "vae/model/vae"), "--latents", str(trained / "latents")]
    data = ["--data.folder", str(trained / "data"), *SIZE]
    frozen = ["--text.kind", "transformers", "--text.name", str(tmp_path), "--run", str(tmp_path / "run")]
    assert main(["train", "diffusion", *vae, *data, *DIT, *LOOP, *frozen]) == 0
    assert VideoPipeline.from_pretrained(tmp_path / "run" / "model")("a circle").shape == (9, 16, 16, 3)
    torch.testing.assert_close(
        load_text_encoder(tmp_path / "text")(encoder.tokenise(["a"]))[0], encoder(encoder.tokenise(["a"]))[0]
    )


def test_text_settings():
    with pytest.raises(ConfigError, match="needs a name"):
        TextConfig().replace(kind="transformers")
    try:
        import transformers  # noqa: F401
    except ImportError:
        with pytest.raises(ConfigError, match=r"video-gen\[hf\]"):
            build_text_encoder(TextConfig(kind="transformers", name="t5"))
