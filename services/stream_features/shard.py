"""One partition's decision: which records count, what they change, what travels on, what is dead.

Stage 1 reads shopper events of the partition, counts those that are neither late nor duplicate into the views keyed
by shopper, and sends rows of item views to the partitions of their items. Stage 2 counts such rows. Knows nothing of
Kafka, Redis or the clock: the same records after the same progress give the same changes, whoever runs it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

from adapters.feature_state import Batch, Progress
from adapters.kafka import Record, dead_letter, partition_of
from feature_repo import events, tiles
from feature_repo.distinct import hash_of
from feature_repo.facts import Extract, extractor
from feature_repo.layout import Layout, layout_of
from feature_repo.plan import FeaturePlan
from feature_repo.windows import DEDUP_HOURS, HOUR_MS, MINUTE_MS, lateness
from feature_repo.wire import Value
from services.stream_features import rekey

SOURCE: Final = "stream_features"
CHUNK_BYTES: Final = 500_000
StateKey = tuple[str, tuple[str, ...]]
Update = tuple[int, int, int, Sequence[Value | None], int]
"""(feed, event time, arrival, values, n): `n` equal rows to count into one state."""


class Feeding(NamedTuple):
    """One feed of one view, ready to run."""

    view: str
    feed: int
    rekeyed: bool
    extract: Extract


class Engine:
    """What all shards share: the plan, compiled."""

    def __init__(self, plan: FeaturePlan, partitions: int) -> None:
        self.plan, self.partitions = plan, partitions
        self.layouts: dict[str, Layout] = {v.name: layout_of(v) for v in plan.declared_views}
        self.feedings: dict[str, list[Feeding]] = {topic: [] for topic in plan.topics}
        for view in plan.declared_views:
            for at, feed in enumerate(self.layouts[view.name].feeds):
                self.feedings[feed.topic].append(Feeding(view.name, at, view.rekeyed, extractor(view, feed)))


class Shard:
    """One owned partition between two commits: `read` records, `missing` states to fetch, `apply`, then take `batch`.

    After a failed commit a shard is thrown away: its states have counted what Redis has not.
    """

    def __init__(self, engine: Engine, partition: int, token: str, progress: Progress, *, max_states: int = 50_000
                 ) -> None:
        self.engine, self.partition, self.token, self.progress = engine, partition, token, progress
        self._max_states = max_states
        self._states: dict[StateKey, tiles.State] = {}
        self._newest_hour = {t: max(seen.values(), default=0) for t, seen in progress.seen.items()}
        self._updates: dict[StateKey, list[Update]] = {}
        self._counters: Counter[str] = Counter()
        self._sighted: dict[tuple[str, int], list[int]] = {}
        self.dead: list[tuple[str, bytes]] = []
        self.travelling: list[tuple[int, bytes]] = []

    def next_offset(self, topic: str) -> int:
        return self.progress.offsets.get(topic, 0)

    def read(self, topic: str, records: Sequence[Record]) -> None:
        """Take in records of one topic, in order of offset."""
        if topic == events.REKEYED:
            for record in records:
                self._read_rekeyed(record)
        else:
            for chunk in _chunks(records):
                self._read_events(topic, chunk)
        self.progress.offsets[topic] = records[-1].offset + 1

    def missing(self) -> list[StateKey]:
        """The states that must be loaded before `apply`."""
        return [key for key in self._updates if key not in self._states]

    def apply(self, loaded: Iterable[tuple[StateKey, bytes | None]]) -> Batch:
        """Count everything read; returns what to commit."""
        for key, stored in loaded:
            layout = self.engine.layouts[key[0]]
            self._states[key] = tiles.unpack(layout, stored) or tiles.State(layout)
        packed: dict[StateKey, bytes] = {}
        for key, updates in self._updates.items():
            layout, state = self.engine.layouts[key[0]], self._states[key]
            for update in updates:
                tiles.apply(layout, state, *update)
            packed[key] = tiles.pack(layout, state)
        return Batch(
            partition=self.partition, token=self.token, offsets=dict(self.progress.offsets),
            states=packed, sources=dict(self.progress.sources), sighted=self._sighted, counters=dict(self._counters),
            newest_hours={topic: hour for topic, hour in self._newest_hour.items() if hour})

    def committed(self) -> Counter[str]:
        """Forget what was committed; returns its counters."""
        counters = self._counters
        self._updates, self._sighted, self._counters, self.dead, self.travelling = {}, {}, Counter(), [], []
        for key in list(self._states)[:max(0, len(self._states) - self._max_states)]:
            del self._states[key]
        return counters

    def _read_events(self, topic: str, records: Sequence[Record]) -> None:
        travelling = _Outgoing(self.engine, self.partition, topic, self.progress.offsets.get(topic, 0))
        for record in records:
            event = self._accept(topic, record)
            if event is None:
                continue
            for feeding in self.engine.feedings[topic]:
                rows = feeding.extract(event)
                if feeding.rekeyed:
                    travelling.add(feeding, record, event.event_time, rows)
                else:
                    for key, values in rows:
                        self._updates.setdefault((feeding.view, key), []).append(
                            (feeding.feed, event.event_time, record.timestamp_ms, values, 1))
        end = records[-1].offset + 1
        self.travelling += travelling.messages(end)
        self.progress.offsets[topic] = end

    def _accept(self, topic: str, record: Record) -> events.Event | None:
        """The event, or None if it may not count; says so in the counters and, unless a duplicate, in a dead letter."""
        try:
            event = events.decode(topic, record.value or b"")
        except events.EventRejected as error:
            self._refuse(record, "poison", f"not_an_event: {error}")
            return None
        late = lateness(event.event_time, record.timestamp_ms)
        if late is not None:
            self._refuse(record, late, f"{late}: event_time {event.event_time}, arrived {record.timestamp_ms}")
            return None
        seen = self.progress.seen.setdefault(topic, {})
        identity, hour = hash_of(event.event_id), record.timestamp_ms // HOUR_MS
        before = seen.get(identity)
        seen[identity] = hour
        self._sighted.setdefault((topic, hour), []).append(identity)
        self._forget_old(topic, hour)
        if before is not None and hour - before <= DEDUP_HOURS:
            self._counters[f"{topic}:duplicate"] += 1
            return None
        self._counters[f"{topic}:counted"] += 1
        return event

    def _refuse(self, record: Record, outcome: str, reason: str) -> None:
        self._counters[f"{record.topic}:{outcome}"] += 1
        self.dead.append(dead_letter(record.topic, record.value, reason, source=SOURCE, time_ms=record.timestamp_ms,
                                     partition=record.partition, offset=record.offset))

    def _forget_old(self, topic: str, hour: int) -> None:
        if hour > self._newest_hour.get(topic, 0):
            self._newest_hour[topic] = hour
            seen = self.progress.seen[topic]
            for identity in [i for i, h in seen.items() if hour - h > DEDUP_HOURS]:
                del seen[identity]

    def _read_rekeyed(self, record: Record) -> None:
        try:
            message = rekey.decode(record.value or b"")
        except ValueError as error:
            self._refuse(record, "poison", str(error))
            return
        accepted: dict[str, int] = {}
        for topic, (first, end) in message.ranges.items():
            expected = self.progress.sources.get((topic, message.partition), 0)
            # A range that starts past what is expected was sent by a worker that had lost its partition: its events
            # will come again from the new owner.
            if first <= expected < end:
                accepted[topic] = expected
                self.progress.sources[topic, message.partition] = end
        for group in message.groups:
            if group.topic in accepted:
                self._read_group(group, accepted[group.topic])

    def _read_group(self, group: rekey.Group, expected: int) -> None:
        start = 0
        tally: Counter[tuple[tuple[str, ...], int]] = Counter()
        arrival = max(group.arrivals)
        for at, count in enumerate(group.counts):
            rows = slice(start, start + count)
            start += count
            if group.offsets[at] < expected:
                continue
            when = group.times[at]
            if group.values:
                for key, values in zip(group.keys[rows], group.values[rows], strict=True):
                    self._updates.setdefault((group.view, key), []).append(
                        (group.feed, when, group.arrivals[at], values, 1))
            else:
                minute = when // MINUTE_MS * MINUTE_MS
                tally.update((key, minute) for key in group.keys[rows])
        for (key, minute), n in tally.items():
            self._updates.setdefault((group.view, key), []).append((group.feed, minute, arrival, (), n))


class _Outgoing:
    """Collects the rows of a range of source offsets by target partition."""

    def __init__(self, engine: Engine, partition: int, topic: str, first: int) -> None:
        self._partitions, self._partition, self._topic, self._first = engine.partitions, partition, topic, first
        self._groups: list[dict[tuple[str, int], rekey.Group]] = [{} for _ in range(engine.partitions)]
        self._travels = any(f.rekeyed for f in engine.feedings[topic])

    def add(self, feeding: Feeding, record: Record, event_time: int,
            rows: Iterable[tuple[tuple[str, ...], tuple[Value | None, ...]]]) -> None:
        for key, values in rows:
            groups = self._groups[partition_of(key[0], self._partitions)]
            group = groups.get((feeding.view, feeding.feed))
            if group is None:
                group = groups[feeding.view, feeding.feed] = rekey.Group(
                    feeding.view, feeding.feed, self._topic, [], [], [], [], [], [])
            if not group.offsets or group.offsets[-1] != record.offset:
                group.offsets.append(record.offset)
                group.times.append(event_time)
                group.arrivals.append(record.timestamp_ms)
                group.counts.append(0)
            group.counts[-1] += 1
            group.keys.append(key)
            if values:
                group.values.append(values)

    def messages(self, end: int) -> list[tuple[int, bytes]]:
        """(target partition, message) of the range that ends before offset `end`."""
        if not self._travels:
            return []
        ranges = {self._topic: (self._first, end)}
        return [(target, rekey.encode(rekey.Rekeyed(self._partition, ranges, list(groups.values()))))
                for target, groups in enumerate(self._groups)]


def _chunks(records: Sequence[Record], size: Callable[[Record], int] = lambda r: len(r.value or b"") + 64
            ) -> Iterable[Sequence[Record]]:
    """Runs of records of at most CHUNK_BYTES, so that no message between the stages outgrows Kafka's limit."""
    start, held = 0, 0
    for at, record in enumerate(records):
        held += size(record)
        if held > CHUNK_BYTES and at > start:
            yield records[start:at]
            start, held = at, size(record)
    yield records[start:]
