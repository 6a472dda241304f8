"""Requests that must be refused, per service: where, what is wrong, which status, and the field that must be named."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

JSON: Final = {"Content-Type": "application/json"}
FORM: Final = {"Content-Type": "application/x-www-form-urlencoded"}

BODIES: Final[dict[str, bytes]] = {
    "empty": b"",
    "not json": b"hello",
    "cut short": b'{"user_id": "u',
    "two values": b"{}{}",
    "NaN": b'{"k": NaN}',
    "Infinity": b'{"k": Infinity}',
    "minus Infinity": b'{"k": -Infinity}',
    "beyond a float": b'{"k": 1e400}',
    "a number of a million digits": b'{"k": ' + b"1" * 1_000_000 + b"}",
    "a name twice": b'{"user_id": "u1", "user_id": "u2"}',
    "not UTF-8": b'{"user_id": "\xff\xfe"}',
    "overlong UTF-8": b'{"user_id": "\xc0\x80"}',
    "UTF-16": '{"user_id": "u1"}'.encode("utf-16"),
    "half a surrogate pair": b'{"user_id": "\\ud800"}',
    "a raw control character": b'{"user_id": "a\x00b"}',
    "deep lists": b"[" * 100_000 + b"]" * 100_000,
    "deep objects": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    "unclosed and deep": b"[" * 500_000,
    "10 MB": b'{"user_id": "' + b"x" * 10_000_000 + b'"}',
    "null": b"null",
    "a number": b"3",
    "a string": b'"u1"',
}


@dataclass(frozen=True)
class Bad:
    path: str
    body: bytes | None = None
    status: tuple[int, ...] = (422,)
    names: str | None = None
    method: str = "POST"
    headers: Mapping[str, str] = field(default_factory=lambda: JSON)


def _recommendation(named: str, **fields: Any) -> Bad:
    return Bad("/v1/recommendations", json.dumps({"user_id": "u1"} | fields).encode(), names=named)


def _event(named: str | None, status: tuple[int, ...] = (422,), **fields: Any) -> Bad:
    click = {"type": "product_clicked", "user_id": "u1", "item_id": "i0001"}
    event = {k: v for k, v in (click | fields).items() if v is not ...}
    return Bad("/v1/events", json.dumps(event).encode(), status=status, names=named)


def _features(named: str | None, status: tuple[int, ...] = (422,), **fields: Any) -> Bad:
    question = {"feature_service": "item_profile", "entities": {"item_id": ["i1"]}}
    return Bad("/v1/features", json.dumps(question | fields).encode(), status=status, names=named)


def _form(path: str, body: str, named: str | None, status: tuple[int, ...] = (422,)) -> Bad:
    return Bad(path, body.encode(), status=status, names=named, headers=FORM)


NO_IDS: Final[tuple[Any, ...]] = ("", "a b", "a\x00b", "a\nb", "é", "x" * 65, 7, None, ["u1"], {})
CORPUS: Final[dict[str, list[Bad]]] = {
    "recommender": [
        *(_recommendation("k", k=k) for k in (0, -1, 10**9, 101, 1.5, "20", True, None, [20], 2**70)),
        *(_recommendation("user_id", user_id=u) for u in NO_IDS),
        Bad("/v1/recommendations", b"{}", names="user_id"),
        _recommendation("surprise", surprise=1),
        _recommendation("surface", surface="\x07"),
        _recommendation("surface", surface=5),
        _recommendation("context", context=[]),
        Bad("/v1/recommendations", b"[]", names="body"),
        Bad("/v1/recommendations", b"{}", status=(415,), names="Content-Type", headers={"Content-Type": "text/plain"}),
        Bad("/v1/recommendations", b"{}", status=(415,), names="Content-Type", headers={}),
        Bad("/v1/decisions/a%20b", method="GET", status=(404, 422), headers={}),
        Bad("/v1/decisions/" + "x" * 5000, method="GET", status=(404, 422), headers={}),
        Bad("/v1/decisions/00000000-0000-7000-8000-000000000000", method="GET", status=(404,), headers={}),
        Bad("/v1/decisions/%00", method="GET", status=(404, 422), headers={}),
    ],
    "collector": [
        _event("type", type="product_teleported"),
        _event("type", type=...),
        _event("type", type=5),
        _event("user_id", user_id=...),
        _event("user_id", user_id="a b"),
        _event("user_id", user_id="a\x00b"),
        _event("user_id", user_id=5),
        _event("item_id", item_id="x" * 65),
        _event("item_id", item_id="unknown-item"),
        _event("event_time", event_time=5),
        _event("event_time", event_time=10**30),
        _event("event_time", event_time="now"),
        _event("price_cents", price_cents=-1),
        _event("price_cents", price_cents=10**30),
        _event("price_cents", price_cents=1.5),
        _event("position", position=0),
        _event("version", version=99),
        _event("surprise", surprise=1),
        Bad("/v1/events", json.dumps([{"type": "product_clicked"}] * 1001).encode(), status=(413, 422)),
        Bad("/v1/events", b"[]", status=(422,)),
        Bad("/v1/events", b"{}", status=(415,), names="Content-Type", headers={"Content-Type": "text/csv"}),
        Bad("/v1/events?ack=perhaps", b"{}", names="ack"),
    ],
    "feature_server": [
        _features("feature_service", (404,), feature_service="nothing"),
        _features("feature_service", (404,), feature_service="item_profile@0"),
        _features("feature_service", feature_service=5),
        _features("feature_service", features=["item_activity"]),
        _features("features", (404,), feature_service=None, features=["item_activity:nothing"]),
        _features("feature_service", feature_service=None),
        _features("entities", entities={}),
        _features("entities", entities=[]),
        _features("entities", entities={"item_id": []}),
        _features("entities", entities={"item_id": [5]}),
        _features("entities", entities={"item_id": ["x" * 129]}),
        _features("entities", entities={"item_id": ["i"], "user_id": ["u"]}),
        _features("entities", (413, 422), entities={"item_id": ["i"] * 2001}),
        _features("at_ms", at_ms=5),
        _features("at_ms", at_ms=-1),
        _features("at_ms", at_ms=10**30),
        _features("at_ms", at_ms="now"),
        _features("surprise", surprise=1),
        Bad("/v1/features", b"{}", names="entities"),
        Bad("/v1/features", b"{}", status=(415,), names="Content-Type", headers={"Content-Type": "text/plain"}),
    ],
    "shop": [
        _form("/shopper", "user_id=a+b", "user_id"),
        _form("/shopper", "user_id=" + "x" * 65, "user_id"),
        _form("/shopper", "user_id=%00", "user_id"),
        _form("/cart", "", "item_id"),
        _form("/cart", "item_id=%ff%fe", "item_id"),
        _form("/cart", "item_id=nothing", "item_id", (404,)),
        _form("/cart", "item_id=i0001&request_id=%0a", "request_id"),
        _form("/cart/remove", "item_id=", "item_id"),
        _form("/cart", "item_id=" + "x" * 10_000_000, None, (413,)),
        Bad("/cart", b'{"item_id": "i0001"}', status=(415,), names="Content-Type"),
        Bad("/cart", b"--x", status=(415,), headers={"Content-Type": "multipart/form-data; boundary=x"}),
        Bad("/products/i0001?p=0", method="GET", names="p", headers={}),
        Bad("/products/i0001?p=1e9", method="GET", names="p", headers={}),
        Bad("/products/i0001?r=%00", method="GET", names="r", headers={}),
        Bad("/products/%00", method="GET", status=(404, 422), headers={}),
        Bad("/products/no-such-item", method="GET", status=(404,), headers={}),
        Bad("/pictures/%3Cscript%3E.svg", method="GET", status=(404, 422), headers={}),
        Bad("/static/../main.py", method="GET", status=(404,), headers={}),
        Bad("/static/%2e%2e/main.py", method="GET", status=(404,), headers={}),
        Bad("/why/%00/%00", method="GET", status=(404, 422), headers={}),
    ],
}
