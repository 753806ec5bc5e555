"""Captions that change on the way: how scenes turn into one another, and how a change comes from a file to the loss."""

import json
from collections import Counter

import numpy as np
import pytest

from video_gen.cli import main
from video_gen.config import validate
from video_gen.data.captions import SPEEDS, Scene, caption, held_out, parse_caption, random_scene
from video_gen.data.changes import CHANGE_FRAMES, KINDS, become, changed, possible
from video_gen.data.clips import Clips, said_in
from video_gen.data.config import ClipConfig, WorldConfig
from video_gen.data.folder import look
from video_gen.data.latents import Latent, LatentSet, encode_clips, known_latents, read_index, stamp_of
from video_gen.data.state import PIXELS_PER_FRAME
from video_gen.data.video_writer import write_video
from video_gen.data.worlds import draw, load_state, render_world, simulate, simulate_change
from video_gen.errors import ConfigError
from video_gen.evaluation.steering import looks_of

WORLD = WorldConfig(height=32, width=32, num_frames=65, changes=3, num_clips=40)


# -------------------- scenes


@pytest.mark.parametrize("kind", KINDS)
def test_a_change_is_of_its_kind_and_of_no_other(kind):
    rng = np.random.default_rng(0)
    for _ in range(60):
        scene = random_scene(rng, "train")
        if kind not in possible(scene):
            assert kind in ("more", "less")
            continue
        after = changed(scene, kind, rng, "train")
        assert after != scene and not any(held_out(*look) for look in after.objects)
        assert parse_caption(caption(after)) == after
        pairs = become(scene, after)
        differ = [(a, b) for a, b in pairs if a != b]
        if kind == "speed":
            assert not differ and after.speed == SPEEDS[1 - SPEEDS.index(scene.speed)]
        elif kind in ("colour", "shape", "both"):
            ((a, b),) = differ
            assert (a[0] != b[0], a[1] != b[1]) == (kind != "shape", kind != "colour") and after.speed == scene.speed
        elif kind in ("more", "less"):
            assert [(a is None, b is None) for a, b in differ] == [(kind == "more", kind == "less")]


def test_what_becomes_of_objects_uses_each_once():
    rng = np.random.default_rng(1)
    for _ in range(100):
        a, b = random_scene(rng, "train"), random_scene(rng, "held_out")
        pairs = become(a, b)
        assert sorted(x for x, _ in pairs if x) == sorted(a.objects) and sorted(y for _, y in pairs if y) == sorted(
            b.objects
        )
        assert sum(x == y for x, y in pairs) == (Counter(a.objects) & Counter(b.objects)).total()


# -------------------- the world


@pytest.mark.slow
def test_after_a_change_the_caption_is_what_is_seen():
    seen = 0
    for index in range(WORLD.num_clips):
        world = simulate(WORLD, index)
        video, said = draw(world), [(0, world.caption), *world.changes]
        ends = [*(frame for frame, _ in said[1:]), WORLD.num_frames]
        for (start, text), end in zip(said, ends):
            assert start == 0 or start % CHANGE_FRAMES == 1
            whole = range(start + (CHANGE_FRAMES - 1 if start else 0), end)
            right = [looks_of(video[frame]) == looks_of_scene(text) for frame in whole]
            assert np.mean(right) > 0.9, (index, text)  # two of one colour that touch may be read as one for a moment
            seen += start > 0
    assert seen > 30


def looks_of_scene(text):
    scene = parse_caption(text)
    assert scene is not None
    return {look: scene.objects.count(look) for look in scene.objects}


def test_what_turns_into_something_else_moves_on_and_a_new_speed_keeps_directions():
    before, after = Scene((("red", "circle"),), "slow"), Scene((("blue", "square"),), "fast")
    world = simulate_change(WORLD.replace(seed=4), before, after, 33)
    assert world.changes == ((33, caption(after)),) and world.looks == (("red", "circle"), ("blue", "square"))
    shares = world.shares
    assert shares[:33].tolist() == [[1, 0]] * 33 and shares[36:].tolist() == [[0, 1]] * 29
    assert np.allclose(shares[33:36].sum(1), 1) and (np.diff(shares[32:37, 1]) > 0).all()
    both = slice(33, 36)
    assert (
        np.array_equal(world.positions[both, 0], world.positions[both, 1]) and np.isnan(world.positions[:33, 1]).all()
    )
    path = np.where(np.isnan(world.positions[:, :1]), world.positions[:, 1:], world.positions[:, :1])[:, 0]
    steps = np.linalg.norm(np.diff(path, axis=0), axis=1) / 32
    assert steps[:33].max() <= PIXELS_PER_FRAME["slow"] + 1e-6 and steps[33:].max() <= PIXELS_PER_FRAME["fast"] + 1e-6
    assert np.median(steps[34:]) == pytest.approx(PIXELS_PER_FRAME["fast"])


