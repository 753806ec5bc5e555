"""The server of `video-gen play`: keys in and frames out, one player, and nothing for whoever is not meant to come."""

import json
import os
import struct
import threading
import time

import numpy as np
import pytest
import torch
from playable import WORDS, playable

from video_gen.cli import COMMANDS
from video_gen.command_line import find, handed_over, parse
from video_gen.data.actions import read_actions
from video_gen.data.clips import Clips
from video_gen.data.config import ClipConfig
from video_gen.errors import ConfigError
from video_gen.play import listen
from video_gen.sampling.fit import Fit
from video_gen.web.player import Held, Player, leave_a_core, opener
from video_gen.web.recording import Recording

pytest.importorskip("fastapi")
from fastapi.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from video_gen.web.playing import BUSY, PATIENCE, Outlet, Sender
from video_gen.web.server import make_app
from video_gen.web.shown import HEADER, Shown

LOCAL = {"host": "127.0.0.1:8000"}


@pytest.fixture(scope="module")
def pipe():
    return playable()


@pytest.fixture
def server(pipe, tmp_path):
    """(client, player)"""
    outlet = Outlet()
    player = Player(lambda name: pipe, "small", tmp_path, {"prompt": "a room", "seed": 1}, outlet.show, outlet.tell)
    with TestClient(make_app(player, outlet, lambda: ["small", "other"], close=player.close)) as client:
        yield client, player
    player.close()


def connect(client, **headers):
    return client.websocket_connect("/play", headers=LOCAL | headers)


def until(socket, want, most=400):
    """Answers up to the first of a kind, or frame that fits; each frame is said to be seen."""
    for _ in range(most):
        got = socket.receive()
        if got.get("bytes") is not None:
            head = HEADER.unpack(got["bytes"][: HEADER.size])
            socket.send_json({"kind": "seen", "number": head[0]})
            if callable(want) and want(head):
                return head, got["bytes"][HEADER.size :]
        elif got.get("text") is not None:
            said = json.loads(got["text"])
            if said["kind"] == want:
                return said
        else:
            raise AssertionError(got)
    raise AssertionError(f"no {want}")


def test_keys_go_in_and_frames_come_out(server):
    client, _ = server
    with connect(client) as socket:
        hello = until(socket, "hello")
        assert hello["keys"] == list(WORDS.keys) and hello["axes"][0]["name"] == "turn"
        assert (hello["height"], hello["width"], hello["fps"]) == (16, 16, 24)
        assert hello["models"] == ["other", "small"] and hello["prompt"] == "a room"
        socket.send_json({"kind": "hold", "action": {"keys": ["forward"]}, "pressed": 7})
        head, pixels = until(socket, lambda head: head[1] == 7 and head[2] > 0)
        assert len(pixels) == 16 * 16 * 3 and head[4:] == (16, 16)


def test_the_second_player_is_told_so_and_may_come_when_the_first_has_left(server):
    client, _ = server
    with connect(client) as first:
        until(first, "hello")
        with connect(client) as second:
            assert json.loads(second.receive_text())["kind"] == "busy"
            with pytest.raises(WebSocketDisconnect) as closed:
                second.receive_text()
            assert closed.value.code == BUSY
        until(first, lambda head: True)
    for _ in range(50):
        with connect(client) as third:
            if json.loads(third.receive_text())["kind"] == "hello":
                return
        time.sleep(0.05)
    raise AssertionError("the world is not let go of")


def test_nobody_plays_nothing_is_made(server):
    client, player = server
    with connect(client) as socket:
        until(socket, lambda head: head[0] > 3)
    time.sleep(0.3)
    number = player._number
    time.sleep(0.3)
    assert player._number == number


