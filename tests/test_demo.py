"""The demo's own arithmetic; that it runs is tests/test_slow.py."""

import shlex
from pathlib import Path

import pytest

from video_gen.cli import COMMANDS, main
from video_gen.command_line import find, parse
from video_gen.demo import opens, recipes


def test_a_share_of_the_steps_keeps_the_share_that_the_average_spans(tmp_path):
    whole, part = recipes(tmp_path, 1.0, short=False), recipes(tmp_path, 0.4, short=False)
    for one, other in zip(whole, part):
        assert other.loop.train_steps == pytest.approx(0.4 * one.loop.train_steps, abs=1)
        spans = [1 / (1 - run.loop.ema_decay) / run.loop.train_steps for run in (one, other)]
        assert spans[1] == pytest.approx(spans[0], rel=0.02)


def test_it_ends_with_the_line_that_opens_the_studio_on_its_run():
    words = shlex.split(opens(Path("runs/a b")))
    names, command = find(COMMANDS, words[1:])
    args = parse(names, command, words[1 + len(names) :])
    assert (args.runs, args.data) == ((Path("runs/a b"),), (Path("runs/a b/data"),))
    assert args.model == Path("runs/a b/diffusion/model")


def test_no_steps_are_refused(capsys):
    assert main(["demo", "--steps", "0"]) == 2
    assert "steps" in "".join(capsys.readouterr())
