"""Tiles of many keys at once from columns of facts, with numpy: the same packed states as counting one by one. Pure.

Tiles that no window can reach from a key's newest arrival on are left out, as the stream leaves them out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from feature_repo import distinct, squares
from feature_repo.layout import LastSlot, Layout, Level, TileSlot
from feature_repo.wire import PackedDistinct, PackedTop, Value, Wire, encode

Ranges = tuple[np.ndarray, np.ndarray]


class Facts(NamedTuple):
    """Rows of one feed: key codes int64 [n], event_time and arrival ms int64 [n], one array per value (None: missing).

    Number values are float64 with NaN where missing; text values are object arrays."""

    codes: np.ndarray
    event_time: np.ndarray
    arrival: np.ndarray
    values: tuple[np.ndarray, ...]


def build(layout: Layout, feeds: Sequence[Facts], n_keys: int) -> Iterator[tuple[int, bytes]]:
    """(key code, packed state) of every key that has facts; `feeds` in the order of `layout.feeds`."""
    arrivals = np.full(n_keys, -1, dtype=np.int64)
    for facts in feeds:
        np.maximum.at(arrivals, facts.codes, facts.arrival)
    levels = [_level(layout, at, level, feeds, n_keys, arrivals) for at, level in enumerate(layout.levels)]
    sketches = [_distinct(layout, at, slot, feeds, n_keys, arrivals) for at, slot in enumerate(layout.distinct)]
    last = [_last(layout, at, slot, feeds, n_keys) for at, slot in enumerate(layout.last)]
    top = [_top(layout, at, slot, feeds, n_keys, arrivals) for at, slot in enumerate(layout.top)]
    for code in np.flatnonzero(arrivals >= 0).tolist():
        yield code, encode(Wire(
            layout.fingerprint, int(arrivals[code]),
            [raw[starts[code] * lv.row.size:starts[code + 1] * lv.row.size]
             for (raw, starts), lv in zip(levels, layout.levels, strict=True)],
            [sketch(code) for sketch in sketches], [newest(code) for newest in last],
            [frequent(code) for frequent in top]))


def _level(layout: Layout, at: int, level: Level, feeds: Sequence[Facts], n_keys: int, arrivals: np.ndarray
           ) -> tuple[bytes, np.ndarray]:
    """All rows of a level as bytes, sorted by (key, tile), and where each key's rows start."""
    oldest = (arrivals - level.keep_ms) // level.tile_ms
    ids, kept = [], []
    for facts, feed in zip(feeds, layout.feeds, strict=True):
        tile = facts.event_time // level.tile_ms
        keep = np.flatnonzero(tile >= oldest[facts.codes]) if feed.level_ops[at] else np.empty(0, dtype=np.int64)
        kept.append(keep)
        ids.append((facts.codes[keep] << 32) | tile[keep])
    unique, inverse = np.unique(np.concatenate(ids), return_inverse=True)
    rows = np.empty(len(unique), dtype=level.dtype)
    rows["tile"] = unique & 0xFFFFFFFF
    for name, empty in zip((level.dtype.names or ())[1:], level.empty, strict=True):
        rows[name] = empty
    start = 0
    for facts, feed, keep in zip(feeds, layout.feeds, kept, strict=True):
        where = inverse[start:start + len(keep)]
        start += len(keep)
        for slot, kind, value_at in feed.level_ops[at]:
            values = None if value_at < 0 else facts.values[value_at][keep]
            if kind == "squares" and values is not None:
                _add_squares(rows, level.fields[slot], where, values)
            else:
                _add(rows[level.fields[slot]], kind, where, values)
    return rows.tobytes(), np.searchsorted(unique >> 32, np.arange(n_keys + 1))


def _add(slot: np.ndarray, kind: str, where: np.ndarray, values: np.ndarray | None) -> None:
    if values is not None:
        present = ~_missing(values)
        where, values = where[present], values[present]
    if kind == "count":
        slot += np.bincount(where, minlength=len(slot)).astype(slot.dtype)
    elif values is not None:
        numbers = values.astype(np.int64)
        {"sum": np.add, "min": np.minimum, "max": np.maximum}[kind].at(slot, where, numbers)


def _add_squares(rows: np.ndarray, field: str, where: np.ndarray, values: np.ndarray) -> None:
    present = ~_missing(values)
    low, high = squares.group(values[present].astype(np.int64), where[present], len(rows))
    old_low = rows[field].copy()
    rows[field] += low
    rows[f"{field}h"] += high + (rows[field] < old_low)


def _missing(values: np.ndarray) -> np.ndarray:
    if values.dtype == object:
        return np.fromiter((v is None for v in values), dtype=bool, count=len(values))
    gone: np.ndarray = np.isnan(values)
    return gone


