"""From a pile of footage to a data set: shots where they are, reasons that are true, and nothing read, lost or written twice."""

import io
import json
import os
import sys
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from odd_files import coded, encode, flat
from photographs import NAMES, photograph
from PIL import Image, ImageDraw

from video_gen.cli import main
from video_gen.data.check import check
from video_gen.data.clips import Clips
from video_gen.data.config import ClipConfig
from video_gen.data.manifest import MANIFEST, read_manifest
from video_gen.data.packed import Packed
from video_gen.data.prepare import looking, preparing, writing
from video_gen.data.prepare.drafts import Drafts
from video_gen.data.prepare.pieces import Piece
from video_gen.data.prepare.preparing import prepare
from video_gen.data.prepare.settings import KeepSettings, PrepareConfig
from video_gen.data.prepare.shots import find_blends, find_cuts, find_shots
from video_gen.data.prepare.workers import Workers
from video_gen.data.prepare.writing import write_pieces
from video_gen.data.video_file import all_frames, probe
from video_gen.data.video_writer import write_video
from video_gen.errors import DataError

FPS = 24
SIZE = 96


def scene(number, frames=40, speed=0.6):
    """A camera over a photograph, which goes on in its mirror image; another one for each number. `speed`: pixels a frame."""
    picture = np.asarray(photograph(NAMES[number % len(NAMES)]))
    side = min(picture.shape[:2]) * 2 // 5
    wide = np.tile(np.concatenate([picture, picture[:, ::-1]], axis=1), (1, 3, 1))
    top, left = (40 * number) % (picture.shape[0] - side), 30 * number
    made = []
    for i in range(frames):
        box = (left + i * speed * side / SIZE, top, left + i * speed * side / SIZE + side, top + side)
        made.append(np.asarray(Image.fromarray(wide).resize((SIZE, SIZE), Image.Resampling.BICUBIC, box=box)))
    return np.stack(made)


def film(path, *parts):
    return write_video(path, np.concatenate(parts), FPS, crf=12)


def faded(clip, to_black, length=12):
    share = np.linspace(1, 0, length + 1)[1:, None, None, None]
    clip = clip.copy()
    if to_black:
        clip[-length:] = (clip[-length:] * share).round()
    else:
        clip[:length] = (clip[:length] * share[::-1]).round()
    return clip


def facts_of(path):
    found = looking.look_at(path, path.name, "")
    assert found.error is None
    return found


# -------------------- shots


def test_every_hard_cut_is_found_and_no_flash_and_no_fast_pan(tmp_path):
    scenes = [scene(i) for i in range(6)]
    for number, length in ((1, 1), (3, 4)):
        flash = scenes[number][20 : 20 + length].astype(int) + 150
        scenes[number][20 : 20 + length] = flash.clip(0, 255)
    scenes[4] = scene(4, speed=9.0)  # a tenth of the picture each frame
    facts = facts_of(film(tmp_path / "a.mp4", *scenes))
    settings = PrepareConfig().shots
    assert find_cuts(facts, settings, find_blends(facts, settings)) == [40 * i for i in range(1, 6)]


def test_fades_and_dissolves_are_found_within_five_frames_and_lie_in_no_shot(tmp_path):
    first, second, third = (scene(i, 48, 0.3) for i in range(3))
    share = np.linspace(0, 1, 14)[1:-1, None, None, None]
    blend = first[-12:] * (1 - share) + second[:12] * share
    parts = (
        first[:-12],
        blend.round().astype(np.uint8),
        faded(second[12:], True),
        np.zeros_like(first[:4]),
        faded(third, False),
    )
    facts = facts_of(film(tmp_path / "a.mp4", *parts))
    starts = np.cumsum([0, *map(len, parts)])
    settings = PrepareConfig().shots
    found = find_blends(facts, settings)
    true = [(starts[1], starts[2]), (starts[3] - 12, starts[4] + 12)]
    ends = [(found[0][0], found[0][1]), (found[1][0], found[-1][1])]
    assert np.abs(np.array(ends) - true).max() <= 5
    shots = find_shots(facts, settings)
    assert all(shot.end <= a or shot.start >= b for shot in shots for a, b in found)
    assert all(one.end <= other.start for one, other in pairwise(shots))


