"""The slow end of a distribution: by how much its P95 moved, as the size of a log ratio. For latency."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from models.drift.base import Comparison, Measurement, Thresholds
from models.drift.columns import Column
from models.drift.ks import gap
from models.drift.significance import kolmogorov_tail


class TailShift(Comparison):
    name: ClassVar[str] = "tail_shift"
    thresholds: ClassVar[Thresholds] = Thresholds(0.7, 1.4)
    numbers_only: ClassVar[bool] = True

    def distance(self, reference: Column, current: Column) -> Measurement:
        before, now = (float(column.draw_quantiles(20)[-2]) for column in (reference, current))
        value = abs(float(np.log(max(now, 1e-9) / max(before, 1e-9))))
        p_value = kolmogorov_tail(gap(reference, current), reference.present, current.present)
        return Measurement(value, p_value, f"P95 {before:.4g} -> {now:.4g}")
