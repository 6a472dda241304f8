"""What counts as an event, said a second time. Imports nothing of ours: the proof compares it with what was taken.

A payload is a JSON object whose `type` belongs to its topic, with the required fields, no unknown ones, and version 1.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

Event = dict[str, Any]
Test = Callable[[Any], bool]

_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:\-]{0,63}")


def _matches(pattern: str) -> Test:
    whole = re.compile(pattern)
    return lambda value: isinstance(value, str) and whole.fullmatch(value) is not None


def _between(low: int, high: int) -> Test:
    return lambda value: type(value) is int and low <= value <= high


def _list_of(test: Test, most: int) -> Test:
    return lambda value: isinstance(value, list) and 0 < len(value) <= most and all(map(test, value))


def _object(required: Mapping[str, Test], optional: Mapping[str, Test]) -> Test:
    def test(value: Any) -> bool:
        return isinstance(value, dict) and _fits(value, required, optional)

    return test


def _fits(value: Event, required: Mapping[str, Test], optional: Mapping[str, Test]) -> bool:
    for name, test in required.items():
        if name not in value or not test(value[name]):
            return False
    return all(name in required or (name in optional and optional[name](found)) for name, found in value.items())


def _or_none(test: Test) -> Test:
    return lambda value: value is None or test(value)


identity: Final = _matches(_ID.pattern)
label: Final = _matches(r"[^\x00-\x1f\x7f]{1,64}")
cents: Final = _between(0, 10_000_000_000)
quantity: Final = _between(1, 10_000)
currency: Final = _matches("[A-Z]{3}")
maybe_id: Final = _or_none(identity)

_REQUIRED: Final = {"event_id": identity, "event_time": _between(946_684_800_000, 4_102_444_800_000),
                    "user_id": identity}
_OPTIONAL: Final = {"version": _between(1, 1), "session_id": maybe_id, "country": _or_none(_matches("[A-Z]{2}")),
                    "device": _or_none(_matches("desktop|phone|tablet|other"))}
_PRODUCT: Final = {"item_id": identity, "category": label, "price_cents": cents}
_LINE: Final = _object(_PRODUCT, {"quantity": quantity, "seller_id": maybe_id})

# topic -> (type, required fields, optional fields)
SHAPES: Final[dict[str, tuple[str, dict[str, Test], dict[str, Test]]]] = {
    "shop.impressions": ("products_shown", {"request_id": identity, "item_ids": _list_of(identity, 200)},
                         {"surface": label}),
    "shop.clicks": ("product_clicked", _PRODUCT, {"request_id": maybe_id, "position": _or_none(_between(1, 200)),
                                                  "seller_id": maybe_id}),
    "shop.carts": ("product_added_to_cart", _PRODUCT, {"quantity": quantity, "request_id": maybe_id,
                                                       "seller_id": maybe_id}),
    "shop.orders": ("order_placed", {"order_id": identity, "lines": _list_of(_LINE, 100)}, {}),
    "shop.payments": ("payment_made", {"payment_id": identity, "order_id": identity, "merchant_id": identity,
                                       "amount_cents": cents, "card_id": identity},
                      {"currency": currency, "device_id": maybe_id}),
}
# What a field holds where it is left out; any other optional field is missing then.
DEFAULTS: Final = {"quantity": 1, "surface": "home", "currency": "EUR"}


def parse(topic: str, payload: bytes) -> Event | None:
    """The event, or None where the payload is none of this topic."""
    try:
        found = json.loads(payload.decode("utf-8"))
    except ValueError:
        return None
    kind, required, optional = SHAPES[topic]
    if not isinstance(found, dict) or found.pop("type", None) != kind:
        return None
    return found if _fits(found, _REQUIRED | required, _OPTIONAL | optional) else None
