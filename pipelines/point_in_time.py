"""Feature values as they were: point-in-time joins over the event lake, by the same definition as the online tiles.

`features_at` answers any (entity key, time); the training set and the evaluation are built with it.
`item_attributes_at` goes through Feast's own point-in-time join (DuckDB offline store).
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa

from adapters import event_lake
from feature_repo import offline_sql
from feature_repo.layout import Layout, layout_of
from feature_repo.plan import Feature, FeaturePlan, ViewPlan
from feature_repo.tiles import remember
from feature_repo.windows import CLOCK_AHEAD_MS, DAY_MS, WINDOWS

if TYPE_CHECKING:  # importing Feast takes seconds, and only its caller needs it
    from feast import FeatureStore

_LONGEST_MS = max(w.length_ms + w.tile_ms for w in WINDOWS.values())


def features_at(lake: Path, plan: FeaturePlan, view: str, keys: Mapping[str, np.ndarray], at_ms: np.ndarray, *,
                strictly_before: bool = False, only: Sequence[str] | None = None, threads: int = 2
                ) -> dict[str, np.ndarray]:
    """Features of a view for n (key, time) pairs.

    keys: one str array [n] per join key; at_ms: int64 [n]; only: names of the features wanted (default: all). Returns
    float64 [n] per feature (object [n] for last and last_k), equal to `tiles.columns` read at that time of what had
    arrived by then; with `strictly_before` events of the very millisecond and later are not seen.
    """
    of = plan.view(view)
    wanted = [f for f in of.declared if only is None or f.name in only]
    if not len(at_ms):
        return {f.name: np.empty(0, dtype=object if f.function.startswith("last") else np.float64) for f in wanted}
    with duckdb.connect(config={"threads": threads}) as base:
        _load_requests(base, of, keys, at_ms)
        layout = layout_of(of)
        used = {at for f in wanted for at in offline_sql.feeds_of(layout, f)}
        forever = {at for f in wanted if f.function.startswith("last") for at in offline_sql.feeds_of(layout, f)}
        for at in used:
            since = None if at in forever else int(at_ms.min()) - _LONGEST_MS - CLOCK_AHEAD_MS
            _load_facts(base, lake, of, layout, at, since, int(at_ms.max()) + CLOCK_AHEAD_MS + 1)
        found = _windows(base, layout, wanted, strictly_before)
        found |= {f.name: _newest(base, layout, f, strictly_before) for f in wanted if f.function.startswith("last")}
    return {f.name: found[f.name] for f in wanted}


def recent_items_at(lake: Path, plan: FeaturePlan, user_ids: Sequence[str] | np.ndarray, at_ms: np.ndarray, k: int = 20,
                    *, strictly_before: bool = True) -> list[list[str]]:
    """The at most `k` items that each user clicked or bought last before each time, newest first; `k` up to 20."""
    keys = {"user_id": np.asarray(user_ids, dtype=object)}
    found = features_at(lake, plan, "user_activity", keys, at_ms, strictly_before=strictly_before,
                        only=["user_recent_items"])["user_recent_items"]
    return [items[:k] for items in found]


def item_attributes_at(store: FeatureStore, item_ids: Sequence[str] | np.ndarray, at_ms: np.ndarray
                       ) -> dict[str, np.ndarray]:
    """What the catalogue said of each item at each time, by Feast's point-in-time join; missing before it was listed.

    Returns item_category and seller_id (object [n]), price_cents and listed_at (float64 [n], NaN where missing).
    """
    names = ("item_category", "seller_id", "price_cents", "listed_at")
    asked = pd.DataFrame({"item_id": np.asarray(item_ids, dtype=object), "row": np.arange(len(at_ms)),
                          "event_timestamp": pd.to_datetime(np.asarray(at_ms), unit="ms", utc=True)})
    joined = store.get_historical_features(asked, [f"item_attributes:{n}" for n in names]).to_df().sort_values("row")
    return {n: joined[n].to_numpy(dtype=object if n in names[:2] else np.float64, na_value=np.nan if n in names[2:]
                                  else None) for n in names}


def _load_requests(base: duckdb.DuckDBPyConnection, view: ViewPlan, keys: Mapping[str, np.ndarray], at_ms: np.ndarray
                   ) -> None:
    """Tables `requests(rid, code, moment)` and `codes(join keys..., code)`: keys become small integers."""
    asked = pa.table({**{k: pa.array(np.asarray(keys[k], dtype=object), pa.string()) for k in view.join_keys},
                      "rid": np.arange(len(at_ms)), "moment": np.asarray(at_ms, dtype=np.int64)})
    base.register("asked", asked)
    names = ", ".join(view.join_keys)
    base.execute(f"CREATE TABLE codes AS SELECT {names}, row_number() OVER () AS code "  # noqa: S608
                 f"FROM (SELECT DISTINCT {names} FROM asked)")
    base.execute(f"CREATE TABLE requests AS SELECT rid, code, moment FROM asked JOIN codes USING ({names})")  # noqa: S608
    base.unregister("asked")


def _load_facts(base: duckdb.DuckDBPyConnection, lake: Path, view: ViewPlan, layout: Layout, at: int,
                since_ms: int | None, until_ms: int) -> None:
    feed = layout.feeds[at]
    columns = offline_sql.needed_columns(view, feed)
    # A day earlier, so that a duplicate of an event before the range is still seen as one.
    early = None if since_ms is None else since_ms - DAY_MS
    base.register("source", event_lake.scan(lake, feed.topic, columns, early, until_ms))
    base.execute(f"CREATE TABLE facts_{at} AS {offline_sql.facts(view, feed, 'source')}")
    base.unregister("source")


def _windows(base: duckdb.DuckDBPyConnection, layout: Layout, wanted: Sequence[Feature], strictly: bool
             ) -> dict[str, np.ndarray]:
    groups: dict[tuple[str, str, str], list[Feature]] = defaultdict(list)
    for feature in wanted:
        if feature.window:
            kind = {"min": "extreme", "max": "extreme", "distinct": feature.name}.get(feature.function, "sum")
            groups[offline_sql.relation(layout, feature)[0], feature.window, kind].append(feature)
    out: dict[str, np.ndarray] = {}
    for (table, window_name, kind), members in groups.items():
        window = WINDOWS[window_name]
        values = {f.name: offline_sql.relation(layout, f)[1] for f in members}
        if kind == "extreme":
            sql = offline_sql.extremes(table, window, [(f.function, values[f.name]) for f in members], strictly)
            rows = base.execute(sql).fetchnumpy()
            out |= {f.name: _plain(rows[f"w{i}"]) for i, f in enumerate(members)}
        elif kind == "sum":
            exprs = list(dict.fromkeys(e for f in members for e in _partials(f, values[f.name])))
            rows = base.execute(offline_sql.sums(table, window, exprs, strictly)).fetchnumpy()
            totals = {e: _plain(rows[f"w{i}"]) for i, e in enumerate(exprs)}
            out |= {f.name: _finish(f, values[f.name], totals) for f in members}
        else:
            sql = offline_sql.distinct(table, window, values[kind], strictly)
            out[kind] = _plain(base.execute(sql).fetchnumpy()["w0"])
    return out


def _partials(feature: Feature, value: str) -> list[str]:
    count = f"CASE WHEN {value} IS NULL THEN 0 ELSE 1 END" if value else "1"
    return {"count": [count], "sum": [value], "mean": [value, count]}[feature.function]


def _finish(feature: Feature, value: str, totals: Mapping[str, np.ndarray]) -> np.ndarray:
    parts = [totals[e] for e in _partials(feature, value)]
    if len(parts) == 1:
        return parts[0]
    means: np.ndarray = np.divide(parts[0], parts[1], out=np.full(len(parts[0]), np.nan), where=parts[1] > 0)
    return means


def _plain(column: Any) -> np.ndarray:
    """DuckDB's (possibly masked) column as float64."""
    filled: np.ndarray = np.ma.filled(np.ma.asarray(column, dtype=np.float64), np.nan)
    return filled


def _newest(base: duckdb.DuckDBPyConnection, layout: Layout, feature: Feature, strictly: bool) -> np.ndarray:
    """`last` and `last_k`: facts are played to each key in the order in which they became known."""
    table, value = offline_sql.relation(layout, feature)
    known = "greatest(arrival, event_time) + 1" if strictly else "arrival"
    facts = base.execute(f"SELECT code, {known} AS known, event_time, {value} AS value FROM {table} "  # noqa: S608
                         f"WHERE {value} IS NOT NULL ORDER BY code, known").fetchall()
    requests = base.execute("SELECT code, moment, rid FROM requests ORDER BY code, moment").fetchall()
    many, k = feature.function == "last_k", feature.k or 1
    out = np.empty(len(requests), dtype=object)
    held: list[tuple[int, Any]] = []
    position, current = 0, None
    for code, when, rid in requests:
        if code != current:
            held, current = [], code
            position = bisect_left(facts, (code,), lo=position)
        while position < len(facts) and facts[position][0] == code and facts[position][1] <= when:
            remember(held, k, facts[position][2:], 1)
            position += 1
        out[rid] = [v for _, v in held] if many else (held[0][1] if held else None)
    return out
