"""Captions and quarantine mended by hand: in the place where the folder has them, everything else as it was, and taken back."""

import json

import numpy as np
import pytest

from video_gen.data.check import check
from video_gen.data.config import ClipConfig
from video_gen.data.editing import set_caption, set_quarantine
from video_gen.data.folder import QUARANTINE, quarantined, scan
from video_gen.data.manifest import Row, read_manifest, write_manifest
from video_gen.data.video_writer import write_video
from video_gen.errors import DataError


def clip(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, np.random.default_rng(seed).integers(0, 255, (8, 16, 16, 3), dtype=np.uint8), 8)


def captions(folder):
    return {source.name: source.caption for source in scan(folder)}


def test_a_row_of_json_lines_changes_and_all_other_bytes_stay(tmp_path):
    for number in range(3):
        clip(tmp_path / f"{number}.mp4", number)
    lines = [
        b'\xef\xbb\xbf{"file_name": "0.mp4",   "text": "zero", "licence": "free"}\r\n',
        b'{"text": "one", "file_name": "./1.mp4", "changes": [{"time": 0.5, "text": "later"}]}\r\n',
        b"\r\n",
        b'{"file_name":"2.mp4","text":"zwei \\u00fc"}\n',
    ]
    (tmp_path / "metadata.jsonl").write_bytes(b"".join(lines))
    assert set_caption(tmp_path, "1.mp4", " a  new\n one ü") == "one"
    found = (tmp_path / "metadata.jsonl").read_bytes().split(b"\n")
    before = b"".join(lines).split(b"\n")
    assert [a == b for a, b in zip(found, before)] == [True, False, True, True, True] and found[1].endswith(b"\r")
    row = json.loads(found[1])
    assert row["changes"] == [{"time": 0.5, "text": "later"}] and row["text"] == "a new one ü"
    assert captions(tmp_path) == {"0.mp4": "zero", "1.mp4": "a new one ü", "2.mp4": "zwei ü"}
    assert set_caption(tmp_path, "1.mp4", "one") == "a new one ü"
    assert captions(tmp_path)["1.mp4"] == "one"


def test_a_row_of_a_table_and_a_table_without_captions(tmp_path):
    for name in ("a.mp4", "b.mp4", "deep/c.mp4"):
        clip(tmp_path / name, len(name))
    (tmp_path / "metadata.csv").write_text('file_name,text,stars\na.mp4,"one, two",5\nb.mp4,three,4\n')
    (tmp_path / "deep" / "metadata.csv").write_text("file_name\nc.mp4\n")
    assert set_caption(tmp_path, "a.mp4", 'says "hi", and goes') == "one, two"
    assert set_caption(tmp_path, "deep/c.mp4", "four, five") == ""
    assert captions(tmp_path) == {"a.mp4": 'says "hi", and goes', "b.mp4": "three", "deep/c.mp4": "four, five"}
    assert (tmp_path / "metadata.csv").read_text().splitlines()[2] == "b.mp4,three,4"
    assert (tmp_path / "metadata.csv").read_text().splitlines()[1].endswith(",5")


def test_a_text_beside_and_none_at_all(tmp_path):
    clip(tmp_path / "a.mp4")
    assert set_caption(tmp_path, "a.mp4", "first") == "" and (tmp_path / "a.txt").read_text() == "first\n"
    assert set_caption(tmp_path, "a.mp4", "") == "first" and captions(tmp_path) == {"a.mp4": None}
    clip(tmp_path / "b.mp4", 1)
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "b.mp4", "text": "b"}\n')
    set_caption(tmp_path, "a.mp4", "in the file that is there")
    assert len((tmp_path / "metadata.jsonl").read_text().splitlines()) == 2
    assert captions(tmp_path) == {"a.mp4": "in the file that is there", "b.mp4": "b"}
    (tmp_path / "b.txt").write_text("another b\n")
    with pytest.raises(DataError, match="delete one of the two"):
        set_caption(tmp_path, "b.mp4", "")


def test_prepared_footage_is_told_in_its_manifest(tmp_path):
    pytest.importorskip("pyarrow")
    clip(tmp_path / "clips" / "a.mp4")
    kept = Row(
        "pile/a.mov", "0" * 16, file_name="clips/a.mp4", caption="old", width=16, height=16, num_frames=8, fps=8.0
    )
    write_manifest(tmp_path, [Row("pile/b.mov", "1" * 16, refused="still: 0.1"), kept])
    assert set_caption(tmp_path, "clips/a.mp4", "new") == "old"
    rows = read_manifest(tmp_path / "manifest.parquet")
    assert [row.caption for row in rows] == ["", "new"] and captions(tmp_path) == {"clips/a.mp4": "new"}
    with pytest.raises(DataError, match="keeps no clip"):
        set_caption(tmp_path, "pile/b.mov", "new")


def test_what_is_put_into_quarantine_by_hand_stays_when_the_folder_is_read(tmp_path):
    for number in range(3):
        clip(tmp_path / f"{number}.mp4", number)
    (tmp_path / "broken.mp4").write_bytes(b"no")
    assert set_quarantine(tmp_path, {"1.mp4": "by hand: dull", "2.mp4": "still: nothing moves"}) == {
        "1.mp4": None,
        "2.mp4": None,
    }
    check(ClipConfig(folder=tmp_path, num_frames=5, fps=8), workers=1)
    assert set(quarantined(tmp_path)) == {"1.mp4", "broken.mp4"}
    assert set_quarantine(tmp_path, {"1.mp4": None, "broken.mp4": None})["1.mp4"] == "by hand: dull"
    assert not (tmp_path / QUARANTINE).exists()
