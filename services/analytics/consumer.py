"""The loop: poll every partition, write by size and by time, compute touched hours anew, say how far it is.

Rows first, then the offsets, both in the store: after a crash the batch between them is written again and replaces
itself. While the store is away nothing is polled; Kafka keeps what comes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Final

import structlog
from kafka import TopicPartition
from kafka.errors import KafkaError

from adapters.analytics import Analytics
from adapters.analytics_schema import migrate
from adapters.consumer_lag import ConsumerLag
from adapters.errors import MinimartError
from adapters.kafka import KafkaPublisher, assign_all, connect_consumer, to_record
from adapters.telemetry import EVENTS, NEIGHBOUR_ERRORS
from services.analytics import rollup
from services.analytics.batch import Batch, Progress
from services.analytics.metrics import FLUSH_SECONDS, LOST, watch_freshness
from services.analytics.rows import READERS
from services.analytics.write import SOURCE, Letters, published_letters, write

TOPICS: Final = tuple(READERS)
WRITE_SECONDS: Final = 1.0
WRITE_RECORDS: Final = 10_000
WRITE_BYTES: Final = 16 << 20
FETCH: Final = {"max_poll_records": 1_000, "fetch_max_bytes": 16 << 20, "max_partition_fetch_bytes": 2 << 20}
_log = structlog.get_logger()


class Consumer:
    """Kafka -> ClickHouse. `run` returns after `stop`; `status` is empty while the store is being written."""

    def __init__(self, store: Analytics, bootstrap: str, publisher: KafkaPublisher, *,
                 crash: Callable[[str], None] = lambda point: None) -> None:
        self._store, self._bootstrap, self._crash = store, bootstrap, crash
        self._letters = Letters(store, publisher, published_letters(bootstrap))
        self._stop, self._lag = threading.Event(), ConsumerLag(SOURCE)
        self.status: dict[str, str] = {"clickhouse": "not reached yet"}

    def stop(self) -> None:
        self._stop.set()

    def run(self) -> None:
        """Work until `stop`; failures of Kafka and of the store are waited out."""
        wait_s = 0.5
        while not self._stop.is_set():
            begun = time.monotonic()
            try:
                self._session()
            except MinimartError as error:
                self._failed("clickhouse", error.detail)
                self._lag.look(self._bootstrap)
            except (KafkaError, OSError, AssertionError) as error:
                self._failed("kafka", repr(error))
            wait_s = 0.5 if time.monotonic() - begun > 30 else min(5.0, wait_s * 2)
            self._stop.wait(wait_s)

    def _failed(self, neighbour: str, why: str) -> None:
        self.status = {neighbour: why}
        NEIGHBOUR_ERRORS.labels(SOURCE, neighbour).inc()
        _log.warning("analytics_failed", neighbour=neighbour, error=why[:500])

    def _session(self) -> None:
        """From the offsets in the store until something fails or `stop`: then the next session begins there again."""
        for name in migrate(self._store):
            _log.info("schema_applied", file=name)
        self.status = {"kafka": "not reached yet"}
        consumer = connect_consumer(self._bootstrap, stop=self._stop, client_id=SOURCE, **FETCH)
        if consumer is None:
            return
        try:
            batch = Batch(self._seek(consumer))
            hours = rollup.Hours(self._store)
            watch_freshness(self._store)
            self.status = {}
            written = time.monotonic()
            while not self._stop.is_set():
                found = consumer.poll(timeout_ms=200)
                for messages in found.values():
                    batch.add([to_record(m) for m in messages])
                full = batch.size >= WRITE_RECORDS or batch.bytes >= WRITE_BYTES
                if full or time.monotonic() - written >= WRITE_SECONDS:
                    self._write(consumer, batch)
                    written = time.monotonic()
                    if hours.due():
                        self._compute(hours)
            self._write(consumer, batch)
        finally:
            consumer.close(autocommit=False, timeout_ms=2_000)

    def _seek(self, consumer: Any) -> dict[tuple[str, int], Progress]:
        """Go where the store says. What Kafka has dropped since is said in the log and counted; it cannot be had."""
        wanted = assign_all(consumer, TOPICS, self._stop)
        starts, ends = consumer.beginning_offsets(wanted), consumer.end_offsets(wanted)
        known = {(row["topic"], row["partition"]): Progress(row["first_offset"], row["next_offset"], row["accepted"],
                                                            row["dead"])
                 for row in self._store.query("SELECT * FROM offsets FINAL")}
        progress = {}
        for tp in wanted:
            at = known.get((tp.topic, tp.partition))
            if at is None or at.next > ends[tp]:  # nothing yet, or another Kafka than the one it was read from
                at = Progress(starts[tp], starts[tp])
            elif at.next < starts[tp]:
                LOST.labels(tp.topic).inc(starts[tp] - at.next)
                _log.error("kafka_dropped_records_not_yet_stored", topic=tp.topic, partition=tp.partition,
                           records=starts[tp] - at.next)
                at = Progress(starts[tp], starts[tp])
            consumer.seek(tp, at.next)
            progress[tp.topic, tp.partition] = at
        return progress

    def _compute(self, hours: rollup.Hours) -> None:
        """An hour that cannot be computed (it takes too long, or too much memory) does not stop what comes in."""
        try:
            hours.compute()
        except MinimartError as error:
            NEIGHBOUR_ERRORS.labels(SOURCE, "clickhouse").inc()
            _log.warning("hours_not_computed", error=error.detail[:500])
        self._crash("after_rollup")

    def _write(self, consumer: Any, batch: Batch) -> None:
        if batch.size:
            begun = time.perf_counter()
            counts = write(self._store, self._letters, batch, crash=self._crash)
            FLUSH_SECONDS.observe(time.perf_counter() - begun)
            for (topic, outcome), count in counts.items():
                EVENTS.labels(SOURCE, topic, outcome).inc(count)
        for (topic, partition), at in batch.progress.items():
            place = TopicPartition(topic, partition)
            self._lag.at(place, at.next, consumer.highwater(place))
