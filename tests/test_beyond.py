"""What is given is kept: last frames, loops, sources at strengths 0 and 1, and frames between which others are put."""

import numpy as np
import pytest
import torch
from PIL import Image
from test_guidance import Gaussians
from test_pipeline import tiny_pipeline

from video_gen.cli import main
from video_gen.data.video_file import probe
from video_gen.data.video_writer import write_video
from video_gen.errors import ConfigError, ShapeError
from video_gen.model.diffusion import Diffusion
from video_gen.sample import sample_to_files
from video_gen.sampling.beyond import Draft, blend
from video_gen.sampling.conditioned import TextConditioned


class Model(Gaussians):
    def append(self, history, latents, t, actions=None, before=None):
        return None


@pytest.fixture(scope="module")
def pipe():
    return tiny_pipeline()


def pictures(count, seed=0):
    return np.random.default_rng(seed).integers(0, 255, (count, 16, 16, 3), dtype=np.uint8)


# -------------------- drafts of blocks


def test_a_draft_starts_at_its_strength():
    times, noise, latents = torch.linspace(1, 0, 5), torch.randn(2, 3, 4, 5, 6), torch.randn(1, 3, 4, 5, 6)
    assert Draft(latents, 0.6).times(times).tolist() == pytest.approx([0.6, 0.5, 0.25, 0])
    assert Draft(latents, 0.5).times(times).tolist() == [0.5, 0.25, 0]
    assert torch.equal(Draft(latents, 1.0).times(times), times) and Draft(latents, 0.0).times(times).tolist() == [0]
    assert torch.equal(Draft(latents, 1.0).start(noise, Diffusion()), noise)
    assert torch.equal(Draft(latents, 0.0).start(noise, Diffusion()), latents.expand_as(noise))


# -------------------- a last frame, a loop


@pytest.mark.parametrize(("frames", "block_frames"), [(9, None), (5, 1), (17, 1), (17, 2), (21, 2)])
def test_first_and_last_frame_are_kept(pipe, frames, block_frames):
    first, last = pictures(2)
    made = pipe(image=first, last_image=last, num_frames=frames, block_frames=block_frames)
    assert made.shape[0] == frames
    assert np.array_equal(made[0], first) and np.array_equal(made[-1], last)
    free = pipe(image=first, num_frames=frames, block_frames=block_frames)
    assert not np.array_equal(made[1:-1], free[1:-1])  # the frames before it know of it


def test_blocks_lead_to_the_last_frame_as_far_ahead_as_it_is(pipe, monkeypatch):
    seen, towards = [], TextConditioned.towards

    def watched(self, picture, gap):
        seen.append((picture, gap))
        return towards(self, picture, gap)

    monkeypatch.setattr(TextConditioned, "towards", watched)
    first, last = pictures(2)
    pipe(image=first, last_image=last, num_frames=17, block_frames=1)
    assert [gap for _, gap in seen] == [2, 1, 0]  # of four blocks: the clips of its training have three latent frames
    with pipe.inference():
        torch.testing.assert_close(seen[0][0], pipe.encode(last[None, None]))
    seen.clear()
    pipe(loop=True, num_frames=9, block_frames=1)
    assert [gap for _, gap in seen] == [1, 0]  # the first frame, made by itself, cannot lead to itself
    seen.clear()
    pipe(last_image=last, num_frames=17, block_frames=2, ending_frames=5)
    assert [gap for _, gap in seen] == [4, 2, 0]


def test_the_branch_that_is_not_led_is_that_without_a_frame_ahead(pipe):
    noisy, t = torch.randn(2, 4, 1, 4, 4), torch.tensor([0.4, 0.8])
    with pipe.inference():
        model = pipe.block_model(["a red circle, fast", ""], pipe.config.sampling, 1)
        led = model.towards(pipe.encode(pictures(1)[None]), 2)
        full, history, unled = led.denoiser(None, ("full", "history", "unled"))(noisy, t)
        (plain,) = model.denoiser(None, ("full",))(noisy, t)
        (alone,) = led.denoiser(None, ("full",))(noisy, t)
    assert model.branches(None) == ("full", "history") and led.branches(None) == ("full", "history", "unled")
    torch.testing.assert_close(unled, plain, rtol=0.02, atol=0.02)
    torch.testing.assert_close(full, alone, rtol=0.02, atol=0.02)
    assert (full - unled).abs().max() > 0.05 and (full - history)[0].abs().max() > 0.05


def test_what_comes_before_the_end_knows_nothing_of_it(pipe):
    first, last, other = pictures(3)
    settings = dict(image=first, num_frames=17, block_frames=1, ending_frames=2, solver="two_step")
    a, b = (pipe(last_image=one, **settings) for one in (last, other))
    assert np.array_equal(a[:9], b[:9]) and not np.array_equal(a[9:16], b[9:16])


@pytest.mark.parametrize("given", [True, False])
def test_a_loop_closes(pipe, given):
    start = {"image": pictures(1)[0]} if given else {}
    made = pipe("a red circle, fast", seed=2, loop=True, num_frames=17, block_frames=2, **start)
    assert made.shape[0] == 16  # a whole number of latent frames
    first = start["image"] if given else pipe("a red circle, fast", seed=2, num_frames=1)[0]
    assert np.array_equal(made[0], first)
    if given:  # it is the in-between of a frame and itself, whose seam is that frame
        whole = pipe("a red circle, fast", seed=2, last_image=first, num_frames=17, block_frames=2, **start)
        assert np.array_equal(whole[-1], whole[0]) and np.array_equal(whole[:-1], made)


