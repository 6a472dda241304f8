"""Whether every accepted event is counted once, everywhere: `make reconcile`.

    python -m pipelines.reconcile [--shoppers PREFIX] [--wait 60] [--json]

For each topic of the features: the records of Kafka against what became of them in the online store (counted,
duplicate, late, dead-lettered) and against the rows of the lake. With --shoppers, also the clicks of every shopper that
begins with PREFIX, in the last hour: distinct event ids in Kafka against features, lake and analytical store.
Works while events flow. Ends with 1 where anything does not add up after --wait seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import msgspec
import pyarrow.compute as pc
from kafka import TopicPartition
from rich import box
from rich.console import Console
from rich.table import Table

from adapters import event_lake
from adapters.analytics import open_store
from adapters.errors import MinimartError, Unavailable
from adapters.feature_state import FeatureState
from adapters.kafka import DeadLetter, connect_consumer, read_topic
from adapters.online_store import OnlineStore
from feature_repo import events, tiles
from feature_repo.plan import FeaturePlan
from settings import Settings, load_settings

CLICKS: Final = "shop.clicks"
FEATURE: Final = "user_clicks_count_1h"
VIEW: Final = "user_activity"
EVERY_S: Final = 1.0


@dataclass(frozen=True)
class TopicAccount:
    """`wrong` says in words what does not add up; empty where all does."""

    topic: str
    kafka: int  # records when the account began
    features: int  # of them and of later ones, read by the stream worker
    outcomes: dict[str, int]
    lake: int  # rows from Kafka
    dead: int  # records that are no events, in their dead-letter topic
    wrong: list[str]


@dataclass(frozen=True)
class ShopperAccount:
    """Clicks of chosen shoppers: shopper -> number, by where they were looked for."""

    kafka: dict[str, int] = field(default_factory=dict)
    features: dict[str, int] = field(default_factory=dict)
    lake: dict[str, int] = field(default_factory=dict)
    analytics: dict[str, int] | None = None  # None: the store does not run
    event_ids: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


def account_of(settings: Settings, state: FeatureState, topic: str, ends: Mapping[int, int]) -> TopicAccount:
    """One topic's account up to `ends` (partition -> next offset of Kafka). Raises Unavailable."""
    wrong: list[str] = []
    outcomes: Counter[str] = Counter()
    read = 0
    for partition, end in ends.items():
        offsets, counters = state.account(partition)
        mine = {name.rpartition(":")[2]: n for name, n in counters.items() if name.rpartition(":")[0] == topic}
        at = offsets.get(topic, 0)
        if at < end:
            wrong.append(f"partition {partition}: features stand at {at} of {end}")
        if sum(mine.values()) != at:
            wrong.append(f"partition {partition}: {at} records were read and {sum(mine.values())} accounted for")
        outcomes.update(mine)
        read += at
    rows, dead, lake_wrong = _lake(settings, topic, ends)
    return TopicAccount(topic, sum(ends.values()), read, dict(outcomes), rows, dead, wrong + lake_wrong)


def _lake(settings: Settings, topic: str, ends: Mapping[int, int]) -> tuple[int, int, list[str]]:
    """(rows from Kafka, records that are no events, what is wrong) of a topic in the lake."""
    stored = event_lake.contiguous_ends(settings.lake, topic)
    table = event_lake.scan(settings.lake, topic, ["_partition", "_offset"])
    every = zip(table["_partition"].to_pylist(), table["_offset"].to_pylist(), strict=True)
    rows = [(p, o) for p, o in every if p >= 0]  # imported history lies in partition -1
    found, twice = Counter(p for p, _ in rows), len(rows) - len(set(rows))
    letters = [msgspec.json.decode(r.value or b"{}", type=DeadLetter)
               for r in read_topic(settings.kafka, events.dlq(topic))]  # fmt: skip
    poison = {(x.partition, x.offset) for x in letters if x.reason.startswith("not_an_event")}
    wrong = [f"{twice} rows of the lake are there twice"] if twice else []
    for partition, end in ends.items():
        at = stored.get(partition, 0)
        below = sum(p == partition and o < at for p, o in poison)
        if at < end:
            wrong.append(f"partition {partition}: the lake holds {at} of {end}")
        elif found[partition] + below != at:
            wrong.append(f"partition {partition}: the lake ends at {at} and has {found[partition]} rows, {below} dead")
    return sum(found.values()), len(poison), wrong


