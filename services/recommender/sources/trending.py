"""What everybody asks for now: live item windows, and the published popularity where they are silent."""

from __future__ import annotations

from typing import ClassVar

from services.recommender.sources.base import Query, limit_of
from services.recommender.terms import Rows


class Trending:
    name: ClassVar[str] = "trending"

    def retrieve(self, query: Query) -> Rows:
        return query.shelf.trending[: limit_of(self)]
