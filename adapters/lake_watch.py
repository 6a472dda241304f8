"""What came live of a topic, read from the footers of the lake's files: records by hour, and when the newest came.

No data is read: every file from Kafka lies in the folder of its hour of arrival, and its footer has the number of its
rows and the greatest arrival. Imported history does not count: it did not arrive.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pyarrow.parquet as pq

from adapters import event_lake
from feature_repo.contracts.watch import Live
from feature_repo.windows import DAY_MS, HOUR_MS

HOURS: Final = 26  # the open hour, the last whole one, and a day of baseline
LONGEST_MS: Final = 31 * DAY_MS  # what one file may span at most


class LakeWatch:
    """Looks at one lake again and again; a file is opened once."""

    def __init__(self, lake: Path) -> None:
        self._lake = lake
        self._facts: dict[Path, tuple[int, int]] = {}

    def look(self, topic: str, hours: int = HOURS) -> Live:
        """What came of a topic in the newest `hours` hours with live records."""
        parts = event_lake.parts(self._lake, topic)
        if not parts:
            return Live(None, {})
        at = {part.path: event_lake.hour_of(part.path.parent) for part in parts}
        newest = max(at.values())
        recent = {path: hour for path, hour in at.items() if hour > newest - hours * HOUR_MS}
        facts = {path: found for path in recent if (found := self._facts_of(path)) is not None}
        counts: dict[int, int] = {}
        for path, (rows, _) in facts.items():
            counts[recent[path]] = counts.get(recent[path], 0) + rows
        arrivals = [arrival for rows, arrival in facts.values() if rows]
        self._facts = {p: f for p, f in self._facts.items() if p in facts or topic not in p.parts}
        return Live(max(arrivals, default=None), counts, min(at.values()))

    def _facts_of(self, path: Path) -> tuple[int, int] | None:
        """(rows, greatest arrival) of a file; None where a compaction has just replaced it."""
        if path not in self._facts:
            try:
                footer = pq.read_metadata(path)
            except FileNotFoundError:
                return None
            self._facts[path] = footer.num_rows, _greatest(footer, "_arrival")
        return self._facts[path]


def newest_event_ms(lake: Path, topic: str) -> int | None:
    """The greatest event_time of a topic, imported history included; None where it has no rows."""
    paths = {path: event_lake.hour_of(path.parent) for path in event_lake.files(lake, topic)}
    last = max(paths.values(), default=0) - LONGEST_MS
    times = [_greatest(pq.read_metadata(path), "event_time") for path, hour in paths.items() if hour >= last]
    return max(times, default=0) or None


def _greatest(footer: Any, column: str) -> int:
    """The greatest value of a column of numbers, as a file's footer says; 0 where it says nothing."""
    found = 0
    for group in range(footer.num_row_groups):
        columns = footer.row_group(group)
        for at in range(columns.num_columns):
            leaf = columns.column(at)
            if leaf.path_in_schema == column and leaf.statistics is not None and leaf.statistics.has_min_max:
                found = max(found, int(leaf.statistics.max))
    return found
