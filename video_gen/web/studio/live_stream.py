"""One endless stream that every open page watches: its process, who watches, and what is known of it."""

import asyncio
import json
import re
import shlex
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Any

from video_gen.errors import ConfigError, VideoGenError
from video_gen.files import explained, write_text
from video_gen.naming import free_name
from video_gen.web.studio.gallery import Gallery
from video_gen.web.studio.hub import Hub
from video_gen.web.studio.live_worker import work
from video_gen.web.studio.process import Process, ending

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")
WAITING = 6
"""Blocks that wait for a page which is slow; then it loses the oldest."""
ALONE = 20.0
"""Seconds after the last page has gone for which the stream still runs; a recording goes on."""


class Live:
    """The stream's process, who watches, and what is known of it. Everything happens in the server's loop."""

    def __init__(self, folder: Path, gallery: Gallery, hub: Hub, device: str):
        self.folder, self.gallery, self.hub, self.device = folder, gallery, hub, device
        self.known: dict[str, Any] = {"status": "none"}
        self.trouble: str | None = None
        self.viewers: set[Viewer] = set()
        self._process: Process | None = None
        self._closing = False

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        for left in sorted((self.folder / "recordings").glob("*.mp4")):  # of a studio that was killed
            self._keep(left, {})
        self._tell()

    def close(self) -> None:
        self._closing = True
        if self._process is not None:
            self._process.kill()

    def say(self, *message: Any) -> None:
        """Something to the process. Raises: ConfigError if there is none."""
        if self._process is None or not self._process.send(message):
            raise ConfigError("no model is open; pick one")
        self.trouble = None

    def open_model(self, model: str) -> None:
        if self._process is None:

            def hear(message: Any) -> None:
                self._from_thread(self._heard, process, message)

            def ended(code: int) -> None:
                self._from_thread(self._ended, process, code)

            process = self._process = Process(work, (self.device,))
            process.listen(hear, ended)
            self.known = {"status": "loading", "model": model}
            self._tell()
        self.say("open", model)

    def state_file(self, name: str) -> Path:
        """Raises: ConfigError for what is no name."""
        if not NAME.fullmatch(name):
            raise ConfigError(f"'{name[:40]}' is no name for a state; use up to 40 letters, digits, - and _")
        return self.folder / "states" / f"{name}.safetensors"

    def states(self) -> list[str]:
        """Names of saved states, newest first."""
        found = sorted((self.folder / "states").glob("*.safetensors"), key=lambda path: -path.stat().st_mtime)
        return [path.stem for path in found]

    def record(self, on: bool) -> None:
        path = None
        if on:
            folder = self.folder / "recordings"
            with explained(folder):
                folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"live-{time.strftime('%Y%m%d-%H%M%S')}.mp4"
        self.say("record", path)

    # -------------------- who watches

    def join(self, viewer: "Viewer") -> None:
        self.viewers.add(viewer)

    def leave(self, viewer: "Viewer") -> None:
        self.viewers.discard(viewer)
        if not self.viewers:
            self._loop.call_later(ALONE, self._rest)

    def _rest(self) -> None:
        if not self.viewers and self.known.get("status") == "running" and not self.known.get("recording"):
            with suppress(VideoGenError):
                self.say("run", False)

    # -------------------- what the process says

    def _from_thread(self, function: Any, *args: Any) -> None:
        with suppress(RuntimeError):  # the server has ended
            self._loop.call_soon_threadsafe(function, *args)

    def _heard(self, process: Process, message: tuple) -> None:
        if process is not self._process or self._closing:
            return
        kind, *rest = message
        if kind == "block":
            for viewer in self.viewers:
                viewer.put(rest[0])
            return
        if kind == "state":
            self.known = rest[0]
        elif kind == "recorded":
            self._keep(*rest)
        elif kind == "trouble":
            self.trouble = rest[0]
        self._tell(rest[0] if kind == "note" else None)

    def _ended(self, process: Process, code: int) -> None:
        if process is self._process and not self._closing:
            self._process, self.known = None, {"status": "none"}
            self.trouble = f"the stream's process ended {ending(code)}; open a model again, or a smaller one"
            self._tell()

    def _keep(self, video: Path, facts: dict[str, Any]) -> None:
        """A recording among the results."""
        folder = self.gallery.folder
        try:
            with explained(folder):
                folder.mkdir(parents=True, exist_ok=True)
                name = free_name(folder, video.stem)
                write_text(folder / f"{name}.json", json.dumps(facts, indent=1))
                video.rename(folder / f"{name}.mp4")
        except VideoGenError as error:
            self.trouble = f"{video} is kept there: {error}"
            return
        self.hub.tell("results", {"newest": name, "at": time.time()})

    def _tell(self, note: str | None = None) -> None:
        told = self.known | {"states": self.states(), "trouble": self.trouble}
        self.hub.tell("live", told | ({"note": note, "noted": time.time()} if note else {}))


class Viewer:
    """Blocks on their way to one page: when it does not keep up, it misses old ones, and nobody else any."""

    def __init__(self):
        self.waiting: deque[bytes] = deque(maxlen=WAITING)
        self.changed = asyncio.Event()

    def put(self, block: bytes) -> None:
        self.waiting.append(block)
        self.changed.set()

    async def get(self) -> bytes:
        while not self.waiting:
            self.changed.clear()
            await self.changed.wait()
        return self.waiting.popleft()


def script(known: dict[str, Any]) -> str:
    """What makes the same frames: the lines of a script, if anything was changed on the way, and the command line."""
    begun, cues = dict(known.get("begun", {})), known.get("cues", [])
    words = ["video-gen", "stream"] + ([begun["prompt"]] if begun.get("prompt") else [])
    words += ["--model", str(known.get("model", ""))]
    for name, value in begun.items():
        if name != "prompt":
            words += [f"--{name.replace('_', '-')}", value]
    lines = []
    if cues:
        lines = ["cat > live.jsonl <<'END'", *(json.dumps(cue, ensure_ascii=False) for cue in cues), "END"]
        words += ["--script", "live.jsonl"]
    words += ["--seconds", f"{known.get('seconds', 0):.3f}", "--output", "live.mp4"]
    return "\n".join([*lines, shlex.join(words)]) + "\n"
