"""What retrieval means where it is not a model: how trending and new items are scored, and how much each source gives.

One definition for serving and for training rows, so that `trending_rank` and `new_items_rank` mean the same in both.
Pure arrays; knows no Redis, no request and no clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

LIMITS: Final[Mapping[str, int]] = {"two_tower": 500, "cooccurrence": 300, "trending": 200, "new_items": 100}
"""Most candidates that one source gives to one request; their union is cut to POOL."""
POOL: Final = 1000
PRERANKED: Final = 200
NEW_ITEM_HOURS: Final = 72.0
"""An item counts as new for this long after it was listed."""

TRENDING: Final[Mapping[str, float]] = {
    "item_clicks_count_1h": 4.0, "item_clicks_count_24h": 1.0, "item_carts_count_24h": 3.0, "item_orders_count_24h": 6.0,
}
"""Weights of the item windows in the trending score."""
_RRF_OFFSET: Final = 60.0  # Cormack, Clarke and Buettcher 2009


def trending_score(activity: Mapping[str, NDArray[Any]], popularity: NDArray[Any]) -> NDArray[np.float64]:
    """How much an item is asked for now, [n]; `popularity` [n] >= 0 decides among items that nobody touched lately."""
    now = np.zeros(len(popularity))
    for name, weight in TRENDING.items():
        if name in activity:
            now += weight * np.nan_to_num(np.asarray(activity[name], dtype=np.float64))
    scale = float(popularity.max(initial=0.0)) or 1.0
    return now + 0.5 * np.asarray(popularity, dtype=np.float64) / scale


def is_new(listed_at_ms: NDArray[Any], now_ms: int) -> NDArray[np.bool_]:
    """Which items were listed within NEW_ITEM_HOURS before `now_ms`, [n]."""
    age_hours = (now_ms - listed_at_ms) / 3_600_000
    return np.asarray((age_hours >= 0) & (age_hours < NEW_ITEM_HOURS))


def fuse(ranks: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    """Reciprocal-rank fusion of the sources' 1-based ranks ([n] each, NaN = not returned): higher is better."""
    return np.sum([1.0 / (_RRF_OFFSET + np.nan_to_num(r, nan=np.inf)) for r in ranks.values()], axis=0)
