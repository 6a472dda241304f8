"""How many rows; of a column with a value, how many rows that have it."""

from __future__ import annotations

import numpy as np

from feature_repo.aggregations.base import Aggregation, Asked, Kind, Partials


class Count(Aggregation):
    name = "count"
    takes = "rows"
    dtype = "int64"
    formula = "n"
    meaning = "number of {column} in {window}"

    def partials(self, asked: Asked, valued: frozenset[str]) -> tuple[tuple[Kind, str], ...]:
        return (("count", asked.column),)

    def read(self, asked: Asked, partials: Partials) -> np.ndarray:
        return partials.total("count", asked.column, asked.span)
