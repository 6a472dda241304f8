"""Rows a second of materialising and of the point-in-time join, beside Feast's own path: `python -m bench.materialize`.

Materialise: the newest state of every item out of a Parquet history, into Redis; by Feast's `materialize` and by what
`pipelines/materialize` does. Both databases must then give equal answers through Feast's SDK. Join: the last product
that each shopper clicked as of many moments; by Feast's `get_historical_features` and by `point_in_time.features_at`,
with equal answers. Then all windows of the shoppers at those moments, which has no rival: Feast joins stored values
and does not make windows at a moment.
"""

from __future__ import annotations

import argparse
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from feast import FeatureStore, FeatureView, Field, FileSource
from feast.types import Int64, String

from adapters import event_lake
from adapters.feature_state import FeatureState
from bench import feature_world as world
from feature_repo.declare import newest, over, stream_view
from feature_repo.plan import FeaturePlan
from pipelines import point_in_time

NAME: Final = "materialize"
VIEW: Final = "bench_items"
LAST: Final = "bench_last"
VALUES: Final = ("category", "price_cents", "seller_id")


def measure(folder: Path, asked: argparse.Namespace) -> dict[str, Any]:
    scale = 0.01 if asked.quick else 1.0
    items, clicks, moments = (int(n * scale) for n in (asked.items, asked.clicks, asked.moments))
    now = int(time.time() * 1000)
    rng = np.random.default_rng(asked.seed)
    states, history = item_states(folder, items, now, rng), click_history(folder, clicks, now, rng)
    with world.redis_of_its_own(folder) as url:
        samples = {"materialize": materialized(folder, url, states, items)}
        samples["join"] = joined(folder, url, history, clicks, moments, now, rng)
    return {"items": items, "clicks": clicks, "moments": moments, "samples": samples,
            "rows_per_second": {what: {who: round(n / s) for who, (n, s) in found.items()}
                                for what, found in samples.items()}}


def item_states(folder: Path, items: int, now: int, rng: np.random.Generator) -> Path:
    """Two states of every item."""
    n = 2 * items
    path = folder / "items.parquet"
    at = np.sort(now - 1000 - rng.integers(0, 9 * world.DAY_MS, n))
    pq.write_table(pa.table({
        "item_id": [f"i{i}" for i in rng.permutation(np.repeat(np.arange(items), 2))],
        "event_timestamp": pa.array(at, pa.timestamp("ms", tz="UTC")), "category": [f"c{i % 20}" for i in range(n)],
        "price_cents": rng.integers(1, 10_000, n), "seller_id": [f"s{i % 500}" for i in range(n)]}), path)
    return path


