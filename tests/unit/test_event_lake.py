"""The lake: written whole or not at all, exactly once by names, found again by time, key and request."""

from __future__ import annotations

import random
from pathlib import Path

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters import event_lake
from adapters.kafka import Record
from feature_repo import events
from services.event_log.writer import Log

T0 = 1_790_000_000_000 // 3_600_000 * 3_600_000
HOUR = 3_600_000


def click(n: int, at: int) -> bytes:
    return events.encode(events.ProductClicked(event_id=f"e{n}", event_time=at, user_id="u", item_id="i",
                                               category="tea", price_cents=5))


def clicks(n: int, arrivals: list[int] | None = None) -> list[Record]:
    times = arrivals or [T0 + i for i in range(n)]
    return [Record("shop.clicks", 1, i, times[i], "u", click(i, times[i])) for i in range(n)]


@pytest.mark.parametrize("topic", [*(e.topic for e in events.EVENTS), events.DECISIONS])
def test_every_topic_has_a_schema_with_its_place(topic: str) -> None:
    kind = event_lake.schema(topic)
    assert {"_partition", "_offset", "_arrival", "event_time"} <= set(kind.names)


def test_order_lines_are_lists_of_structs(tmp_path: Path) -> None:
    order = events.OrderPlaced(event_id="e", event_time=T0, user_id="u", order_id="o",
                               lines=[events.OrderLine(item_id="i", category="c", price_cents=3)])
    table, poison = event_lake.to_table("shop.orders", [Record("shop.orders", 0, 0, T0, "u", events.encode(order))])
    assert not poison
    line = {"item_id": "i", "category": "c", "price_cents": 3, "quantity": 1}
    assert table["lines"].to_pylist() == [[line | {"seller_id": None}]]


def test_files_of_an_older_schema_are_read_with_the_new_fields_missing(tmp_path: Path) -> None:
    line = {"item_id": "i", "category": "c", "price_cents": 3, "quantity": 2}
    kind = event_lake.schema("shop.orders")
    older = pa.schema([pa.field("lines", pa.list_(pa.struct([f for f in kind.field("lines").type.value_type
                                                             if f.name != "seller_id"]))) if f.name == "lines" else f
                       for f in kind])
    row = {"event_id": "e", "event_time": T0, "user_id": "u", "order_id": "o", "_partition": 0, "_arrival": T0}
    for n, (schema, lines) in enumerate([(older, [line]), (kind, [line | {"seller_id": "s"}])]):
        table = pa.Table.from_pylist([row | {"_offset": n, "lines": lines}], schema=schema)
        event_lake.write_part(tmp_path, "shop.orders", 0, n, n, T0, table)
    found = event_lake.scan(tmp_path, "shop.orders")["lines"].to_pylist()
    assert found == [[line | {"seller_id": None}], [line | {"seller_id": "s"}]]


@given(st.lists(st.integers(0, 3 * HOUR), min_size=1, max_size=60), st.integers(0, 10**6))
@settings(max_examples=12, deadline=None)
def test_a_writer_that_dies_anywhere_loses_and_repeats_nothing(
        tmp_path_factory: pytest.TempPathFactory, ages: list[int], seed: int) -> None:
    rng = random.Random(seed)
    lake = tmp_path_factory.mktemp("lake")
    records = clicks(len(ages), [T0 + a for a in ages])
    log = Log(lake, "shop.clicks", 1)
    while log.next_offset < len(records) or len(log):
        log.add(records[log.next_offset:log.next_offset + rng.randint(1, 20)])
        files, _ = log.read()
        if rng.random() < 0.4:  # dies after some of the files
            for run, table in files[:rng.randint(0, len(files))]:
                event_lake.write_part(lake, "shop.clicks", 1, run.first, run.last, run.hour_ms, table)
            log = Log(lake, "shop.clicks", 1)
        elif rng.random() < 0.7:
            log.write(files)
        if rng.random() < 0.2:
            event_lake.compact(lake, "shop.clicks", at_least=2)
    assert sorted(event_lake.scan(lake, "shop.clicks", ["_offset"])["_offset"].to_pylist()) == list(range(len(records)))
    assert event_lake.contiguous_ends(lake, "shop.clicks") == {1: len(records)}


