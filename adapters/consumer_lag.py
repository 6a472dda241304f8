"""How far a consumer is behind, also while what it writes to is away and it reads nothing.

A gauge that is set beside the work stands still when the work does, just when somebody must be called.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection
from contextlib import suppress
from typing import Final

from kafka import TopicPartition
from kafka.errors import KafkaError

from adapters.kafka import connect_consumer
from adapters.telemetry import CONSUMER_LAG

LOOK_S: Final = 2.0
PATIENCE_S: Final = 3.0


class ConsumerLag:
    """The gauge `minimart_consumer_lag_records` of one service."""

    def __init__(self, service: str) -> None:
        self._service = service
        self._next: dict[TopicPartition, int] = {}
        self._looked = 0.0

    def at(self, place: TopicPartition, next_offset: int, end: int | None) -> None:
        """This offset is the next to be done, and the partition ends at `end` (None: not known yet)."""
        self._next[place] = next_offset
        if end is not None:
            self._show(place, end)

    def keep(self, places: Collection[TopicPartition]) -> None:
        """Only these are this process's; of the others another one tells."""
        for place in self._next.keys() - set(places):
            del self._next[place]
            with suppress(KeyError):  # it was never shown
                CONSUMER_LAG.remove(self._service, place.topic, place.partition)

    def look(self, bootstrap: str) -> None:
        """While nothing is read: ask Kafka, every `LOOK_S` seconds at most, where the partitions end by now.

        Says nothing where Kafka does not answer within `PATIENCE_S`.
        """
        if not self._next or time.monotonic() - self._looked < LOOK_S:
            return
        self._looked = time.monotonic()
        given_up = threading.Event()
        timer = threading.Timer(PATIENCE_S, given_up.set)
        timer.start()
        try:
            consumer = connect_consumer(bootstrap, stop=given_up)
            if consumer is None:
                return
            try:
                for place, end in consumer.end_offsets(list(self._next)).items():
                    self._show(place, end)
            finally:
                consumer.close(autocommit=False, timeout_ms=1_000)
        except (KafkaError, OSError, AssertionError):
            return
        finally:
            timer.cancel()

    def _show(self, place: TopicPartition, end: int) -> None:
        behind = max(0, end - self._next[place])
        CONSUMER_LAG.labels(self._service, place.topic, place.partition).set(behind)
