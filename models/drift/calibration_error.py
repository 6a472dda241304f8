"""Concept drift: shoppers do something else with the same scores in the same places.

Hits are clicks, trials are the clicks that the reference's own calibration expects of these very scores and places; a
move of the inputs moves both and is no concept drift.
"""

from __future__ import annotations

from typing import ClassVar

from models.drift.base import LEAST, Measurement, Rate, RateComparison, Thresholds
from models.drift.rates import log_ratio


class CalibrationError(RateComparison):
    name: ClassVar[str] = "calibration_error"
    thresholds: ClassVar[Thresholds] = Thresholds(0.1, 0.2)

    def measure(self, reference: Rate, current: Rate) -> Measurement | None:
        if reference.hits < LEAST or current.trials < LEAST:
            return None
        return log_ratio(reference, current)
