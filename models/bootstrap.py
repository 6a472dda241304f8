"""Bootstrap intervals over shoppers (Efron 1979): of a mean, and of the paired difference of two models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Interval:
    """A mean and the percentile interval around it."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.4f} [{self.low:.4f}, {self.high:.4f}]"

    def as_dict(self) -> dict[str, float]:
        return {"mean": self.mean, "low": self.low, "high": self.high}


def interval(values: NDArray[np.float64], *, seed: int, draws: int = 1000, level: float = 0.95) -> Interval:
    """The mean of `values` [shoppers] and its interval; the same seed draws the same shoppers.

    Raises ValueError if there are no values.
    """
    if len(values) == 0:
        raise ValueError("no values to resample: the evaluation has no shoppers")
    rng = np.random.default_rng(seed)
    means = np.empty(draws)
    for start in range(0, draws, 50):  # 50 draws at a time keep memory at 50 x shoppers
        stop = min(start + 50, draws)
        means[start:stop] = values[rng.integers(0, len(values), (stop - start, len(values)))].mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(values.mean()), float(low), float(high))


def intervals(
    columns: Mapping[str, NDArray[np.float64]], *, seed: int, draws: int = 1000, level: float = 0.95
) -> dict[str, Interval]:
    """`interval` of many columns at once: all see the same resampled shoppers, drawn as `interval` draws them."""
    if not columns:
        return {}
    table = np.stack(list(columns.values()), axis=1)
    shoppers = len(table)
    if not shoppers:
        raise ValueError("no values to resample: the evaluation has no shoppers")
    rng, means = np.random.default_rng(seed), np.empty((draws, table.shape[1]))
    for start in range(0, draws, 50):
        stop = min(start + 50, draws)
        drawn = rng.integers(0, shoppers, (stop - start, shoppers))
        counts = np.stack([np.bincount(one, minlength=shoppers) for one in drawn])
        means[start:stop] = counts @ table / shoppers
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)
    found = zip(columns, table.mean(axis=0), low, high, strict=True)
    return {name: Interval(float(m), float(lo), float(hi)) for name, m, lo, hi in found}


def paired(a: NDArray[np.float64], b: NDArray[np.float64], *, seed: int, draws: int = 1000) -> Interval:
    """Interval of mean(a - b) where a[i] and b[i] are the same shopper under two models."""
    if a.shape != b.shape:
        raise ValueError(f"a paired bootstrap needs the same shoppers: {a.shape} and {b.shape}")
    return interval(a - b, seed=seed, draws=draws)
