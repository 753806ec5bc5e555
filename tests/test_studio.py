"""The studio's foundation: who may come, what may be read, what is told, and what happens to work that crashes."""

import asyncio
import json
import os
import subprocess
import sys
import time

import pytest

pytest.importorskip("fastapi")
from fastapi.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from video_gen.errors import DataError
from video_gen.studio import alone
from video_gen.web.studio.answers import Missing
from video_gen.web.studio.app import make_app
from video_gen.web.studio.guard import LONGEST
from video_gen.web.studio.hub import Hub
from video_gen.web.studio.process import Apart, Process
from video_gen.web.studio.roots import LONGEST_NAME, Roots, inside
from video_gen.web.studio.studio import Studio

LOCAL = {"host": "127.0.0.1:8000"}


@pytest.fixture
def studio(tmp_path):
    return Studio(tmp_path / "out", "bounce", Roots((tmp_path / "runs",)), Roots((tmp_path / "data",)))


@pytest.fixture
def client(studio):
    with TestClient(make_app(studio), headers=LOCAL) as found:
        yield found


# -------------------- who may come


def test_the_server_does_not_need_torch():
    code = "import video_gen.studio, video_gen.web.studio.app, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_other_hosts_are_refused(client):
    for host in ("127.0.0.1", "localhost:8000", "[::1]:8000"):
        assert client.get("/", headers={"host": host}).status_code == 200, host
    for host in ("evil.example", "localhost.evil.example:8000", "", "127.0.0.1@evil.example"):
        assert client.get("/", headers={"host": host}).status_code == 403, host
        with pytest.raises(WebSocketDisconnect), client.websocket_connect("/api/events", headers={"host": host}):
            pass


def test_pages_of_other_sites_change_nothing_and_show_nothing(client):
    for origin in (
        "http://evil.example",
        "null",
        "http://127.0.0.1:9",
        "http://[",
        "http://127.0.0.1:8000.evil.example",
    ):
        assert client.post("/", headers={"origin": origin}).status_code == 403, origin
        with pytest.raises(WebSocketDisconnect), client.websocket_connect("/api/events", headers={"origin": origin}):
            pass
    assert client.post("/", headers={"origin": "http://127.0.0.1:8000"}).status_code == 405
    embedded = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}
    assert client.get("/static/icon.svg", headers=embedded).status_code == 403
    assert client.get("/", headers=embedded | {"sec-fetch-mode": "navigate"}).status_code == 200


def test_beyond_loopback_a_token_is_asked_for(studio):
    far = {"host": "192.168.1.5:8000"}
    with TestClient(make_app(studio, "secret")) as client:
        for path in ("/", "/static/app.js", "/?token=wrong", "/?token=", "/nothing"):
            assert client.get(path, headers=far).status_code == 403, path
        assert client.get("/", headers=LOCAL).status_code == 403
        with pytest.raises(WebSocketDisconnect), client.websocket_connect("/api/events", headers=far):
            pass
        first = client.get("/?token=secret", headers=far)
        assert first.status_code == 200 and "HttpOnly; SameSite=strict" in first.headers["set-cookie"]
        known = far | {"cookie": "studio=secret"}
        assert client.get("/static/app.js", headers=known).status_code == 200
        with client.websocket_connect("/api/events", headers=known):
            pass


def test_answers_let_the_browser_do_nothing_but_show_them(client):
    for path in ("/", "/static/app.js", "/nothing"):
        headers = client.get(path).headers
        assert headers["content-security-policy"].startswith("default-src 'none'"), path
        assert "unsafe" not in headers["content-security-policy"] and headers["x-content-type-options"] == "nosniff"


def test_nothing_but_the_pages_is_served(client):
    for path in ("/../pyproject.toml", "/%2e%2e/pyproject.toml", "/static/../app.py", "/static/..%2fapp.py", "//etc/passwd",
                 "/static//etc/passwd", "/static/%00", "/docs", "/openapi.json", "/static/"):  # fmt: skip
        assert client.get(path).status_code == 404, path


def test_bodies_are_limited(client):
    assert client.post("/", content=b"x" * (LONGEST + 1)).status_code in (405, 413)


def test_two_studios_in_one_folder_are_one_too_many(tmp_path):
    with alone(tmp_path / "out"):
        code = "import sys; from pathlib import Path; from video_gen.studio import alone\nwith alone(Path(sys.argv[1])): pass"
        second = subprocess.run([sys.executable, "-c", code, str(tmp_path / "out")], capture_output=True, text=True)
    assert second.returncode == 1 and "another one is open in" in second.stderr
    with alone(tmp_path / "out"):
        pass


