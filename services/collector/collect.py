"""The decision about every event that comes in: complete it and let it through, or refuse it with its reason.

Does not know HTTP or Kafka. A refusal's reason is `code: detail`, where the code is one of `CODES`. Only an unknown
item is quarantined (the sender may be ahead of the catalogue); every other fault is told to the sender at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import msgspec

from adapters.errors import BadInput, TooLarge
from feature_repo import events
from feature_repo.events import Event, ItemListed

MAX_BATCH: Final = 1000
CODES: Final = ("malformed", "unknown_type", "invalid_field", "unknown_item")
TYPES: Final[Mapping[str, type[Event]]] = {str(e.__struct_config__.tag): e for e in events.EVENTS}
_PATH: Final = re.compile(r" - at `(?P<key>key in )?\$?(?P<path>[^`]*)`$")
_STEP: Final = re.compile(r"\.?([^.\[\]]+)|\[(\d+)\]")


class Items(Protocol):
    """What the decision asks the catalogue."""

    def get(self, item_id: str) -> ItemListed | None:
        """The item's newest state, None if it is unknown."""


@dataclass(frozen=True, slots=True)
class Accepted:
    index: int
    event: Event
    payload: bytes


@dataclass(frozen=True, slots=True)
class Refused:
    """`topic` and `payload` are set when the event goes to quarantine."""

    index: int
    code: str
    detail: str
    field: str | None = None
    topic: str = ""
    payload: bytes = b""
    key: str = ""

    @property
    def reason(self) -> str:
        return f"{self.code}: {self.detail}"


def read(body: bytes) -> list[msgspec.Raw]:
    """The events of a request's body, not decoded yet. Raises BadInput on no event, TooLarge on too many."""
    try:
        one = body.lstrip()[:1] == b"{"
        found = [msgspec.Raw(body)] if one else msgspec.json.decode(body, type=list[msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadInput(f"the body must be one event (an object) or a list of events: {error}", field="body") from None
    if not found:
        raise BadInput(f"the list of events is empty; send 1 to {MAX_BATCH}", field="body")
    if len(found) > MAX_BATCH:
        raise TooLarge(f"{len(found)} events in one request; send at most {MAX_BATCH}", field="body")
    return found


def decide(
    found: list[msgspec.Raw], items: Items, now_ms: int, new_id: Callable[[], str]
) -> Iterator[Accepted | Refused]:
    """One verdict per event, in order. An item listed by this batch is known to the events after it."""
    listed: dict[str, ItemListed] = {}

    def known(item_id: str) -> ItemListed | None:
        return listed.get(item_id) or items.get(item_id)

    for index, raw in enumerate(found):
        verdict = _decide_one(index, bytes(raw), known, now_ms, new_id)
        if isinstance(verdict, Accepted) and isinstance(verdict.event, ItemListed):
            listed[verdict.event.item_id] = verdict.event
        yield verdict


def _decide_one(
    index: int, raw: bytes, known: Callable[[str], ItemListed | None], now_ms: int, new_id: Callable[[], str]
) -> Accepted | Refused:
    try:
        values = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return Refused(index, "malformed", str(error))
    if not isinstance(values, dict):
        return Refused(index, "malformed", f"an event must be an object, not {type(values).__name__}")
    kind = values.get("type")
    event_type = TYPES.get(kind) if isinstance(kind, str) else None
    if event_type is None:
        said = f"type = {_short(kind)}" if "type" in values else "type is missing"
        return Refused(index, "unknown_type", f"{said}; allowed: {', '.join(TYPES)}", "type")
    values.setdefault("event_id", new_id())
    values.setdefault("event_time", now_ms)
    for product in _products(values):
        _complete(product, known)
    try:
        event = msgspec.convert(values, event_type)
    except msgspec.ValidationError as error:
        return _invalid(index, str(error), values)
    if event_type is not ItemListed:
        for item_id in events.touched_items(event):
            if known(item_id) is None:
                detail = f"{item_id} is not in the catalogue; list it with an item_listed event first"
                return Refused(index, "unknown_item", detail, "item_id", event.topic, events.encode(event), event.key())
    return Accepted(index, event, events.encode(event))


def _products(values: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The parts of a raw event that must say what the shopper saw: category, price and seller."""
    if values["type"] in ("product_clicked", "product_added_to_cart"):
        yield values
    elif values["type"] == "order_placed" and isinstance(values.get("lines"), list):
        yield from (line for line in values["lines"] if isinstance(line, dict))


def _complete(product: dict[str, Any], known: Callable[[str], ItemListed | None]) -> None:
    item_id = product.get("item_id")
    if not isinstance(item_id, str) or all(name in product for name in ("category", "price_cents", "seller_id")):
        return
    if (item := known(item_id)) is not None:
        product.setdefault("category", item.category)
        product.setdefault("price_cents", item.price_cents)
        product.setdefault("seller_id", item.seller_id)
    elif events.is_id(item_id):  # it will be refused as an unknown item, not for what only the catalogue can know
        product.setdefault("category", "unknown")
        product.setdefault("price_cents", 0)


def _invalid(index: int, message: str, values: dict[str, Any]) -> Refused:
    """msgspec's message with the field's path and value in front, e.g. `lines.0.quantity = 0: expected int >= 1`."""
    at = _PATH.search(message)
    expected = message[: at.start()] if at else message
    expected = expected[:1].lower() + expected[1:]
    steps = [name or number for name, number in _STEP.findall(at["path"])] if at else []
    if missing := re.search(r"(?:required|unknown) field `([^`]*)`", expected):
        steps.append(missing[1])
    field = ".".join(steps) or "event"
    value: Any = values
    for step in steps:
        value = value[int(step)] if isinstance(value, list) else value.get(step, msgspec.UNSET)
        if value is msgspec.UNSET or not isinstance(value, list | dict):
            break
    said = field if value is msgspec.UNSET or value is values else f"{field} = {_short(value)}"
    return Refused(index, "invalid_field", f"{said}: {expected}", field)


def _short(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