def _in_tiles(slot: TileSlot, ops: list[tuple[int, int]], feeds: Sequence[Facts], arrivals: np.ndarray
              ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(key code, tile, value as text) of the rows that a slot may still be read for; ops are (feed, value)."""
    oldest = (arrivals - slot.keep_ms) // slot.tile_ms
    codes, tiles, values = [], [], []
    for feed, value_at in ops:
        facts = feeds[feed]
        tile = facts.event_time // slot.tile_ms
        keep = (tile >= oldest[facts.codes]) & ~_missing(facts.values[value_at])
        codes.append(facts.codes[keep])
        tiles.append(tile[keep])
        values.append(facts.values[value_at][keep].astype(str))
    return np.concatenate(codes), np.concatenate(tiles), np.concatenate(values)


def _ops(layout: Layout, which: str, at: int) -> list[tuple[int, int]]:
    """(feed, value) of every feed that changes a slot of `distinct_ops`, `top_ops` or `last_ops`."""
    return [(i, value_at) for i, feed in enumerate(layout.feeds) for op, value_at in getattr(feed, which) if op == at]


def _distinct(layout: Layout, at: int, slot: TileSlot, feeds: Sequence[Facts], n_keys: int, arrivals: np.ndarray
              ) -> Callable[[int], PackedDistinct]:
    """A function from a key code to its packed distinct slot."""
    code, tile, value = _in_tiles(slot, _ops(layout, "distinct_ops", at), feeds, arrivals)
    names, inverse = np.unique(value, return_inverse=True)
    table = np.fromiter((distinct.hash64(str(v)) for v in names), dtype=np.uint64, count=len(names))
    hashed = table[inverse] if len(names) else np.empty(0, dtype=np.uint64)
    order = np.lexsort((hashed, tile, code))
    code, tile, hashed = code[order], tile[order], hashed[order]
    fresh = np.ones(len(code), dtype=bool)
    fresh[1:] = (code[1:] != code[:-1]) | (tile[1:] != tile[:-1]) | (hashed[1:] != hashed[:-1])
    code, tile, hashed = code[fresh], tile[fresh], hashed[fresh]
    starts = np.searchsorted(code, np.arange(n_keys + 1))

    def pack(key: int) -> PackedDistinct:
        mine = slice(starts[key], starts[key + 1])
        own, counts = np.unique(tile[mine], return_counts=True)
        if not len(own) or counts.max() <= distinct.EXACT_LIMIT:
            return own.astype("<u4").tobytes(), counts.astype(np.uint8).tobytes(), hashed[mine].tobytes(), []
        parts = np.split(hashed[mine], np.cumsum(counts)[:-1])
        small = [i for i, c in enumerate(counts) if c <= distinct.EXACT_LIMIT]
        return (own[small].astype("<u4").tobytes(), counts[small].astype(np.uint8).tobytes(),
                b"".join(parts[i].tobytes() for i in small),
                [(int(own[i]), distinct.build(parts[i])) for i in range(len(own)) if i not in small])

    return pack


def _top(layout: Layout, at: int, slot: TileSlot, feeds: Sequence[Facts], n_keys: int, arrivals: np.ndarray
         ) -> Callable[[int], PackedTop]:
    """A function from a key code to the packed counts of its values."""
    code, tile, value = _in_tiles(slot, _ops(layout, "top_ops", at), feeds, arrivals)
    names, which = np.unique(value, return_inverse=True)
    unique, counts = np.unique(np.stack([code, tile, which]), axis=1, return_counts=True)
    starts = np.searchsorted(unique[0], np.arange(n_keys + 1))

    def pack(key: int) -> PackedTop:
        mine = slice(starts[key], starts[key + 1])
        own, entries = np.unique(unique[1, mine], return_counts=True)
        held, index = np.unique(unique[2, mine], return_inverse=True)
        return (names[held].tolist(), *(a.astype("<u4").tobytes() for a in (own, entries, index, counts[mine])))

    return pack


def _last(layout: Layout, at: int, slot: LastSlot, feeds: Sequence[Facts], n_keys: int
          ) -> Callable[[int], list[tuple[int, Value]]]:
    """A function from a key code to its `k` newest [event time, value]."""
    codes, times, values = [], [], []
    for feed, value_at in _ops(layout, "last_ops", at):
        facts = feeds[feed]
        keep = ~_missing(facts.values[value_at])
        codes.append(facts.codes[keep])
        times.append(facts.event_time[keep])
        values.append(facts.values[value_at][keep])
    code, when, value = np.concatenate(codes), np.concatenate(times), np.concatenate(values)
    _, rank = np.unique(value.astype(str), return_inverse=True)
    order = np.lexsort((-rank, -when, code))
    code, when, value = code[order], when[order], value[order]
    starts = np.searchsorted(code, np.arange(n_keys + 1))

    def pack(key: int) -> list[tuple[int, Value]]:
        first = int(starts[key])
        end = min(int(starts[key + 1]), first + slot.k)
        return [(int(t), v) for t, v in zip(when[first:end], value[first:end].tolist(), strict=True)]

    return pack