def test_garbage_is_answered_and_does_no_harm(server):
    client, _ = server
    with connect(client) as socket:
        until(socket, "hello")
        for text in (
            "nonsense",
            "[]",
            "{}",
            '{"kind": "dance"}',
            '{"kind": "hold", "action": {"keys": ["jump"]}, "pressed": 1}',
            '{"kind": "hold", "action": 5, "pressed": 1}',
            '{"kind": "hold", "action": {"axes": {"turn": Infinity}}, "pressed": 1}',
            '{"kind": "hold", "action": {}, "pressed": -1}',
            '{"kind": "seen", "number": "x"}',
            '{"kind": "reset", "prompt": 3, "seed": 1}',
            "[" * 4000,
        ):
            socket.send_text(text)
            assert "not understood" in until(socket, "error")["text"]
        socket.send_bytes(b"\0" * 100)
        until(socket, "error")
        socket.send_json({"kind": "hold", "action": {"keys": ["left"]}, "pressed": 2})
        until(socket, lambda head: head[1] == 2)


def test_who_talks_nonsense_for_too_long_is_let_go(server):
    client, _ = server
    with connect(client) as socket:
        until(socket, "hello")
        for _ in range(PATIENCE):
            socket.send_text("nonsense")
        with pytest.raises((AssertionError, WebSocketDisconnect)):
            until(socket, "never")
    with connect(client) as socket:
        until(socket, "hello")


def test_states_are_saved_and_loaded_by_name_and_nowhere_else(server, tmp_path):
    client, _player = server
    with connect(client) as socket:
        until(socket, "hello")
        socket.send_json({"kind": "save", "name": "here"})
        assert until(socket, "note")["states"] == ["here"]
        socket.send_json({"kind": "load", "name": "here"})
        assert "goes on" in until(socket, "note")["text"]
        for name in ("../here", "/etc/passwd", "a/b", "", "." * 3, "x" * 41, "a\0b"):
            for kind in ("save", "load"):
                socket.send_json({"kind": kind, "name": name})
                assert "no name for a state" in until(socket, "error")["text"]
        socket.send_json({"kind": "load", "name": "nothing"})
        assert "no such file" in until(socket, "error")["text"]
        until(socket, lambda head: True)
    assert [path.name for path in (tmp_path / "states").iterdir()] == ["here.safetensors"]
    assert not list(tmp_path.parent.glob("here*"))


def test_a_recording_is_a_clip_with_its_actions(server, tmp_path):
    client, _ = server
    with connect(client) as socket:
        until(socket, "hello")
        socket.send_json({"kind": "hold", "action": {"keys": ["forward"]}, "pressed": 1})
        until(socket, lambda head: head[1] == 1)
        socket.send_json({"kind": "record", "on": True})
        assert until(socket, "recording")["on"]
        number = until(socket, lambda head: True)[0][0]
        until(socket, lambda head: head[0] >= number + 8)
        socket.send_json({"kind": "record", "on": False})
        assert "clip_0000.mp4" in until(socket, "recording")["text"]
    folder = tmp_path / "recordings"
    rows = read_actions(folder / "clip_0000.actions.jsonl", WORDS)
    assert (rows[:-1, 0] == 1).all() and not rows[-1].any()
    clips = Clips(ClipConfig(folder=folder, num_frames=5, fps=24, height=16, width=16, validation_fraction=0))
    assert clips.vocabulary == WORDS and clips.captions[0] == "a room" and len(clips.actions[0]) == 5


def test_a_recording_is_kept_when_the_page_leaves(server, tmp_path):
    client, _player = server
    with connect(client) as socket:
        until(socket, "hello")
        socket.send_json({"kind": "record", "on": True})
        until(socket, lambda head: head[0] > 6)
    end = time.monotonic() + 5
    while not (tmp_path / "recordings" / "metadata.jsonl").exists() and time.monotonic() < end:
        time.sleep(0.05)
    assert (tmp_path / "recordings" / "clip_0000.mp4").exists()


