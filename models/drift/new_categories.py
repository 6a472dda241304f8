"""Values that the reference never had, as a share of the current ones. For columns with few values."""

from __future__ import annotations

from typing import ClassVar

from models.drift.base import Comparison, Measurement, Thresholds
from models.drift.columns import MOST_CATEGORIES, Column
from models.drift.significance import share_tail


class NewCategories(Comparison):
    name: ClassVar[str] = "new_categories"
    thresholds: ClassVar[Thresholds] = Thresholds(0.005, 0.02)

    def distance(self, reference: Column, current: Column) -> Measurement:
        if not reference.categorical or len(reference.values) > MOST_CATEGORIES:
            return Measurement(0.0, 1.0)
        known = set(reference.values)
        fresh = {v: s for v, s in zip(current.values, current.shares, strict=True) if v not in known}
        value = float(sum(fresh.values()))
        p_value = share_tail(value, current.present, 0.0, reference.present)
        return Measurement(value, p_value, ", ".join(str(v) for v in fresh))
