"""`make reconcile` on real Kafka and Redis: adds up after duplicates, late and bad records, and sees what does not."""

from __future__ import annotations

import time
from collections.abc import Iterator

import msgspec
import pytest
import redis

from adapters import event_lake
from pipelines.reconcile import CLICKS, reconcile
from settings import Settings
from tests.integration.feature_stack import PARTITIONS, Stack, feature_stack, hard_stream, produce

PORT = 21_400
RECORDS = 1_500


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with feature_stack(tmp_path_factory.mktemp("reconcile")) as found:
        produce(found, hard_stream(3, RECORDS, int(time.time() * 1000) - 60_000, 60_000))
        now = int(time.time() * 1000)
        produce(found, [click("tester-1", "a", now), click("tester-1", "b", now), click("tester-1", "b", now)])
        produce(found, [click("tester-2", "c", now)])
        found.start("stream_features", PORT)
        found.start("event_log", PORT + 1)
        found.wait_done()
        yield found


@pytest.fixture(scope="module")
def settings(stack: Stack) -> Settings:
    return Settings(home=stack.home, kafka_bootstrap=stack.bootstrap, redis_url=stack.redis_url, clickhouse_port=1)


def click(user: str, event_id: str, now: int) -> tuple[str, str, bytes, int]:
    event = {"type": "product_clicked", "event_id": event_id, "event_time": now, "user_id": user, "item_id": "i1"}
    return CLICKS, user, msgspec.json.encode(event | {"category": "tea", "price_cents": 100}), now


def test_everything_adds_up(settings: Settings) -> None:
    topics, shoppers = reconcile(settings, "tester-", wait_s=60)
    assert [one.wrong for one in topics if one.wrong] == []
    assert sum(one.kafka for one in topics) == RECORDS + 4
    assert sum(sum(one.outcomes.values()) for one in topics) == RECORDS + 4
    assert all(one.lake + one.dead == one.kafka for one in topics)
    assert any(one.dead for one in topics)
    assert shoppers is not None
    assert shoppers.kafka == shoppers.features == shoppers.lake == {"tester-1": 2, "tester-2": 1}
    assert shoppers.analytics is None
    assert not shoppers.wrong


def test_a_record_that_nobody_accounts_for_is_seen(stack: Stack, settings: Settings) -> None:
    client = redis.Redis.from_url(stack.redis_url)
    partition = next(p for p in range(PARTITIONS) if client.hget(f"minimart:counters:{p}", f"{CLICKS}:counted"))
    client.hincrby(f"minimart:counters:{partition}", f"{CLICKS}:counted", -1)
    try:
        (wrong,) = [one.wrong for one in reconcile(settings, "", wait_s=0)[0] if one.wrong]
        assert f"partition {partition}" in wrong[0]
        assert "accounted for" in wrong[0]
    finally:
        client.hincrby(f"minimart:counters:{partition}", f"{CLICKS}:counted", 1)


def test_a_file_that_is_gone_from_the_lake_is_seen(stack: Stack, settings: Settings) -> None:
    gone = event_lake.parts(stack.lake, CLICKS)[-1].path
    content = gone.read_bytes()
    gone.unlink()
    try:
        (wrong,) = [one.wrong for one in reconcile(settings, "", wait_s=0)[0] if one.wrong]
        assert "the lake" in wrong[0]
    finally:
        gone.write_bytes(content)
