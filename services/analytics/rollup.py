"""Hourly statistics, computed anew for every hour that was touched: nothing is ever added up twice.

An outcome (a feed seen, a click, an item in a cart, an order) stands in its own hour, in the group of the decision it
came from: by its request, and an order by the shopper's last click on the item in a feed within 24 hours before. Costs
what the touched hours hold, so it takes at most a tenth of the time: after a long computation it waits the longer.
"""

from __future__ import annotations

import time
from typing import Final

from adapters.analytics import Store
from services.analytics.metrics import DIRTY_HOURS, ROLLUP_SECONDS

EVERY_SECONDS: Final = 2.0
RETRY_SECONDS: Final = 60.0
HOURS_AT_ONCE: Final = 24

# Touched since, or (now and then) with outcomes whose decision was not there yet.
DIRTY: Final = """
SELECT toUnixTimestamp(m.hour) AS hour_s
FROM (SELECT hour, max(marked_ms) AS marked FROM hour_marks GROUP BY hour) AS m
LEFT JOIN
(
    SELECT hour, argMax(unmatched, computed_ms) AS unmatched, max(computed_ms) AS computed
    FROM (SELECT hour, computed_ms, sum(unmatched) AS unmatched FROM hourly GROUP BY hour, computed_ms)
    GROUP BY hour
) AS h ON h.hour = m.hour
WHERE m.marked >= h.computed OR ({retry:UInt8} AND h.unmatched > 0 AND m.hour > now() - INTERVAL 1 DAY)
ORDER BY m.hour DESC"""

HOUR: Final = """
INSERT INTO hourly
WITH
    toDateTime({hour:Int64}, 'UTC') AS this_hour,
    facts AS
    (
        SELECT request_id, 'request' AS kind, notEmpty(degraded) AS number, total_ms, toInt64(0) AS cents
        FROM decisions FINAL WHERE hour = this_hour
        UNION ALL
        SELECT request_id, 'impression', toUInt64(length(item_ids)), 0, 0 FROM impressions FINAL WHERE hour = this_hour
        UNION ALL
        SELECT request_id, 'click', 0, 0, 0 FROM clicks FINAL WHERE hour = this_hour
        UNION ALL
        SELECT request_id, 'cart', 0, 0, 0 FROM carts FINAL WHERE hour = this_hour
        UNION ALL
        SELECT argMaxIf(f.request_id, f.event_ms, f.event_ms <= l.event_ms AND f.event_ms > l.event_ms - 86400000),
            'order', 0, 0, any(l.price_cents * l.quantity)
        FROM
        (
            SELECT event_id, line, user_id, item_id, event_ms, price_cents, quantity
            FROM orders FINAL WHERE hour = this_hour
        ) AS l
        LEFT JOIN
        (
            SELECT user_id, item_id, event_ms, request_id FROM feed_clicks
            WHERE (user_id, item_id) IN (SELECT user_id, item_id FROM orders WHERE hour = this_hour)
        ) AS f ON f.user_id = l.user_id AND f.item_id = l.item_id
        GROUP BY l.event_id, l.line
    )
SELECT
    this_hour, d.arm, d.rollout, d.ranker_version, d.surface, d.device,
    countIf(kind = 'request'), sumIf(number, kind = 'request'),
    countIf(kind = 'impression'), sumIf(number, kind = 'impression'),
    countIf(kind = 'click'), countIf(kind = 'cart'), countIf(kind = 'order'), sum(cents),
    countIf(f.request_id != '' AND d.request_id = ''),
    quantilesTDigestStateIf(0.5, 0.95, 0.99)(total_ms, kind = 'request'),
    toUnixTimestamp64Milli(now64(3))
FROM facts AS f
LEFT JOIN
(
    SELECT request_id, arm, rollout, ranker_version, surface, device FROM decision_arms FINAL
    WHERE request_id IN (SELECT request_id FROM facts)
) AS d ON d.request_id = f.request_id
GROUP BY d.arm, d.rollout, d.ranker_version, d.surface, d.device"""


class Hours:
    """Knows when the touched hours are due, and computes them."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._next = self._retry = time.monotonic()

    def due(self) -> bool:
        return time.monotonic() >= self._next

    def compute(self) -> int:
        """Compute the touched hours, newest first; returns how many. Raises as `Analytics` does."""
        begun = time.monotonic()
        try:
            return self._compute(begun)
        finally:
            now = time.monotonic()
            self._next = now + max(EVERY_SECONDS, 9 * (now - begun))

    def _compute(self, begun: float) -> int:
        retry = begun >= self._retry
        if retry:
            self._retry = begun + RETRY_SECONDS
        dirty = [row["hour_s"] for row in self._store.query(DIRTY, {"retry": retry})]
        for hour in dirty[:HOURS_AT_ONCE]:
            started = time.perf_counter()
            self._store.execute(HOUR, {"hour": hour})
            ROLLUP_SECONDS.observe(time.perf_counter() - started)
        DIRTY_HOURS.set(len(dirty[HOURS_AT_ONCE:]))
        return min(len(dirty), HOURS_AT_ONCE)
