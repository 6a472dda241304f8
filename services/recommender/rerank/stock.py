"""Drops what cannot be bought now, by the live catalogue."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from services.recommender.rerank.base import Context, Outcome, Slate


class Stock:
    name: ClassVar[str] = "stock"

    def apply(self, slate: Slate, context: Context) -> Outcome:
        ids = context.shelf.table.ids[slate.rows]
        keep = np.array([context.in_stock(item_id) for item_id in ids], bool)
        return Outcome(np.flatnonzero(keep), np.zeros(0, np.int64))
