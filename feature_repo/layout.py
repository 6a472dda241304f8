"""From a view's declared features to the slots of its tiles. Pure.

A *level* is one tile length; its tiles are fixed rows `<I tile index, slots...>`, sorted by tile. A slot is one
mergeable partial of one column: count (uint32), sum, min or max (int64). `mean` is sum and count. Distinct counts,
`last` and `last_k` have slots of their own, because their size varies.
"""

from __future__ import annotations

import struct
import zlib
from typing import Final, NamedTuple

import numpy as np

from feature_repo.plan import Feature, ViewPlan
from feature_repo.windows import CLOCK_AHEAD_MS, WINDOWS

INT_MAX: Final = 2**63 - 1
INT_MIN: Final = -(2**63)
_EMPTY: Final = {"count": 0, "sum": 0, "min": INT_MAX, "max": INT_MIN}
_CODE: Final = {"count": "I", "sum": "q", "min": "q", "max": "q"}
_PARTIALS: Final = {"count": ("count",), "sum": ("sum",), "mean": ("sum", "count"), "min": ("min",), "max": ("max",)}


class Slot(NamedTuple):
    """One partial of a column within a level."""

    kind: str
    column: str


class Level(NamedTuple):
    """All tiles of one length. `keep_ms` is how far before the last arrival a tile can still be read."""

    tile_ms: int
    keep_ms: int
    slots: tuple[Slot, ...]
    row: struct.Struct
    dtype: np.dtype
    empty: tuple[int, ...]


class DistinctSlot(NamedTuple):
    column: str
    tile_ms: int
    keep_ms: int


class LastSlot(NamedTuple):
    """`k` newest values by (event time, value); `last` is k = 1."""

    column: str
    k: int


class Feed(NamedTuple):
    """What one row of a (topic, exploded field) changes. Indices point into `values`, the row's columns in order."""

    topic: str
    each: str
    values: tuple[tuple[str, ...], ...]
    level_ops: tuple[tuple[tuple[int, str, int], ...], ...]
    distinct_ops: tuple[tuple[int, int], ...]
    last_ops: tuple[tuple[int, int], ...]


class Layout:
    """The slots of one view; `fingerprint` changes when packed tiles of another layout cannot be read."""

    def __init__(self, view: ViewPlan) -> None:
        self.view = view
        self.levels = _levels(view)
        self.distinct = tuple(dict.fromkeys(
            DistinctSlot(f.column, f.span.tile_ms, _keep(view, f.span.tile_ms)) for f in _by(view, "distinct")))
        self.last = tuple(dict.fromkeys(
            LastSlot(f.column, f.k or 1) for f in (*_by(view, "last"), *_by(view, "last_k"))))
        self.feeds = tuple(self._feed(topic, each) for topic, each in view.feeds)
        text = repr((view.columns, [(lv.tile_ms, lv.slots) for lv in self.levels], self.distinct, self.last))
        self.fingerprint = zlib.crc32(text.encode())

    def slot(self, feature: Feature, kind: str) -> tuple[int, str]:
        """(level index, name of the row's field) that holds a partial of a feature."""
        at = next(i for i, lv in enumerate(self.levels) if lv.tile_ms == feature.span.tile_ms)
        return at, f"s{self.levels[at].slots.index(Slot(kind, feature.column))}"

    def _feed(self, topic: str, each: str) -> Feed:
        mine = {c.name: s.fields for c in self.view.columns for s in c.sources if (s.topic, s.each) == (topic, each)}
        fields = tuple(dict.fromkeys(f for f in mine.values() if f))
        index = {name: fields.index(f) if f else -1 for name, f in mine.items()}
        return Feed(
            topic, each, fields,
            tuple(tuple((i, s.kind, index[s.column]) for i, s in enumerate(lv.slots) if s.column in index)
                  for lv in self.levels),
            tuple((i, index[d.column]) for i, d in enumerate(self.distinct) if d.column in index),
            tuple((i, index[s.column]) for i, s in enumerate(self.last) if s.column in index))


def layout_of(view: ViewPlan) -> Layout:
    """The layout of a view, compiled once and kept on the view."""
    found: Layout | None = view.__dict__.get("_layout")
    if found is None:
        found = view.__dict__["_layout"] = Layout(view)
    return found


def _by(view: ViewPlan, function: str) -> list[Feature]:
    return [f for f in view.declared if f.function == function]


def _keep(view: ViewPlan, tile_ms: int) -> int:
    """The longest window read from tiles of this length, and the slack that two clocks may differ by."""
    return CLOCK_AHEAD_MS + max(WINDOWS[f.window].length_ms for f in view.declared
                                if f.window and WINDOWS[f.window].tile_ms == tile_ms)


def _levels(view: ViewPlan) -> tuple[Level, ...]:
    slots: dict[int, dict[Slot, None]] = {}
    for feature in view.declared:
        for kind in _PARTIALS.get(feature.function, ()):
            slots.setdefault(feature.span.tile_ms, {})[Slot(kind, feature.column)] = None
    levels = []
    for tile_ms in sorted(slots):
        row = tuple(slots[tile_ms])
        codes = [_CODE[s.kind] for s in row]
        dtype = np.dtype([("tile", "<u4"), *((f"s{i}", "<u4" if c == "I" else "<i8") for i, c in enumerate(codes))])
        levels.append(Level(tile_ms, _keep(view, tile_ms), row, struct.Struct("<I" + "".join(codes)), dtype,
                            tuple(_EMPTY[s.kind] for s in row)))
    return tuple(levels)
