"""The events, one type per Kafka topic, named in the shopper's words. Pure: no network, no clock.

Every event is frozen and carries an envelope: `event_id` (unique; the key of deduplication), `event_time` (when it
happened, Unix milliseconds UTC, the sender's clock) and `version` (of its schema). Money is in minor units (cents).
What the shopper saw (category, price) is stored on the event itself, so that replay needs no look-up. Kafka's record
timestamp is the arrival time; it is not part of the payload.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, ClassVar, Final

import msgspec
from msgspec import Meta, Struct

ID_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9_.:\-]{0,63}$"
Id = Annotated[str, Meta(pattern=ID_PATTERN, description="1-64 of letters, digits and _.:- ; starts with a letter or digit")]
Millis = Annotated[int, Meta(ge=946_684_800_000, le=4_102_444_800_000, description="Unix milliseconds, UTC (2000 to 2100)")]
Cents = Annotated[int, Meta(ge=0, le=10_000_000_000, description="money in minor units")]
Quantity = Annotated[int, Meta(ge=1, le=10_000)]
Label = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f\x7f]+$")]
Text = Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
Country = Annotated[str, Meta(pattern=r"^[A-Z]{2}$", description="ISO 3166 alpha-2")]
Device = Annotated[str, Meta(pattern=r"^(desktop|phone|tablet|other)$")]


class Event(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", omit_defaults=True):
    """The envelope that every event carries."""

    topic: ClassVar[str] = ""
    event_id: Id
    event_time: Millis
    version: Annotated[int, Meta(ge=1, le=1)] = 1

    def key(self) -> str:
        """The Kafka key: events with one key stay in order."""
        raise NotImplementedError


class ShopperEvent(Event, frozen=True, kw_only=True):
    user_id: Id
    session_id: Id | None = None
    country: Country | None = None
    device: Device | None = None

    def key(self) -> str:
        return self.user_id


class ProductsShown(ShopperEvent, frozen=True, kw_only=True, tag="products_shown"):
    """A feed was drawn on the shopper's screen: item_ids[0] is position 1."""

    topic: ClassVar[str] = "shop.impressions"
    request_id: Id
    surface: Label = "home"
    item_ids: Annotated[list[Id], Meta(min_length=1, max_length=200)]


class ProductClicked(ShopperEvent, frozen=True, kw_only=True, tag="product_clicked"):
    """A shopper opened a product. `request_id` and `position` (1-based) are set if it was clicked in a feed."""

    topic: ClassVar[str] = "shop.clicks"
    item_id: Id
    category: Label
    price_cents: Cents
    seller_id: Id | None = None
    request_id: Id | None = None
    position: Annotated[int, Meta(ge=1, le=200)] | None = None


class ProductAddedToCart(ShopperEvent, frozen=True, kw_only=True, tag="product_added_to_cart"):
    topic: ClassVar[str] = "shop.carts"
    item_id: Id
    category: Label
    price_cents: Cents
    quantity: Quantity = 1
    seller_id: Id | None = None
    request_id: Id | None = None


class OrderLine(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    item_id: Id
    category: Label
    price_cents: Cents
    quantity: Quantity = 1
    seller_id: Id | None = None


class OrderPlaced(ShopperEvent, frozen=True, kw_only=True, tag="order_placed"):
    topic: ClassVar[str] = "shop.orders"
    order_id: Id
    lines: Annotated[list[OrderLine], Meta(min_length=1, max_length=100)]


class PaymentMade(ShopperEvent, frozen=True, kw_only=True, tag="payment_made"):
    """A payment was attempted for an order. `card_id` and `device_id` are tokens, never numbers."""

    topic: ClassVar[str] = "shop.payments"
    payment_id: Id
    order_id: Id
    merchant_id: Id
    amount_cents: Cents
    currency: Annotated[str, Meta(pattern=r"^[A-Z]{3}$")] = "EUR"
    card_id: Id
    device_id: Id | None = None


class ItemListed(Event, frozen=True, kw_only=True, tag="item_listed"):
    """The state of one item (the topic is compacted: the newest wins). `event_time` is when this state began."""

    topic: ClassVar[str] = "shop.items"
    item_id: Id
    title: Text
    category: Label
    price_cents: Cents
    seller_id: Id
    listed_at: Millis
    stock: Annotated[int, Meta(ge=0, le=1_000_000_000)] = 1_000_000
    adult: bool = False
    promoted: bool = False

    def key(self) -> str:
        return self.item_id


class FraudLabelled(Event, frozen=True, kw_only=True, tag="fraud_labelled"):
    topic: ClassVar[str] = "labels.fraud"
    payment_id: Id
    fraud: bool

    def key(self) -> str:
        return self.payment_id


EVENTS: Final[tuple[type[Event], ...]] = (
    ProductsShown, ProductClicked, ProductAddedToCart, OrderPlaced, PaymentMade, ItemListed, FraudLabelled,
)
SHOPPER_EVENTS: Final = tuple(e for e in EVENTS if issubclass(e, ShopperEvent))
DECISIONS: Final = "decisions.recommendation"
REKEYED: Final = "features.rekeyed"
SHADOW: Final = "decisions.shadow"
DRIFT_REPORTS: Final = "drift.reports"
ROLLOUTS: Final = "models.rollouts"
LAKE_TOPICS: Final[tuple[str, ...]] = (*(e.topic for e in EVENTS), DECISIONS)
"""What the event log keeps for ever: shoppers' events and the decisions made for them."""
TOPICS: Final[tuple[str, ...]] = (*LAKE_TOPICS, REKEYED, SHADOW, DRIFT_REPORTS, ROLLOUTS)
COMPACTED: Final = frozenset({ItemListed.topic, ROLLOUTS})

_decoders: Final = {e.topic: msgspec.json.Decoder(e) for e in EVENTS}
_any: Final = msgspec.json.Decoder(
    ProductsShown | ProductClicked | ProductAddedToCart | OrderPlaced | PaymentMade | ItemListed | FraudLabelled
)
_encoder: Final = msgspec.json.Encoder()
_id: Final = re.compile(ID_PATTERN)


class EventRejected(ValueError):
    """The bytes are not an event of this topic; the message names the field, the value's fault and what is allowed."""


def dlq(topic: str) -> str:
    """The dead-letter topic beside `topic`."""
    return f"{topic}.dlq"


def is_id(text: str) -> bool:
    """Whether `text` may be a user, item, request or event id."""
    return _id.fullmatch(text) is not None


def encode(event: Event) -> bytes:
    """The event as canonical JSON bytes, as they lie in Kafka."""
    return _encoder.encode(event)


def decode(topic: str, payload: bytes) -> Event:
    """Read one event of `topic`. Raises EventRejected on anything else, a future `version` included."""
    try:
        event: Event = _decoders[topic].decode(payload)
        return event
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise EventRejected(str(error)) from None


def decode_any(payload: bytes) -> Event:
    """Read one event of any type by its `type` field. Raises EventRejected."""
    try:
        event: Event = _any.decode(payload)
        return event
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise EventRejected(str(error)) from None


def json_schemas() -> dict[str, object]:
    """JSON Schema of every event by topic: what `schemas/` and the collector's OpenAPI document are made from."""
    return {e.topic: msgspec.json.schema(e) for e in EVENTS}


def touched_items(event: Event) -> Sequence[str]:
    """The items that an event is about, in order; empty for payments and labels."""
    match event:
        case ProductsShown():
            return event.item_ids
        case ProductClicked() | ProductAddedToCart() | ItemListed():
            return (event.item_id,)
        case OrderPlaced():
            return [line.item_id for line in event.lines]
        case _:
            return ()
