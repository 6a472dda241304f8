"""Tiles of mergeable partial aggregates for one key: count an event in, pack to bytes, read windows at a time. Pure.

`apply` is commutative: the same set of rows gives the same windows in any order. Windows are merged when they are read,
so they decay with the clock. A state may be read at any time not before the last arrival it has counted.
Knows nothing of Kafka, Redis, Feast or of who owns a key.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

import msgspec
import numpy as np

from feature_repo import distinct, wire
from feature_repo.layout import COUNT, MAX, MIN, SUM, Layout, Level, TileSlot, layout_of
from feature_repo.on_request import OnRequest, computed
from feature_repo.plan import ViewPlan
from feature_repo.squares import MASK
from feature_repo.tile_reader import TileReader
from feature_repo.wire import Value, Wire

_tile: Final = struct.Struct("<I")


class State:
    """The open tiles of one key. `arrival` is the newest arrival counted, ms.

    Of each level one row is held open as a list, because the next event most often counts in the same tile.
    """

    __slots__ = ("arrival", "distinct", "last", "levels", "open", "top")

    def __init__(self, layout: Layout) -> None:
        self.arrival = 0
        self.levels: list[bytearray] = [bytearray() for _ in layout.levels]
        self.open: list[list[int] | None] = [None] * len(layout.levels)
        self.distinct: list[dict[int, bytearray]] = [{} for _ in layout.distinct]
        self.top: list[dict[int, dict[Value, int]]] = [{} for _ in layout.top]
        self.last: list[list[tuple[int, Value]]] = [[] for _ in layout.last]


def apply(layout: Layout, state: State, feed: int, event_time: int, arrival: int, values: Sequence[Value | None],
          n: int = 1) -> None:
    """Count `n` equal rows of a feed into the state. `values` are the feed's columns; None is a missing value."""
    if arrival > state.arrival:
        state.arrival = arrival
    ops = layout.feeds[feed]
    for at, (counted, valued) in ops.compiled:
        tile = event_time // layout.levels[at].tile_ms
        row = state.open[at]
        if row is None or row[0] != tile:
            row = _open(state, at, layout.levels[at], tile)
        for place in counted:
            row[place] += n
        for value_at, places in valued:
            value = values[value_at]
            if value is not None:
                _add(row, places, value, n)
    for at, value_at in ops.distinct_ops:
        value = values[value_at]
        if value is not None:
            slot, sketches = layout.distinct[at], state.distinct[at]
            tile = event_time // slot.tile_ms
            held = sketches.get(tile)
            sketches[tile] = distinct.add(bytearray() if held is None else held, distinct.hash64(value))
            if held is None:
                _prune_tiles(sketches, slot, state.arrival)
    for at, value_at in ops.top_ops:
        value = values[value_at]
        if value is not None:
            _count_value(state.top[at], layout.top[at], event_time, value, n, state.arrival)
    for at, value_at in ops.last_ops:
        value = values[value_at]
        if value is not None:
            remember(state.last[at], layout.last[at].k, (event_time, value), n)


def pack(layout: Layout, state: State) -> bytes:
    """The state as the bytes of its one Feast value."""
    for at, row in enumerate(state.open):
        if row is not None:
            _write(state.levels[at], layout.levels[at], row)
    return wire.encode(Wire(layout.fingerprint, state.arrival, [bytes(b) for b in state.levels],
                            [_pack_distinct(s) for s in state.distinct], state.last,
                            [_pack_top(s) for s in state.top]))


def unpack(layout: Layout, packed: bytes | None) -> State | None:
    """The state of packed bytes; None for None, for bytes of another layout and for what is no state at all."""
    found = wire.decode(layout, packed)
    if found is None:
        return None
    state = State(layout)
    state.arrival = found.arrival
    state.levels = [bytearray(b) for b in found.levels]
    state.last = found.last
    for sketches, (tiles, counts, hashes, registers) in zip(state.distinct, found.distinct, strict=True):
        start = 0
        for (tile,), held in zip(_tile.iter_unpack(tiles), counts, strict=True):
            sketches[tile] = bytearray(hashes[start:start + 8 * held])
            start += 8 * held
        sketches.update((tile, bytearray(r)) for tile, r in registers)
    for tops, (vocabulary, tiles, entries, index, numbers) in zip(state.top, found.top, strict=True):
        pairs = ((vocabulary[i], n) for (i,), (n,) in zip(_tile.iter_unpack(index), _tile.iter_unpack(numbers),
                                                          strict=True))
        for (tile,), (held,) in zip(_tile.iter_unpack(tiles), _tile.iter_unpack(entries), strict=True):
            tops[tile] = dict(next(pairs) for _ in range(held))
    return state


def windows(view: ViewPlan, packed: bytes | None, now_ms: int) -> dict[str, Any]:
    """Every feature of one key at `now_ms`: counts, sums and distincts int (0 if none), decayed float (0.0 if none),
    other numbers float (NaN if none), `last` a value or None, `last_k` and `top_k` lists."""
    found = columns(view, [packed], now_ms)
    return {f.name: f.aggregation.plain(found[f.name][0]) for f in view.declared}


