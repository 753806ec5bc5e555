"""Single files as they are found in the world: the frames, times, shapes and colours that a player shows."""

from fractions import Fraction

import av
import numpy as np
import pytest
from odd_files import KR_KB, coded, encode, flat, number, numbered, remux
from PIL import Image

from video_gen.data.picture import hlg_inverse_oetf, pq_eotf, rolled_off, without_combs
from video_gen.data.video_file import all_frames, every_frame, probe, read_frames
from video_gen.data.video_info import frames_at
from video_gen.data.video_writer import write_video
from video_gen.errors import DataError

VIDEO = numbered()


def numbers(path) -> list[int]:
    return [number(frame) for _, frame in all_frames(path)]


def at(path, times) -> list[int]:
    return [number(frame) for frame in read_frames(path, times)]


# -------------------- time


@pytest.mark.parametrize("suffix", [".mkv", ".webm"])
@pytest.mark.parametrize("rate", [12, 16, 30, 48, 60, Fraction(24000, 1001), Fraction(60000, 1001)])
def test_rounded_times_lose_no_frame(tmp_path, suffix, rate):
    codec = {".mkv": "libx264", ".webm": "libvpx"}[suffix]
    path = encode(tmp_path / f"a{suffix}", VIDEO[:17], codec, rate)
    info = probe(path)
    assert (info.num_frames, frames_at(info, float(rate)), frames_at(info, float(rate) / 2)) == (17, 17, 8)
    assert at(path, [i / float(rate) for i in range(17)]) == list(range(17))


@pytest.mark.parametrize("suffix", [".gif", ".png", ".mp4"])
def test_what_is_written_is_read_with_all_its_frames(tmp_path, suffix):
    path = write_video(tmp_path / f"a{suffix}", VIDEO[:17], 16)
    assert frames_at(probe(path), 16) == 17 and at(path, [i / 16 for i in range(17)]) == list(range(17))


def test_a_clock_of_milliseconds(tmp_path):
    path = encode(tmp_path / "a.mp4", VIDEO[:17], rate=30, container_options={"video_track_timescale": "1000"})
    assert frames_at(probe(path), 30) == 17 and at(path, [i / 30 for i in range(17)]) == list(range(17))


@pytest.mark.parametrize(
    "name, codec, options",
    [
        ("h264.avi", "libx264", {"max_b_frames": 2, "gop_size": 12}),
        ("mpeg4.avi", "mpeg4", {"max_b_frames": 2, "gop_size": 12}),
        ("plain.avi", "mpeg4", {"max_b_frames": 0, "gop_size": 12}),
        ("a.ts", "libx264", {"max_b_frames": 2, "gop_size": 12}),
        ("a.mts", "libx264", {"max_b_frames": 2, "gop_size": 12, "format": "mpegts"}),
        ("a.mpg", "mpeg2video", {"max_b_frames": 2, "gop_size": 12, "rate": 25}),
        ("a.m4v", "mpeg4", {"max_b_frames": 2, "gop_size": 12, "format": "mp4"}),
        ("a.264", "libx264", {"max_b_frames": 2, "gop_size": 12, "format": "h264", "rate": 25}),
        ("a.flv", "libx264", {"max_b_frames": 2, "gop_size": 12}),
        ("a.wmv", "wmv2", {"format": "asf"}),
        ("a.mov", "libx264", {"max_b_frames": 2, "gop_size": 12}),
        ("a.mjpeg", "mjpeg", {"format": "mjpeg", "pixels": "yuvj420p", "rate": 25}),
    ],
)
def test_every_container_gives_its_frames_in_the_order_shown(tmp_path, name, codec, options):
    path = encode(tmp_path / name, VIDEO, codec, **options)
    info, rate = probe(path), options.get("rate", 20)
    assert (info.num_frames, frames_at(info, rate)) == (40, 40) and info.duration == pytest.approx(40 / rate, abs=0.002)
    assert numbers(path) == list(range(40))
    for first in (23, 30, 39):  # after seeking
        assert at(path, [i / rate for i in range(first, 40)]) == list(range(first, 40))


