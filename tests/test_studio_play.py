"""The studio's Play page: the world of `video-gen play`, in a process of its own."""

import json
import time

import pytest

pytest.importorskip("fastapi")
from browsing import browser, needs_chromium, opened, served  # noqa: F401
from fastapi.testclient import TestClient
from playable import playable

from video_gen.web.studio.app import make_app
from video_gen.web.studio.roots import Roots
from video_gen.web.studio.studio import Studio


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "small" / "model"
    playable().save_pretrained(folder)
    return folder


@pytest.fixture
def studio(model, tmp_path):
    runs = Roots((model.parents[1],))
    return Studio(tmp_path / "out", "bounce", runs, Roots((tmp_path / "data",)), "cpu")


@pytest.fixture
def client(studio, monkeypatch):
    monkeypatch.setattr(studio.queue, "start", lambda: None)  # no model is loaded that this page does not need
    with TestClient(make_app(studio), headers={"host": "127.0.0.1:8000"}) as found:
        yield found


def until(socket, kind):
    while True:
        message = socket.receive()
        if data := message.get("bytes"):
            see(socket, data)
        if message.get("text") and (said := json.loads(message["text"]))["kind"] == kind:
            return said


def see(socket, data):
    """As a page does: no more than a few frames go out that nobody saw. Returns: the frame's number, and what it answers."""
    number, answers = (int.from_bytes(data[i : i + 4], "little") for i in (0, 4))
    socket.send_text(json.dumps({"kind": "seen", "number": number}))
    return number, answers


def waited(true):
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_only_worlds_that_can_be_played_are_offered(client, model):
    assert client.get("/api/play/models").json()["models"] == ["maze", str(model)]
    for name in ("bounce", "/etc", "../x"):
        assert client.post("/api/play/open", json={"model": name}).status_code == 404


def test_keys_go_in_and_frames_come_out_and_a_recording_is_a_data_set(client, studio, model):
    with client.websocket_connect("/api/play/socket") as early:
        assert "no world is open" in until(early, "error")["text"]
    assert client.post("/api/play/open", json={"model": str(model)}).status_code == 200
    waited(lambda: studio.world.status == "ready")
    with client.websocket_connect("/api/play/socket") as page:
        said = until(page, "hello")
        assert said["keys"] == ["forward", "left", "open"] and (said["height"], said["width"]) == (16, 16)
        with client.websocket_connect("/api/play/socket") as other:
            assert until(other, "busy")
        page.send_text(json.dumps({"kind": "record", "on": True}))
        assert until(page, "recording")["on"]
        page.send_text(json.dumps({"kind": "hold", "action": {"keys": ["forward"]}, "pressed": 7}))
        number = 0
        while number < 12:
            message = page.receive()
            if data := message.get("bytes"):
                number, answers = see(page, data)
        assert answers == 7
        page.send_text(json.dumps({"kind": "hold", "action": {"keys": ["fly"]}, "pressed": 8}))
        assert "fly" in until(page, "error")["text"]
        page.send_text(json.dumps({"kind": "record", "on": False}))
        assert not until(page, "recording")["on"]
        page.send_text(json.dumps({"kind": "save", "name": "here"}))
        assert until(page, "note")["states"] == ["here"]
    recorded = studio.output / "play" / "recordings"
    assert {"clip_0000.mp4", "clip_0000.actions.jsonl", "actions.json"} <= {path.name for path in recorded.iterdir()}


@pytest.mark.slow
def test_a_world_that_dies_is_told_and_opened_again(client, studio, model):
    client.post("/api/play/open", json={"model": str(model)})
    waited(lambda: studio.world.status == "ready")
    studio.world._process.kill()
    waited(lambda: studio.world.status == "none")
    assert "killed" in studio.world.trouble
    client.post("/api/play/open", json={"model": str(model)})
    waited(lambda: studio.world.status == "ready")


@needs_chromium
def test_the_page_plays(browser, studio, model, monkeypatch):  # noqa: F811
    monkeypatch.setattr(studio.queue, "start", lambda: None)
    studio.world.model = str(model)  # what was played last is opened first
    with served(make_app(studio)) as address:
        page, wrong = opened(browser, f"{address}/play")
        page.wait_for_function("() => window.shown !== undefined", timeout=60_000)
        page.keyboard.down("w")
        page.wait_for_function("() => window.shown.answers > 0")
        page.keyboard.up("w")
        page.get_by_role("link", name="Create").click()
        page.wait_for_function("() => document.querySelector('#picture') === null")
        assert wrong == []
        page.close()
