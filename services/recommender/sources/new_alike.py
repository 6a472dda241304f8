"""Items newer than the index that are near the shopper by their content, however many were listed since its build."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from services.recommender.sources.base import Query, limit_of
from services.recommender.terms import Rows


class NewAlike:
    """Not a part of the two-tower's list: the ranker was trained on places among the items that the index holds."""

    name: ClassVar[str] = "new_alike"

    def retrieve(self, query: Query) -> Rows:
        shelf = query.shelf
        newer = shelf.table.newer
        if newer is None or query.embedding is None:
            return np.zeros(0, np.int64)
        _, rows = newer.search(query.embedding[None, :], limit_of(self), shelf.table.sellable[shelf.indexed :])
        found: Rows = shelf.indexed + rows[0][rows[0] >= 0]
        return found
