"""The windows of many keys of one view at once: the same values as `tiles.columns`, by fewer and larger numpy steps. Pure.

A key's rows lie sorted by tile, so a window is one range of them. The ranges of all windows are found with one binary
search, sums are differences of one running sum over all slots, and extremes one `reduceat`. What a packed value may
hold beside that (functions that are not listed here, tiles whose distinct values overflowed) is read by `tiles.columns`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from feature_repo import tiles
from feature_repo.layout import Level, layout_of
from feature_repo.plan import Feature, ViewPlan
from feature_repo.windows import tile_range

SUMS: Final = ("count", "sum", "mean")
EXTREMES: Final = ("min", "max")
NEWEST: Final = ("last", "last_k")
FAST: Final = frozenset((*SUMS, *EXTREMES, *NEWEST, "distinct"))
EMPTY: Final = {"min": 2**63 - 1, "max": -(2**63)}
_decode: Final = msgspec.msgpack.Decoder(tiles.Wire).decode
Ints = NDArray[np.int64]
Step = Callable[["_Values", int, dict[str, np.ndarray]], None]


class Batch(NamedTuple):
    """`columns`: as of `tiles.columns`; `arrivals`: ms of the newest arrival counted per key, -1 where there are no tiles."""

    columns: dict[str, np.ndarray]
    arrivals: Ints


class BatchReader:
    """Reads `features` (all by default) of a view; made once, used for every request."""

    def __init__(self, view: ViewPlan, features: Sequence[str] | None = None) -> None:
        self.view, self.layout = view, layout_of(view)
        self.features = view.features if features is None else tuple(features)
        by_name = {f.name: f for f in view.declared}
        wanted = [by_name[name] for name in dict.fromkeys(self.features)]
        self._steps: list[Step] = []
        for at, level in enumerate(self.layout.levels):
            mine = [f for f in wanted if f.function in (*SUMS, *EXTREMES) and f.span.tile_ms == level.tile_ms]
            if mine:
                self._steps.append(_LevelStep(self, at, level, mine))
        distinct = [f for f in wanted if f.function == "distinct"]
        for slot, members in groupby(sorted(distinct, key=self._distinct_slot), key=self._distinct_slot):
            self._steps.append(_DistinctStep(self, slot, list(members)))
        self._newest = [(f.name, self._newest_slot(f), f.function == "last_k") for f in wanted if f.function in NEWEST]
        slow = [f for f in wanted if f.function not in FAST]
        self._slow = self.narrowed(slow) if slow else None

    def read(self, packed: Sequence[bytes | None], now_ms: int) -> Batch:
        """The windows of the keys whose packed tiles these are, in their order."""
        values = _Values(packed, self.layout.fingerprint)
        out: dict[str, np.ndarray] = {}
        for step in self._steps:
            step(values, now_ms, out)
        for name, slot, many in self._newest:
            out[name] = _newest(values.wires, slot, many)
        if self._slow is not None:
            out |= tiles.columns(self._slow, packed, now_ms)
        arrivals = np.fromiter((-1 if w is None else w.arrival for w in values.wires), np.int64, len(packed))
        return Batch({name: out[name] for name in self.features}, arrivals)

    def narrowed(self, features: Sequence[Feature]) -> ViewPlan:
        """The view with these features only, over the same packed bytes."""
        view = msgspec.structs.replace(self.view, declared=tuple(features))
        view.__dict__["_layout"] = self.layout
        return view

    def _distinct_slot(self, feature: Feature) -> int:
        wanted = (feature.column, feature.span.tile_ms)
        return next(i for i, s in enumerate(self.layout.distinct) if (s.column, s.tile_ms) == wanted)

    def _newest_slot(self, feature: Feature) -> int:
        wanted = (feature.column, feature.k or 1)
        return next(i for i, s in enumerate(self.layout.last) if (s.column, s.k) == wanted)


class _Values:
    """The packed values of one call: `wires` in order of the keys, None where there are no tiles of this layout."""

    def __init__(self, packed: Sequence[bytes | None], fingerprint: int) -> None:
        self.packed = packed
        self.wires: list[tiles.Wire | None] = [_wire(p, fingerprint) for p in packed]
        self.n = len(packed)
        self.keys = np.arange(self.n, dtype=np.int64)


class _LevelStep:
    """All sums and extremes of the tiles of one length."""

    def __init__(self, reader: BatchReader, at: int, level: Level, features: Sequence[Feature]) -> None:
        self.at, self.level = at, level
        self.windows = tuple(dict.fromkeys(f.span for f in features))
        slots: dict[str, int] = {}
        self.sums: list[tuple[str, int, int, int | None]] = []  # feature, window, row of the sum, of the count
        self.slots: list[str] = []

        def row(feature: Feature, kind: str) -> int:
            name = reader.layout.slot(feature, kind)[1]
            if name not in slots:
                slots[name] = len(slots)
                self.slots.append(name)
            return slots[name]

        self.bounds: list[tuple[str, str, str, int]] = []  # feature, kind, slot, window
        for f in features:
            window = self.windows.index(f.span)
            if f.function in EXTREMES:
                self.bounds.append((f.name, f.function, reader.layout.slot(f, f.function)[1], window))
            elif f.function == "mean":
                self.sums.append((f.name, window, row(f, "sum"), row(f, "count")))
            else:
                self.sums.append((f.name, window, row(f, f.function), None))

    def __call__(self, values: _Values, now_ms: int, out: dict[str, np.ndarray]) -> None:
        parts = [b"" if w is None else w.levels[self.at] for w in values.wires]
        counts = np.fromiter(map(len, parts), np.int64, values.n) // self.level.row.size
        rows = np.frombuffer(b"".join(parts), dtype=self.level.dtype)
        place = (np.repeat(values.keys, counts) << 32) | rows["tile"]
        edges = np.empty((len(self.windows), 2, values.n), np.int64)
        for i, window in enumerate(self.windows):
            first, final = tile_range(window, now_ms)
            edges[i, 0] = (values.keys << 32) + first
            edges[i, 1] = (values.keys << 32) + final + 1
        ranges: Ints = np.searchsorted(place, edges)
        self._sum(rows, ranges, out)
        for name, kind, slot, window in self.bounds:
            out[name] = _extreme(rows[slot], ranges[window], kind)

    def _sum(self, rows: np.ndarray, ranges: Ints, out: dict[str, np.ndarray]) -> None:
        running = np.zeros((len(self.slots), len(rows) + 1), np.int64)
        for i, slot in enumerate(self.slots):
            np.cumsum(rows[slot], out=running[i, 1:])
        totals = [running[:, until] - running[:, since] for since, until in ranges]
        for name, window, at, count in self.sums:
            total = totals[window][at].astype(np.float64)
            out[name] = total if count is None else _mean(total, totals[window][count])


class _DistinctStep:
    """All distinct counts of one slot: hashes are sorted once, each window counts the first of its own per key."""

    def __init__(self, reader: BatchReader, slot: int, features: Sequence[Feature]) -> None:
        self.slot, self.features = slot, features
        self.sketched = reader.narrowed(features)

    def __call__(self, values: _Values, now_ms: int, out: dict[str, np.ndarray]) -> None:
        parts = [(b"", b"", b"", ()) if w is None else w.distinct[self.slot] for w in values.wires]
        held = np.frombuffer(b"".join([p[1] for p in parts]), np.uint8)
        tile = np.repeat(np.frombuffer(b"".join([p[0] for p in parts]), "<u4"), held)
        counts = np.fromiter((len(p[2]) for p in parts), np.int64, values.n) // 8
        key, hashed = np.repeat(values.keys, counts), np.frombuffer(b"".join([p[2] for p in parts]), "<u8")
        order = np.lexsort((hashed, key))
        key, tile, hashed = key[order], tile[order], hashed[order]
        for feature in self.features:
            first, final = tile_range(feature.span, now_ms)
            inside = np.flatnonzero((tile >= first) & (tile <= final))
            k, h = key[inside], hashed[inside]
            fresh = np.ones(len(k), bool)
            fresh[1:] = (k[1:] != k[:-1]) | (h[1:] != h[:-1])
            out[feature.name] = np.bincount(k[fresh], minlength=values.n).astype(np.float64)
        overflowed = [i for i, p in enumerate(parts) if p[3]]
        if overflowed:
            found = tiles.columns(self.sketched, [values.packed[i] for i in overflowed], now_ms)
            for name, column in found.items():
                out[name][overflowed] = column


def _wire(packed: bytes | None, fingerprint: int) -> tiles.Wire | None:
    if not packed:
        return None
    try:
        wire = _decode(packed)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return wire if wire.fingerprint == fingerprint else None


def _extreme(slot: np.ndarray, ranges: Ints, kind: str) -> np.ndarray:
    """The least or greatest of each range as float64; NaN where it is empty or nothing in it had a value."""
    since, until = ranges
    some = np.flatnonzero(until > since)
    out = np.full(len(since), np.nan)
    if len(some):
        padded = np.append(slot, 0)  # a range may end where the rows do
        pairs = np.stack([since[some], until[some]], axis=1).ravel()
        found = (np.minimum if kind == "min" else np.maximum).reduceat(padded, pairs)[::2]
        out[some] = np.where(found == EMPTY[kind], np.nan, found.astype(np.float64))
    return out


def _mean(total: np.ndarray, count: np.ndarray) -> np.ndarray:
    mean: np.ndarray = np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)
    return mean


def _newest(wires: Sequence[tiles.Wire | None], slot: int, many: bool) -> np.ndarray:
    out = np.empty(len(wires), dtype=object)
    for i, wire in enumerate(wires):
        held: Any = () if wire is None else wire.last[slot]
        out[i] = [value for _, value in held] if many else (held[0][1] if held else None)
    return out
