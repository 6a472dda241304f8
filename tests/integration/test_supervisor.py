"""The process manager keeps parts alive, leaves nothing behind and finds what a killed manager left."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from pipelines.stack.launch import Launch
from pipelines.stack.supervisor import Supervisor

# A part with a child of its own: the two must end together.
CHILD = "import time; time.sleep(300)"
PARENT = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', '{CHILD}']); time.sleep(300)"


def wait(condition: Callable[[], bool], timeout_s: float = 15) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.05)


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    one = Supervisor(tmp_path)
    one.start({"part": Launch((sys.executable, "-c", PARENT)), "other": Launch((sys.executable, "-c", PARENT))})
    one.start_part("part")
    wait(lambda: state(one) == "RUNNING" and bool(psutil.Process(pid(one)).children()))
    yield one
    one.shutdown()


def state(supervisor: Supervisor) -> str:
    return supervisor.processes()["part"].state


def pid(supervisor: Supervisor) -> int:
    return supervisor.processes()["part"].pid


def test_a_killed_part_comes_back_by_itself(supervisor: Supervisor) -> None:
    before = pid(supervisor)
    supervisor.kill_part("part", stay_down=False)
    wait(lambda: state(supervisor) == "RUNNING" and pid(supervisor) != before)
    assert not psutil.pid_exists(before)


def test_a_part_killed_to_stay_down_stays_down_until_it_is_started(supervisor: Supervisor) -> None:
    before = pid(supervisor)
    supervisor.kill_part("part", stay_down=True)
    time.sleep(2.5)
    assert state(supervisor) == "STOPPED"
    supervisor.start_part("part")
    wait(lambda: state(supervisor) == "RUNNING" and pid(supervisor) != before)


def test_shutdown_ends_children_too(supervisor: Supervisor) -> None:
    family = [psutil.Process(pid(supervisor)), *psutil.Process(pid(supervisor)).children(recursive=True)]
    assert len(family) == 2
    supervisor.shutdown()
    assert not supervisor.alive
    assert not [process for process in family if process.is_running()]
    assert supervisor.processes() == {}


def test_what_a_killed_manager_left_is_found_and_ended_and_nothing_else(supervisor: Supervisor) -> None:
    part = psutil.Process(pid(supervisor))
    os.kill(int((supervisor.run / "supervisord.pid").read_text()), signal.SIGKILL)
    wait(lambda: not supervisor.alive)
    assert part.is_running()
    assert Supervisor(supervisor.home / "elsewhere").end_orphans() == 0
    assert supervisor.end_orphans() == 2
    assert not part.is_running()


def test_the_same_programs_keep_the_running_manager_and_others_replace_it(supervisor: Supervisor) -> None:
    launch = Launch((sys.executable, "-c", PARENT))
    assert not supervisor.start({"part": launch, "other": launch})
    assert state(supervisor) == "RUNNING"
    assert supervisor.start({"part": launch})
    assert supervisor.processes().keys() == {"part"}
