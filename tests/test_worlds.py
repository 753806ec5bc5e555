"""The built-in worlds: exact mechanics, deterministic clips, captions that read back, files that hold what was drawn."""

import contextlib
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from video_gen.data.captions import (
    COLOURS,
    SHAPES,
    Scene,
    caption,
    held_out,
    parse_caption,
    random_captions,
    random_scene,
)
from video_gen.data.config import WorldConfig
from video_gen.data.mechanics import advance, next_contact
from video_gen.data.processes import in_processes
from video_gen.data.video_file import probe, read_frames
from video_gen.data.worlds import IMAGES, draw, load_state, object_mask, object_radius, render_world, simulate, world_of
from video_gen.errors import ConfigError, DataError

BOX = (5.0, 100.0, 80.0)  # radius, width, height


def discs(n=6, seed=0):
    rng = np.random.default_rng(seed)
    x = np.array([[12.0 + 14 * i, 12 + 9 * (i % 3) + 20 * (i % 2)] for i in range(n)])
    return x, rng.normal(size=(n, 2)) * 3


def small(**overrides):
    return WorldConfig(**dict(num_clips=3, num_frames=9, height=32, width=32) | overrides)


def test_energy_is_kept_and_momentum_through_contacts_of_pairs():
    x, v = discs()
    for _ in range(60):
        _, w = advance(x, v, *BOX, 1.0)
        assert abs((w**2).sum() - (v**2).sum()) < 1e-9
        x, v = advance(x, v, *BOX, 1.0)
    far = np.array([[40.0, 40.0], [60.0, 41.0]])
    u = np.array([[4.0, 0.3], [-3.0, 0.1]])
    _, after = advance(far, u, *BOX, 3.0)
    assert not np.allclose(after, u)
    np.testing.assert_allclose(after.sum(0), u.sum(0), atol=1e-12)


def test_time_can_be_reversed_and_cut():
    x, v = discs(4)
    y, w = advance(x, v, *BOX, 25.0)
    back, speed = advance(y, -w, *BOX, 25.0)
    np.testing.assert_allclose(back, x, atol=1e-6)
    np.testing.assert_allclose(speed, -v, atol=1e-6)
    z, _ = advance(*advance(x, v, *BOX, 11.3), *BOX, 13.7)
    np.testing.assert_allclose(z, y, atol=1e-6)


def test_next_contact_is_when_the_velocity_changes():
    x, v = discs(3, seed=4)
    times = next_contact(x, v, *BOX)
    first = times.min()
    assert np.allclose(advance(x, v, *BOX, first - 1e-6)[1], v)
    assert not np.allclose(advance(x, v, *BOX, first + 1e-6)[1], v)


@pytest.mark.parametrize("kind", ["bounce", "kicks"])
def test_nothing_leaves_or_overlaps(kind):
    for index in range(20):
        world = simulate(small(kind=kind, num_frames=40), index)
        assert world.positions.min() >= world.radius - 1e-9
        assert world.positions.max() <= 32 - world.radius + 1e-9
        drawn = sum(
            object_mask(shape, world.positions[:, i], object_radius(32, 32), 32, 32)
            for i, (_, shape) in enumerate(world.looks)
        )
        assert drawn.max() <= 1 + 1e-9


def test_kicks_change_velocity_where_they_say():
    world = simulate(small(kind="kicks", num_frames=60), 1)
    assert world.kicked.any() and not world.kicked.all()
    assert not simulate(small(kind="bounce", num_frames=60), 1).kicked.any()


def test_a_pendulum_keeps_its_energy():
    world = simulate(small(kind="pendulum", num_frames=60), 0)
    height = -world.positions[:, 0, 1]
    energy = 0.5 * (world.velocities[:, 0] ** 2).sum(-1)
    gravity = -(energy[30] - energy[0]) / (height[30] - height[0])
    np.testing.assert_allclose(energy + gravity * height, energy[0] + gravity * height[0], atol=1e-6)


@pytest.mark.parametrize("kind", ["bounce", "pendulum", "digits", "kicks"])
def test_clips_depend_on_the_seed_and_the_index_alone(kind):
    one, again = (draw(simulate(small(kind=kind), 1)) for _ in range(2))
    assert np.array_equal(one, again) and one.shape == (9, 32, 32, 3) and one.dtype == np.uint8
    assert not np.array_equal(one, draw(simulate(small(kind=kind), 2)))
    assert not np.array_equal(one, draw(simulate(small(kind=kind, seed=1), 1)))
    assert not np.array_equal(one[0], one[-1])


