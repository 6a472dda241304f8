"""The smallest of a column's values; missing over no rows."""

from __future__ import annotations

import numpy as np

from feature_repo.aggregations.base import Aggregation, Asked, Kind, Partials


class Min(Aggregation):
    name = "min"
    formula = "min x"
    meaning = "smallest {column} in {window}"

    def partials(self, asked: Asked, valued: frozenset[str]) -> tuple[tuple[Kind, str], ...]:
        return (("min", asked.column),)

    def read(self, asked: Asked, partials: Partials) -> np.ndarray:
        return partials.total("min", asked.column, asked.span)
