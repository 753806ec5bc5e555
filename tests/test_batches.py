"""Buckets: where a file goes, how many clips make a step, and in which order."""

import numpy as np
import pytest

from video_gen.arguments.data import DataCheck
from video_gen.command_line import read
from video_gen.data.batches import WORK_SLACK, BatchSampler, balanced_batch_sizes, volume
from video_gen.data.check import check, render
from video_gen.data.clips import Clips
from video_gen.data.config import ClipConfig
from video_gen.data.video_info import VideoInfo
from video_gen.data.video_writer import write_video
from video_gen.data.windows import best_bucket
from video_gen.errors import ConfigError
from video_gen.model.transformer_config import TransformerConfig

SMALL, LONG, WIDE, IMAGE = (17, 64, 64), (33, 64, 64), (33, 48, 80), (1, 64, 64)


def info(height: int, width: int, seconds: float = 0.0) -> VideoInfo:
    kind = "video" if seconds else "image"
    return VideoInfo(kind, "h264", width, height, 16, round(16 * seconds) or 1, seconds, 0, False, "yuv420p")


def bucketed(*buckets, **overrides) -> ClipConfig:
    frames, height, width = buckets[0]
    main = dict(num_frames=frames, height=height, width=width, fps=16)
    return ClipConfig(buckets=buckets, **main | overrides)


# -------------------- which bucket


@pytest.mark.parametrize(
    ("file", "want"),
    [
        (info(480, 480, 3), SMALL),  # form before length
        (info(480, 800, 3), WIDE),
        (info(450, 800, 3), WIDE),
        (info(480, 800, 1.5), SMALL),  # too short for the one of its form
        (info(480, 480, 1), None),  # a video is no image, even if short
        (info(300, 300), IMAGE),
        (info(480, 800), (1, 48, 80)),  # images fit any of the forms
    ],
)
def test_a_file_goes_to_the_bucket_that_fits_it_best(file, want):
    assert best_bucket(file, bucketed(SMALL, WIDE, IMAGE)) == want
    assert best_bucket(file, bucketed(IMAGE, WIDE, SMALL)) == want  # whatever their order


def test_of_one_form_the_longest_then_the_largest_without_enlarging():
    assert best_bucket(info(480, 480, 3), bucketed(SMALL, LONG)) == LONG
    assert best_bucket(info(480, 480, 2), bucketed(SMALL, LONG)) == SMALL
    large = (17, 256, 256)
    assert best_bucket(info(480, 480, 3), bucketed(SMALL, large)) == large
    assert best_bucket(info(200, 200, 3), bucketed(SMALL, large)) == SMALL
    assert best_bucket(info(40, 40, 3), bucketed(SMALL, large)) == SMALL
    assert best_bucket(info(40, 40, 3), bucketed(IMAGE)) == IMAGE  # a stage of images takes frames of videos


def test_one_size_is_one_bucket():
    config = ClipConfig(num_frames=17, height=64, width=64, fps=16)
    assert config.sizes == (SMALL,)
    assert best_bucket(info(480, 800, 3), config) == SMALL and best_bucket(info(90, 90), config) == IMAGE
    assert best_bucket(info(90, 90, 1), config) is None


def test_bucket_settings_are_checked():
    with pytest.raises(ConfigError, match=r"say 17x64x64, which is none of the buckets 33x48x80; set them"):
        ClipConfig().replace(buckets=[WIDE])
    with pytest.raises(ConfigError, match="twice"):
        ClipConfig().replace(buckets=[SMALL, SMALL])
    with pytest.raises(ConfigError, match="bucket 17x4x64"):
        ClipConfig().replace(buckets=[SMALL, (17, 4, 64)])
    words = ["--buckets", "17", "64", "64", "33", "48", "80"]
    assert read(DataCheck, words, "video-gen data check").data.buckets == (SMALL, WIDE)


