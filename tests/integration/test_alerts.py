"""The right alert fires and clears, and no other: a real Prometheus and Alertmanager watch a part that goes away."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from adapters.web import side_server
from pipelines.stack import prometheus_server
from pipelines.stack.launch import CannotRun, free_ports, running

HOST = "127.0.0.1"


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


def test_a_part_that_goes_away_is_called_out_and_the_alert_clears_when_it_is_back(watch: Watch) -> None:
    server = side_server("part", watch.part_port, dict)
    until(lambda: watch.health() == {"up"}, 20)
    assert watch.alerts() == set()
    server.close()
    until(lambda: watch.alerts() == {"PartDown"}, 60)
    server = side_server("part", watch.part_port, dict)
    try:
        until(lambda: watch.alerts() == set(), 60)
    finally:
        server.close()
