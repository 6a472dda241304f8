"""Feature values as they were: point-in-time joins over the event lake, by the same definition as the online tiles.

`features_at` answers any (entity key, time); the training set and the evaluation are built with it.
`item_attributes_at` goes through Feast's own point-in-time join (DuckDB offline store).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa

from adapters import event_lake
from feature_repo import offline_sql
from feature_repo.layout import Layout, layout_of
from feature_repo.on_request import computed
from feature_repo.plan import Feature, FeaturePlan, ViewPlan
from feature_repo.windows import CLOCK_AHEAD_MS, DEDUP_HOURS, HOUR_MS, TOO_LATE_MS
from pipelines.sql_partials import SqlPartials

if TYPE_CHECKING:  # importing Feast takes seconds, and only its caller needs it
    from feast import FeatureStore

_NUMBERS = ("int64", "float64")
# How much earlier than a duplicate the event may have happened whose id it repeats: that one may have been late.
_SIGHTED_MS = TOO_LATE_MS + (DEDUP_HOURS + 1) * HOUR_MS + CLOCK_AHEAD_MS


def features_at(lake: Path, plan: FeaturePlan, view: str, keys: Mapping[str, np.ndarray], at_ms: np.ndarray, *,
                strictly_before: bool = False, only: Sequence[str] | None = None, threads: int = 2
                ) -> dict[str, np.ndarray]:
    """Features of a view for n (key, time) pairs.

    keys: one str array [n] per join key; at_ms: int64 [n]; only: names of the features wanted (default: all). Returns
    float64 [n] per feature (object [n] for text and lists), equal to `tiles.columns` read at that time of what had
    arrived by then; with `strictly_before` events of the very millisecond and later are not seen.
    """
    of = plan.view(view)
    wanted = [f for f in of.declared if only is None or f.name in only]
    if not len(at_ms):
        return {f.name: np.empty(0, dtype=np.float64 if f.aggregation.dtype in _NUMBERS else object) for f in wanted}
    with duckdb.connect(config={"threads": threads}) as base:
        _load_requests(base, of, keys, at_ms)
        layout = layout_of(of)
        for at, reach in _reach(layout, wanted).items():
            since = None if reach is None else int(at_ms.min()) - reach - CLOCK_AHEAD_MS
            _load_facts(base, lake, of, layout, at, since, int(at_ms.max()) + CLOCK_AHEAD_MS + 1)
        partials = SqlPartials(base, layout, wanted, strictly_before)
        return {f.name: f.aggregation.read(f, partials) for f in wanted}


def service_at(lake: Path, plan: FeaturePlan, service: str, keys: Mapping[str, np.ndarray], at_ms: np.ndarray, *,
               strictly_before: bool = True, request: Mapping[str, np.ndarray] | None = None
               ) -> dict[str, np.ndarray]:
    """Every feature of a service's stream views for n rows, as a training set wants them: name -> [n].

    keys: one str array [n] per join key of any of the views; request: the numbers [n] that came with each row, for the
    features on request (left out without it). Raises KeyError when one is not given.
    """
    out: dict[str, np.ndarray] = {}
    asked = plan.service(service)
    for name in asked.views:
        if name in plan.views:
            own = {k: keys[k] for k in plan.view(name).join_keys}
            out |= features_at(lake, plan, name, own, at_ms, strictly_before=strictly_before)
    return out if request is None else out | computed(asked.on_request, request, out)


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


def _reach(layout: Layout, wanted: Sequence[Feature]) -> dict[int, int | None]:
    """Feed -> how far back (ms) its rows matter to any wanted feature; None: for ever."""
    reach: dict[int, int | None] = {}
    for feature in wanted:
        own = feature.span.length_ms + feature.span.tile_ms if feature.window else None
        for at in {at for column in feature.columns for at in offline_sql.feeds_of(layout, column)}:
            known = reach.get(at, 0)
            reach[at] = None if own is None or known is None else max(own, known)
    return reach


def _load_facts(base: duckdb.DuckDBPyConnection, lake: Path, view: ViewPlan, layout: Layout, at: int,
                since_ms: int | None, until_ms: int) -> None:
    feed = layout.feeds[at]
    columns = offline_sql.needed_columns(view, feed)
    early = None if since_ms is None else since_ms - _SIGHTED_MS
    base.register("source", event_lake.scan(lake, feed.topic, columns, early, until_ms))
    base.execute(f"CREATE TABLE facts_{at} AS {offline_sql.facts(view, feed, 'source')}")
    base.unregister("source")
