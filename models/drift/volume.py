"""How many requests come: hits are requests, trials are seconds. Silence is the largest drop there is."""

from __future__ import annotations

from typing import ClassVar

from models.drift.base import LEAST, Measurement, Rate, RateComparison, Thresholds
from models.drift.rates import log_ratio


class Volume(RateComparison):
    name: ClassVar[str] = "volume"
    thresholds: ClassVar[Thresholds] = Thresholds(0.7, 1.4)  # half or double; a quarter or four times

    def measure(self, reference: Rate, current: Rate) -> Measurement | None:
        if reference.hits < LEAST or not current.trials:
            return None
        if reference.hits / reference.trials * current.trials < LEAST:  # too short a window to expect anything
            return None
        return log_ratio(reference, current)
