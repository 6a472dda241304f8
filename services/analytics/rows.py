"""From a Kafka record to the rows of the analytical store: which table, which columns. Pure: no network, no clock.

A record that is no row raises EventRejected with `code: detail`; it becomes a dead letter. Unknown keys are ignored,
missing ones get the column's empty value, so that records of older and newer services can be read.
"""

from __future__ import annotations

import binascii
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np

from adapters.decision_log import features_of
from adapters.kafka import Record
from feature_repo import events
from feature_repo.events import EventRejected
from feature_repo.windows import lateness

Row = dict[str, Any]
_ERRORS: Final = (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError)
_FIRST_MS, _LAST_MS = 946_684_800_000, 4_102_444_800_000  # as for events: 2000 to 2100


class _Placed(msgspec.Struct):
    item_id: str
    score: float | None = None


class _Ids(msgspec.Struct):
    item_ids: list[str] = []


class _Rank(msgspec.Struct):
    item_ids: list[str]
    scores: list[float | None]
    features_base64: str = ""
    feature_names_sha: str = ""


class _Decision(msgspec.Struct):
    request_id: events.Id
    event_time: events.Millis
    user_id: str = ""
    surface: str | None = None
    device: str | None = None
    country: str | None = None
    arm: str | None = None
    rollout: str | None = None
    k: int = 0
    model_versions: dict[str, str] = {}
    timings_ms: dict[str, float] = {}
    degraded: list[str] = []
    cold_start: str | None = None
    candidates: _Ids | None = None
    rank: _Rank | None = None
    items: list[_Placed] = []
    user_features: dict[str, float | None] = {}


_decision: Final = msgspec.json.Decoder(_Decision)
_object: Final = msgspec.json.Decoder(dict[str, Any])


def rows_of(record: Record) -> tuple[str, list[Row]]:
    """(table, rows) of one record. Raises EventRejected."""
    table, read = READERS[record.topic]
    rows = read(record)
    place = {"_partition": record.partition, "_offset": record.offset, "_arrival_ms": record.timestamp_ms}
    for row in rows:
        row.update(place)
    return table, rows


def _event(build: Callable[[Any], list[Row]]) -> Callable[[Record], list[Row]]:
    """A reader of one kind of shopper's event: the envelope here, the rest by `build`. Late events are refused."""

    def read(record: Record) -> list[Row]:
        try:
            event = events.decode(record.topic, record.value or b"")
        except EventRejected as error:
            raise EventRejected(f"not_an_event: {error}") from None
        if late := lateness(event.event_time, record.timestamp_ms):
            raise EventRejected(f"{late}: event_time {event.event_time}, arrived {record.timestamp_ms}")
        assert isinstance(event, events.ShopperEvent)
        envelope = {"event_id": event.event_id, "event_ms": event.event_time, "user_id": event.user_id,
                    "country": event.country or "", "device": event.device or ""}
        return [envelope | row for row in build(event)]

    return read


def _impression(event: events.ProductsShown) -> list[Row]:
    return [{"session_id": event.session_id or "", "request_id": event.request_id, "surface": event.surface,
             "item_ids": event.item_ids}]


def _click(event: events.ProductClicked) -> list[Row]:
    return [{"session_id": event.session_id or "", "request_id": event.request_id or "", "item_id": event.item_id,
             "position": event.position or 0, "category": event.category, "price_cents": event.price_cents}]


def _cart(event: events.ProductAddedToCart) -> list[Row]:
    return [{"session_id": event.session_id or "", "request_id": event.request_id or "", "item_id": event.item_id,
             "category": event.category, "price_cents": event.price_cents, "quantity": event.quantity}]


def _order(event: events.OrderPlaced) -> list[Row]:
    return [{"line": number, "session_id": event.session_id or "", "order_id": event.order_id,
             "item_id": line.item_id, "category": line.category, "price_cents": line.price_cents,
             "quantity": line.quantity} for number, line in enumerate(event.lines, 1)]