OPEN_GOP = {"x264-params": "open-gop=1:keyint=12:min-keyint=12:scenecut=0"}


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_lossless_trims(tmp_path, suffix):
    source = encode(tmp_path / "source.mkv", VIDEO, options=OPEN_GOP, max_b_frames=2)
    with av.open(str(source)) as container:
        packets = [p for p in container.demux(container.streams.video[0]) if p.dts is not None]
        keys = [index for index, packet in enumerate(packets) if packet.is_keyframe]
        stamp = packets[keys[1]].pts
    opened = remux(source, tmp_path / f"open{suffix}", keys[1], avoid_negative_ts="disabled")
    moved = remux(source, tmp_path / f"moved{suffix}", keys[1], stamp, avoid_negative_ts="disabled")
    earlier = remux(source, tmp_path / f"earlier{suffix}", 0, 500, avoid_negative_ts="disabled")
    for path in (opened, moved):  # from the key frame on: what leads to it refers to frames that are not there
        shown = numbers(path)
        assert shown == list(range(shown[0], 40)) and probe(path).num_frames == len(shown) >= 16
        assert at(path, [0.0, 0.3]) == [shown[0], shown[6]]
    shown = numbers(earlier)
    assert shown == list(range(shown[0], 40)) and shown[0] in (0, 10, 12) and probe(earlier).num_frames == len(shown)


def test_coarse_decoding_is_not_seen_at_half_the_size(tmp_path):
    rng = np.random.default_rng(0)
    ground = np.kron(rng.integers(0, 255, (40, 60)), np.ones((8, 8)))
    video = np.stack([np.roll(ground, (i, 3 * i), (0, 1))[:160, :240] for i in range(17)])
    video = (video[..., None] + rng.integers(-9, 9, (17, 160, 240, 3))).clip(0, 255).astype(np.uint8)
    path = write_video(tmp_path / "a.mp4", video, 16, crf=35, preset="medium")
    fine, coarse = (list(every_frame(path, probe(path), coarse)) for coarse in (False, True))
    whole, half = (
        np.stack([[f.scaled(*size).rgb() for f in frames] for frames in (fine, coarse)]).astype(float)
        for size in ((240, 160), (120, 80))
    )
    assert np.square(half[0] - half[1]).mean() < 4 and (whole[0] != whole[1]).any()


def test_a_last_frame_that_is_held_counts(tmp_path):
    frames = [Image.fromarray(frame) for frame in VIDEO[:4]]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=[100, 100, 100, 1700], loop=0)
    info = probe(tmp_path / "a.gif")
    assert info.duration == pytest.approx(2.0) and frames_at(info, 10) == 20
    assert at(tmp_path / "a.gif", [0.0, 0.25, 0.35, 1.95]) == [0, 2, 3, 3]
    path = tmp_path / "a.mp4"
    with av.open(str(encode(tmp_path / "b.mp4", VIDEO[:4], max_b_frames=0))) as a, av.open(str(path), "w") as b:
        stream = b.add_stream_from_template(a.streams.video[0])
        packets = [p for p in a.demux(a.streams.video[0]) if p.dts is not None]
        packets[-1].duration = 20 * packets[0].duration
        for packet in packets:
            packet.stream = stream
            b.mux(packet)
    info = probe(path)
    assert info.num_frames == 4 and info.duration == pytest.approx(23 / 20) and frames_at(info, 20) == 23
    assert at(path, [0.0, 0.1, 0.2, 1.1]) == [0, 2, 3, 3]


def test_gif_delays_as_browsers_have_them(tmp_path):
    frames = [Image.fromarray(frame) for frame in VIDEO[:4]]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=[0, 10, 20, 100])
    assert probe(tmp_path / "a.gif").duration == pytest.approx(0.1 + 0.1 + 0.02 + 0.1)


def test_joined_files_are_named(tmp_path):
    one = encode(tmp_path / "one.ts", VIDEO[:20]).read_bytes()
    (tmp_path / "two.ts").write_bytes(one + one)
    with pytest.raises(DataError, match=r"two\.ts: time starts again after .* split it there, or encode it again"):
        probe(tmp_path / "two.ts")


# -------------------- shape


