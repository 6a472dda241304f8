"""A surge of nulls: by how much the share of missing values rose. An all-null column is one, an empty window is not."""

from __future__ import annotations

from typing import ClassVar

from models.drift.base import LEAST, Comparison, Measurement, Thresholds
from models.drift.columns import Column
from models.drift.significance import share_tail


class NullShare(Comparison):
    name: ClassVar[str] = "null_share"
    thresholds: ClassVar[Thresholds] = Thresholds(0.05, 0.15)

    def enough(self, reference: Column, current: Column) -> bool:
        return min(reference.units, current.units) >= LEAST

    def distance(self, reference: Column, current: Column) -> Measurement:
        before, now = reference.null_share, current.null_share
        p_value = share_tail(now, current.units, before, reference.units)
        return Measurement(max(0.0, now - before), p_value, f"{before:.1%} -> {now:.1%}")
