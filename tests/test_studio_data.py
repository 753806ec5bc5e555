"""The Data page's addresses: folders found, clips told and found, mended and checked; and nothing but the folders named is read."""

import json
import os

import numpy as np
import pytest

pytest.importorskip("fastapi")
from studios import client_of, until

from video_gen.data.check import check
from video_gen.data.config import ClipConfig
from video_gen.data.folder import look, quarantined
from video_gen.data.manifest import Row, write_manifest
from video_gen.data.video_file import probe
from video_gen.data.video_writer import write_video
from video_gen.data.windows import best_bucket, windows
from video_gen.web.studio.roots import Roots
from video_gen.web.studio.studio import Studio


def clip(path, seed=0, frames=12, size=(32, 48)):
    path.parent.mkdir(parents=True, exist_ok=True)
    video = np.random.default_rng(seed).integers(0, 255, (frames, *size, 3), dtype=np.uint8)
    write_video(path, video, 8)


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data" / "sets" / "one"
    for number in range(4):
        clip(folder / f"{number}.mp4", number, frames=8 + 4 * number)
    clip(folder / "deep" / "wide.mp4", 9, size=(32, 96))
    (folder / "broken.mp4").write_bytes(b"no video")
    rows = [{"file_name": f"{n}.mp4", "text": f"the {w} clip"} for n, w in enumerate(("first", "second", "third"))]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "data"


@pytest.fixture
def studio(tmp_path, data):
    return Studio(tmp_path / "out", "bounce", Roots((tmp_path / "runs",)), Roots((data,)))


@pytest.fixture
def client(studio):
    with client_of(studio) as client:
        yield client


ONE = "data/sets/one"


def clips(client, **asked):
    answer = client.get("/api/data/clips", params={"set": ONE, **asked})
    assert answer.status_code == 200, answer.text
    return [item["name"] for item in answer.json()["items"]]


def known(client):
    client.post("/api/data/probe", json={"set": ONE})
    return until(lambda: (told := client.get("/api/data/set", params={"set": ONE}).json())["known"] == 6 and told)


def test_folders_are_found_and_clips_found_by_what_they_are(client):
    assert client.get("/api/data/sets").json()["sets"] == [{"ref": ONE, "prepared": False}]
    assert clips(client) == ["0.mp4", "1.mp4", "2.mp4", "3.mp4", "broken.mp4", "deep/wide.mp4"]
    told = known(client)
    assert told["shapes"] == [["48x32", 4], ["96x32", 1]] and told["sources"] == [["deep", 1]]
    assert clips(client, words="CLIP second") == ["1.mp4"]
    assert clips(client, shape="96x32") == ["deep/wide.mp4"] == clips(client, source="deep")
    assert clips(client, shortest=1.4, longest=1.6) == ["1.mp4", "deep/wide.mp4"]
    assert clips(client, sort="longest")[:2] == ["3.mp4", "2.mp4"]
    assert clips(client, trouble="unreadable") == ["broken.mp4"] == clips(client, trouble="any")
    assert clips(client, trouble="no caption") == ["3.mp4", "broken.mp4", "deep/wide.mp4"]
    assert clips(client, start=4, count=1) == ["broken.mp4"] and clips(client, start=10**9) == []


@pytest.mark.slow
def test_what_was_found_out_is_kept_and_a_changed_file_is_looked_at_again(client, studio, data):
    known(client)
    again = Studio(studio.output, "bounce", Roots(()), Roots((data,)))
    with client_of(again) as other:
        assert other.get("/api/data/set", params={"set": ONE}).json()["known"] == 6
        clip(data / "sets" / "one" / "0.mp4", 5, frames=40)
        os.utime(data / "sets" / "one")
        until(lambda: other.get("/api/data/set", params={"set": ONE}).json()["known"] == 5)
        assert other.get("/api/data/clip", params={"set": ONE, "name": "0.mp4"}).json()["info"]["num_frames"] == 40


def test_pictures_and_videos_are_those_of_the_clip(client, data):
    import io

    from PIL import Image

    strip = client.get("/api/data/thumb", params={"set": ONE, "name": "1.mp4"})
    assert Image.open(io.BytesIO(strip.content)).size == (8 * 160, 120)
    assert (
        client.get("/api/data/video", params={"set": ONE, "name": "1.mp4"}).content
        == (data / "sets" / "one" / "1.mp4").read_bytes()
    )
    preview = client.get("/api/data/preview", params={"set": ONE, "name": "1.mp4"})
    assert preview.status_code == 200 and preview.headers["content-type"] == "video/mp4"
    assert "unreadable" in client.get("/api/data/thumb", params={"set": ONE, "name": "broken.mp4"}).json()["error"]


