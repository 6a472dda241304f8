"""The lag of a consumer that cannot go on grows with what comes in; partitions of others are not told."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from kafka import TopicPartition
from kafka.errors import KafkaTimeoutError
from prometheus_client import REGISTRY

from adapters import consumer_lag
from adapters.consumer_lag import ConsumerLag

A, B = TopicPartition("shop.clicks", 0), TopicPartition("shop.clicks", 1)


class FakeConsumer:
    """Knows the ends of partitions; with `broken` it does not."""

    def __init__(self, ends: dict[TopicPartition, int], *, broken: bool = False) -> None:
        self.ends, self.broken, self.closed = ends, broken, False

    def end_offsets(self, places: list[TopicPartition]) -> dict[TopicPartition, int]:
        if self.broken:
            raise KafkaTimeoutError
        return {place: self.ends[place] for place in places}

    def close(self, **_: Any) -> None:
        self.closed = True


def shown(service: str, place: TopicPartition) -> float | None:
    labels = {"service": service, "topic": place.topic, "partition": str(place.partition)}
    return REGISTRY.get_sample_value("minimart_consumer_lag_records", labels)


@pytest.fixture
def kafka(monkeypatch: pytest.MonkeyPatch) -> list[FakeConsumer | None]:
    """What connecting gives, one after another."""
    given: list[FakeConsumer | None] = []

    def connect(_bootstrap: str, *, stop: threading.Event) -> FakeConsumer | None:
        assert not stop.is_set()
        return given.pop(0)

    monkeypatch.setattr(consumer_lag, "connect_consumer", connect)
    return given


def test_it_grows_while_nothing_is_read(kafka: list[FakeConsumer | None]) -> None:
    lag = ConsumerLag("lag-grows")
    lag.at(A, 90, 100)
    assert shown("lag-grows", A) == 10
    one = FakeConsumer({A: 7_000})
    kafka.append(one)
    lag.look("k:1")
    assert shown("lag-grows", A) == 6_910
    assert one.closed
    lag.look("k:1")  # too soon to ask again


def test_before_anything_was_read_and_without_kafka_nothing_is_said(
    kafka: list[FakeConsumer | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer_lag, "LOOK_S", 0.0)
    lag = ConsumerLag("lag-quiet")
    lag.look("k:1")
    lag.at(A, 3, None)
    assert shown("lag-quiet", A) is None
    kafka += [None, FakeConsumer({}, broken=True)]
    lag.look("k:1")
    lag.look("k:1")
    assert shown("lag-quiet", A) is None


def test_what_another_worker_has_now_is_not_told(kafka: list[FakeConsumer | None]) -> None:
    lag = ConsumerLag("lag-moves")
    lag.at(A, 0, 5)
    lag.at(B, 1, None)
    lag.keep({B})
    assert shown("lag-moves", A) is None
    lag.keep(set())
    assert shown("lag-moves", B) is None
