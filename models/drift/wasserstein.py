"""Wasserstein's first distance, in standard deviations of the reference: how far the mass has to travel.

It has no law that is free of the distribution, so its p-value is that of Kolmogorov-Smirnov on the same pair.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from models.drift.base import Comparison, Measurement, Thresholds
from models.drift.columns import Column, Floats
from models.drift.ks import gap
from models.drift.significance import kolmogorov_tail


class Wasserstein(Comparison):
    name: ClassVar[str] = "wasserstein"
    thresholds: ClassVar[Thresholds] = Thresholds(0.2, 0.4)
    numbers_only: ClassVar[bool] = True

    def distance(self, reference: Column, current: Column) -> Measurement:
        at = np.union1d(reference.knots(), current.knots())
        start = (reference.cdf(at) - current.cdf(at))[:-1]
        end = (reference.cdf(at, below=True) - current.cdf(at, below=True))[1:]
        scale = reference.std or abs(reference.mean) or 1.0
        value = float(np.sum(_area(start, end) * np.diff(at)) / scale)
        return Measurement(value, kolmogorov_tail(gap(reference, current), reference.present, current.present))


def _area(a: Floats, b: Floats) -> Floats:
    """Mean of |line from a to b|, elementwise."""
    total = np.abs(a) + np.abs(b)
    crossing = a * b < 0
    return np.asarray(np.where(crossing, (a * a + b * b) / (2 * np.where(total > 0, total, 1.0)), total / 2))
