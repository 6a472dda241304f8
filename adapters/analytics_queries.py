"""The questions that the platform asks its analytical store, each in one place. Times are Unix milliseconds UTC.

Every function takes any `Store` and raises what that raises. Ranges are half open: since_ms <= t < until_ms. Two
readings of "what came of it": `outcome_rows` follows each decision to whatever came of it later, `hourly` counts what
happened in an hour.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

from adapters.analytics import Store

Rows = list[dict[str, Any]]
TABLES: Final = ("decisions", "impressions", "clicks", "carts", "orders", "payments", "shadow", "drift_reports",
                 "rollouts")

_RANGE: Final = """event_ms >= {since:Int64} AND event_ms < {until:Int64}
    AND hour >= toStartOfHour(toDateTime(intDiv({since:Int64}, 1000), 'UTC'))
    AND hour <= toDateTime(intDiv({until:Int64}, 1000), 'UTC')"""

_SHOWN: Final = f"""
SELECT request_id, event_ms, user_id, arm, rollout, ranker_version, two_tower_version, surface, device, country,
    new_user, items, rank_scores, features, feature_names_sha
FROM decisions FINAL
WHERE {_RANGE} AND notEmpty(features) AND ({{arms:Array(String)}} = [] OR arm IN {{arms:Array(String)}})
    AND ({{versions:Array(String)}} = [] OR ranker_version IN {{versions:Array(String)}})
ORDER BY cityHash64(request_id) LIMIT {{limit:UInt32}}"""  # noqa: S608

_LATENCY: Final = f"""
SELECT arm, ranker_version, count() AS requests, countIf(notEmpty(degraded)) / count() AS degraded_share,
    quantiles(0.5, 0.95, 0.99)(total_ms) AS total, quantile(0.95)(retrieve_ms) AS retrieve_p95,
    quantile(0.95)(features_ms) AS features_p95, quantile(0.95)(prerank_ms) AS prerank_p95,
    quantile(0.95)(rank_ms) AS rank_p95, quantile(0.95)(rerank_ms) AS rerank_p95
FROM decisions FINAL WHERE {_RANGE} GROUP BY arm, ranker_version ORDER BY arm, ranker_version"""  # noqa: S608

_SHADOW: Final = f"""
SELECT rollout, ranker_version, count() AS requests, countIf(error != '') AS errors,
    countIf(notEmpty(degraded)) AS degraded, avg(overlap_at_k) AS overlap_at_k, avg(top1_same) AS top1_same,
    countIf(arrayExists(s -> isNull(s), scores)) AS with_missing_scores,
    quantiles(0.5, 0.95)(total_ms) AS total, quantiles(0.5, 0.95)(champion_total_ms) AS champion_total
FROM shadow FINAL WHERE {_RANGE} GROUP BY rollout, ranker_version ORDER BY rollout, ranker_version"""  # noqa: S608


def outcome_rows(since_ms: int, until_ms: int) -> str:
    """SQL for FROM: one row per decision of the range with what came of it (see the view `outcomes`)."""
    return f"outcomes(since_ms = {int(since_ms)}, until_ms = {int(until_ms)})"


def ctr_by_arm(store: Store, since_ms: int, until_ms: int | None = None, *, rollout: str | None = None) -> Rows:
    """By arm: requests, seen (feeds drawn), clicked (of those, with a click), clicks (distinct items), shown, carts,
    orders, revenue_cents, ctr = clicks / shown, click_rate = clicked / seen. A feed that nobody saw is only a request.
    """
    return store.query(f"""
SELECT arm, requests, seen, clicked, clicks, shown, carts, orders, revenue_cents,
    if(shown = 0, NULL, clicks / shown) AS ctr, if(seen = 0, NULL, clicked / seen) AS click_rate
