"""The right alert fires and clears, and no other: a real Prometheus and Alertmanager watch a part that goes away."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from pipelines.stack import prometheus_server
from pipelines.stack.launch import CannotRun, Launch, free_ports, port_open, running

HOST = "127.0.0.1"
PART = """
import sys, time
from adapters.web import side_server
side_server("part", int(sys.argv[1]), dict)
time.sleep(600)
"""


@dataclass(frozen=True)
class Watch:
    """The addresses of Prometheus and Alertmanager, and the port of the part that they watch."""

    prometheus: str
    alertmanager: str
    part_port: int

    def health(self) -> set[str]:
        data = httpx.get(f"{self.prometheus}/api/v1/targets").json()["data"]
        return {target["health"] for target in data["activeTargets"]}

    def alerts(self) -> set[str]:
        """What Alertmanager would call a person for."""
        return {alert["labels"]["alertname"] for alert in httpx.get(f"{self.alertmanager}/api/v2/alerts").json()}


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Watch]:
    prometheus, alertmanager, part = free_ports(3)
    try:
        alerting = prometheus_server.launch_alertmanager(tmp_path / "alertmanager", host=HOST, port=alertmanager)
        watching = prometheus_server.launch(
            tmp_path / "prometheus", host=HOST, port=prometheus, alertmanager=f"{HOST}:{alertmanager}",
            targets=[("part", f"{HOST}:{part}", "/metrics")], interval="1s",
        )  # fmt: skip
    except CannotRun as reason:
        pytest.skip(reason.detail)
    with (
        running(alerting, log=tmp_path / "alertmanager.log", ready=lambda: ready(alertmanager)),
        running(watching, log=tmp_path / "prometheus.log", ready=lambda: ready(prometheus)),
    ):
        yield Watch(f"http://{HOST}:{prometheus}", f"http://{HOST}:{alertmanager}", part)


def ready(port: int) -> bool:
    try:
        return httpx.get(f"http://{HOST}:{port}/-/ready", timeout=1).status_code == 200
    except httpx.HTTPError:
        return False


def until(condition: Callable[[], bool], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.5)


@contextlib.contextmanager
def part_at(port: int, folder: Path) -> Iterator[None]:
    """A part in a process of its own: the metrics of this one hold what earlier tests counted."""
    launch = Launch((sys.executable, "-c", PART, str(port)))
    with running(launch, log=folder / "part.log", ready=lambda: port_open(HOST, port)):
        yield


def test_a_part_that_goes_away_is_called_out_and_the_alert_clears_when_it_is_back(watch: Watch, tmp_path: Path) -> None:
    with part_at(watch.part_port, tmp_path):
        until(lambda: watch.health() == {"up"}, 20)
        assert watch.alerts() == set()
    until(lambda: watch.alerts() == {"PartDown"}, 60)
    with part_at(watch.part_port, tmp_path):
        until(lambda: watch.alerts() == set(), 60)
