"""Features recomputed the slow, obvious way from plain dictionaries. It shares no code with the platform.

An event is the JSON object of its payload plus `topic`, `arrival` (ms), `partition` and `offset`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
WINDOW = {"5m": (5 * MINUTE, MINUTE), "1h": (HOUR, MINUTE), "24h": (DAY, HOUR), "7d": (7 * DAY, HOUR)}
Row = tuple[str, Any]


def lines_of(event: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"quantity": 1} | line for line in event["lines"]]


def rows_of(event: dict[str, Any]) -> Iterable[tuple[str, tuple[str, ...], str, Any]]:
    """(prefix, key, column, value) of everything an event says."""
    topic, user = event["topic"], event.get("user_id")
    if topic == "shop.impressions":
        yield "user", (user,), "feeds", 1
        for shown in event["item_ids"]:
            yield "item", (shown,), "impressions", 1
    elif topic == "shop.clicks":
        for prefix, key in (("user", (user,)), ("item", (event["item_id"],)), ("uc", (user, event["category"]))):
            yield prefix, key, "clicks", 1
            yield prefix, key, "click_price", event["price_cents"]
        yield "user", (user,), "click_items", event["item_id"]
        yield "user", (user,), "click_categories", event["category"]
        yield "user", (user,), "touched_items", event["item_id"]
        yield "user", (user,), "touched_categories", event["category"]
        yield "item", (event["item_id"],), "clickers", user
    elif topic == "shop.carts":
        for prefix, key in (("user", (user,)), ("item", (event["item_id"],)), ("uc", (user, event["category"]))):
            yield prefix, key, "carts", 1
    elif topic == "shop.orders":
        yield "user", (user,), "orders", 1
        for line in lines_of(event):
            paid = line["price_cents"] * line["quantity"]
            yield "user", (user,), "order_lines", 1
            yield "user", (user,), "spend", paid
            yield "user", (user,), "touched_items", line["item_id"]
            yield "user", (user,), "touched_categories", line["category"]
            yield "uc", (user, line["category"]), "orders", 1
            yield "uc", (user, line["category"]), "spend", paid
            yield "item", (line["item_id"],), "orders", 1
            yield "item", (line["item_id"],), "units", line["quantity"]
            yield "item", (line["item_id"],), "revenue", paid
            yield "item", (line["item_id"],), "buyers", user


def accepted(events: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The events that count: neither duplicate (24 whole hours of arrival) nor late; in order of offset."""
    seen: dict[Any, int] = {}
    kept = []
    for event in events:
        if event["event_time"] > event["arrival"] + 5 * MINUTE or event["event_time"] < event["arrival"] - 7 * DAY:
            continue
        identity = (event["topic"], event["event_id"])
        hour = event["arrival"] // HOUR
        duplicate = identity in seen and hour - seen[identity] <= 24
        seen[identity] = hour
        if not duplicate:
            kept.append(event)
    return kept


def feature(name: str, key: tuple[str, ...], events: Iterable[dict[str, Any]], now: int) -> Any:
    """One feature at `now` from accepted events that had arrived by then."""
    prefix = name.split("_")[0]
    last = {"user_last_item": "touched_items", "user_last_category": "touched_categories",
            "user_recent_items": "touched_items"}
    known = [e for e in events if e["arrival"] <= now]
    if name in last:
        found = sorted(((e["event_time"], v) for e in known for p, k, c, v in rows_of(e)
                        if (p, k, c) == (prefix, key, last[name])), reverse=True)
        values = [v for _, v in found]
        return values[:20] if name == "user_recent_items" else (values[0] if values else None)
    rest, window = name.removeprefix(prefix + "_").rsplit("_", 1)
    column, function = rest.rsplit("_", 1)
    length, tile = WINDOW[window]
    low, high = (now - length) // tile * tile, now // tile * tile + tile
    values = [v for e in known if low <= e["event_time"] < high
              for p, k, c, v in rows_of(e) if (p, k, c) == (prefix, key, column)]
    if function == "count":
        return len(values)
    if function == "sum":
        return sum(values)
    if function == "distinct":
        return len(set(values))
    if not values:
        return math.nan
    return {"mean": sum(values) / len(values), "min": float(min(values)), "max": float(max(values))}[function]


def same(ours: Any, truth: Any) -> bool:
    """Equal: integers exactly, floats within 1e-9 relative, NaN as NaN."""
    if isinstance(truth, float):
        return (math.isnan(truth) and math.isnan(ours)) or math.isclose(float(ours), truth, rel_tol=1e-9)
    return bool(ours == truth)
