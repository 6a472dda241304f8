"""Windows of live traffic out of the analytical store, as the drift suite wants them: a sample, never a whole window.

Only the champion's answers that a shopper saw, under one version of the models: what a canary does is the controller's
question, and scores of two models are not one column.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from adapters.analytics import Store
from models.drift.traffic import Traffic
from models.ranking_features import FEATURES, FEATURES_SHA

SAMPLE: Final = 1000
"""Requests read per window; a table of 57 features by 20 products by 1,000 requests is about 10 MB of JSON."""
EVENTS: Final = 4000

_RANGE: Final = (
    "hour >= toStartOfHour(fromUnixTimestamp64Milli({since:Int64}, 'UTC')) AND event_ms >= {since:Int64} "
    "AND event_ms < {until:Int64}"
)
_VERSIONS: Final = f"""
SELECT argMax(ranker_version, event_ms) AS ranker, argMax(two_tower_version, event_ms) AS two_tower,
       min(event_ms) AS first_ms, count() AS n
FROM decisions FINAL WHERE {_RANGE} AND arm = 'champion'"""  # noqa: S608 only our own text is put together
_COUNTS: Final = f"""
SELECT (SELECT count() FROM decisions FINAL WHERE {_RANGE}) AS requests,
       (SELECT count() FROM clicks FINAL WHERE {_RANGE}) AS clicks,
       (SELECT count() FROM impressions FINAL WHERE {_RANGE}) AS impressions"""  # noqa: S608
_DECISIONS: Final = f"""
SELECT request_id, event_ms, device, new_user, total_ms, items, rank_scores, features
FROM decisions FINAL
WHERE {_RANGE} AND arm = 'champion' AND ranker_version = {{ranker:String}}
  AND two_tower_version = {{two_tower:String}} AND feature_names_sha = {{sha:String}} AND notEmpty(features)
ORDER BY cityHash64(request_id) LIMIT {{limit:UInt32}}"""  # noqa: S608
_SEEN: Final = f"""
SELECT request_id, any(country) AS country FROM impressions FINAL WHERE {_RANGE} GROUP BY request_id"""  # noqa: S608
_CLICKS: Final = f"""
SELECT DISTINCT request_id, item_id FROM clicks FINAL WHERE {_RANGE} AND request_id != ''"""  # noqa: S608
_EVENTS: Final = f"""
SELECT price_cents, category, session_id FROM clicks FINAL
WHERE {_RANGE} ORDER BY cityHash64(event_id) LIMIT {{limit:UInt32}}"""  # noqa: S608


@dataclass(frozen=True, slots=True)
class Versions:
    """What served, and since when within the asked range (`requests` answers of it)."""

    ranker: str
    two_tower: str
    first_ms: int
    requests: int


def served(store: Store, since_ms: int, until_ms: int) -> Versions:
    """The newest versions that served the champion's traffic; empty names when nothing was served."""
    row = store.query(_VERSIONS, {"since": since_ms, "until": until_ms})[0]
    return Versions(str(row["ranker"]), str(row["two_tower"]), int(row["first_ms"]), int(row["n"]))


def read(
    store: Store, versions: Versions, since_ms: int, until_ms: int, *, settle_ms: int, sample: int = SAMPLE
) -> Traffic:
    """The window [since, until). Clicks count that came up to `settle_ms` after its end; no traffic gives no rows.

    Its seconds begin with the first answer that was ever seen: a platform that has just started was not silent before.

    Raises what the store raises.
    """
    span = {"since": since_ms, "until": until_ms}
    wide = {"since": since_ms - settle_ms, "until": until_ms + settle_ms}
    models = {"ranker": versions.ranker, "two_tower": versions.two_tower, "sha": FEATURES_SHA}
    asked = store.query(_DECISIONS, {**span, **models, "limit": sample})
    countries = {row["request_id"]: row["country"] for row in store.query(_SEEN, wide)}
    clicked = {(row["request_id"], row["item_id"]) for row in store.query(_CLICKS, wide)}
    events = store.query(_EVENTS, {**span, "limit": EVENTS})
    counts = store.query(_COUNTS, span)[0]
    rows = sorted((row for row in asked if row["request_id"] in countries), key=lambda row: int(row["event_ms"]))
    scores, features = _scores(rows), _features(rows)
    ranked = np.isfinite(scores)  # a product that was never ranked was put there by a rule
    places = [(i, place) for i, row in enumerate(rows) for place in range(1, len(row["items"]) + 1)]
    request, position = np.array(places, np.int64).reshape(-1, 2).T
    hits = np.array([(row["request_id"], item) in clicked for row in rows for item in row["items"]], bool)
    return Traffic(
        FEATURES, features[ranked], scores[ranked], position[ranked], hits[ranked], request[ranked],
        np.array([row["event_ms"] for row in rows], np.int64), np.ones(len(rows), bool),
        max(0, until_ms - max(since_ms, versions.first_ms)) / 1000, int(counts["requests"]),
        {
            "device": tuple(str(row["device"]) for row in rows),
            "country": tuple(str(countries[row["request_id"]]) for row in rows),
            "shopper": tuple("new" if row["new_user"] else "returning" for row in rows),
        },
        {"total_ms": np.array([row["total_ms"] for row in rows], np.float64)},
        {"ranker_version": versions.ranker, "two_tower_version": versions.two_tower,
         "since_ms": since_ms, "until_ms": until_ms},
        {"click_log_price": np.log1p(np.array([row["price_cents"] for row in events], np.float64))},
        {"clicks": int(counts["clicks"]), "impressions": int(counts["impressions"])},
        {"click_category": tuple(str(row["category"]) for row in events)},
        len({row["session_id"] for row in events}),
    )  # fmt: skip


def _features(rows: list[dict[str, Any]]) -> NDArray[np.float32]:
    """[n, F]; null is NaN. The digest of the names was asked for, so that no row has another width."""
    shown = [[np.nan if v is None else v for v in item] for row in rows for item in row["features"]]
    return np.array(shown, np.float32).reshape(len(shown), len(FEATURES))


def _scores(rows: list[dict[str, Any]]) -> NDArray[np.float64]:
    return np.array([np.nan if v is None else v for row in rows for v in row["rank_scores"]], np.float64)
