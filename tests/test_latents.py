"""The caches: everything is encoded once, whoever does it, and only what changed again; training needs nothing else."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from video_gen.data import latents as latents_module
from video_gen.data.clips import Clips, to_video
from video_gen.data.config import ClipConfig
from video_gen.data.latents import LatentSet, encode_clips, known_latents, read_index, stamp_of
from video_gen.data.store import Store, fill
from video_gen.data.video_writer import write_video
from video_gen.errors import DataError


def write_clip(path: Path, seed: int, frames: int = 9) -> None:
    write_video(path, np.random.default_rng(seed).integers(0, 255, (frames, 16, 16, 3), dtype=np.uint8), 8)


def folder_of(tmp_path: Path, count: int, **overrides) -> ClipConfig:
    for i in range(count):
        write_clip(tmp_path / "d" / f"{i}.mp4", i)
    settings = dict(num_frames=9, fps=8, height=16, width=16, validation_fraction=0) | overrides
    return ClipConfig(folder=tmp_path / "d", **settings)


class Encoder:
    """Every fourth pixel; counts the clips."""

    def __init__(self):
        self.clips = 0

    def __call__(self, video):
        self.clips += len(video)
        return video[:, :, ::4, ::4, ::4]


def encode(config: ClipConfig, folder: Path, **settings) -> tuple[int, LatentSet]:
    """How many clips were encoded, and all of them."""
    encoder = Encoder()
    entries = encode_clips(Clips(config), encoder, folder, stamp_of(config), **settings)
    return encoder.clips, LatentSet(folder, entries)


# -------------------- what is encoded


def test_latents_are_those_of_the_clips(tmp_path, monkeypatch):
    monkeypatch.setattr(latents_module, "BATCH_PIXELS", 3 * 9 * 16 * 16)
    config = folder_of(tmp_path, 4)
    count, found = encode(config, tmp_path / "z")
    clips = Clips(config)
    assert count == 4 and found.buckets == [(3, 4, 4)] * 4 and found[2].dtype == torch.float32
    for index in range(4):
        want = Encoder()(to_video(torch.from_numpy(clips[index].video)[None]))[0]
        torch.testing.assert_close(found[index], want, rtol=1e-3, atol=1e-3)
    assert encode(config, tmp_path / "z")[0] == 0


def test_only_what_changed_is_encoded_again(tmp_path):
    config = folder_of(tmp_path, 4)
    before = encode(config, tmp_path / "z", shard_clips=2)[1]
    kept = before[0]
    (tmp_path / "d" / "0.txt").write_text("a caption")
    assert known_latents(tmp_path / "z", config) is None
    count, found = encode(config, tmp_path / "z", shard_clips=2)
    assert count == 0 and found.caption(0) == "a caption" and torch.equal(found[0], kept)
    write_clip(tmp_path / "d" / "1.mp4", 11)
    write_clip(tmp_path / "d" / "new.mp4", 12)
    count, found = encode(config, tmp_path / "z", shard_clips=2)
    assert count == 2 and len(found) == 5 and not torch.equal(found[1], before[1])
    os.rename(tmp_path / "d" / "2.mp4", tmp_path / "d" / "other.mp4")
    assert encode(config, tmp_path / "z")[0] == 0  # the content is the key
    assert encode(config.replace(num_frames=5), tmp_path / "z")[0] == 5
    assert encode(config, tmp_path / "another-vae")[0] == 5
    assert known_latents(tmp_path / "z", config) == found_again(tmp_path, config)


def found_again(tmp_path: Path, config: ClipConfig):
    return encode(config, tmp_path / "z")[1].entries


def test_an_index_stands_for_files_that_are_gone(tmp_path):
    config = folder_of(tmp_path, 6, validation_fraction=0.3)
    (tmp_path / "d" / "metadata.jsonl").write_text(json.dumps({"file_name": "3.mp4", "text": "three"}) + "\n")
    assert known_latents(tmp_path / "z", config) is None
    _, found = encode(config, tmp_path / "z")
    for path in (tmp_path / "d").glob("*.mp4"):
        path.unlink()
    entries = known_latents(tmp_path / "z", config)
    assert entries == found.entries and entries is not None
    assert {entry.part for entry in entries} == {"train", "validation"} and "three" in {e.caption for e in entries}
    assert all(torch.equal(a, b) for a, b in zip(LatentSet(tmp_path / "z", entries), found))
    next((tmp_path / "z" / "shards").glob("*.safetensors")).unlink()
    with pytest.raises(DataError, match=r"lacks 1 shards, and .* holds no videos"):
        known_latents(tmp_path / "z", config)


def test_a_lost_shard_is_made_again_and_a_damaged_one_is_named(tmp_path):
    config = folder_of(tmp_path, 4)
    _, found = encode(config, tmp_path / "z", shard_clips=2)
    want = [found[i].clone() for i in range(4)]
    shards = sorted((tmp_path / "z" / "shards").glob("*"))
    assert len(shards) == 2
    shards[0].unlink()
    assert known_latents(tmp_path / "z", config) is None
    count, found = encode(config, tmp_path / "z", shard_clips=2)
    assert count == 2 and all(torch.equal(a, b) for a, b in zip(found, want))
    shards[1].write_bytes(shards[1].read_bytes()[:-40])
    with pytest.raises(DataError, match=f"{shards[1].name}: unreadable .* delete it"):
        encode(config, tmp_path / "z")
    index = next((tmp_path / "z").glob("index-*"))
    index.write_text(index.read_text() + "{torn")
    with pytest.raises(DataError, match="damaged; delete the file"):
        read_index(index)


def test_an_error_keeps_what_was_made(tmp_path):
    units = [["a", "b", "c"], ["d", "e"]]

    def make(keys, stop=""):
        for key in keys:
            if key == stop:
                raise DataError("broken")
            yield key, torch.full((2,), float(ord(key)))

    with pytest.raises(DataError, match="broken"):
        fill(tmp_path, units, lambda keys: make(keys, "c"))
    made, seen = [], []
    store = fill(tmp_path, units, lambda keys: (made.extend(keys), make(keys))[1], lambda *now: seen.append(now))
    assert made == ["c", "d", "e"] and seen[-1] == (5, 5) and seen[0] == (3, 5)
    assert [float(store.read(key)[0]) for unit in units for key in unit] == [ord(x) for x in "abcde"]


# -------------------- several processes

WORKER = """
import sys, time, torch
from pathlib import Path
from video_gen.data.store import fill
folder, log, hang = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
log.touch()
while len(list(log.parent.glob("log-*"))) < int(sys.argv[4]):
    time.sleep(0.01)
