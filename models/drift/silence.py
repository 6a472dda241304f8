"""Traffic that fell to a fifth or less: the one change of volume that no hour of the day explains."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from models.drift.base import Measurement, Rate, RateComparison, Thresholds
from models.drift.volume import Volume


class Silence(RateComparison):
    name: ClassVar[str] = "silence"
    thresholds: ClassVar[Thresholds] = Thresholds(1.6, 3.0)  # a fifth, a twentieth

    def measure(self, reference: Rate, current: Rate) -> Measurement | None:
        found = Volume().measure(reference, current)
        if found is None:
            return None
        fell = current.hits / current.trials < reference.hits / reference.trials
        return found if fell else replace(found, value=0.0, p_value=1.0)
