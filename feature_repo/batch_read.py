"""The windows of many keys at once: as `TileReader`, by fewer and larger numpy steps. Pure.

A key's rows lie sorted by tile, so a window is one range of them: all ranges are found with one binary search, and all
sums of a window with one `reduceat`. All windows end now, so of each distinct value only its newest tile matters. What
is not overridden here (squares, decay, most frequent values) is read as there, and so are a few keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from feature_repo.aggregations.base import Kind
from feature_repo.layout import INT_MAX, INT_MIN, layout_of
from feature_repo.next_change import next_change
from feature_repo.plan import ViewPlan
from feature_repo.tile_reader import TileReader
from feature_repo.windows import Window, tile_range
from feature_repo.wire import PackedDistinct

SUMMED: Final = ("count", "sum")
FEW: Final = 4  # keys up to which larger steps do not pay
EMPTY: Final = {"min": INT_MAX, "max": INT_MIN}
_NONE: Final[PackedDistinct] = (b"", b"", b"", [])
Ints = NDArray[np.int64]


class Batch(NamedTuple):
    """`columns` as of `tiles.columns`; `arrivals`: ms of the newest arrival counted per key, -1 where are no tiles."""

    columns: dict[str, np.ndarray]
    arrivals: Ints


class Lasting(NamedTuple):
    """`columns` as of `tiles.columns`, and per key until when they hold, unless it is written: see `next_change`."""

    columns: dict[str, np.ndarray]
    until_ms: Ints


class ViewReader:
    """Reads `features` (all by default) of a view; made once, used for every request."""

    def __init__(self, view: ViewPlan, features: Sequence[str] | None = None) -> None:
        self.view, self.layout = view, layout_of(view)
        by_name = {f.name: f for f in view.declared}
        self._wanted = [by_name[name] for name in (view.features if features is None else features)]
        self._rows: dict[tuple[str, str, int], int] = {}  # (kind, column, tile length) -> row among the level's sums
        self._fields: dict[int, list[str]] = {}  # tile length -> the fields that are summed, by row
        for feature in self._wanted:
            for kind, column in feature.aggregation.partials(feature, view.valued):
                key = (kind, column, feature.span.tile_ms)
                if kind in SUMMED and key not in self._rows:
                    fields = self._fields.setdefault(feature.span.tile_ms, [])
                    self._rows[key] = len(fields)
                    fields.append(self.layout.place(kind, column, feature.span.tile_ms)[1])

    def read(self, packed: Sequence[bytes | None], now_ms: int) -> Batch:
        """The features of the keys whose packed tiles these are, in their order."""
        partials = self._partials(packed, now_ms)
        return Batch(self._columns(partials), partials.arrivals())

    def lasting(self, packed: Sequence[bytes | None], now_ms: int) -> Lasting:
        """The same, with how long they hold."""
        partials = self._partials(packed, now_ms)
        return Lasting(self._columns(partials), partials.next_change())

    def _partials(self, packed: Sequence[bytes | None], now_ms: int) -> _FewPartials:
        many = len(packed) > FEW
        return _BatchPartials(self, packed, now_ms) if many else _FewPartials(self.layout, packed, now_ms)

    def _columns(self, partials: _FewPartials) -> dict[str, np.ndarray]:
        return {f.name: f.aggregation.read(f, partials) for f in self._wanted}

    def row(self, kind: Kind, column: str, tile_ms: int) -> int | None:
        """The row of a sum among its level's, if it is one."""
        return self._rows.get((kind, column, tile_ms))

    def fields(self, tile_ms: int) -> list[str]:
        return self._fields[tile_ms]


class _FewPartials(TileReader):
    """`Partials` of one call."""

    def arrivals(self) -> Ints:
        return np.array([-1 if w is None else w.arrival for w in self._wires], np.int64)

    def next_change(self) -> Ints:
        return next_change(self._layout, self._wires, self._now)


