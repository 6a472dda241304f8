"""Plain words for what machines say: money, ages, live features, degraded answers, sources and rules. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from feature_repo.words import RULES, SOURCES, feature, number, source

__all__ = [
    "COLD",
    "DEGRADED",
    "RULES",
    "SOURCES",
    "STAGES",
    "activity",
    "cold_start",
    "degraded",
    "feature",
    "money",
    "number",
    "source",
]

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


def money(cents: int) -> str:
    return f"€{cents / 100:,.2f}"


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