def test_one_last_frame_serves_several_videos(pipe):
    first, last = pictures(2)
    both = pipe.generate(
        ["", "a red circle, fast"], seeds=[1, 2], image=first, last_image=last, num_frames=9, block_frames=1
    )
    assert both.shape == (2, 9, 16, 16, 3) and (both[:, -1] == last).all()
    alone = pipe("a red circle, fast", seed=2, image=first, last_image=last, num_frames=9, block_frames=1)
    assert abs(both[1].astype(int) - alone).max() <= 2


def test_loops_are_each_their_own(pipe):
    both = pipe.generate(["", ""], seeds=[1, 2], loop=True)
    assert both.shape == (2, 8, 16, 16, 3) and abs(both[1].astype(int) - pipe(seed=2, loop=True)).max() <= 2


# -------------------- a source, at a strength


def test_strength_0_is_the_reconstruction(pipe):
    source = pictures(9)
    with pipe.inference():
        expected = pipe.decode(pipe.encode(source[None]), None)[0][0]
    assert np.array_equal(pipe(source=source, strength=0.0), expected)
    blocks = pipe(source=source, strength=0.0, block_frames=1)
    assert abs(blocks.astype(int) - expected).max() <= 2


@pytest.mark.parametrize("block_frames", [None, 2])
def test_strength_1_is_text_to_video(pipe, block_frames):
    options = dict(seed=3, block_frames=block_frames)
    made = pipe("a red circle, fast", source=pictures(17), strength=1.0, **options)
    assert np.array_equal(made, pipe("a red circle, fast", num_frames=17, **options))
    assert not np.array_equal(made, pipe("a red circle, fast", source=pictures(17), strength=0.6, **options))


def test_less_strength_stays_nearer(pipe):
    source = pictures(9)
    still = pipe(source=source, strength=0.0).astype(int)
    away = [abs(pipe(source=source, strength=s).astype(int) - still).mean() for s in (0.05, 0.3, 1.0)]
    assert 0 < away[0] < away[1] < away[2]


# -------------------- a higher frame rate


@pytest.mark.parametrize(("count", "factor"), [(5, 2), (4, 3), (7, 4)])
def test_interpolation_keeps_the_frames_given(pipe, count, factor):
    video = pictures(count)
    made = pipe.interpolate(video, factor, block_frames=2)
    assert made.shape[0] == 1 + (count - 1) * factor
    assert np.array_equal(made[::factor], video)
    assert not np.array_equal(made, pipe.interpolate(video, factor, block_frames=2, seed=1))


def test_blend():
    frames = np.array([0, 100, 40], np.uint8)[:, None, None, None].repeat(3, axis=3)
    assert blend(frames, 4)[:, 0, 0, 0].tolist() == [0, 25, 50, 75, 100, 85, 70, 55, 40]


def test_mistakes(pipe):
    first, source = pictures(1)[0], pictures(9)
    for arguments, message in (
        (dict(source=source, image=first), "both source and image"),
        (dict(source=source, loop=True), "both source and loop"),
        (dict(loop=True, last_image=first), "both last_image and loop"),
        (dict(strength=0.5), "no source"),
        (dict(source=source, strength=1.5), r"strength is 1\.5"),
        (dict(source=source[:8], num_frames=8), "give num_frames 5$"),
        (dict(source=source, num_frames=7), "give num_frames 5 or 9"),
        (dict(source=source, num_frames=13), "give num_frames 9$"),
        (dict(last_image=first.astype(float)), "uint8"),
    ):
        with pytest.raises(ShapeError, match=message):
            pipe("x", **arguments)
    for video, factor in ((source, 1), (source[:1], 2)):
        with pytest.raises(ShapeError, match="factor"):
            pipe.interpolate(video, factor)


def test_commands_write_what_was_asked(pipe, tmp_path):
    first, v = tmp_path / "first.png", tmp_path / "v.mp4"
    Image.fromarray(pictures(1)[0]).save(first)
    write_video(v, pictures(5), 8)
    pipe.save_pretrained(tmp_path / "model")
    for words, frames, fps in (
        (["--image", str(first), "--last-image", str(first)], 9, 8),
        (["--loop"], 8, 8),
        (["--source", str(v), "--strength", "0.6"], 5, 8),
        (["--interpolate", "2", "--source", str(v)], 9, 16),
    ):
        output = tmp_path / words[0]
        assert main(["sample", "x", "--model", str(tmp_path / "model"), "--output", str(output), *words]) == 0
        info = probe(output / "x_seed_0.mp4")
        assert (info.num_frames, round(info.fps)) == (frames, fps)
    with pytest.raises(ConfigError, match="without a source"):
        sample_to_files(pipe, "x", tmp_path, interpolate=2)
    with pytest.raises(ConfigError, match="both interpolate and loop"):
        sample_to_files(pipe, "x", tmp_path, source=v, interpolate=2, loop=True)