def test_captions_read_back_and_held_out_combinations_stay_out():
    for split in ("train", "held_out"):
        for text in random_captions(300, 0, split):
            scene = parse_caption(text)
            assert scene is not None and caption(scene) == text
            assert any(held_out(*o) for o in scene.objects) == (split == "held_out")
    out = [(c, s) for c in COLOURS for s in SHAPES if held_out(c, s)]
    assert len(out) == 4
    two = Scene((("blue", "square"), ("red", "circle"), ("red", "circle")), "fast")
    assert caption(two) == "two red circles and a blue square, fast"
    for wrong in (
        "",
        "a red circle",
        "a red dog, fast",
        "two red circle, fast",
        "a blue square and a red circle, fast",
    ):
        assert parse_caption(wrong) is None
    orange = Scene((("orange", "square"), ("red", "circle"), ("orange", "circle")), "slow")
    assert caption(orange) == "a red circle, an orange circle and an orange square, slow"
    assert parse_caption("a red circle, a orange circle and an orange square, slow") == orange
    assert parse_caption("an red circle, slow") is None
    rng = np.random.default_rng(0)
    assert {len(random_scene(rng, "train").objects) for _ in range(50)} == {1, 2, 3}


@pytest.mark.parametrize("kind", ["bounce", "kicks", "pendulum", "digits"])
def test_captions_have_the_article_that_english_wants(kind):
    pytest.importorskip("sklearn")
    texts = " ".join(simulate(small(kind=kind, num_frames=1), i).caption for i in range(150))
    assert not re.search(r"\ba (?=[aeiou8])|\ban (?=[^aeiou8])", texts)
    assert re.search(r"\ban [o8]", texts) and re.search(r"\ba ", texts)


def test_areas_and_centres_of_shapes():
    for shape, share in (("circle", 1.0), ("square", 1.0), ("triangle", 0.8)):
        mask = object_mask(shape, np.array([31.3, 32.6]), 9.0, 64, 64)
        assert abs(mask.sum() / (np.pi * 81) - share) < 0.01
        centre = (mask * (np.arange(64) + 0.5)).sum() / mask.sum(), (mask.T * (np.arange(64) + 0.5)).sum() / mask.sum()
        np.testing.assert_allclose(centre, (31.3, 32.6), atol=0.1)
    with pytest.raises(ConfigError, match="hexagon"):
        object_mask("hexagon", np.zeros(2), 3.0, 8, 8)


def test_files_hold_what_was_drawn_and_a_second_run_goes_on(tmp_path):
    config = small(height=64, width=48, fps=12)
    assert render_world(config, tmp_path) == 0
    rows = [json.loads(line) for line in (tmp_path / "metadata.jsonl").read_text().splitlines()]
    assert len(rows) == 3
    info = probe(tmp_path / "clip_000001.mp4")
    assert (info.width, info.height, info.num_frames, info.fps) == (48, 64, 9, 12)
    world = load_state(tmp_path, "clip_000001.mp4")
    assert world.caption == rows[1]["text"] == simulate(config, 1).caption
    drawn = draw(world)
    seen = read_frames(tmp_path / "clip_000001.mp4", [i / 12 for i in range(9)])
    assert (
        np.square(seen.astype(float) - drawn).mean() < 90
    )  # better than 28 dB; halved colour resolution is most of it
    before = (tmp_path / "clip_000000.mp4").stat().st_mtime_ns
    times = [i / 12 for i in range(9)]
    content = read_frames(tmp_path / "clip_000002.mp4", times).astype(int)
    (tmp_path / "clip_000002.mp4").unlink()
    assert render_world(config, tmp_path) == 2
    again = read_frames(tmp_path / "clip_000002.mp4", times)
    assert abs(again - content).max() <= 8  # the same scene; x264 does not always choose the same bits
    assert (tmp_path / "clip_000000.mp4").stat().st_mtime_ns == before


@pytest.mark.slow
def test_two_processes_make_the_same_files(tmp_path):
    """The split goes by content, so it would move with a byte. Many clips: not every one shows it."""
    for name in ("one", "two"):
        options = ["--num-clips", "300", "--num-frames", "17", "--height", "32", "--width", "32", "--output", name]
        command = [sys.executable, "-c", "from video_gen.cli import main; main()", "worlds", *options]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    one, two = ({p.name: p.read_bytes() for p in (tmp_path / name).glob("*.mp4")} for name in ("one", "two"))
    assert len(one) == 300 and [name for name in one if one[name] != two[name]] == []


def test_images_show_further_scenes(tmp_path):
    config = small(num_clips=1, num_images=2)
    render_world(config, tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "metadata.jsonl").read_text().splitlines()]
    assert [row["file_name"] for row in rows] == ["clip_000000.mp4", "image_000000.png", "image_000001.png"]
    world = simulate(config.replace(num_frames=1), IMAGES + 1)
    assert rows[2]["text"] == world.caption
    np.testing.assert_array_equal(read_frames(tmp_path / "image_000001.png", [0.0]), draw(world))
    assert render_world(small(num_clips=2, num_images=3), tmp_path) == 3
    with pytest.raises(DataError, match=r"3 images .* num_images 0"):
        render_world(small(num_clips=2), tmp_path)


# -------------------- stopping


class Stopped(Exception):
    pass