def test_worlds_of_other_keys_are_recorded_apart_and_numbers_are_not_used_again(tmp_path):
    frames = np.zeros((3, 16, 16, 3), np.uint8)

    def made(words):
        recording = Recording(tmp_path / "recordings", words, 24, "a room")
        recording.begin(frames[0])
        recording.add(np.zeros((2, words.size)), frames[1:])
        return recording.write()

    other = WORDS.replace(keys=("jump",), axes=())
    assert made(WORDS) == tmp_path / "recordings" / "clip_0000.mp4"
    assert made(other) == tmp_path / "recordings-2" / "clip_0000.mp4"
    last = made(WORDS)
    last.unlink()
    last.with_name("clip_0001.actions.jsonl").unlink()
    assert made(WORDS).name == "clip_0002.mp4"


def test_captions_are_added_below_a_line_that_no_newline_ends(tmp_path):
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "mine.mp4", "text": "mine"}')
    recording = Recording(tmp_path, WORDS, 24, "a room")
    recording.add(np.zeros((3, WORDS.size)), np.zeros((3, 16, 16, 3), np.uint8))
    recording.write()
    rows = [json.loads(line) for line in (tmp_path / "metadata.jsonl").read_text().splitlines()]
    assert [row["text"] for row in rows] == ["mine", "a room"]


def test_an_error_in_a_step_is_told_and_the_world_can_begin_anew(server, monkeypatch):
    client, player = server
    with connect(client) as socket:
        until(socket, lambda head: head[0] > 2)
        broken = player._world

        def fail(rows):
            raise RuntimeError("out of memory")

        monkeypatch.setattr(broken, "step_rows", fail)
        assert "RuntimeError: out of memory; begin anew" in until(socket, "error")["text"]
        socket.send_json({"kind": "reset", "prompt": "a room", "seed": 2})
        number = player._number
        until(socket, lambda head: head[0] > number + 3)
        socket.send_json({"kind": "reset", "prompt": "\ud800", "seed": 2})  # no text that can be written
        until(socket, "error")
        number = player._number
        until(socket, lambda head: head[0] > number + 3)


def test_a_recording_that_cannot_be_written_is_kept(server, monkeypatch, tmp_path):
    client, _ = server
    with connect(client) as socket:
        until(socket, "hello")
        socket.send_json({"kind": "record", "on": True})
        until(socket, "recording")
        until(socket, lambda head: head[0] > 6)
        with monkeypatch.context() as patch:
            patch.setattr("video_gen.web.recording.write_video", lambda *a, **o: 1 / 0)
            socket.send_json({"kind": "record", "on": False})
            assert "goes on" in until(socket, "error")["text"]
        socket.send_json({"kind": "record", "on": False})
        assert "clip_000" in until(socket, "recording")["text"]
    assert len(list((tmp_path / "recordings").glob("*.mp4"))) == 1


def test_actions_of_a_recording_led_to_its_frames(tmp_path):
    recording = Recording(tmp_path, WORDS, 24, "")
    frames = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((1, 16, 16, 3), np.uint8) * 40
    recording.begin(frames[0])
    rows = np.eye(4)
    recording.add(rows[:2], frames[1:3])
    recording.add(rows[2:], frames[3:])
    assert recording.write() == tmp_path / "clip_0000.mp4"
    np.testing.assert_array_equal(read_actions(tmp_path / "clip_0000.actions.jsonl", WORDS), [*rows, [0.0] * 4])
    assert Recording(tmp_path, WORDS, 24, "").write() is None


def test_a_world_goes_on_from_a_saved_state(pipe, tmp_path):
    world = pipe.play("a room", seed=3)
    world.step({"keys": ["forward"]})
    world.save(tmp_path / "state")
    expected = world.step()
    outlet, shown = Outlet(), []
    start = {"prompt": "", "seed": 0}
    player = Player(lambda name: pipe, "small", tmp_path, start, shown.append, outlet.tell, tmp_path / "state")
    assert player.prompt == "a room"
    player.play(True)
    end = time.monotonic() + 5
    while len(shown) < 2 and time.monotonic() < end:
        time.sleep(0.02)
    player.close()
    np.testing.assert_array_equal(np.stack([frame.frame for frame in shown[:2]]), expected)


