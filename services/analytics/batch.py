"""What was consumed and is not written yet: rows by table, letters, and where each partition goes on. No network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from adapters.kafka import Record
from feature_repo.events import EventRejected
from services.analytics.rows import READERS, Row, rows_of

Place = tuple[str, int]


@dataclass
class Progress:
    """One partition: offsets from `first` up to `next` were taken in, as `accepted` records and `dead` letters."""

    first: int
    next: int
    accepted: int = 0
    dead: int = 0


@dataclass(frozen=True)
class Letter:
    """A record that is no row, and why: `code: detail`."""

    record: Record
    reason: str


@dataclass
class Batch:
    """Grows by `add`; the places of its records are the keys of `progress`."""

    progress: dict[Place, Progress]
    rows: dict[str, list[Row]] = field(default_factory=dict)
    letters: list[Letter] = field(default_factory=list)
    touched: set[Place] = field(default_factory=set)
    accepted: Counter[str] = field(default_factory=Counter)
    size: int = 0
    bytes: int = 0

    def add(self, records: Sequence[Record]) -> None:
        """Take in records of one partition, in order. What was taken in before is left out."""
        for record in records:
            place = (record.topic, record.partition)
            at = self.progress[place]
            if record.offset < at.next:
                continue
            try:
                table, rows = rows_of(record)
                self.rows.setdefault(table, []).extend(rows)
                self.accepted[record.topic] += 1
                at.accepted += 1
            except EventRejected as error:
                self.letters.append(Letter(record, str(error)))
                at.dead += 1
            at.next = record.offset + 1
            self.touched.add(place)
            self.size += 1
            self.bytes += len(record.value or b"")

    def commits(self, now_ms: int) -> list[dict[str, Any]]:
        """The rows of table `offsets` that say this batch is in."""
        return [
            {"topic": topic, "partition": partition, "first_offset": at.first, "next_offset": at.next,
             "accepted": at.accepted, "dead": at.dead, "committed_ms": now_ms}
            for topic, partition in sorted(self.touched) for at in (self.progress[topic, partition],)
        ]

    def written(self) -> None:
        """Everything is in the store: begin again from here."""
        self.rows, self.letters, self.touched, self.accepted = {}, [], set(), Counter()
        self.size = self.bytes = 0


TABLES: tuple[str, ...] = tuple(table for table, _ in READERS.values())
