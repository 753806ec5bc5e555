"""Training that starts from a public model: of small random weights in a released layout, a LoRA and the whole of it."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from test_training import assert_same_run, stop_after
from wan_models import build, save_diffusers

from video_gen.cli import main
from video_gen.config import load_yaml
from video_gen.data.config import ClipConfig, WorldConfig
from video_gen.data.worlds import render_world
from video_gen.errors import ConfigError, ShapeError
from video_gen.model.diffusion import Diffusion
from video_gen.model.diffusion_config import DiffusionConfig
from video_gen.model.lora_config import LoraConfig
from video_gen.model.transformer_config import TextConfig, TransformerConfig
from video_gen.model.vae_config import VAEConfig
from video_gen.model.video_vae import VideoVAE
from video_gen.model.wan.config import WanTransformerConfig
from video_gen.model.wan.transformer import WanTransformer
from video_gen.sampling import pictures
from video_gen.sampling.config import SamplingConfig
from video_gen.sampling.pipeline import VideoPipeline
from video_gen.train import train_diffusion
from video_gen.training.caches import check_sizes, open_clips
from video_gen.training.config import LoopConfig, OptimConfig
from video_gen.training.loop import TrainingInterrupted
from video_gen.training.lora_task import LoraTask
from video_gen.training.pictures import begun_at
from video_gen.training.pictures import made as counted_of
from video_gen.training.public import with_init
from video_gen.training.recipes import DiffusionRun, ModeConfig, RoutingConfig

QUIET = dict(log_every=1, checkpoint_every=2, tensorboard=False, sample_every=0, compile="off", device="cpu")
LOOP = LoopConfig(train_steps=2, batch_size=2, validate_every=2, keep="last", **QUIET)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A world, and a small Wan model as diffusers saves it."""
    folder = tmp_path_factory.mktemp("public")
    render_world(WorldConfig(num_clips=4, num_images=0, num_frames=9, height=32, width=32), folder / "data")
    return folder, save_diffusers(build("t2v"), folder / "wan")


def run_of(made, **changes):
    folder, base = made
    values = dict(
        data=ClipConfig(folder=folder / "data", num_frames=9, height=32, width=32, validation_fraction=0.25),
        latents=folder / "latents",
        sampling=SamplingConfig(num_steps=1, guidance_scale=1.0, negative_prompt=""),
        num_samples=1,
        init=base,
        loop=LOOP,
        optim=OptimConfig(learning_rate=0.01, warmup_steps=0),
    )
    return DiffusionRun(**values | changes)


def test_sizes_that_do_not_fit_are_named_before_anything_is_encoded(made, tmp_path):
    folder, _ = made
    for height, width, told in (
        (40, 32, "data.height is 40; it must be a multiple of 16, such as 32 or 48"),
        (8, 8, "data.height is 8; it must be a multiple of 16, such as 16 or 32"),
    ):
        data = ClipConfig(folder=folder / "data", num_frames=9, height=height, width=width)
        with pytest.raises(ShapeError, match=told):
            train_diffusion(run_of(made, data=data, latents=tmp_path / "latents"), tmp_path / "run")
        own = VideoVAE(VAEConfig(widths=(16, 32, 32, 32), latent_channels=4))
        with pytest.raises(ShapeError, match=told):
            check_sizes(DiffusionRun(data=data), own)
    assert not (tmp_path / "latents").exists()