def _payment(event: events.PaymentMade) -> list[Row]:
    return [{"payment_id": event.payment_id, "order_id": event.order_id, "merchant_id": event.merchant_id,
             "amount_cents": event.amount_cents, "currency": event.currency}]


def _of_decision(record: Record) -> list[Row]:
    try:
        made = _decision.decode(record.value or b"")
        features, scores = _shown(made)
    except _ERRORS as error:
        raise EventRejected(f"not_a_decision: {error}") from None
    times, versions = made.timings_ms, made.model_versions
    return [{
        "request_id": made.request_id, "event_ms": made.event_time, "user_id": made.user_id,
        "surface": made.surface or "", "device": made.device or "", "country": made.country or "",
        "new_user": int(made.cold_start is not None), "arm": made.arm or "champion", "rollout": made.rollout or "",
        "ranker_version": versions.get("ranker", ""), "preranker_version": versions.get("preranker", ""),
        "two_tower_version": versions.get("two-tower", ""), "model_versions": versions, "degraded": made.degraded,
        "cold_start": made.cold_start or "", "k": _small(made.k), "total_ms": times.get("total", 0.0),
        **{f"{stage}_ms": times.get(stage, 0.0) for stage in ("retrieve", "features", "prerank", "rank", "rerank")},
        "candidates": _small(len(made.candidates.item_ids)) if made.candidates else 0,
        "items": [p.item_id for p in made.items], "scores": [p.score for p in made.items], "rank_scores": scores,
        "features": features, "feature_names_sha": made.rank.feature_names_sha if made.rank else "",
        "user_features": made.user_features,
    }]


def _shown(made: _Decision) -> tuple[Any, list[float | None]]:
    """What the ranker saw and said of the shown items: rows float32 [shown, F] (or nothing), scores [shown]."""
    if made.rank is None:
        return [], [None] * len(made.items)
    place = {item: at for at, item in enumerate(made.rank.item_ids)}
    at = [place.get(p.item_id, -1) for p in made.items]
    scores = [made.rank.scores[i] if 0 <= i < len(made.rank.scores) else None for i in at]
    if not made.rank.features_base64:
        return [], scores
    try:
        rows = features_of({"rank": {"features_base64": made.rank.features_base64, "item_ids": made.rank.item_ids}})
    except (binascii.Error, zlib.error, ValueError) as error:
        raise EventRejected(f"not_a_decision: features_base64: {error}") from None
    padded = np.vstack([rows, np.full((1, rows.shape[1]), np.nan, np.float32)])  # [-1]: a rule put it in unranked
    return np.ascontiguousarray(padded[at]), scores


def _of_shadow(record: Record) -> list[Row]:
    found = _json(record)
    request = found.get("request_id")
    if not isinstance(request, str) or not events.is_id(request):
        raise EventRejected(f"not_a_shadow_record: request_id {str(request)[:64]!r} is not an id")
    versions = _texts(found.get("model_versions"))
    return [{
        "request_id": request, "event_ms": _millis(found, record, "event_time", "now_ms"),
        "user_id": _text(found.get("user_id")), "rollout": _text(found.get("rollout")),
        "ranker_version": versions.get("ranker", ""), "model_versions": versions,
        "champion_versions": _texts(found.get("champion_versions")), "k": _small(_number(found.get("k"))),
        "items": _list(found.get("items"), str), "scores": _list(found.get("scores"), float),
        "champion_items": _list(found.get("champion_items"), str), "total_ms": _number(found.get("total_ms")),
        "champion_total_ms": _number(found.get("champion_total_ms")), "degraded": _list(found.get("degraded"), str),
        "overlap_at_k": _maybe(found.get("overlap_at_k")), "top1_same": _flag(found.get("top1_same")),
        "error": _text(found.get("error")), "payload": (record.value or b"").decode(),
    }]


