"""One batch into the store: letters, rows, then the offsets that say it is in. A batch may be written twice: rows
replace themselves by their key, and letters know where they have been.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import msgspec

from adapters.analytics import Store
from adapters.kafka import DeadLetter, KafkaPublisher, dead_letter, read_topic
from feature_repo import events
from services.analytics.batch import TABLES, Batch, Letter
from services.analytics.metrics import ROWS, saw

SOURCE: Final = "analytics"
CHUNK: Final = 5_000  # rows of one INSERT
NOTED: Final = """
SELECT topic, partition, offset, max(lettered_ms) AS at FROM dead_letters
WHERE topic IN {topics:Array(String)} AND offset >= {first:Int64} AND offset <= {last:Int64}
GROUP BY topic, partition, offset"""
Place = tuple[str, int, int]
Offset = tuple[int, int]


def write(store: Store, letters: Letters, batch: Batch, *,
          crash: Callable[[str], None] = lambda point: None) -> Counter[tuple[str, str]]:
    """Write and clear the batch; returns records by (topic, accepted | dead_letter). Raises as `Analytics` does."""
    crash("before_write")
    letters.write(batch.letters, crash)
    for table in TABLES:
        rows = batch.rows.get(table, [])
        for start in range(0, len(rows), CHUNK):
            store.insert(table, rows[start:start + CHUNK])
            crash("between_inserts")
    crash("before_offsets")
    store.insert("offsets", batch.commits(int(time.time() * 1000)))
    crash("after_offsets")
    for table, rows in batch.rows.items():
        ROWS.labels(table).inc(len(rows))
        saw(table, max(row["event_ms"] for row in rows))
    counts = Counter((letter.record.topic, "dead_letter") for letter in batch.letters)
    counts.update({(topic, "accepted"): number for topic, number in batch.accepted.items()})
    batch.written()
    return counts


class Letters:
    """Dead letters: each is noted in the store, published, and noted as published, so that it lies in Kafka once.

    What was noted and not noted as published is looked for in Kafka, where a crash may have left it.
    """

    def __init__(self, store: Store, publisher: KafkaPublisher, published: Callable[[str], Iterable[Offset]]) -> None:
        """`published(topic)` gives the (partition, offset) of our letters that lie in Kafka about this topic."""
        self._store, self._publisher, self._published = store, publisher, published
        self._handed: set[Place] = set()  # by this process, to a client that goes on trying

    def write(self, letters: Sequence[Letter], crash: Callable[[str], None]) -> None:
        if not letters:
            return
        noted = self._noted(letters)
        wanted = {place(letter): letter for letter in letters if noted.get(place(letter), 0) == 0}
        unsure = {topic for topic, _, _ in wanted.keys() & noted.keys() - self._handed}
        there = {(topic, *at) for topic in unsure for at in self._published(topic)}
        values = {at: _value(letter) for at, letter in wanted.items()}
        self._store.insert("dead_letters", [_note(wanted[at], values[at], 0) for at in wanted.keys() - noted.keys()])
        crash("after_letters_noted")
        for at in wanted.keys() - there - self._handed:
            self._publisher.publish(events.dlq(at[0]), "", values[at], partition=at[1])
            self._handed.add(at)
        self._publisher.flush(10.0)
        crash("after_letters")
        now_ms = int(time.time() * 1000)
        self._store.insert("dead_letters", [_note(wanted[at], values[at], now_ms) for at in wanted])
        self._handed -= wanted.keys()

    def _noted(self, letters: Sequence[Letter]) -> dict[Place, int]:
        """When the letters that the store knows were published; 0: perhaps not."""
        offsets = [letter.record.offset for letter in letters]
        found = self._store.query(NOTED, {"topics": sorted({letter.record.topic for letter in letters}),
                                          "first": min(offsets), "last": max(offsets)})
        return {(row["topic"], row["partition"], row["offset"]): row["at"] for row in found}


def place(letter: Letter) -> Place:
    return letter.record.topic, letter.record.partition, letter.record.offset


def published_letters(bootstrap: str) -> Callable[[str], Iterable[Offset]]:
    """What lies in Kafka of ours, for `Letters`. Reads a whole dead-letter topic: only called after a crash."""

    def read(topic: str) -> list[Offset]:
        found = []
        for record in read_topic(bootstrap, events.dlq(topic)):
            with contextlib.suppress(msgspec.DecodeError):
                letter = msgspec.json.decode(record.value or b"", type=DeadLetter)
                if letter.source == SOURCE:
                    found.append((letter.partition, letter.offset))
        return found

    return read


def _value(letter: Letter) -> bytes:
    record = letter.record
    return dead_letter(record.topic, record.value, letter.reason, source=SOURCE, time_ms=record.timestamp_ms,
                       partition=record.partition, offset=record.offset)[1]


def _note(letter: Letter, value: bytes, lettered_ms: int) -> dict[str, object]:
    record = letter.record
    return {"topic": record.topic, "partition": record.partition, "offset": record.offset, "reason": letter.reason,
            "letter": value.decode(), "arrival_ms": record.timestamp_ms, "lettered_ms": lettered_ms}
