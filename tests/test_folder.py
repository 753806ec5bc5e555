"""Folders as people have them: captions from every editor, links, foreign files, and a check that counts as training will."""

import json
import os
import signal
import subprocess
import sys
import time
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from odd_files import numbered
from PIL import Image

from video_gen.cli import main
from video_gen.data.check import check
from video_gen.data.clips import Clips
from video_gen.data.config import ClipConfig
from video_gen.data.folder import look, media_files, scan
from video_gen.data.video_writer import write_video
from video_gen.errors import DataError
from video_gen.files import read_lines
from video_gen.stream import read_script


def picture(path: Path, shade: int = 90) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 16), (shade, 80, 70)).save(path)
    return path


def captions(folder: Path) -> dict[str, str | None]:
    return {source.name: source.caption for source in scan(folder)}


def jsonl(folder: Path, *rows: dict, encoding: str = "utf-8", name: str = "metadata.jsonl") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / name).write_bytes(text.encode(encoding))


# -------------------- captions


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("kind", ["jsonl", "csv", "txt"])
def test_text_as_editors_write_it(tmp_path, encoding, kind):
    picture(tmp_path / "a.png")
    text = {"jsonl": '{"file_name": "a.png", "text": "ein Käfer"}\r\n', "csv": "file_name,text\r\na.png,ein Käfer\r\n"}
    name = "a.txt" if kind == "txt" else f"metadata.{kind}"
    (tmp_path / name).write_bytes(text.get(kind, "ein Käfer").encode(encoding))
    assert captions(tmp_path) == {"a.png": "ein Käfer"}


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c"])
def test_lines_end_at_newlines_only(tmp_path, separator):
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png")
    text = f"one{separator}two"
    (tmp_path / "metadata.jsonl").write_text(
        '{"file_name": "a.png", "text": ' + json.dumps(text, ensure_ascii=False) + "}\n", encoding="utf-8"
    )
    (tmp_path / "sub").mkdir()
    picture(tmp_path / "sub/c.png")
    (tmp_path / "sub/metadata.csv").write_text(f"file_name,text\nc.png,{text}\n", encoding="utf-8", newline="")
    assert captions(tmp_path) == {"a.png": text, "b.png": None, "sub/c.png": text}
    (tmp_path / "script").write_text(
        json.dumps({"time": 1, "prompt": text}, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    assert read_script(tmp_path / "script")[0].prompt == text
    assert read_lines(tmp_path / "script")[-1] == ""


def test_metadata_lie_beside_their_clips(tmp_path):
    for name in ("train/a.png", "train/deep/b.png", "test/a.png", "c.png"):
        picture(tmp_path / name)
    jsonl(tmp_path / "train", {"file_name": "a.png", "text": "one"}, {"file_name": "deep/b.png", "text": "two"})
    (tmp_path / "test/metadata.csv").write_text("file_name,text\na.png,three\n", encoding="utf-8")
    jsonl(tmp_path, {"file_name": "c.png", "text": "four"})
    assert captions(tmp_path) == {
        "c.png": "four",
        "test/a.png": "three",
        "train/a.png": "one",
        "train/deep/b.png": "two",
    }
    jsonl(tmp_path, {"file_name": "train/a.png", "text": "five"})
    with pytest.raises(DataError, match=r"'a\.png' stands in .*metadata\.jsonl, line 1 already"):
        scan(tmp_path)


@pytest.mark.parametrize("said", ["./é.png", " é.png", "sub\\é.png", "sub//é.png", "É.png"])
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_names_match_however_they_are_written(tmp_path, said, form):
    stored = unicodedata.normalize("NFC" if form == "NFD" else "NFD", "é.png")
    picture(tmp_path / ("sub" if "sub" in said else ".") / stored)
    jsonl(tmp_path, {"file_name": unicodedata.normalize(form, said), "text": "t"})
    if "É" in said:
        with pytest.raises(DataError, match="capitals differ"):
            scan(tmp_path)
    else:
        assert list(captions(tmp_path).values()) == ["t"]


def test_rows_may_have_other_columns_and_no_text(tmp_path):
    for name in ("a.png", "b.png", "🦊.png"):
        picture(tmp_path / name)
    (tmp_path / "b.txt").write_text("beside", encoding="utf-8")
    rows = [
        {"file_name": "a.png", "fps": 8},
        {"file_name": "b.png", "text": None},
        {"file_name": "🦊.png", "text": "fox", "x": [1]},
    ]
    jsonl(tmp_path, *rows)
    assert captions(tmp_path) == {"a.png": None, "b.png": "beside", "🦊.png": "fox"}
    if clips := os.environ.get("VIDEO_GEN_TEST_CLIPS"):
        footage = Path(clips).parent / "footage"
        assert not footage.is_dir() or (len(look(footage).sources) > 200 and not look(footage).faults)


@pytest.mark.parametrize(
    "name, content, said",
    [
        ("metadata.csv", 'file_name,text\na.png,"open\nb.png,swallowed\n', "line 2: a quote is opened and not closed"),
        (
            "metadata.csv",
            "file_name,text\na.png,red, and blue\n",
            "line 2: has 3 cells for 2 columns; put text with a comma",
        ),
        ("metadata.csv", "file_name;text\na.png;t\n", "line 1: wants the column file_name, has 'file_name;text'"),
        ("metadata.csv", f"file_name,text\na.png,{'x' * 200_000}\n", "line 2: field larger than field limit"),
        (
            "metadata.jsonl",
            '{"file_name": "x.mp4", "text": "t"}\n',
            "line 1: names 'x.mp4', which is not in the folder",
        ),
        ("metadata.jsonl", '{"file_name": "a1.png", "text": "t"}\n', r"perhaps 'a\.png' is meant"),
        ("metadata.jsonl", '{"file_name": "raw.psd", "text": "t"}\n', r"a file of a kind that is not read \(\.psd\)"),
        ("metadata.jsonl", '{"text": "t"}\n', "line 1: has no file_name, but text"),
        ("metadata.jsonl", '{"file_name": "a.png", "text": 5}\n', "line 1: text is 5; a caption is words in quotes"),
        (
            "metadata.jsonl",
            '{"file_name": "a.png", "text": "\\ud83d!"}\n',
            r"line 1: the caption '\\ud83d!' holds half of",
        ),
        (
            "metadata.jsonl",
            '{"file_name": "a.png", "changes": [{"time": 1, "text": "\\ud83d!"}]}\n',
            r"line 1: the caption '\\ud83d!' holds half of",
        ),
        ("metadata.jsonl", "\n{oops\n", "line 2: not JSON"),
        ("metadata.jsonl", '{"file_name": "a.png", "text": "b", "text": "c"}\n', "line 1: .*'text' is given twice"),
        ("metadata.jsonl", '["a.png"]\n', "is one JSON list"),
        ("metadata.jsonl", "5\n", "expected an object with file_name, found int"),
        (
            "metadata.jsonl",
            '{"file_name": "a.png"}\n{"file_name": "./a.png"}\n',
            r"line 2: '\./a\.png' stands in .* already",
        ),
        ("a.txt", b"caf\xe9", r"a\.txt: no readable UTF-8 text"),
    ],
)
def test_each_fault_is_one_line_with_its_place(tmp_path, name, content, said):
    picture(tmp_path / "a.png")
    (tmp_path / "raw.psd").write_bytes(b"8BPS")
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=said) as error:
        scan(tmp_path)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


def test_the_check_lists_all_faults(tmp_path, capsys):
    picture(tmp_path / "a.png")
    jsonl(tmp_path, {"file_name": "x.png", "text": "t"}, {"file_name": "y.png", "text": "t"}, {"text": "t"})
    assert main(["data", "check", str(tmp_path), "--num-frames", "1", "--height", "16", "--width", "16"]) == 0
    said = capsys.readouterr().out
    assert all(f"line {number}:" in said for number in (1, 2, 3))
    with pytest.raises(DataError, match=r"line 1: .*2 more such"):
        scan(tmp_path)


def test_captions_that_are_too_long_are_found_before_the_first_step(tmp_path, capsys):
    for index in range(3):
        write_video(tmp_path / f"d/{index}.mp4", np.roll(numbered(20), index, 2), 16)
    (tmp_path / "d/1.txt").write_text("word " * 300, encoding="utf-8")
    few = ["--loop.train-steps", "1", "--loop.batch-size", "1", "--loop.no-tensorboard", "--loop.sample-every", "0"]
    vae = ["train", "vae", "--data.folder", str(tmp_path / "d"), "--vae.widths", "16", "--run", str(tmp_path / "vae")]
    assert main([*vae, *few]) == 0
    capsys.readouterr()
    words = ["--vae", str(tmp_path / "vae/model/vae"), "--latents", str(tmp_path / "z"), "--run", str(tmp_path / "run")]
    assert main(["train", "diffusion", "--data.folder", str(tmp_path / "d"), *words]) == 2
    captured = capsys.readouterr()
    assert "1.mp4: caption 'word word" in captured.err and not (tmp_path / "z").exists()
    assert "2 of 3 files have no caption: text will guide nothing there" in captured.out
    assert main(["data", "check", str(tmp_path / "d")]) == 0
    assert "caption too long: 1.mp4" in capsys.readouterr().out


# -------------------- what lies in a folder


def test_other_kinds_are_counted_and_named(tmp_path):
    picture(tmp_path / "a.png")
    for name in ("b.psd", "c.psd", "d.heic", "metadata.parquet", "notes.txt", "README.md"):
        (tmp_path / name).write_bytes(b"x")
    assert look(tmp_path).notes == ["4 files of kinds that are not read: .psd (2), .heic (1), .parquet (1)"]
    assert Clips(ClipConfig(folder=tmp_path, num_frames=1)).notes == look(tmp_path).notes
    (tmp_path / "a.png").unlink()
    with pytest.raises(DataError, match=r"holds no videos or images .*\.psd \(2\)"):
        look(tmp_path)


def test_links_are_followed_once_and_broken_ones_named(tmp_path, monkeypatch):
    picture(tmp_path / "elsewhere/a.png")
    folder = tmp_path / "data"
    picture(folder / "sub/b.png")
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    (folder / "again").symlink_to(tmp_path / "elsewhere")
    (folder / "sub/loop").symlink_to(folder)
    (folder / "gone.png").symlink_to(tmp_path / "nowhere.png")
    found = look(folder)
    assert [source.name for source in found.sources] == ["again/a.png", "sub/b.png"]
    assert (
        len(found.notes) == 1 and "gone.png: is a link to" in found.notes[0] and "which is not there" in found.notes[0]
    )
    scandir = os.scandir

    def refuse(path):
        if Path(path).name == "sub":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert any("sub: cannot be entered (Permission denied)" in note for note in look(folder).notes)
    assert [path.name for path in media_files(folder)] == ["a.png"]


# -------------------- the check


@pytest.fixture(scope="module")
def mixed(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("mixed")
    rng = np.random.default_rng(0)
    for index in range(6):
        ground = rng.integers(0, 255, (6, 8, 3)).repeat(8, 0).repeat(8, 1).astype(np.uint8)
        video = np.stack([np.roll(ground, 2 * i, 1) for i in range(30 + index)])
        write_video(folder / f"{index}.mp4", video, 16)
    cut = np.concatenate([np.full((12, 48, 64, 3), 30, np.uint8), np.full((12, 48, 64, 3), 220, np.uint8)])
    cut[:, :, 8:16] = 128
    write_video(folder / "cut.mp4", cut, 16)
    barred = numbered(24).repeat(2, 1)[:, :64]
    barred[:, :8] = barred[:, -8:] = 0
    write_video(folder / "barred.mp4", barred, 16)
    picture(folder / "still.png")
    return folder


def test_the_check_counts_as_training_will(mixed, capsys):
    config = ClipConfig(
        folder=mixed, num_frames=9, fps=8, height=16, width=16, stride=2, validation_fraction=0.4, split_seed=2
    )
    report, clips = check(config, workers=1), Clips(config)
    assert sum(report.clips.values()) == len(clips)
    held = clips.only("validation")
    assert report.held_out == (len(set(held.sources)), len(held)) and 0 < len(held) < len(clips)
    remarks = {file.name: file.remarks for file in report.files if file.remarks}
    assert set(remarks) == {"cut.mp4", "barred.mp4"}
    assert remarks["cut.mp4"] == ("1 cut, at 0.75 s: split it there",)
    assert remarks["barred.mp4"] == ("black bars above and below, 25% of the picture: crop them",)
    assert not (mixed / "quarantine.jsonl").exists()
    words = ["--num-frames", "9", "--fps", "8", "--height", "16", "--width", "16", "--stride", "2"]
    assert main(["data", "check", str(mixed), *words]) == 0
    said = capsys.readouterr().out
    assert "at 8 fps, a window every 2 frames" in said and "held out" in said and "without caption" in said


def test_a_folder_that_cannot_be_written_is_still_reported(mixed, tmp_path, monkeypatch, capsys):
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    write_video(tmp_path / "a.mp4", numbered(20), 16)

    def refuse(path, text):
        raise DataError(f"{path}: cannot be written: the disk is read-only; write to another place")

    monkeypatch.setattr("video_gen.data.folder.write_text", refuse)
    assert main(["data", "check", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "unreadable: broken.mp4" in said and "quarantine.jsonl was not written" in said and "read-only" in said


def test_the_work_ends_with_its_parent(mixed, tmp_path):
    for index in range(40):
        (tmp_path / f"{index}.mp4").write_bytes((mixed / "0.mp4").read_bytes())
    code = (
        "import time, video_gen.data.check as check\nfrom video_gen.data.config import ClipConfig\n"
        "if __name__ == '__main__':\n"
        "    slow = lambda *at: print(at, flush=True) or time.sleep(1)\n"
        f"    check.check(ClipConfig(folder={str(tmp_path)!r}), workers=2, progress=slow)"
    )
    (tmp_path / "run.py").write_text(code, encoding="utf-8")
    process = subprocess.Popen([sys.executable, str(tmp_path / "run.py")], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline().startswith("(1, 40)")
    process.send_signal(signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and str(tmp_path) in commands():
        time.sleep(0.2)
    assert str(tmp_path) not in commands()


def commands() -> str:
    """The command lines of all processes."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes().decode(errors="replace").replace("\0", " "))
        except OSError:
            continue
    return "\n".join(found)


def test_whole_sources_are_held_out_by_name(tmp_path):
    for number, name in enumerate(("dash/a", "dash/b", "phone/c", "d")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (16, 16), (number * 50, 0, 0)).save(tmp_path / f"{name}.png")
    (tmp_path / "copy.png").write_bytes((tmp_path / "dash/a.png").read_bytes())
    config = ClipConfig(folder=tmp_path, num_frames=1, height=16, width=16, held_out=("dash/*",))
    clips = Clips(config)
    sides = {clips.name(i): side for i, side in enumerate(clips.parts)}
    # a copy of what is held out would be known, whatever it is called
    assert {name for name, side in sides.items() if side == "validation"} == {"dash/a.png", "dash/b.png", "copy.png"}
    assert check(config).held_out == (3, 3)
    with pytest.raises(DataError, match=r"data.held_out: 'dashcam/\*' names no file of .*; paths there are such as"):
        Clips(config.replace(held_out=("dashcam/*",)))
    with pytest.raises(DataError, match=r"every file of .* is held out"):
        Clips(config.replace(held_out=("*",)))
