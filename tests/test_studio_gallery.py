"""What was made and what was sent: found by name only, newest first, to the bin and back; files are what their content says."""

import io
import json
import os
import struct
import zlib

import numpy as np
import pytest

pytest.importorskip("fastapi")
from PIL import Image
from studios import LOCAL

from video_gen.data.video_writer import write_video
from video_gen.errors import DataError
from video_gen.web.studio import uploads as uploading
from video_gen.web.studio.answers import Missing
from video_gen.web.studio.create import PAGE
from video_gen.web.studio.gallery import Gallery
from video_gen.web.studio.kinds import kind_of
from video_gen.web.studio.roots import Roots
from video_gen.web.studio.studio import Studio


class Quiet(Studio):
    """Without a worker."""

    def start(self):
        self.hub.start()


@pytest.fixture
def studio(tmp_path):
    return Quiet(tmp_path / "out", "bounce", Roots(()), Roots(()))


@pytest.fixture
def client(studio):
    from fastapi.testclient import TestClient

    from video_gen.web.studio.app import make_app

    with TestClient(make_app(studio), headers=LOCAL) as found:
        yield found


def fill(folder, count, start=0):
    """Results without pictures, a second apart."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(start, start + count):
        (folder / f"clip_{number}.mp4").write_bytes(b"video")
        (folder / f"clip_{number}.json").write_text(json.dumps({"prompt": f"number {number}", "seed": number}))
        os.utime(folder / f"clip_{number}.mp4", (10**9 + number, 10**9 + number))


# -------------------- results


def test_results_are_told_newest_first_a_page_at_a_time(client, studio):
    assert client.get("/api/results").json() == {"total": 0, "start": 0, "items": []}
    fill(studio.gallery.folder, 250)
    told = client.get("/api/results?start=3&count=2").json()
    assert told["total"] == 250 and [item["seed"] for item in told["items"]] == [246, 245]
    assert len(client.get("/api/results?count=100000").json()["items"]) == PAGE
    assert client.get("/api/results?start=-5&count=-5").json()["items"] == []
    assert [item["seed"] for item in client.get("/api/results?words=NUMBER+42").json()["items"]] == [242, 142, 42]
    fill(studio.gallery.folder, 1, 250)
    assert client.get("/api/results?count=1").json()["items"][0]["seed"] == 250


def test_what_is_deleted_can_be_brought_back_also_beside_a_new_one_of_its_name(client, studio):
    gallery = studio.gallery
    fill(gallery.folder, 3)
    ticket = client.post("/api/results/delete", json={"names": ["clip_0", "clip_2"]}).json()["ticket"]
    assert [entry.name for entry in gallery.entries()] == ["clip_1"]
    assert client.get("/api/bin").json()["bins"] == [{"ticket": ticket, "names": ["clip_0", "clip_2"], "bytes": 10}]
    fill(gallery.folder, 1)
    assert sorted(client.post("/api/bin/restore", json={"ticket": ticket}).json()["names"]) == ["clip_0_2", "clip_2"]
    assert gallery.facts(gallery.find("clip_0_2"))["seed"] == 0 and client.get("/api/bin").json() == {"bins": []}
    assert client.post("/api/bin/restore", json={"ticket": ticket}).status_code == 404
    client.post("/api/results/delete", json={"names": ["clip_1"]})
    assert client.post("/api/bin/empty", json={}).json() == {"bytes": 5} and not list(gallery.binned.iterdir())


def test_nothing_is_moved_when_one_of_several_is_not_there(client, studio):
    fill(studio.gallery.folder, 2)
    for names in (["clip_0", "clip_9"], ["clip_0", "../clip_1"], [], ["clip_0", "clip_0"]):
        assert client.post("/api/results/delete", json={"names": names}).status_code in (200, 400, 404)
    assert client.post("/api/results/delete", json={"names": "clip_0"}).status_code == 400
    assert {entry.name for entry in studio.gallery.entries()} >= {"clip_1"}


def test_a_result_is_its_name_and_no_path(client, studio, tmp_path):
    fill(studio.gallery.folder, 1)
    secret = tmp_path / "out" / "secret.mp4"
    secret.write_bytes(b"secret")
    (studio.gallery.folder / "link.mp4").symlink_to(secret)
    (studio.gallery.folder / "claimed.mp4").touch()
    for name in ("../secret", "link", "claimed", "clip_0.mp4", "/clip_0", "", "clip_0\0", "..", "./clip_0", "x" * 5000):
        for place in ("item", "video", "poster"):
            assert client.get(f"/api/results/{place}", params={"name": name}).status_code == 404, (place, name)
    assert [item["name"] for item in client.get("/api/results").json()["items"]] == ["clip_0"]


def test_settings_that_make_no_sense_are_no_fault(client, studio):
    fill(studio.gallery.folder, 6)
    for number, text in enumerate(
        ("", "[1]", "{", '{"studio": 5}', '{"studio": {"options": {"num_steps": "x"}}}', "[" * 99999)
    ):
        (studio.gallery.folder / f"clip_{number}.json").write_text(text)
    assert client.get("/api/results?words=clip").json()["total"] == 6
    for number in range(6):
        told = client.get(f"/api/results/item?name=clip_{number}").json()
        assert told["command"] is None


def test_a_video_is_sent_in_parts_and_with_its_name(client, studio):
    fill(studio.gallery.folder, 1)
    part = client.get("/api/results/video?name=clip_0", headers={"range": "bytes=1-2"})
    assert part.status_code == 206 and part.content == b"id" and part.headers["content-type"] == "video/mp4"
    assert "immutable" in client.get("/api/results/video?name=clip_0&v=1").headers["cache-control"]
    whole = client.get("/api/results/video?name=clip_0&download=1")
    assert whole.content == b"video" and 'attachment; filename="clip_0.mp4"' in whole.headers["content-disposition"]


# -------------------- files that are sent


def png(width=8, height=8, format="PNG"):
    out = io.BytesIO()
    Image.new("RGB", (width, height), (10, 200, 30)).save(out, format)
    return out.getvalue()


def bomb(side):
    """A PNG of a few bytes that says it is huge."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(b"\0" * 10**6, 9))
        + chunk(b"IEND", b"")
    )