def test_clips_have_the_size_of_their_bucket_and_the_check_counts_them(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for name, (frames, height, width) in {"a": (20, 16, 16), "b": (20, 16, 24), "c": (10, 16, 24)}.items():
        write_video(tmp_path / f"{name}.mp4", rng.integers(0, 255, (frames, height, width, 3), dtype=np.uint8), 8)
    write_video(tmp_path / "d.png", rng.integers(0, 255, (1, 20, 20, 3), dtype=np.uint8), 8)
    config = bucketed((5, 8, 8), (9, 8, 16), folder=tmp_path, fps=8, validation_fraction=0)
    clips = Clips(config)
    assert clips.buckets == [(5, 8, 8)] * 4 + [(9, 8, 16)] * 3 + [(1, 8, 8)]
    assert [clips[i].video.shape[:3] for i in range(len(clips))] == clips.buckets
    report = check(config, workers=1)
    assert report.clips == {(5, 8, 8): 4, (9, 8, 16): 3, (1, 8, 8): 1}
    capsys.readouterr()
    render(report)
    assert "clips of 9x8x16" in capsys.readouterr().out


# -------------------- how many


@pytest.mark.parametrize("batch_size", [2, 8, 12, 16, 64, 256])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_every_step_costs_about_the_same(batch_size, accumulation):
    model = TransformerConfig(width=256, depth=6, patch_size=2)
    latent = {(1, 8, 8), (5, 8, 8), (9, 6, 10), (9, 8, 8), (21, 16, 16)}
    for work in (volume, lambda bucket: model.forward_flops(*bucket)):
        sizes = balanced_batch_sizes(latent, batch_size, work, accumulation)
        assert next(iter(sizes.items())) == ((21, 16, 16), batch_size)
        costs = [size * work(bucket) for bucket, size in sizes.items()]
        assert max(costs) == costs[0]
        for (bucket, size), cost in zip(sizes.items(), costs):
            assert size % accumulation == 0 and size >= batch_size
            assert cost >= (1 - WORK_SLACK) * costs[0] - accumulation * work(bucket)  # whole samples


def test_batches_are_round_numbers_where_the_slack_allows():
    cost = {(2, 1, 1): 1.9, (1, 1, 1): 1.0}.__getitem__
    assert balanced_batch_sizes({(2, 1, 1), (1, 1, 1)}, 16, cost) == {(2, 1, 1): 16, (1, 1, 1): 28}
    assert balanced_batch_sizes({(1, 1, 1)}, 6, cost) == {(1, 1, 1): 6}
    assert balanced_batch_sizes({(2, 1, 1), (1, 1, 1)}, 256, cost) == {(2, 1, 1): 256, (1, 1, 1): 448}


def test_work_counts_what_attention_sees():
    joint = TransformerConfig(width=64, depth=6, head_dim=16, patch_size=1, mlp_ratio=4)
    n = 5 * 4 * 4
    assert joint.tokens(5, 4, 4) == n
    assert joint.forward_flops(5, 4, 4) == 6 * (2 * n * (4 * 64**2 + 8 * 64**2) + 4 * n * n * 64)
    parts = joint.replace(attention="factorised", joint_every=6)  # space, time, space, time, space, joint
    seen = 3 * n * 16 + 2 * n * 5 + n * n
    assert parts.forward_flops(5, 4, 4) == 6 * 2 * n * (4 * 64**2 + 8 * 64**2) + 4 * seen * 64


# -------------------- in which order


def test_batches_are_a_function_of_the_step_and_cover_an_epoch():
    buckets = [(5, 4, 4)] * 21 + [(1, 4, 4)] * 41
    sampler = BatchSampler(buckets, 4, seed=3)
    assert sampler.batch_sizes == {(5, 4, 4): 4, (1, 4, 4): 20}
    for epoch in range(2):
        steps = [sampler.indices(epoch * sampler.steps_per_epoch + i) for i in range(sampler.steps_per_epoch)]
        assert {i for step in steps for i in step} == set(range(62))
        assert all(len({buckets[i] for i in step}) == 1 for step in steps)
        assert all(len(step) == sampler.batch_sizes[buckets[step[0]]] for step in steps)
    again = BatchSampler(buckets, 4, seed=3)
    assert [again.indices(s) for s in (9, 2, 9)] == [sampler.indices(s) for s in (9, 2, 9)]
    assert BatchSampler(buckets, 4, seed=4).indices(0) != sampler.indices(0)
    assert len(BatchSampler(buckets[:2], 8, seed=0).indices(5)) == 8
    per_step = [len(sampler.indices(s)) for s in range(sampler.steps_per_epoch)]
    assert sampler.mean_per_step(lambda bucket: 1) == np.mean(per_step)


def test_the_first_steps_show_every_bucket_the_largest_first():
    buckets = [(1, 4, 4)] * 90 + [(9, 4, 4)] * 40 + [(5, 4, 4)] * 50
    for seed in range(4):
        sampler = BatchSampler(buckets, 4, seed)
        first = [buckets[sampler.indices(step)[0]] for step in range(3)]
        assert first == [(9, 4, 4), (5, 4, 4), (1, 4, 4)]
    later = {
        tuple(buckets[sampler.indices(epoch * sampler.steps_per_epoch + i)[0]] for i in range(3))
        for epoch in range(1, 9)
    }
    assert len(later) > 2


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_share_one_batch(world_size):
    buckets = [(5, 4, 4)] * 50 + [(3, 4, 4)] * 30
    whole = BatchSampler(buckets, 8, seed=1)
    parts = [BatchSampler(buckets, 8, seed=1, rank=r, world_size=world_size) for r in range(world_size)]
    for step in range(20):
        shares = [part.indices(step) for part in parts]
        assert [i for share in shares for i in share] == whole.indices(step)
        assert len({len(share) for share in shares}) == 1
    with pytest.raises(ConfigError, match="multiple of ranks times accumulation, 4 x 1"):
        BatchSampler(buckets, 6, seed=1, world_size=4)
    with pytest.raises(ConfigError, match="4 x 4"):
        BatchSampler(buckets, 8, seed=1, world_size=4, accumulation=4)
