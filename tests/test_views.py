"""Views of clips: other parts of the same footage, the same every time, in training and nowhere else."""

from pathlib import Path

import numpy as np
import pytest
import torch
from photographs import NAMES, photograph
from PIL import Image
from test_latents import encode
from test_training import assert_same_run, stop_after

from video_gen.data.action_files import write_vocabulary
from video_gen.data.actions import write_actions
from video_gen.data.clips import Clips, to_video, videos_of
from video_gen.data.config import ClipConfig
from video_gen.data.latents import LatentSet, _index_file, known_latents
from video_gen.data.prepare.preparing import prepare
from video_gen.data.prepare.settings import KeepSettings, PrepareConfig
from video_gen.data.prepare.workers import Workers
from video_gen.data.video_info import VideoInfo
from video_gen.data.video_writer import write_video
from video_gen.data.views import MIDDLE, View, fit, views_of
from video_gen.errors import ConfigError
from video_gen.model.transformer_config import TextConfig, TransformerConfig
from video_gen.model.vae_config import VAEConfig
from video_gen.train import train_diffusion, train_vae
from video_gen.training.config import LoopConfig
from video_gen.training.diffusion_task import DiffusionTask
from video_gen.training.loop import TrainingInterrupted
from video_gen.training.recipes import DiffusionRun, VAERun
from video_gen.vocabulary import Vocabulary

BUCKETS = ((9, 32, 32), (9, 24, 40), (1, 32, 32))


def info(width, height):
    return VideoInfo("video", "h264", width, height, 8.0, 9, 1.125, 0, False, "yuv420p")


def config(**changes):
    return ClipConfig(**{"num_frames": 9, "height": 32, "width": 32, "fps": 8.0, "views": 40} | changes)


def test_views_lie_in_the_picture_and_come_no_closer_than_it_has_pixels():
    for size, most in (((96, 64), 1.5), ((40, 40), 1.25), ((64, 200), 1.5)):
        found = views_of("a", info(*size), (9, 32, 32), config())
        assert found[0] == MIDDLE and len(set(found)) == 40 and len({view.suffix for view in found}) == 40
        assert all(0 <= view.x <= 1 and 0 <= view.y <= 1 and 1 <= view.zoom <= most for view in found)
        assert max(view.zoom for view in found) > 1 + 0.8 * (most - 1) and not any(view.mirrored for view in found)
    assert (
        found == views_of("a", info(*size), (9, 32, 32), config()) != views_of("b", info(*size), (9, 32, 32), config())
    )


def test_where_there_is_nothing_else_to_see_there_are_no_more_views():
    same = info(32, 32)
    assert views_of("a", same, (9, 32, 32), config()) == [MIDDLE]
    assert views_of("a", same, (9, 32, 32), config(flip=True)) == [MIDDLE, View(mirrored=True)]
    beside = views_of("a", info(64, 32), (9, 32, 32), config(flip=True))
    assert {view.y for view in beside} == {0.5} and {view.zoom for view in beside} == {1.0} and len(beside) == 40
    assert sum(view.mirrored for view in beside) == 20


def test_a_view_shows_the_part_that_it_says():
    picture = photograph(NAMES[0]).resize((120, 80))
    frame = np.asarray(picture)
    shown = fit(frame, 32, 32, View(0.25, 1.0, 2.0))
    side = 80 / 2
    box = (0.25 * (120 - side), 80 - side, 0.25 * (120 - side) + side, 80)
    assert np.array_equal(shown, np.asarray(picture.resize((32, 32), Image.Resampling.LANCZOS, box=box)))
    assert np.array_equal(fit(frame, 32, 32, View(0.25, 1.0, 2.0, True)), shown[:, ::-1])
    assert np.array_equal(fit(frame, 80, 120, View(mirrored=True)), frame[:, ::-1])
    assert np.array_equal(fit(frame, 32, 32), fit(frame, 32, 32, MIDDLE))


def scene(number, width, height, frames=18):
    """A camera over a photograph."""
    picture, rng = photograph(NAMES[number % len(NAMES)]), np.random.default_rng(number)
    left, top, step = *rng.uniform(0, 100, 2), rng.uniform(1, 3)
    boxes = [(left + i * step, top, left + i * step + 2 * width, top + 2 * height) for i in range(frames)]
    return np.stack([np.asarray(picture.resize((width, height), box=box)) for box in boxes])


@pytest.fixture(scope="module")
def footage(tmp_path_factory):
    """Wide and square films and pictures, prepared into shards."""
    pile, output = tmp_path_factory.mktemp("pile"), tmp_path_factory.mktemp("set")
    for number in range(6):
        width, height = (80, 48) if number % 2 else (64, 64)
        write_video(pile / f"{number}.mp4", scene(number, width, height), 8)
        Image.fromarray(scene(number + 6, 64, 64, 1)[0]).save(pile / f"{number}.png")
    keep = KeepSettings(duplicates=True, min_motion=0.0, min_sharpness=0.0)
    made = prepare(pile, output, PrepareConfig(format="shards", keep=keep), Workers(1))
    assert len(made.kept) == 12
    return output


