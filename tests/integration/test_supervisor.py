"""The process manager keeps parts alive, leaves nothing behind and finds what a killed manager left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from pipelines.stack import redis_server
from pipelines.stack.launch import Launch, free_ports, running
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


def test_a_bystander_in_the_managers_session_or_with_another_redis_survives(supervisor: Supervisor) -> None:
    """Only the mark and a part's own folder make a process ours: not its session, its parent or its program."""
    (port,) = free_ports(1)
    elsewhere = supervisor.home.parent / f"{supervisor.home.name}-bystander"
    launch = redis_server.launch(elsewhere, host="127.0.0.1", port=port)
    session = int((supervisor.run / "supervisord.pid").read_text())
    assert os.getsid(pid(supervisor)) == session
    bystander = subprocess.Popen([sys.executable, "-c", CHILD])
    try:
        with running(launch, log=elsewhere / "redis.log", ready=lambda: redis_server.ready("127.0.0.1", port)):
            (supervisor.run / "supervisord.pid").write_text(str(os.getsid(0)))
            supervisor.shutdown()
            assert bystander.poll() is None
            assert redis_server.ready("127.0.0.1", port)
    finally:
        bystander.kill()
        bystander.wait()
