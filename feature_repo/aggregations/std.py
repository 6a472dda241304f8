"""The population standard deviation, from integers: no cancellation, whatever the size of the values.

The textbook formula n sum x^2 - (sum x)^2 loses all its digits in floating point where the spread is small against the
mean. Here both terms are exact integers (sums of squares are 128 bits wide, see `squares.py`), so that only the square
root and the division round.
"""

from __future__ import annotations

import numpy as np

from feature_repo.aggregations.base import Aggregation, Asked, Kind, Partials, divided


class Std(Aggregation):
    name = "std"
    formula = "sqrt(n sum x^2 - (sum x)^2) / n"
    error = "rounding of one root and one division"
    meaning = "standard deviation of {column} in {window}"

    def partials(self, asked: Asked, valued: frozenset[str]) -> tuple[tuple[Kind, str], ...]:
        return (("count", asked.column), ("sum", asked.column), ("squares", asked.column))

    def read(self, asked: Asked, partials: Partials) -> np.ndarray:
        count = partials.total("count", asked.column, asked.span)
        squares = partials.total("squares", asked.column, asked.span)
        n = count.astype(np.int64).astype(object)
        s = partials.total("sum", asked.column, asked.span).astype(np.int64).astype(object)
        return divided(np.sqrt((n * squares - s * s).astype(np.float64)), count)
