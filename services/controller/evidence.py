"""The evidence that guardrails are judged by, read from the analytical store: arms by shopper, and shadow scores.

A few queries per look, whatever the traffic: the store sums by shopper, we get one row per arm.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from adapters.analytics import Store
from models.rollout.guardrails import GROSS, METRICS, NOT_THE_MODELS, UNRANKED, Arms, Shadow
from models.rollout.sequential import Sums

_DEAD: Final = "(length(scores) = 0 OR (length(scores) > 1 AND arrayMin(scores) = arrayMax(scores)))"
_DEAD_DECISION, _DEAD_SHADOW = (
    f"{_DEAD} AND NOT has({table}.degraded, '{UNRANKED}')" for table in ("decisions", "shadow")
)
_RANGE: Final = """
    event_ms >= {since:Int64} AND event_ms < {until:Int64}
    AND hour >= toStartOfHour(toDateTime(intDiv({since:Int64}, 1000), 'UTC'))
"""
_COLUMNS: Final = ", ".join(
    f"toFloat64(sum({m.name})) AS {m.name}_y, toFloat64(sum({m.name} * {m.name})) AS {m.name}_yy, "
    f"toFloat64(sum({m.name} * requests)) AS {m.name}_yn"
    for m in METRICS
)
_WITH_CLICKS: Final = f"""LEFT JOIN
    (
        SELECT request_id, count() AS clicks FROM clicks FINAL WHERE {_RANGE} AND request_id != '' GROUP BY request_id
    ) AS c ON c.request_id = d.request_id
"""  # noqa: S608 the text is ours; values are sent apart
_ARMS: Final = f"""
SELECT arm, count() AS users, sum(requests) AS n, sum(requests * requests) AS nn, {_COLUMNS}
FROM
(
    SELECT d.user_id AS user_id, any(d.arm) AS arm, count() AS requests, sum(d.degraded) AS degraded,
        sum(d.latency) AS latency, sum(d.dead) AS dead_scores, sum(c.clicks) AS clicks, any(o.orders) AS orders
    FROM
    (
        SELECT request_id, user_id, arm, length(degraded) > 0 AS degraded, log(greatest(total_ms, 0.1)) AS latency,
            {_DEAD_DECISION} AS dead
        FROM decisions FINAL
        WHERE {_RANGE} AND rollout = {{rollout:String}} AND arm IN ('canary', 'control')
    ) AS d
    {_WITH_CLICKS}
    LEFT JOIN
    (
        SELECT user_id, count() AS orders FROM orders FINAL WHERE {_RANGE} GROUP BY user_id
    ) AS o ON o.user_id = d.user_id
    GROUP BY d.user_id
)
GROUP BY arm
"""  # noqa: S608 the text is ours; values are sent apart
_CHAMPION: Final = f"""
SELECT count() AS users, sum(requests) AS n, sum(requests * requests) AS nn, toFloat64(sum(clicks)) AS clicks_y,
    toFloat64(sum(clicks * clicks)) AS clicks_yy, toFloat64(sum(clicks * requests)) AS clicks_yn
FROM
(
    SELECT d.user_id AS user_id, count() AS requests, sum(c.clicks) AS clicks
    FROM
    (
        SELECT request_id, user_id FROM decisions FINAL
        WHERE {_RANGE} AND arm IN ('champion', 'control') AND user_id NOT IN
            (SELECT user_id FROM decisions FINAL WHERE {_RANGE} AND rollout = {{rollout:String}} AND arm = 'canary')
    ) AS d
    {_WITH_CLICKS}
    GROUP BY d.user_id
)
"""  # noqa: S608
_STEP: Final = f"""
SELECT arm IN {{arms:Array(String)}} AS ours, count() AS n, countIf({_DEAD_DECISION}) AS dead_scores,
    countIf(length(degraded) > 0 AND NOT hasAny(degraded, {list(NOT_THE_MODELS)})) AS degraded
FROM decisions FINAL
WHERE {_RANGE} AND rollout = {{rollout:String}} AND (arm = 'control' OR arm IN {{arms:Array(String)}})
GROUP BY ours
"""  # noqa: S608
_SHADOW: Final = f"""
SELECT count() AS n, countIf(error != '') AS errors, countIf({_DEAD_SHADOW}) AS dead_scores,
    countIf(length(degraded) > 0) AS degraded, quantile(0.5)(total_ms) AS median_ms,
    quantile(0.5)(champion_total_ms) AS champion_median_ms, avg(overlap_at_k) AS overlap,
    (
        SELECT countIf(length(degraded) > 0) / greatest(count(), 1) FROM decisions FINAL
        WHERE {_RANGE} AND request_id IN (SELECT request_id FROM shadow WHERE {_RANGE} AND rollout = {{rollout:String}})
    ) AS champion_degraded
FROM shadow FINAL
WHERE {_RANGE} AND rollout = {{rollout:String}}
"""  # noqa: S608 the text is ours; values are sent apart
_FOREVER: Final = 4_102_444_800_000


class Evidence:
    """Methods raise Unavailable when the store does not answer."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def arms(
        self, rollout: str, *, began_ms: int, balanced_until_ms: int, step_ms: int, step_arms: tuple[str, ...]
    ) -> Arms:
        """Both arms from the experiment's start to the control's end (0: it goes on), and this step's answers."""
        span = {"rollout": rollout, "since": began_ms, "until": balanced_until_ms or _FOREVER}
        rows = {row["arm"]: row for row in self._store.query(_ARMS, span)}
        (champion,) = self._store.query(_CHAMPION, span)
        here = {"rollout": rollout, "since": step_ms, "until": _FOREVER, "arms": list(step_arms)}
        steps = {bool(row["ours"]): row for row in self._store.query(_STEP, here)}
        ours, theirs = _gross(steps.get(True)), _gross(steps.get(False))
        return Arms(
            canary=_sums(rows.get("canary")), control=_sums(rows.get("control")),
            champion={"clicks": _sum(champion, "clicks")} if rows and champion["n"] else {}, step_requests=ours[0],
            step_gross=ours[1], step_control_requests=theirs[0], step_control=theirs[1],
        )  # fmt: skip

    def shadow(self, rollout: str, *, since_ms: int) -> Shadow:
        """Shadow scores of this rollout."""
        (row,) = self._store.query(_SHADOW, {"rollout": rollout, "since": since_ms, "until": _FOREVER})
        n = int(row["n"])
        if not n:
            return Shadow()
        return Shadow(
            requests=n, errors=row["errors"] / n, degraded=row["degraded"] / n, dead_scores=row["dead_scores"] / n,
            median_ms=row["median_ms"] or 0.0, champion_median_ms=row["champion_median_ms"] or 0.0,
            overlap=row["overlap"] or 0.0, champion_degraded=row["champion_degraded"] or 0.0,
        )  # fmt: skip


def _gross(row: Mapping[str, Any] | None) -> tuple[int, dict[str, float]]:
    """How many answers, and the share of each gross guard among them."""
    if row is None:
        return 0, {}
    return int(row["n"]), {name: row[name] / row["n"] for name in GROSS}


def _sums(row: Mapping[str, Any] | None) -> dict[str, Sums]:
    return {} if row is None else {m.name: _sum(row, m.name) for m in METRICS}


def _sum(row: Mapping[str, Any], name: str) -> Sums:
    return Sums(row["users"], row["n"], row["nn"], row[f"{name}_y"], row[f"{name}_yy"], row[f"{name}_yn"])
