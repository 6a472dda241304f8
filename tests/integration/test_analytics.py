"""Kafka to ClickHouse is exact whatever happens to either end: real Kafka, ClickHouse's engine, kill -9."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from adapters.kafka import DeadLetter, read_topic
from feature_repo import events
from pipelines.stack import clickhouse_server
from pipelines.stack.launch import free_ports
from services.analytics.consumer import TOPICS, Consumer
from tests.integration.analytics_stack import Sent, Stack, Truth, analytics_stack, stream_of, truth_of
from tests.integration.conftest import HOST, clickhouse_running

BY_SIGNAL = "before_offsets"  # as a process of its own; the others within this one
POINTS = ("before_write", "after_letters", "after_letters_noted", "between_inserts:3", BY_SIGNAL, "after_offsets",
          "after_rollup")
SUMS = {"decisions": "requests", "degraded": "degraded_requests"} | {
    name: name for name in ("impressions", "shown", "clicks", "carts", "orders", "revenue_cents")}
SUMMED = ", ".join(f"sum({column}) AS {name}" for name, column in SUMS.items())
HOURLY = f"SELECT toUnixTimestamp(hour) AS hour_s, arm, {SUMMED} FROM hourly_stats GROUP BY hour, arm"  # noqa: S608
KEYS = {"decisions": "request_id", "shadow": "request_id", "impressions": "event_id", "clicks": "event_id",
        "carts": "event_id", "orders": "event_id"}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    if not clickhouse_server.installed():
        pytest.skip("chdb-core is not in .venv/clickhouse; make test installs it where it has a wheel")
    with analytics_stack(tmp_path_factory.mktemp("analytics")) as found:
        yield found


@pytest.fixture(scope="module")
def sent() -> list[Sent]:
    return []


def check(stack: Stack, truth: Truth) -> None:
    """Every table, the hourly statistics and the accounts say what was sent, no more and no less."""
    store = stack.store
    for table, key in KEYS.items():
        rows = store.query(f"SELECT {key} AS id, count() AS n FROM {table} FINAL GROUP BY id")  # noqa: S608
        assert {row["id"] for row in rows} == truth.rows[table], table
        each = 2 if table == "orders" else 1
        assert {row["n"] for row in rows} == {each}, table
    (letters,) = store.query("SELECT count() AS n FROM dead_letters FINAL")
    assert letters["n"] == truth.dead
    (accounts,) = store.query("SELECT sum(accepted) AS accepted, sum(dead) AS dead, "
                              "sum(next_offset - first_offset) AS read FROM offsets FINAL")
    assert accounts["accepted"] + accounts["dead"] == accounts["read"] == sum(stack.ends().values())
    assert accounts["dead"] == truth.dead
    found = {
        (row["hour_s"], row["arm"]): {name: row[name] for name in SUMS if row[name]}
        for row in store.query(HOURLY)}
    assert found == {key: {k: v for k, v in counts.items() if v} for key, counts in truth.hourly.items()}
    store.close()


class Killed(BaseException):
    """Ends a consumer of this process where a process of its own would have been killed."""


def run_until_killed(stack: Stack, point: str) -> None:
    passed: Counter[str] = Counter()
    name, _, nth = point.partition(":")

    def crash(here: str) -> None:
        passed[here] += 1
        if here == name and passed[here] >= int(nth or 1):
            raise Killed(here)

    consumer = Consumer(stack.store, stack.bootstrap, stack.publisher, crash=crash)
    with pytest.raises(Killed):
        consumer.run()


def test_killed_between_any_two_steps_counts_everything_once(stack: Stack, sent: list[Sent]) -> None:
    now = int(time.time() * 1000)
    stream = stream_of(1, 900, now)
    slice_ = len(stream) // (len(POINTS) + 1)
    for n, point in enumerate(POINTS):
        stack.produce(stream[n * slice_:(n + 1) * slice_])
        if point == BY_SIGNAL:
            assert stack.start(point).wait(60) == 137, point
        else:
            run_until_killed(stack, point)
        if n == 0:
            stack.store.execute("SYSTEM STOP MERGES")  # so that what was written twice can be seen
    stack.produce(stream[len(POINTS) * slice_:])
    sent += stream
    stack.start()  # and goes on through the tests below
    stack.wait_stored()
    check(stack, truth_of(sent))
    (raw,) = stack.store.query("SELECT count() AS n FROM decisions")
    assert raw["n"] > len(truth_of(sent).rows["decisions"])  # the kills did leave rows that were written twice


def test_each_dead_letter_says_where_and_why(stack: Stack, sent: list[Sent]) -> None:
    found: dict[tuple[str, int, int], DeadLetter] = {}
    copies = 0
    known = truth_of(sent)
    for topic in TOPICS:
        for record in read_topic(stack.bootstrap, events.dlq(topic)):
            letter = msgspec.json.decode(record.value or b"", type=DeadLetter)
            assert letter.source == "analytics"
            found[letter.topic, letter.partition, letter.offset] = letter
            copies += 1
    assert len(found) == copies == known.dead
    codes = {letter.reason.partition(":")[0] for letter in found.values()}
    assert codes == {"not_an_event", "not_a_decision", "not_a_json_object", "not_a_shadow_record", "too_late"}


def test_the_store_is_killed_and_comes_back(stack: Stack, sent: list[Sent], tmp_path: Path) -> None:
    """A part of a stream while the store is up, kill -9, the rest while it is away; then it starts on its folder."""
    (port,) = free_ports(1)
    mine = Stack(stack.home, stack.bootstrap, f"http://{HOST}:{port}", stack.publisher)
    more = stream_of(2, 200, int(time.time() * 1000))
    consumer = Consumer(mine.store, mine.bootstrap, mine.publisher)
    thread = threading.Thread(target=consumer.run, daemon=True)
    with clickhouse_running(tmp_path, port) as server:
        thread.start()
        mine.wait_stored()
        mine.produce(more[:len(more) // 2])
        time.sleep(0.7)  # somewhere within a write, or just after
        server.kill()
    mine.produce(more[len(more) // 2:])
    sent += more
    with clickhouse_running(tmp_path, port):
        mine.wait_stored()
        check(mine, truth_of(sent))
        consumer.stop()
        thread.join(30)
        assert not thread.is_alive()


def test_a_store_that_is_emptied_is_filled_again_from_kafka(stack: Stack, sent: list[Sent]) -> None:
    stack.wait_stored()
    stack.store.execute("DROP DATABASE minimart SYNC")
    stack.produce(more := stream_of(3, 20, int(time.time() * 1000)))  # the consumer goes on, and finds nothing there
    sent += more
    stack.wait_stored()
    check(stack, truth_of(sent))
    stack.stop(stack.processes[-1])


def test_logs_hold_no_traceback(stack: Stack) -> None:
    assert "Traceback" not in (stack.home / "analytics.log").read_text(errors="replace")
