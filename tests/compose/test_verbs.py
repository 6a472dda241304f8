"""The verbs of STACK=compose on a real engine and a project of three tiny services."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from pipelines.stack.compose.tools import HERE
from settings import ROOT

PROJECT = """
services:
  redis:
    image: redis:7-alpine
    restart: unless-stopped
    depends_on: {job: {condition: service_completed_successfully}}
    ports: ["127.0.0.1:${MINI_REDIS_PORT:-28093}:6379"]
    healthcheck: {test: ["CMD", "redis-cli", "ping"], interval: 1s, retries: 3}
  job:
    image: redis:7-alpine
    command: ["true"]
  tools:
    image: ${MINI_TOOLS:-python:3.11-slim}
    profiles: [tools]
"""
Verb = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def verb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Verb]:
    folder = tmp_path_factory.mktemp("project")
    (folder / "docker-compose.yml").write_text(PROJECT)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    outside = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}  # as from a terminal
    environment = {**outside, "COMPOSE_FILE": str(folder / "docker-compose.yml"), "MINI_REDIS_PORT": port,
                   "COMPOSE_PROJECT_NAME": f"mini-test-{os.getpid()}"}  # fmt: skip

    def run(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["make", *arguments, "STACK=compose"], cwd=ROOT, env=environment | settings,
                              capture_output=True, text=True, timeout=120, check=False)  # fmt: skip

    yield run
    subprocess.run(["docker", "compose", "down", "-v", "-t", "2"], env=environment, check=False, capture_output=True)


def wait_for(look: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < deadline
        time.sleep(0.3)


def test_the_life_of_a_project(verb: Verb) -> None:
    before = verb("status")
    assert before.returncode == 2
    assert "down" in before.stdout
    assert "does not run" in verb("walk").stderr

    begun = verb("demo")
    assert begun.returncode == 0, begun.stdout + begun.stderr
    shown = {row["name"]: row for row in json.loads(verb("status", "JSON=1").stdout)}
    assert (shown["redis"]["state"], shown["redis"]["healthy"]) == ("ready", True)
    assert shown["redis"]["memory_mib"] > 0
    assert shown["job"]["state"] == "done"
    assert json.loads(verb("urls", "JSON=1").stdout)["redis"].startswith("127.0.0.1:")
    assert "Ready to accept connections" in verb("logs", "S=redis").stdout
    assert "there are: job, redis" in verb("logs", "S=nothing").stderr

    assert "killed" in verb("kill", "S=redis").stdout
    killed = verb("status")
    assert killed.returncode == 2
    assert "exited (137)" in killed.stdout
    assert verb("start", "S=redis").returncode == 0
    wait_for(lambda: verb("status").returncode == 0)

    assert "YES=1" in verb("reset").stderr
    assert verb("down").returncode == 0
    assert "does not run" in verb("urls").stderr


def test_a_port_in_use_is_said_before_anything_starts(verb: Verb) -> None:
    assert verb("down").returncode == 0
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        refused = verb("demo", MINI_REDIS_PORT=port)
        assert refused.returncode == 2
        assert f"port {port} is in use" in refused.stderr
        assert f"port {port} is in use" in verb("doctor", MINI_REDIS_PORT=port).stdout
    assert verb("demo", MINI_REDIS_PORT=port).returncode == 0


def test_a_program_inside_ends_with_its_own_code_and_its_files_come_home(verb: Verb) -> None:
    assert verb("demo").returncode == 0
    program = "import os, pathlib; d = pathlib.Path(os.environ['MINIMART_OUTPUT']); d.mkdir(); "
    program += f"(d / 'test-{os.getpid()}').write_text('42'); raise SystemExit(3)"
    assert "docker compose build tools" in verb("walk", MINI_TOOLS="not-there:1").stderr
    inside = verb("--eval", f'inside-test: ; @$(PLATFORM) -c "{program}"', "inside-test")
    home = HERE / f"test-{os.getpid()}"
    try:
        assert "Error 3" in inside.stderr
        assert f"on this machine: {home}" in inside.stderr
        assert home.read_text() == "42"
    finally:
        home.unlink(missing_ok=True)