@pytest.mark.parametrize(
    "name, codec", [("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.avi", "mpeg4"), ("a.ts", "libx264")]
)
def test_pixels_that_are_not_square(tmp_path, name, codec):
    path = encode(tmp_path / name, VIDEO[:8, :, :48], codec, sample_aspect_ratio=Fraction(2, 1))
    info = probe(path)
    assert (info.width, info.height) == (96, 48) == read_frames(path, [0.1]).shape[2:0:-1]
    assert any("pixels of 2" in note for note in info.notes)
    tall = encode(tmp_path / f"tall_{name}", VIDEO[:8], codec, sample_aspect_ratio=Fraction(1, 2))
    assert (probe(tall).width, probe(tall).height) == (64, 96) == read_frames(tall, [0.1]).shape[2:0:-1]


MATRICES = {  # (a, b, c, d) of the display matrix, and what it does to an array
    "90": ((0, 1, -1, 0), lambda x: np.rot90(x, -1)),
    "180": ((-1, 0, 0, -1), lambda x: np.rot90(x, 2)),
    "270": ((0, -1, 1, 0), lambda x: np.rot90(x, 1)),
    "mirrored": ((-1, 0, 0, 1), lambda x: x[:, ::-1]),
    "upside down": ((1, 0, 0, -1), lambda x: x[::-1]),
    "transposed": ((0, 1, 1, 0), lambda x: x.swapaxes(0, 1)),
    "transverse": ((0, -1, -1, 0), lambda x: np.rot90(x, 2).swapaxes(0, 1)),
}


@pytest.mark.parametrize("name", MATRICES)
def test_display_matrices_turn_and_mirror(tmp_path, name):
    (a, b, c, d), change = MATRICES[name]
    plain = encode(tmp_path / "plain.mp4", VIDEO[:3])
    data = plain.read_bytes()
    fixed = lambda *values: b"".join((v << s).to_bytes(4, "big", signed=True) for v, s in values)  # noqa: E731
    unit = fixed((1, 16), (0, 0), (0, 0), (0, 0), (1, 16), (0, 0), (0, 0), (0, 0), (1, 30))
    matrix = fixed((a, 16), (b, 16), (0, 0), (c, 16), (d, 16), (0, 0), (0, 0), (0, 0), (1, 30))
    place = data.index(unit, data.index(b"tkhd"))
    path = tmp_path / "turned.mp4"
    path.write_bytes(data[:place] + matrix + data[place + 36 :])
    want, got = change(read_frames(plain, [0.05])[0]), read_frames(path, [0.05])[0]
    assert np.array_equal(got, want) and (probe(path).height, probe(path).width) == want.shape[:2]
    assert any("mirrored" in note for note in probe(path).notes) == (a * d - b * c < 0)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_stand_upright(tmp_path, orientation):
    undo = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}[orientation]  # Pillow's Transpose
    seen = Image.fromarray(VIDEO[21])
    stored = seen if undo is None else seen.transpose(Image.Transpose(undo))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.jpg", quality=98, exif=exif)
    assert number(read_frames(tmp_path / "a.jpg", [0.0])[0]) == 21
    assert (probe(tmp_path / "a.jpg").width, probe(tmp_path / "a.jpg").height) == (64, 48)


def test_a_size_that_changes_in_the_middle_is_scaled_to_the_first(tmp_path):
    path = tmp_path / "a.h264"
    encode(path, VIDEO[:6], rate=25, format="h264")
    first = path.read_bytes()
    encode(path, VIDEO[6:12].repeat(2, 1).repeat(2, 2), rate=25, format="h264")
    path.write_bytes(first + path.read_bytes())
    frames = read_frames(path, [i / 25 for i in range(12)])
    assert frames.shape[1:] == (48, 64, 3) and [number(frame) for frame in frames] == list(range(12))


def test_the_stream_that_a_player_shows(tmp_path):
    with av.open(str(tmp_path / "two.mkv"), "w") as container:
        streams = [container.add_stream("libx264", rate=20) for _ in range(2)]
        for stream, size in zip(streams, ((24, 32), (48, 64))):
            stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        streams[0].disposition, streams[1].disposition = 0, 1  # the second is the default one
        for index in range(8):
            for stream, size in zip(streams, ((24, 32), (48, 64))):
                frame = av.VideoFrame.from_ndarray(numbered(8, *size)[index], format="rgb24")
                frame.pts, frame.time_base = index, Fraction(1, 20)
                container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode())
    info = probe(tmp_path / "two.mkv")
    assert (info.width, info.height, info.num_frames) == (64, 48, 8) and "2 video streams" in info.notes[0]
    assert numbers(tmp_path / "two.mkv") == list(range(8))


