"""Kolmogorov-Smirnov: the largest gap between the two distribution functions."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from models.drift.base import Comparison, Measurement, Thresholds
from models.drift.columns import Column
from models.drift.significance import kolmogorov_tail


def gap(reference: Column, current: Column) -> float:
    """max |F - G|, over the points where either bends and just below them."""
    at = np.union1d(reference.knots(), current.knots())
    above = np.abs(reference.cdf(at) - current.cdf(at)).max()
    under = np.abs(reference.cdf(at, below=True) - current.cdf(at, below=True)).max()
    return float(max(above, under))


class KS(Comparison):
    name: ClassVar[str] = "ks"
    thresholds: ClassVar[Thresholds] = Thresholds(0.1, 0.2)
    numbers_only: ClassVar[bool] = True

    def distance(self, reference: Column, current: Column) -> Measurement:
        value = gap(reference, current)
        return Measurement(value, kolmogorov_tail(value, reference.present, current.present))
