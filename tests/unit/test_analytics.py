"""Records become rows, batches are written in an order that a crash cannot spoil, letters are written once."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import orjson
import pytest

from adapters.analytics import MemoryStore
from adapters.analytics_schema import FOLDER, statements
from adapters.crash_points import crash_at
from adapters.decision_log import pack_features
from adapters.errors import Unavailable
from adapters.kafka import MemoryPublisher, Record
from feature_repo import events
from feature_repo.events import EventRejected
from services.analytics.batch import TABLES, Batch, Progress
from services.analytics.rollup import DIRTY, HOUR, Hours
from services.analytics.rows import READERS, rows_of
from services.analytics.write import NOTED, Letters, write

T0 = 1_795_000_000_000


def record(topic: str, value: dict[str, Any] | bytes, *, offset: int = 3, arrival: int = T0) -> Record:
    return Record(topic, 1, offset, arrival, "key", value if isinstance(value, bytes) else orjson.dumps(value))


def click(**own: Any) -> dict[str, Any]:
    return {"type": "product_clicked", "event_id": "e1", "event_time": T0, "version": 1, "user_id": "u1",
            "item_id": "i1", "category": "c", "price_cents": 5} | own


def decision(**own: Any) -> dict[str, Any]:
    return {"request_id": "r1", "event_time": T0, "user_id": "u1", "items": [{"item_id": "b", "score": 0.5}]} | own


def ranked(features: str) -> dict[str, Any]:
    return {"item_ids": ["a", "b"], "scores": [0.1, 0.2], "features_base64": features, "feature_names_sha": "s"}


def test_every_row_says_where_it_lay() -> None:
    table, (row,) = rows_of(record("shop.clicks", click(request_id="r", position=4)))
    assert table == "clicks"
    assert (row["_partition"], row["_offset"], row["_arrival_ms"]) == (1, 3, T0)
    assert (row["request_id"], row["position"], row["country"], row["session_id"]) == ("r", 4, "", "")


def test_an_order_is_a_row_a_line() -> None:
    line = {"item_id": "i", "category": "c", "price_cents": 7, "quantity": 2}
    order = {"type": "order_placed", "event_id": "o", "event_time": T0, "version": 1, "user_id": "u", "order_id": "1",
             "lines": [line, line | {"item_id": "j"}]}
    table, rows = rows_of(record("shop.orders", order))
    assert (table, [(row["line"], row["item_id"], row["quantity"]) for row in rows]) == (
        "orders", [(1, "i", 2), (2, "j", 2)])


def test_a_decision_keeps_what_the_ranker_saw_of_the_shown_items() -> None:
    rows = np.array([[1.0, math.nan], [3.0, 4.0]], np.float32)
    shown = [{"item_id": "b", "score": 0.5}, {"item_id": "put in by a rule", "score": 0.4}]
    _, (row,) = rows_of(record(events.DECISIONS, decision(rank=ranked(pack_features(rows)), items=shown,
                                                          arm="canary", rollout="7-1", cold_start="new_visitor",
                                                          model_versions={"ranker": "3"}, timings_ms={"total": 9.5})))
    assert row["rank_scores"] == [0.2, None]
    assert row["features"].tolist()[0] == [3, 4]
    assert np.isnan(row["features"][1]).all()
    assert (row["arm"], row["rollout"], row["ranker_version"], row["new_user"], row["total_ms"]) == (
        "canary", "7-1", "3", 1, 9.5)
    assert orjson.loads(orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY))["features"] == [[3, 4], [None, None]]


def test_a_decision_of_an_older_or_degraded_recommender_gets_empty_values() -> None:
    _, (row,) = rows_of(record(events.DECISIONS, decision(rank=None, candidates=None)))
    assert (row["arm"], row["rollout"], row["features"], row["rank_scores"], row["candidates"]) == (
        "champion", "", [], [None], 0)


@pytest.mark.parametrize(("topic", "value", "code"), [
    ("shop.clicks", b"not json", "not_an_event"),
    ("shop.clicks", click(version=2), "not_an_event"),
    ("shop.clicks", click(event_time=T0 - 8 * 86_400_000), "too_late"),
    ("shop.clicks", click(event_time=T0 + 600_000), "clock_ahead"),
    (events.DECISIONS, b"\xff\xfe", "not_a_decision"),
    (events.DECISIONS, decision(request_id=""), "not_a_decision"),
    (events.DECISIONS, decision(event_time="yesterday"), "not_a_decision"),
    (events.DECISIONS, decision(rank=ranked("###")), "not_a_decision"),
    (events.DECISIONS, decision(rank=ranked("AAAA")), "not_a_decision"),
    (events.SHADOW, b"[1]", "not_a_json_object"),
    (events.SHADOW, {"request_id": None}, "not_a_shadow_record"),
    (events.DRIFT_REPORTS, b"", "not_a_json_object"),
])
def test_what_is_no_row_says_why(topic: str, value: Any, code: str) -> None:
    with pytest.raises(EventRejected) as refused:
        rows_of(record(topic, value))
    assert str(refused.value).partition(":")[0] == code


@pytest.mark.parametrize("topic", [events.SHADOW, events.DRIFT_REPORTS, events.ROLLOUTS])
def test_records_with_anything_in_any_place_become_rows(topic: str) -> None:
    """Keys of these records may be missing or of another type: what is left is a row, never an exception."""
    rng = random.Random(1)
    names = ["event_time", "at_ms", "items", "scores", "features", "window", "kinds", "shares", "champion", "reasons",
             "model_versions", "overlap_at_k", "total_ms", "error", "seq", "epoch", "breakage", "requests", "k"]
    values = [None, "text", -1, 2**70 * 1.0, 3.5, True, [], [None, "a", 1.5, {}], {"a": 1, "canary": 5}, {}]
    for _ in range(300):
        found = {name: rng.choice(values) for name in names if rng.random() < 0.7} | {"request_id": "r"}
        _, (row,) = rows_of(record(topic, found))
        orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY)
        assert 946_684_800_000 <= row["event_ms"] <= 4_102_444_800_000


def test_a_drift_report_and_a_transition() -> None:
    report = {"id": "d", "at_ms": T0 + 1, "model": "ranker", "window": {"since_ms": 1, "until_ms": 2},
              "verdict": "drift", "window_text": "10m", "kinds": {"data": "drift"},
              "features": [{"name": "f", "level": "warn", "psi": 0.2}]}
    _, (row,) = rows_of(record(events.DRIFT_REPORTS, report))
    assert (row["event_ms"], row["window_text"], row["since_ms"]) == (T0 + 1, "10m", 1)
    assert (row["psi"], row["ks"]) == ([0.2], [None])
    step = {"id": "1-2", "at_ms": T0, "seq": 2, "from": "shadow", "to": "canary_5", "shares": {"canary": 5},
            "challenger": {"ranker": "4"}, "previous": None}
    _, (row,) = rows_of(record(events.ROLLOUTS, step))
    assert (row["to_state"], row["canary_percent"]) == ("canary_5", 5)
    assert (row["challenger"], row["previous"]) == ({"ranker": "4"}, {})


def progress() -> dict[tuple[str, int], Progress]:
    return {(topic, 1): Progress(0, 0) for topic in READERS}


def letters(store: MemoryStore, publisher: MemoryPublisher) -> Letters:
    there = lambda topic: [(1, 7)] if topic == "shop.carts" else []  # noqa: E731
    return Letters(store, publisher, there)  # type: ignore[arg-type]


def test_a_batch_takes_each_offset_once_and_accounts_for_it() -> None:
    batch = Batch(progress())
    batch.add([record("shop.clicks", click(), offset=0), record("shop.clicks", b"poison", offset=1)])
    batch.add([record("shop.clicks", click(), offset=1), record("shop.clicks", click(event_id="e2"), offset=5)])
    assert len(batch.rows["clicks"]) == 2
    assert len(batch.letters) == 1
    (commit,) = batch.commits(T0)
    assert (commit["next_offset"], commit["accepted"], commit["dead"]) == (6, 2, 1)


def test_offsets_are_written_last() -> None:
    store, publisher = MemoryStore(), MemoryPublisher()
    batch = Batch(progress())
    batch.add([record("shop.clicks", click(), offset=0), record("shop.clicks", b"poison", offset=1)])
    passed: list[tuple[str, int]] = []
    counts = write(store, letters(store, publisher), batch,
                   crash=lambda point: passed.append((point, len(store.rows.get("offsets", [])))))
    assert counts == {("shop.clicks", "accepted"): 1, ("shop.clicks", "dead_letter"): 1}
    assert [point for point, _ in passed] == ["before_write", "after_letters_noted", "after_letters", "between_inserts",
                                              "before_offsets", "after_offsets"]
    assert [offsets for _, offsets in passed] == [0, 0, 0, 0, 0, 1]
    assert (batch.size, batch.rows, batch.letters) == (0, {}, [])
    assert len(publisher.of("shop.clicks.dlq")) == 1
    assert [note["lettered_ms"] > 0 for note in store.rows["dead_letters"]] == [False, True]


def test_a_store_that_is_away_leaves_the_batch_as_it_is() -> None:
    store, publisher = MemoryStore(), MemoryPublisher()
    batch = Batch(progress())
    batch.add([record("shop.clicks", click(), offset=0)])
    store.away = True
    with pytest.raises(Unavailable):
        write(store, letters(store, publisher), batch)
    assert batch.size == 1


@pytest.mark.parametrize(("topic", "noted", "published"), [
    ("shop.clicks", {}, 1),                   # never seen
    ("shop.clicks", {"at": T0}, 0),           # published and noted
    ("shop.clicks", {"at": 0}, 1),            # noted, a crash, not in Kafka
    ("shop.carts", {"at": 0}, 0),             # noted, published, a crash: it lies in Kafka
])
def test_a_letter_lies_in_kafka_once(topic: str, noted: dict[str, int], published: int) -> None:
    store, publisher = MemoryStore(), MemoryPublisher()
    if noted:
        store.answers[NOTED] = [{"topic": topic, "partition": 1, "offset": 7, **noted}]
    batch = Batch(progress())
    batch.add([record(topic, b"poison", offset=7)])
    write(store, letters(store, publisher), batch)
    assert len(publisher.of(events.dlq(topic))) == published


def test_after_a_failure_the_hours_rest() -> None:
    store = MemoryStore({DIRTY: [{"hour_s": 3_600}, {"hour_s": 0}]})
    hours = Hours(store)
    assert hours.due()
    assert hours.compute() == 2
    assert [params for sql, params in store.executed if sql == HOUR] == [{"hour": "3600"}, {"hour": "0"}]
    hours = Hours(store)
    store.away = True
    with pytest.raises(Unavailable):
        hours.compute()
    assert not hours.due()


def test_every_table_of_the_readers_is_in_the_schema_with_its_columns() -> None:
    text = "\n".join(path.read_text() for path in sorted(FOLDER.glob("*.sql")))
    made = {part.split("(")[0].split()[-1]: part for part in statements(text) if part.startswith("CREATE TABLE")}
    samples = {"shop.clicks": click(), events.DECISIONS: decision(), events.SHADOW: {"request_id": "r"},
               events.DRIFT_REPORTS: {}, events.ROLLOUTS: {}}
    assert set(TABLES) | {"offsets", "dead_letters"} <= set(made)
    for topic, value in samples.items():
        table, (row,) = rows_of(record(topic, value))
        columns = {line.split()[0] for line in made[table].splitlines()[2:] if line.startswith("    ")}
        assert set(row) <= columns, table


def test_statements_are_told_apart() -> None:
    assert statements("-- a; b\nSELECT 1;\n\nSELECT ';' AS x\nFROM t;") == ["SELECT 1", "SELECT ';' AS x\nFROM t"]


def test_without_a_name_nothing_crashes() -> None:
    crash_at("")("anywhere")
    crash_at("here:2")("here")