def make(keys):
    for key in keys:
        with log.open("a") as file:
            file.write(key + chr(10))
        time.sleep(600 if key == hang else 0.02)
        yield key, torch.full((4,), float(key))
fill(folder, [[str(4 * u + i) for i in range(4)] for u in range(10)], make)
"""


def worker(tmp_path: Path, name: str, hang: str = "", together: int = 1) -> subprocess.Popen:
    """Fill a store with 10 shards of 4, once `together` such processes run; stop for good at the key `hang`."""
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    words = [sys.executable, str(script), str(tmp_path / "z"), str(tmp_path / name), hang, str(together)]
    return subprocess.Popen(words, env=environment)


def lines(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


def wait_for_lines(path: Path, count: int) -> None:
    until = time.monotonic() + 60
    while len(lines(path)) < count:
        assert time.monotonic() < until
        time.sleep(0.01)


def assert_whole(tmp_path: Path) -> None:
    store = Store(tmp_path / "z")
    store.refresh()
    assert len(store.shards()) == 10 and all(float(store.read(str(i))[3]) == i for i in range(40))


@pytest.mark.slow
def test_two_processes_share_the_work_and_encode_everything_once(tmp_path):
    both = [worker(tmp_path, name, together=2) for name in ("log-one", "log-two")]
    assert [process.wait(timeout=60) for process in both] == [0, 0]
    done = [lines(tmp_path / name) for name in ("log-one", "log-two")]
    assert sorted(done[0] + done[1], key=int) == [str(i) for i in range(40)]
    assert min(map(len, done)) >= 4  # both worked
    assert_whole(tmp_path)


@pytest.mark.slow
def test_what_a_killed_process_had_claimed_is_done_by_the_other(tmp_path):
    killed = worker(tmp_path, "log-one", hang="9")
    wait_for_lines(tmp_path / "log-one", 10)  # two shards are written
    other = worker(tmp_path, "log-two")
    wait_for_lines(tmp_path / "log-two", 28)  # all but what is claimed
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert other.wait(timeout=60) == 0
    assert set(lines(tmp_path / "log-one")) & set(lines(tmp_path / "log-two")) == {"8", "9"}  # the unwritten shard
    assert_whole(tmp_path)