def test_a_new_beginning_has_its_prompt_and_seed(server):
    client, player = server
    with connect(client) as socket:
        until(socket, "hello")
        socket.send_json({"kind": "reset", "prompt": "another", "seed": 9})
        end = time.monotonic() + 5
        while (player.prompt, player.seed) != ("another", 9) and time.monotonic() < end:
            until(socket, lambda head: True)
        socket.send_json({"kind": "reset", "prompt": " ".join(["word"] * 400), "seed": 1})
        assert "shorten it" in until(socket, "error")["text"]
    assert (player.prompt, player.seed) == ("another", 9)


def test_another_model_can_be_picked_and_one_that_cannot_be_played_is_refused(pipe, tmp_path):
    other = playable(seed=1, words=WORDS.replace(keys=("jump",), axes=()))

    def load(name):
        if name == "none":
            raise ConfigError("model none: was trained without actions and cannot be played")
        return {"small": pipe, "other": other}[name]

    outlet = Outlet()
    player = Player(load, "small", tmp_path, {}, outlet.show, outlet.tell)
    app = make_app(player, outlet, lambda: ["other", "none"], close=player.close)
    with TestClient(app) as client, connect(client) as socket:
        until(socket, "hello")
        for name in ("/etc", "owner/name", "../small"):
            socket.send_json({"kind": "model", "name": name})
            assert "not among those" in until(socket, "error")["text"]
        socket.send_json({"kind": "model", "name": "none"})
        assert "trained without actions" in until(socket, "error")["text"]
        socket.send_json({"kind": "model", "name": "other"})
        assert until(socket, "hello")["keys"] == ["jump"]
        until(socket, lambda head: head[0] > 2)


@pytest.mark.slow
def test_each_world_is_made_to_fit(pipe, tmp_path, capsys):
    pipe.save_pretrained(tmp_path / "model")
    load = opener(torch.device("cpu"), Fit(weights="bf16"))
    assert load(str(tmp_path / "model")).fitted == Fit(weights="bf16")
    found = opener(torch.device("cpu"), Fit(weights="bf16"), "8GiB", num_steps=1)(str(tmp_path / "model"))
    assert found.fitted.weights == "bf16" and "fit: --weights bf16" in capsys.readouterr().err
    found.play(num_steps=1).step({"keys": ["forward"]})
    with pytest.raises(ConfigError, match="are not enough"):
        opener(torch.device("cpu"), room="1MiB")(str(tmp_path / "model"))


def test_the_command_has_what_sample_has_to_make_a_model_fit():
    words = ["play", "--fit", "12GiB", "--weights", "bf16", "--text-encoder", "freed"]
    names, command = find(COMMANDS, words)
    said = handed_over(parse(names, command, words[len(names) :]))
    assert said["room"] == "12GiB" and said["fit"] == Fit(weights="bf16", text_encoder="freed")


# -------------------- a slow reader


def test_a_page_that_does_not_answer_gets_no_more_frames_and_then_the_newest(server):
    client, player = server
    with connect(client) as socket:
        until(socket, "hello")
        numbers = []
        for _ in range(3):
            numbers.append(HEADER.unpack(socket.receive_bytes()[: HEADER.size])[0])
        time.sleep(0.7)
        newest = player._number
        assert newest > numbers[-1] + 5  # the world has gone on
        socket.send_json({"kind": "seen", "number": numbers[-1]})
        after = HEADER.unpack(socket.receive_bytes()[: HEADER.size])[0]
        assert after >= newest - 2


def test_seen_is_no_more_than_was_sent():
    sender = Sender(None, Outlet())
    sender.sent = 5
    sender.saw(10**6)
    assert sender.seen == 5


# -------------------- what is held


