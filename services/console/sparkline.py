"""A distribution as a handful of bars, from its summary alone: quantiles, or every value with its share. Pure."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from models.drift.columns import Column

BARS: Final = 24
WIDTH: Final = 96.0
HEIGHT: Final = 20.0


class Bar(NamedTuple):
    """One bar in a box of WIDTH x HEIGHT, from the top left."""

    x: float
    y: float
    width: float
    height: float


class Spark(NamedTuple):
    """The bars, and what they show in words."""

    bars: tuple[Bar, ...]
    text: str


def spark(column: Column | None) -> Spark | None:
    """The distribution of a column's values; None where nothing is known of it."""
    if column is None or not column.filled:
        return None
    if column.values:
        shares = np.asarray(column.shares[:BARS], np.float64)
        return Spark(_bars(shares), _text(column))
    low, high = _ends(column)
    edges = np.linspace(low, high, BARS + 1)
    cumulative = column.cdf(edges[1:])
    shares = np.diff(np.concatenate([[float(column.cdf(edges[:1], below=True)[0])], cumulative]))
    shares[0] += float(column.cdf(edges[:1], below=True)[0])
    shares[-1] += 1 - float(cumulative[-1])
    return Spark(_bars(shares), _text(column))


def _ends(column: Column) -> tuple[float, float]:
    """Where the picture begins and ends: without the last hundredth of either side, which a few rows would stretch."""
    low, high = (float(v) for v in np.quantile(np.asarray(column.quantiles), (0.01, 0.99)))
    return (low, high) if high > low else (column.low, max(column.high, column.low + 1.0))


def _bars(shares: np.ndarray) -> tuple[Bar, ...]:
    top, step = float(shares.max()) or 1.0, WIDTH / len(shares)
    heights = np.where(shares > 0, np.maximum(shares / top * HEIGHT, 1.0), 0.0)
    gap = min(1.0, step / 4)
    return tuple(
        Bar(round(i * step, 2), round(HEIGHT - h, 2), round(min(step - gap, 12.0), 2), round(h, 2))
        for i, h in enumerate(heights.tolist()) if h
    )  # fmt: skip


def _text(column: Column) -> str:
    empty = f", {column.null_share:.0%} empty" if column.null_share >= 0.005 else ""
    if column.categorical:
        return f"most often {column.values[0]} ({column.shares[0]:.0%}){empty}"
    low, middle, high = column.draw_quantiles(2).tolist()
    return f"{_short(low)} to {_short(high)}, median {_short(middle)}{empty}"


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"
