"""Label drift: what shoppers do with what they are shown, whatever it is. Hits are clicks, trials shown products."""

from __future__ import annotations

from typing import ClassVar

from models.drift.base import LEAST, Measurement, Rate, RateComparison, Thresholds
from models.drift.rates import log_ratio


class LabelShare(RateComparison):
    name: ClassVar[str] = "label_share"
    thresholds: ClassVar[Thresholds] = Thresholds(0.1, 0.2)

    def measure(self, reference: Rate, current: Rate) -> Measurement | None:
        if reference.hits < LEAST or reference.hits / max(reference.trials, 1) * current.trials < LEAST:
            return None
        return log_ratio(reference, current)
