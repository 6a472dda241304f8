"""The k most frequent values, most frequent first, ties by value ascending (by code point).

Exact, because every tile keeps the count of every value: a value that is rare in each tile may be the most frequent of
the window. So declare it for columns with few values per key: categories, or the merchants of one card.
"""

from __future__ import annotations

import numpy as np

from feature_repo.aggregations.base import Aggregation, Asked, Partials


class TopK(Aggregation):
    name = "top_k"
    spelled = "top"
    argument = "k"
    takes = "text"
    dtype = "list<string>"
    formula = "the k x of the largest (n of x, -x)"
    bound = "8 bytes per different value of a tile, and every value of the window once"
    meaning = "the {k} most frequent of {column} in {window}"

    def read(self, asked: Asked, partials: Partials) -> np.ndarray:
        return partials.top(asked.column, asked.span, asked.k)
