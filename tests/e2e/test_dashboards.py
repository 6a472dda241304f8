"""Every panel of every dashboard is asked of the running platform, and shows data; and no alert fires on it.

Panels whose `quiet` says that they may rightly be empty must answer without an error all the same.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Iterator
from typing import Any

import pytest

from adapters.analytics import Analytics, open_store
from pipelines.dashboards.contents import DASHBOARDS
from pipelines.dashboards.panels import Panel
from tests.e2e.platform import Platform, wait_for
from tests.grafana import with_macros

SHOPPERS = 40
PANELS = [(board.uid, panel) for board in DASHBOARDS for panel in board.panels]
pytestmark = pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is missing: apt install it")


class Asked:
    """Answers of one panel's queries, from the neighbours that Grafana would ask."""

    def __init__(self, platform: Platform, store: Analytics) -> None:
        self.prometheus = platform.settings.url("prometheus")
        self.http, self.store = platform.http, store

    def numbers(self, panel: Panel) -> list[int]:
        """How many finite values (Prometheus) or rows (ClickHouse) each query of the panel gives."""
        return [self._sql(query) if panel.source == "clickhouse" else self._promql(query) for _, query in panel.queries]

    def _promql(self, query: str) -> int:
        answer = self.http.get(f"{self.prometheus}/api/v1/query", params={"query": query})
        assert answer.status_code == 200, f"{query}: {answer.text}"
        result: list[dict[str, Any]] = answer.json()["data"]["result"]
        return sum(math.isfinite(float(one["value"][1])) for one in result)

    def _sql(self, query: str) -> int:
        now = time.time()
        return len(self.store.query(with_macros(query, now - 6 * 3600, now + 60)))


@pytest.fixture(scope="module")
def asked(platform: Platform) -> Iterator[Asked]:
    """After some feeds, with Prometheus having seen them twice at least."""
    store = open_store(platform.settings)
    for number in range(SHOPPERS):
        platform.recommend(f"u{number:06d}")
    yield Asked(platform, store)
    store.close()


def test_every_panel_shows_data_after_some_feeds(asked: Asked) -> None:
    def empty() -> list[str]:
        return [f"{uid}: {panel.title}" for uid, panel in PANELS if not panel.quiet and not all(asked.numbers(panel))]

    deadline = time.monotonic() + 120
    while (found := empty()) and time.monotonic() < deadline:
        time.sleep(2)
    assert found == []


def test_panels_that_may_be_empty_answer_without_an_error(asked: Asked) -> None:
    for _, panel in PANELS:
        asked.numbers(panel)


def test_on_a_healthy_platform_no_alert_fires_and_no_incident_is_open(platform: Platform) -> None:
    prometheus, monitor = platform.settings.url("prometheus"), platform.settings.url("monitor")

    def firing() -> set[str]:
        answer = platform.http.get(f"{prometheus}/api/v1/query", params={"query": 'ALERTS{alertstate="firing"}'})
        return {one["metric"]["alertname"] for one in answer.json()["data"]["result"]}

    def open_incidents() -> int:
        answer = platform.http.get(f"{monitor}/v1/incidents", params={"state": "open"})
        assert answer.status_code == 200
        return int(answer.json()["total"])

    wait_for("no alert fires", lambda: not firing(), 120, every_s=2)
    wait_for("no incident is open", lambda: not open_incidents(), 120, every_s=2)
