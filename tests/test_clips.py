"""Folders of files as they are found in the world: odd ones, broken ones, and captions from three places."""

import json
import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from video_gen.data.check import check
from video_gen.data.clips import Clips, spread, to_frames, to_video
from video_gen.data.config import ClipConfig
from video_gen.data.folder import content_hash, quarantined, scan, split
from video_gen.data.video_file import all_frames, probe, read_frames, read_metadata
from video_gen.data.video_writer import write_video
from video_gen.data.views import fit
from video_gen.data.windows import windows
from video_gen.errors import ConfigError, DataError, ShapeError
from video_gen.training.caches import open_clips


def moving(frames=40, height=48, width=64, seed=0):
    """A bright bar that moves two pixels a frame over a fixed background: every frame differs from every other."""
    rng = np.random.default_rng(seed)
    video = np.broadcast_to(
        rng.integers(0, 90, (height // 8, width // 8, 3)).repeat(8, 0).repeat(8, 1), (frames, height, width, 3)
    )
    video = video.astype(np.uint8).copy()
    for i in range(frames):
        video[i, :, (2 * i) % width : (2 * i) % width + 6] = 230
    return video


def encode(path, frames, rate=20, codec="libx264", pixels="yuv420p", stamps=None, audio=False):
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], pixels
        stream.codec_context.time_base = Fraction(1, 1000)
        sound = container.add_stream("aac", rate=44100) if audio else None
        for i, array in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(array, format="rgb24")
            frame.pts, frame.time_base = (stamps[i] if stamps else round(1000 * i / rate)), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if sound is not None:
            for i in range(20):
                frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
                frame.sample_rate, frame.pts = 44100, 1024 * i
                container.mux(sound.encode(frame))
            container.mux(sound.encode())
    return path


def config(folder, **overrides):
    return ClipConfig(
        **dict(folder=folder, num_frames=9, fps=10, height=24, width=24, validation_fraction=0) | overrides
    )


def near(a, b):
    return abs(a.astype(float) - b).mean() < 6


# -------------------- single files


def test_seeking_equals_decoding_from_the_start(tmp_path):
    path = write_video(tmp_path / "a.mp4", moving(60), 20)
    every = dict(enumerate(frame for _, frame in all_frames(path)))
    for start in (0, 7, 15, 16, 17, 31, 50):
        got = read_frames(path, [(start + i) / 20 for i in range(9)])
        assert all(np.array_equal(frame, every[start + i]) for i, frame in enumerate(got))


def test_variable_frame_rate_goes_by_time_stamp(tmp_path):
    stamps = [0, 50, 100, 400, 450, 1000, 1050, 1100]
    frames = moving(8)
    path = encode(tmp_path / "v.mkv", frames, stamps=stamps)
    got = read_frames(path, [0.0, 0.12, 0.39, 0.41, 0.99, 1.06])
    for frame, index in zip(got, (0, 2, 2, 3, 4, 6)):
        assert near(frame, frames[index])


def test_rotation_is_applied(tmp_path):
    frames = moving(5)
    path = encode(tmp_path / "r.mp4", frames)
    turned = tmp_path / "t.mp4"
    with av.open(str(path)) as source, av.open(str(turned), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    matrix = (0).to_bytes(4, "big") + (1 << 16).to_bytes(4, "big") + (0).to_bytes(4, "big")
    matrix += ((-1) << 16).to_bytes(4, "big", signed=True) + bytes(16) + (1 << 30).to_bytes(4, "big")
    data = turned.read_bytes()
    plain = (
        (1 << 16).to_bytes(4, "big")
        + bytes(12)
        + (1 << 16).to_bytes(4, "big")
        + bytes(12)
        + (1 << 30).to_bytes(4, "big")
    )
    at = data.index(plain, data.index(b"tkhd"))
    turned.write_bytes(data[:at] + matrix + data[at + 36 :])
    info = probe(turned)
    assert info.rotation in (90, 270) and (info.width, info.height) == (48, 64)
    got = read_frames(turned, [0.0])[0]
    assert near(np.rot90(frames[0], info.rotation // 90), got)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ten.mkv", dict(pixels="yuv420p10le", codec="libx264")),
        ("web.webm", dict(codec="libvpx-vp9")),
        ("sound.mov", dict(audio=True)),
        ("odd.mkv", dict(pixels="yuv444p")),
    ],
)
def test_other_codecs_and_forms(tmp_path, name, options):
    frames = moving(21)[:, :47, :63] if name == "odd.mkv" else moving(21)
    path = encode(tmp_path / name, frames, **options)
    clips = Clips(config(tmp_path))
    assert len(clips) == 1 and clips[0].video.shape == (9, 24, 24, 3)
    assert near(clips[0].video[4], fit(frames[8], 24, 24))
    assert probe(path).has_audio == ("audio" in options)


@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".png"])
def test_writing_and_reading_back(tmp_path, suffix):
    frames = moving(10)
    path = write_video(tmp_path / f"a{suffix}", frames, 10, metadata={"prompt": 'a "dog" ä'})
    assert read_metadata(path) == {"prompt": 'a "dog" ä'}
    info = probe(path)
    assert info.num_frames == 10 and abs(info.duration - 1.0) < 0.02
    got = read_frames(path, [i / 10 for i in range(10)])
    assert all(near(a, b) for a, b in zip(got, frames))
    with pytest.raises(DataError, match="ends at"):
        read_frames(path, [1.5])
    with pytest.raises(ShapeError, match="ascend"):
        read_frames(path, [0.5, 0.2])


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_stills(tmp_path, suffix):
    picture = np.asarray(Image.fromarray(moving(1)[0]).resize((90, 70), Image.Resampling.BICUBIC))
    Image.fromarray(picture).save(tmp_path / f"a{suffix}")
    clips = Clips(config(tmp_path))
    assert clips.buckets == [(1, 24, 24)] and clips[0].video.shape == (1, 24, 24, 3)


