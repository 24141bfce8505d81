"""Processes side by side: each on cores of its own, and none outlives what started it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from components.shared.errors import UserError
from components.shared.training.side_by_side import cores, side_by_side
from tests.helpers.repository import ROOT
from tests.helpers.waiting import until

pytestmark = pytest.mark.skipif(len(cores()) < 2, reason="needs two cores")


def own_cores(number, folder):
    (folder / str(os.getpid())).touch()
    # until the other one is there as well
    while len(list(folder.iterdir())) < 2:
        time.sleep(0.05)
    return number, os.getpid(), cores()


def refuse(number):
    if number == 1:
        raise UserError("data: 0 images; add some")
    time.sleep(600)


def killed(number):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_each_process_keeps_to_cores_of_its_own(tmp_path):
    with side_by_side(1, 2) as pool:
        found = list(pool.map(own_cores, range(4), [tmp_path] * 4))
    assert [number for number, _, _ in found] == [0, 1, 2, 3]
    of_process = {process: own for _, process, own in found}
    assert len(of_process) == 2 and os.getpid() not in of_process
    one, two = of_process.values()
    assert len(one) == len(two) == 1 and not one & two


@pytest.mark.parametrize(("threads", "most"), [(None, 4), (1, 1), (len(cores()), 4)])
def test_where_nothing_is_gained_there_are_none(threads, most):
    with side_by_side(threads, most) as pool:
        assert pool is None


@pytest.mark.slow
def test_an_error_of_one_ends_the_others():
    with pytest.raises(UserError, match=r"^data: 0 images; add some$"), side_by_side(1, 2) as pool:
        jobs = [pool.submit(refuse, number) for number in range(2)]
        jobs[1].result()
    # the executor's thread may be about to note that it has ended
    until(lambda: multiprocessing.active_children() == [], 60)


@pytest.mark.slow
def test_a_killed_process_is_one_line():
    with pytest.raises(UserError, match="was killed, as a rule for want of memory"), side_by_side(1, 2) as pool:
        pool.submit(killed, 0).result()


@pytest.mark.slow
def test_they_end_when_what_started_them_is_killed():
    program = """
        import os, time
        from components.shared.training.side_by_side import side_by_side

        if __name__ == "__main__":
            with side_by_side(1, 2) as pool:
                print(pool.submit(os.getpid).result(), flush=True)
                time.sleep(600)
    """
    started = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    child = int(started.stdout.readline())
    started.kill()
    started.wait()
    until(lambda: not Path(f"/proc/{child}").exists(), 60)
