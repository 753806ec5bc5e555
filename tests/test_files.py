"""Writing files: whole or absent, with the umask's rights; what the disk says against it is one line."""

import os
import stat

import pytest
import torch
from safetensors.torch import load_file

from video_gen.errors import DataError
from video_gen.files import write_tensors, write_text, written

resource = pytest.importorskip("resource")


@pytest.fixture
def small_files():
    """No file may grow beyond 10,000 bytes: as on a full disk, or under `ulimit -f`."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("umask, mode", [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_files_follow_the_umask(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        write_tensors(tmp_path / "a.safetensors", {"x": torch.ones(3)})
        write_text(tmp_path / "b.json", "{}")
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {mode}


def test_a_full_disk_is_one_line_and_leaves_what_was_there(tmp_path, small_files):
    path = tmp_path / "sub" / "a.safetensors"
    write_tensors(path, {"x": torch.ones(3)})
    with pytest.raises(DataError, match=r"a\.safetensors: cannot be written: .*ulimit -f"):
        write_tensors(path, {"x": torch.zeros(10_000)})
    with pytest.raises(DataError, match=r"b\.txt: cannot be written"):
        write_text(tmp_path / "sub" / "b.txt", "x" * 20_000)
    assert [p.name for p in path.parent.iterdir()] == ["a.safetensors"]
    assert torch.equal(load_file(path)["x"], torch.ones(3))


def test_a_place_that_cannot_be_is_one_line(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(DataError, match="cannot be written"):
        write_text(tmp_path / "file" / "a.txt", "x")


def test_an_interruption_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), written(tmp_path / "a.txt") as temporary:
        temporary.write_text("half", encoding="utf-8")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
