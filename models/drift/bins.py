"""Both columns counted in the same bins: tenths of the reference, or its values where they are few."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.drift.columns import Column

TENTHS: Final = 10
_RARE: Final = 0.01  # values rarer than this in both samples share one bin


def binned(reference: Column, current: Column) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Shares of both columns in the same bins, [B] each, summing to 1. Bins that both leave empty are absent."""
    if reference.categorical or (reference.values and current.values):
        p, q = _by_value(reference, current)
    else:
        p, q = _by_tenths(reference, current)
    used = (p > 0) | (q > 0)
    return p[used] / p.sum(), q[used] / q.sum()


def smoothed(shares: NDArray[np.float64], n: float) -> NDArray[np.float64]:
    """Shares with half an observation added to every bin, so that an empty one has no infinite logarithm."""
    return (shares * n + 0.5) / (n + 0.5 * len(shares))


def _by_value(reference: Column, current: Column) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    first = dict(zip(reference.values, reference.shares, strict=True))
    second = dict(zip(current.values, current.shares, strict=True))
    common = [v for v in {**first, **second} if max(first.get(v, 0.0), second.get(v, 0.0)) >= _RARE]
    p, q = (np.array([shares.get(v, 0.0) for v in common]) for shares in (first, second))
    return np.append(p, max(0.0, 1 - p.sum())), np.append(q, max(0.0, 1 - q.sum()))


def _by_tenths(reference: Column, current: Column) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    edges = np.unique(reference.draw_quantiles(TENTHS)[1:-1])
    inner = [column.cdf(edges) for column in (reference, current)]
    p, q = (np.diff(np.concatenate([[0.0], at, [1.0]])) for at in inner)
    return np.maximum(p, 0), np.maximum(q, 0)