def columns(view: ViewPlan, packed: Sequence[bytes | None], now_ms: int) -> dict[str, np.ndarray]:
    """Every feature of many keys at `now_ms`, in order of the keys: float64 [n], object [n] for text and lists."""
    reader = TileReader(layout_of(view), packed, now_ms)
    return {f.name: f.aggregation.read(f, reader) for f in view.declared}


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


@lru_cache(maxsize=64)
def _plan_of(text: str) -> tuple[tuple[ViewPlan, ...], tuple[OnRequest, ...]]:
    return msgspec.json.decode(text, type=tuple[tuple[ViewPlan, ...], tuple[OnRequest, ...]])


def request_features(text: str, inputs: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """What Feast's on-demand view of a service's features on request calls: packed tiles of several views, `now_ms` and
    the request's numbers per row -> every feature per row. `text` is JSON of (views, features on request)."""
    views, declared = _plan_of(text)
    stored: dict[str, list[float]] = {}
    for view in views:
        wanted = [name for name in view.features if any(name in f.stored for f in declared)]
        rows = [windows(view, packed, int(now or 0))
                for packed, now in zip(inputs[view.stored], inputs["now_ms"], strict=True)]
        stored |= {name: [row[name] for row in rows] for name in wanted}
    request = {f.request: np.array([float(v or 0) for v in inputs[f.request]]) for f in declared}
    return {name: column.tolist() for name, column in
            computed(declared, request, {k: np.array(v) for k, v in stored.items()}).items()}


def remember(held: list[tuple[int, Value]], k: int, fact: tuple[int, Value], n: int) -> None:
    """Insert into the k newest, sorted by (event time, value) falling; equal facts are all kept."""
    for _ in range(min(n, k)):
        if len(held) == k and fact <= held[-1]:
            return
        at = next((i for i, other in enumerate(held) if fact > other), len(held))
        held.insert(at, fact)
        del held[k:]


def _add(row: list[int], places: Sequence[tuple[int, int]], value: Any, n: int) -> None:
    for op, place in places:
        if op == COUNT:
            row[place] += n
        elif op == SUM:
            row[place] += value * n
        elif op == MIN:
            if value < row[place]:
                row[place] = value
        elif op == MAX:
            if value > row[place]:
                row[place] = value
        else:
            low = row[place] + value * value * n
            row[place] = low & MASK
            row[place + 1] += low >> 64


def _open(state: State, at: int, level: Level, tile: int) -> list[int]:
    """Put the open row of a level back and open the tile's, which may be new."""
    rows, before = state.levels[at], state.open[at]
    if before is not None:
        _write(rows, level, before)
    place = _find(rows, level.row.size, tile)
    if place >= 0:
        row = list(level.row.unpack_from(rows, place))
    else:
        row = [tile, *level.empty]
        rows[~place:~place] = level.row.pack(*row)
        _prune(rows, level, state.arrival)
    state.open[at] = row
    return row


def _write(rows: bytearray, level: Level, row: list[int]) -> None:
    """Write an open row back to its place, unless the tile has been pruned meanwhile."""
    place = _find(rows, level.row.size, row[0])
    if place < 0:
        return
    try:
        level.row.pack_into(rows, place, *row)
    except struct.error:  # a count or sum beyond its type stays at the limit: one absurd key must not stop a partition
        limits = [np.iinfo(level.dtype[name]) for name in level.dtype.names or ()]
        row[:] = [min(max(value, int(of.min)), int(of.max)) for value, of in zip(row, limits, strict=True)]
        level.row.pack_into(rows, place, *row)


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


def _prune_tiles(tiles: dict[int, Any], slot: TileSlot, arrival: int) -> None:
    oldest = (arrival - slot.keep_ms) // slot.tile_ms
    for tile in [t for t in tiles if t < oldest]:
        del tiles[tile]


def _count_value(tiles: dict[int, dict[Value, int]], slot: TileSlot, event_time: int, value: Value, n: int,
                 arrival: int) -> None:
    tile = event_time // slot.tile_ms
    held = tiles.get(tile)
    if held is None:
        tiles[tile] = {value: n}
        _prune_tiles(tiles, slot, arrival)
    else:
        held[value] = held.get(value, 0) + n


def _pack_distinct(sketches: dict[int, bytearray]) -> wire.PackedDistinct:
    exact = {t: s for t, s in sketches.items() if distinct.is_exact(s)}
    return (struct.pack(f"<{len(exact)}I", *exact), bytes([len(s) // 8 for s in exact.values()]),
            b"".join(exact.values()), [(t, bytes(s)) for t, s in sketches.items() if t not in exact])


def _pack_top(tiles: dict[int, dict[Value, int]]) -> wire.PackedTop:
    place: dict[Value, int] = {}
    index, numbers = [], []
    for held in tiles.values():
        for value, n in held.items():
            index.append(place.setdefault(value, len(place)))
            numbers.append(n)
    return (list(place), struct.pack(f"<{len(tiles)}I", *tiles),
            struct.pack(f"<{len(tiles)}I", *map(len, tiles.values())),
            struct.pack(f"<{len(index)}I", *index), struct.pack(f"<{len(index)}I", *numbers))
