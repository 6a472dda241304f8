"""The contracts say everything of their events, check themselves, and are kept at the edge."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_repo import events
from feature_repo.contracts import rules
from feature_repo.contracts.contract import ContractBroken
from feature_repo.contracts.edge import Breach, compile_check
from feature_repo.contracts.files import FOLDER, contracts, load
from services.collector import openapi
from services.collector.collect import CHECKS, Accepted, Refused, decide, read
from tests.unit.test_collect import CLICK, KETTLE, Shelf

CONTRACTS = contracts()
LABEL = """
kind = "topic"
schema = "FraudLabelled"
meaning = "m"
owner = "o"
change = {notice_days = 1, where = "here"}
[fields]
event_id = {meaning = "m"}
event_time = {meaning = "m", unit = "ms"}
version = {meaning = "m", unit = "n"}
payment_id = {meaning = "m"}
fraud = {meaning = "m"}
"""


def test_every_topic_has_a_contract_and_no_contract_is_of_nothing() -> None:
    assert {c.name for c in CONTRACTS.values() if c.kind == "topic"} == set(events.TOPICS)
    assert {c.name for c in CONTRACTS.values() if c.schema} == {e.topic for e in events.EVENTS}


@pytest.mark.parametrize("name", list(CONTRACTS))
def test_each_says_what_it_is_and_who_keeps_it(name: str) -> None:
    contract = CONTRACTS[name]
    assert all((contract.meaning, contract.owner, contract.key, contract.change.where, contract.fields))
    assert all(field.meaning for field in contract.fields.values())
    assert len({rule.text for rule in contract.rules}) == len(contract.rules)
    assert (contract.volume is None) or contract.freshness is not None


def broken(tmp_path: Path, text: str, name: str = "labels.fraud") -> str:
    (tmp_path / "topics").mkdir()
    (tmp_path / "topics" / f"{name}.toml").write_text(text)
    with pytest.raises(ContractBroken) as refused:
        load(tmp_path)
    return str(refused.value)


def test_a_whole_contract_is_taken(tmp_path: Path) -> None:
    (tmp_path / "topics").mkdir()
    (tmp_path / "topics" / "labels.fraud.toml").write_text(LABEL)
    assert list(load(tmp_path)) == ["labels.fraud"]


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('fraud = {meaning = "m"}', "", "'fraud']: the schema has this field; say what it means"),
        ('fraud = {meaning = "m"}', 'fraud = {meaning = "m"}\nage = {meaning = "m"}', "has no such field"),
        (', unit = "ms"', "", "'event_time']: a number needs its unit"),
        ('owner = "o"', "", "missing required field `owner`"),
        ('owner = "o"', 'owner = "o"\nprice = 1', "unknown field `price`"),
        ('fraud = {meaning = "m"}', 'fraud = {meaning = "m", type = "b"}', "states its type"),
        ("FraudLabelled", "PaymentMade", "'PaymentMade' is not the event of this topic"),
        ('schema = "FraudLabelled"', "", "'event_id']: no schema states its type; say it"),
        ('owner = "o"', 'owner = "o"\nrules = [{rule = "range", field = "age", least = 1, most = 2}]', "names 'age'"),
        ('owner = "o"', 'owner = "o"\nrules = [{rule = "range", field = "fraud", least = 3, most = 2}]', "above most"),
        ('owner = "o"', 'owner = "o"\nrules = [{rule = "magic"}]', "magic"),
        ('owner = "o"', 'owner = "o"\nincludes = ["ghost"]', "ghost.toml"),
        ('owner = "o"', 'owner = "o"\nrules = [{rule = "refers", field = "payment_id", to = "shop.payments", '
                        'to_field = "payment_id"}]', "there is no shop.payments.payment_id"),
    ],
)  # fmt: skip
def test_a_contract_that_leaves_something_unsaid_is_refused(tmp_path: Path, old: str, new: str, says: str) -> None:
    assert old in LABEL
    assert says in broken(tmp_path, LABEL.replace(old, new))


def test_feast_imports_the_declarations_alone() -> None:
    home = FOLDER.parent
    ours = {p.name + "/" * p.is_dir() for p in home.iterdir() if p.suffix == ".py" or p.is_dir()}
    assert ours - {"features.py", "__pycache__/"} <= set((home / ".feastignore").read_text().split())


def one(body: dict[str, Any]) -> Accepted | Refused:
    shelf = Shelf(items={"kettle": KETTLE})
    (verdict,) = decide(read(json.dumps(body).encode()), shelf, KETTLE.event_time, lambda: "e")
    return verdict


@pytest.mark.parametrize(
    ("body", "field", "says"),
    [
        ({**CLICK, "price_cents": 10_000_001}, "price_cents",
         "price_cents = 10000001: expected from 0 to 10,000,000 (contract shop.clicks)"),
        ({**CLICK, "position": 3}, "position", "position = 3: expected request_id too"),
        ({"type": "order_placed", "user_id": "u", "order_id": "o",
          "lines": [{"item_id": "kettle"}, {"item_id": "kettle", "price_cents": 10**9}]}, "lines.1.price_cents",
         "lines.1.price_cents = 1000000000: expected from 0 to 10,000,000 (contract shop.orders)"),
        ({"type": "payment_made", "user_id": "u", "order_id": "o", "payment_id": "p", "merchant_id": "m",
          "amount_cents": 5, "card_id": "c", "currency": "USD"}, "currency", "currency = 'USD': expected one of EUR"),
    ],
)  # fmt: skip
def test_what_breaks_its_contract_is_refused_and_quarantined(body: dict[str, Any], field: str, says: str) -> None:
    verdict = one(body)
    assert isinstance(verdict, Refused)
    assert (verdict.code, verdict.field) == ("out_of_contract", field)
    assert says in verdict.detail
    assert verdict.topic in CONTRACTS
    assert events.decode(verdict.topic, verdict.payload).key() == verdict.key


def test_the_openapi_document_states_the_limits_of_the_contracts() -> None:
    told = openapi.schemas()
    assert told["ProductClicked"]["properties"]["price_cents"]["maximum"] == 10_000_000
    assert told["OrderLine"]["properties"]["price_cents"]["maximum"] == 10_000_000
    assert told["OrderLine"]["properties"]["quantity"]["maximum"] == 10_000  # its rule is not for the door
    assert told["PaymentMade"]["properties"]["currency"]["enum"] == ["EUR"]
    assert events.json_schemas()["shop.clicks"]["$defs"]["ProductClicked"]["properties"]["price_cents"][  # type: ignore[index]
        "maximum"] == 10_000_000_000


def test_what_keeps_its_contract_is_taken() -> None:
    assert isinstance(one({**CLICK, "price_cents": 10_000_000}), Accepted)
    assert isinstance(one({**CLICK, "position": 3, "request_id": "r"}), Accepted)
    assert set(CHECKS) == {e.topic for e in events.EVENTS}


@given(st.lists(st.integers(-3, 3), max_size=6), st.integers(-3, 3), st.integers(-3, 3))
def test_a_range_is_what_it_says(values: list[int], one: int, other: int) -> None:
    least, most = min(one, other), max(one, other)
    check = compile_check((rules.Range(field="lines[].n", least=least, most=most),))
    lines = [type("Line", (), {"n": v})() for v in values]
    found = check(type("Event", (), {"lines": lines})())
    first = next((at for at, v in enumerate(values) if not least <= v <= most), None)
    assert (found is None) == (first is None)
    if found is not None:
        assert found == Breach(f"lines.{first}.n", values[first or 0], f"from {least} to {most}")


def test_a_list_without_repetition() -> None:
    check = compile_check((rules.Distinct(field="ids"),))
    assert check(type("Event", (), {"ids": ["a", "b"]})()) is None
    assert check(type("Event", (), {"ids": ["a", "b", "a"]})()) is not None
    lenient = (rules.Distinct(field="ids", edge=False),)
    assert compile_check(lenient)(type("Event", (), {"ids": ["a", "a"]})()) is None
    assert compile_check(lenient, edge_only=False)(type("Event", (), {"ids": ["a", "a"]})()) is not None
