"""Every feature recomputed the slow, obvious way with numpy. Shares no code with the platform: imports nothing of ours
but `brute_rows` and `brute_events`, which import nothing of ours either (a test holds this).

It is given the declaration as plain data (the dictionaries of plan.json) and the records as they lie in Kafka, and has
its own idea of what an event is, when it is late, what a duplicate is, and where a window begins and ends.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np

from pipelines.parity.brute_events import Event, parse
from pipelines.parity.brute_rows import (
    Key,
    column_of,
    elements_of,
    feeds_by_topic,
    field_of,
    key_of,
    names_of,
    product,
    value_of,
)

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
# window -> (length, tile)
WINDOWS: Final = {"5m": (5 * MINUTE, MINUTE), "1h": (HOUR, MINUTE), "24h": (DAY, HOUR), "7d": (7 * DAY, HOUR),
                  "30d": (30 * DAY, DAY)}
EXACT_UP_TO: Final = 64  # distinct values of one tile that are counted exactly; beyond, a sketch may estimate
Place = tuple[str, int]  # topic, partition


class Row(NamedTuple):
    """One row of one column, for people: where its event lies in Kafka, and what became of it."""

    event_id: str
    topic: str
    partition: int
    offset: int
    event_time: int
    arrival: int
    value: Any
    outcome: str


class _Column(NamedTuple):
    """The rows of one column of one key, by event time. `measure`: 1 where rows are counted, else the number; `code`:
    equal where the text of the value is."""

    when: np.ndarray
    arrival: np.ndarray
    place: np.ndarray
    offset: np.ndarray
    value: np.ndarray
    measure: np.ndarray
    code: np.ndarray
    event_id: np.ndarray


@dataclass
class _Rows:
    """Rows of one feed and one key as they were read: 4 numbers and the fields' values of each."""

    numbers: array[int] = field(default_factory=lambda: array("q"))
    values: list[tuple[Any, ...]] = field(default_factory=list)


