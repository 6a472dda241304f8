"""The committed schemas are the code's, and a change that breaks a reader of them is refused."""

from __future__ import annotations

import copy
import json
from typing import Any

import msgspec
import pytest

from feature_repo import events
from feature_repo.schema_compatibility import FOLDER, problems, text

CLICK = "ProductClicked"


def changed(**fields: Any) -> dict[str, Any]:
    """The click's schema with some of its properties replaced; None takes one out."""
    schema: dict[str, Any] = copy.deepcopy(events.json_schemas()["shop.clicks"])  # type: ignore[arg-type]
    properties = schema["$defs"][CLICK]["properties"]
    for name, value in fields.items():
        if value is None:
            del properties[name]
        else:
            properties[name] = {**properties.get(name, {}), **value}
    return schema


@pytest.mark.parametrize("topic", [e.topic for e in events.EVENTS])
def test_the_committed_schema_is_the_codes(topic: str) -> None:
    file = FOLDER / f"{topic}.v1.json"
    assert file.read_text() == text(events.json_schemas()[topic]), "run `python -m feature_repo.schema_compatibility`"


def test_no_schema_is_left_over() -> None:
    assert {f.name for f in FOLDER.glob("*.json")} == {f"{e.topic}.v1.json" for e in events.EVENTS}


@pytest.mark.parametrize("topic", [e.topic for e in events.EVENTS])
def test_the_code_may_follow_the_committed_schema(topic: str) -> None:
    assert problems(json.loads((FOLDER / f"{topic}.v1.json").read_text()), events.json_schemas()[topic]) == []  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "fields",
    [
        {"referrer": {"type": "string", "default": None}},
        {"price_cents": {"maximum": 10**12}},
        {"item_id": {"description": "another text"}},
    ],
)
def test_what_may_change(fields: dict[str, Any]) -> None:
    assert problems(changed(), changed(**fields)) == []


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"price_cents": None, "price_euros": {"type": "number"}}, "price_cents: removed or renamed"),
        ({"price_cents": {"type": "number"}}, "price_cents: type was 'integer'"),
        ({"price_cents": {"description": "money in whole euros"}}, "price_cents: its unit"),
        ({"event_time": {"description": "Unix seconds, UTC"}}, "event_time: its unit"),
        ({"price_cents": {"maximum": 100}}, "price_cents: maximum was"),
        ({"item_id": {"maxLength": 5}}, "item_id: maxLength was None"),
        ({"country": {"anyOf": [{"type": "string"}]}}, "country: it had 2 alternatives"),
        ({"item_id": {"pattern": "^x$"}}, "item_id: pattern was"),
    ],
)
def test_what_may_not_change(fields: dict[str, Any], says: str) -> None:
    assert any(says in line for line in problems(changed(), changed(**fields)))


def test_required_fields_stay_as_they_are() -> None:
    more, fewer = changed(referrer={"type": "string"}), changed()
    more["$defs"][CLICK]["required"].append("referrer")
    fewer["$defs"][CLICK]["required"].remove("item_id")
    assert problems(changed(), more) == ["$.referrer: required now, it was not there"]
    assert problems(changed(), fewer) == ["$.item_id: optional now, readers rely on it"]


def test_nested_records_are_compared() -> None:
    old: dict[str, Any] = events.json_schemas()["shop.orders"]  # type: ignore[assignment]
    new = copy.deepcopy(old)
    new["$defs"]["OrderLine"]["properties"]["quantity"]["type"] = "number"
    assert problems(old, new) == ["$.lines[].quantity: type was 'integer' and is 'number'"]


def test_an_event_survives_encoding_and_a_future_version_is_refused() -> None:
    click = events.ProductClicked(
        event_id="e", event_time=1_790_000_000_000, user_id="u", item_id="i", category="Toys", price_cents=5
    )
    payload = events.encode(click)
    assert events.decode("shop.clicks", payload) == click == events.decode_any(payload)
    future = msgspec.json.encode({**msgspec.json.decode(payload), "version": 2})
    with pytest.raises(events.EventRejected, match="version"):
        events.decode("shop.clicks", future)
