"""Adaptive windows (Bifet and Gavalda 2007), by river: two parts of the recent past have different means."""

from __future__ import annotations

from typing import ClassVar

from models.drift.base import Sequential


class ADWIN(Sequential):
    name: ClassVar[str] = "adwin"

    def __init__(self, delta: float = 1e-4) -> None:
        from river import drift  # brings scikit-learn along: seconds that most checks do not need

        self._inner = drift.ADWIN(delta=delta)

    def update(self, value: float) -> bool:
        self._inner.update(value)
        return bool(self._inner.drift_detected)
