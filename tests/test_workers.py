"""Work on many files: in this process, in several, and on a Ray cluster, where a process that is lost costs nothing."""

import multiprocessing
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from video_gen.data.prepare.workers import Workers
from video_gen.errors import DataError


def squared(number):
    if number < 0:
        raise DataError(f"{number}: is below 0")
    return number**2


def killed_at_first(number, folder):
    mark = folder / str(number)
    if not mark.exists():
        mark.touch()
        os._exit(9)
    return number


def killed(number):
    os._exit(9)


@pytest.fixture(scope="module")
def cluster():
    ray = pytest.importorskip("ray")
    here = {"env_vars": {"PYTHONPATH": str(Path(__file__).parent)}}  # its processes import what is below
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env=here)
    yield "local"
    ray.shutdown()


@pytest.mark.parametrize("count", [1, 2])
def test_all_items_are_done_once(count):
    assert sorted(Workers(count).each(squared, range(9))) == [(n, n**2) for n in range(9)]


def test_an_error_ends_the_work_with_its_line():
    for count in (1, 2):
        with pytest.raises(DataError, match="-1: is below 0"):
            list(Workers(count).each(squared, [1, -1, 2]))


def test_a_cluster_does_the_same(cluster):
    workers = Workers(ray=cluster)
    assert sorted(workers.each(squared, range(40))) == [(n, n**2) for n in range(40)]
    with pytest.raises(DataError, match="-1: is below 0"):
        list(workers.each(squared, [1, -1, 2]))


def test_a_lost_process_of_a_cluster_costs_nothing_and_one_lost_for_ever_is_named(cluster, tmp_path):
    workers = Workers(ray=cluster)
    assert sorted(n for n, _ in workers.each(partial(killed_at_first, folder=tmp_path), range(3))) == [0, 1, 2]
    with pytest.raises(DataError, match=r"7: its node or process was lost 4 times"):
        list(workers.each(killed, [7]))


def slow_first(number):
    time.sleep(0.5 if number == 0 else 0.0)
    return os.getpid()


def test_a_process_that_is_done_takes_what_another_has_not_begun():
    found = dict(Workers(2).each(slow_first, range(20)))
    assert sum(process == found[0] for process in found.values()) < 10


def test_a_killed_process_is_named_with_what_it_was_at():
    with pytest.raises(
        DataError, match="ended with code 9 while at 3: killed, or out of memory; the same command goes on"
    ):
        list(Workers(2).each(killed_at_three, range(6)))


def killed_at_three(number):
    if number == 3:
        os._exit(9)
    return number


@pytest.mark.skipif(
    "forkserver" not in multiprocessing.get_all_start_methods(), reason="processes start from nothing there"
)
def test_processes_have_what_was_imported_already():
    code = (
        "import video_gen.data.prepare.preparing\n"
        "from video_gen.data.processes import in_processes\n"
        "asked = [\"'video_gen.data.prepare.preparing' in __import__('sys').modules\"] * 2\n"
        "print([answer for _, answer in in_processes(eval, asked, 2)])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[True, True]"