def test_what_comes_in_waits_until_there_is_room_and_meets_nothing():
    two, three = (Scene((("red", "circle"),) * n, "fast") for n in (2, 3))
    starts = []
    for seed in range(40):
        world = simulate_change(WORLD.replace(seed=seed, num_frames=129), two, three, 5)
        starts += [frame for frame, _ in world.changes]
        there = world.positions[np.isfinite(world.positions).all((1, 2))]
        gaps = np.linalg.norm(there[:, :, None] - there[:, None], axis=-1) + 1e9 * np.eye(3)
        assert gaps.size == 0 or gaps.min() > 2 * world.radius - 1e-6
    assert len(starts) > 30 and min(starts) == 5 < max(starts) and all(frame % CHANGE_FRAMES == 1 for frame in starts)


def test_without_changes_a_world_is_as_it_was():
    plain = WORLD.replace(changes=0)
    world, other = simulate(plain, 3), simulate(WORLD, 3)
    assert world.changes == () and world.shares is None and world.caption == other.caption
    with pytest.raises(ConfigError, match="changes is 1, but the kind is 'digits'; only 'bounce' has such clips"):
        validate(WorldConfig, {"kind": "digits", "changes": 1}, source="here")


def test_a_rendered_folder_knows_its_changes_however_it_was_interrupted(tmp_path):
    config = WORLD.replace(num_clips=6, num_images=2, height=16, width=16, num_frames=33)
    render_world(config.replace(num_clips=3, num_images=0), tmp_path / "d")
    assert render_world(config, tmp_path / "d") == 3
    rows = {r["file_name"]: r for r in map(json.loads, (tmp_path / "d" / "metadata.jsonl").read_text().splitlines())}
    sources = {source.name: source for source in look(tmp_path / "d").sources}
    changing = 0
    for index in range(6):
        world, name = simulate(config, index), f"clip_{index:06d}.mp4"
        times = [(frame / config.fps, text) for frame, text in world.changes]
        assert sources[name].changes == tuple(times) and sources[name].caption == world.caption
        state = load_state(tmp_path / "d", name)
        assert state.changes == world.changes and np.array_equal(state.shares, world.shares)
        changing += "changes" in rows[name]
    assert changing and "changes" not in rows["image_000000.png"]


# -------------------- from files to training


def test_a_window_has_the_captions_that_hold_in_it():
    changes = ((1.0, "b"), (2.0, "c"), (3.5, "d"))
    assert said_in("a", changes, 0.0, 33, 16) == ("a", ((16, "b"), (32, "c")))
    assert said_in("a", changes, 1.0, 17, 16) == ("b", ((16, "c"),))
    assert said_in("a", changes, 2.0, 17, 16) == ("c", ())
    assert said_in("a", changes, 1.96, 17, 16) == ("b", ((1, "c"),))
    assert said_in("a", ((0.51, "b"), (0.52, "c")), 0.0, 17, 16) == ("a", ((9, "c"),))  # b is never seen


def clips_of(tmp_path, **changes):
    for index in range(3):
        frames = np.random.default_rng(index).integers(0, 255, (17, 16, 16, 3), dtype=np.uint8)
        write_video(tmp_path / "d" / f"{index}.mp4", frames, 8)
    row = {"file_name": "1.mp4", "text": "a", "changes": [{"time": 0.625, "text": "b"}, {"time": 1.5, "text": "c"}]}
    (tmp_path / "d" / "metadata.jsonl").write_text(json.dumps(row | changes) + "\n")
    return ClipConfig(folder=tmp_path / "d", num_frames=17, fps=8, height=16, width=16, validation_fraction=0)


