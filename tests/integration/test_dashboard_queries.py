"""The SQL of every ClickHouse panel on ClickHouse's engine, in a small world in which all things happened."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from adapters.analytics import Analytics
from adapters.analytics_schema import migrate
from pipelines.dashboards.contents import DASHBOARDS
from pipelines.dashboards.panels import Panel
from services.analytics.rollup import Hours
from tests.grafana import with_macros
from tests.integration.test_analytics_queries import T0, fill

PANELS = {f"{board.uid}: {panel.title}": panel
          for board in DASHBOARDS for panel in board.panels if panel.source == "clickhouse"}  # fmt: skip


@pytest.fixture(scope="module")
def store(clickhouse_url: str) -> Iterator[Analytics]:
    store = Analytics(clickhouse_url, database="dashboards")
    migrate(store)
    fill(store)
    Hours(store).compute()
    yield store
    store.execute("DROP DATABASE dashboards SYNC")
    store.close()


def rows(store: Analytics, panel: Panel, since_s: float = T0 / 1000 - 3600) -> list[dict[str, object]]:
    (query,) = [query for _, query in panel.queries]
    return store.query(with_macros(query, since_s, since_s + 7200))


@pytest.mark.parametrize("name", list(PANELS))
def test_a_panel_shows_what_happened_in_its_time_and_nothing_else(store: Analytics, name: str) -> None:
    assert rows(store, PANELS[name])
    later = rows(store, PANELS[name], T0 / 1000 + 10 * 3600)
    assert not [row for row in later if row.get("rows", 1)], "rows of another time"
    if PANELS[name].kind == "timeseries":
        assert all("time" in row for row in rows(store, PANELS[name]))


def test_a_batch_that_was_written_twice_is_counted_once(store: Analytics) -> None:
    counted = rows(store, PANELS["minimart-events: Rows by table, in the time shown"])
    by_table = {row["name"]: row["rows"] for row in counted}
    assert by_table == {"decisions": 5, "impressions": 5, "clicks": 3, "carts": 0, "orders": 1}


def test_the_canarys_click_through_is_its_own(store: Analytics) -> None:
    arms = {row["arm"]: row for row in rows(store, PANELS["minimart-models: Click-through by arm"])}
    assert (arms["canary"]["shown"], arms["canary"]["clicks"], arms["canary"]["ctr"]) == (4, 1, 0.25)
