"""The rows that the pre-ranker and the ranker score: one definition, used by training and by serving.

Pure numpy: no network, no clock, no pandas. Whoever calls it brings the window features (from Redis when serving, from
the point-in-time join when training), the retrieval scores and the context; `assemble` puts them in `FEATURES`' order.
What is unknown is NaN, which LightGBM treats as missing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from models.retrieval import looked_up

Floats = NDArray[np.floating[Any]]

USER: Final = (
    "user_clicks_count_1h", "user_clicks_count_24h", "user_clicks_count_7d",
    "user_feeds_count_24h", "user_carts_count_24h", "user_orders_count_7d",
    "user_click_price_mean_24h", "user_click_price_mean_7d", "user_click_price_min_7d", "user_click_price_max_7d",
    "user_click_items_distinct_7d", "user_click_categories_distinct_7d",
)
ITEM: Final = (
    "item_impressions_count_1h", "item_impressions_count_24h", "item_impressions_count_7d",
    "item_clicks_count_1h", "item_clicks_count_24h", "item_clicks_count_7d",
    "item_carts_count_24h", "item_carts_count_7d", "item_orders_count_24h", "item_orders_count_7d",
    "item_buyers_distinct_7d", "item_clickers_distinct_24h",
)
USER_CATEGORY: Final = (
    "uc_clicks_count_1h", "uc_clicks_count_24h", "uc_clicks_count_7d", "uc_carts_count_7d", "uc_orders_count_7d",
    "uc_click_price_mean_7d",
)
SOURCES: Final = ("two_tower", "cooccurrence", "trending", "new_items")
RETRIEVAL: Final = (
    "two_tower_score", "cooccurrence_score", "cooccurrence_steady_score", "popularity_score",
    *(f"{source}_rank" for source in SOURCES),
)
STATIC: Final = ("price_cents", "age_hours")
DERIVED: Final = (
    *(f"from_{source}" for source in SOURCES), "source_count",
    "item_log_price", "item_log_age_hours",
    "price_ratio_24h", "price_ratio_7d", "price_ratio_category",
    "category_affinity_24h", "category_affinity_7d", "recent_category_share", "same_category_as_last",
    "recent_position",
    "item_ctr_24h", "item_ctr_7d", "item_cart_rate_7d", "item_order_rate_7d", "item_momentum",
    "hour_sin", "hour_cos", "weekday", "device",
)
FEATURES: Final[tuple[str, ...]] = (*USER, *ITEM, *USER_CATEGORY, *RETRIEVAL, *DERIVED)
"""Names of the columns of `assemble`, in order; `features.json` of a ranker bundle repeats them."""

STORED: Final[tuple[str, ...]] = (*USER, *ITEM, *USER_CATEGORY, "user_recent_items")
"""Features of the online store from which `assemble` makes its columns."""

FEATURES_SHA: Final = hashlib.sha256("\n".join(FEATURES).encode()).hexdigest()
DEVICES: Final = ("desktop", "phone", "tablet", "other")

_CTR_PRIOR: Final = 0.05
_CTR_WEIGHT: Final = 20.0  # pseudo-impressions (or pseudo-clicks for the later rates) that the prior counts for


@dataclass(frozen=True)
class RankingInputs:
    """One shopper's request and its `n` candidates.

    Keys that are absent count as missing (NaN); extra keys are ignored.
    """

    n: int
    user: Mapping[str, float] = field(default_factory=dict)
    """user_activity windows by feature name; prices in cents."""
    items: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """[n] each: item_activity windows by feature name, and `price_cents`, `age_hours` (since listed)."""
    user_category: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """[n] each: user_category_activity windows of (this shopper, the candidate's category)."""
    retrieval: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """[n] each: `two_tower_score` (cosine), `cooccurrence_score` (the newest recent items say most),
    `cooccurrence_steady_score` (all say the same), `popularity_score` of every candidate, whatever source it came from;
    `<source>_rank` (1-based place in that source's list, NaN where it did not return it)."""
    category: NDArray[Any] | None = None
    """[n] category of each candidate (strings or codes), compared with `recent_categories`."""
    item_ids: NDArray[Any] | None = None
    """[n] id (or row) of each candidate, compared with `recent_items`."""
    recent_categories: tuple[Any, ...] = ()
    """Categories of the shopper's recent items, newest first, at most 20."""
    recent_items: tuple[Any, ...] = ()
    """The shopper's recent items, newest first, at most 20 (ids or rows, as in `item_ids`)."""
    hour: float = float("nan")
    """Hour of day, UTC, 0 <= hour < 24, fractions allowed."""
    weekday: float = float("nan")
    """0 = Monday, UTC."""
    device: str | None = None


def assemble(inputs: RankingInputs) -> NDArray[np.float32]:
    """The feature rows, float32 [n, len(FEATURES)], NaN where unknown.

    Raises ValueError if a column's length is not `n`.
    """
    n = inputs.n
    columns: dict[str, NDArray[Any] | float] = {name: inputs.user.get(name, np.nan) for name in USER}
    for names, given in ((ITEM, inputs.items), (USER_CATEGORY, inputs.user_category), (RETRIEVAL, inputs.retrieval)):
        columns |= {name: _column(given, name, n) for name in names}
    columns |= _sources(columns, n)
    columns |= _prices_and_age(inputs, n)
    columns |= _tastes(inputs, columns, n)
    columns |= _rates(columns)
    columns |= _context(inputs)
    by_feature = np.empty((len(FEATURES), n), dtype=np.float32)
    for i, name in enumerate(FEATURES):
        by_feature[i] = columns[name]
    return np.ascontiguousarray(by_feature.T)


def _column(given: Mapping[str, NDArray[Any]], name: str, n: int) -> NDArray[np.float64]:
    if name not in given:
        return np.full(n, np.nan)
    column = np.asarray(given[name], dtype=np.float64)
    if column.shape != (n,):
        raise ValueError(f"ranking feature {name!r} has shape {column.shape}, expected ({n},)")
    return column


def _sources(columns: Mapping[str, Any], n: int) -> dict[str, NDArray[Any]]:
    flags = {f"from_{source}": (~np.isnan(columns[f"{source}_rank"])).astype(np.float64) for source in SOURCES}
    return {**flags, "source_count": np.sum(list(flags.values()), axis=0) if n else np.zeros(0)}


def _prices_and_age(inputs: RankingInputs, n: int) -> dict[str, NDArray[Any]]:
    price, age = _column(inputs.items, "price_cents", n), _column(inputs.items, "age_hours", n)
    log_price = np.log1p(np.maximum(price, 0))
    out = {"item_log_price": log_price, "item_log_age_hours": np.log1p(np.maximum(age, 0))}
    for window in ("24h", "7d"):
        mean = inputs.user.get(f"user_click_price_mean_{window}", np.nan)
        out[f"price_ratio_{window}"] = log_price - np.log1p(mean)
    out["price_ratio_category"] = log_price - np.log1p(_column(inputs.user_category, "uc_click_price_mean_7d", n))
    return out


def _tastes(inputs: RankingInputs, columns: Mapping[str, Any], n: int) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for window in ("24h", "7d"):
        clicks = inputs.user.get(f"user_clicks_count_{window}", np.nan)
        out[f"category_affinity_{window}"] = columns[f"uc_clicks_count_{window}"] / (clicks + 1.0)
    share = last = np.full(n, np.nan)
    if inputs.category is not None and inputs.recent_categories:
        values, times = np.unique(inputs.recent_categories, return_counts=True)
        share = looked_up(values, times / len(inputs.recent_categories), inputs.category, 0.0)
        last = (inputs.category == inputs.recent_categories[0]).astype(np.float64)
    position = np.full(n, np.nan)  # 1 = the item clicked last; missing if not among the recent ones
    if inputs.item_ids is not None and inputs.recent_items:
        values, first = np.unique(inputs.recent_items, return_index=True)
        position = looked_up(values, first + 1.0, inputs.item_ids, np.nan)
    return {**out, "recent_category_share": share, "same_category_as_last": last, "recent_position": position}


def _rates(columns: Mapping[str, Any]) -> dict[str, Any]:
    def rate(hits: str, trials: str, prior: float) -> Any:
        return (columns[hits] + prior * _CTR_WEIGHT) / (columns[trials] + _CTR_WEIGHT)

    return {
        "item_ctr_24h": rate("item_clicks_count_24h", "item_impressions_count_24h", _CTR_PRIOR),
        "item_ctr_7d": rate("item_clicks_count_7d", "item_impressions_count_7d", _CTR_PRIOR),
        "item_cart_rate_7d": rate("item_carts_count_7d", "item_clicks_count_7d", 0.2),
        "item_order_rate_7d": rate("item_orders_count_7d", "item_clicks_count_7d", 0.1),
        "item_momentum": (columns["item_clicks_count_24h"] + 1.0) / (columns["item_clicks_count_7d"] / 7.0 + 1.0),
    }


def _context(inputs: RankingInputs) -> dict[str, float]:
    angle = 2 * np.pi * inputs.hour / 24.0
    device = float(DEVICES.index(inputs.device)) if inputs.device in DEVICES else np.nan
    return {
        "hour_sin": float(np.sin(angle)), "hour_cos": float(np.cos(angle)), "weekday": inputs.weekday, "device": device,
    }
