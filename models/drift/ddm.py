"""Drift detection method (Gama et al. 2004), by river: the error rate exceeds the lowest it ever had by far.

It sees rising error rates only, and wants errors: a value of at least a half is one.
"""

from __future__ import annotations

from typing import ClassVar

from models.drift.base import Sequential


class DDM(Sequential):
    name: ClassVar[str] = "ddm"

    def __init__(self, deviations: float = 4.0, warm_start: int = 500) -> None:
        from river.drift import binary  # brings scikit-learn along: seconds that most checks do not need

        self._inner = binary.DDM(warm_start=warm_start, warning_threshold=deviations - 1, drift_threshold=deviations)

    def update(self, value: float) -> bool:
        self._inner.update(value >= 0.5)
        return bool(self._inner.drift_detected)
