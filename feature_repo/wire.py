"""The packed bytes of one key's tiles: MessagePack of one array. Pure."""

from __future__ import annotations

from typing import Final

import msgspec

from feature_repo.layout import Layout

Value = str | int
PackedDistinct = tuple[bytes, bytes, bytes, list[tuple[int, bytes]]]
PackedTop = tuple[list[Value], bytes, bytes, bytes, bytes]


class Wire(msgspec.Struct, array_like=True):
    """`levels`: the rows of each. `distinct`, per slot: tile indices (uint32), hashes per tile (uint8), the hashes
    (uint64), and [tile, registers] of tiles that overflowed. `last`: [event time, value], newest first. `top`, per
    slot: the values, tile indices (uint32), entries per tile (uint32), and per entry which value and how often."""

    fingerprint: int
    arrival: int
    levels: list[bytes]
    distinct: list[PackedDistinct]
    last: list[list[tuple[int, Value]]]
    top: list[PackedTop] = []


encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Wire).decode


def decode(layout: Layout, packed: bytes | None) -> Wire | None:
    """None for None, for bytes of another layout and for what is no state at all."""
    if not packed:
        return None
    try:
        wire = _decode(packed)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return wire if wire.fingerprint == layout.fingerprint else None
