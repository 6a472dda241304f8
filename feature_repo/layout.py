"""From a view's declared features to the slots of its tiles. Pure.

A *level* is one tile length; its tiles are fixed rows `<I tile index, slots...>`, sorted by tile. A slot is one
mergeable partial of one column: count (uint32), sum, min or max (int64), squares (low and high word, uint64). Features
share slots. Distinct counts, most frequent and newest values have slots of their own, because their size varies.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from typing import Final, NamedTuple

import numpy as np

from feature_repo.aggregations.base import Kind
from feature_repo.plan import Feature, ViewPlan
from feature_repo.windows import CLOCK_AHEAD_MS

INT_MAX: Final = 2**63 - 1
INT_MIN: Final = -(2**63)
COUNT, SUM, MIN, MAX, SQUARES = range(5)
_OP: Final[dict[Kind, int]] = {"count": COUNT, "sum": SUM, "min": MIN, "max": MAX, "squares": SQUARES}
_EMPTY: Final[dict[Kind, tuple[int, ...]]] = {
    "count": (0,), "sum": (0,), "min": (INT_MAX,), "max": (INT_MIN,), "squares": (0, 0)}
_CODE: Final[dict[Kind, str]] = {"count": "I", "sum": "q", "min": "q", "max": "q", "squares": "QQ"}
_NUMPY: Final = {"I": "<u4", "q": "<i8", "Q": "<u8"}


class Slot(NamedTuple):
    """One partial of a column within a level."""

    kind: Kind
    column: str


class Level(NamedTuple):
    """All tiles of one length. `keep_ms` is how far before the last arrival a tile can still be read. `fields` names
    each slot's first field of `dtype`; the high word of squares is that name and an `h`."""

    tile_ms: int
    keep_ms: int
    slots: tuple[Slot, ...]
    row: struct.Struct
    dtype: np.dtype
    empty: tuple[int, ...]
    fields: tuple[str, ...]


class TileSlot(NamedTuple):
    """A slot of varying size in tiles of its own: hashes to count distinct values, or the counts of every value."""

    column: str
    tile_ms: int
    keep_ms: int


class LastSlot(NamedTuple):
    """`k` newest values by (event time, value); `last` is k = 1."""

    column: str
    k: int


class LevelOps(NamedTuple):
    """What a row of a feed changes in a level: positions in the row of tiles to which 1 is added, and, per value, the
    (operation, position) that it takes part in."""

    counted: tuple[int, ...]
    valued: tuple[tuple[int, tuple[tuple[int, int], ...]], ...]


class Feed(NamedTuple):
    """What one row of a (topic, exploded field) changes. Indices point into `values`, the row's columns in order.

    `level_ops` holds, per level, (slot, kind, index or -1); `compiled` the same for counting one by one.
    """

    topic: str
    each: str
    values: tuple[tuple[str, ...], ...]
    level_ops: tuple[tuple[tuple[int, Kind, int], ...], ...]
    compiled: tuple[tuple[int, LevelOps], ...]
    distinct_ops: tuple[tuple[int, int], ...]
    top_ops: tuple[tuple[int, int], ...]
    last_ops: tuple[tuple[int, int], ...]


class Layout:
    """The slots of one view; `fingerprint` changes when packed tiles of another layout cannot be read."""

    def __init__(self, view: ViewPlan) -> None:
        self.view = view
        self.levels = _levels(view)
        self.distinct = _tile_slots(view, "distinct")
        self.top = _tile_slots(view, "top_k")
        self.last = tuple(dict.fromkeys(
            LastSlot(f.column, f.k or 1) for f in view.declared if not f.aggregation.windowed))
        self.feeds = tuple(self._feed(topic, each) for topic, each in view.feeds)
        self._places = {(slot.kind, slot.column, level.tile_ms): (at, name) for at, level in enumerate(self.levels)
                        for slot, name in zip(level.slots, level.fields, strict=True)}
        text = repr((view.columns, [(lv.tile_ms, lv.slots) for lv in self.levels], self.distinct, self.top, self.last))
        self.fingerprint = zlib.crc32(text.encode())

    def place(self, kind: Kind, column: str, tile_ms: int) -> tuple[int, str]:
        """(level index, name of the row's field) that holds a partial of a column. Raises KeyError."""
        return self._places[kind, column, tile_ms]

    def _feed(self, topic: str, each: str) -> Feed:
        mine = {c.name: s.fields for c in self.view.columns for s in c.sources if (s.topic, s.each) == (topic, each)}
        fields = tuple(dict.fromkeys(f for f in mine.values() if f))
        index = {name: fields.index(f) if f else -1 for name, f in mine.items()}
        ops = tuple(tuple((i, s.kind, index[s.column]) for i, s in enumerate(lv.slots) if s.column in index)
                    for lv in self.levels)

        def touched(slots: Iterable[TileSlot | LastSlot]) -> tuple[tuple[int, int], ...]:
            return tuple((i, index[s.column]) for i, s in enumerate(slots) if s.column in index)

        compiled = tuple((at, _compiled(self.levels[at], o)) for at, o in enumerate(ops) if o)
        return Feed(topic, each, fields, ops, compiled, touched(self.distinct), touched(self.top), touched(self.last))


def layout_of(view: ViewPlan) -> Layout:
    """The layout of a view, compiled once and kept on the view."""
    found: Layout | None = view.__dict__.get("_layout")
    if found is None:
        found = view.__dict__["_layout"] = Layout(view)
    return found


def _keep(features: Iterable[Feature]) -> int:
    """The longest of their windows, and the slack that two clocks may differ by."""
    return CLOCK_AHEAD_MS + max(f.span.length_ms for f in features)


def _tile_slots(view: ViewPlan, function: str) -> tuple[TileSlot, ...]:
    groups: dict[tuple[str, int], list[Feature]] = {}
    for feature in view.declared:
        if feature.function == function:
            groups.setdefault((feature.column, feature.span.tile_ms), []).append(feature)
    return tuple(TileSlot(column, tile_ms, _keep(members)) for (column, tile_ms), members in groups.items())


def _levels(view: ViewPlan) -> tuple[Level, ...]:
    slots: dict[int, dict[Slot, None]] = {}
    readers: dict[int, list[Feature]] = {}
    for feature in view.declared:
        for kind, column in feature.aggregation.partials(feature, view.valued):
            slots.setdefault(feature.span.tile_ms, {})[Slot(kind, column)] = None
            readers.setdefault(feature.span.tile_ms, []).append(feature)
    levels = []
    for tile_ms in sorted(slots):
        row = tuple(slots[tile_ms])
        named = [(f"s{i}{'h' * word}", code) for i, s in enumerate(row) for word, code in enumerate(_CODE[s.kind])]
        dtype = np.dtype([("tile", "<u4"), *((name, _NUMPY[code]) for name, code in named)])
        levels.append(Level(tile_ms, _keep(readers[tile_ms]), row, struct.Struct("<I" + "".join(c for _, c in named)),
                            dtype, tuple(e for s in row for e in _EMPTY[s.kind]),
                            tuple(f"s{i}" for i in range(len(row)))))
    return tuple(levels)


def _compiled(level: Level, ops: tuple[tuple[int, Kind, int], ...]) -> LevelOps:
    places: dict[int, list[tuple[int, int]]] = {}
    names = level.dtype.names or ()
    for slot, kind, value_at in ops:
        places.setdefault(value_at, []).append((_OP[kind], names.index(level.fields[slot])))
    counted = tuple(place for _, place in places.pop(-1, []))
    return LevelOps(counted, tuple((value_at, tuple(found)) for value_at, found in places.items()))
