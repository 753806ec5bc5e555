"""Training a LoRA, end to end at tiny sizes: its run, exact resume, its file, and sampling, streaming and merging with it."""

import json
import shutil

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from test_pipeline import tiny_pipeline
from test_training import assert_same_run, stop_after

from video_gen.cli import main
from video_gen.data.config import ClipConfig, WorldConfig
from video_gen.data.worlds import render_world
from video_gen.errors import ConfigError, TrainingError
from video_gen.model.lora_config import LoraConfig
from video_gen.model.transformer_config import TransformerConfig
from video_gen.sampling.config import SamplingConfig
from video_gen.sampling.pipeline import VideoPipeline
from video_gen.train import train_diffusion
from video_gen.training.config import LoopConfig, OptimConfig
from video_gen.training.loop import TrainingInterrupted
from video_gen.training.public import with_init
from video_gen.training.recipes import DiffusionRun, Stage

QUIET = dict(log_every=1, checkpoint_every=2, tensorboard=False, sample_every=0, compile="off", device="cpu")
LOOP = LoopConfig(train_steps=2, batch_size=4, validate_every=2, **QUIET)
LORA = LoraConfig(rank=4, alpha=2, dropout=0.25, trigger="sks")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A world, and a model of drawn weights."""
    folder = tmp_path_factory.mktemp("lora")
    render_world(WorldConfig(num_clips=8, num_images=0, num_frames=9, height=16, width=16), folder / "data")
    tiny_pipeline().save_pretrained(folder / "base")
    return folder, ClipConfig(folder=folder / "data", num_frames=9, height=16, width=16, validation_fraction=0.25)


def run_of(folder, data, **changes):
    values = dict(
        data=data,
        vae=folder / "base/vae",
        latents=folder / "latents",
        transformer=TransformerConfig(width=32, depth=2, head_dim=16, window=2),
        text=dict(width=16),
        sampling=SamplingConfig(num_steps=1, guidance_scale=1.0),
        num_samples=1,
        init=folder / "base",
        lora=LORA,
        loop=LOOP,
        optim=OptimConfig(learning_rate=0.05, warmup_steps=0),
    )
    return DiffusionRun(**values | changes)


def test_a_run_of_a_lora(made, tmp_path):
    folder, data = made
    loop = LOOP.replace(sample_every=2, keep="last")
    figures = train_diffusion(run_of(folder, data, loop=loop, lora=LORA.replace(merged=True)), tmp_path)
    assert figures["loss"] > 0 and (tmp_path / "samples/step_000002/00.mp4").is_file()
    checkpoint = tmp_path / "checkpoints/step_000002"
    for name in ("model", "ema", "optimizer"):
        assert all(".lora_" in key for key in load_file(checkpoint / f"{name}.safetensors")), name
    file = tmp_path / "model/lora.safetensors"
    assert sorted(p.name for p in (tmp_path / "model").iterdir()) == ["lora.safetensors", "merged"]
    with safe_open(file, "pt") as stored:
        metadata = stored.metadata()
        keys = list(stored.keys())
    assert metadata["rank"] == "4" and metadata["alpha"] == "2" and metadata["trigger_prompt"] == "sks"
    assert metadata["base_model"] == "base" and len(metadata["base_model_hash"]) == 16
    assert len(keys) == 3 * 8 and all(key.startswith("diffusion_model.blocks.") for key in keys)
    base, merged = (VideoPipeline.from_pretrained(p) for p in (folder / "base", tmp_path / "model/merged"))
    assert any(not torch.equal(a, b) for a, b in zip(base.transformer.parameters(), merged.transformer.parameters()))
    base.load_lora(tmp_path / "model")
    for (name, a), b in zip(base.transformer.state_dict().items(), merged.transformer.state_dict().values()):
        assert torch.equal(a, b), name
    for a, b in zip(base.text.parameters(), merged.text.parameters()):
        assert torch.equal(a, b)


@pytest.mark.parametrize("changes", [{}, pytest.param({"base": "int8"}, marks=pytest.mark.slow)])
def test_resumed_equals_uninterrupted_bit_for_bit(made, tmp_path, monkeypatch, changes):
    folder, data = made
    loop = LOOP.replace(train_steps=6, keep="last", accumulation=2, validate_every=3)
    run = run_of(folder, data, loop=loop, lora=LORA.replace(**changes))
    train_diffusion(run, tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(TrainingInterrupted):
        stop_after(patch, 3)
        train_diffusion(run, tmp_path / "cut")
    moved = shutil.copytree(folder / "base", tmp_path / "moved")
    train_diffusion(run.model_copy(update={"init": moved}), tmp_path / "cut")
    assert_same_run(tmp_path / "whole", tmp_path / "cut", step=6)
    whole, cut = (load_file(tmp_path / name / "model/lora.safetensors") for name in ("whole", "cut"))
    assert whole.keys() == cut.keys() and all(torch.equal(x, cut[name]) for name, x in whole.items())


def test_another_base_is_refused_when_a_run_goes_on(made, tmp_path):
    folder, data = made
    train_diffusion(run_of(folder, data), tmp_path / "run")
    other = VideoPipeline.from_pretrained(folder / "base")
    other.transformer.unembed.bias.data.add_(1)
    other.save_pretrained(tmp_path / "other")
    longer = LOOP.replace(train_steps=4)
    with pytest.raises(TrainingError, match="its base is not the one"):
        train_diffusion(run_of(folder, data, init=tmp_path / "other", loop=longer), tmp_path / "run")


def test_stages_and_start_go_on_from_the_adapter_before(made, tmp_path):
    folder, data = made
    loop = LOOP.replace(keep="last")
    frozen = dict(optim=OptimConfig(learning_rate=1e-12, warmup_steps=0), loop=loop)
    train_diffusion(run_of(folder, data, loop=loop), tmp_path / "first")
    first = load_file(tmp_path / "first/model/lora.safetensors")
    again = LORA.replace(start=tmp_path / "first/model", alpha=8)
    train_diffusion(run_of(folder, data, lora=again, **frozen), tmp_path / "second")
    second = load_file(tmp_path / "second/model/lora.safetensors")
    for name, x in first.items():
        torch.testing.assert_close(second[name], x)
    stages = (Stage(), Stage(optim={"learning_rate": 1e-12}))
    train_diffusion(run_of(folder, data, loop=loop, stages=stages), tmp_path / "staged")
    staged = load_file(tmp_path / "staged/model/lora.safetensors")
    for name, x in first.items():
        torch.testing.assert_close(staged[name], x)
    with pytest.raises(ConfigError, match=r"lora\.start: .* is of rank 4, and lora\.rank is 2"):
        train_diffusion(run_of(folder, data, lora=LORA.replace(rank=2, start=tmp_path / "first/model")), tmp_path / "x")
    with pytest.raises(ConfigError, match=r"lora\.start: .* is not for the layers that lora\.targets names"):
        narrow = LORA.replace(start=tmp_path / "first/model", targets=("*.qkv",))
        train_diffusion(run_of(folder, data, lora=narrow), tmp_path / "y")


def test_init_brings_what_the_run_does_not_say(made, tmp_path):
    folder, data = made
    plain = DiffusionRun(data=data, init=folder / "base", lora=LORA, sampling=SamplingConfig(num_steps=1))
    run = with_init(plain, print)
    base = VideoPipeline.from_pretrained(folder / "base")
    assert run.vae == folder / "base/vae" and run.text.width == 16 and run.transformer == base.transformer.config
    assert run.diffusion == base.config.diffusion
    assert run.sampling == base.config.sampling.replace(num_steps=1)
    said = with_init(plain.model_copy(update={"transformer": TransformerConfig(width=64)}), print)
    assert said.transformer.width == 64
    with pytest.raises(ConfigError, match=r"transformer\.width is 64, and 32 in init"):
        train_diffusion(said.model_copy(update={"latents": folder / "latents", "loop": LOOP}), tmp_path)


def test_what_does_not_fit_together_is_said_at_once(made):
    folder, data = made
    with pytest.raises(ValueError, match="init names no model"):
        run_of(folder, data, init=None)
    with pytest.raises(ValueError, match=r"adam_names embed are of the weights themselves"):
        run_of(folder, data, optim=OptimConfig(optimizer="muon", adam_names=("embed",)))
    with pytest.raises(ValueError, match=r"lora\.base is bf16 and loop\.precision float32"):
        run_of(folder, data, loop=LOOP.replace(precision="float32"))


def test_the_command_line(made, tmp_path, monkeypatch, capsys):
    folder, data = made
    train_diffusion(run_of(folder, data, loop=LOOP.replace(keep="last")), tmp_path / "run")
    file, base = str(tmp_path / "run/model/lora.safetensors"), str(folder / "base")
    monkeypatch.chdir(tmp_path)
    options = ["--model", base, "--num-steps", "1", "--seed", "3"]
    assert main(["sample", "a", *options, "--output", "plain"]) == 0
    assert main(["sample", "a", *options, "--lora", f"{file}:0.75", "--lora", f"{file}:0.25", "--output", "with"]) == 0
    assert main(["model", "merge", base, "--lora", file, "merged"]) == 0
    assert main(["sample", "a", *options[2:], "--model", "merged", "--output", "merged-out"]) == 0
    facts = json.loads((tmp_path / "with/a_seed_3.json").read_text())
    assert facts["lora"] == [f"{file}:0.75", f"{file}:0.25"]
    assert (tmp_path / "with/a_seed_3.mp4").read_bytes() != (tmp_path / "plain/a_seed_3.mp4").read_bytes()
    stream = ["stream", "a", *options, "--seconds", "1", "--lora", f"{file}:0.5", "--save", "state.safetensors"]
    assert main(stream) == 0
    resumed = ["stream", "--resume", "state.safetensors", "--seconds", "1", "--output", "out/next.mp4"]
    assert main(resumed) == 0  # the state knows its LoRA
    capsys.readouterr()
    assert main([*resumed, "--lora", f"{file}:0.6"]) == 2
    assert "the weights of transformer/ are others" in capsys.readouterr().err
    assert main(["model", "merge", base, "merged"]) == 2 and "no LoRA is given" in capsys.readouterr().err
    assert main(["sample", "a", "--model", str(tmp_path / "run/model")]) == 2
    assert "is a LoRA" in capsys.readouterr().err


@pytest.mark.parametrize("base", ["bf16", pytest.param("int8", marks=pytest.mark.slow)])
@pytest.mark.parametrize(("checkpointing", "offload"), [("off", "blocks"), ("full", "blocks"), ("full", "tokens")])
def test_what_stays_on_the_cpu_changes_no_adapter(made, tmp_path, monkeypatch, base, checkpointing, offload):
    folder, data = made
    monkeypatch.setattr("video_gen.model.offload.LARGE", 1)
    loop = LOOP.replace(checkpointing=checkpointing, sample_every=2)
    for kind in ("off", offload):
        run = run_of(folder, data, loop=loop, lora=LORA.replace(base=base, offload=kind))
        train_diffusion(run, tmp_path / kind)
    ours, theirs = (load_file(tmp_path / name / "model/lora.safetensors") for name in (offload, "off"))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize(
    ("offload", "wrong"),
    [("blocks", {"checkpointing": "selective"}), ("tokens", {"checkpointing": "off"}), ("blocks", {"compile": "on"})],
)
def test_what_does_not_go_with_it_is_told(made, offload, wrong):
    ((name, value),) = wrong.items()
    with pytest.raises(ConfigError, match=rf"loop\.{name} is {value}, which does not go with lora\.offload {offload}"):
        loop = LOOP.replace(**{"checkpointing": "full"} | wrong)
        run_of(*made, loop=loop).replace(lora=LORA.replace(offload=offload).model_dump())
