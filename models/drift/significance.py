"""How likely by accident: the laws that the detectors use, and the correction for asking many questions at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import special


def chi_square_tail(value: float, freedom: int) -> float:
    """P(X >= value) for a chi-square of `freedom` degrees; 1 without freedom."""
    return float(special.gammaincc(freedom / 2, max(value, 0.0) / 2)) if freedom > 0 else 1.0


def kolmogorov_tail(distance: float, n: float, m: float) -> float:
    """Asymptotic P(D >= distance) of the two-sample Kolmogorov-Smirnov statistic; conservative where values tie."""
    return float(special.kolmogorov(distance * np.sqrt(n * m / (n + m)))) if min(n, m) > 0 else 1.0


def normal_tail(z: float) -> float:
    """Two-sided P(|Z| >= |z|)."""
    return float(2 * special.ndtr(-abs(z)))


def share_tail(share: float, n: float, other: float, m: float) -> float:
    """Two-sided p-value of two shares out of `n` and `m` (pooled z with one pseudo-observation on each side)."""
    pooled = (share * n + other * m + 1) / (n + m + 2)
    return normal_tail((share - other) / np.sqrt(pooled * (1 - pooled) * (1 / n + 1 / m))) if min(n, m) > 0 else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values (1979): below alpha, the chance of any false alarm in the family is below alpha."""
    order = np.argsort(p_values)
    adjusted = np.empty(len(order))
    worst = 0.0
    for i, index in enumerate(order):
        worst = max(worst, min(1.0, p_values[index] * (len(order) - i)))
        adjusted[index] = worst
    return [float(p) for p in adjusted]