def data(folder, **changes):
    settings = {"folder": folder, "buckets": BUCKETS, "validation_fraction": 0.3, "views": 3, "flip": True}
    return config(**settings | changes)


def test_clips_have_views_where_they_train_and_one_where_they_are_held_out(footage):
    plain, viewed = Clips(data(footage, views=1, flip=False)), Clips(data(footage))
    assert {bucket for bucket in viewed.buckets} == set(BUCKETS) and len(set(viewed.ids)) == len(viewed)
    assert viewed.only("validation").ids == plain.only("validation").ids
    train, once = viewed.only("train"), plain.only("train")
    assert len(train) == 3 * len(once) and train.ids[::3] == once.ids and train.captions[::3] == once.captions
    for i in range(0, len(train), 3):
        assert np.array_equal(train[i].video, once[i // 3].video)
        assert train[i].video.shape == train[i + 1].video.shape and not np.array_equal(
            train[i].video, train[i + 1].video
        )
    again = Clips(data(footage)).only("train")
    assert again.ids == train.ids and all(np.array_equal(again[i].video, train[i].video) for i in range(len(train)))


def test_several_threads_decode_the_same(footage):
    clips = Clips(data(footage)).only("train")
    same = [i for i, bucket in enumerate(clips.buckets) if bucket == BUCKETS[0]]
    kept = Clips(data(footage)).only("train", keep_bytes=1 << 20)
    for _ in range(2):
        assert np.array_equal(videos_of(clips, same), videos_of(kept, same, threads=4))


def test_views_are_encoded_once_and_what_was_encoded_without_them_stays(footage, tmp_path):
    plain, viewed = data(footage, views=1, flip=False), data(footage)
    once, _ = encode(plain, tmp_path)
    more, found = encode(viewed, tmp_path)
    assert once + more == len(Clips(viewed)) == len(found)
    assert known_latents(tmp_path, viewed) == found.entries and known_latents(tmp_path, plain) is not None
    clips = Clips(viewed)
    encoded = LatentSet(tmp_path, found.entries)
    for i in range(len(clips)):
        video = to_video(torch.from_numpy(np.array(clips[i].video))[None])[0]
        assert torch.equal(encoded[i], video[:, ::4, ::4, ::4].half().float())


def test_an_index_of_earlier_keeps_its_name():
    assert _index_file(Path("z"), ClipConfig(folder=Path("clips"))).name == "index-014e223c837bce20.jsonl"


def test_mirroring_is_refused_where_it_is_wrong(tmp_path):
    with pytest.raises(ConfigError, match="flip mirrors every second view, and views is 1"):
        config().replace(views=1, flip=True)
    words = Vocabulary(keys=("left", "right"), fps=8)
    write_video(tmp_path / "a.mp4", scene(0, 64, 64), 8)
    write_vocabulary(tmp_path, words)
    write_actions(tmp_path / "a.mp4", np.zeros((18, 2)), words)
    with pytest.raises(
        ConfigError, match=r"data\.flip: .* has actions, such as left, which mirroring would make wrong"
    ):
        Clips(data(tmp_path))


# -------------------- training


LOOP = LoopConfig(train_steps=6, batch_size=2, validate_every=3, sample_every=0, checkpoint_every=3, log_every=1)
LOOP = LOOP.replace(keep="last", tensorboard=False, precision="float32")


def same_whether_stopped(train, run, folder, monkeypatch):
    """Train, and train another time with a stop on the way."""
    train(run, folder / "whole")
    with monkeypatch.context() as patch, pytest.raises(TrainingInterrupted):
        stop_after(patch, 4)
        train(run, folder / "cut")
    train(run, folder / "cut")
    assert_same_run(folder / "whole", folder / "cut", step=6)
    return folder / "whole" / "model"


@pytest.mark.slow
def test_vae_and_transformer_train_on_films_and_pictures_of_two_forms_and_go_on_bit_for_bit(
    footage, tmp_path, monkeypatch
):
    vae = VAEConfig(widths=(16,), latent_channels=4, spatial_stride=4)
    run = VAERun(data=data(footage), vae=vae, loop=LOOP, crop=16)
    trained = same_whether_stopped(train_vae, run, tmp_path / "vae", monkeypatch)
    transformer = TransformerConfig(width=32, depth=2, head_dim=16)
    run = DiffusionRun(
        data=data(footage),
        vae=trained / "vae",
        latents=tmp_path / "latents",
        transformer=transformer,
        text=TextConfig(width=16),
        loop=LOOP,
        num_samples=1,
    )
    shapes = set()
    batch = DiffusionTask.batch
    monkeypatch.setattr(DiffusionTask, "batch", lambda self, step: seen(batch(self, step), shapes))
    same_whether_stopped(train_diffusion, run, tmp_path / "diffusion", monkeypatch)
    assert {shape[2:] for shape in shapes} == {(3, 8, 8), (3, 6, 10), (1, 8, 8)}


def seen(batch, shapes):
    shapes.add(tuple(batch["latents"].shape))
    return batch