def encode(clips, folder, config):
    return LatentSet(folder, encode_clips(clips, lambda v: v[:, :, ::4, ::4, ::4], folder, stamp_of(config)))


def test_a_change_holds_from_the_first_latent_frame_that_shows_it_alone(tmp_path):
    config = clips_of(tmp_path)
    clips = Clips(config)
    assert clips.captions[1] == "a" and clips.changes == [(), ((5, "b"), (12, "c")), ()]
    found = encode(clips, tmp_path / "z", config)
    # latent frame k > 0 stands for pixel frames 4k - 3 to 4k
    assert found.captions(1) == [(0, "a"), (2, "b"), (4, "c")] and found.captions(0) == [(0, "")]
    (index,) = (tmp_path / "z").glob("index-*.jsonl")
    assert read_index(index)[1] == found.entries == known_latents(tmp_path / "z", config)
    assert found.entries[1].texts == ["a", "b", "c"]
    clips_of(tmp_path, changes=[{"time": 0.5, "text": "b"}])
    assert known_latents(tmp_path / "z", config) is None


def test_an_index_from_before_there_were_changes_is_read(tmp_path):
    row = {"clip_id": "x", "caption": "a", "part": "train", "bucket": [9, 16, 16], "shape": [4, 3, 4, 4], "shard": "s"}
    (tmp_path / "index.jsonl").write_text(f"{json.dumps({'stamp': '1'})}\n{json.dumps(row)}\n")
    assert read_index(tmp_path / "index.jsonl")[1] == [Latent("x", "a", "train", (9, 16, 16), (4, 3, 4, 4), "s")]


def test_the_check_reads_later_captions_too(tmp_path, capsys):
    clips_of(tmp_path, changes=[{"time": 0.5, "text": "b " * 200}])
    size = ["--num-frames", "17", "--fps", "8", "--height", "16", "--width", "16"]
    assert main(["data", "check", str(tmp_path / "d"), *size]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert (
        "with captions that change │ 1" in said and "caption too long │ 1" in said and "caption too long: 1.mp4" in said
    )


def test_clips_that_are_led_are_kicked_and_say_so_to_the_end(tmp_path):
    config = WORLD.replace(changes=0, led=0.5, num_clips=12, height=16, width=16, num_frames=33)
    render_world(config, tmp_path / "d")
    clips = Clips(ClipConfig(folder=tmp_path / "d", num_frames=33, height=16, width=16, validation_fraction=0))
    kicked = [bool(simulate(config, index).kicked.any()) for index in range(12)]
    assert clips.led == kicked and 2 < sum(kicked) < 10
    assert all(simulate(config, i).caption == simulate(config.replace(led=0), i).caption for i in range(12))
    found = encode(clips, tmp_path / "z", clips.config)
    assert [found.led(i) for i in range(12)] == kicked and found.entries == known_latents(tmp_path / "z", clips.config)


def test_led_in_metadata(tmp_path):
    for said, led in ((True, True), (False, False), ("true", True), ("", False)):
        clips_of(tmp_path, led=said)
        assert [source.led for source in look(tmp_path / "d").sources] == [False, led, False]
    clips_of(tmp_path, led=1)
    assert look(tmp_path / "d").faults[0].endswith("line 1: led is 1; it is true or false")


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("soon", "changes holds 'soon'; each change is such as"),
        ([{"time": "1", "text": "b"}], "changes holds {'time': '1', 'text': 'b'}"),
        ([{"time": 0, "text": "b"}], "its time in seconds from the file's start, above 0"),
        ([{"time": 2, "text": "b"}, {"time": 2, "text": "c"}], "changes has time 2 after 2; sort them by time"),
        ([{"time": 2}], "changes holds {'time': 2}"),
    ],
)
def test_changes_that_are_none_are_named(tmp_path, said, message, capsys):
    clips_of(tmp_path, changes=said)
    (fault,) = look(tmp_path / "d").faults
    assert fault.startswith(f"{tmp_path / 'd' / 'metadata.jsonl'}, line 1: ") and message in fault
    size = ["--num-frames", "17", "--height", "16", "--width", "16"]
    assert main(["data", "check", str(tmp_path / "d"), *size]) == 0 and message in capsys.readouterr().out.replace(
        "\n", ""
    )
