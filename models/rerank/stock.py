"""Drops what cannot be bought now, by the live catalogue."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from models.rerank.base import Context, Outcome, Slate


class Stock:
    name: ClassVar[str] = "stock"
    must: ClassVar[bool] = True

    def apply(self, slate: Slate, context: Context) -> Outcome:
        return Outcome(np.flatnonzero(context.in_stock(slate.rows)), np.zeros(0, np.int64))
