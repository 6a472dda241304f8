"""Plain words for what machines say: money, ages, live features, degraded answers, sources and rules. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

STAGES: Final = ("retrieve", "features", "prerank", "rank", "rerank")
DEGRADED: Final = {
    "redis_down": "The feature store is away: this feed does not know your latest clicks.",
    "triton_down": "The model server is away: the same models answered inside the recommender.",
    "kafka_down": "The event stream is away: clicks will be noticed late.",
    "models_missing": "No trained models yet: these are popular and new products.",
    "retrieve_late": "Finding candidates took too long: fewer were considered.",
    "features_late": "Features came too late: this ranking did without them.",
    "prerank_skipped": "Pre-ranking was skipped.",
    "rank_skipped": "Ranking was skipped: products are in the order of the earlier stage.",
    "rerank_skipped": "Re-ranking was skipped: variety rules were not applied.",
}
COLD: Final = {
    "new_visitor": "You are new here: showing popular and new items. Click a few and watch the feed learn.",
}
SOURCES: Final = {
    "two_tower": ("Your taste", "the two-tower model finds items close to what you clicked"),
    "cooccurrence": ("Goes with your clicks", "others who clicked what you clicked also clicked this"),
    "trending": ("Trending", "many shoppers click it right now"),
    "popular": ("Popular", "fills the feed when too few candidates were found"),
    "new_items": ("New in the shop", "listed recently; new items get a chance to be seen"),
}
RULES: Final = {
    "mmr": "moved for variety (not many of one kind in a row)",
    "already_seen": "moved down: you saw or opened it lately",
    "stock": "checked against stock",
    "freshness": "lifted: it is new in the shop",
    "promotions": "lifted: the seller promotes it",
}
_WINDOWS: Final = {"5m": "5 minutes", "1h": "hour", "24h": "24 hours", "7d": "7 days"}
_WHAT: Final = {
    "user_clicks_count": "your clicks",
    "user_feeds_count": "feeds shown to you",
    "user_carts_count": "your cart adds",
    "user_orders_count": "your orders",
    "user_spend_sum": "you spent",
    "user_click_price_mean": "mean price of your clicks",
    "user_click_items_distinct": "different products you clicked",
    "uc_clicks_count": "your clicks in this category",
    "uc_carts_count": "your cart adds in this category",
    "uc_orders_count": "your orders in this category",
    "item_impressions_count": "times it was shown",
    "item_clicks_count": "clicks on it by anyone",
    "item_carts_count": "cart adds by anyone",
    "item_orders_count": "orders by anyone",
    "item_buyers_distinct": "different buyers",
    "item_ctr": "click rate",
    "item_cart_rate": "cart rate after a click",
    "item_order_rate": "order rate after a click",
    "price_ratio": "price against what you click (log)",
    "category_affinity": "share of your clicks in this category",
}
_SINGLE: Final = {
    "two_tower_score": "closeness to your taste",
    "cooccurrence_score": "goes with your recent clicks",
    "popularity_score": "popularity",
    "item_momentum": "clicks today against its week",
    "recent_category_share": "share of its category in your last clicks",
    "recent_position": "place in your recent clicks",
    "same_category_as_last": "same category as your last click",
    "source_count": "sources that found it",
}


def money(cents: int) -> str:
    return f"€{cents / 100:,.2f}"


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


def source(name: str) -> tuple[str, str]:
    return SOURCES.get(name, (name.replace("_", " "), "a retrieval source"))


def degraded(reasons: Sequence[str]) -> list[str]:
    if "models_missing" in reasons:  # says all that the skipped stages would say
        reasons = [r for r in reasons if not r.endswith("_skipped")]
    return [DEGRADED.get(reason, f"Part of the answer was left out: {reason.replace('_', ' ')}.") for reason in reasons]


def cold_start(reason: str | None) -> str | None:
    return None if not reason else COLD.get(reason, COLD["new_visitor"])


def activity(live: Mapping[str, Any]) -> str:
    """What the live features say, in one sentence."""
    five, hour, day = (int(live.get(f"user_clicks_count_{w}") or 0) for w in ("5m", "1h", "24h"))
    if not day:
        return "No clicks in the last 24 hours. Open a product and watch this line."
    if not five:
        return f"No clicks in the last 5 minutes; {hour} in the last hour, {day} in 24 hours."
    products = "1 product" if five == 1 else f"{five} products"
    return f"You clicked {products} in the last 5 minutes, {hour} in the last hour, {day} in 24 hours."
