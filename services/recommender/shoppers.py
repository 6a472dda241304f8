"""Who asks: the shopper's windows from the online store, behind a breaker: Redis away costs a time-out or two."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from adapters.breaker import Breaker
from adapters.errors import Unavailable
from feature_repo import tiles
from feature_repo.plan import FeaturePlan
from models.ranking_features import USER, USER_CATEGORY
from services.recommender.terms import Shopper

USER_VIEW = "user_activity"
TASTE_VIEW = "user_category_activity"


class Store(Protocol):
    """The part of the online store that is asked for here."""

    async def read(self, view: str, keys: list[tuple[str, ...]]) -> list[bytes | None]:
        """Packed tiles per key, None where there are none. Raises Unavailable when away or late."""


class Shoppers:
    """Reads windows of shoppers at a moment. Every method raises Unavailable when the store does not answer."""

    def __init__(self, store: Store, plan: FeaturePlan, breaker: Breaker | None = None) -> None:
        self._store, self._plan = store, plan
        self._breaker = breaker or Breaker(threshold=3, rest_s=0.5)

    async def who(self, user_id: str, now_ms: int) -> Shopper:
        """The shopper's windows and recent items."""
        (packed,) = await self._guarded(lambda: self._store.read(USER_VIEW, [(user_id,)]))
        values = tiles.windows(self._plan.view(USER_VIEW), packed, now_ms)
        features: dict[str, float] = {name: float(values[name]) for name in USER if name in values}
        recent = tuple(dict.fromkeys(values.get("user_recent_items") or ()))
        return Shopper(user_id, features, recent, seen_before=packed is not None)

    async def tastes(self, user_id: str, categories: Sequence[str], now_ms: int) -> Mapping[str, NDArray[np.float64]]:
        """The windows of (shopper, category), each [len(categories)]."""
        keys: list[tuple[str, ...]] = [(user_id, category) for category in categories]
        packed = await self._guarded(lambda: self._store.read(TASTE_VIEW, keys))
        columns = tiles.columns(self._plan.view(TASTE_VIEW), packed, now_ms)
        return {name: np.asarray(columns[name], np.float64) for name in USER_CATEGORY if name in columns}

    async def _guarded(self, call: Callable[[], Awaitable[list[bytes | None]]]) -> list[Any]:
        if not self._breaker.allows():
            raise Unavailable("the online store failed before; waiting before the next trial")
        try:
            answer = await call()
        except Unavailable:
            self._breaker.failed()
            raise
        self._breaker.succeeded()
        return answer
