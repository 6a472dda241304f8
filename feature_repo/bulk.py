"""Tiles of many keys at once from columns of facts, with numpy: the same packed states as counting one by one. Pure.

`as_of` is the newest arrival among the facts: tiles that no window can reach from there on are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from feature_repo import distinct
from feature_repo.layout import DistinctSlot, LastSlot, Layout, Level
from feature_repo.tiles import Wire

_encode = msgspec.msgpack.Encoder().encode
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
    as_of = max((int(f.arrival.max()) for f in feeds if len(f.arrival)), default=0)
    arrivals = np.full(n_keys, -1, dtype=np.int64)
    for facts in feeds:
        np.maximum.at(arrivals, facts.codes, facts.arrival)
    levels = [_level(layout, at, level, feeds, n_keys, as_of) for at, level in enumerate(layout.levels)]
    sketches = [_distinct(layout, at, slot, feeds, n_keys, as_of) for at, slot in enumerate(layout.distinct)]
    last = [_last(layout, at, slot, feeds, n_keys) for at, slot in enumerate(layout.last)]
    for code in np.flatnonzero(arrivals >= 0):
        yield int(code), _encode(Wire(
            layout.fingerprint, int(arrivals[code]),
            [raw[starts[code] * lv.row.size:starts[code + 1] * lv.row.size]
             for (raw, starts), lv in zip(levels, layout.levels, strict=True)],
            [sketch(code) for sketch in sketches], [newest(code) for newest in last]))


def _level(layout: Layout, at: int, level: Level, feeds: Sequence[Facts], n_keys: int, as_of: int
           ) -> tuple[bytes, np.ndarray]:
    """All rows of a level as bytes, sorted by (key, tile), and where each key's rows start."""
    oldest = (as_of - level.keep_ms) // level.tile_ms
    ids, kept = [], []
    for facts, feed in zip(feeds, layout.feeds, strict=True):
        tile = facts.event_time // level.tile_ms
        keep = np.flatnonzero(tile >= oldest) if feed.level_ops[at] else np.empty(0, dtype=np.int64)
        kept.append(keep)
        ids.append((facts.codes[keep] << 32) | tile[keep])
    unique, inverse = np.unique(np.concatenate(ids), return_inverse=True)
    rows = np.empty(len(unique), dtype=level.dtype)
    rows["tile"] = unique & 0xFFFFFFFF
    for i, empty in enumerate(level.empty):
        rows[f"s{i}"] = empty
    start = 0
    for facts, feed, keep in zip(feeds, layout.feeds, kept, strict=True):
        where = inverse[start:start + len(keep)]
        start += len(keep)
        for slot, kind, value_at in feed.level_ops[at]:
            _add(rows[f"s{slot}"], kind, where, None if value_at < 0 else facts.values[value_at][keep])
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


def _missing(values: np.ndarray) -> np.ndarray:
    if values.dtype == object:
        return np.fromiter((v is None for v in values), dtype=bool, count=len(values))
    gone: np.ndarray = np.isnan(values)
    return gone


def _distinct(layout: Layout, at: int, slot: DistinctSlot, feeds: Sequence[Facts], n_keys: int, as_of: int) -> Any:
    """A function from a key code to its packed distinct slot."""
    oldest = (as_of - slot.keep_ms) // slot.tile_ms
    codes, tiles, hashes = [], [], []
    for facts, feed in zip(feeds, layout.feeds, strict=True):
        for op, value_at in feed.distinct_ops:
            if op == at:
                tile = facts.event_time // slot.tile_ms
                keep = (tile >= oldest) & ~_missing(facts.values[value_at])
                names, inverse = np.unique(facts.values[value_at][keep].astype(str), return_inverse=True)
                table = np.fromiter((distinct.hash64(str(v)) for v in names), dtype=np.uint64, count=len(names))
                codes.append(facts.codes[keep])
                tiles.append(tile[keep])
                hashes.append(table[inverse] if len(names) else np.empty(0, dtype=np.uint64))
    code, tile, hashed = np.concatenate(codes), np.concatenate(tiles), np.concatenate(hashes)
    order = np.lexsort((hashed, tile, code))
    code, tile, hashed = code[order], tile[order], hashed[order]
    fresh = np.ones(len(code), dtype=bool)
    fresh[1:] = (code[1:] != code[:-1]) | (tile[1:] != tile[:-1]) | (hashed[1:] != hashed[:-1])
    code, tile, hashed = code[fresh], tile[fresh], hashed[fresh]
    starts = np.searchsorted(code, np.arange(n_keys + 1))

    def pack(key: int) -> tuple[bytes, bytes, bytes, list[tuple[int, bytes]]]:
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


def _last(layout: Layout, at: int, slot: LastSlot, feeds: Sequence[Facts], n_keys: int) -> Any:
    """A function from a key code to its `k` newest [event time, value]."""
    codes, times, values = [], [], []
    for facts, feed in zip(feeds, layout.feeds, strict=True):
        for op, value_at in feed.last_ops:
            if op == at:
                keep = ~_missing(facts.values[value_at])
                codes.append(facts.codes[keep])
                times.append(facts.event_time[keep])
                values.append(facts.values[value_at][keep])
    code, when, value = np.concatenate(codes), np.concatenate(times), np.concatenate(values)
    _, rank = np.unique(value.astype(str), return_inverse=True)
    order = np.lexsort((-rank, -when, code))
    code, when, value = code[order], when[order], value[order]
    starts = np.searchsorted(code, np.arange(n_keys + 1))

    def pack(key: int) -> list[tuple[int, Any]]:
        first = int(starts[key])
        end = min(int(starts[key + 1]), first + slot.k)
        return [(int(t), v) for t, v in zip(when[first:end], value[first:end].tolist(), strict=True)]

    return pack