class BruteForce:
    """All records of some topics, and the features of chosen keys. `plan` is plan.json; `keys`: view -> its keys."""

    def __init__(self, plan: Mapping[str, Any], keys: Mapping[str, Collection[Key]]) -> None:
        self.views = {v["name"]: v for v in plan["declared_views"]}
        self.outcomes: Counter[tuple[str, str]] = Counter()  # (topic, outcome) -> records
        self._wanted = {view: set(mine) for view, mine in keys.items()}
        self._feeds = feeds_by_topic(self.views.values(), self._wanted)
        self._seen: dict[Place, dict[str, int]] = defaultdict(dict)
        self._places: list[Place] = []
        self._rows: dict[tuple[str, str, str, Key], _Rows] = defaultdict(_Rows)  # (view, topic, each, key)
        self._refused: dict[tuple[str, Key], list[tuple[str, Event, str, int, int, int]]] = defaultdict(list)
        self._columns: dict[tuple[str, str, Key], _Column] = {}

    def read(self, topic: str, partition: int, records: Iterable[tuple[int, int, bytes]]) -> None:
        """Take in one partition from its first record on: (offset, arrival, payload) in order of offset."""
        place = len(self._places)
        self._places.append((topic, partition))
        for offset, arrival, payload in records:
            event = parse(topic, payload)
            outcome = self._outcome(topic, partition, event, arrival)
            self.outcomes[topic, outcome] += 1
            if event is not None:
                self._file(topic, event, outcome, place, offset, arrival)

    def value(self, view: str, feature: Mapping[str, Any], key: Key, now: int, upto: Mapping[Place, int] | None = None
              ) -> Any:
        """One declared feature at `now` from what had arrived by then; `upto`: only records below these offsets."""
        function, column = feature["function"], self._column(view, feature["column"], key)
        known = self._known(column, now, upto)
        if function in ("last", "last_k"):
            k = feature.get("k") or 1
            newest = sorted(zip(column.when[known].tolist(), column.value[known].tolist(), strict=True), reverse=True)
            values = [value for _, value in newest[:k]]
            return values if function == "last_k" else (values[0] if values else None)
        inside = known & _within(column.when, feature["window"], now)
        if function == "ratio":
            other = self._column(view, feature["other"], key)
            below = other.measure[self._known(other, now, upto) & _within(other.when, feature["window"], now)].sum()
            return float(column.measure[inside].sum()) / float(below) if below else math.nan
        return _FUNCTIONS[function](feature, column, inside, now)

    def sketched(self, view: str, feature: Mapping[str, Any], key: Key, now: int,
                 upto: Mapping[Place, int] | None = None) -> bool:
        """Whether a distinct count may be an estimate: a tile of its window holds too many values to keep them all."""
        column = self._column(view, feature["column"], key)
        inside = self._known(column, now, upto) & _within(column.when, feature["window"], now)
        tile = column.when[inside] // WINDOWS[feature["window"]][1]
        pairs = np.unique(np.stack([tile, column.code[inside]], axis=1), axis=0)
        return bool(len(pairs)) and int(np.unique(pairs[:, 0], return_counts=True)[1].max()) > EXACT_UP_TO

    def rows(self, view: str, column: str, key: Key) -> list[Row]:
        """All rows of a column, refused ones included, by event time."""
        held = self._column(view, column, key)
        numbers = (held.when.tolist(), held.arrival.tolist(), held.place.tolist(), held.offset.tolist())
        out = [Row(name, self._places[at][0], self._places[at][1], offset, when, arrival, value, "counted")
               for when, arrival, at, offset, value, name in
               zip(*numbers, held.value.tolist(), held.event_id.tolist(), strict=True)]
        for outcome, event, topic, partition, offset, arrival in self._refused.get((view, key), ()):
            for source in column_of(self.views[view], column)["sources"]:
                if source["topic"] == topic:
                    out += [Row(event["event_id"], topic, partition, offset, event["event_time"], arrival,
                                value_of(source, event, element), outcome)
                            for element in elements_of(event, source.get("each", ""))
                            if key_of(self.views[view]["join_keys"], event, element) == key]
        return sorted(out, key=lambda row: (row.event_time, row.offset))

    def _outcome(self, topic: str, partition: int, event: Event | None, arrival: int) -> str:
        if event is None:
            return "poison"
        if event["event_time"] > arrival + 5 * MINUTE:
            return "clock_ahead"
        if event["event_time"] < arrival - 7 * DAY:
            return "too_late"
        seen, hour = self._seen[topic, partition], arrival // HOUR
        before = seen.get(event["event_id"])
        seen[event["event_id"]] = max(hour, before or 0)
        return "duplicate" if before is not None and hour - before <= 24 else "counted"

    def _file(self, topic: str, event: Event, outcome: str, place: int, offset: int, arrival: int) -> None:
        for feed in self._feeds.get(topic, ()):
            wanted = self._wanted[feed.view]
            for element in elements_of(event, feed.each):
                key = key_of(feed.key, event, element)
                if key not in wanted:
                    continue
                if outcome == "counted":
                    rows = self._rows[feed.view, topic, feed.each, key]
                    rows.numbers.extend((event["event_time"], arrival, place, offset))
                    rows.values.append((event["event_id"], *(field_of(n, event, element) for n in feed.fields)))
                else:
                    refused = self._refused[feed.view, key]
                    if not refused or refused[-1][1] is not event:
                        refused.append((outcome, event, *self._places[place], offset, arrival))

    def _known(self, column: _Column, now: int, upto: Mapping[Place, int] | None) -> np.ndarray:
        known: np.ndarray = column.arrival <= now
        if upto is not None:
            ends = np.array([upto.get(place, 0) for place in self._places], dtype=np.int64)
            known = known & (column.offset < ends[column.place])
        return known

    def _column(self, view: str, name: str, key: Key) -> _Column:
        found = self._columns.get((view, name, key))
        if found is None:
            found = self._columns[view, name, key] = self._build(view, name, key)
        return found

    def _build(self, view: str, name: str, key: Key) -> _Column:
        numbers: list[np.ndarray] = [np.empty((0, 4), dtype=np.int64)]
        values: list[Any] = []
        ids: list[str] = []
        for source in column_of(self.views[view], name)["sources"]:
            rows = self._rows.get((view, source["topic"], source.get("each", ""), key))
            if rows is None:
                continue
            fields = next(f.fields for f in self._feeds[source["topic"]]
                          if (f.view, f.each) == (view, source.get("each", "")))
            at = [1 + fields.index(n) for n in names_of(source)]
            numbers.append(np.array(rows.numbers, dtype=np.int64).reshape(-1, 4))
            values += [product([row[i] for i in at]) for row in rows.values]
            ids += [row[0] for row in rows.values]
        when, arrival, place, offset = np.concatenate(numbers).T
        value, event_id = np.empty(len(values), dtype=object), np.empty(len(values), dtype=object)
        value[:], event_id[:] = values, ids
        there = np.fromiter((v is not None for v in values), dtype=bool, count=len(values))
        keep = np.flatnonzero(there)
        order = keep[np.argsort(when[keep], kind="stable")]
        whole = all(isinstance(v, int) for v in value[order])
        measure = value[order].astype(np.int64) if whole else np.zeros(len(order), dtype=np.int64)
        code = np.unique(np.array([str(v) for v in value[order]], dtype=object), return_inverse=True)[1]
        return _Column(when[order], arrival[order], place[order], offset[order], value[order], measure, code,
                       event_id[order])


