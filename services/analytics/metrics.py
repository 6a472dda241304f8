"""What the consumer shows of itself to Prometheus, besides the lag and the events that every consumer counts."""

from __future__ import annotations

import time
from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from adapters.analytics import Store
from services.analytics.batch import TABLES

_BUCKETS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
ROWS: Final = Counter("minimart_analytics_rows_total", "Rows written into the analytical store", ["table"])
FLUSH_SECONDS: Final = Histogram("minimart_analytics_write_seconds", "Seconds to write one batch", buckets=_BUCKETS)
ROLLUP_SECONDS: Final = Histogram("minimart_analytics_rollup_seconds", "Seconds to compute one hour's statistics",
                                  buckets=_BUCKETS)
DIRTY_HOURS: Final = Gauge("minimart_analytics_dirty_hours", "Hours that were touched since they were computed")
LOST: Final = Counter("minimart_analytics_lost_records_total", "Records that Kafka dropped before they were stored",
                      ["topic"])
FRESHNESS: Final = Gauge("minimart_analytics_freshness_seconds", "Seconds since the newest event in the store",
                         ["table"])
_newest_ms: dict[str, int] = {}

for _table in TABLES:  # from the start, so that the first row is seen as a rise
    ROWS.labels(_table)


def saw(table: str, newest_ms: int) -> None:
    """A table has events up to `newest_ms`; its freshness is shown from then on."""
    first = table not in _newest_ms
    _newest_ms[table] = max(newest_ms, _newest_ms.get(table, 0))
    if first:
        FRESHNESS.labels(table).set_function(lambda: max(0.0, time.time() - _newest_ms[table] / 1000))


def watch_freshness(store: Store) -> None:
    """Show the freshness of what is in the store already."""
    every = " UNION ALL ".join(f"SELECT '{t}' AS name, max(event_ms) AS newest FROM {t}" for t in TABLES)  # noqa: S608
    for row in store.query(every):
        if row["newest"]:
            saw(row["name"], row["newest"])
