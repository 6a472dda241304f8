"""Why an answer was what it was, as plain data: what was made again, each product's way, and what lifted or lowered it.

`make why` prints it, `GET /v1/decisions/{id}` returns it, the console and the shop draw it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from adapters.archived_models import ArchivedModels, Shelves
from adapters.decision_log import Record
from adapters.errors import MinimartError
from adapters.replay import Check, Replay, replay
from feature_repo import words

TOP: Final = 6  # features told of each product
_SAYS: Final = {
    "same": "made again, the same", "close": "made again, the same but for rounding",
    "different": "made again, and different", "cannot": "could not be made again in full",
}  # fmt: skip
Title = Callable[[str], str]
Row = NDArray[np.float32]


class Explainer:
    """Explains records with the models under `published` and its archive, loaded on demand; one record at a time."""

    def __init__(self, published: Path) -> None:
        self._shelves, self._lock = Shelves(published), threading.Lock()

    def explain(self, record: Record, title: Title = str, also: Sequence[str] = ()) -> dict[str, Any]:
        """JSON values: the checks, and the way of every shown product and of `also`. Takes 0.1 to 1 s of one core."""
        try:
            with self._lock:
                models = self._shelves.of(record)
                again = replay(record, models)
            return _explained(record, models, again, title, also)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            return {"outcome": "cannot", "says": f"the record is not of a known shape: {error!r}", "checks": [],
                    "answered_by": "", "models": [], "items": [], "dropped": []}  # fmt: skip

    def check(self, record: Record) -> Replay:
        """The checks alone."""
        with self._lock:
            return replay(record, self._shelves.of(record))


def _explained(
    record: Record, models: ArchivedModels, again: Replay, title: Title, also: Sequence[str]
) -> dict[str, Any]:
    shown = [item["item_id"] for item in record["items"]]
    items = [*shown, *(item for item in also if item not in shown)]
    try:
        added = _added(record, models, again, items)
    except (MinimartError, ValueError, KeyError) as error:
        added = {}
        again = replace(again, checks=(*again.checks, Check("what features added", "cannot", detail=str(error))))
    return {
        "outcome": again.outcome,
        "says": _SAYS[again.outcome],
        "checks": [_check(check) for check in again.checks],
        "answered_by": _answered_by(record),
        "models": _models(record, models),
        "items": [_item(record, again, item, title, added.get(item)) for item in items],
        "dropped": [
            {**drop, "title": title(drop["item_id"]), "words": words.rule(drop["rule"])}
            for drop in record.get("dropped") or ()
        ],
    }


def _check(check: Any) -> dict[str, Any]:
    return {"name": check.name, "outcome": check.outcome, "compared": check.compared, "detail": check.detail}


def _answered_by(record: Record) -> str:
    """Which models answered, in one sentence."""
    arm, rollout = record.get("arm"), record.get("rollout")
    if arm in (None, "champion") and not rollout:
        return "The champion's models answered; no rollout was under way."
    who = {
        "canary": "the challenger's models answered, because the shopper is in the canary's share",
        "control": "the champion's models answered, and the shopper is in the control group",
    }.get(str(arm), "the champion's models answered, outside canary and control")
    return f"During rollout {rollout} {who}."


def _models(record: Record, models: ArchivedModels) -> list[dict[str, Any]]:
    manifests = record.get("manifests") or {}
    return [
        {
            "name": name, "version": version, "manifest_sha256": manifests.get(name),
            "found": name in models.bundles or name == "features", "problem": models.problems.get(name, ""),
        }
        for name, version in record["model_versions"].items()
    ]  # fmt: skip


def _added(
    record: Record, models: ArchivedModels, again: Replay, items: Sequence[str]
) -> dict[str, tuple[Row, NDArray[np.float64]]]:
    """Of each of `items` that was ranked: its features [F], and what each added to its score [F]."""
    ranked = (record.get("rank") or {}).get("item_ids", [])
    known = [item for item in items if item in ranked]
    if again.rows is None or not known:
        return {}
    rows = again.rows[[ranked.index(item) for item in known]]
    return dict(zip(known, zip(rows, models.ranker.of(rows).by_feature, strict=True), strict=True))


def _item(
    record: Record, again: Replay, item_id: str, title: Title, added: tuple[Row, NDArray[np.float64]] | None
) -> dict[str, Any]:
    shown: Mapping[str, Any] = next((i for i in record["items"] if i["item_id"] == item_id), {})
    placed: Mapping[str, Any] = next((r for r in record["rerank"] if r["item_id"] == item_id), {})
    sources = _sources(record, item_id) or list(shown.get("sources", ()))
    places, features = _places(record, again, item_id), [] if added is None else _features(again.names, *added)
    moves = _moves(record, again, item_id)
    found = {
        "item_id": item_id, "title": title(item_id), "position": shown.get("position"), "score": shown.get("score"),
        "sources": [{"name": s, "title": words.source(s)[0], "words": words.source(s)[1]} for s in sources],
        "places": places, "moves": moves, "moved_by": list(placed.get("moved_by", ())), "features": features,
    }  # fmt: skip
    return found | {"words": _sentences(record, found)}


def _sources(record: Record, item_id: str) -> list[str]:
    candidates = record["candidates"]
    if item_id not in candidates["item_ids"]:
        return []
    mask = candidates["sources"][candidates["item_ids"].index(item_id)]
    return [name for bit, name in enumerate(candidates["source_names"]) if mask >> bit & 1]


def _places(record: Record, again: Replay, item_id: str) -> list[dict[str, Any]]:
    """Its place after each stage, 1-based, with how many were in the running; None where it was out of it."""
    found = [_place("found", record["candidates"]["item_ids"], item_id)]
    for stage in ("prerank", "rank"):
        if kept := record.get(stage):
            order = np.argsort(-np.asarray(kept["scores"], np.float64), kind="stable")
            found.append(_place(stage, [kept["item_ids"][i] for i in order], item_id))
    return found + [_place(rule, order, item_id) for rule, order in again.after.items()]


def _place(stage: str, order: Sequence[str], item_id: str) -> dict[str, Any]:
    place = order.index(item_id) + 1 if item_id in order else None
    return {"stage": stage, "place": place, "among": len(order)}


def _moves(record: Record, again: Replay, item_id: str) -> list[dict[str, Any]]:
    """What each rule did to its place; rules that only made room for others are left out unless they are named."""
    named: list[str] = next((r["moved_by"] for r in record["rerank"] if r["item_id"] == item_id), [])
    gone = {d["item_id"]: d["rule"] for d in record.get("dropped") or ()}
    before, out = (record.get("rules") or {}).get("item_ids", []), []
    for rule, order in again.after.items():
        was, now = (_place(rule, o, item_id)["place"] for o in (before, order))
        if was != now and (rule in named or gone.get(item_id) == rule):
            out.append({"rule": rule, "from": was, "to": now, "words": words.rule(rule)})
        before = order
    known = {move["rule"] for move in out}
    out += [{"rule": r, "from": None, "to": None, "words": words.rule(r)} for r in named if r not in known]
    return out


def _features(names: Sequence[str], row: Row, added: NDArray[np.float64]) -> list[dict[str, Any]]:
    """The features that moved a ranking score most, with what each added against the average row of training."""
    return [
        {
            "name": name, "words": words.feature(name), "value": _number(row[i]),
            "value_words": words.value(name, float(row[i])), "contribution": round(float(added[i]), 6),
        }
        for i in np.argsort(-np.abs(added), kind="stable")[:TOP] if added[i] and (name := names[i])
    ]  # fmt: skip


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _sentences(record: Record, item: Mapping[str, Any]) -> list[str]:
    if item["position"] is None:
        said = ["It was not shown."]
    else:
        said = [f"Shown at place {item['position']} of {len(record['items'])}."]
    if item["sources"]:
        found = [f"{source['title'].lower()} ({source['words']})" for source in item["sources"]]
        said.append(f"Found by: {'; '.join(found)}.")
    names = {"found": "the sources together", "prerank": "the pre-ranker", "rank": "the ranker"}
    way = [
        f"{names[p['stage']]} put it at {p['place']} of {p['among']}"
        for p in item["places"] if p["stage"] in names and p["place"]
    ]  # fmt: skip
    if way:
        said.append(f"{', '.join(way)}.".capitalize())
    said += [_move(move) for move in item["moves"]] or ["No rule moved it."]
    for sign, verb in ((1, "Lifted most by"), (-1, "Lowered most by")):
        named = [
            f"{f['words']}: {f['value_words']} ({f['contribution']:+.3f})"
            for f in item["features"] if f["contribution"] * sign > 0
        ][:3]  # fmt: skip
        if named:
            said.append(f"{verb} {'; '.join(named)}.")
    return said


def _move(move: Mapping[str, Any]) -> str:
    way = f" from place {move['from']} to {move['to']}" if move["from"] and move["to"] else ""
    return f"Rule {move['rule']}{way}: {move['words']}."