def test_poison_is_covered_by_the_range_and_reported(tmp_path: Path) -> None:
    log = Log(tmp_path, "shop.clicks", 1)
    log.add([Record("shop.clicks", 1, 0, T0, "u", b"\xff"), Record("shop.clicks", 1, 1, T0, "u", None)])
    files, poison = log.read()
    log.write(files)
    assert [p.reason.partition(":")[0] for p in poison] == ["not_an_event"] * 2
    assert event_lake.contiguous_ends(tmp_path, "shop.clicks") == {1: 2}
    assert event_lake.scan(tmp_path, "shop.clicks").num_rows == 0


def test_a_compaction_cut_off_before_it_deleted_is_read_once(tmp_path: Path) -> None:
    table, _ = event_lake.to_table("shop.clicks", clicks(30))
    for i in range(0, 30, 10):
        event_lake.write_part(tmp_path, "shop.clicks", 1, i, i + 9, T0, table.slice(i, 10))
    event_lake.write_part(tmp_path, "shop.clicks", 1, 0, 29, T0, table)
    assert event_lake.scan(tmp_path, "shop.clicks").num_rows == 30
    assert event_lake.compact(tmp_path, "shop.clicks", at_least=2) == 0
    assert len(list(tmp_path.rglob("*.parquet"))) == 1


def test_imports_fill_what_is_missing_and_replace_themselves(tmp_path: Path) -> None:
    days = 3
    table = pa.table({"event_id": [f"e{i}" for i in range(days)],
                      "event_time": [T0 + i * 24 * HOUR for i in range(days)], "user_id": ["u"] * days,
                      "item_id": ["i"] * days, "category": ["c"] * days, "price_cents": [1] * days})
    for _ in range(2):
        assert len(event_lake.write_import(tmp_path, "shop.clicks", table, 0)) == days
    rows = event_lake.scan(tmp_path, "shop.clicks").to_pylist()
    assert len(rows) == days
    assert rows[0]["type"] == "product_clicked"
    assert (rows[0]["_partition"], rows[0]["version"], rows[0]["device"]) == (-1, 1, None)
    some = event_lake.scan(tmp_path, "shop.clicks", ["event_id"], T0 + 1, T0 + 48 * HOUR)
    assert some["event_id"].to_pylist() == ["e1"]


def test_a_decision_is_found_by_its_request_id(tmp_path: Path) -> None:
    request_id = f"{T0 >> 16:08x}-{T0 & 0xFFFF:04x}-7000-8000-000000000001"
    payload = msgspec.json.encode({"request_id": request_id, "user_id": "u", "event_time": T0, "k": 20})
    table, _ = event_lake.to_table(events.DECISIONS, [Record(events.DECISIONS, 0, 0, T0, request_id, payload)])
    event_lake.write_part(tmp_path, events.DECISIONS, 0, 0, 0, T0, table)
    assert (event_lake.find_decision(tmp_path, request_id) or {})["k"] == 20
    assert event_lake.find_decision(tmp_path, request_id[:-1] + "2") is None
    assert event_lake.find_decision(tmp_path, "not-a-uuid") is None


def test_an_empty_lake_answers_with_the_schema(tmp_path: Path) -> None:
    assert event_lake.scan(tmp_path, "shop.carts").schema.names == event_lake.schema("shop.carts").names
    assert event_lake.contiguous_ends(tmp_path, "shop.carts") == {}


def test_years_of_history_make_few_files(tmp_path: Path) -> None:
    n = 400
    table = pa.table({"event_id": [f"e{i}" for i in range(n)], "event_time": [T0 + i * 24 * HOUR for i in range(n)],
                      "user_id": ["u"] * n, "item_id": ["i"] * n, "category": ["c"] * n, "price_cents": [1] * n})
    assert len(event_lake.write_import(tmp_path, "shop.clicks", table, 0)) <= 15
    some = event_lake.scan(tmp_path, "shop.clicks", ["event_id"], T0 + 100 * 24 * HOUR, T0 + 103 * 24 * HOUR)
    assert some["event_id"].to_pylist() == ["e100", "e101", "e102"]