def test_interlaced_frames_have_no_combs(tmp_path):
    field = np.zeros((48, 64, 3), np.uint8)
    woven = field.copy()
    field[:, 10:20], woven[0::2, 10:20], woven[1::2, 30:40] = 255, 255, 255  # the second field has moved on
    assert np.array_equal(without_combs(woven), field) and np.array_equal(without_combs(woven[:47]), field[:47])
    path = encode(tmp_path / "a.mkv", np.stack([woven] * 4), options={"x264-params": "tff=1:qp=0"})
    assert abs(read_frames(path, [0.1])[0].astype(int) - field).mean() < 6
    assert any("interlaced" in note for note in probe(path).notes)


# -------------------- colours

RED_ISH = (200, 60, 90)


@pytest.mark.parametrize("pixels", ["yuv420p", "yuv444p", "yuv420p10le"])
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("matrix", list(KR_KB))
def test_flat_colours_come_out_as_they_went_in(tmp_path, pixels, full, matrix):
    values = coded(RED_ISH, matrix, full, 10 if "10" in pixels else 8)
    facts = {"colorspace": matrix, "color_range": 2 if full else 1}
    frames = [flat(pixels, values, **facts) for _ in range(3)]
    path = encode(tmp_path / "a.mkv", frames, "ffv1", pixels=pixels, **facts)
    assert abs(read_frames(path, [0.0])[0].astype(int) - RED_ISH).max() <= 3
    smaller = next(every_frame(path, probe(path))).scaled(24, 20)
    for picture, size in ((smaller, (20, 24, 3)), (smaller.scaled(7, 6), (6, 7, 3))):
        assert picture.rgb().shape == size and abs(picture.rgb().astype(int) - RED_ISH).max() <= 5


@pytest.mark.parametrize("height, matrix", [(32, 6), (720, 1)])
def test_colours_of_a_file_that_says_nothing(tmp_path, height, matrix):
    frames = [flat("yuv420p", coded(RED_ISH, matrix, False), height)]
    path = encode(tmp_path / "a.mkv", frames, "ffv1")
    assert abs(read_frames(path, [0.0])[0].astype(int) - RED_ISH).max() <= 3


@pytest.mark.parametrize(
    "codec, pixels, planes",
    [
        ("ffv1", "gray", (90,)),
        ("mjpeg", "yuvj420p", coded((90, 90, 90), 6, True)),
        ("libx264rgb", "rgb24", (90,)),
    ],
)
def test_grey_in_other_clothes(tmp_path, codec, pixels, planes):
    path = encode(tmp_path / "a.mkv", [flat(pixels, planes)], codec, pixels=pixels)
    assert abs(read_frames(path, [0.0])[0].astype(int) - 90).max() <= 3


def test_colours_that_cannot_be_read_are_named(tmp_path):
    path = encode(
        tmp_path / "a.mkv", [flat("yuv444p", (90, 128, 128), colorspace=8)], "ffv1", pixels="yuv444p", colorspace=8
    )
    with pytest.raises(DataError, match=r"a\.mkv: its colours are stored by matrix 8"):
        read_frames(path, [0.0])


@pytest.mark.parametrize("transfer, code, name", [(16, 0.58, "PQ"), (18, 0.75, "HLG")])
def test_high_dynamic_range_is_toned_down(tmp_path, transfer, code, name):
    facts = {"colorspace": 9, "color_range": 1, "color_trc": transfer, "color_primaries": 9}

    def shown(signal):
        frame = flat("yuv420p10le", (round(64 + 876 * signal), 512, 512), **facts)
        path = encode(tmp_path / f"{signal}.mkv", [frame], "ffv1", pixels="yuv420p10le", **facts)
        assert probe(path).notes[0] == f"high dynamic range ({name}), toned down"
        return read_frames(path, [0.0])[0].astype(int)

    white, grey, black, brightest = (shown(signal) for signal in (code, code * 0.7, 0.0, 1.0))
    assert white.min() >= 225 and white.max() <= 250  # reference white looks white, and leaves room for highlights
    assert black.max() <= 3 and white.max() < brightest.min() and 20 < grey.mean() < white.mean() - 40
    assert np.ptp(white, axis=-1).max() <= 2  # and stays without colour


