"""The stream worker's membership of its group: what is assigned to it is loaded and read from where it stood."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from kafka import TopicPartition

from adapters.feature_state import Progress
from feature_repo import events
from feature_repo.plan import FeaturePlan
from services.stream_features import worker as module
from services.stream_features.worker import Worker

PLAN = FeaturePlan.load(Path(__file__).parents[1] / "plan.json")
CLICKS, REKEYED = TopicPartition("shop.clicks", 0), TopicPartition(events.REKEYED, 0)


class State:
    """Every partition stands at offset 40 of every topic."""

    def claim(self, partition: int) -> str:
        return f"token-{partition}"

    def load(self, partition: int) -> Progress:
        return Progress(offsets={"shop.clicks": 40, events.REKEYED: 40})


class Consumer:
    """A member to whom `rounds` are assigned one after the other; the worker is stopped after the last."""

    def __init__(self, rounds: list[set[TopicPartition]]) -> None:
        self._rounds, self.sought = rounds, list[tuple[TopicPartition, int]]()
        self.worker: Worker

    def subscribe(self, topics: list[str]) -> None:
        assert events.REKEYED in topics

    def poll(self, **_: Any) -> dict[TopicPartition, list[Any]]:
        self._now = self._rounds.pop(0)
        if not self._rounds:
            self.worker.stop()
        return {}

    def assignment(self) -> set[TopicPartition]:
        return self._now

    def seek(self, tp: TopicPartition, offset: int) -> None:
        self.sought.append((tp, offset))

    def highwater(self, tp: TopicPartition) -> int:
        return 50

    def close(self, **_: Any) -> None:
        pass


def sought(rounds: list[set[TopicPartition]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Any]:
    consumer = Consumer(rounds)
    monkeypatch.setattr(module, "connect_consumer", lambda *_, **__: consumer)
    nobody: Any = None
    consumer.worker = Worker(PLAN, State(), nobody, bootstrap="", lake=tmp_path, partitions=2, instance="a")  # type: ignore[arg-type]
    consumer.worker.run()
    return sorted(consumer.sought)


def test_what_stays_assigned_is_sought_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert sought([{CLICKS, REKEYED}] * 3, monkeypatch, tmp_path) == sorted([(CLICKS, 40), (REKEYED, 40)])


def test_a_topic_that_joins_its_partition_later_is_read_from_where_it_stood(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = sought([{CLICKS}, {CLICKS, REKEYED}, {CLICKS, REKEYED}], monkeypatch, tmp_path)
    assert (REKEYED, 40) in found