# -------------------- folders


def test_only_what_lies_in_a_root_is_found(tmp_path):
    root, beyond = tmp_path / "data", tmp_path / "secret"
    (root / "deep").mkdir(parents=True)
    beyond.mkdir()
    for place in (root / "a.mp4", root / "deep" / "b.mp4", beyond / "key"):
        place.write_text("x")
    (root / "link").symlink_to(root / "a.mp4")
    (root / "out").symlink_to(beyond)
    (root / "leak").symlink_to(beyond / "key")
    (root / "round").symlink_to(root / "round")
    assert inside(root, "deep/b.mp4") == (root / "deep" / "b.mp4").resolve() and inside(root, "") == root.resolve()
    assert inside(root, "link") == (root / "a.mp4").resolve()
    wrong = ["..", "../secret/key", "deep/../../secret/key", str(beyond / "key"), "/etc/passwd", "out/key", "leak", "round",
             "a.mp4\0",
             "a.mp4/", "deep//b.mp4", "./a.mp4", "deep\\b.mp4", "x" * (LONGEST_NAME + 1), "x" * 300, "a.mp4/b",
             "\ud800", "nothing"]  # fmt: skip
    for name in wrong:
        with pytest.raises(Missing):
            inside(root, name)


def test_roots_have_names_and_may_come_later(tmp_path):
    roots = Roots((tmp_path / "a" / "runs", tmp_path / "b" / "runs", tmp_path / "a" / "runs"))
    assert list(roots.folders) == ["runs", "runs-2"]
    with pytest.raises(Missing, match="not there"):
        roots.find("runs")
    (tmp_path / "b" / "runs").mkdir(parents=True)
    assert roots.find("runs-2") == (tmp_path / "b" / "runs").resolve()
    with pytest.raises(Missing, match="there are runs, runs-2"):
        roots.find("other")


# -------------------- what is told


def test_a_page_is_told_the_newest_of_what_it_asked_for(studio):
    with TestClient(make_app(studio), headers=LOCAL) as client:
        client.portal.call(studio.hub.tell, "queue", 1)
        with client.websocket_connect("/api/events?topics=queue,other") as socket:
            assert json.loads(socket.receive_text()) == {"queue": 1}
            client.portal.call(studio.hub.tell, "unheard", 5)
            client.portal.call(studio.hub.tell, "other", 2)
            assert json.loads(socket.receive_text()) == {"other": 2}


def test_who_does_not_read_gets_the_newest_and_holds_up_nobody():
    async def talk():
        hub = Hub()
        hub.start()
        slow, quick = hub.join(["a"]), hub.join(["a"])
        heard = []
        for number in range(100):
            hub.tell("a", number)
            heard.append((await quick.get())["a"])
        assert heard == list(range(100)) and await slow.get() == {"a": 99}

    asyncio.run(talk())


# -------------------- work apart


def double(x):
    return 2 * x


def refuse():
    raise DataError("a.mp4: no video")


def crash():
    os.abort()


def hang():
    time.sleep(60)


def hoard():
    return len(b"x" * (2 << 30))


@pytest.mark.slow
def test_calls_apart_answer_raise_crash_and_hang_without_harm():
    async def calls():
        apart = Apart(seconds=20, memory=1 << 30)
        assert await apart.run(double, 21) == 42
        with pytest.raises(DataError, match="no video"):
            await apart.run(refuse)
        with pytest.raises(DataError, match="not enough memory"):
            await apart.run(hoard)
        with pytest.raises(DataError, match="SIGABRT"):
            await apart.run(crash)
        assert await asyncio.gather(*(apart.run(double, i) for i in range(5))) == [0, 2, 4, 6, 8]
        apart.seconds = 0.3
        with pytest.raises(DataError, match="longer than"):
            await apart.run(hang)
        apart.seconds = 20
        assert await apart.run(double, 4) == 8
        apart.close()

    asyncio.run(calls())


def echo(line, greeting):
    line.send(greeting)
    while True:
        line.send(line.recv() + 1)


def test_a_process_is_talked_with_and_its_end_is_told():
    heard, ends = [], []
    process = Process(echo, ("hello",))
    process.listen(heard.append, ends.append)
    assert process.send(1) and process.send(5)
    end = time.monotonic() + 20
    while len(heard) < 3 and time.monotonic() < end:
        time.sleep(0.02)
    assert heard == ["hello", 2, 6] and ends == []
    process.kill()
    while not ends and time.monotonic() < end:
        time.sleep(0.02)
    assert ends == [-9] and not process.send(1)
