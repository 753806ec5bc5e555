"""Nonsense at every address of the studio: no fault of the server, nothing read or written outside its folders, and it lives on.

What is asked is drawn from a seed: wrong types, sizes, paths, bodies and sockets, with names that are right mixed in.
"""

import inspect
import json
import random
import socket
import subprocess
from collections import Counter
from collections.abc import Iterator
from urllib.parse import quote

import pytest

pytest.importorskip("fastapi")
from browsing import served
from fastapi import HTTPException
from fastapi.testclient import TestClient
from starlette.websockets import WebSocketDisconnect
from studios import LOCAL

from video_gen.config import Config
from video_gen.web.studio.app import make_app
from video_gen.web.studio.form import options
from video_gen.web.studio.roots import Roots
from video_gen.web.studio.studio import Studio

SECRET = "what-nobody-may-see"
QUICK, LONG = 1_500, 20_000
HEADERS = ("range", "if-none-match", "content-type", "accept", "if-range", "if-modified-since")
SAID = ("bytes=0-", "bytes=5-1", "bytes=-1", "bytes=999999-", "bytes=0-0,1-1", "*", "x" * 3000, "multipart/form-data")
METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS")


@pytest.fixture
def studio(tmp_path, monkeypatch):
    """A studio with something in each of its folders, beside folders that are none of its business; nothing is begun by it."""
    monkeypatch.setattr(subprocess, "Popen", lambda *args, **options: pytest.fail(f"a process was begun: {args}"))
    for folder in ("outside", "out/results", "out/uploads", "data/set", "runs/one/checkpoints"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "outside" / "secret.mp4").write_text(SECRET)
    (tmp_path / "outside" / "secret.json").write_text(json.dumps({"prompt": SECRET}))
    (tmp_path / "outside" / "config.yaml").write_text(SECRET)
    for link, target in (
        ("runs/leak", "outside"),
        ("data/leak", "outside"),
        ("out/results/leak.mp4", "outside/secret.mp4"),
    ):
        (tmp_path / link).symlink_to(tmp_path / target)
    (tmp_path / "out" / "results" / "clip.mp4").write_bytes(b"video")
    (tmp_path / "out" / "results" / "clip.json").write_text('{"prompt": "a clip", "seed": 1}')
    (tmp_path / "runs" / "one" / "config.yaml").write_text("vae: {}\n")
    (tmp_path / "runs" / "one" / "log.jsonl").write_text(
        '{"step": 1, "loss": 0.5}\n{"step": 2, "loss": "x"}\nnonsense\n'
    )
    (tmp_path / "data" / "set" / "metadata.jsonl").write_text('{"file_name": "a.mp4", "text": "a"}\n')
    found = Studio(tmp_path / "out", "bounce", Roots((tmp_path / "runs",)), Roots((tmp_path / "data",)), "cpu")
    found.queue._deaths = 99  # no worker: what is asked for waits
    found.queue.start = lambda: setattr(found.queue, "_loop", None)  # type: ignore[method-assign]
    found.queue._pump = lambda: None  # type: ignore[method-assign]
    return found


def words_of(place) -> list[str]:
    """Names that requests may hold: fields of what pages send, options, and arguments of handlers."""
    kinds, found = [Config], set(options())
    while kinds:
        kind = kinds.pop()
        kinds += kind.__subclasses__()
        if kind.__module__.startswith("video_gen.web.studio"):
            found |= set(kind.model_fields)
    return sorted(found)


