"""Items listed lately, newest first, those newer than the index included."""

from __future__ import annotations

from typing import ClassVar

from services.recommender.sources.base import Query, limit_of
from services.recommender.terms import Rows


class NewItems:
    name: ClassVar[str] = "new_items"

    def retrieve(self, query: Query) -> Rows:
        return query.shelf.new_items[: limit_of(self)]
