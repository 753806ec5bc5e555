"""Measures of long videos and of few steps: true videos pass, each way of drifting shows in its figure, at its index."""

import json

import numpy as np
import pytest
import torch
from scipy import ndimage

from video_gen.cli import main
from video_gen.data.clips import to_video
from video_gen.data.config import WorldConfig
from video_gen.data.worlds import draw, simulate
from video_gen.evaluation.drift import (
    LongVideos,
    compare,
    floors,
    histogram,
    indices,
    reconstruct,
    roll_out,
    sharpness,
)
from video_gen.evaluation.steps import calls_per_block, measure_steps, worsening
from video_gen.model.diffusion import Diffusion
from video_gen.model.diffusion_config import DiffusionConfig
from video_gen.model.text import ByteTextEncoder
from video_gen.model.transformer import VideoTransformer
from video_gen.model.transformer_config import TextConfig, TransformerConfig
from video_gen.model.vae_config import VAEConfig
from video_gen.model.video_vae import VideoVAE
from video_gen.sampling.config import ClipSettings, SamplingConfig
from video_gen.sampling.pipeline import VideoPipeline
from video_gen.sampling.rollout import advance, begin
from video_gen.sampling.solvers import SOLVERS, generators_for, sample_noise, timesteps

LAST = 64


def tiny_vae() -> VideoVAE:
    torch.manual_seed(0)
    vae = VideoVAE(VAEConfig(spatial_stride=4, latent_channels=4, widths=(16,), stem=4)).eval()
    vae.fit_linear_path(torch.rand(4, 3, 9, 16, 16) * 2 - 1)
    return vae


def tiny_pipeline(world="unknown") -> VideoPipeline:
    vae, text = tiny_vae(), ByteTextEncoder(TextConfig(width=16)).eval()
    settings = dict(latent_channels=4, width=32, depth=2, head_dim=16, text_width=16, sink=1, window=2)
    transformer = VideoTransformer(TransformerConfig(**settings)).eval()
    for parameter in transformer.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    clip = ClipSettings(num_frames=9, fps=8, height=16, width=16)
    return VideoPipeline(vae, transformer, text, DiffusionConfig(), clip, SamplingConfig(num_steps=2), world)


@pytest.fixture(scope="module")
def true():
    config = WorldConfig(height=32, width=32, num_frames=LAST + 1, seed=5)
    chosen = [simulate(config, i) for i in range(4)]
    return [world.caption for world in chosen], np.stack([draw(world) for world in chosen])