def test_a_tap_between_two_steps_counts_once_and_changes_add_up():
    held = Held(WORDS)
    held.change({"keys": ["forward"], "axes": {"turn": 3}}, 1)
    held.change({"keys": [], "axes": {"turn": 5}}, 2)
    rows, pressed = held.take(2)
    assert pressed == 2 and rows[:, 0].tolist() == [1, 1] and rows[:, 3].tolist() == [4, 4]
    rows, _ = held.take(2)
    assert not rows.any()
    held.change({"keys": ["left"]}, 3)
    assert [held.take(2)[0][0, 1] for _ in range(3)] == [1, 1, 1]
    held.change({"axes": {"turn": 10_000}}, 4)
    assert held.take(2)[0][0, 3] == 20  # as much as can be


# -------------------- who may come


def test_other_hosts_and_origins_are_refused(server):
    client, _ = server
    assert client.get("/", headers=LOCAL).status_code == 200
    for host in ("127.0.0.1", "localhost:8000", "[::1]:8000", "localhost"):
        assert client.get("/", headers={"host": host}).status_code == 200, host
    for host in ("evil.example", "127.0.0.1.evil.example:8000", "localhost.evil.example", "", "127.0.0.1@evil.example"):
        assert client.get("/", headers={"host": host}).status_code == 403, host
    for headers in ({"host": "evil.example"}, {"origin": "http://evil.example"}, {"origin": "null"}):
        with pytest.raises(WebSocketDisconnect), connect(client, **headers):
            pass
    with connect(client, origin="http://127.0.0.1:8000") as socket:
        until(socket, "hello")


def test_elsewhere_a_token_is_wanted(pipe, tmp_path):
    outlet = Outlet()
    player = Player(lambda name: pipe, "small", tmp_path, {}, outlet.show, outlet.tell)
    with TestClient(make_app(player, outlet, lambda: [], "secret", player.close)) as client:
        headers = {"host": "example.org:8000"}
        assert client.get("/", headers=headers).status_code == 403
        assert client.get("/?token=guess", headers=headers).status_code == 403
        assert client.get("/static/play/world.js", headers=headers).status_code == 403
        with pytest.raises(WebSocketDisconnect), client.websocket_connect("/play", headers=headers):
            pass
        assert client.get("/?token=secret", headers=headers).status_code == 200
        with client.websocket_connect("/play?token=secret", headers=headers) as socket:
            until(socket, "hello")


def test_nothing_but_the_page_is_served(server):
    client, _ = server
    for path in (
        "/../pyproject.toml",
        "/%2e%2e/pyproject.toml",
        "/static/../../etc/passwd",
        "//etc/passwd",
        "/docs",
        "/openapi.json",
    ):
        assert client.get(path, headers=LOCAL).status_code == 404, path
    page = client.get("/", headers=LOCAL)
    assert "http:" not in page.text.replace("http://www.w3.org", "") and "https:" not in page.text
    assert page.headers["content-security-policy"].startswith("default-src 'self'")


def test_a_port_in_use_is_one_line():
    with listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port}: .*give another --port"):
            listen("127.0.0.1", port)
    with pytest.raises(ConfigError, match="port 0"):
        listen("203.0.113.1", 0)


def test_the_thread_ends(pipe, tmp_path):
    before = threading.active_count()
    player = Player(lambda name: pipe, "small", tmp_path, {}, lambda shown: None, lambda told: None)
    player.play(True)
    time.sleep(0.2)
    player.close()
    assert threading.active_count() == before


@pytest.mark.parametrize(
    "device, threads, cores, want", [("cpu", 2, 2, 1), ("cpu", 1, 1, 1), ("cpu", 4, 8, 4), ("cuda", 2, 2, None)]
)
def test_a_core_is_left_for_the_browser(monkeypatch, device, threads, cores, want):
    said = []
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(torch, "set_num_threads", said.append)
    leave_a_core(torch.device(device))
    assert said == ([] if want is None else [want])


def test_the_header_is_what_the_page_reads():
    from importlib import resources

    script = resources.files("video_gen.web.studio").joinpath("static/play/world.js").read_text()
    assert f"HEADER = {HEADER.size}" in script and HEADER.size == struct.calcsize("<IIffHH")
    assert Shown(1, 2, 3.0, 4.0, np.zeros((2, 2, 3), np.uint8)).number == 1
