"""The committed schemas are the code's, and a change that breaks a reader of them is refused."""

from __future__ import annotations

import copy
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
import pytest

from feature_repo import events, schema_compatibility
from feature_repo.contracts.contract import Announcement, Contract
from feature_repo.contracts.files import contracts
from feature_repo.schema_compatibility import FOLDER, committed_versions, problems, refusals, schemas, text

CLICK = "ProductClicked"


def changed(**fields: Any) -> dict[str, Any]:
    """The click's schema with some of its properties replaced; None takes one out."""
    schema: dict[str, Any] = copy.deepcopy(schemas()["shop.clicks"])
    properties = schema["$defs"][CLICK]["properties"]
    for name, value in fields.items():
        if value is None:
            del properties[name]
        else:
            properties[name] = {**properties.get(name, {}), **value}
    return schema


@pytest.mark.parametrize("topic", [e.topic for e in events.EVENTS])
def test_the_committed_schema_is_the_codes(topic: str) -> None:
    assert not (refused := refusals(contracts()[topic], schemas()[topic])), "\n".join(refused)
    file = FOLDER / f"{topic}.v{contracts()[topic].version}.json"
    assert file.read_text() == text(schemas()[topic]), "run `python -m feature_repo.schema_compatibility`"


def test_every_committed_schema_is_a_version_of_a_topic() -> None:
    expected = {f"{t}.v{v}.json" for t in schemas() for v in range(1, contracts()[t].version + 1)}
    assert {f.name for f in FOLDER.glob("*.json")} == expected


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
        ({"price_cents": {"x-unit": "euros"}}, "price_cents: its unit was 'cents' and is 'euros'"),
        ({"position": {"x-unit": "place from the top, from 0"}}, "position: its unit was 'place from the top, from 1'"),
        ({"price_cents": None, "price": {"type": "integer"}}, "price_cents: removed or renamed (to price?)"),
        ({"category": None}, "category: removed or renamed"),
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
    old = schemas()["shop.orders"]
    new = copy.deepcopy(old)
    new["$defs"]["OrderLine"]["properties"]["quantity"]["type"] = "number"
    assert problems(old, new) == ["$.lines[].quantity: type was 'integer' and is 'number'"]


def clicks_version(version: int, *announced: Announcement) -> Contract:
    """The contract of clicks at a version, with what was announced."""
    change = msgspec.structs.replace(contracts()["shop.clicks"].change, announced=announced)
    return msgspec.structs.replace(contracts()["shop.clicks"], version=version, change=change)


def test_a_refusal_names_the_fix() -> None:
    (line,) = refusals(contracts()["shop.clicks"], changed(category=None))
    assert line.startswith("shop.clicks: $.category: removed or renamed. Readers of version 1 rely on it: put it back")
    assert "make this version 2: version = 2 and a [[change.announced]] entry, 14 days ahead" in line
    assert refusals(contracts()["shop.clicks"], changed(referrer={"type": "string", "default": None})) == []


def test_a_new_version_may_break_readers_that_were_told_in_time() -> None:
    second = changed(category=None, version={"maximum": 2})
    told = Announcement(version=2, told=date(2026, 12, 1), begins=date(2026, 12, 20), what="category goes")
    assert refusals(clicks_version(2, told), second) == []
    hasty = msgspec.structs.replace(told, begins=date(2026, 12, 8))
    assert refusals(clicks_version(2, hasty), second) == [
        "shop.clicks: version 2 begins 7 days after it was told; the contract promises 14"
    ]
    assert "was not announced" in refusals(clicks_version(2), second)[0]
    assert "version 3 after version 1" in refusals(clicks_version(3, told), changed(version={"maximum": 3}))[0]
    assert "events.py takes versions up to 1, the contract says 2" in refusals(clicks_version(2, told), changed())[0]


def test_the_baseline_is_not_written_over_by_what_it_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert schema_compatibility.write(tmp_path) == []
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr(schema_compatibility, "schemas", lambda: schemas() | {"shop.clicks": changed(category=None)})
    (refused,) = schema_compatibility.write(tmp_path)
    assert "category: removed or renamed" in refused
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert list(committed_versions("shop.clicks", tmp_path)) == [1]


def test_an_event_survives_encoding_and_a_future_version_is_refused() -> None:
    click = events.ProductClicked(
        event_id="e", event_time=1_790_000_000_000, user_id="u", item_id="i", category="Toys", price_cents=5
    )
    payload = events.encode(click)
    assert events.decode("shop.clicks", payload) == click == events.decode_any(payload)
    future = msgspec.json.encode({**msgspec.json.decode(payload), "version": 2})
    with pytest.raises(events.EventRejected, match="version"):
        events.decode("shop.clicks", future)
