"""Exact sums of squares in two 64-bit words: one squared amount in cents can exceed 64 bits. Pure.

A sum is (low, high) with value high * 2^64 + low, both uint64. Many are added as four sums of 32-bit limbs, each of
which has room for 2^32 of them before it overflows.
"""

from __future__ import annotations

from typing import Final

import numpy as np

MASK: Final = 2**64 - 1
_LOW: Final = np.uint64(2**32 - 1)
_HALF: Final = np.uint64(32)


def group(values: np.ndarray, where: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """(low, high) uint64 [n] of the sums of squares of int64 `values` by group `where`."""
    size = np.abs(values).astype(np.uint64)
    h, l = size >> _HALF, size & _LOW
    low, middle, high = l * l, h * l, h * h  # each below 2^64, because |value| < 2^63
    limbs = [np.zeros(n, dtype=np.uint64) for _ in range(4)]
    for limb, part in ((0, low & _LOW), (1, low >> _HALF), (2, high & _LOW), (3, high >> _HALF)):
        np.add.at(limbs[limb], where, part)
    for _ in range(2):  # 2 h l 2^32
        np.add.at(limbs[1], where, middle & _LOW)
        np.add.at(limbs[2], where, middle >> _HALF)
    return _carried(limbs)


def added(low: np.ndarray, high: np.ndarray, where: np.ndarray, n: int) -> np.ndarray:
    """Sums as Python integers, object [n], of (low, high) by group `where`."""
    limbs = [np.zeros(n, dtype=np.uint64) for _ in range(4)]
    for limb, part in ((0, low & _LOW), (1, low >> _HALF), (2, high & _LOW), (3, high >> _HALF)):
        np.add.at(limbs[limb], where, part)
    low, high = _carried(limbs)
    whole: np.ndarray = high.astype(object) * 2**64 + low.astype(object)
    return whole


def _carried(limbs: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    for i in range(3):
        limbs[i + 1] += limbs[i] >> _HALF
        limbs[i] &= _LOW
    return limbs[0] | (limbs[1] << _HALF), limbs[2] | (limbs[3] << _HALF)
