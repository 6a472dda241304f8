"""How many different values: exact sets of hashes while small, then HyperLogLog (`feature_repo/distinct.py`)."""

from __future__ import annotations

import numpy as np

from feature_repo.aggregations.base import Aggregation, Asked, Partials


class Distinct(Aggregation):
    name = "distinct"
    takes = "any"
    dtype = "int64"
    formula = "number of different x"
    error = "exact up to 64 values in every tile, then a standard error of 2.3 %"
    bound = "8 bytes per value of a tile, at most 2 KiB per tile"
    meaning = "different {column} in {window}"

    def read(self, asked: Asked, partials: Partials) -> np.ndarray:
        return partials.distinct(asked.column, asked.span)
