"""`video-gen data check` for a page: the same function in a process of its own, with progress; what it found is kept."""

import json
import threading
import time
from contextlib import suppress
from typing import Any

from video_gen.config import validate
from video_gen.data.config import ClipConfig, bucket_name
from video_gen.errors import ConfigError, DataError, VideoGenError, line_of
from video_gen.files import write_text
from video_gen.web.studio.data_sets import DataSet
from video_gen.web.studio.hub import Hub
from video_gen.web.studio.process import Process, ending

TOPIC = "data check"
REPORT = "check.json"
MOST = 2000
"""Lines of a kind that are kept."""


class Checks:
    """One at a time: each reads every frame of a folder."""

    def __init__(self, hub: Hub):
        self.hub, self._turn = hub, threading.Lock()
        self._process: Process | None = None
        self._state: dict[str, Any] = {"set": None}
        self._stopped = False

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()

    @property
    def running(self) -> str | None:
        """The data set that is being read."""
        return self._state["set"]

    def start(self, found: DataSet, config: ClipConfig, quarantine: tuple[str, ...], max_tokens: int) -> None:
        """Raises: ConfigError if one is under way."""
        with self._turn:
            if self.running is not None:
                raise ConfigError(f"{self.running} is being read; wait for that, or stop it")
            self._state = {"set": found.ref, "done": 0, "of": len(found.items), "began": time.time()}
            self._stopped = False
            self._process = Process(run, (config.model_dump(mode="json"), quarantine, max_tokens))
            self._process.listen(lambda message: self._hear(found, message), lambda code: self._ended(found, code))
        self.hub.tell(TOPIC, self._state)

    def stop(self) -> None:
        with self._turn:
            if self._process is not None:
                self._stopped = True
                self._process.kill()

    def _hear(self, found: DataSet, message: tuple) -> None:
        kind, *values = message
        if kind == "done":
            report = values[0] | {"seconds": time.time() - self._state["began"], "when": time.time()}
            try:
                write_text(found.kept / REPORT, json.dumps(report))
            except DataError as error:
                self._state = self._state | {"error": str(error)}
        elif kind == "error":
            self._state = self._state | {"error": values[0]}
        else:
            self._state = self._state | {"done": values[0], "of": values[1]}
            self.hub.tell_from_thread(TOPIC, self._state)

    def _ended(self, found: DataSet, code: int) -> None:
        with self._turn:
            said = {"ended": found.ref, "at": time.time()}
            if self._stopped:
                said["error"] = "stopped; nothing was changed"
            elif "error" in self._state:
                said["error"] = self._state["error"]
            elif code:
                said["error"] = f"the process that read it ended {ending(code)}"
            self._state, self._process = {"set": None, **said}, None
        self.hub.tell_from_thread(TOPIC, self._state)


def report_of(found: DataSet) -> dict[str, Any] | None:
    """What the last check of a data set found."""
    with suppress(OSError, ValueError, RecursionError):
        report = json.loads((found.kept / REPORT).read_text(encoding="utf-8"))
        return report if isinstance(report, dict) else None
    return None


def run(line: Any, config: dict[str, Any], quarantine: tuple[str, ...], max_tokens: int) -> None:
    """The process."""
    try:
        line.send(("done", _check(line, config, quarantine, max_tokens)))
    except (BrokenPipeError, EOFError):
        raise
    except Exception as error:
        known = str(error) if isinstance(error, VideoGenError) else line_of(error)
        line.send(("error", known or f"{type(error).__name__}: {error}"))


def _check(line: Any, values: dict[str, Any], quarantine: tuple[str, ...], max_tokens: int) -> dict[str, Any]:
    from video_gen.data.check import check
    from video_gen.model.text import ByteTextEncoder
    from video_gen.model.transformer_config import TextConfig

    config = validate(ClipConfig, values, source="the check")
    encoder, told = ByteTextEncoder(TextConfig(max_tokens=max_tokens)), [0.0]

    def progress(done: int, of: int) -> None:
        if done == of or time.monotonic() - told[0] > 0.2:
            told[0] = time.monotonic()
            line.send(("progress", done, of))

    report = check(config, quarantine, progress, 1, lambda text: encoder.tokenise([text]))
    return plain_report(report) | {"config": values}


def plain_report(report: Any) -> dict[str, Any]:
    """A `CheckReport` as JSON says it."""
    good = [file.info for file in report.files if file.info is not None]
    return {
        "files": len(report.files),
        "videos": sum(info.kind == "video" for info in good),
        "length": sum(info.duration for info in good),
        "bytes": sum(file.size for file in report.files),
        "audio": sum(info.has_audio for info in good),
        "problems": {kind: [list(row) for row in rows[:MOST]] for kind, rows in report.problems.items()},
        "counts": {kind: len(rows) for kind, rows in report.problems.items()},
        "clips": [[bucket_name(bucket), count] for bucket, count in report.clips.items()],
        "held_out": list(report.held_out),
        "notes": report.notes[:MOST],
        "faults": report.faults[:MOST],
        "unwritten": report.unwritten,
        "remarks": [[file.name, list(file.remarks)] for file in report.files if file.remarks][:MOST],
        "actions": _actions(report),
    }


def _actions(report: Any) -> list[dict[str, Any]]:
    """How each key is used."""
    from video_gen.data.actions import usage

    if report.vocabulary is None:
        return []
    rows = [file.actions[:-1] for file in report.files if file.actions is not None and len(file.actions) > 1]
    keys = report.vocabulary.keys
    found = [(key, usage([each[:, i] > 0 for each in rows])) for i, key in enumerate(keys)]
    return [
        {"key": key, "share": use.share, "times": use.presses, "longest": use.longest, "mean": use.mean}
        for key, use in found
    ]
