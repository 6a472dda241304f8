"""`make <verb> STACK=compose`: what goes wrong with Docker is one clear line with the fix; the table says what runs."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from adapters.errors import Misconfigured
from pipelines.stack.compose import advice, doctor, engine, show, up
from pipelines.stack.compose.engine import Container
from settings import ROOT

INFO = {"MemTotal": 8 << 30, "DockerRootDir": "/", "ServerVersion": "28.0", "OperatingSystem": "test"}
SERVICES: dict[str, dict[str, Any]] = {
    "seed": {}, "recommender": {"restart": "unless-stopped"}, "redis": {"restart": "always"},
    "tools": {"profiles": ["tools"]}, "kafka": {"restart": "unless-stopped"},
}  # fmt: skip


def container(service: str, state: str, **other: Any) -> Container:
    given = {"health": "", "exit_code": 0, "published": (), "number": 1} | other
    name = f"minimart-{service}-{given.pop('number')}"
    return Container(id=name, name=name, service=service, state=state, **given)


def verb(folder: Path, *arguments: str, docker: str | None = None) -> subprocess.CompletedProcess[str]:
    """A verb by a Python without any packages, where `docker` is the script given, or is not installed."""
    if docker is not None:
        (folder / "docker").write_text(f"#!/bin/sh\n{docker}\n")
        (folder / "docker").chmod(0o755)
    return subprocess.run(
        [sys.executable, "-S", "-m", "pipelines.stack.compose", *arguments], cwd=ROOT, capture_output=True, text=True,
        env={**os.environ, "PATH": f"{folder}" if docker is None else f"{folder}:/usr/bin:/bin"}, timeout=30,
    )  # fmt: skip


def fails(text: str) -> str:
    return f"echo '{text}' >&2; exit 1"


@pytest.mark.parametrize("name", ["status", "kill", "down", "demo"])
def test_without_docker_the_line_says_how_to_get_it(tmp_path: Path, name: str) -> None:
    done = verb(tmp_path, name)
    assert done.returncode == 2
    assert done.stderr.startswith("minimart: Docker is not installed: https://docs.docker.com")


@pytest.mark.parametrize(
    ("said", "fix"),
    [
        ("Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?",
         "engine does not run: sudo systemctl start docker"),
        ("docker: unknown command: docker compose", "docker-compose-plugin"),
        ("permission denied while trying to connect to the Docker daemon socket", "usermod -aG docker"),
        ("no configuration file provided: not found", "no docker-compose.yml here"),
    ],
)  # fmt: skip
def test_what_docker_cannot_do_is_one_line_with_the_fix(tmp_path: Path, said: str, fix: str) -> None:
    done = verb(tmp_path, "status", docker=fails(said))
    assert done.returncode == 1
    assert fix in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    "said",
    [
        "Error response from daemon: driver failed programming external connectivity on endpoint minimart-shop-1: "
        "Bind for 127.0.0.1:8080 failed: port is already allocated",
        "listen tcp4 127.0.0.1:8080: bind: address already in use",
        "ports are not available: exposing port TCP 127.0.0.1:8080 -> 0.0.0.0:0: listen tcp 127.0.0.1:8080: bind",
    ],
)
def test_a_port_in_use_names_the_setting_that_moves_it(said: str) -> None:
    names = advice.settings_of_ports('ports: ["127.0.0.1:${MINIMART_SHOP_PORT:-8080}:8080"]')
    assert "port 8080 is in use" in advice.explain(said, names)
    assert "MINIMART_SHOP_PORT" in advice.explain(said, names)


def test_a_full_disk_and_what_is_not_known() -> None:
    full = advice.explain("failed to solve: write /x: no space left on device")
    assert "disk is full" in full
    assert "docker builder prune" in full
    assert advice.explain("one\n\ntwo\n") == "one\ntwo"
    assert advice.explain("")


def test_too_little_memory_and_disk_are_seen_before_anything_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "check", lambda: {**INFO, "MemTotal": 3 << 30})
    monkeypatch.setattr(doctor, "ask", lambda command: "2.40")
    monkeypatch.setattr(doctor, "ports", lambda: iter(()))
    monkeypatch.setattr(doctor, "DISK_NEEDED", 1 << 60)
    with pytest.raises(Misconfigured) as error:
        doctor.require()
    memory, disk = error.value.detail.splitlines()
    assert "too little memory: Docker has 3.0 GiB" in memory
    assert "disk is nearly full" in disk


def test_a_port_of_another_program_is_seen_and_one_of_ours_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        services = {"shop": {"ports": [{"published": str(port), "host_ip": "127.0.0.1"}]}}
        monkeypatch.setattr(engine, "model", lambda: services)
        monkeypatch.setattr(engine, "settings_of_ports", lambda: {port: "MINIMART_SHOP_PORT"})
        monkeypatch.setattr(engine, "containers", list)
        assert [one.fix for one in doctor.ports() if "MINIMART_SHOP_PORT" in one.fix]
        ours = container("shop", "running", published=(("127.0.0.1", port, 8080),))
        monkeypatch.setattr(engine, "containers", lambda: [ours])
        assert not any(one.fix for one in doctor.ports())


def test_the_table_says_state_health_memory_and_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "last_check", lambda one: "connection refused")
    found = [
        container("seed", "exited"),
        container("recommender", "running", health="healthy", published=(("127.0.0.1", 8082, 8082),)),
        container("recommender", "running", health="unhealthy", number=2),
        container("redis", "exited", exit_code=137),
    ]
    shown = show.rows(SERVICES, found, {"minimart-recommender-1": 210})
    by_name = {row.name: row for row in shown}
    assert set(by_name) == {"seed", "recommender-1", "recommender-2", "redis", "kafka"}
    assert (by_name["seed"].state, by_name["seed"].healthy) == ("done", True)
    assert by_name["recommender-1"].address == "http://127.0.0.1:8082/docs"
    assert by_name["recommender-1"].healthy
    assert (by_name["recommender-2"].state, by_name["recommender-2"].reason) == ("not ready", "connection refused")
    assert (by_name["redis"].state, by_name["redis"].healthy) == ("exited (137)", False)
    assert (by_name["kafka"].state, by_name["kafka"].healthy) == ("down", False)
    text = show.table(shown)
    assert "210 MiB" in text
    assert "seed" not in text
    assert "jobs done: 1" in show.total(shown)
    assert json.loads(show.as_json(shown))[0]["name"]


@pytest.mark.parametrize(
    ("state", "health", "code", "failed"),
    [("exited", "", 2, True), ("exited", "", 0, False), ("running", "unhealthy", 0, True), ("running", "", 0, False)],
)
def test_which_containers_failed(state: str, health: str, code: int, failed: bool) -> None:
    assert up.is_failed(container("x", state, health=health, exit_code=code)) is failed


def test_containers_are_read_in_both_forms_of_compose(monkeypatch: pytest.MonkeyPatch) -> None:
    port = {"URL": "127.0.0.1", "TargetPort": 6379, "PublishedPort": 8093, "Protocol": "tcp"}
    row = {"ID": "a", "Name": "m-redis-1", "Service": "redis", "State": "running", "Health": "healthy", "ExitCode": 0,
           "Publishers": [port]}  # fmt: skip
    for said in (json.dumps([row, row]), f"{json.dumps(row)}\n{json.dumps(row)}\n", ""):
        monkeypatch.setattr(engine, "ask", lambda command, said=said: said)
        found = engine.containers()
        assert len(found) == (2 if said else 0)
        assert all(one.published == (("127.0.0.1", 8093, 6379),) and one.number == "1" for one in found)


def test_memory_is_in_mib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "ask", lambda command: "aaaaaaaaaaaa 1.5GiB / 8GiB\nbbbbbbbbbbbb 512KiB / 8GiB\n")
    assert engine.memory_mib(["aaaaaaaaaaaa99", "bbbbbbbbbbbb99"]) == {"aaaaaaaaaaaa99": 1536, "bbbbbbbbbbbb99": 0}
    assert engine.memory_mib([]) == {}


def test_every_verb_of_the_front_door_goes_inside(tmp_path: Path) -> None:
    for goal in ("walk", "load", "replay-dead-letters", "evaluate"):
        done = subprocess.run(
            ["make", "--no-print-directory", "--dry-run", goal, "STACK=compose"],
            cwd=ROOT, capture_output=True, text=True, timeout=30,
        )  # fmt: skip
        assert done.stdout.startswith("pipelines/stack/compose/inside -m "), done.stdout + done.stderr
    unknown = subprocess.run(["make", "status", "STACK=swarm"], cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert "native or compose" in unknown.stderr


DRILLING = """
echo "step=${MINIMART_ROLLOUT_STEP_S:-own} $*" >> FOLDER/asked
case "$*" in
*" ps "*) echo '{"ID":"1","Name":"minimart-recommender-1","Service":"recommender","State":"running"}'
          echo '{"ID":"2","Name":"minimart-recommender-2","Service":"recommender","State":"running"}' ;;
