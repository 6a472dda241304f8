"""Feast's Redis layout, byte for byte, without Feast: one hash per entity key, one field per feature. Pure functions.

    key      <I number of join keys, per join key (sorted) its type and text, per value its type and text, project
    field    murmur3 of "view:feature", 4 bytes little endian  ->  a Value message
    _ts:view                                                    ->  a Timestamp message

An integration test holds this file to what Feast itself reads and writes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import lru_cache
from typing import Final

import mmh3

_U32: Final = struct.Struct("<I")
_STRING: Final = 2
_TAG: Final = {"bytes": 0x0A, "str": 0x12, "int": 0x20, "bool": 0x38}
_INTEGERS: Final = (0x18, 0x20)  # int32, int64
_DOUBLE, _FLOAT, _FLAG = 0x29, 0x35, 0x38
Plain = bytes | str | int | float | bool


def redis_key(project: str, join_keys: tuple[str, ...], values: tuple[str, ...]) -> bytes:
    """The key of an entity row whose join keys are all text."""
    pairs = sorted(zip(join_keys, values, strict=True))
    return b"".join([_head(tuple(name for name, _ in pairs)), *(_text(value) for _, value in pairs), project.encode()])


def key_maker(project: str, join_keys: tuple[str, ...]) -> Callable[[tuple[str, ...]], bytes]:
    """`redis_key` of one view, with what all of its keys share worked out once."""
    order = sorted(range(len(join_keys)), key=join_keys.__getitem__)
    head, tail = _head(tuple(sorted(join_keys))), project.encode()
    if len(order) == 1:
        return lambda values: b"%b%b%b" % (head, _text(values[0]), tail)
    return lambda values: b"".join([head, *(_text_again(values[at]) for at in order), tail])


@lru_cache(maxsize=1024)
def field(view: str, feature: str) -> bytes:
    """The hash field of a feature."""
    return _U32.pack(mmh3.hash(f"{view}:{feature}", signed=False))


@lru_cache(maxsize=1024)
def time_field(view: str) -> bytes:
    """The hash field of a view's timestamp."""
    return f"_ts:{view}".encode()


def timestamp(at_ms: int) -> bytes:
    """A protobuf Timestamp."""
    seconds, rest = divmod(at_ms, 1000)
    return b"\x08" + _varint(seconds) + (b"\x10" + _varint(rest * 1_000_000) if rest else b"")


def value(of: Plain) -> bytes:
    """A Feast Value message holding bytes, text, an int64, a double or a bool."""
    if isinstance(of, float):
        return b"\x29" + struct.pack("<d", of)
    tag = bytes([_TAG[type(of).__name__]])
    if isinstance(of, int):
        return tag + _varint(int(of) & (2**64 - 1))
    raw = of.encode() if isinstance(of, str) else of
    return tag + _varint(len(raw)) + raw


def bytes_of(message: bytes | None) -> bytes | None:
    """The bytes held by a Value message; None for nothing and for a value that is not bytes."""
    return _sized(message) if message and message[0] == _TAG["bytes"] else None


def plain_of(message: bytes | None) -> Plain | None:
    """What a Value message of one bytes, text, number or bool holds; None for nothing and for any other kind."""
    if not message:
        return None
    tag = message[0]
    if tag == _TAG["str"]:
        return _sized(message).decode()
    if tag in _INTEGERS:
        number = _read_varint(message, 1)[0]
        return number - 2**64 if number >= 2**63 else number
    if tag == _FLAG:
        return bool(message[1])
    if tag in (_DOUBLE, _FLOAT):
        found: float = struct.unpack_from("<d" if tag == _DOUBLE else "<f", message, 1)[0]
        return found
    return bytes_of(message)


def moment_of(message: bytes | None) -> int | None:
    """The milliseconds of a Timestamp message; None for nothing."""
    if not message:
        return None
    parts, at = {0x08: 0, 0x10: 0}, 0
    while at < len(message):
        parts[message[at]], at = _read_varint(message, at + 1)
    return parts[0x08] * 1000 + parts[0x10] // 1_000_000


def _sized(message: bytes) -> bytes:
    size, at = _read_varint(message, 1)
    return message[at:at + size]


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    """(the number, where it ends)."""
    number = shift = 0
    while True:
        byte = message[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not byte & 0x80:
            return number, at


@lru_cache(maxsize=64)
def _head(names: tuple[str, ...]) -> bytes:
    return _U32.pack(len(names)) + b"".join(map(_text, names))


def _text(text: str) -> bytes:
    raw = text.encode()
    return _U32.pack(_STRING) + _U32.pack(len(raw)) + raw


_text_again: Final = lru_cache(maxsize=4096)(_text)
"""For keys of several parts, which are asked for together: one shopper with every category."""


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
