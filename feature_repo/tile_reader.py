"""Partial results out of the packed tiles of many keys, at one time: what online features are read from. Pure."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import numpy as np

from feature_repo import distinct, squares, wire
from feature_repo.aggregations.base import Kind
from feature_repo.aggregations.base import measure as measured_by
from feature_repo.layout import INT_MAX, INT_MIN, Layout
from feature_repo.windows import Window, tile_range
from feature_repo.wire import Wire

_tile: Final = struct.Struct("<I")
Rows = tuple[np.ndarray, np.ndarray]
"""(index of the key, row of tiles) of every row within a window."""


class TileReader:
    """`aggregations.base.Partials` of n keys at `now_ms`. What several features share is worked out once."""

    def __init__(self, layout: Layout, packed: Sequence[bytes | None], now_ms: int) -> None:
        self._layout, self._now = layout, now_ms
        self._wires = [wire.decode(layout, p) for p in packed]
        self._n = len(self._wires)
        self._levels: dict[int, Rows] = {}
        self._inside: dict[tuple[int, str], Rows] = {}
        self._sets: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
        self._totals: dict[tuple[Kind, str, str], np.ndarray] = {}

    def total(self, kind: Kind, column: str, window: Window) -> np.ndarray:
        found = self._totals.get((kind, column, window.name))
        if found is None:
            found = self._totals[kind, column, window.name] = self._total(kind, column, window)
        return found

    def measure(self, column: str, window: Window) -> np.ndarray:
        kind, _ = measured_by(column, self._layout.view.valued)
        return self.total(kind, column, window)

    def decayed(self, column: str, window: Window, half_life_ms: int) -> np.ndarray:
        kind, _ = measured_by(column, self._layout.view.valued)
        at, field = self._layout.place(kind, column, window.tile_ms)
        keys, rows = self._rows(at, window)
        age = (self._now // window.tile_ms - rows["tile"].astype(np.int64)) * (window.tile_ms / half_life_ms)
        return np.bincount(keys, weights=rows[field] * np.exp2(-age), minlength=self._n)

    def distinct(self, column: str, window: Window) -> np.ndarray:
        at = next(i for i, s in enumerate(self._layout.distinct) if (s.column, s.tile_ms) == (column, window.tile_ms))
        first, final = tile_range(window, self._now)
        if at not in self._sets:
            self._sets[at] = self._gather_distinct(at)
        keys, tiles, hashes = self._sets[at]
        inside = (tiles >= first) & (tiles <= final)
        keys, hashes = keys[inside], hashes[inside]
        order = np.lexsort((hashes, keys))
        keys, hashes = keys[order], hashes[order]
        fresh = np.ones(len(keys), dtype=bool)
        fresh[1:] = (keys[1:] != keys[:-1]) | (hashes[1:] != hashes[:-1])
        counts = np.bincount(keys[fresh], minlength=self._n).astype(np.float64)
        for key, found in enumerate(self._wires):
            if found is not None and found.distinct[at][3]:
                overflowed = [r for t, r in found.distinct[at][3] if first <= t <= final]
                if overflowed:
                    counts[key] = distinct.count([*overflowed, *_exact_sketches(found, at, first, final)])
        return counts

    def top(self, column: str, window: Window, k: int) -> np.ndarray:
        at = next(i for i, s in enumerate(self._layout.top) if (s.column, s.tile_ms) == (column, window.tile_ms))
        first, final = tile_range(window, self._now)
        out = np.empty(self._n, dtype=object)
        for key, found in enumerate(self._wires):
            out[key] = _most_frequent(found.top[at], first, final, k) if found else []
        return out

    def newest(self, column: str, k: int) -> np.ndarray:
        at = next(i for i, s in enumerate(self._layout.last) if (s.column, s.k) == (column, k))
        out = np.empty(self._n, dtype=object)
        for key, found in enumerate(self._wires):
            out[key] = [value for _, value in found.last[at]] if found else []
        return out

    def _total(self, kind: Kind, column: str, window: Window) -> np.ndarray:
        at, field = self._layout.place(kind, column, window.tile_ms)
        keys, rows = self._rows(at, window)
        if kind == "squares":
            return squares.added(rows[field], rows[f"{field}h"], keys, self._n)
        if kind in ("min", "max"):
            empty = INT_MAX if kind == "min" else INT_MIN
            extreme = np.full(self._n, empty, dtype=np.int64)
            (np.minimum if kind == "min" else np.maximum).at(extreme, keys, rows[field])
            found: np.ndarray = np.where(extreme == empty, np.nan, extreme.astype(np.float64))
            return found
        return np.bincount(keys, weights=rows[field], minlength=self._n)  # float64: exact below 2^53

    def _rows(self, at: int, window: Window) -> Rows:
        if (at, window.name) not in self._inside:
            if at not in self._levels:
                self._levels[at] = self._gather_level(at)
            keys, rows = self._levels[at]
            first, final = tile_range(window, self._now)
            inside = (rows["tile"] >= first) & (rows["tile"] <= final)
            self._inside[at, window.name] = keys[inside], rows[inside]
        return self._inside[at, window.name]

    def _gather_level(self, at: int) -> Rows:
        level = self._layout.levels[at]
        parts = [w.levels[at] if w else b"" for w in self._wires]
        counts = np.fromiter((len(p) // level.row.size for p in parts), dtype=np.int64, count=len(parts))
        return np.repeat(np.arange(len(parts)), counts), np.frombuffer(b"".join(parts), dtype=level.dtype)

    def _gather_distinct(self, at: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(key index, tile, hash) of every exact entry."""
        parts = [w.distinct[at] if w else (b"", b"", b"", []) for w in self._wires]
        held = np.frombuffer(b"".join(p[1] for p in parts), dtype=np.uint8)
        tiles = np.repeat(np.frombuffer(b"".join(p[0] for p in parts), dtype="<u4"), held)
        counts = np.fromiter((len(p[2]) // 8 for p in parts), dtype=np.int64, count=len(parts))
        hashes = np.frombuffer(b"".join(p[2] for p in parts), dtype="<u8")
        return np.repeat(np.arange(len(parts)), counts), tiles, hashes


def _exact_sketches(found: Wire, at: int, first: int, final: int) -> list[bytes]:
    tiles, held, hashes, _ = found.distinct[at]
    ends = [0, *(8 * int(e) for e in np.cumsum(np.frombuffer(held, dtype=np.uint8), dtype=np.int64))]
    return [hashes[a:b] for (t,), (a, b) in zip(_tile.iter_unpack(tiles), pairwise(ends), strict=True)
            if first <= t <= final]


def _most_frequent(packed: wire.PackedTop, first: int, final: int, k: int) -> list[wire.Value]:
    values, tiles, entries, index, numbers = packed
    tile = np.repeat(np.frombuffer(tiles, dtype="<u4"), np.frombuffer(entries, dtype="<u4"))
    inside = (tile >= first) & (tile <= final)
    counts = np.bincount(np.frombuffer(index, dtype="<u4")[inside], minlength=len(values),
                         weights=np.frombuffer(numbers, dtype="<u4")[inside])
    seen = sorted((-n, value) for n, value in zip(counts.tolist(), values, strict=True) if n)
    return [value for _, value in seen[:k]]
