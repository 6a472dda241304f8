"""The collector's decision and its edge: what is completed, what is refused and how that is said."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.errors import BadInput, TooLarge
from adapters.kafka import MemoryPublisher
from adapters.web import create_app
from feature_repo import events
from services.collector.api import add_routes
from services.collector.collect import CODES, TYPES, Accepted, Refused, decide, read

NOW = 1_790_000_000_000
KETTLE = events.ItemListed(
    event_id="e", event_time=NOW, item_id="kettle", title="Kettle", category="Kitchen", price_cents=3499,
    seller_id="s", listed_at=NOW,
)  # fmt: skip
CLICK = {"type": "product_clicked", "user_id": "u1", "item_id": "kettle"}


class Shelf(SimpleNamespace):
    """A catalogue of one kettle."""

    ready = True

    def get(self, item_id: str) -> events.ItemListed | None:
        return self.items.get(item_id)

    def learn(self, states: Any) -> None:
        self.items.update({s.item_id: s for s in states})


@pytest.fixture
def shelf() -> Shelf:
    return Shelf(items={"kettle": KETTLE})


def verdicts(body: Any, shelf: Shelf) -> list[Accepted | Refused]:
    count = itertools.count()
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return list(decide(read(raw), shelf, NOW, lambda: f"new-{next(count)}"))


def test_what_is_missing_is_filled_in(shelf: Shelf) -> None:
    (only,) = verdicts(CLICK, shelf)
    assert isinstance(only, Accepted)
    expected = events.ProductClicked(
        event_id="new-0", event_time=NOW, user_id="u1", item_id="kettle", category="Kitchen", price_cents=3499,
        seller_id="s",
    )
    assert only.event == expected
    assert events.decode("shop.clicks", only.payload) == expected


def test_what_the_shopper_saw_is_kept(shelf: Shelf) -> None:
    (only,) = verdicts({**CLICK, "category": "Old name", "price_cents": 1, "event_time": NOW - 5}, shelf)
    assert isinstance(only, Accepted)
    assert (only.event.category, only.event.price_cents, only.event.event_time) == ("Old name", 1, NOW - 5)  # type: ignore[attr-defined]
    assert only.event.seller_id == "s"  # type: ignore[attr-defined]


def test_order_lines_are_completed(shelf: Shelf) -> None:
    order = {"type": "order_placed", "user_id": "u", "order_id": "o", "lines": [{"item_id": "kettle"}]}
    (only,) = verdicts(order, shelf)
    assert isinstance(only, Accepted)
    line = events.OrderLine(item_id="kettle", category="Kitchen", price_cents=3499, seller_id="s")
    assert only.event.lines == [line]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("change", "code", "field", "says"),
    [
        ({"item_id": "ghost"}, "unknown_item", "item_id", "ghost is not in the catalogue"),
        ({"type": "product_licked"}, "unknown_type", "type", "product_clicked"),
        ({"type": None}, "unknown_type", "type", "allowed"),
        ({"type": ["a"]}, "unknown_type", "type", "allowed"),
        ({"user_id": 5}, "invalid_field", "user_id", "user_id = 5: expected `str`, got `int`"),
        ({"user_id": ""}, "invalid_field", "user_id", "matching regex"),
        ({"country": "Germany"}, "invalid_field", "country", "'Germany'"),
        ({"position": 0}, "invalid_field", "position", ">= 1"),
        ({"event_time": 1_790_000_000}, "invalid_field", "event_time", "1790000000"),
        ({"price_cents": -1}, "invalid_field", "price_cents", ">= 0"),
        ({"colour": "red"}, "invalid_field", "colour", "unknown field"),
        ({"version": 2}, "invalid_field", "version", "<= 1"),
        ({"item_id": {"a": 1}}, "invalid_field", "item_id", "got `object`"),
    ],
)
def test_a_refusal_names_the_field_and_what_is_allowed(
    change: dict[str, Any], code: str, field: str, says: str, shelf: Shelf
) -> None:
    (only,) = verdicts([{**CLICK, **change}], shelf)
    assert isinstance(only, Refused)
    assert (only.code, only.field) == (code, field)
    assert says in only.reason


def test_a_nested_field_is_named_by_its_path(shelf: Shelf) -> None:
    lines = [{"item_id": "kettle"}, {"item_id": "kettle", "quantity": 0}]
    (only,) = verdicts({"type": "order_placed", "user_id": "u", "order_id": "o", "lines": lines}, shelf)
    assert isinstance(only, Refused)
    assert only.field == "lines.1.quantity"
    assert only.detail.startswith("lines.1.quantity = 0: expected")


def test_one_bad_event_does_not_hurt_its_batch(shelf: Shelf) -> None:
    found = verdicts([CLICK, 7, {**CLICK, "item_id": "ghost"}, CLICK], shelf)
    assert [type(v).__name__ for v in found] == ["Accepted", "Refused", "Refused", "Accepted"]
    assert [v.index for v in found] == [0, 1, 2, 3]


def test_an_item_listed_in_a_batch_is_known_to_the_rest_of_it(shelf: Shelf) -> None:
    pan = {"type": "item_listed", "item_id": "pan", "title": "Pan", "category": "Kitchen", "price_cents": 5,
           "seller_id": "s", "listed_at": NOW}  # fmt: skip
    early, listed, late = verdicts([{**CLICK, "item_id": "pan"}, pan, {**CLICK, "item_id": "pan"}], shelf)
    assert isinstance(early, Refused)
    assert isinstance(listed, Accepted)
    assert isinstance(late, Accepted)


def test_bodies_that_hold_no_events() -> None:
    for body in (b"", b"[]", b"7", b'"x"', b"[1", b"\xff", b"null"):
        with pytest.raises(BadInput):
            read(body)
    with pytest.raises(TooLarge, match="1001 events"):
        read(b"[" + b",".join([b"{}"] * 1001) + b"]")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
fields = st.sampled_from(sorted({f for t in TYPES.values() for f in t.__struct_fields__}))


@given(st.dictionaries(fields, json_values, max_size=8), st.sampled_from(sorted(TYPES)))
@settings(max_examples=300, deadline=None)
def test_every_object_gets_exactly_one_verdict(values: dict[str, Any], kind: str) -> None:
    (only,) = verdicts({**values, "type": kind}, Shelf(items={"kettle": KETTLE}))
    if isinstance(only, Accepted):
        assert events.decode(only.event.topic, only.payload) == only.event
    else:
        assert only.code in CODES
        assert only.reason.isprintable()


@pytest.fixture
def publisher() -> MemoryPublisher:
    return MemoryPublisher()


@pytest.fixture
async def http(shelf: Shelf, publisher: MemoryPublisher) -> Any:
    app = create_app("collector", title="test", ready=dict)
    add_routes(app, shelf, publisher)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://collector") as client:
        yield client


async def test_accepted_events_are_published_by_key(http: httpx.AsyncClient, publisher: MemoryPublisher) -> None:
    answer = await http.post("/v1/events?ack=true", json=[CLICK, {**CLICK, "item_id": "ghost"}])
    assert answer.status_code == 202
    body = answer.json()
    assert body["accepted"] == 1
    assert body["refused"][0]["index"] == 1
    assert body["positions"][0]["topic"] == "shop.clicks"
    assert body["positions"][1] is None
    assert [r.key for r in publisher.of("shop.clicks")] == ["u1"]
    (letter,) = publisher.of("shop.clicks.dlq")
    said = msgspec.json.decode(letter.value or b"")
    assert said["reason"].startswith("unknown_item: ghost")
    assert said["source"] == "collector"


async def test_a_single_refused_event_is_a_problem(http: httpx.AsyncClient) -> None:
    answer = await http.post("/v1/events", json={**CLICK, "user_id": ""})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "user_id"


async def test_a_full_spool_says_when_to_come_back(http: httpx.AsyncClient, publisher: MemoryPublisher) -> None:
    publisher.full = True
    answer = await http.post("/v1/events", json=CLICK)
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) >= 1


async def test_nothing_is_judged_without_a_catalogue(http: httpx.AsyncClient, shelf: Shelf) -> None:
    shelf.ready = False
    assert (await http.post("/v1/events", json=CLICK)).status_code == 503


async def test_the_openapi_document_describes_every_event(http: httpx.AsyncClient) -> None:
    document = (await http.get("/openapi.json")).json()
    schemas = document["components"]["schemas"]
    assert {e.__name__ for e in events.EVENTS} <= schemas.keys()
    assert "price_cents" not in schemas["ProductClicked"]["required"]
    assert "event_id" not in schemas["ItemListed"]["required"]
    assert "price_cents" in schemas["ItemListed"]["required"]
    for reference in _references(document):
        assert reference.removeprefix("#/components/schemas/") in schemas


def _references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        for key, value in part.items():
            if key == "$ref":
                yield value
            else:
                yield from _references(value)
    elif isinstance(part, list):
        for value in part:
            yield from _references(value)
