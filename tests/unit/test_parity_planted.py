"""Bugs of the kinds that feature platforms have, planted one by one: the parity proof must catch each, and say where.

The bugs are put in from outside, by replacing a function or by a store that fails; no such switch is in the platform.
"""

from __future__ import annotations

from typing import Any

import pytest

from adapters.feature_state import Batch
from feature_repo import events, tile_reader
from pipelines.flink.parity_engine import FlinkEngine
from pipelines.parity.generate import Recipe, Stream
from pipelines.parity.payloads import SPOILED
from services.stream_features import shard
from tests.unit.parity_in_memory import (
    Crash,
    Log,
    MemoryStore,
    Verdict,
    count,
    drawn,
    functions_wrong,
    judge,
    load_plan,
    logs,
)

PLAN = load_plan()


@pytest.fixture(scope="module")
def stream() -> Stream:
    return drawn(PLAN)


@pytest.fixture(scope="module")
def log(stream: Stream) -> Log:
    return logs(stream)


def proof(stream: Stream, log: Log, store: MemoryStore) -> Verdict:
    count(PLAN, log, store)
    return judge(PLAN, stream, log, store)


@pytest.fixture(scope="module")
def counted(stream: Stream, log: Log) -> MemoryStore:
    """What a sound worker leaves, killed before several of its commits; for bugs that lie in reading alone."""
    store = MemoryStore(crashes=frozenset({2, 3, 17, 40}))
    count(PLAN, log, store)
    return store


def test_without_a_bug_everything_is_equal(stream: Stream, log: Log, counted: MemoryStore) -> None:
    verdict = judge(PLAN, stream, log, counted)
    assert counted.commits > 50
    assert not verdict.explained, verdict.text
    assert not verdict.outcomes
    declared = {(v.name, f.function, f.window) for v in PLAN.declared_views for f in v.declared}
    assert declared == set(verdict.comparison.tallies)
    assert verdict.comparison.checks > 10_000


def test_a_window_edge_off_by_one(stream: Stream, log: Log, counted: MemoryStore, monkeypatch: pytest.MonkeyPatch
                                  ) -> None:
    sound = tile_reader.tile_range

    def late_by_one(window: Any, now_ms: int) -> tuple[int, int]:
        first, final = sound(window, now_ms)
        return first + 1, final

    monkeypatch.setattr(tile_reader, "tile_range", late_by_one)
    verdict = judge(PLAN, stream, log, counted)
    assert {"count", "sum", "distinct"} <= functions_wrong(verdict)
    assert "not to be counted" in verdict.text


def test_a_late_event_dropped(stream: Stream, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    sound = shard.lateness

    def impatient(event_time_ms: int, arrival_ms: int) -> Any:
        return "too_late" if event_time_ms < arrival_ms - 86_400_000 else sound(event_time_ms, arrival_ms)

    monkeypatch.setattr(shard, "lateness", impatient)
    verdict = proof(stream, log, MemoryStore())
    assert verdict.comparison.wrong
    assert "not to be counted" in verdict.text
    assert any(":too_late" in line for line in verdict.outcomes)


def test_a_duplicate_counted(stream: Stream, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard, "DEDUP_HOURS", -1)
    verdict = proof(stream, log, MemoryStore())
    assert verdict.comparison.wrong
    assert "is duplicate and seems to be counted" in verdict.text
    assert any(":duplicate" in line for line in verdict.outcomes)


def test_a_stale_tile(stream: Stream, log: Log) -> None:
    class Forgetful(MemoryStore):
        """Now and then a state is not written, while the offsets move on."""

        def put(self, states: dict[Any, bytes]) -> None:
            super().put({key: packed for n, (key, packed) in enumerate(states.items()) if (n + self.commits) % 50})

    verdict = proof(stream, log, Forgetful(crashes=frozenset(range(10, 500, 10))))
    assert verdict.comparison.wrong
    assert "not to be counted" in verdict.text
    assert not verdict.outcomes  # every record is accounted for: only the values tell


def test_the_offset_before_the_state(stream: Stream, log: Log) -> None:
    class OffsetFirst(MemoryStore):
        """Not one transaction: a worker that dies in between has moved on and counted nothing."""

        def commit(self, batches: list[Batch], now_ms: int) -> None:
            self.commits += 1
            for batch in batches:
                self.advance(batch)
            if self.commits in self.crashes:
                raise Crash
            for batch in batches:
                self.put(batch.states)

    verdict = proof(stream, log, OffsetFirst(crashes=frozenset({5, 12, 20, 30, 45})))
    assert verdict.comparison.wrong
    assert "not to be counted" in verdict.text
    assert not verdict.outcomes


def test_a_maximum_that_is_subtracted(stream: Stream, log: Log, counted: MemoryStore, monkeypatch: pytest.MonkeyPatch
                                      ) -> None:
    total, rows = tile_reader.TileReader._total, tile_reader.TileReader._rows

    def running(self: Any, kind: Any, column: str, window: Any) -> Any:
        self.extreme = kind in ("min", "max")
        found = total(self, kind, column, window)
        self.extreme = False
        return found

    def cumulated(self: Any, at: int, window: Any) -> Any:
        """For extremes all tiles up to now: what left the window cannot be taken out of a running one."""
        if not self.extreme:
            return rows(self, at, window)
        keys, held = self._gather_level(at)
        upto = held["tile"] <= tile_reader.tile_range(window, self._now)[1]
        return keys[upto], held[upto]

    monkeypatch.setattr(tile_reader.TileReader, "_total", running)
    monkeypatch.setattr(tile_reader.TileReader, "_rows", cumulated)
    monkeypatch.setattr(tile_reader.TileReader, "extreme", False, raising=False)
    verdict = judge(PLAN, stream, log, counted)
    assert functions_wrong(verdict) == {"min", "max"}


@pytest.mark.parametrize("kind", SPOILED)
def test_every_kind_of_poison_is_none_for_the_worker_and_flink_says_which_it_takes(kind: str) -> None:
    good = (b'{"type":"product_clicked","event_id":"e1","event_time":1790000000000,"user_id":"u1",'
            b'"item_id":"i1","category":"tea","price_cents":1}')
    assert events.decode("shop.clicks", good)
    with pytest.raises(events.EventRejected):
        events.decode("shop.clicks", SPOILED[kind](good))
    assert FlinkEngine.accepts.keys() <= SPOILED.keys()
    with pytest.raises(ValueError, match=r"spoiled \['sour'\] cannot be drawn; known are empty"):
        Recipe(1_000, 1, 1, PLAN.topics, spoiled=("sour",))
