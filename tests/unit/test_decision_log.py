"""The decision log never makes an answer wait, keeps what it can, and counts what it drops."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from adapters.decision_log import DECISIONS_LOGGED, DecisionLog, features_of, pack_features
from adapters.kafka import MemoryPublisher
from feature_repo.events import DECISIONS


@pytest.fixture
def sink() -> MemoryPublisher:
    return MemoryPublisher()


def record(i: int = 0) -> dict:
    return {"request_id": f"r-{i}", "user_id": "u", "event_time": 1, "scores": np.arange(3, dtype=np.float32)}


def counted(outcome: str) -> float:
    return DECISIONS_LOGGED.labels(outcome)._value.get()


def test_a_record_is_published_under_its_id_and_can_be_looked_up(sink: MemoryPublisher, tmp_path: Path) -> None:
    log = DecisionLog(sink, tmp_path)
    assert log.write(record)
    log.close()
    (published,) = sink.of(DECISIONS)
    assert published.key == "r-0"
    assert orjson.loads(published.value or b"")["scores"] == [0, 1, 2]
    assert orjson.loads(log.find("r-0") or b"")["user_id"] == "u"
    assert log.find("r-unknown") is None


def test_a_record_that_is_still_being_built_is_waited_for(sink: MemoryPublisher, tmp_path: Path) -> None:
    log, asked = DecisionLog(sink, tmp_path), threading.Event()

    def slow() -> dict:
        asked.wait(5)
        return record()

    log.write(slow)
    threading.Timer(0.05, asked.set).start()
    assert orjson.loads(log.find("r-0") or b"")["user_id"] == "u"
    log.close()


def test_a_full_queue_drops_and_counts_at_once(sink: MemoryPublisher, tmp_path: Path) -> None:
    log, gate, before = DecisionLog(sink, tmp_path, waiting=2), threading.Event(), counted("dropped")

    def slow() -> dict:
        gate.wait(5)
        return record()

    taken = [log.write(slow) for _ in range(10)]
    gate.set()
    log.close()
    assert taken.count(False) >= 7
    assert counted("dropped") - before == taken.count(False)


def test_kafka_shedding_is_counted_and_memory_still_knows(sink: MemoryPublisher, tmp_path: Path) -> None:
    sink.full = True
    log, before = DecisionLog(sink, tmp_path), counted("dropped")
    log.write(record)
    log.close()
    assert counted("dropped") - before == 1
    assert log.find("r-0") is not None


def test_a_record_that_cannot_be_built_stops_nothing(sink: MemoryPublisher, tmp_path: Path) -> None:
    log = DecisionLog(sink, tmp_path)
    log.write(lambda: {}["no"])
    log.write(record)
    log.close()
    assert len(sink.of(DECISIONS)) == 1


def test_memory_keeps_the_last_ones_only(sink: MemoryPublisher, tmp_path: Path) -> None:
    log = DecisionLog(sink, tmp_path, keep=3)
    for i in range(5):
        log.write(lambda i=i: record(i))
    log.close()
    assert [log.find(f"r-{i}") is not None for i in range(5)] == [False, False, True, True, True]


@given(hnp.arrays(np.float32, st.tuples(st.integers(1, 9), st.integers(1, 7)), elements=st.floats(width=32)))
def test_feature_rows_come_back_bit_for_bit(rows: np.ndarray) -> None:
    packed = {"rank": {"item_ids": ["x"] * len(rows), "features_base64": pack_features(rows)}}
    np.testing.assert_array_equal(features_of(packed).view(np.uint32), rows.view(np.uint32))


def test_workers_find_one_anothers_records_and_keep_the_last_ones_only(sink: MemoryPublisher, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    one, two = (DecisionLog(sink, tmp_path, keep=3, shared=shared) for _ in range(2))
    for i in range(5):
        one.write(lambda i=i: record(i))
    one.settle(30)
    assert [two.find(f"r-{i}") is not None for i in range(5)] == [False, False, True, True, True]
    assert two.find("../shared/r-4") is None
    assert len(list((shared / "decisions").iterdir())) == 3
    one.close()
    two.close()