*" config "*) echo '{"services": {"tools": {"image": "tools:1"}}}' ;;
*images*) echo 3 ;;
*--settings*) echo 'starting'; echo '{"controller": {"MINIMART_ROLLOUT_STEP_S": "5"}, "recommender": {}}' ;;
*" run "*) exit 3 ;;
esac
"""


def test_a_drill_sets_the_pace_of_controller_and_recommender_and_puts_it_back(tmp_path: Path) -> None:
    done = verb(tmp_path, "python", "-m", "pipelines.drills", "drift", docker=DRILLING.replace("FOLDER", str(tmp_path)))
    assert done.returncode == 3, done.stderr
    asked = (tmp_path / "asked").read_text().splitlines()
    ups = [(line.split()[0], line.split()[-1], "recommender=2" in line) for line in asked if " up " in line]
    assert ups == [("step=5", "controller", False), ("step=own", "recommender", True),
                   ("step=own", "controller", False), ("step=own", "recommender", True)]  # fmt: skip
    (drill,) = [n for n, line in enumerate(asked) if " run " in line and "--settings" not in line]
    assert sum(" up " in line for line in asked[:drill]) == 2, "first the pace, then the drill"


def test_a_part_that_does_not_come_back_keeps_no_other_from_its_settings(tmp_path: Path) -> None:
    broken = DRILLING.replace("esac", '*" up "*controller) [ -n "$MINIMART_ROLLOUT_STEP_S" ] || exit 9 ;;\nesac')
    done = verb(tmp_path, "python", "-m", "pipelines.drills", "drift", docker=broken.replace("FOLDER", str(tmp_path)))
    assert done.returncode not in (0, 3)
    assert "controller did not come back" in done.stderr
    last = (tmp_path / "asked").read_text().splitlines()[-1]
    assert last.startswith("step=own")
    assert last.endswith(" recommender")


def test_other_programs_change_no_container(tmp_path: Path) -> None:
    done = verb(tmp_path, "python", "-m", "pipelines.walk", docker=DRILLING.replace("FOLDER", str(tmp_path)))
    assert done.returncode == 3, done.stderr
    assert " up " not in (tmp_path / "asked").read_text()
