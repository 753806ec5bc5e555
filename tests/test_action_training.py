"""Training on clips with actions, end to end at tiny sizes: from a world to one that can be played."""

import json

import numpy as np
import pytest
import torch
from test_training import stop_after

from video_gen.data.action_files import write_vocabulary
from video_gen.data.clips import to_video
from video_gen.data.config import ClipConfig, WorldConfig
from video_gen.data.worlds import render_world
from video_gen.errors import ConfigError, DataError
from video_gen.evaluation.control import Episodes, Maze, roll_out, shuffle_ratio
from video_gen.model.transformer import VideoTransformer
from video_gen.model.transformer_config import TransformerConfig
from video_gen.model.vae_config import VAEConfig
from video_gen.model.video_vae import VideoVAE
from video_gen.sampling.config import SamplingConfig
from video_gen.sampling.pipeline import VideoPipeline
from video_gen.train import train_diffusion, train_distill, train_vae
from video_gen.training.caches import encode_latents
from video_gen.training.config import LoopConfig
from video_gen.training.loop import TrainingInterrupted
from video_gen.training.recipes import DiffusionRun, DistillConfig, DistillRun, ModeConfig, VAERun
from video_gen.training.vae_task import channel_gains
from video_gen.vocabulary import Vocabulary

QUIET = dict(log_every=1, checkpoint_every=2, tensorboard=False, sample_every=0, compile="off", device="cpu")
LOOP = LoopConfig(train_steps=2, batch_size=4, validate_every=2, **QUIET)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A maze, a VAE and a transformer of two steps."""
    folder = tmp_path_factory.mktemp("actions")
    render_world(WorldConfig(kind="maze", num_clips=12, num_frames=9, height=16, width=16), folder / "data")
    data = ClipConfig(folder=folder / "data", num_frames=9, fps=12, height=16, width=16, validation_fraction=0.5)
    sizes = VAEConfig(spatial_stride=4, temporal_stride=2, latent_channels=4, widths=(16,), stem=4)
    train_vae(VAERun(data=data, vae=sizes, loop=LOOP), folder / "vae")
    train_diffusion(run_of(folder, data), folder / "run")
    return folder, data


def run_of(folder, data, **changes):
    transformer = TransformerConfig(width=32, depth=2, head_dim=16, patch_size=2, window=3)
    values = dict(
        data=data,
        vae=folder / "vae/model/vae",
        latents=folder / "latents",
        transformer=transformer,
        modes=ModeConfig(block_sizes=(1,), teacher_forcing=1.0),
        sampling=SamplingConfig(num_steps=1, guidance_scale=1.0),
        loop=LOOP,
    )
    return DiffusionRun(**values | changes)


def test_the_model_knows_the_actions_of_its_data_and_can_be_played(made):
    folder, _ = made
    pipe = VideoPipeline.from_pretrained(folder / "run/model")
    config = pipe.transformer.config
    assert config.actions is not None and config.actions.keys == ("forward", "back", "left", "right", "open")
    assert config.action_frames == 2 and pipe.config.world == "maze"
    assert pipe.play("maze 1", seed=1).step({"keys": ["forward"]}).shape == (2, 16, 16, 3)
    rows = [json.loads(line) for line in (folder / "run/log.jsonl").read_text().splitlines()]
    assert all("shuffle_ratio" in row for row in rows if row["kind"] == "validation")


@pytest.mark.parametrize("kind", ["", "warp", "draws"])
def test_resumed_equals_uninterrupted_with_actions(made, tmp_path, monkeypatch, kind):
    folder, data = made
    run = run_of(folder, data, loop=LOOP.replace(train_steps=4, keep="last"))
    if kind == "draws":
        drawn = run.diffusion.replace(prediction="denoised", draws=2, times=(0.999, 1.0))
        run = run.replace(diffusion=drawn, modes=run.modes.replace(resampled_history=0.5))
    if kind == "warp":
        moves = run.transformer.replace(previous=True, warp=True)
        run = run.replace(transformer=moves, diffusion=run.diffusion.replace(prediction="denoised"))
    train_diffusion(run, tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(TrainingInterrupted):
        stop_after(patch, 3)
        train_diffusion(run, tmp_path / "cut")
    train_diffusion(run, tmp_path / "cut")
    first, second = (VideoPipeline.from_pretrained(tmp_path / name / "model").transformer for name in ("whole", "cut"))
    for (name, a), b in zip(first.state_dict().items(), second.state_dict().values()):
        assert torch.equal(a, b), name
    assert ("embed_noise.out.weight" in first.state_dict()) == (kind == "draws")


def test_a_warp_is_fitted_to_the_latents_that_it_is_trained_on(made, tmp_path):
    folder, data = made
    run = run_of(folder, data)
    moves = run.transformer.replace(previous=True, warp=True)
    train_diffusion(run.replace(transformer=moves, diffusion=run.diffusion.replace(prediction="denoised")), tmp_path)
    pipe = VideoPipeline.from_pretrained(tmp_path / "model")
    assert pipe.transformer.config.strides == (2, 4)
    clips, _ = encode_latents(run)
    latents = torch.stack([clips[index] for index in range(4)]).float()
    warp = pipe.transformer.carry.warp
    with torch.no_grad():
        moved = warp(warp.shown(latents, [True, False, False, False, False]), torch.zeros(4, 5, 4, 4, 4))
        shown = pipe.vae.decode(latents)[:, :, 0::2].repeat_interleave(2, dim=2)
        found = pipe.vae.decode(torch.cat([latents[:, :, :1], moved], dim=2))[:, :, 1:]
    assert (found - shown).square().mean() < 0.1 * shown.var()


@pytest.mark.parametrize("method", ["consistency", "matching"])
def test_distillation_takes_actions_along(made, tmp_path, method):
    folder, data = made
    run = DistillRun(
        teacher=folder / "run/model",
        data=data,
        latents=folder / "latents",
        distill=DistillConfig(method=method),
        modes=ModeConfig(block_sizes=(1,), teacher_forcing=1.0, history_dropout=0.0),
        loop=LOOP,
    )
    train_distill(run, tmp_path / method)
    pipe = VideoPipeline.from_pretrained(tmp_path / method / "model")
    assert pipe.transformer.config.actions is not None
    before = VideoPipeline.from_pretrained(folder / "run/model").transformer.embed_actions
    after = pipe.transformer.embed_actions
    assert before is not None and after is not None
    assert not torch.equal(before.out.weight, after.out.weight)  # it learns from them
    assert pipe.play(seed=1).step({"keys": ["left"]}).shape == (2, 16, 16, 3)


def test_a_model_that_knew_no_actions_can_learn_them_and_one_of_others_is_refused(made, tmp_path):
    folder, data = made
    start = VideoPipeline.from_pretrained(folder / "run/model")
    plain = VideoTransformer(start.transformer.config.replace(actions=None, action_frames=None))
    torch.nn.init.normal_(plain.unembed.weight, std=0.1)
    start.transformer = plain.eval()
    start.save_pretrained(tmp_path / "plain")
    train_diffusion(run_of(folder, data, init=tmp_path / "plain"), tmp_path / "run")
    assert VideoPipeline.from_pretrained(tmp_path / "run/model").transformer.config.actions is not None
    sizes = start.transformer.config.model_dump()
    others = Vocabulary(keys=("jump", "duck", "a", "b", "c"), fps=12)
    start.transformer = VideoTransformer(TransformerConfig(**sizes | {"actions": others, "action_frames": 2})).eval()
    start.save_pretrained(tmp_path / "others")
    with pytest.raises(ConfigError, match=r"was trained for other actions \(jump, duck"):
        train_diffusion(run_of(folder, data, init=tmp_path / "others"), tmp_path / "refused")
    told = run_of(folder, data).transformer.replace(actions=others, action_frames=2)
    with pytest.raises(ConfigError, match=r"leave transformer\.actions out"):
        train_diffusion(run_of(folder, data, transformer=told), tmp_path / "refused")


def test_without_actions_in_the_data_nothing_is_different(made, tmp_path):
    """The same seeds draw the same numbers where there are none to drop."""
    folder, data = made
    from shutil import copytree, ignore_patterns

    copytree(folder / "data", tmp_path / "data", ignore=ignore_patterns("*actions*", "state"))
    plain = data.replace(folder=tmp_path / "data")
    train_diffusion(run_of(folder, plain, latents=tmp_path / "latents"), tmp_path / "run")
    model = VideoPipeline.from_pretrained(tmp_path / "run/model")
    assert model.transformer.config.actions is None
    assert "shuffle_ratio" not in (tmp_path / "run/log.jsonl").read_text()
    with pytest.raises(ConfigError, match="trained without actions"):
        model.play()


def test_a_model_that_ignores_actions_has_a_ratio_of_one_and_one_that_does_not_has_another(made):
    folder, _ = made
    pipe = VideoPipeline.from_pretrained(folder / "run/model")
    short = Maze(height=16, width=16).episodes(6, 9)
    assert pipe.transformer.embed_actions is not None
    torch.nn.init.zeros_(pipe.transformer.embed_actions.out.weight)
    torch.nn.init.zeros_(pipe.transformer.embed_actions.out.bias)
    assert shuffle_ratio(pipe, short) == pytest.approx(1, abs=1e-6)
    torch.nn.init.normal_(pipe.transformer.embed_actions.out.weight, std=3)
    torch.nn.init.normal_(pipe.transformer.modulation.weight, std=0.3)
    torch.nn.init.normal_(pipe.transformer.unembed.weight, std=0.3)
    assert shuffle_ratio(pipe, short) != pytest.approx(1, abs=1e-3)


def test_a_rollout_begins_with_what_was_given(made):
    folder, _ = made
    pipe = VideoPipeline.from_pretrained(folder / "run/model")
    found: Episodes = Maze(height=16, width=16).episodes(3, 9)
    videos = roll_out(pipe, found.videos[:, 0], found.rows, found.captions, seed=0)
    assert videos.shape == found.videos.shape
    np.testing.assert_array_equal(videos[:, 0], found.videos[:, 0])
    again = roll_out(pipe, found.videos[1:, 0], found.rows[1:], found.captions[1:], seed=1)
    assert np.abs(videos[1:].astype(int) - again).max() <= 2


def test_another_vocabulary_beside_the_same_videos_is_refused(made):
    _, data = made
    with pytest.raises(DataError, match="other keys, axes or rate"):
        write_vocabulary(data.folder, Vocabulary(keys=("jump",), fps=12))


def test_latents_as_large_as_they_change_the_picture(made, tmp_path):
    """The reconstruction stays; the mean variance is 1; what changes more is larger."""
    folder, data = made
    sizes = VAEConfig(spatial_stride=4, temporal_stride=2, latent_channels=4, widths=(16,), stem=4)
    train_vae(VAERun(data=data, vae=sizes, loop=LOOP, channel_weight=1.0), tmp_path / "vae")
    plain, weighed = (VideoVAE.from_pretrained(place / "model/vae") for place in (folder / "vae", tmp_path / "vae"))
    video = to_video(torch.from_numpy(Maze(height=16, width=16).episodes(8, 9).videos))
    with torch.no_grad():
        first, second = plain.encode(video).mean, weighed.encode(video).mean
        torch.testing.assert_close(plain.decode(first), weighed.decode(second), atol=1e-4, rtol=1e-4)
    ratio = (second.std((0, 2, 3, 4)) / first.std((0, 2, 3, 4))).double()
    gains = channel_gains(plain, video)
    assert gains.argsort().tolist() == ratio.argsort().tolist()
    assert ratio.square().mean().item() == pytest.approx(1, abs=0.05)


def test_draws_are_learned_after_the_mean_and_not_forgotten(made, tmp_path):
    folder, data = made
    plain = run_of(folder, data, loop=LOOP.replace(train_steps=1, keep="last"))
    plain = plain.replace(diffusion=plain.diffusion.replace(prediction="denoised"))
    drawn = plain.replace(diffusion=plain.diffusion.replace(draws=2, times=(0.999, 1.0)))
    train_diffusion(plain, tmp_path / "mean")
    train_diffusion(drawn.replace(init=tmp_path / "mean/model"), tmp_path / "drawn")
    assert VideoPipeline.from_pretrained(tmp_path / "drawn/model").transformer.config.frame_noise
    with pytest.raises(ConfigError, match=r"diffusion\.draws is 1, and .* was trained with more; set it to 2"):
        train_diffusion(plain.replace(init=tmp_path / "drawn/model"), tmp_path / "back")
