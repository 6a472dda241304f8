"""The arithmetic mean of a column's values; missing over no rows."""

from __future__ import annotations

import numpy as np

from feature_repo.aggregations.base import Aggregation, Asked, Kind, Partials, divided


class Mean(Aggregation):
    name = "mean"
    formula = "sum x / n"
    error = "rounding of one division"
    meaning = "mean {column} in {window}"

    def partials(self, asked: Asked, valued: frozenset[str]) -> tuple[tuple[Kind, str], ...]:
        return (("sum", asked.column), ("count", asked.column))

    def read(self, asked: Asked, partials: Partials) -> np.ndarray:
        return divided(partials.total("sum", asked.column, asked.span),
                       partials.total("count", asked.column, asked.span))
