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

from pipelines.stack import redis_server
from pipelines.stack.launch import Launch, free_ports
from pipelines.stack.supervisor import Supervisor, _ours

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


def lives(process: psutil.Process) -> bool:
    """Running, and not just waiting for its parent to look."""
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def pid(supervisor: Supervisor) -> int:
    return supervisor.processes()["part"].pid


def test_a_killed_part_comes_back_by_itself(supervisor: Supervisor) -> None:
    before = pid(supervisor)
    supervisor.kill_part("part", stay_down=False)
    wait(lambda: state(supervisor) == "RUNNING" and pid(supervisor) != before)


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
    assert not [process for process in family if lives(process)]
    assert supervisor.processes() == {}


def test_what_a_killed_manager_left_is_found_and_ended_and_nothing_else(supervisor: Supervisor) -> None:
    part = psutil.Process(pid(supervisor))
    os.kill(int((supervisor.run / "supervisord.pid").read_text()), signal.SIGKILL)
    wait(lambda: not supervisor.alive)
    assert lives(part)
    assert Supervisor(supervisor.home / "elsewhere").end_orphans() == 0
    assert supervisor.end_orphans() == 2
    assert not lives(part)


def test_the_same_programs_keep_the_running_manager_and_others_replace_it(supervisor: Supervisor) -> None:
    launch = Launch((sys.executable, "-c", PARENT))
    assert not supervisor.start({"part": launch, "other": launch})
    assert state(supervisor) == "RUNNING"
    assert supervisor.start({"part": launch})
    assert supervisor.processes().keys() == {"part"}


def test_a_part_that_hides_its_environment_is_found_too(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    one = Supervisor(tmp_path)
    one.start({"redis": redis_server.launch(tmp_path / "redis", host="127.0.0.1", port=port)})
    one.start_part("redis")
    try:
        wait(lambda: redis_server.ready("127.0.0.1", port))
        os.kill(int((one.run / "supervisord.pid").read_text()), signal.SIGKILL)
        wait(lambda: not one.alive)
        assert one.end_orphans() == 1
        assert not redis_server.ready("127.0.0.1", port)
    finally:
        one.shutdown()


def test_strangers_are_never_taken_for_ours(tmp_path: Path) -> None:
    """Not the kernel's session, not a living session whose number stands in an old file, not an older process."""
    one = Supervisor(tmp_path)
    assert list(_ours(tmp_path, 0, 0.0)) == []
    assert list(_ours(tmp_path, os.getsid(0), time.time() + 60)) == []
    one.run.mkdir()
    (one.run / "supervisord.pid").write_text(str(os.getpid()))
    assert one._last_session() == (0, 0.0)
    (one.run / "supervisord.pid").write_text("not a number")
    assert one._last_session() == (0, 0.0)
