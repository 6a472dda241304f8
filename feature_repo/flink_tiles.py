"""From the records of Flink's topic of tiles to packed tiles: the very bytes that the stream worker writes. Pure.

A record replaces what was known of its tile, so that reading records twice changes nothing, as long as the newest comes
last. Distinct values lie there one by one: the sketch, exact or HyperLogLog, is made of them here.
"""

from __future__ import annotations

from typing import Any, Final, TypeVar

import msgspec

from feature_repo import distinct, tiles
from feature_repo.flink_partials import DISTINCT, NEWEST, NEWEST_TILE_MS, TILES, TOP, names_of
from feature_repo.layout import Layout, Level, TileSlot
from feature_repo.wire import Value

_MASK: Final = 2**64 - 1
T = TypeVar("T")


class TileKey(msgspec.Struct, frozen=True, kw_only=True):
    """Which tile of which key a record is about; `of_value` is set for distinct and top values, one record each."""

    view: str
    entity: str
    part: str
    tile_ms: int
    tile: int
    of_value: str

    @property
    def key(self) -> tuple[str, ...]:
        """The values of the view's join keys."""
        return tuple(self.entity.split("\x1f"))


_key: Final = msgspec.json.Decoder(TileKey).decode
_value: Final = msgspec.json.Decoder(dict[str, Any]).decode


def decode(key: bytes | str, value: bytes | None) -> tuple[TileKey, dict[str, Any] | None]:
    """A record of the topic of tiles. Raises ValueError on what the compiled job did not write."""
    try:
        return _key(key), _value(value) if value else None
    except msgspec.DecodeError as error:
        raise ValueError(f"not a record of the topic of tiles: {error}") from None


class KeyTiles:
    """The tiles of one key of a view: `put` records, `packed` gives the bytes of its one Feast value."""

    def __init__(self, layout: Layout, packed: bytes | None = None) -> None:
        """`packed` is what is known of the key so far; bytes of another layout count as nothing."""
        self._layout = layout
        self._state = tiles.unpack(layout, packed) or tiles.State(layout)
        self._levels: list[dict[int, bytes]] = [
            {row[0]: level.row.pack(*row) for row in level.row.iter_unpack(rows)}
            for level, rows in zip(layout.levels, self._state.levels, strict=True)]

    def put(self, at: TileKey, value: dict[str, Any] | None) -> None:
        """Take in one record. A deletion only ever stands between two versions of a list, and changes nothing."""
        if value is None:
            return
        layout, state = self._layout, self._state
        state.arrival = max(state.arrival, value["arrival"])
        part, _, column = at.part.partition(":")
        if part == TILES:
            level = next(i for i, lv in enumerate(layout.levels) if lv.tile_ms == at.tile_ms)
            self._levels[level][at.tile] = _row(layout.levels[level], at.tile, value)
        elif part == DISTINCT:
            sketches = state.distinct[_slot(layout.distinct, column, at.tile_ms)]
            sketches[at.tile] = distinct.add(sketches.get(at.tile, bytearray()), distinct.hash64(at.of_value))
        elif part == TOP:
            state.top[_slot(layout.top, column, at.tile_ms)].setdefault(at.tile, {})[at.of_value] = value["n0"]
        elif part == NEWEST:
            self._replace_day(column, at.tile, [(f["event_time"], f["of_value"]) for f in value.get("facts") or ()])
        else:
            raise ValueError(f"{at.part!r} is no part of {at.view}; the job was compiled by another version")

    def packed(self) -> bytes:
        """Without the tiles that no window can reach any more."""
        layout, state = self._layout, self._state
        for at, level in enumerate(layout.levels):
            rows = self._levels[at] = self._kept(self._levels[at], level.tile_ms, level.keep_ms)
            state.levels[at] = bytearray(b"".join(rows.values()))
        for i, slot in enumerate(layout.distinct):
            state.distinct[i] = self._kept(state.distinct[i], slot.tile_ms, slot.keep_ms)
        for i, slot in enumerate(layout.top):
            state.top[i] = self._kept(state.top[i], slot.tile_ms, slot.keep_ms)
        return tiles.pack(layout, state)

    def _kept(self, held: dict[int, T], tile_ms: int, keep_ms: int) -> dict[int, T]:
        """In order of the tiles."""
        oldest = (self._state.arrival - keep_ms) // tile_ms
        return {tile: held[tile] for tile in sorted(held) if tile >= oldest}

    def _replace_day(self, column: str, day: int, facts: list[tuple[int, Value]]) -> None:
        last = self._state.last
        for at, slot in enumerate(self._layout.last):
            if slot.column == column:
                others = [fact for fact in last[at] if fact[0] // NEWEST_TILE_MS != day]
                last[at] = sorted([*others, *facts], reverse=True)[:slot.k]


def _row(level: Level, tile: int, value: dict[str, Any]) -> bytes:
    """A tile as it is packed: what no row has added to is empty."""
    row = [tile]
    empty = iter(level.empty)
    for name, slot in zip(names_of(s.kind for s in level.slots), level.slots, strict=True):
        words = [next(empty) for _ in range(2 if slot.kind == "squares" else 1)]
        given = value.get(name)
        if given is not None:
            words = [int(given) & _MASK, int(given) >> 64] if slot.kind == "squares" else [int(given)]
        row += words
    return level.row.pack(*row)


def _slot(slots: tuple[TileSlot, ...], column: str, tile_ms: int) -> int:
    return next(i for i, s in enumerate(slots) if (s.column, s.tile_ms) == (column, tile_ms))
