"""The message between the two stages: rows of item views, on their way to the partition of their own key.

One message holds what a range of source offsets says about one target partition. Every range is sent to every target,
even if it says nothing, so that the receiver can hold the ranges of each source to an unbroken chain.
"""

from __future__ import annotations

from typing import Any, Final

import lz4.frame  # type: ignore[import-untyped]
import msgspec


class Group(msgspec.Struct, array_like=True):
    """Rows of one feed of a view. Per source record: its offset, event time, arrival and number of rows; then per row
    the key and, unless the feed only counts, the values."""

    view: str
    feed: int
    topic: str
    offsets: list[int]
    times: list[int]
    arrivals: list[int]
    counts: list[int]
    keys: list[tuple[str, ...]]
    values: list[tuple[Any, ...]]


class Rekeyed(msgspec.Struct, array_like=True):
    """`ranges`: topic -> (first offset, one past the last) of source partition `partition`."""

    partition: int
    ranges: dict[str, tuple[int, int]]
    groups: list[Group]


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Rekeyed).decode


def encode(message: Rekeyed) -> bytes:
    packed: bytes = lz4.frame.compress(_encode(message))
    return packed


def decode(payload: bytes) -> Rekeyed:
    """Raises ValueError on anything that `encode` did not make."""
    try:
        return _decode(lz4.frame.decompress(payload))
    except (RuntimeError, msgspec.DecodeError) as error:
        raise ValueError(f"not a message between the stages: {error}") from None