def test_windows_are_those_of_training(client, data):
    shape = {"num_frames": 5, "fps": 8, "height": 32, "width": 32, "buckets": [[5, 32, 32], [5, 16, 48]], "stride": 2}
    config = ClipConfig.model_validate({"folder": data / "sets" / "one", **shape})
    for name in ("0.mp4", "3.mp4", "deep/wide.mp4"):
        told = client.post("/api/data/windows", json={"set": ONE, "name": name, "clip": shape}).json()
        info = probe(data / "sets" / "one" / name)
        bucket = best_bucket(info, config)
        assert told["starts"] == windows(info, config, bucket) and told["bucket"] == "x".join(map(str, bucket))
    known(client)
    told = client.post("/api/data/windows", json={"set": ONE, "clip": shape}).json()
    report = check(config, quarantine=("unreadable",), workers=1)
    assert {name: count for name, _, count in told["buckets"]} == {
        "x".join(map(str, bucket)): count for bucket, count in report.clips.items()
    }
    answer = client.post("/api/data/windows", json={"set": ONE, "clip": {"num_frames": 0}})
    assert answer.status_code == 400 and "num_frames" in answer.json()["error"]


def test_captions_and_quarantine_are_written_and_taken_back(client, data):
    folder = data / "sets" / "one"
    before = (folder / "metadata.jsonl").read_bytes()
    answer = client.post("/api/data/caption", json={"set": ONE, "name": "0.mp4", "text": "told anew"})
    assert answer.json() == {"before": "the first clip"}
    assert clips(client, words="told anew") == ["0.mp4"]
    client.post("/api/data/caption", json={"set": ONE, "name": "0.mp4", "text": answer.json()["before"]})
    assert (folder / "metadata.jsonl").read_bytes() == before
    told = client.post(
        "/api/data/quarantine", json={"set": ONE, "reasons": {"1.mp4": "by hand: dull", "3.mp4": "by hand"}}
    )
    assert told.json() == {"before": {"1.mp4": None, "3.mp4": None}}
    assert clips(client, trouble="in quarantine") == ["1.mp4", "3.mp4"]
    client.post("/api/data/quarantine", json={"set": ONE, "reasons": told.json()["before"]})
    assert not quarantined(folder)
    for name in ("none.mp4", "../one/0.mp4", "metadata.jsonl", ""):
        assert client.post("/api/data/caption", json={"set": ONE, "name": name, "text": "x"}).status_code == 404
        assert client.post("/api/data/quarantine", json={"set": ONE, "reasons": {name: "x"}}).status_code == 404
    assert (folder / "metadata.jsonl").read_bytes() == before


@pytest.mark.slow
def test_a_check_is_the_one_of_the_command_line_and_is_kept(client, studio, data):
    folder = data / "sets" / "one"
    shape = {"num_frames": 9, "fps": 8, "height": 32, "width": 32}
    client.post("/api/data/quarantine", json={"set": ONE, "reasons": {"1.mp4": "by hand: dull"}})
    asked = {"set": ONE, "clip": shape, "quarantine": ["unreadable", "too short"]}
    assert client.post("/api/data/check", json=asked).status_code == 200
    assert client.post("/api/data/check", json=asked).status_code == 400  # one at a time
    until(lambda: studio.checks.running is None)
    told = client.get("/api/data/set", params={"set": ONE}).json()
    kept = quarantined(folder)
    assert set(kept) == {"broken.mp4", "0.mp4", "1.mp4"} == set(told["quarantine"])
    report = check(ClipConfig.model_validate({"folder": folder, **shape}), ("unreadable", "too short"), workers=1)
    assert told["report"]["problems"] == {kind: [list(row) for row in rows] for kind, rows in report.problems.items()}
    assert told["report"]["held_out"] == list(report.held_out) and quarantined(folder) == kept
    assert clips(client, trouble="too short") == ["0.mp4"]


@pytest.mark.slow
def test_a_check_that_is_stopped_changes_nothing(client, studio, data):
    for number in range(60):
        clip(data / "sets" / "one" / f"more{number}.mp4", number, frames=40)
    client.post("/api/data/check", json={"set": ONE})
    assert client.post("/api/data/check/stop", json={"set": "data/other"}).status_code == 404
    assert client.post("/api/data/check/stop", json={"set": ONE}).status_code == 200
    until(lambda: studio.checks.running is None)
    assert "stopped" in studio.checks._state["error"]
    assert not (data / "sets" / "one" / "quarantine.jsonl").exists()


