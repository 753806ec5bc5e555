"""Preparing that is killed, on a disk that is full, of files that change: nothing is lost or doubled, and each tells one line."""

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from test_prepare import film, made, scene

from video_gen.data.check import check
from video_gen.data.config import ClipConfig
from video_gen.data.prepare.preparing import prepare
from video_gen.data.prepare.settings import PrepareConfig
from video_gen.data.prepare.workers import Workers
from video_gen.errors import DataError

resource = pytest.importorskip("resource")
KILLED = """
import os, signal, sys
from pathlib import Path
from video_gen.data.prepare.preparing import prepare
from video_gen.data.prepare.settings import PrepareConfig
from video_gen.data.prepare.workers import Workers

def tell(what, done, total):
    if [what, str(done)] == sys.argv[4:]:
        os.kill(os.getpid(), signal.SIGKILL)

pile, output, form = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
prepare(pile, output, PrepareConfig(format=form), Workers(1), tell)
"""


@pytest.fixture(scope="module")
def pile(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pile")
    for number in range(3):
        film(folder / f"{number}.mp4", scene(number), scene(number + 1, speed=2.0))
    return folder


@contextmanager
def small_files_only(most):
    """No file may grow beyond so many bytes: as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def everything(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize("form", ["files", "shards"])
def test_what_was_killed_at_any_moment_goes_on_as_if_it_had_not_been(pile, tmp_path, form):
    whole = made(pile, tmp_path / "whole", format=form)
    for what in ("looking", "writing", *(["packing"] if form == "shards" else [])):
        words = [str(pile), str(tmp_path / "killed"), form, what, "1"]
        found = subprocess.run([sys.executable, "-c", KILLED, *words], capture_output=True)
        assert found.returncode == -signal.SIGKILL, found.stderr
    left = tmp_path / "killed" / "clips" / f".{'0' * 32}.mp4"  # as a process leaves it that dies while it writes
    left.parent.mkdir(exist_ok=True)
    left.write_bytes(b"half")
    again = made(pile, tmp_path / "killed", format=form)
    assert again.rows == whole.rows and len(again.kept) == 6
    assert everything(tmp_path / "killed") == everything(tmp_path / "whole")


@pytest.mark.parametrize("form, most", [("files", 1_000), ("files", 40_000), ("shards", 40_000), ("shards", 100_000)])
def test_a_full_disk_is_one_line_and_no_half_file(pile, tmp_path, form, most):
    """Files of at most so many bytes stand for it: facts are small, clips and shards are larger."""
    with small_files_only(most), pytest.raises(DataError, match="cannot be written: it would be larger") as told:
        made(pile, tmp_path / "set", format=form)
    assert "\n" not in str(told.value) and str(tmp_path / "set") in str(told.value)
    assert all(len(content) < most for content in everything(tmp_path / "set").values())
    assert not any((tmp_path / "set").rglob(f".{'[0-9a-f]' * 32}*"))
    whole = made(pile, tmp_path / "whole", format=form)
    assert made(pile, tmp_path / "set", format=form).rows == whole.rows
    assert everything(tmp_path / "set") == everything(tmp_path / "whole")


def test_a_file_that_changes_while_it_is_prepared_is_named_and_prepared_next_time(tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    film(own / "a.mp4", scene(0))
    film(own / "b.mp4", scene(1))
    film(tmp_path / "new.mp4", scene(2))

    def changes(what, done, total):
        if (what, done) == ("looking", total):
            os.replace(tmp_path / "new.mp4", own / "b.mp4")

    first = prepare(own, tmp_path / "set", PrepareConfig(), Workers(1), changes)
    said = {row.source: row.refused for row in first.rows}
    assert said["a.mp4"] == "" and said["b.mp4"].startswith("unreadable: ") and "changed while it was" in said["b.mp4"]
    assert [row.source for row in made(own, tmp_path / "set").kept] == ["a.mp4", "b.mp4"]


def test_a_file_that_goes_while_it_is_prepared_is_named(tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    film(own / "a.mp4", scene(0))
    film(own / "b.mp4", scene(1))

    def goes(what, done, total):
        (own / "b.mp4").unlink(missing_ok=True)

    rows = prepare(own, tmp_path / "set", PrepareConfig(), Workers(1), goes).rows
    assert [row.refused.partition(":")[0] for row in rows] == ["", "unreadable"]


@pytest.mark.parametrize("form", ["files", "shards"])
def test_what_was_cut_short_afterwards_is_found_by_the_check_and_made_again(pile, tmp_path, form):
    whole = made(pile, tmp_path / "set", format=form)
    last = whole.kept[-1]
    file = tmp_path / "set" / (last.shard or last.file_name)
    content = file.read_bytes()
    file.write_bytes(content[: last.offset + 100])
    config = ClipConfig(folder=tmp_path / "set", num_frames=9, fps=12, height=48, width=48)
    found = check(config).problems["unreadable"]
    assert [name for name, _ in found] == [last.file_name] and "prepare it again" in found[0][1]
    again = made(pile, tmp_path / "set", format=form)
    assert len(again.kept) == len(whole.kept) and not check(config).problems["unreadable"]
    assert [row.digest for row in again.kept] == [row.digest for row in whole.kept]
    if form == "shards":  # those that were whole stay where they are, the other one is in a new shard
        assert [row == old for row, old in zip(again.kept, whole.kept)] == [True] * 5 + [False]


def test_a_shard_that_is_gone_is_named(pile, tmp_path):
    rows = made(pile, tmp_path / "set", format="shards").kept
    (tmp_path / "set" / rows[0].shard).unlink()
    found = check(ClipConfig(folder=tmp_path / "set", num_frames=9, fps=12, height=48, width=48)).problems["unreadable"]
    assert len(found) == len(rows) and "is not there" in found[0][1]


def test_captions_of_a_captioner_that_was_killed_are_kept_but_for_the_line_it_was_at(pile, tmp_path):
    asked: list[str] = []

    def caption(path):
        asked.append(str(path))
        return f"clip {len(asked)}"

    config = PrepareConfig()
    first = prepare(pile, tmp_path / "set", config, Workers(1), caption=caption)
    store = tmp_path / "set" / "captions.jsonl"
    lines = store.read_text().rstrip("\n").split("\n")
    store.write_text("\n".join(lines)[:-7])
    again = prepare(pile, tmp_path / "set", config, Workers(1), caption=caption)
    assert len(asked) == len(first.kept) + 1
    assert [row.caption for row in again.kept[:-1]] == [row.caption for row in first.kept[:-1]]
    assert again.kept[-1] == replace(first.kept[-1], caption=f"clip {len(asked)}")

    def another(path):
        return "by another one"

    other = prepare(pile, tmp_path / "set", config, Workers(1), caption=another)
    assert {row.caption for row in other.kept} == {"by another one"}
    assert prepare(pile, tmp_path / "set", config, Workers(1), caption=caption).kept == again.kept


def test_two_at_once_are_refused(pile, tmp_path):
    made(pile, tmp_path / "set")
    holds = "import sys; from pathlib import Path; from video_gen.data.prepare.preparing import _alone\n"
    holds += "with _alone(Path(sys.argv[1])): print('mine', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", holds, str(tmp_path / "set")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline() == b"mine\n"
        with pytest.raises(DataError, match="another process prepares it"):
            made(pile, tmp_path / "set")
    assert made(pile, tmp_path / "set").read == 0


@pytest.mark.slow
def test_a_node_that_is_lost_costs_nothing(pile, tmp_path):
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    whole = made(pile, tmp_path / "whole")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    node = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()

    def loses(what, done, total):
        if (what, done) == ("looking", 1):
            cluster.remove_node(node, allow_graceful=False)

    try:
        rows = prepare(pile, tmp_path / "lost", PrepareConfig(), Workers(ray=cluster.address), loses).rows
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert rows == whole.rows and everything(tmp_path / "lost") == everything(tmp_path / "whole")
