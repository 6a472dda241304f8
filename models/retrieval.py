"""What retrieval is made of, so that training sees the candidates that serving will bring. Pure numpy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

SIZES: Final[Mapping[str, int]] = {
    "two_tower": 500, "cooccurrence": 300, "trending": 200, "new_items": 100, "new_alike": 50,
}  # fmt: skip
"""At most so many candidates from each source."""
NEW_HOURS: Final = 72.0
"""An item listed within so many hours is new."""
_TREND: Final = {"item_clicks_count_24h": 1.0, "item_carts_count_24h": 3.0, "item_orders_count_24h": 5.0}


def looked_up(
    keys: NDArray[Any], values: NDArray[np.floating[Any]], wanted: NDArray[Any], otherwise: float
) -> NDArray[np.float64]:
    """The value of each of `wanted` [n], by `keys` ascending and distinct; `otherwise` where it is none of them."""
    if len(keys) == 0:
        return np.full(len(wanted), otherwise)
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, values[at], otherwise)


def trending_scores(item_columns: Mapping[str, NDArray[Any]], popularity: NDArray[Any]) -> NDArray[np.float64]:
    """Heat of each item [N]: clicks, carts and orders of the last 24 h; `popularity` breaks ties.

    `item_columns` are item_activity windows [N]; absent or NaN counts as nothing happened.
    """
    heat = np.zeros(len(popularity))
    for name, weight in _TREND.items():
        if name in item_columns:
            heat += weight * np.nan_to_num(np.asarray(item_columns[name], dtype=np.float64))
    span = float(np.max(popularity, initial=0.0))
    return heat + (popularity / (span * 1.001) if span > 0 else 0.0)


def top_rows(scores: NDArray[Any], k: int) -> NDArray[np.int64]:
    """The `k` rows with the highest scores, best first; equal scores in order of rows, so that it is repeatable."""
    if len(scores) > k:
        kept = np.argpartition(-scores, k)[:k]
    else:
        kept = np.arange(len(scores))
    return kept[np.lexsort((kept, -scores[kept]))].astype(np.int64)


def newest_rows(age_hours: NDArray[Any], k: int) -> NDArray[np.int64]:
    """Rows of at most `k` items listed within NEW_HOURS, newest first; never one with a negative age."""
    fresh = np.flatnonzero((age_hours >= 0) & (age_hours <= NEW_HOURS))
    return fresh[np.argsort(age_hours[fresh], kind="stable")][:k].astype(np.int64)