def test_transfer_functions():
    assert pq_eotf(np.array([0.0, 1.0])) == pytest.approx([0, 10_000])
    assert pq_eotf(np.array([0.5081])) == pytest.approx([100], rel=0.01)  # BT.2408: 100 nits are at 50.8%
    assert hlg_inverse_oetf(np.array([0.0, 0.5, 1.0])) == pytest.approx([0, 1 / 12, 1], abs=1e-4)
    light = np.linspace(0, 50, 1000)
    assert (np.diff(rolled_off(light)) > 0).all() and rolled_off(light).max() < 1 and rolled_off(light)[5] == light[5]


@pytest.mark.parametrize(
    "name, codec, pixels", [("a.webm", "libvpx-vp9", "yuva420p"), ("a.mov", "prores_ks", "yuva444p10le")]
)
def test_noise_under_transparency_is_not_seen(tmp_path, name, codec, pixels):
    rng = np.random.default_rng(0)
    rgba = np.zeros((64, 64, 4), np.uint8)
    rgba[..., :3], rgba[16:48, 16:48] = rng.integers(0, 255, (64, 64, 3)), (220, 30, 30, 255)
    frames = [av.VideoFrame.from_ndarray(rgba, format="rgba") for _ in range(3)]
    path = encode(tmp_path / name, frames, codec, pixels=pixels)
    seen = read_frames(path, [0.0])[0].astype(int)
    assert seen[2:12, 2:12].min() > 240 and abs(seen[24:40, 24:40] - (220, 30, 30)).max() < 25
    assert "transparent parts are white" in probe(path).notes


# -------------------- names and kinds


@pytest.mark.parametrize("name", ["a.bmp", "a.tif", "a.avif", "a.jfif", "a.ppm", "a.tga", "a.jp2", "a.apng", "a.qoi"])
def test_stills_of_every_kind(tmp_path, name):
    format = {"jfif": "JPEG", "apng": "PNG"}.get(name[2:])
    Image.fromarray(VIDEO[21]).save(tmp_path / name, format)
    assert probe(tmp_path / name).kind == "image" and number(read_frames(tmp_path / name, [0.0])[0]) == 21


def test_first_bytes_count_and_not_the_name(tmp_path):
    encode(tmp_path / "a.mp4", VIDEO[:8]).rename(tmp_path / "a.gif")
    Image.fromarray(VIDEO[21]).save(tmp_path / "b.webp", lossless=True)
    (tmp_path / "b.webp").rename(tmp_path / "b.mp4")
    Image.fromarray(VIDEO[22]).save(tmp_path / "c.png")
    (tmp_path / "c.png").rename(tmp_path / "c.jpg")
    assert numbers(tmp_path / "a.gif") == list(range(8)) and probe(tmp_path / "b.mp4").kind == "image"
    assert at(tmp_path / "b.mp4", [0.0]) == [21] and at(tmp_path / "c.jpg", [0.0]) == [22]


@pytest.mark.parametrize(
    "content, said",
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "git-lfs pointer.*`git lfs pull`"),
        (b"\n<!DOCTYPE html><html><body>404</body></html>", "web page"),
        (b"just words", "unreadable"),
    ],
)
@pytest.mark.parametrize("name", ["a.mp4", "a.png"])
def test_what_is_no_video_at_all(tmp_path, content, said, name):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=said):
        probe(tmp_path / name)


def test_music_with_a_cover_is_no_video(tmp_path):
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        sound = container.add_stream("aac", rate=44100)
        for index in range(20):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 44100, 1024 * index
            container.mux(sound.encode(frame))
        container.mux(sound.encode())
    with pytest.raises(DataError, match="holds no video stream"):
        probe(tmp_path / "a.mkv")


def test_a_photo_with_a_wide_colour_profile(tmp_path):
    from PIL import ImageCms

    lab = ImageCms.createProfile("LAB")
    Image.fromarray(VIDEO[21]).save(tmp_path / "odd.png", icc_profile=ImageCms.ImageCmsProfile(lab).tobytes())
    assert at(tmp_path / "odd.png", [0.0]) == [21]  # a profile that does not fit is left out
    Image.new("F", (8, 8), 0.5).save(tmp_path / "f.tif")
    with pytest.raises(DataError, match="floating-point"):
        read_frames(tmp_path / "f.tif", [0.0])
