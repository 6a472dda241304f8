"""Fill the online store from the lake: every view's tiles, and the items' attributes. Minutes of Kafka are not needed.

Run it when the platform is seeded and after a change of the declarations; while stream workers run, they do the same by
themselves when they find Redis empty.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from adapters import event_lake
from adapters.errors import Misconfigured, Unavailable
from adapters.feature_rebuild import rebuild
from adapters.feature_state import FeatureState
from feature_repo import events
from feature_repo.plan import FeaturePlan
from settings import Settings, load_settings, without_password

_VIEW = "item_attributes"


def item_history(lake: Path) -> pa.Table:
    """The catalogue's states as the rows of the view `item_attributes`: item_id, event_timestamp, created, values."""
    states = event_lake.scan(lake, events.ItemListed.topic)
    moment = states["event_time"].cast(pa.timestamp("ms", tz="UTC"))
    return pa.table({
        "item_id": states["item_id"], "event_timestamp": moment,
        "created": states["_arrival"].cast(pa.timestamp("ms", tz="UTC")), "item_category": states["category"],
        "price_cents": states["price_cents"], "seller_id": states["seller_id"], "listed_at": states["listed_at"],
        "adult": states["adult"], "event_time": states["event_time"]})


def write_item_history(settings: Settings) -> pa.Table:
    """Write the Parquet file that Feast's offline store joins; returns its rows."""
    table = item_history(settings.lake).sort_by("event_time")
    path = settings.features / "history" / f"{_VIEW}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    pq.write_table(table, part)
    part.replace(path)
    return table


def materialize(settings: Settings, now_ms: int) -> int:
    """Everything from the lake to Redis; returns the number of keys. Raises Unavailable, Misconfigured."""
    path = settings.features / "plan.json"
    if not path.exists():
        raise Misconfigured(f"{path} is not there; run `python -m pipelines.apply_features` first")
    plan = FeaturePlan.load(path)
    state = FeatureState(settings.redis, plan, timeout_s=30)
    token = uuid.uuid4().hex
    if not state.lock_rebuild(token, 120):
        raise Unavailable("a rebuild of the online store is already going on")
    started = time.monotonic()

    def beat(text: str) -> None:
        state.lock_rebuild(token, 120)
        print(f"  {time.monotonic() - started:5.1f} s  {text}", flush=True)

    try:
        written = rebuild(settings.lake, plan, state, settings.kafka_partitions, now_ms, beat=_every(1.0, beat))
        kept = ("item_category", "price_cents", "seller_id", "listed_at", "adult", "event_time")
        newest = write_item_history(settings).group_by("item_id", use_threads=False).aggregate(
            [(name, "last") for name in kept])
        state.put_attributes(_VIEW, ("item_id",), (
            ((row.pop("item_id"),), row.pop("event_time_last"), {n.removesuffix("_last"): v for n, v in row.items()})
            for row in newest.to_pylist()))
    finally:
        state.unlock_rebuild(token)
        state.close()
    return written + int(newest.num_rows)


def _every(seconds: float, beat: Callable[[str], None]) -> Callable[[str], None]:
    """`beat`, but at most once in `seconds`."""
    last = 0.0

    def limited(text: str) -> None:
        nonlocal last
        if time.monotonic() - last >= seconds:
            last = time.monotonic()
            beat(text)

    return limited


def main() -> None:
    settings = load_settings()
    started = time.monotonic()
    written = materialize(settings, int(time.time() * 1000))
    print(f"{written} keys in {time.monotonic() - started:.1f} s -> {without_password(settings.redis)}")


if __name__ == "__main__":
    main()
