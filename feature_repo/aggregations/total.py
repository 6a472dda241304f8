"""The sum of a column's values; 0 over no rows."""

from __future__ import annotations

import numpy as np

from feature_repo.aggregations.base import Aggregation, Asked, Kind, Partials


class Sum(Aggregation):
    name = "sum"
    dtype = "int64"
    formula = "sum x"
    error = "exact below 2^53 in a window"
    meaning = "sum of {column} in {window}"

    def partials(self, asked: Asked, valued: frozenset[str]) -> tuple[tuple[Kind, str], ...]:
        return (("sum", asked.column),)

    def read(self, asked: Asked, partials: Partials) -> np.ndarray:
        return partials.total("sum", asked.column, asked.span)