@pytest.mark.parametrize("kind", ["empty", "text", "truncated", "corrupt", "bomb", "no frames"])
def test_broken_files_are_named_and_quarantined(tmp_path, kind):
    write_video(tmp_path / "good.mp4", moving(40), 20)
    whole = write_video(tmp_path / "w" / "bad.mp4", moving(40, seed=1), 20).read_bytes()
    bad = tmp_path / "bad.mp4"
    os.replace(tmp_path / "w" / "bad.mp4", bad)
    if kind == "empty":
        bad.write_bytes(b"")
    elif kind == "text":
        bad.write_text("this is no video, whatever its name says\n" * 40)
    elif kind == "truncated":
        bad.write_bytes(whole[: int(len(whole) * 0.8)])
    elif kind == "corrupt":
        at = len(whole) - 600
        bad.write_bytes(whole[:at] + bytes(range(256)) * 2 + whole[at + 512 :])
    elif kind == "bomb":
        bad.unlink()
        bad = tmp_path / "bad.png"
        Image.new("1", (20000, 20000)).save(bad)
    else:
        bad.write_bytes(whole[: whole.index(b"mdat") + 4])
    if kind != "corrupt":  # what a decoder conceals, only a full read may find
        with pytest.raises(DataError, match=r"bad\.(mp4|png)"):
            clips = Clips(config(tmp_path))
            [clips[i] for i in range(len(clips))]
    report = check(config(tmp_path), workers=1)
    if kind == "corrupt" and not report.problems["unreadable"]:
        pytest.skip("this decoder conceals the damage without a sign")
    assert [name for name, _ in report.problems["unreadable"]] == [bad.name]
    assert set(quarantined(tmp_path)) == {bad.name}
    clips = Clips(config(tmp_path))
    assert {clips.name(i) for i in range(len(clips))} == {"good.mp4"}
    assert any(bad.name in message and "quarantine" in message for message in clips.messages)


