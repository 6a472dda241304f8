"""Features recomputed the slow, obvious way from plain dictionaries. It shares no code with the platform.

An event is the JSON object of its payload plus `topic`, `arrival` (ms), `partition` and `offset`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from fractions import Fraction
from typing import Any

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
WINDOW = {"5m": (5 * MINUTE, MINUTE), "1h": (HOUR, MINUTE), "24h": (DAY, HOUR), "7d": (7 * DAY, HOUR),
          "30d": (30 * DAY, DAY)}
PREFIX = {"user_activity": "user", "item_activity": "item", "user_category_activity": "uc", "seller_activity": "seller",
          "user_payments": "payer", "merchant_payments": "merchant", "card_payments": "card",
          "device_payments": "device", "user_merchant_payments": "um"}
# Without a window: (column, how many; 0 for the value itself).
NEWEST = {"user_last_item": ("touched_items", 0), "user_last_category": ("touched_categories", 0),
          "user_recent_items": ("touched_items", 20), "payer_last_merchant": ("merchants", 0),
          "payer_last_device": ("devices", 0), "card_recent_merchants": ("merchants", 5)}
Row = tuple[str, Any]


def lines_of(event: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"quantity": 1} | line for line in event["lines"]]


def rows_of(event: dict[str, Any]) -> Iterable[tuple[str, tuple[str, ...], str, Any]]:
    """(prefix, key, column, value) of everything an event says; rows without a key are left out."""
    for row in (*_activity(event), *_sellers(event), *_payments(event)):
        if None not in row[1]:
            yield row


def _activity(event: dict[str, Any]) -> Iterable[tuple[str, tuple[Any, ...], str, Any]]:
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


def _sellers(event: dict[str, Any]) -> Iterable[tuple[str, tuple[Any, ...], str, Any]]:
    if event["topic"] == "shop.clicks":
        yield "seller", (event.get("seller_id"),), "clicks", 1
    elif event["topic"] == "shop.carts":
        yield "seller", (event.get("seller_id"),), "carts", 1
    elif event["topic"] == "shop.orders":
        for line in lines_of(event):
            said = {"orders": 1, "revenue": line["price_cents"] * line["quantity"], "buyers": event["user_id"],
                    "categories": line["category"], "price": line["price_cents"]}
            for column, value in said.items():
                yield "seller", (line.get("seller_id"),), column, value


def _payments(event: dict[str, Any]) -> Iterable[tuple[str, tuple[Any, ...], str, Any]]:
    if event["topic"] != "shop.payments":
        return
    user, merchant, card, device = (event.get(n) for n in ("user_id", "merchant_id", "card_id", "device_id"))
    said = {"payments": 1, "amount": event["amount_cents"], "merchants": merchant, "cards": card, "devices": device,
            "payers": user}
    for prefix, key in (("payer", (user,)), ("merchant", (merchant,)), ("card", (card,)), ("device", (device,)),
                        ("um", (user, merchant))):
        for column, value in said.items():
            if value is not None:
                yield prefix, key, column, value


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
    return of_rows(name, rows_about(name.split("_")[0], key, events, now), now)


def features(names: Iterable[str], key: tuple[str, ...], events: Iterable[dict[str, Any]], now: int) -> dict[str, Any]:
    """Several features of one view."""
    every = list(names)
    said = rows_about(every[0].split("_")[0], key, events, now)
    return {name: of_rows(name, said, now) for name in every}


def rows_about(prefix: str, key: tuple[str, ...], events: Iterable[dict[str, Any]], now: int
               ) -> list[tuple[int, str, Any]]:
    """(event time, column, value) of everything known of a key at `now`."""
    return [(e["event_time"], c, v) for e in events if e["arrival"] <= now
            for p, k, c, v in rows_of(e) if (p, k) == (prefix, key)]


def of_rows(name: str, said: list[tuple[int, str, Any]], now: int) -> Any:
    prefix = name.split("_")[0]
    if name in NEWEST:
        column, k = NEWEST[name]
        newest = [v for _, v in sorted(((t, v) for t, c, v in said if c == column), reverse=True)]
        return newest[:k] if k else (newest[0] if newest else None)
    rest, window = name.removeprefix(prefix + "_").rsplit("_", 1)
    length, tile = WINDOW[window]
    low, high = (now - length) // tile * tile, now // tile * tile + tile
    inside: dict[str, list[Any]] = {}
    ages: dict[str, list[int]] = {}
    for t, c, v in said:
        if low <= t < high:
            inside.setdefault(c, []).append(v)
            ages.setdefault(c, []).append((now // tile - t // tile) * tile)
    if "_ratio_" in rest:
        above, below = (sum(inside.get(c, [])) for c in rest.split("_ratio_"))
        return above / below if below else math.nan
    if "_decayed_" in rest:
        column, half_life = rest.split("_decayed_")
        half = int(half_life[:-1]) * {"m": MINUTE, "h": HOUR, "d": DAY}[half_life[-1]]
        return math.fsum(v * 0.5 ** (age / half) for v, age in zip(inside.get(column, []), ages.get(column, []),
                                                                   strict=True))
    if "_top_" in rest:
        column, k_text = rest.split("_top_")
        values = inside.get(column, [])
        return sorted(set(values), key=lambda v: (-values.count(v), v))[:int(k_text)]
    column, function = rest.rsplit("_", 1)
    return of_values(function, inside.get(column, []))


def of_values(function: str, values: list[Any]) -> Any:
    if function == "count":
        return len(values)
    if function == "sum":
        return sum(values)
    if function == "distinct":
        return len(set(values))
    if not values:
        return math.nan
    if function == "std":
        mean = Fraction(sum(values), len(values))
        return math.sqrt(sum((v - mean) ** 2 for v in values) / len(values))
    return {"mean": sum(values) / len(values), "min": float(min(values)), "max": float(max(values))}[function]


def same(ours: Any, truth: Any) -> bool:
    """Equal: integers exactly, floats within 1e-9 relative, NaN as NaN."""
    if isinstance(truth, float):
        return (math.isnan(truth) and math.isnan(ours)) or math.isclose(float(ours), truth, rel_tol=1e-9)
    return bool(ours == truth)
