"""What is given is kept: last frames, loops, sources at strengths 0 and 1, and frames between which others are put."""

from itertools import product

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
from video_gen.sampling.beyond import Draft, Towards, blend, plan_ending
from video_gen.sampling.config import SamplingConfig
from video_gen.sampling.rollout import advance, begin
from video_gen.sampling.solvers import SOLVERS, generators_for


class Model(Gaussians):
    def append(self, history, latents, t):
        return None


@pytest.fixture(scope="module")
def pipe():
    return tiny_pipeline()


def pictures(count, seed=0):
    return np.random.default_rng(seed).integers(0, 255, (count, 16, 16, 3), dtype=np.uint8)


# -------------------- drafts of blocks


def test_the_model_sees_the_ending_as_one_more_frame_without_noise():
    ending, noisy, seen = torch.randn(1, 3, 1, 5, 6), torch.randn(2, 3, 4, 5, 6), []
    made = Towards(lambda x, t: seen.append((x, t)) or x + 1, ending)(noisy, torch.tensor([0.5, 0.7]))
    ((x, t),) = seen
    assert torch.equal(t, torch.tensor([[0.5] * 4 + [0.0], [0.7] * 4 + [0.0]]))
    assert torch.equal(x[:, :, 4:], ending.expand(2, -1, -1, -1, -1)) and torch.equal(x[:, :, :4], noisy)
    assert torch.equal(made, noisy + 1)


@pytest.mark.parametrize("solver", SOLVERS)
def test_every_solver_leads_to_an_ending(solver):
    """Its answer is where the model, which copies the ending into the frame before it, says it leads."""
    model, ending = Model(), torch.full((1, 3, 1, 5, 6), 2.0)
    state = begin(model, None, (), generators_for([0, 1], "cpu"))
    sampling = SamplingConfig(solver=solver, num_steps=3)

    class Copies(Model):
        def denoiser(self, history, branches):
            def denoise(noisy, t):
                return [torch.cat([noisy[:, :, :-2], noisy[:, :, -1:], noisy[:, :, -1:]], dim=2) for _ in branches]

            return denoise

    block = advance(Copies(), state, (3, 4, 5, 6), model.diffusion, sampling, draft=Draft(ending=ending)).block
    assert block.shape == (2, 3, 4, 5, 6) and torch.equal(block[:, :, -1:], ending.expand(2, -1, -1, -1, -1))


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


def test_the_block_that_leads_to_the_last_frame_is_as_long_as_it_may_be():
    assert plan_ending(0, 17, 1, longest=17) == [1, 16] and plan_ending(1, 17, None, longest=17) == [16]
    assert plan_ending(0, 30, 2, longest=14) == [1, 2, 2, 2, 2, 2, 2, 2, 1, 14] and plan_ending(5, 6, 2, longest=9) == [
        1
    ]
    assert plan_ending(0, 1, None, longest=3) == [1] and plan_ending(0, 2, 1, longest=3) == [1, 1]
    for start, total, size, longest in product(range(4), range(4, 12), (None, 1, 3), (1, 4, 20)):
        assert sum(plan_ending(start, total, size, longest)) == total - start


def test_the_last_frame_is_seen_by_the_last_block_alone(pipe):
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