class Nonsense:
    """Draws requests."""

    def __init__(self, seed: int, place, words: list[str]):
        self.draw, self.words = random.Random(seed), words
        inside = ["clip", "one", "set", "runs", "data", "out", "bounce", "metadata.jsonl", "log.jsonl", "checkpoints"]
        self.texts = [
            "", ".", "..", "../outside/secret.mp4", "../../etc/passwd", "/etc/passwd", "//etc/passwd", "..\\..\\secret", "leak",
            "leak/secret.mp4", "runs/leak/config.yaml", "~", "~/.ssh", "file:///etc/passwd", "http://127.0.0.1:1/", "C:\\windows",
            str(place / "outside" / "secret.mp4"), str(place / "outside"), str(place), "a\0b", "\0", "\n", "\r\nX: y", "%00",
            "%2e%2e%2f", "\u202e", "🙂" * 50, "x" * 300, "x" * 70_000, "null", "true", "-1", "1e999", "NaN", "0x10", "[]", "{}",
            "upload:", "upload:../x.png", "upload:" + "a" * 20 + ".png", "result:", "result:../clip", "result:clip", "result:leak",
            "<script>alert(1)</script>", "{{7*7}}", "$(id)", "; rm -rf .", "' or 1=1 --", "CON", "a/b/c/d", "é", *inside,
        ]  # fmt: skip
        self.numbers = [
            0,
            1,
            2,
            -1,
            3.5,
            2**31,
            2**53,
            2**63,
            2**64,
            -(2**63),
            10**30,
            1e308,
            float("nan"),
            float("inf"),
        ]

    def value(self, depth: int = 0):
        kind = self.draw.random()
        if kind < 0.5:
            return self.draw.choice(self.texts)
        if kind < 0.7:
            return self.draw.choice(self.numbers)
        if kind < 0.8 or depth > 2:
            return self.draw.choice([None, True, False, "\ud800", []])
        if kind < 0.9:
            return [self.value(depth + 1) for _ in range(self.draw.randrange(4))]
        return {self.draw.choice(self.words): self.value(depth + 1) for _ in range(self.draw.randrange(4))}

    def query(self, names: list[str]) -> dict[str, str]:
        found = {name: self.text() for name in names if self.draw.random() < 0.85}
        if self.draw.random() < 0.1:
            found[self.text()[:50]] = self.text()
        return found

    def text(self) -> str:
        return str(self.draw.choice(self.texts if self.draw.random() < 0.7 else self.numbers))[:15_000]

    def body(self) -> bytes:
        kind = self.draw.random()
        if kind < 0.75:
            chosen = self.draw.sample(self.words, self.draw.randrange(1, 6))
            return json.dumps({name: self.value() for name in chosen}).encode()
        if kind < 0.9:
            return json.dumps(self.value()).encode()
        whole = json.dumps({"prompt": "x", "id": 1}).encode()
        return self.draw.choice([
            b"", whole[: self.draw.randrange(len(whole))], b"\xff\xfe\x00", self.draw.randbytes(200), b"[" * 30_000,
            b'{"a":' * 9_000,
            b"9" * 5_000, b'"\\ud800"', b"\x89PNG\r\n\x1a\n" + self.draw.randbytes(300),
            b"\0\0\0\x18ftypmp42" + self.draw.randbytes(300),
            b"#EXTM3U\nfile:///etc/passwd\n", b"x" * (2 << 20),
        ])  # fmt: skip


def addresses(routes) -> Iterator[tuple[str, list[str], list[str]]]:
    """(path, methods, names of the query) of each route."""
    for route in routes:
        if inner := getattr(route, "original_router", None):  # as FastAPI keeps a router that is included
            yield from addresses(inner.routes)
        elif hasattr(route, "methods"):
            said = inspect.signature(route.endpoint).parameters
            names = [name for name, one in said.items() if one.annotation.__name__ != "Request"]
            yield route.path, sorted(route.methods or ["GET"]), names


def snapshot(place):
    """What lies outside the studio's own folder."""
    return {
        str(path.relative_to(place)): path.read_bytes() if path.is_file() else None
        for path in sorted(place.rglob("*"))
        if "out" not in path.relative_to(place).parts[:1]
    }


