"""What was consumed becomes files: which records go into which file, decided without Kafka and without the clock.

Every file covers an unbroken range of offsets of one partition within one hour of arrival. Where the next file starts
is read from the names of those that are there, so that a crash at any moment loses nothing and repeats nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from adapters import event_lake
from adapters.event_lake import Poison
from adapters.kafka import Record
from feature_repo import events
from feature_repo.windows import HOUR_MS, lateness

_COUNTED = frozenset(e.topic for e in events.SHOPPER_EVENTS)


class Run(NamedTuple):
    """Consecutive records of one partition for one file. `hour_ms` is the start of the hour of arrival."""

    first: int
    last: int
    hour_ms: int
    records: Sequence[Record]


def late(topic: str, run: Run, table: Any) -> list[Poison]:
    """Shoppers' events of a file that features may not count. The file keeps them, but a rebuild of the online store
    reads them from there and nowhere else, so their dead letters are written here too."""
    if topic not in _COUNTED:
        return []
    when = dict(zip(table["_offset"].to_pylist(), table["event_time"].to_pylist(), strict=True))
    found = []
    for record in run.records:
        why = lateness(when[record.offset], record.timestamp_ms) if record.offset in when else None
        if why is not None:
            text = f"{why}: event_time {when[record.offset]}, arrived {record.timestamp_ms}"
            found.append(Poison(record, text))
    return found


class Log:
    """One partition's end of the lake: `next_offset` to read, and the records read but not yet written."""

    def __init__(self, lake: Path, topic: str, partition: int) -> None:
        self._lake, self.topic, self.partition = lake, topic, partition
        mine = [p for p in event_lake.parts(lake, topic) if p.partition == partition]
        self._written = max((p.last + 1 for p in mine), default=0)
        self._hour_ms = max((event_lake.hour_of(p.path.parent) for p in mine), default=0)
        self._waiting: list[Record] = []

    @property
    def next_offset(self) -> int:
        return self._waiting[-1].offset + 1 if self._waiting else self._written

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, records: Sequence[Record]) -> None:
        """Take in records, in order of offset; what is known already is left out."""
        self._waiting += [r for r in records if r.offset >= self.next_offset]

    def read(self) -> tuple[list[tuple[Run, object]], list[Poison], list[Poison]]:
        """The files to write, as (run, table), what could not be read, and what is there but too late or early."""
        files, poison, refused = [], [], []
        for run in self._runs():
            table, bad = event_lake.to_table(self.topic, run.records)
            files.append((run, table))
            poison += bad
            refused += late(self.topic, run, table)
        return files, poison, refused

    def write(self, files: list[tuple[Run, object]]) -> int:
        """Write the files in order; returns how many records they cover."""
        for run, table in files:
            event_lake.write_part(self._lake, self.topic, self.partition, run.first, run.last, run.hour_ms, table)
            self._written, self._hour_ms = run.last + 1, run.hour_ms
        count = len(self._waiting)
        self._waiting = []
        return count

    def _runs(self) -> Iterator[Run]:
        """Split where the hour rises. An arrival before the hour that was reached stays in that hour."""
        start, first, hour = 0, self._written, self._hour_ms
        for at, record in enumerate(self._waiting):
            own = record.timestamp_ms // HOUR_MS * HOUR_MS
            if own > hour:
                if at > start:
                    yield Run(first, self._waiting[at - 1].offset, hour, self._waiting[start:at])
                    first, start = self._waiting[at - 1].offset + 1, at
                hour = own
        if self._waiting:
            yield Run(first, self._waiting[-1].offset, hour, self._waiting[start:])
