"""The ratio of two columns of one view over one window: missing where the denominator is 0 (0/0 too).

Each column is measured by the sum of its values or, if it has none, by the number of its rows.
"""

from __future__ import annotations

import numpy as np

from feature_repo.aggregations.base import Aggregation, Asked, Kind, Partials, divided, measure


class Ratio(Aggregation):
    name = "ratio"
    argument = "other"
    takes = "rows"
    formula = "measure(column) / measure(other)"
    error = "rounding of one division"
    meaning = "{column} per {other} in {window}"

    def partials(self, asked: Asked, valued: frozenset[str]) -> tuple[tuple[Kind, str], ...]:
        return (measure(asked.column, valued), measure(asked.other, valued))

    def read(self, asked: Asked, partials: Partials) -> np.ndarray:
        return divided(partials.measure(asked.column, asked.span), partials.measure(asked.other, asked.span))
