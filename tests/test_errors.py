"""Every program ends with one line and a code, never a traceback, on what a user can do wrong."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from video_gen.errors import ConfigError, exit_code

ROOT = Path(__file__).parents[1]


def raises(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    "error, code, line", [(ConfigError("seed: -1"), 2, "prog: seed: -1"), (KeyboardInterrupt(), 130, "prog: stopped")]
)
def test_the_code_and_the_line(error, code, line, capsys):
    assert exit_code("prog", lambda: raises(error)) == code
    assert capsys.readouterr().err.strip() == line


def test_what_is_no_user_error_is_not_hidden():
    assert exit_code("prog", lambda: None) == 0
    with pytest.raises(ZeroDivisionError):
        exit_code("prog", lambda: raises(ZeroDivisionError()))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["drift", "steering"])
def test_a_benchmark_says_what_is_wrong_in_one_line(name):
    words = [sys.executable, f"benchmarks/{name}.py", "--variants", "nope"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "no 'nope'" in done.stderr and len(done.stderr.strip().splitlines()) == 1


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
@pytest.mark.parametrize(
    ("python", "line"),
    [
        ("exit 1", "is no Python 3.11 or newer; name one: make PYTHON="),
        (
            'case "$*" in *ensurepip*) exit 1;; esac',
            "has no venv module; on Debian and Ubuntu: apt install python3-venv",
        ),
    ],
)
def test_setup_says_what_is_wrong_with_python(tmp_path, python, line):
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    other = tmp_path / "other-python"
    other.write_text(f"#!/bin/sh\n{python}\n", encoding="utf-8")
    other.chmod(0o755)
    done = subprocess.run(["make", "setup", f"PYTHON={other}"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and line in done.stderr.splitlines()[0] and not (tmp_path / ".venv").exists()
