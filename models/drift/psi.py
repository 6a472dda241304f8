"""Population stability index: the symmetric Kullback-Leibler divergence over bins. Warn 0.1, alert 0.25.

For two samples of one distribution it is about (1/n + 1/m) times a chi-square of B - 1 degrees (Yurdakul 2018): that
is its p-value, which keeps twenty rows from crying wolf.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from models.drift.base import Comparison, Measurement, Thresholds
from models.drift.bins import binned, smoothed
from models.drift.columns import Column
from models.drift.significance import chi_square_tail


class PSI(Comparison):
    name: ClassVar[str] = "psi"
    thresholds: ClassVar[Thresholds] = Thresholds(0.1, 0.25)

    def distance(self, reference: Column, current: Column) -> Measurement:
        n, m = reference.present, current.present
        raw_p, raw_q = binned(reference, current)
        p, q = smoothed(raw_p, max(n, m)), smoothed(raw_q, max(n, m))
        value = float(np.sum((p - q) * np.log(p / q)))
        return Measurement(value, chi_square_tail(value / (1 / n + 1 / m), len(p) - 1))
