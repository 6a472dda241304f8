"""One partition's decisions in memory: duplicates, late events, poison, the chain between the stages, replay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from adapters.feature_state import Batch, Progress
from adapters.kafka import Record, partition_of
from feature_repo import events, tiles
from feature_repo.plan import FeaturePlan
from services.stream_features.shard import Engine, Shard

PLAN = FeaturePlan.load(Path(__file__).parents[1] / "plan.json")
ENGINE = Engine(PLAN, 2)
T0 = 1_790_000_000_000
HOUR = 3_600_000


def click(offset: int, *, event_id: str = "", at: int = T0, arrival: int = T0, item: str = "i1") -> Record:
    event = events.ProductClicked(event_id=event_id or f"e{offset}", event_time=at, user_id="u1", item_id=item,
                                  category="tea", price_cents=100)
    return Record("shop.clicks", 0, offset, arrival, "u1", events.encode(event))


def shown(offset: int, items: list[str]) -> Record:
    event = events.ProductsShown(event_id=f"s{offset}", event_time=T0, user_id="u1", request_id="r", item_ids=items)
    return Record("shop.impressions", 0, offset, T0, "u1", events.encode(event))


def fresh(partition: int = 0) -> Shard:
    return Shard(ENGINE, partition, "token", Progress())


def turn(shard: Shard, topic: str, records: list[Record]) -> tuple[Batch, list[tuple[int, bytes]], list[Any]]:
    """One turn against an empty store: (the commit, what travels, dead letters)."""
    shard.read(topic, records)
    batch = shard.apply([(key, None) for key in shard.missing()])
    travelling, dead = shard.travelling, shard.dead
    shard.committed()
    return batch, travelling, dead


def value(batch: Batch, view: str, key: tuple[str, ...], name: str, now: int = T0) -> Any:
    return tiles.windows(PLAN.view(view), batch.states.get((view, key)), now)[name]


def rekeyed(messages: list[tuple[int, bytes]], target: int, first: int = 0) -> list[Record]:
    mine = [m for t, m in messages if t == target]
    return [Record(events.REKEYED, target, first + i, T0, "", m) for i, m in enumerate(mine)]


def test_a_duplicate_is_counted_once_and_again_after_the_horizon() -> None:
    shard = fresh()
    batch, _, dead = turn(shard, "shop.clicks", [click(0, event_id="a"), click(1, event_id="a"),
                                                 click(2, event_id="a", arrival=T0 + 24 * HOUR)])
    assert value(batch, "user_activity", ("u1",), "user_clicks_count_24h", T0 + HOUR) == 1
    assert batch.counters == {"shop.clicks:counted": 1, "shop.clicks:duplicate": 2}
    assert not dead
    batch, _, _ = turn(shard, "shop.clicks", [click(3, event_id="a", at=T0 + 50 * HOUR, arrival=T0 + 50 * HOUR)])
    assert batch.counters == {"shop.clicks:counted": 1}


def test_clocks_that_differ_at_the_edge_of_the_horizon_do_not_count_twice() -> None:
    shard, edge = fresh(), T0 // HOUR * HOUR + 25 * HOUR
    batch, _, _ = turn(shard, "shop.clicks", [click(0, event_id="a"), click(1, event_id="b", at=edge, arrival=edge),
                                              click(2, event_id="a", at=edge, arrival=edge - 1)])
    assert batch.counters == {"shop.clicks:counted": 2, "shop.clicks:duplicate": 1}


@pytest.mark.parametrize(("record", "outcome"), [
    (click(0, at=T0 + 301_000), "clock_ahead"),
    (click(0, at=T0 - 7 * 24 * HOUR - 1), "too_late"),
    (Record("shop.clicks", 0, 0, T0, "u1", b"\xff\xfe"), "poison"),
    (Record("shop.clicks", 0, 0, T0, "u1", None), "poison"),
    (Record("shop.clicks", 0, 0, T0, "u1", b'{"type":"product_clicked","version":2}'), "poison"),
])
def test_what_may_not_count_is_dead_lettered_and_passed_over(record: Record, outcome: str) -> None:
    shard = fresh()
    batch, _, dead = turn(shard, "shop.clicks", [record, click(1)])
    assert batch.counters == {f"shop.clicks:{outcome}": 1, "shop.clicks:counted": 1}
    assert batch.offsets["shop.clicks"] == 2
    ((topic, letter),) = dead
    assert topic == "shop.clicks.dlq"
    assert msgspec.json.decode(letter)["offset"] == 0


def test_rows_travel_to_the_partition_of_their_item_and_are_counted_there() -> None:
    items = [f"i{n}" for n in range(20)]
    _, travelling, _ = turn(fresh(), "shop.impressions", [shown(0, items), shown(1, items)])
    for target in (0, 1):
        batch, _, _ = turn(fresh(target), events.REKEYED, rekeyed(travelling, target))
        mine = [i for i in items if partition_of(i, 2) == target]
        assert {key for _, key in batch.states} == {(i,) for i in mine}
        assert all(value(batch, "item_activity", (i,), "item_impressions_count_5m") == 2 for i in mine)
        assert batch.sources == {("shop.impressions", 0): 2}


def test_a_replayed_or_overlapping_range_is_counted_once_and_a_gap_not_at_all() -> None:
    _, whole, _ = turn(fresh(), "shop.clicks", [click(n) for n in range(4)])
    _, half, _ = turn(fresh(), "shop.clicks", [click(n) for n in range(2)])
    late_owner = Shard(ENGINE, 0, "t", Progress(offsets={"shop.clicks": 6}))
    _, beyond, _ = turn(late_owner, "shop.clicks", [click(n) for n in range(6, 8)])
    target = partition_of("i1", 2)
    arriving = [*rekeyed(half, target), *rekeyed(beyond, target, 1), *rekeyed(whole, target, 2),
                *rekeyed(whole, target, 3)]
    batch, _, _ = turn(fresh(target), events.REKEYED, arriving)
    assert value(batch, "item_activity", ("i1",), "item_clicks_count_5m") == 4
    assert batch.sources["shop.clicks", 0] == 4


def test_any_batching_gives_the_same_windows() -> None:
    records = [click(n, event_id=f"e{n % 7}", at=T0 - n * 1000, item=f"i{n % 3}") for n in range(20)]
    one, _, _ = turn(fresh(), "shop.clicks", records)
    shard = fresh()
    for record in records:
        other, _, _ = turn(shard, "shop.clicks", [record])
    key = ("user_activity", ("u1",))
    view = PLAN.view("user_activity")
    assert repr(tiles.windows(view, one.states[key], T0)) == repr(
        tiles.windows(view, tiles.pack(ENGINE.layouts["user_activity"], shard._states[key]), T0))
    assert other.offsets == one.offsets


def test_a_torn_message_between_the_stages_does_not_stop_the_partition() -> None:
    batch, _, dead = turn(fresh(), events.REKEYED, [Record(events.REKEYED, 0, 0, T0, "", b"torn")])
    assert batch.offsets[events.REKEYED] == 1
    assert len(dead) == 1