def names_and_captions(folder):
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()]
    return {row["file_name"]: row["text"] for row in rows}


def whole(folder):
    """What is there has its caption, and nothing is half written."""
    files = {p.name for p in folder.iterdir()} - {"state", "world.json", "metadata.jsonl"}
    return bool(files) and files == set(names_and_captions(folder))


@pytest.mark.parametrize("how", [Stopped, KeyboardInterrupt])
@pytest.mark.parametrize("workers", [1, 2])
def test_what_is_there_at_a_stop_counts_and_has_its_captions(tmp_path, workers, how):
    def stop_at_5(done, total):
        if done == 5:
            raise how

    with pytest.raises(how):
        render_world(small(num_clips=90), tmp_path, stop_at_5, workers)
    found = names_and_captions(tmp_path)
    assert whole(tmp_path) and 5 <= len(found) < 90
    assert all(text == simulate(small(), int(n[5:11])).caption for n, text in found.items())
    assert not multiprocessing.active_children()
    assert render_world(small(num_clips=60), tmp_path) >= 5  # fewer than were asked for, more than there are
    assert whole(tmp_path) and len(names_and_captions(tmp_path)) == 60
    with pytest.raises(DataError, match=r"60 clips .* num_clips 59"):
        render_world(small(num_clips=59), tmp_path)


def test_every_file_has_its_caption_while_the_work_goes_on(tmp_path):
    def look(done, total):
        assert not done or whole(tmp_path)

    render_world(small(num_images=2), tmp_path, look)


def test_captions_that_somebody_changed_stay(tmp_path):
    render_world(small(), tmp_path)
    changed = (tmp_path / "metadata.jsonl").read_text().replace('"text": "', '"text": "my ')
    (tmp_path / "metadata.jsonl").write_text(changed)
    (tmp_path / "clip_000001.mp4").unlink()
    assert render_world(small(), tmp_path) == 2
    assert (tmp_path / "metadata.jsonl").read_text() == changed


def test_a_caption_that_a_kill_tore_is_written_again(tmp_path):
    render_world(small(), tmp_path)
    lines = (tmp_path / "metadata.jsonl").read_text(encoding="utf-8")
    (tmp_path / "metadata.jsonl").write_text(lines[:-7], encoding="utf-8")
    assert render_world(small(), tmp_path) == 3
    assert (tmp_path / "metadata.jsonl").read_text(encoding="utf-8") == lines


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds processes in /proc")
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_a_stop_ends_all_processes_at_once(tmp_path, sent):
    options = ["--num-clips", "20000", "--height", "32", "--width", "32", "--output", str(tmp_path / "w")]
    code = "import os, sys; os.cpu_count = lambda: 2\nfrom video_gen.cli import main; sys.exit(main())"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "worlds", *options], start_new_session=True, stderr=subprocess.PIPE, text=True
    )
    try:
        wait_until(lambda: len(list((tmp_path / "w").glob("clip_*.mp4"))) > 10)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert len(children) == 2
        # Ctrl-C reaches the whole group, kill -9 the one process
        (os.killpg if sent == signal.SIGINT else os.kill)(process.pid, sent)
        said = process.communicate(timeout=10)[1]
        wait_until(lambda: not any(alive(child) for child in children))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    if sent == signal.SIGINT:
        assert process.returncode == 130 and whole(tmp_path / "w")
        there = len(names_and_captions(tmp_path / "w"))
        assert said.strip() == (
            f"video-gen: stopped: {there} of 20000 files are in {tmp_path / 'w'}, with their captions; the same command "
            "goes on"
        )


def wait_until(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def alive(pid):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def test_a_process_that_is_killed_is_one_line(tmp_path):
    """As by a machine that runs out of memory."""
    with pytest.raises(DataError, match=r"while at .*: killed, or out of memory"):
        list(in_processes(end_me, [1, 2, 3], 2))


def end_me(item):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_folder_that_cannot_be_is_one_line(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(DataError, match="file"):
            render_world(small(num_clips=1), place)
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "world.json").write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match="damaged"):
        render_world(small(num_clips=1), tmp_path / "w")


def test_a_folder_says_which_world_it_is(tmp_path):
    render_world(small(kind="kicks", num_clips=1), tmp_path / "w")
    assert world_of(tmp_path / "w") == "kicks"
    assert world_of(tmp_path) == "none" and world_of(tmp_path / "nowhere") == "unknown"


def test_another_world_or_folder_is_refused(tmp_path):
    render_world(small(num_clips=1), tmp_path / "w")
    with pytest.raises(DataError, match="seed 0 and not 1"):
        render_world(small(num_clips=1, seed=1), tmp_path / "w")
    with pytest.raises(DataError, match="not empty"):
        render_world(small(), tmp_path)
    with pytest.raises(DataError, match="no such state"):
        load_state(tmp_path, "clip_000000.mp4")
    with pytest.raises(ValueError, match="even"):
        WorldConfig(height=33)