@pytest.mark.slow
def test_a_lora_of_a_public_model(made, tmp_path, monkeypatch, capsys):
    base = made[1]
    loop = LOOP.replace(sample_every=2, train_steps=4)
    run = run_of(made, lora=LoraConfig(rank=2, merged=True), loop=loop)
    train_diffusion(run, tmp_path / "whole")
    said = capsys.readouterr().out
    assert (
        "is trained so (modes.teacher_forcing 0)" in said and (tmp_path / "whole/samples/step_000004/00.mp4").is_file()
    )
    with monkeypatch.context() as patch, pytest.raises(TrainingInterrupted):
        stop_after(patch, 3)
        train_diffusion(run, tmp_path / "cut")
    moved = shutil.copytree(base, tmp_path / "moved")
    train_diffusion(run.model_copy(update={"init": moved}), tmp_path / "cut")
    assert_same_run(tmp_path / "whole", tmp_path / "cut", step=4)
    file = tmp_path / "whole/model/lora.safetensors"
    keys = list(load_file(file))
    resolved = load_yaml(DiffusionRun, tmp_path / "whole/config.yaml").transformer
    assert isinstance(resolved, WanTransformerConfig) and resolved.dim == 128
    assert len(keys) == 3 * 2 * 10 and "diffusion_model.blocks.1.cross_attn.o.lora_B.weight" in keys
    options = ["--num-frames", "5", "--num-steps", "1", "--guidance-scale", "1", "--seed", "1"]
    monkeypatch.chdir(tmp_path)
    shutil.copytree(base, "base")
    merged, plain = (VideoPipeline.from_pretrained(p) for p in ("whole/model/merged", "base"))
    plain.load_lora(file)
    for (name, a), b in zip(plain.transformer.state_dict().items(), merged.transformer.state_dict().values()):
        assert torch.equal(a, b), name
    assert merged.config.family == "wan" and merged.config.clip.height == 32
    assert main(["sample", "a red circle", "--model", "whole/model/merged", *options, "--output", "out"]) == 0


@pytest.mark.slow
def test_the_whole_of_a_public_model(made, tmp_path):
    _, base = made
    train_diffusion(run_of(made), tmp_path / "run")
    before, after = (VideoPipeline.from_pretrained(p) for p in (base, tmp_path / "run/model"))
    assert isinstance(after.transformer, WanTransformer) and after.config.family == "wan"
    assert all(not torch.equal(a, b) for a, b in zip(before.transformer.parameters(), after.transformer.parameters()))
    for a, b in zip(before.vae.parameters(), after.vae.parameters()):
        assert torch.equal(a, b)
    train_diffusion(run_of(made, init=tmp_path / "run/model", lora=LoraConfig(rank=2)), tmp_path / "more")
    assert (tmp_path / "more/model/lora.safetensors").is_file()


def test_what_init_brings_and_what_a_run_may_not_ask_for(made, tmp_path):
    _, base = made
    run = with_init(run_of(made, modes=ModeConfig(text_dropout=0.3)), print)
    assert run.vae == base and run.text.name == str(base.absolute()) and run.modes.text_dropout == 0.3
    assert run.modes.teacher_forcing == 0 and run.diffusion.shift == 3 and run.sampling.solver == "unipc"
    assert run.sampling.num_steps == 1
    told = with_init(run_of(made, modes=ModeConfig(teacher_forcing=0.7)), print)
    assert told.modes.teacher_forcing == 0.7
    for changes, said in (
        (dict(transformer=TransformerConfig(width=32, head_dim=16)), "transformer: init is a public model"),
        (dict(text=TextConfig(width=16)), "text: init is a public model"),
        (dict(vae=base / "vae"), "vae: init is a public model"),
        (dict(modes=ModeConfig(endings=0.2)), r"modes\.endings is 0\.2"),
        (dict(diffusion=DiffusionConfig(draws=2, times=(0.999, 1.0))), r"diffusion\.draws is 2, .* set it to 1"),
        (dict(routing=RoutingConfig(skip=0.5)), r"routing\.skip is 0\.5"),
    ):
        with pytest.raises(ConfigError, match=said):
            with_init(run_of(made, **changes), print)
    both = save_diffusers(build("a14b-t2v"), tmp_path / "both")
    for changes, said in ((dict(init=both), "say which one"), (dict(expert="low"), "has no two experts")):
        with pytest.raises(ConfigError, match=said):
            with_init(run_of(made, **changes), print)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["i2v", "a14b-i2v"])