FROM
(
    SELECT arm, count() AS requests, sum(o.impressions) AS seen, countIf(o.clicks > 0) AS clicked,
        sum(o.clicks) AS clicks, sum(o.shown) AS shown, sum(o.carts) AS carts, sum(o.orders) AS orders,
        sum(o.revenue_cents) AS revenue_cents
    FROM {outcome_rows(since_ms, _until(until_ms))} AS o
    WHERE {{every:UInt8}} OR rollout = {{rollout:String}}
    GROUP BY arm
)
ORDER BY arm""", {"every": rollout is None, "rollout": rollout or ""})  # noqa: S608


def labelled_predictions(store: Store, since_ms: int, until_ms: int, *, limit: int = 20_000) -> Rows:
    """What the ranker said of each item of a feed that was seen, with its label now: 0 seen, 1 clicked, 3 bought.

    request_id, event_ms, arm, ranker_version, item_id, position, rank_score, label; whole feeds, sampled by request.
    Labels come late: leave out the newest minutes.
    """
    return store.query(f"""
SELECT request_id, event_ms, arm, ranker_version, item_id, position, rank_score,
    multiIf(has(ordered, item_id), 3, has(clicked, item_id), 1, 0) AS label
FROM
(
    SELECT o.request_id AS request_id, o.event_ms AS event_ms, o.arm AS arm, o.ranker_version AS ranker_version,
        o.items AS items, o.clicked AS clicked, o.ordered AS ordered, d.rank_scores AS rank_scores
    FROM {outcome_rows(since_ms, until_ms)} AS o
    INNER JOIN (SELECT request_id, rank_scores FROM decisions FINAL WHERE {_RANGE}) AS d USING (request_id)
    WHERE o.impressions > 0 ORDER BY cityHash64(request_id) LIMIT {{feeds:UInt32}}
)
ARRAY JOIN items AS item_id, arrayResize(rank_scores, length(items)) AS rank_score,
    arrayEnumerate(items) AS position
WHERE rank_score IS NOT NULL""",  # noqa: S608
                       {"since": since_ms, "until": until_ms, "feeds": max(1, limit // 20)})


def shown_features(store: Store, since_ms: int, until_ms: int, *, limit: int = 1_000, arms: Sequence[str] = (),
                   versions: Sequence[str] = ()) -> Rows:
    """At most `limit` decisions of the range, the same ones each time, with the ranker's rows of what they showed.

    `features` is [shown][feature] in the order that `feature_names_sha` stands for, None where it was missing;
    `rank_scores` and `items` are aligned with its rows. `arms` and `versions` (of the ranker) narrow it down.
    """
    return store.query(_SHOWN, {"since": since_ms, "until": until_ms, "limit": limit, "arms": list(arms),
                                "versions": list(versions)})


def hourly(store: Store, since_ms: int, until_ms: int | None = None) -> Rows:
    """The rows of `hourly_stats` of the range, with `hour_ms`."""
    return store.query("SELECT toUnixTimestamp(hour) * 1000 AS hour_ms, * FROM hourly_stats "
                       "WHERE hour >= toDateTime(intDiv({since:Int64}, 1000), 'UTC') "
                       "AND hour < toDateTime(intDiv({until:Int64}, 1000), 'UTC') "
                       "ORDER BY hour, arm, ranker_version, surface, device",
                       {"since": since_ms - since_ms % 3_600_000, "until": _until(until_ms)})


def volumes_by_hour(store: Store, since_ms: int, until_ms: int | None = None) -> Rows:
    """By hour, whatever the group: hour_ms, requests, degraded_requests, impressions, clicks, carts, orders."""
    return store.query("SELECT toUnixTimestamp(hour) * 1000 AS hour_ms, sum(requests) AS requests, "
                       "sum(degraded_requests) AS degraded_requests, sum(impressions) AS impressions, "
                       "sum(clicks) AS clicks, sum(carts) AS carts, sum(orders) AS orders FROM hourly_stats "
                       "WHERE hour >= toDateTime(intDiv({since:Int64}, 1000), 'UTC') "
                       "AND hour < toDateTime(intDiv({until:Int64}, 1000), 'UTC') GROUP BY hour ORDER BY hour",
                       {"since": since_ms - since_ms % 3_600_000, "until": _until(until_ms)})


def latency_by_arm(store: Store, since_ms: int, until_ms: int | None = None) -> Rows:
    """By arm and ranker: requests, degraded_share, total (P50, P95, P99 in ms) and each stage's P95."""
    return store.query(_LATENCY, {"since": since_ms, "until": _until(until_ms)})


