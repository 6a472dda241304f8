"""Tiles of mergeable partial aggregates for one key: count an event in, pack to bytes, read windows at a time. Pure.

`apply` is commutative: the same set of rows gives the same windows in any order. Windows are merged when they are read,
so they decay with the clock. A state may be read at any time not before the last arrival it has counted.
Knows nothing of Kafka, Redis, Feast or of who owns a key.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any, Final

import msgspec
import numpy as np

from feature_repo import distinct
from feature_repo.layout import INT_MAX, INT_MIN, DistinctSlot, Layout, Level, layout_of
from feature_repo.plan import ViewPlan
from feature_repo.windows import tile_range

Value = str | int
_tile: Final = struct.Struct("<I")


class Wire(msgspec.Struct, array_like=True):
    """The packed bytes: MessagePack of this array. `distinct` holds, per slot, tile indices (uint32), hashes per tile
    (uint8), the hashes (uint64), and [tile, registers] of tiles that overflowed."""

    fingerprint: int
    arrival: int
    levels: list[bytes]
    distinct: list[tuple[bytes, bytes, bytes, list[tuple[int, bytes]]]]
    last: list[list[tuple[int, Value]]]


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Wire).decode


class State:
    """The open tiles of one key. `arrival` is the newest arrival counted, ms."""

    __slots__ = ("arrival", "distinct", "last", "levels")

    def __init__(self, layout: Layout) -> None:
        self.arrival = 0
        self.levels: list[bytearray] = [bytearray() for _ in layout.levels]
        self.distinct: list[dict[int, bytearray]] = [{} for _ in layout.distinct]
        self.last: list[list[tuple[int, Value]]] = [[] for _ in layout.last]


def apply(layout: Layout, state: State, feed: int, event_time: int, arrival: int, values: Sequence[Value | None],
          n: int = 1) -> None:
    """Count `n` equal rows of a feed into the state. `values` are the feed's columns; None is a missing value."""
    state.arrival = max(state.arrival, arrival)
    ops = layout.feeds[feed]
    for at, level in enumerate(layout.levels):
        if ops.level_ops[at]:
            opened = _count(state.levels[at], level, ops.level_ops[at], event_time // level.tile_ms, values, n)
            if opened:
                _prune(state.levels[at], level, state.arrival)
    for at, value_at in ops.distinct_ops:
        value = values[value_at]
        if value is not None:
            slot, sketches = layout.distinct[at], state.distinct[at]
            tile = event_time // slot.tile_ms
            held = sketches.get(tile)
            sketches[tile] = distinct.add(bytearray() if held is None else held, distinct.hash64(value))
            if held is None:
                _prune_distinct(sketches, slot, state.arrival)
    for at, value_at in ops.last_ops:
        value = values[value_at]
        if value is not None:
            remember(state.last[at], layout.last[at].k, (event_time, value), n)


def pack(layout: Layout, state: State) -> bytes:
    """The state as the bytes of its one Feast value."""
    return _encode(Wire(layout.fingerprint, state.arrival, [bytes(b) for b in state.levels],
                        [_pack_distinct(s) for s in state.distinct], state.last))


def unpack(layout: Layout, packed: bytes | None) -> State | None:
    """The state of packed bytes; None for None, for bytes of another layout and for what is no state at all."""
    wire = _read(layout, packed)
    if wire is None:
        return None
    state = State(layout)
    state.arrival = wire.arrival
    state.levels = [bytearray(b) for b in wire.levels]
    state.last = wire.last
    for sketches, (tiles, counts, hashes, registers) in zip(state.distinct, wire.distinct, strict=True):
        start = 0
        for (tile,), held in zip(_tile.iter_unpack(tiles), counts, strict=True):
            sketches[tile] = bytearray(hashes[start:start + 8 * held])
            start += 8 * held
        sketches.update((tile, bytearray(r)) for tile, r in registers)
    return state


def windows(view: ViewPlan, packed: bytes | None, now_ms: int) -> dict[str, Any]:
    """Every feature of one key at `now_ms`: counts, sums and distincts int (0 if none), mean, min and max float
    (NaN if none), `last` a value or None, `last_k` a list, newest first."""
    whole = {f.name for f in view.declared if f.function in ("count", "sum", "distinct")}
    out: dict[str, Any] = {}
    for name, column in columns(view, [packed], now_ms).items():
        value = column[0]
        out[name] = int(value) if name in whole else float(value) if isinstance(value, np.floating) else value
    return out


def columns(view: ViewPlan, packed: Sequence[bytes | None], now_ms: int) -> dict[str, np.ndarray]:
    """Every feature of many keys at `now_ms`, in order of the keys: float64 [n], object [n] for last and last_k."""
    layout = layout_of(view)
    wires = [_read(layout, p) for p in packed]
    numbers = [_gather_level(wires, at, level) for at, level in enumerate(layout.levels)]
    sets = [_gather_distinct(wires, at) for at in range(len(layout.distinct))]
    picked: dict[tuple[int, str], tuple[np.ndarray, np.ndarray]] = {}
    out: dict[str, np.ndarray] = {}
    for feature in view.declared:
        if feature.function in ("last", "last_k"):
            at = next(i for i, s in enumerate(layout.last) if s.column == feature.column and s.k == (feature.k or 1))
            out[feature.name] = _last(wires, at, feature.function == "last_k")
            continue
        first, final = tile_range(feature.span, now_ms)
        if feature.function == "distinct":
            at = next(i for i, s in enumerate(layout.distinct)
                      if (s.column, s.tile_ms) == (feature.column, feature.span.tile_ms))
            out[feature.name] = _distinct(wires, sets[at], at, first, final)
            continue
        at = layout.slot(feature, {"mean": "sum"}.get(feature.function, feature.function))[0]
        if (at, feature.window) not in picked:
            keys, rows = numbers[at]
            inside = (rows["tile"] >= first) & (rows["tile"] <= final)
            picked[at, feature.window] = keys[inside], rows[inside]
        keys, rows = picked[at, feature.window]
        out[feature.name] = _reduce(feature.function, keys, lambda kind, f=feature, r=rows: r[layout.slot(f, kind)[1]],
                                    len(wires))
    return out


@lru_cache(maxsize=64)
def _view_of(view_json: str) -> ViewPlan:
    return msgspec.json.decode(view_json, type=ViewPlan)


def request_windows(view_json: str, inputs: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """What Feast's on-demand views call: packed tiles and `now_ms` per row -> every feature per row.

    Feast has no missing text: `last` without a value is "" here.
    """
    view = _view_of(view_json)
    pairs = zip(inputs[view.stored], inputs["now_ms"], strict=True)
    rows = [windows(view, packed, int(now or 0)) for packed, now in pairs]
    missing = {f.name: "" for f in view.declared if f.function == "last"}
    return {name: [row[name] if row[name] is not None else missing[name] for row in rows] for name in view.features}


def _count(rows: bytearray, level: Level, ops: tuple[tuple[int, str, int], ...], tile: int,
           values: Sequence[Value | None], n: int) -> bool:
    """Add to a tile's row; returns whether the row is new."""
    at = _find(rows, level.row.size, tile)
    opened = at < 0
    if opened:
        at = ~at
        rows[at:at] = level.row.pack(tile, *level.empty)
    row = list(level.row.unpack_from(rows, at))
    for slot, kind, value_at in ops:
        value = 1 if value_at < 0 else values[value_at]
        if value is None:
            continue
        if kind == "count":
            row[slot + 1] += n
        elif kind == "sum":
            row[slot + 1] += int(value) * n
        elif kind == "min":
            row[slot + 1] = min(row[slot + 1], int(value))
        else:
            row[slot + 1] = max(row[slot + 1], int(value))
    level.row.pack_into(rows, at, *row)
    return opened


def _find(rows: bytearray, size: int, tile: int) -> int:
    """The byte position of a tile's row, or ~position where it would be inserted."""
    low, high = 0, len(rows) // size
    if high:
        newest = _tile.unpack_from(rows, (high - 1) * size)[0]
        if newest == tile:
            return (high - 1) * size
        if newest < tile:
            return ~(high * size)
    while low < high:
        middle = (low + high) // 2
        if _tile.unpack_from(rows, middle * size)[0] < tile:
            low = middle + 1
        else:
            high = middle
    at = low * size
    return at if at < len(rows) and _tile.unpack_from(rows, at)[0] == tile else ~at


def _prune(rows: bytearray, level: Level, arrival: int) -> None:
    oldest = (arrival - level.keep_ms) // level.tile_ms
    if rows and _tile.unpack_from(rows, 0)[0] < oldest:
        at = _find(rows, level.row.size, oldest)
        del rows[:at if at >= 0 else ~at]


def _prune_distinct(sketches: dict[int, bytearray], slot: DistinctSlot, arrival: int) -> None:
    oldest = (arrival - slot.keep_ms) // slot.tile_ms
    for tile in [t for t in sketches if t < oldest]:
        del sketches[tile]


def remember(held: list[tuple[int, Value]], k: int, fact: tuple[int, Value], n: int) -> None:
    """Insert into the k newest, sorted by (event time, value) falling; equal facts are all kept."""
    for _ in range(min(n, k)):
        if len(held) == k and fact <= held[-1]:
            return
        at = next((i for i, other in enumerate(held) if fact > other), len(held))
        held.insert(at, fact)
        del held[k:]


def _pack_distinct(sketches: dict[int, bytearray]) -> tuple[bytes, bytes, bytes, list[tuple[int, bytes]]]:
    exact = {t: s for t, s in sketches.items() if distinct.is_exact(s)}
    return (struct.pack(f"<{len(exact)}I", *exact), bytes([len(s) // 8 for s in exact.values()]),
            b"".join(exact.values()), [(t, bytes(s)) for t, s in sketches.items() if t not in exact])


def _read(layout: Layout, packed: bytes | None) -> Wire | None:
    if not packed:
        return None
    try:
        wire = _decode(packed)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return wire if wire.fingerprint == layout.fingerprint else None


def _gather_level(wires: list[Wire | None], at: int, level: Level) -> tuple[np.ndarray, np.ndarray]:
    parts = [w.levels[at] if w else b"" for w in wires]
    counts = np.fromiter((len(p) // level.row.size for p in parts), dtype=np.int64, count=len(parts))
    return np.repeat(np.arange(len(parts)), counts), np.frombuffer(b"".join(parts), dtype=level.dtype)


def _gather_distinct(wires: list[Wire | None], at: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(key index, tile, hash) of every exact entry."""
    parts = [w.distinct[at] if w else (b"", b"", b"", []) for w in wires]
    held = np.frombuffer(b"".join(p[1] for p in parts), dtype=np.uint8)
    tiles = np.repeat(np.frombuffer(b"".join(p[0] for p in parts), dtype="<u4"), held)
    counts = np.fromiter((len(p[2]) // 8 for p in parts), dtype=np.int64, count=len(parts))
    hashes = np.frombuffer(b"".join(p[2] for p in parts), dtype="<u8")
    return np.repeat(np.arange(len(parts)), counts), tiles, hashes


def _reduce(function: str, keys: np.ndarray, partial: Any, n: int) -> np.ndarray:
    if function in ("min", "max"):
        empty = INT_MAX if function == "min" else INT_MIN
        extreme = np.full(n, empty, dtype=np.int64)
        (np.minimum if function == "min" else np.maximum).at(extreme, keys, partial(function))
        found: np.ndarray = np.where(extreme == empty, np.nan, extreme.astype(np.float64))
        return found
    if function != "mean":
        return _total(keys, partial(function), n)
    counts, sums = _total(keys, partial("count"), n), _total(keys, partial("sum"), n)
    means: np.ndarray = np.divide(sums, counts, out=np.full(n, np.nan), where=counts > 0)
    return means


def _total(keys: np.ndarray, values: np.ndarray, n: int) -> np.ndarray:
    """Sums per key as float64: exact below 2^53."""
    totals: np.ndarray = np.bincount(keys, weights=values, minlength=n)
    return totals


def _distinct(wires: list[Wire | None], gathered: tuple[np.ndarray, np.ndarray, np.ndarray], at: int, first: int,
              final: int) -> np.ndarray:
    keys, tiles, hashes = gathered
    inside = (tiles >= first) & (tiles <= final)
    keys, hashes = keys[inside], hashes[inside]
    order = np.lexsort((hashes, keys))
    keys, hashes = keys[order], hashes[order]
    fresh = np.ones(len(keys), dtype=bool)
    fresh[1:] = (keys[1:] != keys[:-1]) | (hashes[1:] != hashes[:-1])
    counts = np.bincount(keys[fresh], minlength=len(wires)).astype(np.float64)
    for key, wire in enumerate(wires):
        if wire is not None and wire.distinct[at][3]:
            overflowed = [r for t, r in wire.distinct[at][3] if first <= t <= final]
            if overflowed:
                counts[key] = distinct.count([*overflowed, *_exact_sketches(wire, at, first, final)])
    return counts


def _exact_sketches(wire: Wire, at: int, first: int, final: int) -> list[bytes]:
    tiles, held, hashes, _ = wire.distinct[at]
    ends = [0, *(8 * int(e) for e in np.cumsum(np.frombuffer(held, dtype=np.uint8), dtype=np.int64))]
    return [hashes[a:b] for (t,), (a, b) in zip(_tile.iter_unpack(tiles), pairwise(ends), strict=True)
            if first <= t <= final]


def _last(wires: list[Wire | None], at: int, many: bool) -> np.ndarray:
    out = np.empty(len(wires), dtype=object)
    for key, wire in enumerate(wires):
        held = wire.last[at] if wire else []
        out[key] = [value for _, value in held] if many else (held[0][1] if held else None)
    return out
