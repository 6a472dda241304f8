"""The online store answers in time or says that it cannot; commits are fenced; the fake behaves as the real one."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import redis

from adapters.errors import Unavailable
from adapters.feature_state import Batch, FeatureState, Fenced
from adapters.online_store import ItemSnapshot, MemoryReader, OnlineStore
from feature_repo import tiles
from feature_repo.layout import layout_of
from feature_repo.plan import FeaturePlan

PLAN = FeaturePlan.load(Path(__file__).parents[1] / "plan.json")
T0 = 1_790_000_000_000


def impressions(n: int, at: int = T0) -> bytes:
    """Packed tiles of an item that was shown n times."""
    layout = layout_of(PLAN.view("item_activity"))
    state = tiles.State(layout)
    feed = next(i for i, f in enumerate(layout.feeds) if f.topic == "shop.impressions")
    tiles.apply(layout, state, feed, at, at, (), n)
    return tiles.pack(layout, state)


@pytest.fixture
def url(redis_url: str) -> str:
    found = redis_url.replace("/0", "/9")
    redis.Redis.from_url(found).flushdb()
    return found


@contextmanager
def hung_server() -> Iterator[str]:
    """Accepts connections and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        yield f"redis://127.0.0.1:{listener.getsockname()[1]}/0"


async def test_the_fake_and_the_real_reader_agree(url: str) -> None:
    real, fake = OnlineStore(url, PLAN, timeout_ms=2_000), MemoryReader()
    FeatureState(url, PLAN).put({("item_activity", ("i1",)): impressions(3)}, T0)
    fake.values["item_activity"] = {("i1",): impressions(3)}
    asked = [("item_activity", [("i1",), ("none",), ("i1",)]), ("user_category_activity", [("u", "c")]),
             ("user_activity", [])]
    assert await real.read_many(asked) == await fake.read_many(asked) == [
        [impressions(3), None, impressions(3)], [None], []]
    await real.close()


@pytest.mark.parametrize("kind", ["hung", "closed"])
async def test_a_redis_that_does_not_answer_costs_its_timeout_at_most(kind: str) -> None:
    with hung_server() as hung:
        store = OnlineStore(hung if kind == "hung" else "redis://127.0.0.1:1/0", PLAN, timeout_ms=50)
        for _ in range(3):
            started = time.monotonic()
            with pytest.raises(Unavailable):
                await store.read("user_activity", [("u",)])
            assert time.monotonic() - started < 5  # a server that hangs never answers
        waiting = [store.read("user_activity", [("u",)]) for _ in range(20)]
        assert all(isinstance(r, Unavailable) for r in await asyncio.gather(*waiting, return_exceptions=True))
        await store.close()


def test_only_the_owner_commits_and_nothing_of_a_refused_commit_is_written(url: str) -> None:
    state = FeatureState(url, PLAN)
    old = state.claim(0)
    new = state.claim(0)
    batch = Batch(partition=0, token=old, states={("item_activity", ("i1",)): impressions(1)},
                  offsets={"shop.clicks": 5}, counters={"shop.clicks:counted": 5})
    with pytest.raises(Fenced):
        state.commit([batch], T0)
    assert state.states([("item_activity", ("i1",))]) == [None]
    assert state.counters(1) == {}
    batch.token = new
    batch.sighted, batch.newest_hours = {("shop.clicks", 100): [7, 2**64 - 1]}, {"shop.clicks": 100}
    batch.sources = {("shop.clicks", 3): 11}
    state.commit([batch], T0)
    progress = state.load(0)
    assert progress is not None
    assert (progress.offsets, progress.sources) == ({"shop.clicks": 5}, {("shop.clicks", 3): 11})
    assert progress.seen == {"shop.clicks": {7: 100, 2**64 - 1: 100}}
    redis.Redis.from_url(url).flushdb()
    with pytest.raises(Fenced):
        state.commit([batch], T0)


def test_progress_of_another_feature_set_counts_as_none(url: str) -> None:
    state = FeatureState(url, PLAN)
    state.commit([Batch(partition=0, token=state.claim(0), offsets={"shop.clicks": 5})], T0)
    other = FeaturePlan(project="other", declared_views=PLAN.declared_views)
    assert FeatureState(url, other).load(0) is None


def test_the_snapshot_reads_what_changed_and_decays(url: str) -> None:
    state, snapshot = FeatureState(url, PLAN), ItemSnapshot(url, PLAN)
    state.put({("item_activity", (f"i{n}",)): impressions(n + 1) for n in range(5)}, T0)
    assert snapshot.refresh(T0) == 5
    name = "item_impressions_count_5m"
    assert [snapshot.columns(T0)[name][snapshot.row_of(f"i{n}")] for n in range(5)] == [1, 2, 3, 4, 5]
    state.put({("item_activity", ("i2",)): impressions(30), ("item_activity", ("new",)): impressions(9)}, T0 + 1_000)
    assert snapshot.refresh(T0 + 1_000) == 2
    columns = snapshot.columns(T0 + 1_000)
    assert (columns[name][snapshot.row_of("i2")], columns[name][snapshot.row_of("new")]) == (30, 9)
    assert snapshot.row_of("unknown") == -1
    assert snapshot.refresh(T0 + 30_000) == 0
    snapshot.refresh(T0 + 600_000)
    assert snapshot.columns(T0 + 600_000)[name].sum() == 0
    snapshot.close()


def test_the_snapshot_works_out_what_the_clock_changes_and_nothing_else(url: str) -> None:
    state, snapshot = FeatureState(url, PLAN), ItemSnapshot(url, PLAN)
    at = T0 - T0 % 3_600_000 + 600_000
    state.put({("item_activity", (f"i{n}",)): impressions(n + 1, at) for n in range(5)}, at)
    snapshot.refresh(at)
    read: list[int] = []
    inner = snapshot._reader.lasting
    snapshot._reader.lasting = lambda packed, now_ms: read.append(len(packed)) or inner(packed, now_ms)  # type: ignore[method-assign]
    for minutes in (1, 2, 7, 59, 60, 61, 62, 200, 1500, 1501, 0, 12_000):  # one step goes back
        now = at + 60_000 * minutes
        snapshot.refresh(now)
        fresh = ItemSnapshot(url, PLAN)
        fresh.refresh(now)
        for name, column in snapshot.columns(now).items():
            again = fresh.columns(now)[name]
            rows = [fresh.row_of(item) for item in snapshot.items]
            assert np.array_equal(column, again[rows], equal_nan=column.dtype != object), (minutes, name)
            assert column.dtype == again.dtype
        fresh.close()
    assert sum(read) < 5 * 12, "in some of these minutes nothing left a window"
    snapshot.close()


def test_the_snapshot_keeps_what_it_has_while_redis_is_away() -> None:
    snapshot = ItemSnapshot("redis://127.0.0.1:1/0", PLAN, refresh_s=0.05, timeout_s=0.1)
    snapshot.start()
    time.sleep(0.3)
    assert not snapshot.ready
    assert snapshot.age_s() == float("inf")
    assert len(snapshot.columns(T0)["item_clicks_count_1h"]) == 0
    snapshot.close()