def shadow_summary(store: Store, since_ms: int, until_ms: int | None = None) -> Rows:
    """By rollout and challenger: requests, errors, degraded, agreement with the champion, times (P50, P95) of both."""
    return store.query(_SHADOW, {"since": since_ms, "until": _until(until_ms)})


def drift_heat(store: Store, since_ms: int, until_ms: int | None = None) -> Rows:
    """Feature by check: at_ms, model, feature, level, psi, ks, wasserstein, js, null_share."""
    return store.query("SELECT at_ms, model, feature, level, psi, ks, wasserstein, js, null_share FROM drift_features "
                       "WHERE at_ms >= {since:Int64} AND at_ms < {until:Int64} ORDER BY at_ms, model, feature",
                       {"since": since_ms, "until": _until(until_ms)})


def rollout_history(store: Store, *, limit: int = 100) -> Rows:
    """The newest transitions, newest first, with at_ms."""
    return store.query("SELECT event_ms AS at_ms, * FROM rollouts FINAL ORDER BY event_ms DESC, seq DESC "
                       "LIMIT {limit:UInt32}", {"limit": limit})


def freshness(store: Store) -> Rows:
    """By table: rows, newest_ms (0: empty), and the newest arrival from Kafka."""
    each = " UNION ALL ".join(
        f"SELECT '{table}' AS name, count() AS rows, max(event_ms) AS newest_ms, max(_arrival_ms) AS arrived_ms "  # noqa: S608
        f"FROM {table} FINAL" for table in TABLES)
    return store.query(each)


def conservation(store: Store) -> Rows:
    """By topic: taken = accepted + dead (offsets that were taken in), rows in the store by record, and the difference:
    duplicates (records of an event or request that was there already). Rows of a batch whose offsets are not written
    yet are left out, so that it adds up while events flow, too.
    """
    tables = {"decisions": "decisions.recommendation", "shadow": "decisions.shadow", "drift_reports": "drift.reports",
              "rollouts": "models.rollouts"}
    topics = {table: tables.get(table, f"shop.{table}") for table in TABLES}
    each = " UNION ALL ".join(
        f"SELECT '{topic}' AS topic, uniqExact(t._partition, t._offset) AS rows FROM {table} AS t FINAL "  # noqa: S608
        f"INNER JOIN (SELECT partition, next_offset FROM offsets FINAL WHERE topic = '{topic}') AS o "
        "ON o.partition = t._partition WHERE t._offset < o.next_offset" for table, topic in topics.items())
    return store.query(f"""
SELECT a.topic AS topic, a.taken AS taken, a.accepted AS accepted, a.dead AS dead, r.rows AS rows,
    toInt64(a.accepted) - toInt64(r.rows) AS duplicates, l.letters AS letters
FROM (SELECT topic, sum(next_offset - first_offset) AS taken, sum(accepted) AS accepted, sum(dead) AS dead
      FROM offsets FINAL GROUP BY topic) AS a
LEFT JOIN ({each}) AS r ON r.topic = a.topic
LEFT JOIN (SELECT topic, count() AS letters FROM dead_letters FINAL GROUP BY topic) AS l ON l.topic = a.topic
ORDER BY topic""")  # noqa: S608


def _until(until_ms: int | None) -> int:
    """Without an end: a minute ahead of now, for clocks that are."""
    return until_ms if until_ms is not None else int(time.time() * 1000) + 60_000