def shoppers_of(settings: Settings, plan: FeaturePlan, prefix: str) -> ShopperAccount:
    """The clicks of shoppers whose names begin with `prefix`."""
    ids: dict[str, set[str]] = {}
    for record in read_topic(settings.kafka, CLICKS, timeout_s=60):
        if record.key.startswith(prefix):
            ids.setdefault(record.key, set()).add(events.decode(CLICKS, record.value or b"").event_id)
    kafka = {shopper: len(found) for shopper, found in sorted(ids.items())}
    lake = event_lake.scan(settings.lake, CLICKS, ["user_id", "event_id"])
    lake = lake.filter(pc.starts_with(lake["user_id"], prefix))
    stored: dict[str, set[str]] = {}
    for user, event in zip(lake["user_id"].to_pylist(), lake["event_id"].to_pylist(), strict=True):
        stored.setdefault(user, set()).add(event)
    features = asyncio.run(_windows(settings, plan, list(kafka)))
    found = ShopperAccount(
        kafka, features, {user: len(some) for user, some in sorted(stored.items())}, _analytics(settings, prefix),
        sorted(one for some in ids.values() for one in some),
    )  # fmt: skip
    found.wrong.extend(
        f"{where}: {sum(other.values())} clicks of {sum(kafka.values())}"
        for where, other in (("features", features), ("lake", found.lake), ("analytics", found.analytics))
        if other is not None and other != kafka
    )
    return found


async def _windows(settings: Settings, plan: FeaturePlan, shoppers: list[str]) -> dict[str, int]:
    store = OnlineStore(settings.redis, plan, timeout_ms=5_000)
    try:
        packed = await store.read(VIEW, [(one,) for one in shoppers])
    finally:
        await store.close()
    now = int(time.time() * 1000)
    return {one: int(tiles.windows(plan.view(VIEW), state, now)[FEATURE])
            for one, state in zip(shoppers, packed, strict=True)}  # fmt: skip


def _analytics(settings: Settings, prefix: str) -> dict[str, int] | None:
    store = open_store(settings)
    try:
        rows = store.query(
            "SELECT user_id, count() AS n FROM clicks FINAL WHERE startsWith(user_id, {prefix:String}) "
            "GROUP BY user_id ORDER BY user_id",
            {"prefix": prefix},
        )
    except MinimartError:
        return None
    finally:
        store.close()
    return {row["user_id"]: int(row["n"]) for row in rows}


def ends_of(settings: Settings, topics: tuple[str, ...]) -> dict[str, dict[int, int]]:
    """topic -> partition -> next offset. Raises Unavailable."""
    consumer = connect_consumer(settings.kafka)
    if consumer is None:
        raise Unavailable(f"Kafka at {settings.kafka} does not answer")
    try:
        wanted = [TopicPartition(t, p) for t in topics for p in range(settings.kafka_partitions)]
        found = consumer.end_offsets(wanted)
    finally:
        consumer.close(autocommit=False, timeout_ms=1_000)
    return {t: {tp.partition: end for tp, end in found.items() if tp.topic == t} for t in topics}


def reconcile(settings: Settings, prefix: str, wait_s: float) -> tuple[list[TopicAccount], ShopperAccount | None]:
    """The accounts once they add up, or as they stand after `wait_s` seconds. Raises Unavailable."""
    plan = FeaturePlan.load(settings.features / "plan.json")
    state = FeatureState(settings.redis, plan)
    deadline = time.monotonic() + wait_s
    try:
        ends = ends_of(settings, plan.topics)
        while True:
            topics = [account_of(settings, state, topic, ends[topic]) for topic in plan.topics]
            shoppers = shoppers_of(settings, plan, prefix) if prefix else None
            wrong = any(one.wrong for one in topics) or bool(shoppers and shoppers.wrong)
            if not wrong or time.monotonic() > deadline:
                return topics, shoppers
            time.sleep(EVERY_S)
    finally:
        state.close()


def show(topics: list[TopicAccount], shoppers: ShopperAccount | None, console: Console) -> None:
    """The accounts as a table, and what does not add up."""
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("topic", "in Kafka", "read", "what became of them", "in the lake", "dead"):
        table.add_column(heading, justify="left" if heading in ("topic", "what became of them") else "right")
    for one in topics:
        outcomes = ", ".join(f"{name} {number:,}" for name, number in sorted(one.outcomes.items()))
        table.add_row(one.topic, f"{one.kafka:,}", f"{one.features:,}", outcomes, f"{one.lake:,}", f"{one.dead:,}")
    console.print(table)
    if shoppers:
        console.print(f"{len(shoppers.kafka)} shoppers, {sum(shoppers.kafka.values())} distinct clicks in Kafka")
    wrong = [f"{one.topic}: {what}" for one in topics for what in one.wrong] + (shoppers.wrong if shoppers else [])
    console.print("\n".join(f"[red]{what}[/]" for what in wrong) or "[green]every accepted event is counted once[/]")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shoppers", default="", metavar="PREFIX", help="also every click of these shoppers")
    parser.add_argument("--wait", type=float, default=60.0, help="seconds that readers may be behind (default 60)")
    parser.add_argument("--json", action="store_true", help="for machines")
    asked = parser.parse_args()
    try:
        topics, shoppers = reconcile(load_settings(), asked.shoppers, asked.wait)
    except (MinimartError, OSError) as error:
        print(f"minimart: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    if asked.json:
        found: dict[str, Any] = {"topics": [asdict(one) for one in topics]}
        print(json.dumps(found | {"shoppers": asdict(shoppers) if shoppers else None}))
    else:
        show(topics, shoppers, Console())
    raise SystemExit(1 if any(one.wrong for one in topics) or (shoppers and shoppers.wrong) else 0)


if __name__ == "__main__":
    main()
