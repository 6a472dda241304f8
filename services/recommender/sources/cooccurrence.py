"""Items that other shoppers looked at together with what this shopper looked at last."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from services.recommender.sources.base import Query, limit_of
from services.recommender.terms import Rows


class CooccurrenceSource:
    name: ClassVar[str] = "cooccurrence"

    def retrieve(self, query: Query) -> Rows:
        if query.votes is None or len(query.recent_rows) == 0:
            return np.zeros(0, np.int64)
        rows, _ = query.votes.best(limit_of(self))
        return rows
