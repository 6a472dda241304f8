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
        count, total, squares = (partials.total(kind, asked.column, asked.span) for kind in ("count", "sum", "squares"))
        n, s = count.astype(np.int64).astype(object), total.astype(np.int64).astype(object)
        return divided(np.sqrt((n * squares - s * s).astype(np.float64)), count)