def test_image_to_video_is_told_in_training_what_it_is_told_in_sampling(made, tmp_path, variant, monkeypatch):
    base = save_diffusers(build(variant), tmp_path / "base")
    expert = "low" if variant.startswith("a14b") else None
    loop = LOOP.replace(sample_every=2, train_steps=4)
    run = run_of(made, init=base, expert=expert, lora=LoraConfig(rank=2), loop=loop)
    seen = []
    original = LoraTask.loss

    def loss(self, batch, step, generators):
        seen.append((self, batch))
        return original(self, batch, step, generators)

    monkeypatch.setattr(LoraTask, "loss", loss)
    train_diffusion(run, tmp_path / "whole")
    task, batch = seen[0]
    assert batch["latents"].shape[2] == batch["beside"].shape[2] == 3 and batch["beside"].shape[1] == 20
    assert ("clip_tokens" in batch) == (variant == "i2v")
    assert task.metadata()["pictures"] == "first" and task.metadata().get("expert") == expert
    assert (tmp_path / "whole/samples/step_000004/00.mp4").is_file() == (expert is None)
    pipe, clips = VideoPipeline.from_pretrained(base), open_clips(run.data)
    index = task.sampler.indices(0)[0]
    first = clips[clips.ids.index(task.train.entries[index].clip_id)].video[:1]
    with pipe.inference():
        shown = pictures.beside(pipe.sized(32, 32), pipe.block_model([""], run.sampling, 3), first, None, 9).text
    assert shown.beside is not None
    torch.testing.assert_close(batch["beside"][:1], shown.beside.float(), rtol=2e-2, atol=2e-2)
    if variant == "i2v":
        torch.testing.assert_close(batch["clip_tokens"][0], pipe.vision(first)[0], rtol=2e-2, atol=2e-2)
    seen.clear()
    with monkeypatch.context() as patch, pytest.raises(TrainingInterrupted):
        stop_after(patch, 3)
        train_diffusion(run, tmp_path / "cut")
    train_diffusion(run, tmp_path / "cut")
    assert_same_run(tmp_path / "whole", tmp_path / "cut", step=4)


def test_a_clip_that_begins_with_its_picture_has_it_clean_at_time_0_and_does_not_count_it(made, tmp_path, monkeypatch):
    base = save_diffusers(build("ti2v"), tmp_path / "base")
    data = run_of(made).data.replace(height=64, width=64)
    run = run_of(made, init=base, lora=LoraConfig(rank=2), data=data, modes=ModeConfig(pictures=0.5))
    seen = []
    original = WanTransformer.forward

    def forward(self, noisy, t, *args, **kwargs):
        seen.append((noisy, t))
        return original(self, noisy, t, *args, **kwargs)

    monkeypatch.setattr(WanTransformer, "forward", forward)
    train_diffusion(run, tmp_path / "run")
    first = [(x, t) for x, t in seen if t.ndim == 2]
    assert {bool((t[:, 0] == 0).all()) for _, t in first} == {True, False}  # held out, half of the clips begin so
    assert all((t[:, 1:] > 0).all() for _, t in first)
    begun, keep = torch.tensor([True, False]), torch.tensor([[True, True, False]] * 2)
    t = torch.full((2, 3), 0.5)
    assert begun_at(t, begun).tolist() == [[0, 0.5, 0.5], [0.5, 0.5, 0.5]] and begun_at(t, None) is t
    assert counted_of(keep, begun, 3).tolist() == [[False, True, False], [True, True, False]]
    assert counted_of(None, begun, 3).tolist() == [[False, True, True], [True, True, True]]


@pytest.mark.parametrize("expert", ["high", "low"])
def test_one_of_two_experts_learns_at_its_times_and_is_put_back_beside_the_other(made, tmp_path, expert, capsys):
    both = save_diffusers(build("a14b-t2v"), tmp_path / "both")
    run = run_of(made, init=both, expert=expert, lora=LoraConfig(rank=2, merged=True))
    told = with_init(run, print)
    assert told.diffusion.times == ((0.875, 1.0) if expert == "high" else (0.0, 0.875)) and told.loop.sample_every == 0
    times = Diffusion(told.diffusion).sample_t((1000,), torch.Generator().manual_seed(0))
    assert told.diffusion.times[0] <= times.min() and times.max() <= told.diffusion.times[1]
    train_diffusion(run, tmp_path / "run")
    assert f"its expert for {expert} noise is trained" in capsys.readouterr().out
    before, merged, with_lora = (VideoPipeline.from_pretrained(p) for p in (both, tmp_path / "run/model/merged", both))
    with_lora.load_lora(tmp_path / "run/model")  # the file notes for which expert it is
    for name in ("high", "low"):
        a, b, c = (getattr(model.transformer, name) for model in (before, merged, with_lora))
        assert all(torch.equal(x, y) for x, y in zip(b.parameters(), c.parameters()))
        assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters())) == (name != expert)
    figures = json.loads((tmp_path / "run/log.jsonl").read_text().splitlines()[0])
    assert ("loss_t0.88-0.91" in figures) == (expert == "high") and ("loss_t0.00-0.22" in figures) == (expert == "low")