def test_frames_begin_when_the_file_says(tmp_path):
    facts = facts_of(film(tmp_path / "a.mp4", scene(0)))
    assert facts.curves["time"].tolist() == [time for time, _ in all_frames(tmp_path / "a.mp4")]


def test_frames_that_repeat_are_no_cuts_around_them(tmp_path):
    jerky = scene(0, 20, 4.0).repeat(3, axis=0)  # as where a rate was raised
    facts = facts_of(film(tmp_path / "a.mp4", jerky))
    assert find_cuts(facts, PrepareConfig().shots) == []


# -------------------- what is kept


@pytest.fixture(scope="module")
def pile(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pile")
    good = scene(0)
    film(folder / "good.mp4", good)
    (folder / "good.txt").write_text("a photograph")
    film(folder / "copy.mp4", good)
    write_video(folder / "copy.mp4", good, FPS, crf=30)
    film(folder / "two.mp4", scene(1), scene(2))
    film(folder / "still.mp4", scene(3)[:1].repeat(40, axis=0))
    film(folder / "black.mp4", scene(3) // 20)
    film(folder / "short.mp4", scene(3, 12))
    film(folder / "blurred.mp4", np.stack([scaled(scaled(frame, 16), SIZE) for frame in scene(4)]))
    barred = scene(5).copy()
    barred[:, :12] = barred[:, -12:] = 0
    film(folder / "bars.mp4", barred)
    film(folder / "logo.mp4", logo(scene(2, 60, 3.0)))
    (folder / "broken.mp4").write_bytes((folder / "good.mp4").read_bytes()[:900])
    Image.fromarray(scene(1, 1)[0]).save(folder / "photo.png")
    return folder


def scaled(frame, side):
    return np.asarray(Image.fromarray(frame).resize((side, side), Image.Resampling.BICUBIC))


def logo(clip):
    made = []
    for frame in clip:
        picture = Image.fromarray(frame)
        ImageDraw.Draw(picture).rectangle((4, 4, 40, 20), fill="white")
        ImageDraw.Draw(picture).text((6, 6), "LIVE 24", fill="black")
        made.append(np.asarray(picture))
    return np.stack(made)


def made(pile, output, workers=1, **settings):
    return prepare(pile, output, PrepareConfig(**settings), Workers(workers))


def test_each_piece_is_kept_or_has_its_reason(pile, tmp_path):
    rows = made(pile, tmp_path / "set", keep=KeepSettings(min_sharpness=0.25)).rows
    said = {}
    for row in rows:
        said.setdefault(row.source, []).append(row.refused.partition(":")[0])
    assert said == {
        "bars.mp4": [""],
        "black.mp4": ["black"],
        "blurred.mp4": ["blurred"],
        "broken.mp4": ["unreadable"],
        "copy.mp4": [""],
        "good.mp4": ["near-duplicate"],
        "logo.mp4": ["overlay"],
        "photo.png": [""],
        "short.mp4": ["too short"],
        "still.mp4": ["still"],
        "two.mp4": ["", ""],
    }
    assert str(pile / "broken.mp4") in next(row.refused for row in rows if row.source == "broken.mp4")


def test_bars_are_cropped_and_pieces_are_scaled_and_show_the_frames_they_should(pile, tmp_path):
    rows = {row.source: row for row in made(pile, tmp_path / "set", short_side=48).kept}
    bars = rows["bars.mp4"]
    assert (bars.height, bars.top) == (48, pytest.approx(12 / 96, abs=0.02)) and bars.width > bars.height
    first, second = (row for row in read_manifest(tmp_path / "set" / MANIFEST) if row.source == "two.mp4")
    assert (first.end_frame, second.start_frame) == (40, 40) and second.start == pytest.approx(40 / FPS, abs=1e-4)
    true = [frame for _, frame in all_frames(pile / "two.mp4")][40:]
    small = [np.asarray(Image.fromarray(f).resize((48, 48), Image.Resampling.BOX)).astype(int) for f in true]
    shown = [frame.astype(int) for _, frame in all_frames(tmp_path / "set" / second.file_name)]
    assert len(shown) == 40
    own = np.array([np.abs(a - b).mean() for a, b in zip(shown, small)])
    next_one = np.array([np.abs(a - b).mean() for a, b in zip(shown, small[1:])])
    assert own.max() < 4 and (own[:-1] < next_one).all()


@pytest.mark.parametrize("matrix, full", [(1, True), (6, False), (9, False)])
def test_colours_stay_what_they_are(tmp_path, matrix, full):
    facts = {"colorspace": matrix, "color_range": 2 if full else 1}
    frames = [flat("yuv420p", coded((200, 60, 90), matrix, full), 33, 45, **facts) for _ in range(3)]
    path = encode(tmp_path / "a.mkv", frames, "ffv1", **facts)
    info = probe(path)
    for box, short in (((0.1, 0.1, 0.0, 0.0), None), ((0.0, 0.0, 0.0, 0.0), 16)):
        piece = Piece("a.mkv", f"{short}", 0, 0, 3, 0.0, info.duration, box)
        write_pieces(path, info, [piece], tmp_path, PrepareConfig(short_side=short))
        (tmp_path / f"{piece.name}.mp4").rename(tmp_path / "made.mp4")
        shown = np.stack([frame for _, frame in all_frames(tmp_path / "made.mp4")]).astype(int)
        assert len(shown) == 3 and shown.shape[1] % 2 == 0 and abs(shown - (200, 60, 90)).max() <= 4


def test_a_container_that_rounds_times_loses_and_repeats_no_frame(tmp_path):
    (tmp_path / "own").mkdir()
    plain = film(tmp_path / "a.mp4", scene(1, speed=2.0), scene(2, speed=2.0))
    with av.open(str(plain)) as read, av.open(str(tmp_path / "own" / "a.mkv"), "w") as made:  # times in milliseconds
        stream = made.add_stream_from_template(read.streams.video[0])
        for packet in read.demux(read.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                made.mux(packet)
    rows = prepare(tmp_path / "own", tmp_path / "set", PrepareConfig(crf=1), Workers(1)).kept
    assert [row.num_frames for row in rows] == [40, 40]
    true = [frame.astype(int) for _, frame in all_frames(plain)]
    shown = [frame.astype(int) for row in rows for _, frame in all_frames(tmp_path / "set" / row.file_name)]
    assert [int(np.argmin([np.abs(frame - one).mean() for one in true])) for frame in shown] == list(range(80))


def test_what_a_manifest_says_is_what_is_in_the_files(pile, tmp_path):
    for row in made(pile, tmp_path / "set").kept:
        found = probe(tmp_path / "set" / row.file_name)
        assert (found.num_frames, found.width, found.height) == (row.num_frames, row.width, row.height)
        assert (found.fps, found.duration, found.codec) == pytest.approx((row.fps, row.duration, row.codec))
    config = ClipConfig(folder=tmp_path / "set", num_frames=9, fps=12, height=48, width=48)
    known = Clips(config)
    (tmp_path / "set" / MANIFEST).rename(tmp_path / "set" / "aside")
    read = Clips(config)
    assert sorted(zip(known.ids, known.captions)) == sorted(zip(read.ids, read.captions)) and len(known) > 3


def test_thresholds_change_what_is_kept_and_no_file_is_read_again(pile, tmp_path, monkeypatch):
    before = made(pile, tmp_path / "set")
    assert before.read == before.files == 11
    monkeypatch.setattr(preparing, "look_at", lambda *_: pytest.fail("read again"))
    after = made(pile, tmp_path / "set", keep=KeepSettings(min_motion=0.0, min_seconds=0.1, duplicates=True))
    kept = {row.source for row in after.kept}
    assert kept == {row.source for row in before.kept} | {"good.mp4", "short.mp4", "still.mp4"} and after.read == 0
    again = made(pile, tmp_path / "set")
    assert again.rows == before.rows and again.unused == 3


def test_a_changed_file_is_looked_at_again(pile, tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    film(own / "a.mp4", scene(0))
    film(own / "b.mp4", scene(1))
    first = made(own, tmp_path / "set")
    film(own / "b.mp4", scene(2, 50))
    second = made(own, tmp_path / "set")
    assert (first.read, second.read) == (2, 1)
    assert [row.end_frame for row in second.kept] == [40, 50] and second.kept[0] == first.kept[0]


def test_one_process_several_and_an_interrupted_one_make_the_same(pile, tmp_path, monkeypatch):
    whole = made(pile, tmp_path / "a").rows
    assert made(pile, tmp_path / "b", workers=2).rows == whole

    def stops(what, done, total):
        if (what, done) == ("writing", 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(pile, tmp_path / "c", PrepareConfig(), Workers(1), stops)
    assert made(pile, tmp_path / "c").rows == whole


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"short_side": 48, "fps": 10}])
def test_a_draft_is_what_would_be_written_afterwards(tmp_path, monkeypatch, settings):
    own = tmp_path / "own"
    own.mkdir()
    film(own / "a.mp4", *(scene(i) for i in range(3)), faded(scene(3), True), faded(scene(0, speed=2.0), False))
    barred = np.concatenate([scene(1, 100), scene(2, 60)])
    barred[:, :12] = barred[:, -12:] = 0
    film(own / "bars.mp4", barred)
    settings |= {"keep": KeepSettings(max_seconds=1.5)}
    late: list[str] = []
    write = writing._write_video
    monkeypatch.setattr(writing, "_write_video", lambda *args: (late.append(args[3].name), write(*args)))
    drafted = made(own, tmp_path / "a", **settings)
    with_drafts = len(late)
    monkeypatch.setattr(Drafts, "take", lambda self, pieces: None)
    afterwards = made(own, tmp_path / "b", **settings)
    assert with_drafts < len(drafted.kept) / 2 and len(late) - with_drafts == len(drafted.kept) > 7
    assert drafted.rows == afterwards.rows  # with the digest of each
    assert not (tmp_path / "a" / ".drafts").exists()


@pytest.mark.slow
def test_pieces_of_one_file_are_on_one_side_of_the_split(tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    film(own / "a.mp4", *(scene(i) for i in range(4)))
    film(own / "b.mp4", *(scene(i, speed=2.0) for i in range(4)))
    made(own, tmp_path / "set")
    clips = Clips(
        ClipConfig(folder=tmp_path / "set", num_frames=9, fps=12, height=48, width=48, validation_fraction=0.5)
    )
    sides = {}
    for row in read_manifest(tmp_path / "set" / MANIFEST):
        found = {clips.parts[i] for i, name in enumerate(clips.sources) if name == row.file_name}
        sides.setdefault(row.source, set()).update(found)
    assert sorted(map(sorted, sides.values())) == [["train"], ["validation"]]


# -------------------- shards


def same_clips(one, other):
    assert one.ids == other.ids and one.captions == other.captions and one.actions == other.actions
    assert all(np.array_equal(one[i].video, other[i].video) for i in range(len(one)))


def clips_in(folder, **settings):
    return Clips(ClipConfig(folder=folder, num_frames=9, fps=12, height=48, width=48, **settings))


def test_shards_hold_the_same_clips_as_files(pile, tmp_path):
    made(pile, tmp_path / "files")
    packed = made(pile, tmp_path / "shards", format="shards")
    assert not any((tmp_path / "shards" / "clips").iterdir())
    same_clips(clips_in(tmp_path / "files"), clips_in(tmp_path / "shards"))
    # as other programs read them
    row = packed.kept[0]
    with tarfile.open(tmp_path / "shards" / row.shard) as tar:
        members = {member.name: tar.extractfile(member).read() for member in tar}
    assert members[row.file_name] == Packed(str(tmp_path / "shards" / row.shard), row.offset, row.size, "").read()
    key = row.file_name.partition(".")[0]
    assert json.loads(members[f"{key}.json"])["source"] == row.source


@pytest.mark.slow
def test_shards_grow_by_what_is_new_and_keep_the_rest(pile, tmp_path):
    before = made(pile, tmp_path / "set", format="shards")
    content = (tmp_path / "set" / before.kept[0].shard).read_bytes()
    after = made(pile, tmp_path / "set", format="shards", keep=KeepSettings(min_motion=0.0))
    assert len(after.kept) == len(before.kept) + 1 and len({row.shard for row in after.kept}) == 2
    assert (tmp_path / "set" / before.kept[0].shard).read_bytes() == content
    assert len(clips_in(tmp_path / "set")) > len(before.kept)


def test_a_shard_that_is_cut_short_is_named(pile, tmp_path):
    rows = made(pile, tmp_path / "set", format="shards").kept
    shard = tmp_path / "set" / rows[0].shard
    shard.write_bytes(shard.read_bytes()[: rows[-1].offset + 10])
    clips = clips_in(tmp_path / "set")
    with pytest.raises(DataError, match=r"\.tar: cut short: [\d,]+ of at least [\d,]+ bytes"):
        clips[len(clips) - 1]


def test_shards_are_read_from_memory_and_over_http(pile, tmp_path):
    made(pile, tmp_path / "set", format="shards")
    here = clips_in(tmp_path / "set")
    import fsspec

    memory = fsspec.filesystem("memory")
    for path in (tmp_path / "set").rglob("*"):
        if path.is_file():
            memory.pipe(f"/bucket/{path.relative_to(tmp_path / 'set').as_posix()}", path.read_bytes())
    same_clips(here, clips_in("memory://bucket"))
    try:
        import aiohttp  # noqa: F401
    except ImportError:
        pytest.skip("fsspec reads http with aiohttp")
    handler = partial(Quiet, directory=str(tmp_path / "set"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        same_clips(here, clips_in(f"http://127.0.0.1:{server.server_port}"))
    finally:
        server.shutdown()


class Quiet(SimpleHTTPRequestHandler):
    """A server of files that can be asked for a part of one, as every store of objects can."""

    def log_message(self, *_):
        pass

    def do_GET(self):
        path, asked = Path(self.translate_path(self.path)), self.headers.get("Range")
        if not path.is_file():
            return self.send_error(404)
        content = path.read_bytes()
        start, end = 0, len(content) - 1
        if asked:
            first, _, last = asked.removeprefix("bytes=").partition("-")
            start, end = int(first), int(last) if last else end
        self.send_response(206 if asked else 200)
        self.send_header("Accept-Ranges", "bytes")
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{end}/{len(content)}")
        self.send_header("Content-Length", str(end - start + 1))
        self.end_headers()
        self.wfile.write(content[start : end + 1])


def test_actions_are_cut_with_their_video(tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    film(own / "a.mp4", scene(0), scene(1))
    rows = [{"keys": ["go"] if i % 3 == 0 else [], "axes": {"turn": i / 8}} for i in range(80)]
    (own / "a.actions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    axes = [{"name": "turn", "low": 0, "high": 10, "kind": "absolute"}]
    (own / "actions.json").write_text(json.dumps({"keys": ["go"], "axes": axes, "fps": FPS}))
    for kind in ("files", "shards"):
        made(own, tmp_path / kind, format=kind)
        clips = Clips(ClipConfig(folder=tmp_path / kind, num_frames=9, fps=FPS, height=48, width=48))
        assert [row[1] for row in clips.actions[-1][:8]] == [i / 8 for i in range(67, 75)]
        checked = check(clips.config).files
        assert checked and all(file.actions is not None and file.bad_actions is None for file in checked)
    same_clips(*(clips_in(tmp_path / kind) for kind in ("files", "shards")))


def with_actions(folder, *names, key="go"):
    """A pile of short films with actions."""
    folder.mkdir(exist_ok=True, parents=True)
    (folder / "actions.json").write_text(json.dumps({"keys": ["go", "stop"], "fps": FPS}))
    for number, name in enumerate(names):
        film(folder / f"{name}.mp4", scene(number, 24))
        (folder / f"{name}.actions.jsonl").write_text((json.dumps({"keys": [key]}) + "\n") * 24)
    return folder


def done_in(folder):
    """The keys of the first frame of each clip."""
    clips = Clips(ClipConfig(folder=folder, num_frames=9, fps=FPS, height=48, width=48))
    return {clips.name(i): clips.actions[i][0] for i in range(len(clips))}


@pytest.mark.parametrize("form", ["files", "shards"])
def test_changed_actions_reach_what_is_prepared(tmp_path, monkeypatch, form):
    own, output = with_actions(tmp_path / "own", "a", "b"), tmp_path / "set"
    first = made(own, output, format=form)
    if form == "files":
        monkeypatch.setattr(writing, "_write_video", lambda *_: pytest.fail("written again"))
    (own / "a.actions.jsonl").write_text('{"keys": ["stop"]}\n' * 24)
    assert made(own, output, format=form).read == 0
    a, b = (done_in(output)[Path(row.file_name).name if form == "shards" else row.file_name] for row in first.kept)
    assert (a, b) == ((0.0, 1.0), (1.0, 0.0))
    (own / "actions.json").write_text(json.dumps({"keys": ["stop", "go"], "fps": FPS}))
    made(own, output, format=form)
    assert sorted(done_in(output).values()) == [(0.0, 1.0), (1.0, 0.0)] and done_in(output) != {}
    if form == "files":
        places = [output / row.file_name.replace(".mp4", ".actions.jsonl") for row in first.kept]
        said = [place.read_bytes() for place in places]
        for place in places:
            place.unlink()
        made(own, output, format=form)
        assert [place.read_bytes() for place in places] == said


def test_videos_without_fitting_actions_are_refused_and_named(tmp_path, capsys):
    own = with_actions(tmp_path / "own", "a", "b", "c", "d")
    (own / "b.actions.jsonl").unlink()
    (own / "c.actions.jsonl").write_text("{}\n" * 23 + "nonsense\n")
    times = [0, *(20 + i * 2 for i in range(23))]
    encode(own / "d.mp4", list(scene(3, 24)), rate=FPS * 2, stamps=times)
    assert main(["data", "prepare", str(own), str(tmp_path / "set"), "--workers", "1"]) == 0
    said = {row.source: row.refused for row in read_manifest(tmp_path / "set" / MANIFEST)}
    assert said["a.mp4"] == ""
    assert "has no b.actions.jsonl beside it" in said["b.mp4"] and "line 24" in said["c.mp4"]
    assert all(said[f"{name}.mp4"].startswith("bad actions: ") for name in "bcd")
    assert "variable frame rate" in said["d.mp4"] and said["d.mp4"] in capsys.readouterr().out
    (own / "b.actions.jsonl").write_text("{}\n" * 24)
    assert [row.source for row in made(own, tmp_path / "set").kept] == ["a.mp4", "b.mp4"]


def test_actions_are_not_thinned_out(tmp_path):
    own = with_actions(tmp_path / "own", "a")
    with pytest.raises(DataError, match=r"fps is 6, and .* has actions at 24 a second"):
        made(own, tmp_path / "set", fps=6)
    assert len(made(own, tmp_path / "set").kept) == 1


@pytest.mark.parametrize("form", ["files", "shards"])
def test_copies_that_are_kept_have_clips_of_their_own(tmp_path, form):
    own = with_actions(tmp_path / "own", "a")
    (own / "b.mp4").write_bytes((own / "a.mp4").read_bytes())
    (own / "b.actions.jsonl").write_text('{"keys": ["stop"]}\n' * 24)
    keep = KeepSettings(duplicates=True)
    kept = made(own, tmp_path / "set", format=form, keep=keep).kept
    assert [done_in(tmp_path / "set")[row.file_name] for row in kept] == [(1.0, 0.0), (0.0, 1.0)]
    alone = tmp_path / "alone"
    alone.mkdir()
    (own / "a.mp4").rename(alone / "a.mp4")
    assert [row.digest for row in made(alone, tmp_path / "one").kept] == [kept[0].digest]


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are text elsewhere")
def test_a_name_that_is_no_utf8_is_spelled_out(tmp_path, monkeypatch):
    own = tmp_path / "own"
    own.mkdir()
    film(own / "b.mp4", scene(0, 24))
    (own / "b.mp4").rename(own / os.fsdecode(b"caf\xe9.mp4"))
    (own / os.fsdecode(b"br\xe9.mp4")).write_bytes(b"nothing")
    film(own / "b.mp4", scene(1, 24))
    with (tmp_path / "said").open("w", encoding="utf-8") as strict:
        monkeypatch.setattr("sys.stdout", strict)
        monkeypatch.setattr("os.cpu_count", lambda: 1)
        assert main(["data", "prepare", str(own), str(tmp_path / "set"), "--workers", "1"]) == 0
        assert main(["data", "check", str(own)]) == 0
    rows = read_manifest(tmp_path / "set" / MANIFEST)
    assert {row.source: bool(row.refused) for row in rows} == {
        "b.mp4": False,
        r"br\udce9.mp4": True,
        r"caf\udce9.mp4": False,
    }
    assert made(own, tmp_path / "set").read == 0 and len(clips_in(tmp_path / "set")) == 2


def test_brackets_in_the_names_of_folders_are_no_markup(tmp_path, capsys):
    own = with_actions(tmp_path / "x[" / "b]", "a")
    (own / "actions.json").write_text(json.dumps({"keys": ["go", "[/stop]"], "fps": FPS}))
    assert main(["data", "prepare", str(own), str(tmp_path / "[/b]"), "--workers", "1"]) == 0
    assert main(["data", "check", str(own)]) == 0
    assert "[/stop]" in capsys.readouterr().out


def test_where_it_is_led_goes_along(tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    film(own / "a.mp4", scene(0))
    film(own / "b.mp4", scene(1))
    (own / "metadata.jsonl").write_text('{"file_name": "a.mp4", "text": "to the door", "led": true}\n')
    made(own, tmp_path / "set")
    assert set(zip(clips_in(tmp_path / "set").captions, clips_in(tmp_path / "set").led)) == {
        ("to the door", True),
        ("", False),
    }
    (tmp_path / "set" / MANIFEST).unlink()
    assert set(clips_in(tmp_path / "set").led) == {True, False}


# -------------------- check, and what goes wrong


def test_check_reads_the_manifest_and_no_file(pile, tmp_path, monkeypatch):
    rows = made(pile, tmp_path / "set").kept
    monkeypatch.setattr("video_gen.data.check.all_frames", lambda path: pytest.fail("read"))
    (tmp_path / "set" / rows[0].file_name).unlink()
    config = ClipConfig(folder=tmp_path / "set", num_frames=9, fps=12, height=48, width=48)
    report = check(config)
    assert [name for name, _ in report.problems["unreadable"]] == [rows[0].file_name]
    assert len(report.files) == len(rows)


def test_the_command_line(pile, tmp_path, capsys):
    assert main(["data", "prepare", str(pile), str(tmp_path / "set"), "--short-side", "48"]) == 0
    said = capsys.readouterr().out
    assert "kept" in said and "near-duplicate" in said and "broken.mp4: unreadable" in said
    with Image.open(tmp_path / "set" / "pieces.png") as sheet:
        assert np.asarray(sheet).std() > 10
    assert main(["data", "check", str(tmp_path / "set"), "--num-frames", "9"]) == 0


@pytest.mark.parametrize(
    "words, said",
    [
        (["--short-side", "47"], "short_side 47 is odd"),
        (["--keep.max-seconds", "0.5"], "max_seconds 0.5 is below min_seconds"),
        (["--keep.min-sharpnes", "1"], "min-sharpness"),
        (["--caption-model", "nowhere"], "--caption-model nowhere: cannot be loaded"),
        (["--ray", "auto"], "--ray"),
    ],
)
def test_wrong_words(pile, tmp_path, capsys, words, said):
    assert main(["data", "prepare", str(pile), str(tmp_path / "set"), *words]) == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_folders_that_cannot_be_used(pile, tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        made(tmp_path / "nowhere", tmp_path / "set")
    with pytest.raises(DataError, match="lies in the pile"):
        made(pile, pile / "set")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("dear")
    with pytest.raises(DataError, match="holds nothing prepared"):
        made(pile, tmp_path / "full")
    made(pile, tmp_path / "set", short_side=48)
    with pytest.raises(DataError, match="was prepared with short_side 48, and not 64"):
        made(pile, tmp_path / "set", short_side=64)
    with pytest.raises(DataError, match="is prepared already"):
        made(tmp_path / "set", tmp_path / "other")


def test_a_damaged_manifest_is_named(tmp_path):
    (tmp_path / MANIFEST).write_bytes(b"nonsense")
    with pytest.raises(DataError, match="no manifest of prepared footage, or damaged"):
        read_manifest(tmp_path / MANIFEST)
    with pytest.raises(DataError, match="no manifest"):
        read_manifest(io.BytesIO(b""), "s3://bucket/manifest.parquet")
