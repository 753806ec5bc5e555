"""What differs between systems: the encoding of text, and modules that only some of them have."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "video_gen"
TEXT = {"read_text", "write_text", "open", "fdopen", "NamedTemporaryFile", "TemporaryFile"}
OTHERS = {"av", "os", "Image"}
"""Whose `open` opens no text."""
POSIX = ("fcntl", "grp", "pwd", "resource", "syslog", "termios", "tty")


def text_calls(path: Path):
    """Calls that read or write text in the encoding of the system, by line."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        call = node.func
        name = call.attr if isinstance(call, ast.Attribute) else call.id if isinstance(call, ast.Name) else ""
        of = call.value.id if isinstance(call, ast.Attribute) and isinstance(call.value, ast.Name) else ""
        own = (
            isinstance(call, ast.Name) and name != "open"
        )  # `files.read_text` and `write_text`, which are always UTF-8
        if (
            name not in TEXT
            or own
            or (of in OTHERS and name == "open")
            or any(k.arg == "encoding" for k in node.keywords)
        ):
            continue
        words = [x.value for x in [*node.args, *(k.value for k in node.keywords)] if isinstance(x, ast.Constant)]
        if name.endswith("TemporaryFile"):  # binary unless it is said otherwise
            binary = not any(isinstance(w, str) and "t" in w for w in words)
        else:
            binary = any(isinstance(word, str) and "b" in word and len(word) < 4 for word in words)
        if not binary:
            yield f"{path.name}:{node.lineno}"


def test_the_encoding_is_always_given(tmp_path):
    (tmp_path / "a.py").write_text(
        'open("a"); open("b", "rb"); p.read_text(); p.open(encoding="u"); p.open("w")', encoding="utf-8"
    )
    assert len(list(text_calls(tmp_path / "a.py"))) == 3
    assert [call for path in PACKAGE.rglob("*.py") for call in text_calls(path)] == []


HIDE = f"""
import importlib, pkgutil, sys
for name in {POSIX}:
    sys.modules[name] = None  # as on Windows, where importing them fails
import video_gen
for module in ("cli", "sample", "stream", "train", "evaluate", "demo", "plan", "training.lock", "data.processes", "files"):
    importlib.import_module(f"video_gen.{{module}}")
"""


@pytest.mark.slow
def test_every_command_can_be_imported_without_what_only_unix_has():
    done = subprocess.run([sys.executable, "-c", HIDE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-500:]


def test_only_what_may_be_missing_is_imported_from_unix():
    """At the head of a file such a module is imported in a `try`, or not at all."""
    wrong = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            wrong += [f"{path.name}: {name}" for name in names if name in POSIX]
    assert wrong == []