def test_a_file_is_what_its_content_says_and_is_kept_once(client, studio):
    for content, kind in (
        (png(), ".png"),
        (png(format="JPEG"), ".jpg"),
        (png(format="WEBP"), ".webp"),
        (png(format="GIF"), ".gif"),
    ):
        told = client.post("/api/uploads?name=picture.exe", content=content).json()
        assert told["id"].endswith(kind) and told["kind"] == "image" and (told["width"], told["height"]) == (8, 8)
        assert client.post("/api/uploads?name=again.png", content=content).json()["id"] == told["id"]
        back = client.get(f"/api/uploads/file?id={told['id']}")
        assert back.content == content and back.headers["content-type"].startswith("image/")
        assert client.get(f"/api/uploads/poster?id={told['id']}").headers["content-type"] == "image/webp"
    assert len([path for path in studio.uploads.folder.iterdir() if path.suffix not in (".json", ".poster")]) == 4


def test_a_frame_of_a_result_becomes_a_picture(client, studio, tmp_path):
    frames = np.full((5, 16, 16, 3), 0, np.uint8) + 40 * np.arange(5, dtype=np.uint8)[:, None, None, None]
    write_video(studio.gallery.folder / "grey.mp4", frames, 8)
    for number, found in ((0, 0), (2, 2), (99, 4), (-3, 0)):
        told = client.post("/api/uploads/frame", json={"result": "grey", "frame": number}).json()
        picture = np.array(Image.open(io.BytesIO(client.get(f"/api/uploads/file?id={told['id']}").content)))
        assert told["kind"] == "image" and abs(picture.mean() - 40 * found) < 3
    video = client.post("/api/uploads?name=a.mp4", content=(studio.gallery.folder / "grey.mp4").read_bytes()).json()
    assert (video["kind"], video["frames"], video["fps"]) == ("video", 5, 8)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", "no picture or video"),
        (b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n", "no picture or video"),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", "no picture or video"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'><script/></svg>", "no picture or video"),
        (b"<!doctype html><script>alert(1)</script>", "no picture or video"),
        (b"PK\x03\x04" + b"\0" * 100, "no picture or video"),
        (png()[:40], "a.png: "),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 1000, "a.png: "),
        (b"\0\0\0\x18ftypmp42" + b"\0" * 1000, "a.png: "),
        (b"GIF89a" + b"\xff" * 1000, "a.png: "),
        (bomb(60_000), "more than"),
        (bomb(2_000_000), "a.png: "),
    ],
)
def test_what_is_no_picture_or_would_burst_is_refused_and_gone(client, studio, content, line):
    answer = client.post("/api/uploads?name=a.png", content=content)
    assert answer.status_code == 400 and line in answer.json()["error"], answer.text
    assert str(studio.uploads.folder) not in answer.text and list(studio.uploads.folder.iterdir()) == []


def test_a_file_that_is_too_large_is_refused_while_it_comes(client, studio, monkeypatch):
    monkeypatch.setattr(uploading, "LARGEST", 1000)
    assert client.post("/api/uploads", content=png() + b"\0" * 1000).status_code == 413
    assert client.post("/api/uploads", content=iter([png(), b"\0" * 1000])).status_code == 413
    assert list(studio.uploads.folder.iterdir()) == []


def test_a_disk_that_takes_no_more_is_told(client, studio, tmp_path):
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50, before[1]))
    try:
        sent = client.post("/api/uploads?name=a.png", content=png())
        asked = client.post("/api/jobs", json={"prompt": "x" * 500})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    for answer in (sent, asked):
        assert answer.status_code == 400 and "cannot be written: it would be larger" in answer.json()["error"]
    assert list(studio.uploads.folder.iterdir()) == [] and not list(studio.queue.store.queue.iterdir())
    assert studio.queue.jobs == {}


def test_only_names_of_files_that_were_sent_are_found(studio, tmp_path):
    studio.uploads.folder.mkdir(parents=True)
    (studio.uploads.folder / ("a" * 20 + ".png")).symlink_to("/etc/passwd")
    for key in (
        "",
        "..",
        "../results/x.mp4",
        "a" * 20 + ".png",
        "a" * 20 + ".svg",
        "A" * 20 + ".png",
        "a" * 20,
        "a" * 19 + "/.png",
    ):
        with pytest.raises(Missing):
            studio.uploads.file(key)


def test_kinds_are_told_by_content():
    assert kind_of(b"\0\0\0\x20ftypisom") == ".mp4" and kind_of(b"RIFF\0\0\0\0WEBPVP8 ") == ".webp"
    with pytest.raises(DataError, match="send PNG"):
        kind_of(b"RIFF\0\0\0\0WAVE")


def test_a_gallery_that_is_not_there_is_empty(tmp_path):
    gallery = Gallery(tmp_path / "none", tmp_path / "bin")
    assert gallery.entries() == [] and gallery.bins() == [] and gallery.empty() == 0
    with pytest.raises(Missing):
        gallery.find("x")
