"""Videos that can be watched while they grow."""

import io

import numpy as np
import pytest
from test_files import small_files  # noqa: F401

from video_gen.data.live_video import LiveMP4, LiveRaw
from video_gen.data.video_file import all_frames, probe, read_frames, read_metadata
from video_gen.errors import DataError, ShapeError


def picture(frames: int, start: int = 0) -> np.ndarray:
    """A square that moves, different in every frame."""
    made = np.full((frames, 32, 48, 3), 40, np.uint8)
    for i in range(frames):
        made[i, 8:24, (start + i) % 32 : (start + i) % 32 + 16] = (200, 60, 30)
    return made


def test_what_was_written_is_read_back_at_every_rate(tmp_path):
    file = tmp_path / "new" / "x.mp4"
    with LiveMP4(file, 32, 48, 8, crf=4, metadata={"prompt": "a"}) as live:
        live.write(picture(8), 8)
        live.write(picture(16, 8), 29.97)
        live.write(picture(4, 24), 4)
    info = probe(file)
    assert (info.num_frames, info.width, info.height, info.codec) == (28, 48, 32, "h264")
    assert info.duration == pytest.approx(1 + 16 / 29.97 + 1, abs=1e-3) and read_metadata(file) == {"prompt": "a"}
    times, frames = zip(*all_frames(file))
    want = np.cumsum([0.0, *[1 / 8] * 8, *[1 / 29.97] * 16, *[1 / 4] * 3])
    np.testing.assert_allclose(times, want, atol=2e-5)
    assert abs(np.stack(frames).astype(int) - picture(28)).mean() < 6
    assert np.array_equal(read_frames(file, [1.3]), frames[16][None])


class Pipe(io.RawIOBase):
    """Somebody who reads a number of bytes and goes."""

    def __init__(self, most: float = float("inf")):
        self.got, self.most = bytearray(), most

    def writable(self):
        return True

    def write(self, data):
        if len(self.got) >= self.most:
            raise BrokenPipeError
        self.got += bytes(data)
        return len(data)


def test_frames_arrive_as_they_are_written_and_survive_a_sudden_end(tmp_path):
    pipe = Pipe()
    live, sizes = LiveMP4(io.BufferedWriter(pipe), 32, 48, 16), []
    for start in range(0, 64, 8):
        live.write(picture(8, start), 16)
        sizes.append(len(pipe.got))
    assert all(b > a for a, b in zip(sizes, sizes[1:]))
    (tmp_path / "cut.mp4").write_bytes(pipe.got)  # nobody closed it
    assert 56 <= len(list(all_frames(tmp_path / "cut.mp4"))) <= 64
    live.close()


def test_a_reader_that_goes_is_noticed():
    live = LiveMP4(Pipe(5000), 32, 48, 16)
    with pytest.raises(BrokenPipeError):
        for _ in range(1000):
            live.write(np.random.default_rng(0).integers(0, 255, (4, 32, 48, 3), dtype=np.uint8), 16)


def test_raw_frames():
    pipe = io.BytesIO()
    LiveRaw(pipe).write(picture(3)[:, ::2], 8)
    assert pipe.getvalue() == picture(3)[:, ::2].tobytes()


def test_a_full_disk_leaves_a_file_that_plays_up_to_there(tmp_path, small_files):  # noqa: F811
    noise, live, written = np.random.default_rng(0), LiveMP4(tmp_path / "x.mp4", 32, 48, 16), 0
    with pytest.raises(DataError, match=r"x\.mp4: cannot be written: .*ulimit -f"):
        for _ in range(100):
            live.write(noise.integers(0, 255, (4, 32, 48, 3), dtype=np.uint8), 16)
            written += 4
    live.close()
    shown = len(list(all_frames(tmp_path / "x.mp4")))
    assert 0 < shown == probe(tmp_path / "x.mp4").num_frames <= written + 4 and shown >= written - 8


def test_mistakes(tmp_path):
    with pytest.raises(ShapeError, match="even"):
        LiveMP4(tmp_path / "x.mp4", 31, 48, 16)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        LiveMP4(tmp_path / "file" / "x.mp4", 32, 48, 16)
