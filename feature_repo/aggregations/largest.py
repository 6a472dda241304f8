"""The largest of a column's values; missing over no rows."""

from __future__ import annotations

import numpy as np

from feature_repo.aggregations.base import Aggregation, Asked, Kind, Partials


class Max(Aggregation):
    name = "max"
    formula = "max x"
    meaning = "largest {column} in {window}"

    def partials(self, asked: Asked, valued: frozenset[str]) -> tuple[tuple[Kind, str], ...]:
        return (("max", asked.column),)

    def read(self, asked: Asked, partials: Partials) -> np.ndarray:
        return partials.total("max", asked.column, asked.span)
