"""Items near the shopper in the two-tower model's space."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from services.recommender.sources.base import Query, limit_of
from services.recommender.terms import Rows


class TwoTower:
    name: ClassVar[str] = "two_tower"

    def retrieve(self, query: Query) -> Rows:
        index = query.shelf.lineup.index
        if index is None or query.embedding is None:
            return np.zeros(0, np.int64)
        _, rows = index.search(query.embedding[None, :], limit_of(self))
        found = rows[0]
        return np.asarray(found[found >= 0], np.int64)
