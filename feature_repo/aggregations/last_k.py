"""The k newest values, whenever they were, newest first; repeats are kept."""

from __future__ import annotations

import numpy as np

from feature_repo.aggregations.base import Aggregation, Asked, Partials


class LastK(Aggregation):
    name = "last_k"
    spelled = "last"
    argument = "k"
    windowed = False
    takes = "text"
    dtype = "list<string>"
    formula = "the k x of the largest (event time, x)"
    bound = "k values"
    meaning = "the {k} newest of {column}"

    def read(self, asked: Asked, partials: Partials) -> np.ndarray:
        return partials.newest(asked.column, asked.k)
