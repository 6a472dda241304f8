"""The loop: poll, count, send on, commit. Owns the network; the decisions are in `shard.py`.

One turn takes what Kafka has for all owned partitions, waits until everything sent on is acknowledged, and then commits
states, offsets and sightings of all of them in one Redis transaction that a worker without the partition's token cannot
make. Whatever fails, uncommitted work is dropped and read again from the committed offsets: replay is deterministic.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import structlog
from kafka import TopicPartition
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.errors import KafkaError
from prometheus_client import Counter, Histogram

from adapters.consumer_lag import ConsumerLag
from adapters.errors import MinimartError, Unavailable
from adapters.feature_rebuild import rebuild
from adapters.feature_state import FeatureState, Fenced
from adapters.kafka import KafkaPublisher, connect_consumer, to_record
from adapters.telemetry import EVENTS, FEATURE_AGE_SECONDS
from feature_repo import events
from feature_repo.plan import FeaturePlan
from services.stream_features.shard import SOURCE, Engine, Shard

GROUP: Final = "stream-features"
REBUILD_LOCK_SECONDS: Final = 60
MAX_RECORDS: Final = 5_000
BREATH_SECONDS: Final = 0.01
REBALANCE_MS: Final = 60_000  # whoever does not come to a new share-out of the partitions within this is left out
FRESHNESS = Histogram("minimart_feature_freshness_seconds", "Seconds from arrival to the feature being readable",
                      ["stage"], buckets=(0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1, 2, 5, 15, 60, 300))
COMMITS = Counter("minimart_feature_commits_total", "Commits of the stream worker by result", ["result"])
REBUILDS = Counter("minimart_feature_rebuilds_total", "Times that the online store was rebuilt from the lake")
_log = structlog.get_logger()


class Outdated(MinimartError):
    """The plan on disk is another one than this worker was built for."""

    title = "Outdated"


class Worker:
    """One stream worker. `run` returns after `stop`; `status` is empty while features are being kept fresh."""

    def __init__(self, plan: FeaturePlan, state: FeatureState, publisher: KafkaPublisher, *, bootstrap: str, lake: Path,
                 partitions: int, instance: str, crash: Callable[[str], None] = lambda point: None,
                 outdated: Callable[[], bool] = lambda: False) -> None:
        self._engine = Engine(plan, partitions)
        self._state, self._publisher, self._bootstrap, self._lake = state, publisher, bootstrap, lake
        self._instance, self._crash, self._outdated = instance, crash, outdated
        self._shards: dict[int, Shard] = {}
        self._assigned: frozenset[TopicPartition] = frozenset()
        self._newest, self._lag = 0.0, ConsumerLag(SOURCE)
        FEATURE_AGE_SECONDS.set_function(lambda: max(0.0, time.time() - self._newest) if self._newest else 0.0)
        self._stop = threading.Event()
        self.status: dict[str, str] = {"kafka": "not connected yet"}

    def stop(self) -> None:
        self._stop.set()

    def run(self) -> None:
        """Work until `stop`, or until another plan is found to be in force; failures of neighbours are waited out."""
        while not self._stop.is_set():
            try:
                self._session()
            except Outdated as error:
                _log.info("plan_changed", detail=error.detail)
                return
            except Fenced as error:
                COMMITS.labels("fenced").inc()
                _log.warning("fenced", detail=error.detail)
            except Unavailable as error:
                COMMITS.labels("unavailable").inc()
                self.status = {"neighbour": error.detail}
                _log.warning("neighbour_unavailable", detail=error.detail)
                self._lag.look(self._bootstrap)
                self._stop.wait(0.5)
            except (KafkaError, OSError, AssertionError) as error:
                self.status = {"kafka": repr(error)}
                _log.warning("kafka_failed", error=repr(error))
                self._stop.wait(0.5)
            finally:
                self._forget()

    def close(self) -> None:
        """Release the connections."""
        self._publisher.close()
        self._state.close()

    def _session(self) -> None:
        """One membership of the consumer group, until something fails."""
        consumer = connect_consumer(
            self._bootstrap, stop=self._stop, group_id=GROUP, group_instance_id=f"{GROUP}-{self._instance}",
            partition_assignment_strategy=(RangePartitionAssignor,), session_timeout_ms=10_000,
            heartbeat_interval_ms=2_000, max_poll_interval_ms=REBALANCE_MS, fetch_max_wait_ms=100,
            max_poll_records=MAX_RECORDS)
        if consumer is None:
            return
        try:
            consumer.subscribe(topics=[*self._engine.plan.topics, events.REKEYED])
            while not self._stop.is_set():
                polled = consumer.poll(timeout_ms=200, max_records=MAX_RECORDS)
                assigned = frozenset(consumer.assignment())
                if assigned != self._assigned or not assigned:
                    self._take_over(consumer, assigned)
                elif polled:
                    self._turn(polled)
                    self._stop.wait(BREATH_SECONDS)
                self._report(consumer)
        finally:
            consumer.close(autocommit=False, timeout_ms=2_000)

    def _take_over(self, consumer: Any, assigned: frozenset[TopicPartition]) -> None:
        """Claim and load the assigned partitions and seek to where their commits stand; drop the others."""
        self._forget()
        self.status = {} if assigned else {"kafka": "no partition is assigned to this worker"}
        for partition in sorted({tp.partition for tp in assigned}):
            self._shards[partition] = self._load(partition)
        for tp in assigned:  # a topic may join its partitions later, where the group's leader did not know it yet
            consumer.seek(tp, self._shards[tp.partition].next_offset(tp.topic))
        self._assigned = assigned
        self._lag.keep(assigned)
        if assigned:
            _log.info("partitions_owned", partitions=sorted(self._shards))

    def _forget(self) -> None:
        self._shards.clear()
        self._assigned = frozenset()

    def _load(self, partition: int) -> Shard:
        """The shard of a partition; rebuilds the online store when Redis does not know where it stands."""
        lock = uuid.uuid4().hex
        while True:
            token = self._state.claim(partition)
            progress = self._state.load(partition)
            if progress is not None:
                return Shard(self._engine, partition, token, progress)
            if self._outdated():
                raise Outdated("Redis was filled, and is read, by another feature set")
            self.status = {"online_store": "being rebuilt from the lake"}
            if not self._state.lock_rebuild(lock, REBUILD_LOCK_SECONDS):
                if self._stop.wait(1.0):
                    raise Unavailable("stopping while the online store is being rebuilt")
                continue
            try:
                if self._state.load(partition) is None:
                    self._rebuild(lock)
            finally:
                self._state.unlock_rebuild(lock)
            self.status = {}

    def _rebuild(self, lock: str) -> None:
        started = time.monotonic()
        written = rebuild(self._lake, self._engine.plan, self._state, self._engine.partitions, int(time.time() * 1000),
                          beat=lambda text: self._prolong(lock))
        REBUILDS.inc()
        _log.info("online_store_rebuilt", keys=written, seconds=round(time.monotonic() - started, 1))

    def _prolong(self, lock: str) -> None:
        if not self._state.lock_rebuild(lock, REBUILD_LOCK_SECONDS):
            raise Unavailable("another worker took over the rebuild of the online store")

    def _turn(self, polled: dict[TopicPartition, list[Any]]) -> None:
        """Count one poll's records and commit them."""
        self._crash("after_poll")
        arrivals: dict[str, int] = {}
        newest = self._newest
        for tp, messages in polled.items():
            shard = self._shards[tp.partition]
            fresh = [to_record(m) for m in messages if m.offset >= shard.next_offset(tp.topic)]
            if fresh:
                shard.read(tp.topic, fresh)
                stage = "item" if tp.topic == events.REKEYED else "shopper"
                arrivals[stage] = min(arrivals.get(stage, fresh[0].timestamp_ms), fresh[0].timestamp_ms)
                newest = max(newest, fresh[-1].timestamp_ms / 1000)
        busy = [self._shards[p] for p in sorted({tp.partition for tp in polled})]
        missing = {shard.partition: shard.missing() for shard in busy}
        loaded = iter(self._state.states([key for keys in missing.values() for key in keys]))
        batches = [shard.apply([(key, next(loaded)) for key in missing[shard.partition]]) for shard in busy]
        self._crash("after_count")
        self._send_on(busy)
        self._crash("after_publish")
        self._state.commit(batches, int(time.time() * 1000))
        self._crash("after_commit")
        self._newest = newest
        self._account(busy, arrivals)

    def _send_on(self, shards: list[Shard]) -> None:
        sent = False
        for shard in shards:
            for target, message in shard.travelling:
                self._publisher.publish(events.REKEYED, "", message, partition=target)
                sent = True
            for topic, letter in shard.dead:
                self._publisher.publish(topic, "", letter, partition=shard.partition)
                sent = True
        self._crash("during_publish")
        if sent:
            self._publisher.flush(10.0)

    def _account(self, shards: list[Shard], arrivals: dict[str, int]) -> None:
        COMMITS.labels("committed").inc()
        now = time.time()
        for stage, arrival in arrivals.items():
            FRESHNESS.labels(stage).observe(max(0.0, now - arrival / 1000))
        totals: dict[tuple[str, str], int] = defaultdict(int)
        for shard in shards:
            for name, number in shard.committed().items():
                topic, _, outcome = name.rpartition(":")
                totals[topic, {"counted": "accepted", "duplicate": "duplicate"}.get(outcome, "dead_letter")] += number
        for (topic, outcome), number in totals.items():
            EVENTS.labels(SOURCE, topic, outcome).inc(number)

    def _report(self, consumer: Any) -> None:
        for tp in consumer.assignment():
            if tp.partition in self._shards:
                self._lag.at(tp, self._shards[tp.partition].next_offset(tp.topic), consumer.highwater(tp))
