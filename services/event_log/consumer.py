"""The loop: poll every partition, flush every two seconds or so many rows, merge small files now and then.

One process writes the lake (a lock on the folder says so). Offsets are not kept in Kafka: the lake's file names are the
offsets. Dead letters are acknowledged before the file that passes over them is written.
"""

from __future__ import annotations

import fcntl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import structlog
from kafka import TopicPartition
from kafka.errors import KafkaError

from adapters import event_lake
from adapters.errors import Unavailable
from adapters.kafka import KafkaPublisher, assign_all, connect_consumer, dead_letter, to_record
from adapters.telemetry import CONSUMER_LAG, EVENTS
from feature_repo import events
from services.event_log.watch import ContractWatch
from services.event_log.writer import Log

SOURCE: Final = "event_log"
TOPICS: Final = events.LAKE_TOPICS
FLUSH_SECONDS: Final = 2.0
FLUSH_ROWS: Final = 20_000
COMPACT_SECONDS: Final = 60.0
WATCH_SECONDS: Final = 15.0
_log = structlog.get_logger()


class EventLog:
    """Kafka -> lake. `run` returns after `stop`; `status` is empty while the lake is being written."""

    def __init__(self, lake: Path, bootstrap: str, publisher: KafkaPublisher) -> None:
        self._lake, self._bootstrap, self._publisher = lake, bootstrap, publisher
        self._stop = threading.Event()
        self._logs: dict[TopicPartition, Log] = {}
        self._watch = ContractWatch(lake)
        self.status: dict[str, str] = {"kafka": "not connected yet"}

    def stop(self) -> None:
        self._stop.set()

    def run(self) -> None:
        """Work until `stop`; failures of Kafka and of the disk are waited out."""
        self._lake.mkdir(parents=True, exist_ok=True)
        with self._only_writer():
            while not self._stop.is_set():
                try:
                    self._session()
                except (KafkaError, OSError, AssertionError, Unavailable) as error:
                    self.status = {"kafka_or_disk": repr(error)}
                    _log.warning("event_log_failed", error=repr(error))
                    self._stop.wait(1.0)

    @contextmanager
    def _only_writer(self) -> Iterator[None]:
        with (self._lake / ".writer.lock").open("w") as lock:
            while not self._stop.is_set():
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    self.status = {"lake": f"another event log writes {self._lake}"}
                    self._stop.wait(1.0)
            yield

    def _session(self) -> None:
        consumer = connect_consumer(self._bootstrap, stop=self._stop, client_id=SOURCE, max_poll_records=5_000)
        if consumer is None:
            return
        try:
            self._logs = {}
            for tp in assign_all(consumer, TOPICS, self._stop):
                self._logs[tp] = Log(self._lake, tp.topic, tp.partition)
                consumer.seek(tp, self._logs[tp].next_offset)
            self.status = {}
            flushed = compacted = watched = time.monotonic()
            while not self._stop.is_set():
                for tp, messages in consumer.poll(timeout_ms=500, max_records=5_000).items():
                    self._logs[tp].add([to_record(m) for m in messages])
                if time.monotonic() - flushed >= FLUSH_SECONDS or self._rows() >= FLUSH_ROWS:
                    self._flush(consumer)
                    flushed = time.monotonic()
                if time.monotonic() - compacted >= COMPACT_SECONDS:
                    self._compact()
                    compacted = time.monotonic()
                if time.monotonic() - watched >= WATCH_SECONDS:
                    self._watch.look(int(time.time() * 1000))
                    watched = time.monotonic()
            self._flush(consumer)
        finally:
            consumer.close(autocommit=False, timeout_ms=2_000)

    def _rows(self) -> int:
        return sum(map(len, self._logs.values()))

    def _flush(self, consumer: Any) -> None:
        for tp, log in self._logs.items():
            if len(log):
                files, poison, late = log.read()
                for bad in (*poison, *late):
                    topic, letter = dead_letter(
                        tp.topic, bad.record.value, bad.reason, source=SOURCE, time_ms=bad.record.timestamp_ms,
                        partition=tp.partition, offset=bad.record.offset)
                    self._publisher.publish(topic, "", letter, partition=tp.partition)
                if poison or late:
                    self._publisher.flush(10.0)
                if poison:
                    EVENTS.labels(SOURCE, tp.topic, "dead_letter").inc(len(poison))
                EVENTS.labels(SOURCE, tp.topic, "accepted").inc(log.write(files) - len(poison))
            end = consumer.highwater(tp)
            if end is not None:
                CONSUMER_LAG.labels(SOURCE, tp.topic, tp.partition).set(max(0, end - log.next_offset))

    def _compact(self) -> None:
        for topic in TOPICS:
            merged = event_lake.compact(self._lake, topic)
            if merged:
                _log.info("compacted", topic=topic, files=merged)
