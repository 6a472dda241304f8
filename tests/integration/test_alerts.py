"""The right alert fires and clears, and no other: a real Prometheus and Alertmanager watch a part that goes away.

The monitor writes down what happened.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    monitor: str
    incidents: Path

    def health(self) -> set[str]:
        data = httpx.get(f"{self.prometheus}/api/v1/targets").json()["data"]
        return {target["health"] for target in data["activeTargets"]}

    def alerts(self) -> set[str]:
        """What Alertmanager would call a person for."""
        return {alert["labels"]["alertname"] for alert in httpx.get(f"{self.alertmanager}/api/v2/alerts").json()}

    def told(self) -> list[dict[str, Any]]:
        """The incidents that the monitor has written."""
        return list(httpx.get(f"{self.monitor}/v1/incidents").json()["incidents"])


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Watch]:
    prometheus, alertmanager, part, monitor = free_ports(4)
    home = tmp_path / "home"
    own = {"MINIMART_HOME": home, "MINIMART_MONITOR_PORT": monitor, "MINIMART_PROMETHEUS_PORT": prometheus}
    writing = Launch(
        (sys.executable, "-m", "services.monitor"),
        {"MINIMART_PORT_OFFSET": "0"} | {key: str(value) for key, value in own.items()},
    )
    try:
        alerting = prometheus_server.launch_alertmanager(
            tmp_path / "alertmanager", host=HOST, port=alertmanager, monitor=f"http://{HOST}:{monitor}"
        )
        watching = prometheus_server.launch(
            tmp_path / "prometheus", host=HOST, port=prometheus, alertmanager=f"{HOST}:{alertmanager}",
            targets=[("part", f"{HOST}:{part}", "/metrics"), ("monitor", f"{HOST}:{monitor}", "/metrics")],
            interval="1s",
        )  # fmt: skip
    except CannotRun as reason:
        pytest.skip(reason.detail)
    with (
        running(alerting, log=tmp_path / "alertmanager.log", ready=lambda: ready(alertmanager)),
        running(watching, log=tmp_path / "prometheus.log", ready=lambda: ready(prometheus)),
        running(writing, log=tmp_path / "monitor.log", ready=lambda: port_open(HOST, monitor)),
    ):
        yield Watch(
            f"http://{HOST}:{prometheus}", f"http://{HOST}:{alertmanager}", part, f"http://{HOST}:{monitor}",
            home / "incidents",
        )  # fmt: skip


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
    until(lambda: [one["state"] for one in watch.told()] == ["open"], 60)
    (told,) = watch.told()
    assert told["title"] == "PartDown: part"
    page = (watch.incidents / f"{told['id']}.md").read_text()
    assert "docs/runbooks/PartDown.md" in page
    assert "| parts that do not answer | 1 |" in page
    with part_at(watch.part_port, tmp_path):
        until(lambda: watch.alerts() == set(), 60)
        until(lambda: [one["state"] for one in watch.told()] == ["closed"], 90)
    assert "ended: the alert cleared" in (watch.incidents / f"{told['id']}.md").read_text()
