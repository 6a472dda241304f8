"""The composed platform is watched: panels show data, a stopped part becomes an incident, MLflow comes back whole."""

from __future__ import annotations

import math
import subprocess
import sys
import time
from typing import Any

import httpx
import pytest

from adapters.analytics import Analytics
from pipelines.dashboards.contents import DASHBOARDS
from pipelines.stack.compose.engine import ask, compose
from settings import ROOT
from tests.compose import composed
from tests.grafana import with_macros

ALERT_S = 180.0


@pytest.fixture(autouse=True)
def it_runs() -> None:
    if not composed.containers("balancer"):
        pytest.skip("the composed platform does not run: make test-compose starts it")


@pytest.fixture
def store() -> Analytics:
    password = ask(compose("exec", "-T", "clickhouse", "cat", "/run/secrets/minimart_clickhouse_password")).strip()
    return Analytics(composed.address("clickhouse"), user="minimart", password=password, database="minimart")


def finite(url: str, query: str) -> int:
    answer = httpx.get(f"{url}/api/v1/query", params={"query": query}, timeout=10, trust_env=False)
    assert answer.status_code == 200, f"{query}: {answer.text}"
    return sum(math.isfinite(float(one["value"][1])) for one in answer.json()["data"]["result"])


def test_every_panel_shows_data_after_some_feeds(store: Analytics) -> None:
    with httpx.Client(timeout=10, trust_env=False) as client:
        for number in range(40):
            composed.feed(client, composed.address("balancer"), f"u{number:06d}")
    prometheus = composed.address("prometheus")

    def empty() -> list[str]:
        now = time.time()
        out = []
        for board in DASHBOARDS:
            for panel in board.panels:
                queries = [query for _, query in panel.queries]
                if panel.source == "prometheus":
                    shown = any(finite(prometheus, query) for query in queries)
                else:
                    shown = any(store.query(with_macros(query, now - 6 * 3600, now + 60)) for query in queries)
                out += [] if shown or panel.quiet else [f"{board.uid}: {panel.title}"]
        return out

    deadline = time.monotonic() + 120
    while (found := empty()) and time.monotonic() < deadline:
        time.sleep(3)
    assert found == []


def test_a_part_that_is_killed_becomes_an_incident_and_it_ends_when_the_part_is_back() -> None:
    monitor = composed.address("monitor")

    def told(state: str) -> list[dict[str, Any]]:
        found = httpx.get(f"{monitor}/v1/incidents", params={"state": state}, timeout=10, trust_env=False).json()
        return [one for one in found["incidents"] if one["title"] == "PartGone: shop"]

    closed_before = len(told("closed"))
    ask(compose("stop", "shop"))
    try:
        composed.wait_for("an open incident", lambda: bool(told("open")), ALERT_S)
    finally:
        ask(compose("start", "shop"))
    composed.wait_for("the incident's end", lambda: len(told("closed")) > closed_before, ALERT_S)


def test_mlflows_store_is_saved_destroyed_and_restored() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.backup", "drill", "--stack", "compose"],
        cwd=ROOT, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.stdout.rstrip().endswith("PASS"), done.stdout + done.stderr