def ask(client, nonsense: Nonsense, known: list) -> int:
    """Returns: the code of the answer."""
    draw = nonsense.draw
    path, methods, names = draw.choice(known)
    for part in ("{name:path}", "{name}", "{path:path}"):
        path = path.replace(part, quote(nonsense.text()[:500], safe="/." if draw.random() < 0.5 else ""))
    method = draw.choice(methods) if draw.random() < 0.9 else draw.choice(METHODS)
    headers = {draw.choice(HEADERS): draw.choice(SAID)} if draw.random() < 0.1 else {}
    body = nonsense.body() if method not in ("GET", "HEAD", "OPTIONS") else None
    answer = client.request(method, path, params=nonsense.query(names), content=body, headers=headers)
    assert answer.status_code < 500, (method, path, answer.request.url, body and body[:500], answer.text[:500])
    assert SECRET not in answer.text and "root:x:0" not in answer.text, (method, answer.request.url)
    return answer.status_code


def fuzz(studio, place, seed: int, count: int) -> None:
    before, app = snapshot(place), make_app(studio)
    known = list(addresses(app.routes))
    assert len(known) > 20
    with TestClient(app, headers=LOCAL, raise_server_exceptions=False) as client:
        nonsense = Nonsense(seed, place, words_of(place))
        codes: Counter[int] = Counter()
        for number in range(count):
            codes[ask(client, nonsense, known)] += 1
            if number % 200 == 0:
                talk(client, nonsense)
        assert client.get("/").status_code == 200 and client.get("/api/results").status_code == 200
    assert all(codes[code] > count // 100 for code in (200, 400, 404)), codes  # some of it makes sense
    after = snapshot(place)
    assert {name: after.get(name) for name in before} == before
    new = set(after) - set(before)
    assert not [name for name in new if not name.startswith(("runs/", "data/"))], new


def talk(client, nonsense: Nonsense) -> None:
    """With the socket."""
    topics = ",".join(nonsense.text()[:100] for _ in range(5))
    try:
        with client.websocket_connect(f"/api/events?topics={quote(topics)}") as line:
            for _ in range(3):
                line.send_text(nonsense.text()) if nonsense.draw.random() < 0.5 else line.send_bytes(
                    nonsense.body()[:1000]
                )
    except (WebSocketDisconnect, HTTPException):
        pass


@pytest.mark.slow
def test_nonsense_at_every_address_is_answered_and_does_nothing(studio, tmp_path):
    fuzz(studio, tmp_path, 0, QUICK)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_much_more_nonsense(studio, tmp_path, seed):
    fuzz(studio, tmp_path, seed, LONG)


@pytest.mark.slow
def test_what_is_no_http_harms_nobody(studio):
    """Bytes on the wire."""
    draw = random.Random(0)
    with served(make_app(studio)) as address:
        host, port = address.removeprefix("http://").split(":")
        lines = [
            b"GET /../../../../etc/passwd HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
            b"GET /static/%ff%fe HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
            b"GET /\x00 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
            b"GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n",
            b"POST /api/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -5\r\n\r\n",
            b"POST /api/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99999999999\r\n\r\n{",
            b"POST /api/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffff\r\n",
            b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n",
            b"\x16\x03\x01\x02\x00",
            b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
            b"GET / HTTP/9.9\r\nHost: 127.0.0.1\r\n\r\n",
            b"GET /api/events HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: x\r\n\r\n",
            *(draw.randbytes(500) for _ in range(20)),
        ]  # fmt: skip
        for line in lines:
            with socket.create_connection((host, int(port)), timeout=5) as wire:
                wire.settimeout(0.2)
                try:
                    wire.sendall(line)
                    answer = wire.recv(4096)
                except (TimeoutError, ConnectionError):
                    continue
                assert not answer.startswith(b"HTTP/1.1 5") and b"root:x" not in answer, (line[:200], answer[:300])
        with socket.create_connection((host, int(port)), timeout=5) as wire:
            wire.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
            assert wire.recv(100).startswith(b"HTTP/1.1 200")