def materialized(folder: Path, url: str, states: Path, items: int) -> dict[str, tuple[int, float]]:
    """(rows, seconds) of each path; raises unless both stores answer alike."""
    source = FileSource(name="items", path=str(states), timestamp_field="event_timestamp")
    view = FeatureView(
        name=VIEW, entities=[world.item], ttl=timedelta(0), online=True, source=source,
        schema=[Field(name="category", dtype=String), Field(name="price_cents", dtype=Int64),
                Field(name="seller_id", dtype=String)])
    plan = FeaturePlan(project=world.PROJECT, declared_views=())
    declared = world.Declared(plan, [world.item, view])
    theirs = world.feast_store(folder / "theirs", url, declared)
    other = url.replace("/0", "/1")
    ours = world.feast_store(folder / "ours", other, declared)
    began = time.perf_counter()
    theirs.materialize(datetime.now(UTC) - timedelta(days=10), datetime.now(UTC), [VIEW], disable_event_timestamp=False)
    feast_s = time.perf_counter() - began
    began = time.perf_counter()
    rows = pq.read_table(states).group_by("item_id", use_threads=False).aggregate(
        [(n, "last") for n in ("event_timestamp", *VALUES)])
    moments = rows["event_timestamp_last"].cast(pa.int64()).to_pylist()
    columns = [rows[f"{n}_last"].to_pylist() for n in VALUES]
    FeatureState(other, plan, timeout_s=60).put_attributes(VIEW, ("item_id",), (
        ((key,), at, dict(zip(VALUES, values, strict=True)))
        for key, at, *values in zip(rows["item_id"].to_pylist(), moments, *columns, strict=True)))
    our_s = time.perf_counter() - began
    wanted = [{"item_id": f"i{i}"} for i in range(0, items, max(1, items // 2000))]
    assert answers(theirs, wanted) == answers(ours, wanted), "the two stores differ"
    return {"feast": (items, feast_s), "ours": (items, our_s)}


def answers(store: FeatureStore, wanted: list[dict[str, str]]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = store.get_online_features([f"{VIEW}:{n}" for n in VALUES], wanted).to_dict()
    assert None not in found["price_cents"]
    return found


def click_history(folder: Path, clicks: int, now: int, rng: np.random.Generator) -> Path:
    """Clicks in the event lake, and the same as the Parquet file that Feast joins."""
    at = np.sort(now - 1000 - rng.choice(9 * world.DAY_MS, clicks, replace=False))
    table = pa.table({
        "event_id": [f"e{i}" for i in range(clicks)], "event_time": at,
        "user_id": [f"u{i}" for i in rng.integers(0, max(1, clicks // 40), clicks)],
        "item_id": [f"i{i}" for i in rng.integers(0, 5_000, clicks)],
        "category": [f"c{i}" for i in rng.integers(0, 20, clicks)], "price_cents": rng.integers(1, 10_000, clicks)})
    event_lake.write_import(folder / "lake", "shop.clicks", table, 0)
    path = folder / "clicks.parquet"
    pq.write_table(table.select(["user_id", "item_id"]).append_column(
        "event_timestamp", pa.array(at, pa.timestamp("ms", tz="UTC"))), path)
    return path


def joined(folder: Path, url: str, history: Path, clicks: int, moments: int, now: int, rng: np.random.Generator
           ) -> dict[str, tuple[int, float]]:
    """(rows, seconds) of each path; raises unless all answers are equal."""
    view = stream_view(LAST, [world.shopper], "b", description="", tags={},
                       columns={"clicks": "shop.clicks", "price": "shop.clicks:price_cents",
                                "items": "shop.clicks:item_id"},
                       features=[newest("items", "last_item"), over("clicks", "count", "1h 24h 7d"),
                                 over("price", "mean", "24h 7d"), over("price", "max", "24h 7d"),
                                 over("items", "distinct", "24h 7d")])
    plan = world.declare([(view, world.shopper)], {}).plan
    table = FeatureView(name="bench_clicks", entities=[world.shopper], ttl=timedelta(0), online=False,
                        schema=[Field(name="item_id", dtype=String)],
                        source=FileSource(name="clicks", path=str(history), timestamp_field="event_timestamp"))
    store = world.feast_store(folder / "join", url, world.Declared(plan, [world.shopper, table]))
    users = np.array([f"u{i}" for i in rng.integers(0, max(1, clicks // 40), moments)], dtype=object)
    at = now - 1000 - rng.integers(0, 5 * world.DAY_MS, moments)
    asked = pd.DataFrame({"user_id": users, "row": np.arange(moments),
                          "event_timestamp": pd.to_datetime(at, unit="ms", utc=True)})
    began = time.perf_counter()
    theirs = store.get_historical_features(asked, ["bench_clicks:item_id"]).to_df().sort_values("row")
    feast_s = time.perf_counter() - began
    began = time.perf_counter()
    ours = point_in_time.features_at(folder / "lake", plan, LAST, {"user_id": users}, at, only=["last_item"])
    our_s = time.perf_counter() - began
    told = [None if pd.isna(v) else v for v in theirs["item_id"].tolist()]
    assert ours["last_item"].tolist() == told, "the two joins differ"
    began = time.perf_counter()
    point_in_time.features_at(folder / "lake", plan, LAST, {"user_id": users}, at)
    all_s = time.perf_counter() - began
    name = f"ours, all {len(plan.view(LAST).features)} features"
    return {"feast": (moments, feast_s), "ours": (moments, our_s), name: (moments, all_s)}


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--clicks", type=int, default=1_000_000)
    parser.add_argument("--moments", type=int, default=200_000)


if __name__ == "__main__":
    world.run(__doc__ or "", NAME, measure, arguments)
