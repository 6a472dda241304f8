"""Page-Hinkley (Page 1954), by river: the cumulated deviation from the mean runs away, up or down."""

from __future__ import annotations

from typing import ClassVar

from models.drift.base import Sequential


class PageHinkley(Sequential):
    name: ClassVar[str] = "page_hinkley"

    def __init__(self, tolerance: float = 0.01, threshold: float = 25.0) -> None:
        from river import drift  # brings scikit-learn along: seconds that most checks do not need

        self._inner = drift.PageHinkley(min_instances=200, delta=tolerance, threshold=threshold, alpha=0.99999)

    def update(self, value: float) -> bool:
        self._inner.update(value)
        return bool(self._inner.drift_detected)
