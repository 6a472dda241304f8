"""Values outside of what the reference ever had, with a margin: broken units show here.

A reference of few different values has no range: what is new there moves its shares, and other methods see that.
"""

from __future__ import annotations

from typing import ClassVar, Final

import numpy as np

from models.drift.base import Comparison, Measurement, Thresholds
from models.drift.columns import Column
from models.drift.significance import share_tail

_MARGIN: Final = 0.1  # of the range
_WIDE, _TIMES = 20.0, 3.0  # positive values over so many times their least (prices): a factor is the margin


class OutOfRange(Comparison):
    name: ClassVar[str] = "out_of_range"
    thresholds: ClassVar[Thresholds] = Thresholds(0.01, 0.05)
    numbers_only: ClassVar[bool] = True

    def distance(self, reference: Column, current: Column) -> Measurement:
        if reference.values:  # flags and small counts have values, not a range
            return Measurement(0.0, 1.0)
        bottom, top = _limits(reference.low, reference.high)
        low, high = np.array([bottom]), np.array([top])
        value = float(current.cdf(low, below=True)[0] + 1 - current.cdf(high)[0])
        p_value = share_tail(value, current.present, 0.0, reference.present)
        return Measurement(max(0.0, value), p_value, f"[{reference.low:.4g}, {reference.high:.4g}]")


def _limits(low: float, high: float) -> tuple[float, float]:
    if low > 0 and high / low > _WIDE:
        return low / _TIMES, high * _TIMES
    margin = _MARGIN * (high - low)
    return low - margin, high + margin