class _BatchPartials(_FewPartials):
    """`Partials` of one call for many keys."""

    def __init__(self, reader: ViewReader, packed: Sequence[bytes | None], now_ms: int) -> None:
        super().__init__(reader.layout, packed, now_ms)
        self._reader = reader
        self._keys = np.arange(self._n, dtype=np.int64)
        self._rows_of: dict[int, tuple[np.ndarray, Ints]] = {}  # per tile length: rows, and (key, tile) of each
        self._ranges: dict[str, Ints] = {}
        self._pairs: dict[str, tuple[Ints, Ints]] = {}
        self._columns: dict[int, Ints] = {}
        self._sums: dict[str, np.ndarray] = {}
        self._newest_tiles: dict[int, tuple[Ints, np.ndarray] | None] = {}

    def total(self, kind: Kind, column: str, window: Window) -> np.ndarray:
        row = self._reader.row(kind, column, window.tile_ms)
        if row is None:
            return super().total(kind, column, window)
        sums = self._sums.get(window.name)
        if sums is None:
            some, pairs = self._pairs_of(window)
            summed = self._summed(window)
            sums = self._sums[window.name] = np.zeros((len(summed), self._n))
            if len(some):
                sums[:, some] = np.add.reduceat(summed, pairs, axis=1)[:, ::2]
        found: np.ndarray = sums[row]
        return found

    def distinct(self, column: str, window: Window) -> np.ndarray:
        at = next(i for i, s in enumerate(self._layout.distinct) if (s.column, s.tile_ms) == (column, window.tile_ms))
        first, final = tile_range(window, self._now)
        if at not in self._newest_tiles:
            self._newest_tiles[at] = self._newest_of_each(at, final)
        found = self._newest_tiles[at]
        if found is None:
            return super().distinct(column, window)
        keys, newest = found
        return np.bincount(keys[newest >= first], minlength=self._n).astype(np.float64)

    def _newest_of_each(self, at: int, final: int) -> tuple[Ints, np.ndarray] | None:
        """(key, newest tile up to `final`) of every distinct value: all windows end there, so it is in those that have
        begun by then. None where a tile overflowed into a sketch."""
        parts = [_NONE if w is None else w.distinct[at] for w in self._wires]
        if any(p[3] for p in parts):
            return None
        per_tile = np.frombuffer(b"".join([p[1] for p in parts]), np.uint8)
        tiles = np.frombuffer(b"".join([p[0] for p in parts]), "<u4").repeat(per_tile)
        hashes = np.frombuffer(b"".join([p[2] for p in parts]), "<u8")
        keys = self._keys.repeat([len(p[2]) // 8 for p in parts])
        begun = tiles <= final
        if not begun.all():
            keys, tiles, hashes = keys[begun], tiles[begun], hashes[begun]
        order = _grouped(keys, hashes, self._n)
        keys, hashes = keys[order], hashes[order]
        starts = np.flatnonzero(np.append(len(keys) > 0, (keys[1:] != keys[:-1]) | (hashes[1:] != hashes[:-1])))
        return keys[starts], np.maximum.reduceat(tiles[order], starts) if len(starts) else tiles

    def _total(self, kind: Kind, column: str, window: Window) -> np.ndarray:
        if kind not in EMPTY:
            return super()._total(kind, column, window)
        _, field = self._layout.place(kind, column, window.tile_ms)
        out = np.full(self._n, np.nan)
        some, pairs = self._pairs_of(window)
        if len(some):
            rows = self._level_rows(window)[0][field]
            slot = np.append(rows, np.int64(0))  # a range may end where the rows do
            found = (np.minimum if kind == "min" else np.maximum).reduceat(slot, pairs)[::2]
            out[some] = np.where(found == EMPTY[kind], np.nan, found)
        return out

    def _level_rows(self, window: Window) -> tuple[np.ndarray, Ints]:
        found = self._rows_of.get(window.tile_ms)
        if found is None:
            at = next(i for i, lv in enumerate(self._layout.levels) if lv.tile_ms == window.tile_ms)
            level = self._layout.levels[at]
            parts = [b"" if w is None else w.levels[at] for w in self._wires]
            rows = np.frombuffer(b"".join(parts), dtype=level.dtype)
            keys = self._keys.repeat([len(p) // level.row.size for p in parts])
            found = self._rows_of[window.tile_ms] = rows, (keys << 32) | rows["tile"]
        return found

    def _range(self, window: Window) -> Ints:
        """[2, n]: the first row of each key in the window, and the one after the last."""
        found = self._ranges.get(window.name)
        if found is None:
            first, final = tile_range(window, self._now)
            edges = np.empty((2, self._n), np.int64)
            np.left_shift(self._keys, 32, out=edges[0])
            np.add(edges[0], final + 1, out=edges[1])
            edges[0] += first
            found = self._ranges[window.name] = np.searchsorted(self._level_rows(window)[1], edges)
        return found

    def _pairs_of(self, window: Window) -> tuple[Ints, Ints]:
        """The keys that have rows in the window, and where these begin and end, one after the other."""
        found = self._pairs.get(window.name)
        if found is None:
            ranges = self._range(window)
            some = np.flatnonzero(ranges[1] > ranges[0])
            found = self._pairs[window.name] = some, ranges[:, some].T.ravel()
        return found

    def _summed(self, window: Window) -> Ints:
        """[sums, rows + 1] of a level, the last column 0: a range may end where the rows do."""
        found = self._columns.get(window.tile_ms)
        if found is None:
            rows, fields = self._level_rows(window)[0], self._reader.fields(window.tile_ms)
            found = self._columns[window.tile_ms] = np.zeros((len(fields), len(rows) + 1), np.int64)
            for i, field in enumerate(fields):
                found[i, :-1] = rows[field]
        return found


def _grouped(keys: Ints, hashes: np.ndarray, n: int) -> np.ndarray:
    """The order of (key, hash), keys below `n`: few keys are sorted by radix, several times faster than `lexsort`."""
    if n > 1 << 16:
        return np.lexsort((hashes, keys))
    order = np.argsort(hashes)
    return order[np.argsort(keys[order].astype(np.uint16), kind="stable")]
