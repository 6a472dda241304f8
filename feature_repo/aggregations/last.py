"""The newest value, whenever it was: the largest (event time, value)."""

from __future__ import annotations

import numpy as np

from feature_repo.aggregations.base import Aggregation, Asked, Partials


class Last(Aggregation):
    name = "last"
    windowed = False
    takes = "text"
    dtype = "string"
    formula = "x of the largest (event time, x)"
    bound = "one value"
    meaning = "newest of {column}"

    def read(self, asked: Asked, partials: Partials) -> np.ndarray:
        held = partials.newest(asked.column, 1)
        out = np.empty(len(held), dtype=object)
        for row, values in enumerate(held):
            out[row] = values[0] if values else None
        return out
