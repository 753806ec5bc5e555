"""Stages, fine-tuning, and training on caches alone, by the commands that a user types."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from video_gen.cli import main
from video_gen.config import load_yaml
from video_gen.errors import ConfigError
from video_gen.model.diffusion import Diffusion, shift_time
from video_gen.model.diffusion_config import DiffusionConfig
from video_gen.model.vae_config import VAEConfig
from video_gen.model.video_vae import VideoVAE
from video_gen.training import loop as loop_module
from video_gen.training.caches import same_weights
from video_gen.training.loop import TrainingInterrupted
from video_gen.training.recipes import DiffusionRun

RECIPE = """
data: {{folder: {0}/data, num_frames: 9, fps: 16, height: 16, width: 16, validation_fraction: 0.3}}
vae: {0}/vae
latents: {0}/latents
transformer: {{width: 32, depth: 2, head_dim: 16, patch_size: 2}}
text: {{width: 16}}
num_samples: 1
sampling: {{num_steps: 2}}
loop: {{train_steps: 4, batch_size: 2, checkpoint_every: 2, validate_every: 4, log_every: 1, tensorboard: false}}
"""
STAGES = """
diffusion: {shift: auto, shift_tokens: 12}
stages:
  - data: {num_frames: 1, stride: 8}
    loop: {batch_size: 4}
  - data: {num_frames: 9, buckets: [[9, 16, 16], [5, 16, 16]]}
  - data: {height: 24, width: 24}
    loop: {train_steps: 3}
    optim: {learning_rate: 1.0e-4}
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A world of a few clips, and a VAE."""
    folder = tmp_path_factory.mktemp("curriculum")
    size = ["--num-clips", "8", "--num-frames", "9", "--height", "16", "--width", "16"]
    assert main(["worlds", *size, "--output", str(folder / "data")]) == 0
    torch.manual_seed(0)
    vae = VideoVAE(VAEConfig(spatial_stride=4, latent_channels=4, widths=(16,), stem=4))
    vae.fit_linear_path(torch.rand(4, 3, 9, 16, 16) * 2 - 1)
    vae.save_pretrained(folder / "vae")
    return folder


def recipe(folder: Path, made: Path, more: str = "") -> str:
    file = folder / "recipe.yaml"
    file.write_text(RECIPE.format(made) + more)
    return str(file)


def train(config: str, run: Path, *words: str) -> int:
    return main(["train", "diffusion", config, "--run", str(run), *words])


def weights(folder: Path) -> dict[str, torch.Tensor]:
    parts = (folder / part / "model.safetensors" for part in ("transformer", "text"))
    return {f"{file.parent.name}.{name}": x for file in parts for name, x in load_file(file).items()}


def assert_equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys() and a and all(torch.equal(a[name], b[name]) for name in a)


def losses(run: Path) -> list[float]:
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if row["kind"] == "train"]


# -------------------- stages


@pytest.mark.slow
@pytest.mark.parametrize("stop", [2, 6, pytest.param(9, marks=pytest.mark.slow)])
def test_one_command_runs_all_stages_and_goes_on_in_any_of_them(made, tmp_path, monkeypatch, stop):
    config = recipe(tmp_path, made, STAGES)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert train(config, whole) == 0
    with monkeypatch.context() as patch:
        original, done = loop_module.Session.run_step, []

        def run_step(self, batch):
            done.append(1)
            if len(done) > stop:  # killed: nothing is saved but what was
                raise TrainingInterrupted("killed")
            original(self, batch)

        patch.setattr(loop_module.Session, "run_step", run_step)
        assert train(config, cut) == 2
    assert not (cut / "model").exists()
    assert train(config, cut) == 0
    for folder in ("model", "stage-1/model", "stage-2/model", "stage-3/model"):
        assert_equal(weights(whole / folder), weights(cut / folder))
    assert [len(losses(cut / f"stage-{i}")) for i in (1, 2, 3)] == [4, 4, 3]
    assert_equal(weights(cut / "model"), weights(cut / "stage-3" / "model"))
    assert json.loads((cut / "model" / "model.json").read_text())["clip"]["height"] == 24


@pytest.mark.slow
def test_a_last_stage_that_is_prolonged_renews_the_model(made, tmp_path):
    config, run = recipe(tmp_path, made, STAGES), tmp_path / "run"
    assert train(config, run) == 0
    before = weights(run / "model")
    longer = recipe(tmp_path, made, STAGES.replace("train_steps: 3", "train_steps: 5, keep: last"))
    assert train(longer, run) == 0
    after = weights(run / "model")
    assert_equal(after, weights(run / "stage-3" / "model"))
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_a_stage_starts_from_the_weights_of_the_one_before(made, tmp_path, monkeypatch, capsys):
    seen = []
    original = loop_module._start

    def start(task, *args):
        state = original(task, *args)
        named = {**task.transformer.state_dict(prefix="transformer."), **task.text.state_dict(prefix="text.")}
        averages = {name: x.clone() for name, x in state.ema.items()}
        seen.append(({name: x.clone() for name, x in named.items()}, averages))
        return state

    monkeypatch.setattr(loop_module, "_start", start)
    config = recipe(tmp_path, made, STAGES)
    assert train(config, tmp_path / "run") == 0
    for number, (initial, averages) in enumerate(seen[1:], 1):
        assert_equal(weights(tmp_path / "run" / f"stage-{number}" / "model"), initial)
        assert all(torch.equal(x, initial[name]) for name, x in averages.items())
    output = capsys.readouterr().out
    assert "stage 2 of 3" in output and "5x16x16" not in output  # no clip is as short as that
    assert "1x16x16" in output and "9x24x24" in output and "4 a step, 100% of the work" in output
    assert train(config, tmp_path / "run") == 0
    assert capsys.readouterr().out.count("finished already") == 3


def test_stages_are_checked_before_anything_runs(made, tmp_path, capsys):
    for text, message in (
        ("stages: [{loop: {train_step: 3}}]", "stages, number 1, loop: unknown key 'train_step'; perhaps you meant"),
        ("stages: [{}, {data: {height: 4}}]", "stages, number 2, data: 'height' is 4"),
        ("stages: [{trainer: {}}]", "unknown key 'stages.0.trainer'"),
        ("diffusion: {shift: automatic}", "shift"),
    ):
        assert train(recipe(tmp_path, made, text), tmp_path / "run") == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_shipped_curriculum_grows():
    run = load_yaml(DiffusionRun, "curriculum")
    volumes = [max(np.prod(size) for size in stage.data.sizes) for stage in run.stage_runs()]
    assert volumes == sorted(volumes) and len(set(volumes)) == 4
    assert [stage.stages for stage in run.stage_runs()] == [()] * 4


def test_the_shift_follows_the_tokens():
    auto = Diffusion(DiffusionConfig(time_distribution="uniform", shift="auto", shift_tokens=64))
    plain = Diffusion(DiffusionConfig(time_distribution="uniform"))
    assert auto.shift(64) == 1 and auto.shift(256) == 2 and auto.shift(16) == 0.5
    draws = [d.sample_t((1000,), torch.Generator().manual_seed(0), tokens=576) for d in (auto, plain)]
    torch.testing.assert_close(draws[0], shift_time(draws[1], 3.0))  # eq. 23: sqrt(m / n) t / (1 + (sqrt(m / n) - 1) t)
    with pytest.raises(ValueError, match="needs the number of tokens"):
        auto.sample_t((1,), torch.Generator())
    with pytest.raises(ConfigError, match="shift"):
        DiffusionConfig().replace(shift=0)


# -------------------- fine-tuning


def test_init_starts_from_a_model_and_names_what_does_not_fit(made, tmp_path, capsys):
    config = recipe(tmp_path, made)
    assert train(config, tmp_path / "a") == 0
    model = tmp_path / "a" / "model"
    still = ["--optim.learning-rate", "1e-30", "--optim.weight-decay", "0"]
    assert train(config, tmp_path / "b", "--init", str(model), *still) == 0
    for name, x in weights(tmp_path / "b" / "model").items():
        torch.testing.assert_close(x, weights(model)[name], rtol=0, atol=1e-8)
    assert losses(tmp_path / "b")[0] != losses(tmp_path / "a")[0]
    capsys.readouterr()
    for words, message in (
        (["--init", str(model), "--transformer.width", "48"], "transformer.width is 48, and 32 in init"),
        (["--init", str(model), "--text.width", "24"], "is 24, and 16 in init"),
        (["--init", str(tmp_path / "a")], "holds no vae/"),
        (["--init", str(tmp_path / "none")], "no such folder"),
    ):
        assert train(config, tmp_path / "c", *words) == 2
        assert message in capsys.readouterr().err
    torch.manual_seed(1)
    VideoVAE(VideoVAE.from_pretrained(made / "vae").config).save_pretrained(tmp_path / "other-vae")
    assert train(config, tmp_path / "c", "--init", str(model), "--vae", str(tmp_path / "other-vae")) == 2
    assert "is not the VAE that init was trained with" in capsys.readouterr().err


def test_a_vae_kept_in_half_precision_is_still_the_one_of_the_model(made, tmp_path):
    """As a shipped one is: a later stage, whose `init` holds it in float32, goes on with it."""
    half, whole, other = (tmp_path / name for name in ("half.safetensors", "whole.safetensors", "other.safetensors"))
    numbers = {name: x.bfloat16() for name, x in load_file(made / "vae" / "model.safetensors").items()}
    save_file(numbers, half)
    save_file({name: x.float() for name, x in numbers.items()}, whole)
    save_file({name: x.float() * 2 for name, x in numbers.items()}, other)
    assert same_weights(half, whole) and not same_weights(half, other)
    assert not same_weights(half, made / "vae" / "model.safetensors")


# -------------------- caches alone


def test_training_goes_on_when_the_videos_are_gone(made, tmp_path, capsys, monkeypatch):
    shutil.copytree(made / "data", tmp_path / "data")
    config = recipe(tmp_path, made)
    place = ["--data.folder", str(tmp_path / "data"), "--latents", str(tmp_path / "latents")]
    assert main(["data", "encode", config, *place]) == 0
    assert "of 9x16x16" in capsys.readouterr().out
    assert train(config, tmp_path / "with", *place) == 0
    for path in (tmp_path / "data").glob("*.mp4"):
        path.unlink()

    def refuse(*args, **kwargs):
        raise AssertionError("decoded")

    monkeypatch.setattr("video_gen.data.clips.iterate_frames", refuse)
    monkeypatch.setattr("video_gen.data.clips.probe", refuse)
    assert train(config, tmp_path / "without", *place) == 0
    assert "no videos there; goes on with the 8 clips" in capsys.readouterr().out
    assert_equal(weights(tmp_path / "with" / "model"), weights(tmp_path / "without" / "model"))
    shutil.rmtree(tmp_path / "data")
    assert train(config, tmp_path / "third", *place, "--loop.train-steps", "1") == 0


def test_captions_of_a_frozen_encoder_are_encoded_once(made, tmp_path, monkeypatch):
    transformers = pytest.importorskip("transformers")
    bert = tmp_path / "bert"
    bert.mkdir()
    (bert / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "red", "circle"]))
    transformers.BertTokenizer(str(bert / "vocab.txt")).save_pretrained(bert)
    sizes = dict(vocab_size=7, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    transformers.BertModel(transformers.BertConfig(**sizes)).save_pretrained(bert)
    from video_gen.model.text import CachedTextEncoder, build_text_encoder
    from video_gen.model.transformer_config import TextConfig
    from video_gen.training import caches

    run = DiffusionRun(latents=tmp_path / "latents", text=TextConfig(kind="transformers", name=str(bert)))
    captions, built = ["a red circle", "a", "a", "red"], []
    monkeypatch.setattr(caches, "build_text_encoder", lambda config: built.append(1) or build_text_encoder(config))
    read = caches.encode_texts(run, captions)
    caches.encode_texts(run, captions[:2])
    assert len(built) == 1
    caches.encode_texts(run, ["a circle"])  # one caption changed
    texts = [path for path in (tmp_path / "latents").glob("text-*/shards/*")]
    assert len(built) == 2 and [len(load_file(path)) for path in sorted(texts, key=lambda p: p.stat().st_mtime)] == [
        4,
        1,
    ]
    cached, plain = CachedTextEncoder(run.text, read), build_text_encoder(run.text)
    assert cached.width == plain.width and not list(cached.parameters())
    for texts in (["a red circle", ""], ["a", "red"]):
        tokens, visible = cached(cached.tokenise(texts))
        want, seen = plain(plain.tokenise(texts))
        assert torch.equal(visible, seen)
        torch.testing.assert_close(tokens[visible], want[seen], rtol=1e-2, atol=1e-2)  # bfloat16 on disk
    transformers.BertModel(transformers.BertConfig(**sizes)).save_pretrained(bert)
    caches.encode_texts(run, captions)
    assert len(built) == 3 and len(list((tmp_path / "latents").glob("text-*"))) == 2  # other weights, another folder
