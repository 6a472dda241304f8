"""Kafka: publish without blocking, create the topics, read a topic in a thread. Vendor errors stay in this file.

A publisher never waits for Kafka: records go into a bounded buffer that a background thread drains, connecting when
it first can. While Kafka is away the buffer fills; when it is full, `publish` raises Overloaded at once.
"""

from __future__ import annotations

import base64
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from functools import lru_cache
from typing import Any, Final, NamedTuple, Protocol

import msgspec
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError, TopicAlreadyExistsError
from kafka.partitioner.default import murmur2

from adapters.errors import Overloaded, TooLarge, Unavailable
from feature_repo import events

MAX_RECORD_BYTES: Final = 1_000_000
Position = tuple[int, int]


class Record(NamedTuple):
    """One Kafka record; `timestamp_ms` is its arrival time."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: str
    value: bytes | None


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A record that could not be counted: where it lay, why, and its bytes."""

    topic: str
    partition: int
    offset: int
    reason: str
    payload_base64: str
    time_ms: int
    source: str

    def payload(self) -> bytes:
        return base64.b64decode(self.payload_base64)


def dead_letter(topic: str, payload: bytes | None, reason: str, *, source: str, time_ms: int, partition: int = -1,
                offset: int = -1) -> tuple[str, bytes]:
    """(dead-letter topic, its JSON value). `reason` is `code` or `code: detail`; partition -1: never was in Kafka."""
    letter = DeadLetter(topic=topic, partition=partition, offset=offset, reason=reason, time_ms=time_ms, source=source,
                        payload_base64=base64.b64encode((payload or b"")[:MAX_RECORD_BYTES // 2]).decode())
    return events.dlq(topic), msgspec.json.encode(letter)


@lru_cache(maxsize=1_000_000)
def partition_of(key: str, partitions: int) -> int:
    """The partition that Kafka's default partitioner gives a key (murmur2, as in the Java client)."""
    return int((murmur2(key.encode()) & 0x7FFFFFFF) % partitions)


class Publisher(Protocol):
    """Where events go. Implementations never block for more than a few milliseconds in `publish`."""

    def publish(self, topic: str, key: str, value: bytes, *, timestamp_ms: int | None = None) -> None:
        """Queue one record. Raises Overloaded when the buffer is full, TooLarge over MAX_RECORD_BYTES."""

    def flush(self, timeout_s: float) -> None:
        """Wait until everything queued is acknowledged. Raises Unavailable after `timeout_s`."""

    def close(self) -> None:
        """Flush for a moment and release the connection."""


class _Pending(NamedTuple):
    topic: str
    key: str
    value: bytes
    timestamp_ms: int
    partition: int | None
    future: Future[Position] | None


class KafkaPublisher:
    """Publisher on kafka-python: lz4, idempotent, acks=all, lazy connection with background retry."""

    def __init__(self, bootstrap: str, *, client_id: str, linger_ms: int = 5, max_buffer: int = 20_000,
                 on_failure: Callable[[str, Exception], None] | None = None) -> None:
        """`max_buffer` bounds the records not yet acknowledged; `on_failure(topic, error)` sees records given up."""
        self._bootstrap, self._client_id, self._linger_ms, self._max = bootstrap, client_id, linger_ms, max_buffer
        self._on_failure = on_failure
        self._queue: deque[_Pending] = deque()
        self._condition = threading.Condition()
        self._outstanding = 0
        self._failures = 0
        self._last_progress = time.monotonic()
        self._thread: threading.Thread | None = None
        self._closing = False
        self.connected = False

    def publish(self, topic: str, key: str, value: bytes, *, timestamp_ms: int | None = None,
                partition: int | None = None) -> None:
        self._enqueue(topic, key, value, timestamp_ms, partition, None)

    def publish_acked(self, topic: str, key: str, value: bytes, timestamp_ms: int | None = None,
                      partition: int | None = None) -> Future[Position]:
        """Like `publish`; the future resolves to (partition, offset) or raises Unavailable when Kafka gave up."""
        future: Future[Position] = Future()
        self._enqueue(topic, key, value, timestamp_ms, partition, future)
        return future

    @property
    def outstanding(self) -> int:
        """Records accepted and not yet acknowledged."""
        return self._outstanding

    def stalled_s(self) -> float:
        """Seconds since Kafka last acknowledged anything while records wait; 0 when none wait."""
        return time.monotonic() - self._last_progress if self._outstanding else 0.0

    def flush(self, timeout_s: float) -> None:
        with self._condition:
            failures = self._failures
            done = self._condition.wait_for(lambda: self._outstanding == 0, timeout_s)
        if not done:
            waiting = self._outstanding
            raise Unavailable(f"Kafka at {self._bootstrap} did not acknowledge {waiting} records in {timeout_s} s")
        if self._failures != failures:
            raise Unavailable(f"Kafka at {self._bootstrap} refused {self._failures - failures} records")

    def close(self) -> None:
        with self._condition:
            self._closing = True
            self._condition.notify_all()
        if self._thread is not None:
            self._thread.join(5.0)

    def _enqueue(self, topic: str, key: str, value: bytes, timestamp_ms: int | None, partition: int | None,
                 future: Future[Position] | None) -> None:
        if len(value) > MAX_RECORD_BYTES:
            raise TooLarge(f"a record for {topic} has {len(value)} bytes; at most {MAX_RECORD_BYTES} are allowed")
        stamp = int(time.time() * 1000) if timestamp_ms is None else timestamp_ms
        with self._condition:
            if self._closing:
                raise Unavailable("this publisher is closed")
            if self._outstanding >= self._max:
                raise Overloaded(f"{self._outstanding} records wait for Kafka at {self._bootstrap}; the buffer is full")
            if self._outstanding == 0:
                self._last_progress = time.monotonic()
            self._outstanding += 1
            self._queue.append(_Pending(topic, key, value, stamp, partition, future))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=f"{self._client_id}-publisher", daemon=True)
                self._thread.start()
            if len(self._queue) == 1:
                self._condition.notify_all()

    def _run(self) -> None:
        producer = self._connect()
        while producer is not None:
            with self._condition:
                self._condition.wait_for(lambda: self._queue or self._closing)
                batch = list(self._queue)
                self._queue.clear()
            for pending in batch:
                self._send(producer, pending)
            if self._closing and not batch:
                producer.close(timeout=3)
                return

    def _connect(self) -> KafkaProducer | None:
        while not self._closing:
            try:
                producer = KafkaProducer(
                    bootstrap_servers=self._bootstrap.split(","), client_id=self._client_id, acks="all",
                    linger_ms=self._linger_ms, compression_type="lz4", enable_idempotence=True, batch_size=262_144,
                    delivery_timeout_ms=600_000, max_block_ms=5_000, reconnect_backoff_max_ms=1_000,
                    bootstrap_timeout_ms=2_000, request_timeout_ms=5_000, max_request_size=MAX_RECORD_BYTES + 65_536,
                    allow_auto_create_topics=False, metrics_enabled=False)
            except (KafkaError, OSError):
                time.sleep(0.5)
            else:
                self.connected = True
                return producer
        return None

    def _send(self, producer: KafkaProducer, pending: _Pending) -> None:
        while True:
            try:
                sent = producer.send(pending.topic, pending.value, pending.key.encode() or None,
                                     partition=pending.partition, timestamp_ms=pending.timestamp_ms)
            except KafkaError as error:  # no metadata for the topic: Kafka is away, or the topic is not there yet
                if self._closing:
                    self._settle(pending, None, error)
                    return
                time.sleep(0.2)
            else:
                sent.add_callback(lambda meta: self._settle(pending, meta, None))
                sent.add_errback(lambda error: self._settle(pending, None, error))
                return

    def _settle(self, pending: _Pending, meta: Any, error: Exception | None) -> None:
        with self._condition:
            self._outstanding -= 1
            self._last_progress = time.monotonic()
            self._failures += error is not None
            if self._outstanding == 0:
                self._condition.notify_all()
        if error is not None and self._on_failure is not None:
            self._on_failure(pending.topic, error)
        if pending.future is not None and pending.future.set_running_or_notify_cancel():
            if error is None:
                pending.future.set_result((meta.partition, meta.offset))
            else:
                pending.future.set_exception(Unavailable(f"Kafka did not take a record for {pending.topic}: {error}"))


class MemoryPublisher:
    """The fake: keeps what was published. Same contract as KafkaPublisher, `full` makes it shed."""

    def __init__(self, partitions: int = 4) -> None:
        self.records: list[Record] = []
        self.full = False
        self.connected = True
        self.outstanding = 0
        self._partitions = partitions

    def publish(self, topic: str, key: str, value: bytes, *, timestamp_ms: int | None = None,
                partition: int | None = None) -> None:
        self.publish_acked(topic, key, value, timestamp_ms, partition)

    def publish_acked(self, topic: str, key: str, value: bytes, timestamp_ms: int | None = None,
                      partition: int | None = None) -> Future[Position]:
        if self.full:
            raise Overloaded("the buffer is full")
        if len(value) > MAX_RECORD_BYTES:
            raise TooLarge(f"a record for {topic} has {len(value)} bytes; at most {MAX_RECORD_BYTES} are allowed")
        where = partition_of(key, self._partitions) if partition is None else partition
        offset = sum(r.topic == topic and r.partition == where for r in self.records)
        self.records.append(Record(topic, where, offset, timestamp_ms or 0, key, value))
        future: Future[Position] = Future()
        future.set_result((where, offset))
        return future

    def of(self, topic: str) -> list[Record]:
        """What was published to one topic, in order."""
        return [r for r in self.records if r.topic == topic]

    def stalled_s(self) -> float:
        return 0.0

    def flush(self, timeout_s: float) -> None:
        """Nothing waits."""

    def close(self) -> None:
        """Nothing to release."""


def ensure_topics(bootstrap: str, partitions: int, timeout_s: float = 30.0, *, forever: bool = False) -> list[str]:
    """Create every topic of the events and its dead-letter topic; those that exist stay as they are.

    `forever`: nothing is dropped for its age, for records whose arrival lies weeks back. Returns the names created.
    Raises Unavailable when Kafka does not answer in `timeout_s`.
    """
    week, two_days = "604800000", "172800000"
    wanted: dict[str, dict[str, str]] = {}
    for topic in events.TOPICS:
        keep = two_days if topic in (events.REKEYED, events.DECISIONS, events.SHADOW) else week
        compacted = topic in events.COMPACTED
        wanted[topic] = {"cleanup.policy": "compact"} if compacted else {"retention.ms": keep}
        wanted[events.dlq(topic)] = {"retention.ms": week}
    if forever:
        wanted = {t: c | ({"retention.ms": "-1"} if "retention.ms" in c else {}) for t, c in wanted.items()}
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return _create_missing(bootstrap, partitions, wanted)
        except (KafkaError, OSError, TimeoutError) as error:
            if time.monotonic() > deadline:
                raise Unavailable(f"Kafka at {bootstrap} did not create the topics in {timeout_s} s: {error}") from None
            time.sleep(0.5)


def ensure_topic(bootstrap: str, topic: str, partitions: int, configs: dict[str, str]) -> bool:
    """Create one more topic; whether it was missing. Raises Unavailable."""
    try:
        return bool(_create_missing(bootstrap, partitions, {topic: configs}))
    except (KafkaError, OSError, TimeoutError) as error:
        raise Unavailable(f"Kafka at {bootstrap} did not create {topic}: {error}") from None


def _create_missing(bootstrap: str, partitions: int, wanted: dict[str, dict[str, str]]) -> list[str]:
    admin = KafkaAdminClient(bootstrap_servers=bootstrap.split(","), bootstrap_timeout_ms=3_000)
    try:
        have = set(admin.list_topics())
        missing = {topic: {"num_partitions": partitions, "replication_factor": -1, "configs": configs}
                   for topic, configs in wanted.items() if topic not in have}
        if missing:
            try:
                admin.create_topics(missing, wait_for_metadata=True)
            except TopicAlreadyExistsError:
                return []
        return sorted(missing)
    finally:
        admin.close()


def connect_consumer(bootstrap: str, *, stop: threading.Event | None = None, **config: Any) -> KafkaConsumer | None:
    """A kafka-python consumer with our defaults, retried until Kafka answers; None once `stop` is set."""
    defaults: dict[str, Any] = {
        "bootstrap_servers": bootstrap.split(","), "enable_auto_commit": False, "auto_offset_reset": "earliest",
        "bootstrap_timeout_ms": 2_000, "reconnect_backoff_max_ms": 1_000, "request_timeout_ms": 15_000,
        "allow_auto_create_topics": False, "metrics_enabled": False, "metadata_max_age_ms": 10_000,
        "fetch_max_wait_ms": 200, "max_partition_fetch_bytes": 8_388_608, "exclude_internal_topics": True}
    while stop is None or not stop.is_set():
        try:
            return KafkaConsumer(**(defaults | config))
        except (KafkaError, OSError, AssertionError):
            time.sleep(0.5)
    return None


def to_record(message: Any) -> Record:
    """A kafka-python message as our Record (a key that is not UTF-8 is kept with replacement characters)."""
    key = (message.key or b"").decode(errors="replace")
    return Record(message.topic, message.partition, message.offset, message.timestamp, key, message.value)


class TopicTail:
    """Reads whole topics in a background thread: from the beginning, or only what comes from now on.

    `handle` runs in that thread with every record, in order per partition. `caught_up` is set once everything that was
    there at the start has been handled. Survives Kafka being away; `handle` must not raise.
    """

    def __init__(self, bootstrap: str, topics: tuple[str, ...], handle: Callable[[Record], None], *,
                 from_beginning: bool = True, name: str = "tail") -> None:
        self._bootstrap, self._topics, self._handle = bootstrap, topics, handle
        self._from_beginning = from_beginning
        self._stop = threading.Event()
        self.caught_up = threading.Event()
        self._next: dict[TopicPartition, int] = {}
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(5.0)

    def _run(self) -> None:
        while not self._stop.is_set():
            consumer = connect_consumer(self._bootstrap, stop=self._stop)
            if consumer is None:
                return
            try:
                self._consume(consumer)
            except (KafkaError, OSError, AssertionError):
                self._stop.wait(0.5)
            finally:
                consumer.close(autocommit=False, timeout_ms=1_000)

    def _consume(self, consumer: KafkaConsumer) -> None:
        wanted = assign_all(consumer, self._topics, self._stop)
        ends: Mapping[TopicPartition, int] = consumer.end_offsets(wanted) if wanted else {}
        for tp in wanted:
            fresh = 0 if self._from_beginning else ends[tp]
            consumer.seek(tp, self._next.get(tp, fresh))
        while not self._stop.is_set():
            for tp, messages in consumer.poll(timeout_ms=500, max_records=2_000).items():
                for message in messages:
                    self._handle(to_record(message))
                self._next[tp] = messages[-1].offset + 1
            if not self.caught_up.is_set() and all(consumer.position(tp) >= end for tp, end in ends.items()):
                self.caught_up.set()


def assign_all(consumer: KafkaConsumer, topics: tuple[str, ...], stop: threading.Event) -> list[TopicPartition]:
    """Assign every partition of the topics to this consumer, waiting until the topics exist."""
    found: list[TopicPartition] = []
    while not stop.is_set():
        found = [TopicPartition(t, p) for t in topics for p in sorted(consumer.partitions_for_topic(t) or ())]
        if len({tp.topic for tp in found}) == len(topics):
            break
        stop.wait(0.5)
    consumer.assign(found)
    return found


def read_topic(bootstrap: str, topic: str, *, timeout_s: float = 10.0) -> Iterator[Record]:
    """Every record that is in a topic now, partition by partition. Raises Unavailable when Kafka does not answer."""
    deadline = time.monotonic() + timeout_s
    stop = threading.Event()
    timer = threading.Timer(timeout_s, stop.set)
    timer.start()
    consumer = connect_consumer(bootstrap, stop=stop)
    if consumer is None:
        raise Unavailable(f"Kafka at {bootstrap} did not answer in {timeout_s} s")
    try:
        wanted = assign_all(consumer, (topic,), stop)
        if not wanted:
            raise Unavailable(f"topic {topic} is not there at {bootstrap} after {timeout_s} s")
        starts, ends = consumer.beginning_offsets(wanted), consumer.end_offsets(wanted)
        for tp in wanted:
            consumer.seek(tp, starts[tp])
        while any(consumer.position(tp) < ends[tp] for tp in wanted):
            for messages in consumer.poll(timeout_ms=500).values():
                yield from map(to_record, messages)
                deadline = time.monotonic() + timeout_s
            if time.monotonic() > deadline:
                raise Unavailable(f"reading {topic} at {bootstrap} stopped answering")
    except KafkaError as error:
        raise Unavailable(f"reading {topic} at {bootstrap} failed: {error}") from None
    finally:
        timer.cancel()
        consumer.close(autocommit=False, timeout_ms=1_000)