def bounds(window: str, now: int) -> tuple[int, int]:
    """The first millisecond of a window at `now`, and the first after it: whole tiles, the open one included."""
    length, tile = WINDOWS[window]
    return (now - length) // tile * tile, now // tile * tile + tile


def _within(when: np.ndarray, window: str, now: int) -> np.ndarray:
    low, high = bounds(window, now)
    inside: np.ndarray = (when >= low) & (when < high)
    return inside


def _std(feature: Mapping[str, Any], column: _Column, inside: np.ndarray, now: int) -> float:
    """Of the population, from exact integers."""
    values = [int(v) for v in column.measure[inside]]
    n, total, squares = len(values), sum(values), sum(v * v for v in values)
    return math.sqrt(n * squares - total * total) / n if n else math.nan


def _decayed(feature: Mapping[str, Any], column: _Column, inside: np.ndarray, now: int) -> float:
    tile = WINDOWS[feature["window"]][1]
    age = (now // tile - column.when[inside] // tile) * tile
    return math.fsum(column.measure[inside] * np.exp2(-age / feature["half_life_ms"]))


def _top(feature: Mapping[str, Any], column: _Column, inside: np.ndarray, now: int) -> list[str]:
    times = Counter(column.value[inside].tolist())
    return sorted(times, key=lambda value: (-times[value], value))[:feature["k"]]


def _extreme(pick: Any) -> Any:
    return lambda feature, column, inside, now: float(pick(column.measure[inside])) if inside.any() else math.nan


_FUNCTIONS: Final[dict[str, Any]] = {
    "count": lambda feature, column, inside, now: int(inside.sum()),
    "sum": lambda feature, column, inside, now: int(column.measure[inside].sum()),
    "mean": lambda feature, column, inside, now:
        float(column.measure[inside].sum()) / int(inside.sum()) if inside.any() else math.nan,
    "min": _extreme(np.min),
    "max": _extreme(np.max),
    "std": _std,
    "distinct": lambda feature, column, inside, now: len(np.unique(column.code[inside])),
    "decayed": _decayed,
    "top_k": _top,
}
