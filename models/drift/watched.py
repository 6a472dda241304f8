"""What is watched, and how: method and thresholds per column, pinned here and nowhere else.

Every column is measured by every method that applies; the one named here decides. Windows of counts (`*_count_1h` and
the like) breathe with the hour and with every promotion, so their shapes and ranges are only reported, and judged when
the baseline is the same hour of last week; what no clock excuses (nulls, new values) is judged always.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from models.drift.base import Thresholds
from models.ranking_features import FEATURES


@dataclass(frozen=True)
class Watch:
    """`method` decides with `thresholds`; a `seasonal` column decides against the same hour of last week only.

    `encoder`: the column's values are the two-tower model's, and comparable only under one version of it.
    """

    method: str
    thresholds: Thresholds
    seasonal: bool = False
    encoder: bool = False


PSI_RULE: Final = Thresholds(0.1, 0.25)
KS_RULE: Final = Thresholds(0.1, 0.2)
WASSERSTEIN_RULE: Final = Thresholds(0.2, 0.4)

SHAPE: Final = Watch("psi", PSI_RULE)
PRICE: Final = Watch("wasserstein", WASSERSTEIN_RULE)
CLOCK: Final = Watch("psi", PSI_RULE, seasonal=True)
ENCODER: Final = Watch("psi", PSI_RULE, seasonal=True, encoder=True)

WATCHED: Final[dict[str, Watch]] = {
    # prices that shoppers look at: what broken units and price levels move
    "user_click_price_mean_24h": SHAPE, "user_click_price_mean_7d": SHAPE, "uc_click_price_mean_7d": SHAPE,
    "item_log_price": PRICE,
    "price_ratio_24h": PRICE, "price_ratio_7d": PRICE, "price_ratio_category": PRICE,
    # who asks, and how what is shown fits them
    "device": SHAPE, "category_affinity_24h": SHAPE, "category_affinity_7d": SHAPE,
    "recent_category_share": SHAPE, "same_category_as_last": SHAPE,
    # where candidates come from
    "from_two_tower": SHAPE, "from_cooccurrence": SHAPE, "from_trending": SHAPE, "from_new_items": SHAPE,
    "source_count": SHAPE, "two_tower_score": ENCODER, "two_tower_rank": ENCODER,
    # extremes: one cheap new product moves them for everybody
    "user_click_price_min_7d": CLOCK, "user_click_price_max_7d": CLOCK,
    # everything else is a window of counts, or the clock itself
    **{
        name: CLOCK for name in FEATURES
        if name.endswith(("_1h", "_24h")) and ("_count_" in name or "_distinct_" in name)
    },
    "user_clicks_count_7d": CLOCK, "user_orders_count_7d": CLOCK, "user_click_items_distinct_7d": CLOCK,
    "item_impressions_count_7d": CLOCK, "item_clicks_count_7d": CLOCK, "item_carts_count_7d": CLOCK,
    "item_orders_count_7d": CLOCK, "item_buyers_distinct_7d": CLOCK, "uc_clicks_count_7d": CLOCK,
    "uc_carts_count_7d": CLOCK, "uc_orders_count_7d": CLOCK, "cooccurrence_score": CLOCK, "popularity_score": CLOCK,
    "cooccurrence_steady_score": CLOCK,
    "cooccurrence_rank": CLOCK, "trending_rank": CLOCK, "new_items_rank": CLOCK, "item_log_age_hours": CLOCK,
    "recent_position": CLOCK, "item_ctr_24h": CLOCK, "item_momentum": CLOCK, "hour_sin": CLOCK, "hour_cos": CLOCK,
    "weekday": CLOCK, "item_ctr_7d": CLOCK, "item_cart_rate_7d": CLOCK, "item_order_rate_7d": CLOCK,
    "user_click_categories_distinct_7d": CLOCK,
}  # fmt: skip

SCORE: Final = Watch("ks", Thresholds(0.15, 0.3))
CONFIDENCE: Final = Watch("ks", KS_RULE, seasonal=True)  # how far the best stands out breathes with the counts
LATENCY: Final = Watch("tail_shift", Thresholds(0.7, 1.4))
EVENTS: Final[dict[str, Watch]] = {"click_log_price": Watch("ks", KS_RULE)}
"""Columns of the events themselves: broken units stand here at once, in 7-day features days later."""
CLICKED: Final[dict[str, Watch]] = {"click_category": SHAPE}
"""What shoppers choose, whatever they are shown: a season moves it."""
CATEGORIES: Final[dict[str, Watch]] = {"device": SHAPE, "country": SHAPE, "shopper": SHAPE}
"""Texts of a request; `shopper` is `new` or `returning`."""

IN_SLICES: Final = Thresholds(0.2, 0.4)
"""For clicks and calibration within a slice: fewer shoppers make more of a swing."""

SLICED: Final = ("device", "country", "shopper")
"""Within each value of these, scores, clicks and calibration are compared as well."""

UNKNOWN_OF_NEWCOMERS: Final = frozenset(
    name for name in FEATURES
    if name.startswith(("user_", "uc_", "price_ratio_", "category_affinity_", "recent_")) or name.endswith("_rank")
    or name in ("same_category_as_last", "two_tower_score", "cooccurrence_score", "cooccurrence_steady_score")
)  # fmt: skip
"""Columns that a newcomer leaves empty: their nulls tell who asks, not what broke."""

AT_ONCE: Final = frozenset({"null_share", "out_of_range", "volume", "silence"})
"""Breakage, not drift: one window is enough. All other findings must persist."""

BUDGET: Final = 0.01
"""Chance of any false alarm by sampling in one report: p-values are adjusted (Holm) over everything that decides."""
PERSISTENCE: Final = 2
"""Windows in a row that must agree."""