def drifted(true, change):
    """Curves of the videos with their second half changed, beside the true ones."""
    captions, videos = true
    half = LAST // 2 + 1
    spoiled = np.concatenate([videos[:, :half], change(videos[:, half:])], axis=1)
    latents = torch.zeros(len(videos), 4, 1 + LAST // 4, 2, 2)
    found = compare(
        {"model": LongVideos(captions, spoiled, latents), "true": LongVideos(captions, videos, latents)}, "bounce", 4
    )
    return found["curves"]["model"], found


def test_indices_double_and_end_at_the_last():
    assert indices(1024) == [16, 32, 64, 128, 256, 512, 1024]
    assert indices(16) == [16] and indices(40) == [16, 32, 40]


def test_true_videos_do_not_drift(true):
    curves, found = drifted(true, lambda rest: rest)
    assert found["indices"] == [16, 32, 64] and found["videos"] == 4
    for name in ("persistence", "caption_accuracy", "colour_identity", "shape_identity"):
        assert curves[name] == [1, 1, 1]
    assert max(curves["residual_px"]) < 0.1 and max(curves["speed_drift"]) < 0.1 and curves["frozen"] == [0, 0, 0]
    assert sum(share for _, share in found["speeds"]["model"]) == 1


def test_a_frozen_video_stands_still(true):
    curves, _ = drifted(true, lambda rest: np.repeat(rest[:, :1], rest.shape[1], axis=1))
    assert curves["frozen"] == [0, 0, 1] and curves["speed_drift"][2] > 0.9 and curves["persistence"] == [1, 1, 1]


def test_a_slower_video_drifts_in_speed(true):
    curves, _ = drifted(true, lambda rest: np.repeat(rest, 2, axis=1)[:, : rest.shape[1]])
    assert curves["speed_drift"][1] < 0.1 and 0.2 < curves["speed_drift"][2] < 0.6


def test_other_colours_are_seen_against_the_first_window(true):
    curves, _ = drifted(true, lambda rest: rest[..., [1, 2, 0]])
    assert curves["colour_identity"][:2] == [1, 1] and curves["colour_identity"][2] < 0.5
    assert curves["shape_identity"] == [1, 1, 1] and curves["caption_accuracy"][2] < 1


def test_an_empty_video_has_failed(true):
    curves, _ = drifted(true, lambda rest: np.full_like(rest, 16))
    last = {name: values[2] for name, values in curves.items()}
    assert last["persistence"] == last["colour_identity"] == last["motion"] == last["sharpness"] == 0
    assert last["speed_drift"] == last["frozen"] == 1 and np.isnan(last["residual_px"])


def test_blur_is_a_loss_of_sharpness(true):
    curves, _ = drifted(true, lambda rest: ndimage.gaussian_filter(rest, (0, 0, 1, 1, 0)))
    assert curves["sharpness"][2] < 0.6 * curves["sharpness"][0]
    one, two = np.zeros((2, 1, 16, 16, 3), np.uint8)
    one[:, 4:8, 4:8], two[:, 2:6, 2:6], two[:, 9:12, 9:12] = 200, 200, 200
    assert sharpness(one) == pytest.approx(200) == sharpness(two)


def test_latents_are_measured_where_the_frames_are(true):
    captions, videos = true
    latents = torch.arange(1 + LAST // 4).float()[None, None, :, None, None].expand(len(videos), 4, -1, 2, 2)
    curves = compare({"true": LongVideos(captions, videos, latents)}, "digits", 4)["curves"]["true"]
    assert curves["latent_mean"] == [2.0, 6.0, 14.0] and len(set(curves["latent_deviation"])) == 1
    assert "persistence" not in curves


def test_histogram_counts_every_video():
    bins = histogram([0.0, 0.04, 0.51, 9.0], 1.0)
    assert bins[0][1] == 0.5 and bins[-1][1] == 0.25 and bins[10] == (pytest.approx(0.525), 0.25)


def test_a_rollout_is_what_the_pipeline_makes():
    pipeline, captions = tiny_pipeline(), ["a red circle, fast", "two blue squares, slow"]
    seen = []
    long = roll_out(pipeline, captions, [3, 4], 25, lambda done, total: seen.append((done, total)))
    np.testing.assert_array_equal(long.videos, pipeline.generate(captions, seeds=[3, 4], num_frames=25))
    assert long.latents.shape == (2, 4, 7, 4, 4) and seen[-1] == (25, 25)


def test_floors_in_chunks_are_those_of_the_whole():
    config = WorldConfig(height=16, width=16, num_frames=25, num_clips=2, seed=1)
    vae = tiny_vae()
    true, made = floors(config, vae)
    parts, part_latents = reconstruct(true.videos, vae, chunk_latents=2)
    assert abs(parts.astype(int) - made.videos).max() <= 2
    torch.testing.assert_close(part_latents, true.latents, rtol=0.05, atol=0.05)
    video = to_video(torch.from_numpy(true.videos))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        latents = vae.encode(video).mean.float()
        whole = vae.decode(latents).float()
    torch.testing.assert_close(true.latents, latents, rtol=0.05, atol=0.05)
    assert (to_video(torch.from_numpy(made.videos)) - whole.clamp(-1, 1)).abs().max() < 0.05


def test_drift_from_the_command_line(tmp_path, capsys):
    pipeline = tiny_pipeline("digits")
    for name in ("one", "two"):
        pipeline.save_pretrained(tmp_path / name / "model")
    models = [str(tmp_path / name / "model") for name in ("one", "two")]
    words = ["evaluate", "drift", "--model", *models, "--frames", "32", "--num-videos", "2"]
    assert main([*words, "--output", str(tmp_path / "out")]) == 0
    found = json.loads((tmp_path / "out" / "drift.json").read_text())
    assert found["world"] == "digits" and found["notes"] == []  # the models say which
    assert set(found["curves"]) == {"one", "two", "vae", "true"} and found["curves"]["one"] == found["curves"]["two"]
    page = (tmp_path / "out" / "drift.html").read_text()
    assert page.count("<video") == 8 and page.count("<svg") == len(found["curves"]["true"]) + 1
    assert main([*words, "--frames", "31", "--output", str(tmp_path / "no")]) == 2
    assert main(["evaluate", "drift", "--model", models[0], models[0], "--output", str(tmp_path / "no")]) == 2
    assert "same name" in capsys.readouterr().err and not (tmp_path / "no").exists()


class Remembers:
    """A `BlockModel` that estimates zeros and keeps what it is given as history."""

    def branches(self, history):
        return ("full",)

    def denoiser(self, history, branches):
        return lambda noisy, t: [torch.zeros_like(noisy)]

    def append(self, history, latents, t, actions=None, before=None):
        assert before is None or not torch.equal(before, latents)
        return (*(history or ()), (latents, t))


@pytest.mark.parametrize("noise_time", [0.0, 0.3])
def test_made_frames_get_noise_as_history_which_the_model_is_told_and_those_at_the_start_none(noise_time):
    model, diffusion, sampling = Remembers(), Diffusion(), SamplingConfig(num_steps=2, history_noise=noise_time)
    given = torch.ones(2, 3, 1, 8, 8)
    for start in (None, given):
        state = begin(model, start, (1,), generators_for([0, 1], "cpu"))
        for _ in range(3):
            state = advance(model, state, (3, 4, 8, 8), diffusion, sampling)
        (first, first_t), *made = state.history
        assert torch.equal(first, torch.zeros(2, 3, 4, 8, 8) if start is None else given) and not first_t.any()
        assert len(made) == (1 if start is None else 2)
        for latents, t in made:
            assert torch.equal(t, torch.full((2,), noise_time))
            assert latents.std() == pytest.approx(noise_time, abs=0.02)  # the estimate is 0: what is left is noise
            assert not noise_time or not torch.equal(latents[0], latents[1])


# -------------------- models of other worlds


@pytest.mark.parametrize(
    "world, said", [("none", "clips of no built-in world"), ("kicks", "the world 'kicks'"), ("unknown", "does not say")]
)
@pytest.mark.parametrize("what", ["motion", "drift", "steps"])
def test_a_model_of_another_world_is_refused_or_it_is_said_what_its_figures_mean(tmp_path, capsys, what, world, said):
    tiny_pipeline(world).save_pretrained(tmp_path / "m")
    options = {"motion": ["--num-frames", "5"], "drift": ["--frames", "16"], "steps": ["--num-frames", "5"]}[what]
    words = ["evaluate", what, "--model", str(tmp_path / "m"), "--num-videos", "1", "--num-steps", "1", *options]
    words += [] if what == "motion" else ["--world", "bounce"]
    out = tmp_path / ("figures.json" if what == "motion" else "out")
    assert main([*words, "--output", str(out)]) == 2
    assert said in (line := capsys.readouterr().err) and "--any-world" in line and line.count("\n") == 1
    assert not out.exists()
    assert main([*words, "--output", str(out), "--any-world"]) == 0
    meaning = "mean what they say if" if world == "unknown" else "not how good they are"
    assert meaning in " ".join(capsys.readouterr().out.split())
    page = out if what == "motion" else out / f"{what}.html"
    assert meaning in page.read_text(encoding="utf-8")


def test_a_model_without_the_record_is_read_and_one_with_it_keeps_it(tmp_path):
    for world in ("unknown", "none", "kicks"):
        tiny_pipeline(world).save_pretrained(tmp_path)
        assert VideoPipeline.from_pretrained(tmp_path).config.world == world
    config = json.loads((tmp_path / "model.json").read_text(encoding="utf-8"))
    (tmp_path / "model.json").write_text(json.dumps({k: config[k] for k in config if k != "world"}), encoding="utf-8")
    assert VideoPipeline.from_pretrained(tmp_path).config.world == "unknown"


# -------------------- few steps


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("num_steps", [1, 2, 5])
def test_calls_are_those_made(solver, num_steps):
    calls = []

    def denoiser(noisy, t):
        calls.append(t)
        return noisy

    generators = generators_for([0], "cpu")
    SOLVERS[solver](denoiser, sample_noise((1, 1, 1, 2, 2), generators), timesteps(num_steps), Diffusion(), generators)
    sampling = SamplingConfig(solver=solver, num_steps=num_steps, guidance_scale=1.0)
    assert calls_per_block(sampling) == len(calls)
    assert calls_per_block(sampling.replace(guidance_scale=2.0)) == 2 * len(calls)
    assert calls_per_block(sampling.replace(history_scale=2.0)) == 3 * len(calls)


def test_worsening_has_a_direction():
    reference = {
        "persistence": 0.8,
        "objects_present": 1.0,
        "colour_identity": 1.0,
        "shape_identity": 1.0,
        "caption_accuracy": 0.5,
        "residual_px": 1.0,
        "acceleration_px": 2.0,
        "motion": 1.0,
        "speed_drift": -0.1,
    }
    found = worsening(
        reference | {"persistence": 0.6, "residual_px": 1.5, "motion": 1.2, "speed_drift": 0.1}, reference
    )
    assert found["persistence"] == pytest.approx(0.25) and found["residual_px"] == 0.5
    assert found["motion"] == pytest.approx(0.2) and found["speed_drift"] == 0 == found["caption_accuracy"]


def test_what_cannot_be_measured_is_worse():
    names = ("persistence", "objects_present", "colour_identity", "shape_identity", "caption_accuracy", "motion")
    good = dict.fromkeys((*names, "residual_px", "acceleration_px", "speed_drift"), 1.0)
    bad = good | {"residual_px": np.nan}
    assert worsening(bad, good)["residual_px"] == np.inf and worsening(bad, bad)["residual_px"] == 0
    still = good | {"motion": 0.0}
    assert worsening(good, still)["motion"] == np.inf and worsening(still, still)["motion"] == 0


def test_steps_of_several_models(tmp_path):
    pipeline, captions = tiny_pipeline(), ["a red circle, fast, kicked", "a blue square, slow, kicked"]
    rows = measure_steps(
        {"a": pipeline, "b": pipeline}, captions, ["renoise", "heun"], [2, 1], seed=1, guidance_scale=1.0
    )
    assert [(r["model"], r["solver"], r["num_steps"], r["calls"]) for r in rows[:4]] == [
        ("a", "renoise", 1, 1),
        ("a", "renoise", 2, 2),
        ("a", "heun", 1, 1),
        ("a", "heun", 2, 3),
    ]
    assert [r["persistence"] for r in rows[:4]] == [r["persistence"] for r in rows[4:]]
    assert rows[1]["worse_by"] == 0


def test_steps_from_the_command_line(tmp_path):
    tiny_pipeline("bounce").save_pretrained(tmp_path / "model")
    words = ["evaluate", "steps", "--model", str(tmp_path / "model"), "--num-videos", "2", "--num-steps", "1", "2"]
    assert main([*words, "--solver", "euler", "--num-frames", "5", "--output", str(tmp_path / "out")]) == 0
    rows = json.loads((tmp_path / "out" / "steps.json").read_text())
    assert [row["calls"] for row in rows] == [row["first_calls"] for row in rows] == [2, 4]
    assert (tmp_path / "out" / "steps.html").exists()
    assert main([*words, "--solver", "heun", "--first-steps", "3", "--output", str(tmp_path / "out")]) == 0
    rows = json.loads((tmp_path / "out" / "steps.json").read_text())
    assert [row["calls"] for row in rows] == [2, 6] and [row["first_calls"] for row in rows] == [10, 10]
    assert main([*words, "--num-frames", "1", "--prompt", "a red circle", "--output", str(tmp_path / "out")]) == 0
    rows = json.loads((tmp_path / "out" / "steps.json").read_text())
    assert "spread_px" in rows[0] and rows[0]["videos"] == 2
