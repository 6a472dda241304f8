"""Features are exact whatever happens to the workers: real Kafka, real Redis, kill -9, fencing, an emptied Redis."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis

from adapters import event_lake
from adapters.kafka import DeadLetter, KafkaPublisher, read_topic
from feature_repo import events, tiles
from pipelines.point_in_time import features_at
from tests import brute_force
from tests.integration.feature_stack import DAY, HOUR, Stack, as_oracle, feature_stack, hard_stream, produce

PORT = 21_300
POINTS = ("after_poll", "after_count", "during_publish", "after_publish", "after_commit")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with feature_stack(tmp_path_factory.mktemp("features")) as found:
        yield found


class Truth:
    """What was produced so far, and what the oracle makes of it."""

    def __init__(self) -> None:
        self.stream: list[tuple[str, str, bytes, int]] = []
        self.by_key: dict[tuple[str, Any], list[dict[str, Any]]] = {}
        self.outcomes: Counter[str] = Counter()

    def add(self, stream: list[tuple[str, str, bytes, int]]) -> None:
        self.stream += stream
        readable, poison = as_oracle(self.stream)
        accepted = brute_force.accepted(readable)
        late = sum(not (-7 * DAY <= e["event_time"] - e["arrival"] <= 5 * 60_000) for e in readable)
        self.outcomes = Counter(counted=len(accepted), poison=poison, late=late,
                                duplicate=len(readable) - late - len(accepted))
        found: dict[tuple[str, Any], list[dict[str, Any]]] = defaultdict(list)
        for event in accepted:
            for prefix, key in {(p, k) for p, k, _, _ in brute_force.rows_of(event)}:
                found[prefix, key].append(event)
        self.by_key = found


@pytest.fixture(scope="module")
def truth() -> Truth:
    return Truth()


def check(stack: Stack, truth: Truth, now: int, keys_per_view: int = 12) -> None:
    """Redis equals brute force for sampled keys (hot ones included), every feature; and nothing is unaccounted for."""
    rng = random.Random(1)
    state = stack.state
    for view in stack.plan.declared_views:
        keys = sorted(k for p, k in truth.by_key if p == brute_force.PREFIX[view.name])
        keys = rng.sample(keys, min(keys_per_view, len(keys)))
        for key, packed in zip(keys, state.states([(view.name, k) for k in keys]), strict=True):
            ours = tiles.windows(view, packed, now)
            seen = truth.by_key[brute_force.PREFIX[view.name], key]
            for name, expected in brute_force.features(view.features, key, seen, now).items():
                assert brute_force.same(ours[name], expected), (name, key, ours[name], expected)
    counted = state.counters(4)
    total: Counter[str] = Counter()
    for name, number in counted.items():
        outcome = name.rpartition(":")[2]
        total["late" if outcome in ("clock_ahead", "too_late") else outcome] += number
    assert total == truth.outcomes
    assert sum(total.values()) == len(truth.stream)


def test_killed_at_random_and_named_points_counts_everything_once(stack: Stack, truth: Truth) -> None:
    now = int(time.time() * 1000)
    stream = hard_stream(1, 20_000, now - 26 * HOUR, 26 * HOUR)
    rng = random.Random(5)
    produce(stack, stream[:8_000])
    for round_, point in enumerate((*POINTS, None, None)):
        worker = stack.start("stream_features", PORT, crash_point=point or "")
        produce(stack, stream[8_000 + 1_700 * round_:8_000 + 1_700 * (round_ + 1)])
        if point is None:
            time.sleep(rng.uniform(4.0, 6.0))
            worker.send_signal(signal.SIGKILL)
        code = worker.wait(60)
        assert code in (137, -9)
    produce(stack, stream[8_000 + 1_700 * 7:])
    truth.add(stream)
    worker = stack.start("stream_features", PORT)
    stack.wait_done()
    check(stack, truth, int(time.time() * 1000))
    worker.terminate()
    assert worker.wait(20) == 0


def test_dead_letters_say_where_and_why(stack: Stack, truth: Truth) -> None:
    import msgspec

    found: dict[tuple[str, int, int], DeadLetter] = {}
    for topic in stack.plan.topics:
        for record in read_topic(stack.bootstrap, events.dlq(topic)):
            letter = msgspec.json.decode(record.value or b"", type=DeadLetter)
            found[letter.topic, letter.partition, letter.offset] = letter
    assert len(found) == truth.outcomes["poison"] + truth.outcomes["late"]
    assert {r.reason.partition(":")[0] for r in found.values()} == {"not_an_event", "clock_ahead", "too_late"}


def test_another_number_of_workers_and_a_frozen_one(stack: Stack, truth: Truth) -> None:
    now = int(time.time() * 1000)
    one = stack.start("stream_features", PORT, stream_worker="a")
    two = stack.start("stream_features", PORT + 1, stream_worker="b")
    stream = hard_stream(2, 6_000, now - HOUR, HOUR)
    produce(stack, stream[:3_000])
    time.sleep(5)
    one.send_signal(signal.SIGSTOP)  # a zombie: it wakes when the other has taken its partitions
    produce(stack, stream[3_000:])
    time.sleep(14)
    one.send_signal(signal.SIGCONT)
    stack.wait_done(120)
    truth.add(stream)
    check(stack, truth, int(time.time() * 1000))
    for worker in (one, two):
        worker.terminate()
        worker.wait(20)


def test_an_emptied_redis_is_rebuilt_from_the_lake_and_kafka(stack: Stack, truth: Truth) -> None:
    log = stack.start("event_log", PORT + 2)
    topics = stack.plan.topics
    deadline = time.monotonic() + 60
    while any(event_lake.contiguous_ends(stack.lake, t).get(p, 0) < end for (t, p), end in stack.ends(topics).items()):
        assert time.monotonic() < deadline
        time.sleep(0.3)
    log.send_signal(signal.SIGKILL)
    log.wait(10)
    rows = sum(event_lake.scan(stack.lake, t, ["_offset"]).num_rows for t in topics)
    assert rows == len(truth.stream) - truth.outcomes["poison"]
    worker = stack.start("stream_features", PORT)
    produce(stack, more := hard_stream(3, 2_000, int(time.time() * 1000) - 60_000, 60_000))
    stack.wait_done()
    truth.add(more)
    redis.Redis.from_url(stack.redis_url).flushall()
    produce(stack, more := hard_stream(4, 1_000, int(time.time() * 1000) - 5_000, 5_000))
    truth.add(more)
    time.sleep(1)
    stack.wait_done()
    check(stack, truth, int(time.time() * 1000))
    worker.terminate()
    worker.wait(20)


def test_offline_equals_online_and_brute_force(stack: Stack, truth: Truth) -> None:
    log = stack.start("event_log", PORT + 2)
    ends = stack.ends(stack.plan.topics)
    deadline = time.monotonic() + 60
    while any(event_lake.contiguous_ends(stack.lake, t).get(p, 0) < end for (t, p), end in ends.items()):
        assert time.monotonic() < deadline
        time.sleep(0.3)
    log.terminate()
    assert log.wait(20) == 0
    rng = random.Random(3)
    now = int(time.time() * 1000)
    for view in stack.plan.declared_views:
        keys = rng.choices(sorted(k for p, k in truth.by_key if p == brute_force.PREFIX[view.name]), k=30)
        at = np.array([now - rng.randint(0, 20 * HOUR) for _ in keys])
        columns = {name: np.array([k[i] for k in keys], dtype=object) for i, name in enumerate(view.join_keys)}
        found = features_at(stack.lake, stack.plan, view.name, columns, at)
        for row, key in enumerate(keys):
            seen = truth.by_key[brute_force.PREFIX[view.name], key]
            for name, expected in brute_force.features(view.features, key, seen, int(at[row])).items():
                assert brute_force.same(found[name][row], expected), (name, key, found[name][row], expected)


def test_a_publisher_outlives_an_absent_broker() -> None:
    publisher = KafkaPublisher("127.0.0.1:1", client_id="test", max_buffer=10)
    started = time.monotonic()
    for _ in range(10):
        publisher.publish("shop.clicks", "u", b"x")
    assert time.monotonic() - started < 5  # it does not wait for the broker
    assert publisher.outstanding == 10
    publisher.close()


def test_logs_hold_no_traceback(stack: Stack) -> None:
    for log in Path(stack.home).glob("*.log"):
        assert "Traceback" not in log.read_text(errors="replace"), log
