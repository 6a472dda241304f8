"""Who asks: the shopper's windows from the online store, behind a breaker: Redis away costs a time-out or two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from adapters.breaker import Breaker
from adapters.errors import Unavailable
from feature_repo.batch_read import ViewReader
from feature_repo.plan import FeaturePlan
from models.ranking_features import USER, USER_CATEGORY
from services.recommender.terms import Shopper

USER_VIEW = "user_activity"
TASTE_VIEW = "user_category_activity"
RECENT = "user_recent_items"
FEW = 64  # categories whose tastes are read along with the shopper


class Store(Protocol):
    """The part of the online store that is asked for here."""

    async def read_many(self, asked: Sequence[tuple[str, Sequence[tuple[str, ...]]]]) -> list[list[bytes | None]]:
        """Packed tiles per (view, keys), None where there are none. Raises Unavailable when away or late."""


class Shoppers:
    """Reads windows of shoppers at a moment. Every method raises Unavailable when the store does not answer."""

    def __init__(self, store: Store, plan: FeaturePlan, breaker: Breaker | None = None) -> None:
        self._store = store
        user, taste = plan.view(USER_VIEW), plan.view(TASTE_VIEW)
        self._user = ViewReader(user, [name for name in (*USER, RECENT) if name in user.features])
        self._taste = ViewReader(taste, [name for name in USER_CATEGORY if name in taste.features])
        self._breaker = breaker or Breaker(threshold=3, rest_s=0.5)

    async def who(self, user_id: str, categories: Sequence[str], now_ms: int) -> Shopper:
        """The shopper's windows and recent items, and tastes where `categories` are few: one round trip."""
        few = categories if len(categories) <= FEW else ()
        (packed,), tiled = await self._guarded([(USER_VIEW, [(user_id,)]), (TASTE_VIEW, [(user_id, c) for c in few])])
        values = {name: column[0] for name, column in self._user.read([packed], now_ms).columns.items()}
        recent = tuple(dict.fromkeys(values.pop(RECENT, None) or ()))
        features = {name: float(value) for name, value in values.items()}
        tastes = self._tastes(tiled, now_ms) if few else None
        return Shopper(user_id, features, recent, seen_before=packed is not None, tastes=tastes)

    async def tastes(self, user_id: str, categories: Sequence[str], now_ms: int) -> Mapping[str, NDArray[np.float64]]:
        """The windows of (shopper, category), each [len(categories)]."""
        (tiled,) = await self._guarded([(TASTE_VIEW, [(user_id, category) for category in categories])])
        return self._tastes(tiled, now_ms)

    def _tastes(self, tiled: list[bytes | None], now_ms: int) -> Mapping[str, NDArray[np.float64]]:
        return {name: np.asarray(c, np.float64) for name, c in self._taste.read(tiled, now_ms).columns.items()}

    async def _guarded(self, asked: Sequence[tuple[str, Sequence[tuple[str, ...]]]]) -> list[list[bytes | None]]:
        if not self._breaker.allows():
            raise Unavailable("the online store failed before; waiting before the next trial")
        try:
            answer = await self._store.read_many(asked)
        except Unavailable:
            self._breaker.failed()
            raise
        self._breaker.succeeded()
        return answer