def test_prepared_footage_is_read_from_its_manifest_refused_pieces_with_their_reasons(client, data):
    pytest.importorskip("pyarrow")
    made = data / "made"
    clip(made / "clips" / "a.mp4")
    info = probe(made / "clips" / "a.mp4")
    facts = {
        name: getattr(info, name) for name in ("codec", "width", "height", "fps", "num_frames", "duration", "tick")
    }
    shard = (made / "clips" / "a.mp4").read_bytes()
    (made / "0.tar").write_bytes(b"x" * 512 + shard)
    rows = [
        Row("pile/a.mov", "0" * 16, file_name="clips/a.mp4", caption="kept", digest="1" * 16, **facts),
        Row("pile/a.mov", "0" * 16, file_name="b.mp4", shard="0.tar", offset=512, size=len(shard), digest="2" * 16, **facts),
        Row("pile/b.mov", "3" * 16, refused="still: 0.12 percent", start_frame=3, end_frame=30, start=0.5, end=1.5),
        Row("pile/c.mov", "4" * 16, file_name="../sets/one/0.mp4", digest="5" * 16, **facts),
        Row("pile/d.mov", "4" * 16, file_name="e.mp4", shard="../../../etc/passwd", size=5, digest="6" * 16, **facts),
    ]  # fmt: skip
    write_manifest(made, rows)
    told = client.get("/api/data/set", params={"set": "data/made"}).json()
    assert told["prepared"] and ["refused", 1] in told["troubles"] and told["known"] == told["files"] == 4
    refused = client.get("/api/data/clips", params={"set": "data/made", "trouble": "refused"}).json()["items"]
    assert [(item["refused"], item["seconds"]) for item in refused] == [("still: 0.12 percent", 1.0)]
    for name in ("clips/a.mp4", "b.mp4"):
        assert client.get("/api/data/video", params={"set": "data/made", "name": name}).content == shard
        assert client.get("/api/data/thumb", params={"set": "data/made", "name": name}).status_code == 200
    for name in ("../sets/one/0.mp4", "e.mp4", refused[0]["name"]):
        for kind in ("video", "preview", "thumb", "picture"):
            answer = client.get(f"/api/data/{kind}", params={"set": "data/made", "name": name})
            assert answer.status_code in (400, 404), (name, kind)


def test_nothing_but_the_folders_that_were_named_is_read(client, data, tmp_path):
    outside = tmp_path / "outside"
    clip(outside / "secret.mp4")
    (outside / "words.txt").write_text("a secret")
    for ref in (
        "data/../outside",
        "outside",
        "data/sets/../../outside",
        "/",
        "",
        "data//sets",
        "data/\0",
        "data/sets/one/0.mp4",
    ):
        assert client.get("/api/data/set", params={"set": ref}).status_code == 404, ref
    linked = data / "linked"
    clip(linked / "a.mp4")
    (linked / "a.txt").symlink_to(outside / "words.txt")
    answer = client.get("/api/data/set", params={"set": "data/linked"})
    assert answer.status_code == 400 and "a.txt" in answer.json()["error"] and "secret" not in answer.text
    (linked / "a.txt").unlink()
    (linked / "more").symlink_to(outside)
    assert client.get("/api/data/set", params={"set": "data/linked"}).status_code == 400
    (data / "whole").symlink_to(outside)
    assert client.get("/api/data/set", params={"set": "data/whole"}).status_code == 404
    assert [one["ref"] for one in client.get("/api/data/sets").json()["sets"]] == ["data/linked", ONE]


def test_names_that_are_no_text_do_no_harm(client, data):
    folder = data / "sets" / "one"
    odd = os.fsdecode(b"odd\xff.mp4")
    clip(folder / "x.mp4")
    os.rename(folder / "x.mp4", folder / odd)
    (folder / "3.txt").write_text("fine")
    (folder / "metadata.jsonl").write_text('{"file_name": "0.mp4", "text": "half a \\ud83d pair"}\n')
    assert client.get("/api/data/set", params={"set": ONE}).status_code == 200
    answer = client.get("/api/data/clips", params={"set": ONE})
    assert answer.status_code == 200 and answer.json()["total"] == 7
    for item in answer.json()["items"]:
        assert client.get("/api/data/thumb", params={"set": ONE, "name": item["name"]}).status_code in (200, 400, 404)
    client.post("/api/data/probe", json={"set": ONE})
    until(lambda: client.get("/api/data/set", params={"set": ONE}).json()["known"] == 7)
    found = look(folder)
    assert {s.name for s in found.sources} >= {odd} and "half of a surrogate pair" in found.faults[0]