def _of_drift(record: Record) -> list[Row]:
    found = _json(record)
    features = found.get("features")
    features = [f for f in features if isinstance(f, Mapping)] if isinstance(features, list) else []
    window = found.get("window")
    window = window if isinstance(window, Mapping) else {"text": window}
    return [{
        "id": _text(found.get("id")), "event_ms": _millis(found, record, "at_ms"), "model": _text(found.get("model")),
        "window_text": _text(found.get("window_text") or window.get("text")),
        "since_ms": int(_number(window.get("since_ms"))), "until_ms": int(_number(window.get("until_ms"))),
        "baseline": _text(found.get("baseline")), "verdict": _text(found.get("verdict")),
        "breakage": int(bool(found.get("breakage"))), "kinds": _texts(found.get("kinds")),
        "reasons": _list(found.get("reasons"), str), "requests": max(0, int(_number(found.get("requests")))),
        "feature_names": [_text(f.get("name")) for f in features],
        "feature_levels": [_text(f.get("level")) for f in features],
        **{name: [_maybe(f.get(name)) for f in features] for name in ("psi", "ks", "wasserstein", "js", "null_share")},
        "payload": (record.value or b"").decode(),
    }]


def _of_rollout(record: Record) -> list[Row]:
    found = _json(record)
    shares = found.get("shares")
    shares = shares if isinstance(shares, Mapping) else {}
    return [{
        "id": _text(found.get("id")), "event_ms": _millis(found, record, "at_ms"), "model": _text(found.get("model")),
        "seq": int(_number(found.get("seq"))), "epoch": int(_number(found.get("epoch"))),
        "rollout": _text(found.get("rollout")), "from_state": _text(found.get("from")),
        "to_state": _text(found.get("to")), "trigger": _text(found.get("trigger")),
        "reason": _text(found.get("reason")), "actor": _text(found.get("actor")),
        **{role: _texts(found.get(role)) for role in ("champion", "challenger", "previous")},
        "canary_percent": _number(shares.get("canary")), "shadow": int(bool(found.get("shadow"))),
        "payload": (record.value or b"").decode(),
    }]


def _json(record: Record) -> dict[str, Any]:
    try:
        return _object.decode(record.value or b"")
    except _ERRORS as error:
        raise EventRejected(f"not_a_json_object: {error}") from None


def _millis(found: Mapping[str, Any], record: Record, *names: str) -> int:
    """The first of these times that is one, else the record's arrival."""
    given = (found.get(name) for name in names)
    return next((t for t in given if type(t) is int and _FIRST_MS <= t <= _LAST_MS), record.timestamp_ms)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else json.dumps(value)


def _texts(value: Any) -> dict[str, str]:
    return {str(k): _text(v) for k, v in value.items()} if isinstance(value, Mapping) else {}


def _list(value: Any, kind: type[str] | type[float]) -> Sequence[Any]:
    if not isinstance(value, list):
        return []
    return [_text(v) for v in value] if kind is str else [_maybe(v) for v in value]


def _maybe(value: Any) -> float | None:
    return float(value) if isinstance(value, (bool, int, float)) else None


def _flag(value: Any) -> int | None:
    return int(value) if isinstance(value, bool) else None


def _number(value: Any) -> float:
    return value if isinstance(value, (int, float)) and abs(value) < 2**62 else 0.0


def _small(value: float) -> int:
    """Into what a column of 16 bits holds."""
    return min(max(int(value), 0), 65_535)


READERS: Final[Mapping[str, tuple[str, Callable[[Record], list[Row]]]]] = {
    events.DECISIONS: ("decisions", _of_decision),
    events.ProductsShown.topic: ("impressions", _event(_impression)),
    events.ProductClicked.topic: ("clicks", _event(_click)),
    events.ProductAddedToCart.topic: ("carts", _event(_cart)),
    events.OrderPlaced.topic: ("orders", _event(_order)),
    events.PaymentMade.topic: ("payments", _event(_payment)),
    events.SHADOW: ("shadow", _of_shadow),
    events.DRIFT_REPORTS: ("drift_reports", _of_drift),
    events.ROLLOUTS: ("rollouts", _of_rollout),
}
