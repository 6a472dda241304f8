"""What features, sources and rules are called in a shopper's words. Pure; an unknown name stays as it is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

SOURCES: Final[Mapping[str, tuple[str, str]]] = {
    "two_tower": ("Your taste", "the two-tower model finds items close to what you clicked"),
    "cooccurrence": ("Goes with your clicks", "others who clicked what you clicked also clicked this"),
    "trending": ("Trending", "many shoppers click it right now"),
    "popular": ("Popular", "fills the feed when too few candidates were found"),
    "new_alike": ("New, and your taste", "listed after the models were trained, and like what you clicked"),
    "new_items": ("New in the shop", "listed recently; new items get a chance to be seen"),
}
RULES: Final[Mapping[str, str]] = {
    "stock": "dropped: it could not be bought",
    "sold_out": "dropped: it sold out while the answer was made",
    "age": "dropped: it is for adults, and you are not known to be one",
    "already_seen": "moved down: you saw or opened it lately",
    "mmr": "moved for variety (not many of one kind in a row)",
    "category_mix": "moved so that the feed's categories are near the mix of your clicks",
    "freshness": "lifted: it is new in the shop",
    "promotions": "lifted: the seller promotes it",
    "fill": "added: the feed had too few products",
}
_WINDOWS: Final = {"5m": "5 minutes", "1h": "hour", "24h": "24 hours", "7d": "7 days",
                  "30d": "30 days"}
_WHAT: Final = {
    "user_clicks_count": "your clicks",
    "user_feeds_count": "feeds shown to you",
    "user_carts_count": "your cart adds",
    "user_orders_count": "your orders",
    "user_spend_sum": "you spent",
    "user_click_price_mean": "mean price of your clicks",
    "user_click_price_min": "cheapest of your clicks",
    "user_click_price_max": "dearest of your clicks",
    "user_click_items_distinct": "different products you clicked",
    "user_click_categories_distinct": "different categories you clicked",
    "uc_clicks_count": "your clicks in this category",
    "uc_carts_count": "your cart adds in this category",
    "uc_orders_count": "your orders in this category",
    "uc_click_price_mean": "mean price of your clicks in this category",
    "item_impressions_count": "times it was shown",
    "item_clicks_count": "clicks on it by anyone",
    "item_carts_count": "cart adds by anyone",
    "item_orders_count": "orders by anyone",
    "item_buyers_distinct": "different buyers",
    "item_clickers_distinct": "different shoppers who clicked it",
    "item_ctr": "click rate",
    "item_cart_rate": "cart rate after a click",
    "item_order_rate": "order rate after a click",
    "price_ratio": "price against what you click (log)",
    "category_affinity": "share of your clicks in this category",
}
_SINGLE: Final = {
    "two_tower_score": "closeness to your taste",
    "two_tower_rank": "place among what is closest to your taste",
    "cooccurrence_score": "goes with your recent clicks",
    "cooccurrence_steady_score": "goes with all that you touched lately",
    "cooccurrence_rank": "place among what goes with your clicks",
    "trending_rank": "place among what is trending",
    "new_items_rank": "place among the newest",
    "popularity_score": "popularity",
    "from_two_tower": "found by your taste",
    "from_cooccurrence": "found by your clicks",
    "from_trending": "found as trending",
    "from_new_items": "found as new",
    "item_momentum": "clicks today against its week",
    "item_log_price": "its price",
    "item_log_age_hours": "how long it is in the shop",
    "price_ratio_category": "price against your clicks in this category (log)",
    "recent_category_share": "share of its category in your last clicks",
    "recent_position": "place in your recent clicks",
    "same_category_as_last": "same category as your last click",
    "source_count": "sources that found it",
    "hour_sin": "time of day",
    "hour_cos": "time of day (noon or midnight)",
    "weekday": "day of the week",
    "device": "your device",
}
_DAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_DEVICES: Final = ("desktop", "phone", "tablet", "other")


def number(value: float) -> str:
    """A value as people write it: 3, 0.042, 1.25."""
    if value == round(value) and abs(value) < 1e6:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def feature(name: str) -> str:
    """`user_clicks_count_5m` -> `your clicks, last 5 minutes`; unknown names stay as they are."""
    stem, _, window = name.rpartition("_")
    if window in _WINDOWS and stem in _WHAT:
        return f"{_WHAT[stem]}, last {_WINDOWS[window]}"
    return _SINGLE.get(name, name)


def value(name: str, found: float | None) -> str:
    """A feature's value with its unit: money for prices, days for ages, yes or no for flags."""
    if found is None or math.isnan(found):
        return "not known"
    if name == "item_log_price":
        return _money(math.expm1(found))
    if "click_price" in name or "spend_sum" in name:
        return _money(found)
    if name == "item_log_age_hours":
        hours = math.expm1(found)
        return f"{hours:.0f} hours" if hours < 48 else f"{hours / 24:.0f} days"
    if name.startswith("from_") or name == "same_category_as_last":
        return "yes" if found else "no"
    if name == "weekday":
        return _DAYS[int(found) % 7]
    if name == "device":
        return _DEVICES[int(found) % 4]
    return number(found)


def source(name: str) -> tuple[str, str]:
    """What a source is called, and what it means."""
    return SOURCES.get(name, (name.replace("_", " "), "a retrieval source"))


def rule(name: str) -> str:
    return RULES.get(name, "changed its place")


def _money(cents: float) -> str:
    return f"€{cents / 100:,.2f}"