def test_missing_and_wrong_paths(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        scan(tmp_path / "none")
    with pytest.raises(DataError, match="holds no videos"):
        scan(tmp_path)
    with pytest.raises(DataError, match="no such file"):
        probe(tmp_path / "a.mp4")
    with pytest.raises(DataError, match="not a video or image"):
        probe(_touch(tmp_path / "a.txt"))
    with pytest.raises(ShapeError, match="odd"):
        write_video(tmp_path / "a.mp4", moving(2)[:, :47], 10)


def _touch(path: Path) -> Path:
    path.write_text("x")
    return path


# -------------------- folders


def test_windows_and_short_files(tmp_path):
    write_video(tmp_path / "long.mp4", moving(58), 20)
    write_video(tmp_path / "short.mp4", moving(10), 20)
    clips = Clips(config(tmp_path))
    assert len(clips) == 3 and [round(w[1], 4) for w in clips._windows] == [0.0, 0.9, 1.8]
    assert any("short.mp4" in m and "5 of 9 frames" in m for m in clips.messages)
    overlapping = Clips(config(tmp_path, stride=3))
    assert len(overlapping) == 7
    assert np.array_equal(overlapping[3].video, clips[1].video)
    assert len(set(overlapping.ids)) == 7 and clips.ids[1] == overlapping.ids[3]
    with pytest.raises(DataError, match=r"no clip of 99 frames.*long\.mp4"):
        Clips(config(tmp_path, num_frames=99))
    settings = config(tmp_path, num_frames=29)
    assert windows(probe(tmp_path / "long.mp4"), settings, (29, 24, 24)) == [0.0]


def test_captions_from_three_places(tmp_path):
    for name in ("a", "b", "c"):
        write_video(tmp_path / f"{name}.mp4", moving(20, seed=ord(name)), 20)
    (tmp_path / "b.txt").write_text("from a\n text file\n")
    (tmp_path / "metadata.jsonl").write_text(json.dumps({"file_name": "a.mp4", "text": "from jsonl"}) + "\n")
    assert [s.caption for s in scan(tmp_path)] == ["from jsonl", "from a text file", None]
    (tmp_path / "metadata.jsonl").unlink()
    (tmp_path / "metadata.csv").write_text('\ufefffile_name,text\nc.mp4,"from, csv"\n', encoding="utf-8")  # as Excel
    assert [s.caption for s in scan(tmp_path)] == [None, "from a text file", "from, csv"]
    assert Clips(config(tmp_path)).captions == ["", "from a text file", "from, csv"]


def test_the_split_goes_by_content(tmp_path):
    hashes = [f"{i:016x}" for i in range(400)]
    held = split(hashes, 0.1, 0)
    assert 20 < len(held) < 60 and held == split(list(reversed(hashes)), 0.1, 0)
    assert split(hashes[:200], 0.1, 0) == held & set(hashes[:200])
    assert split(hashes, 0.1, 1) != held and not split(hashes, 0.0, 0)
    assert len(split(hashes[:2], 0.01, 0)) == len(split(hashes[:2], 0.99, 0)) == 1
    for i in range(6):
        write_video(tmp_path / f"{i}.mp4", moving(20, seed=i), 20)
    (tmp_path / "again.mp4").write_bytes((tmp_path / "3.mp4").read_bytes())
    halves = [Clips(config(tmp_path, validation_fraction=0.4), part) for part in ("train", "validation")]
    names = [{clips.name(i) for i in range(len(clips))} for clips in halves]
    assert len(names[0] | names[1]) == 7 and not names[0] & names[1]
    assert any({"again.mp4", "3.mp4"} <= side for side in names)
    told: list[tuple[int, int]] = []
    whole = Clips(config(tmp_path, validation_fraction=0.4), progress=lambda *at: told.append(at))
    assert told == [(i, 7) for i in range(1, 8)]
    for side, clips in zip(("train", "validation"), halves):
        assert (whole.only(side).ids, whole.only(side).parts) == (clips.ids, clips.parts)
        assert (whole.only(side)[0].video == clips[0].video).all()
    every = Clips(config(tmp_path, validation_fraction=0))
    keeping = every.only("train", keep_bytes=every[0].video.nbytes)
    assert keeping[0].video is keeping[0].video and keeping[1].video is not keeping[1].video
    assert (keeping[1].video == every[1].video).all()
    assert len(every.only("validation")) == 0
    with pytest.raises(DataError, match="for train"):
        Clips(config(tmp_path, validation_fraction=0.4), "validation").only("train")
    assert content_hash(tmp_path / "again.mp4") == content_hash(tmp_path / "3.mp4")


def test_who_trains_is_told_that_most_files_are_left_out_and_how_to_see_which(tmp_path, capsys):
    for index in range(8):
        write_video(tmp_path / f"{index}.mp4", moving(20 if index else 40), 20)
    clips = open_clips(config(tmp_path, num_frames=13))
    said = capsys.readouterr()
    said = said.out + said.err
    assert len(clips) == 1
    assert (
        f"skipped 2 more files for such reasons; `video-gen data check {tmp_path} --num-frames 13 --fps 10` lists all"
        in said
    )
    assert "only 1 of 8 files are used" in said
    open_clips(config(tmp_path, num_frames=9))
    said = capsys.readouterr()
    assert "skipped" not in said.out + said.err and "files are used" not in said.out + said.err


def test_the_check_finds_stills_duplicates_and_short_files(tmp_path):
    write_video(tmp_path / "a.mp4", moving(40), 20)
    write_video(tmp_path / "b.mp4", moving(40), 20, crf=28)
    write_video(tmp_path / "c.mp4", moving(40, seed=9)[:, ::-1, ::-1], 20)
    write_video(tmp_path / "still.mp4", np.repeat(moving(1, seed=4), 40, 0), 20)
    write_video(tmp_path / "short.mp4", moving(6, seed=5), 20)
    report = check(config(tmp_path), quarantine=("still",), workers=1)
    found = {kind: [name for name, _ in rows] for kind, rows in report.problems.items()}
    assert found == {
        "unreadable": [],
        "bad actions": [],
        "too short": ["short.mp4"],
        "near-duplicate": ["b.mp4"],
        "still": ["still.mp4"],
        "caption too long": [],
    }
    assert set(quarantined(tmp_path)) == {"still.mp4"}
    check(config(tmp_path), workers=1)
    assert not quarantined(tmp_path)


def test_fit_covers_and_crops():
    wide = np.zeros((40, 100, 3), np.uint8)
    wide[:, 30:70] = 200
    assert fit(wide, 20, 20).min() >= 195 or fit(wide, 20, 20)[:, 2:-2].min() >= 195
    assert fit(wide, 40, 100) is wide
    checker = np.indices((64, 64)).sum(0) % 2 * 255
    small = fit(np.repeat(checker[..., None], 3, 2).astype(np.uint8), 8, 8)
    assert abs(small.astype(float) - 127.5).max() < 10  # antialiased: no moire


def test_pixels_round_trip():
    frames = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    video = to_video(torch.from_numpy(frames)[None])
    assert video.shape == (1, 3, 1, 16, 16) and video.min() == -1 and video.max() == 1
    assert np.array_equal(to_frames(video[0]), frames)


def test_real_footage():
    folder = os.environ.get("VIDEO_GEN_TEST_CLIPS")
    if not folder:
        pytest.skip("VIDEO_GEN_TEST_CLIPS names no folder")
    clips = Clips(config(Path(folder), num_frames=17, fps=8, height=32, width=32))
    for i in range(0, len(clips), max(1, len(clips) // 4)):
        assert clips[i].video.shape == (17, 32, 32, 3) and clips[i].video.std() > 1


def test_clip_settings_are_checked():
    with pytest.raises(ConfigError, match="height"):
        ClipConfig().replace(height=2)


def test_text_that_is_not_utf8_and_a_quarantine_without_names(tmp_path):
    write_video(tmp_path / "a.mp4", np.zeros((4, 16, 16, 3), np.uint8), fps=8)
    (tmp_path / "a.txt").write_bytes(b"caf\xe9")
    with pytest.raises(DataError, match=r"a\.txt: no readable UTF-8"):
        scan(tmp_path)
    (tmp_path / "a.txt").unlink()
    (tmp_path / "quarantine.jsonl").write_text('{"reason": "?"}\n')
    with pytest.raises(DataError, match="line 1: has no file_name"):
        quarantined(tmp_path)


def test_what_stands_for_a_data_set_are_its_longest_clips():
    still, clip = (1, 16, 16), (9, 16, 16)
    assert spread([still, clip, still, still, clip, still], 8) == [1, 4]
    assert spread([still] * 5, 3) == [0, 2, 4]
