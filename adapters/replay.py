"""A recorded decision, made again: the archived models score the recorded rows, the rules are applied in order.

Every step is compared with what the record says. Nothing is assumed to be equal: a step that cannot be made again (an
older record, models that are gone, a stage that was left out) says so. Knows no network and no clock.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from adapters.archived_models import ArchivedModels
from adapters.decision_log import Record, features_of
from adapters.errors import MinimartError
from models.ranking_features import DEVICES, USER
from models.rerank import Context, Slate, Stock, rerank, rule_of
from models.retrieval import SIZES

Outcome = Literal["same", "close", "different", "cannot"]
"""`close`: floats that differ by rounding alone, e.g. because the server ran several requests as one batch."""
ROUNDING: Final = 1e-5
Rows = NDArray[np.float32]


@dataclass(frozen=True)
class Check:
    """One step made again. `compared` counts the values; `detail` shows the difference, or why it cannot be made."""

    name: str
    outcome: Outcome
    compared: int = 0
    detail: str = ""


@dataclass(frozen=True)
class Replay:
    """`rows` are those of `rank.item_ids`; `after`: rule -> item ids in order after it."""

    checks: tuple[Check, ...]
    names: tuple[str, ...] = ()
    rows: Rows | None = None
    after: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def outcome(self) -> Outcome:
        """The worst of the checks: different, cannot, close, same."""
        order: tuple[Outcome, ...] = ("different", "cannot", "close")
        return next((o for o in order if any(c.outcome == o for c in self.checks)), "same")


def replay(record: Record, models: ArchivedModels) -> Replay:
    """Make the decision again. Raises nothing that a record or a bundle could cause: it becomes a check's outcome."""
    checks = [_model_files(record, models)]
    names, rows, found = _columns(record, models)
    checks.append(found)
    checks.append(_guarded("shopper's embedding", lambda: _embedding(record, models)))
    checks.append(_guarded("features made again", lambda: _features_again(record, models, names, rows)))
    checks.append(_guarded("pre-ranker's scores", lambda: _scores(record, models, "preranker", "prerank", rows)))
    checks.append(_guarded("cut after pre-ranking", lambda: _cut(record)))
    checks.append(_guarded("ranker's scores", lambda: _scores(record, models, "ranker", "rank", rows)))
    after: dict[str, Sequence[str]] = {}
    checks.append(_guarded("rules, in order", lambda: _rules(record, models, after)))
    return Replay(tuple(checks), names, rows, after)


def _guarded(name: str, step: Callable[[], Check]) -> Check:
    try:
        return step()
    except _Cannot as why:
        return Check(name, "cannot", detail=str(why))
    except (MinimartError, LookupError, ValueError, TypeError, RuntimeError) as error:
        return Check(name, "cannot", detail=f"{type(error).__name__}: {error}")


class _Cannot(Exception):
    """A step that cannot be made again, and why."""


def _model_files(record: Record, models: ArchivedModels) -> Check:
    recorded = record.get("manifests") or {}
    wrong = "; ".join(models.problems.values())
    if wrong:
        torn = any("digest" in problem for problem in models.problems.values())
        return Check("model files", "different" if torn else "cannot", len(models.bundles), wrong)
    files = sum(len(bundle.manifest.files) for bundle in models.bundles.values())
    how = "by the digests in the record" if recorded else "by version: the record is older than digests in records"
    return Check("model files", "same", files, f"{len(models.bundles)} bundles, every file verified {how}")


def _columns(record: Record, models: ArchivedModels) -> tuple[tuple[str, ...], Rows | None, Check]:
    """The rows that the ranker saw, and the names of their columns by the ranker's own list."""
    title = "feature rows"
    if not record.get("rank"):
        return (), None, Check(title, "cannot", detail=f"the ranker was left out: {_left_out(record)}")
    try:
        rows, names = features_of(record), models.features_of("ranker")
    except (MinimartError, LookupError, ValueError) as error:
        return (), None, Check(title, "cannot", detail=f"{type(error).__name__}: {error}")
    sha = hashlib.sha256("\n".join(names).encode()).hexdigest()
    if sha != record["rank"]["feature_names_sha"] or rows.shape[1] != len(names):
        return (), None, Check(title, "different", rows.size, "the record's columns are not the ranker's feature list")
    return names, rows, Check(title, "same", rows.size, f"{rows.shape[0]} rows of {rows.shape[1]} recorded features")


def _embedding(record: Record, models: ArchivedModels) -> Check:
    query = _query(record)
    again = models.embed(record["user_id"], tuple(record["recent_items"]))
    return _compared("shopper's embedding", query, again)


def _features_again(record: Record, models: ArchivedModels, names: Sequence[str], rows: Rows | None) -> Check:
    """The columns that the record's own inputs and the models determine; the others are as the store gave them."""
    if rows is None:
        raise _Cannot(f"the ranker was left out: {_left_out(record)}")
    found, wrong = 0, []
    for name, column in _rebuilt(record, models):
        if name in names:
            found += 1
            kept = rows[:, names.index(name)]
            if not _same_bytes(kept, np.broadcast_to(np.asarray(column, np.float32), kept.shape)):
                wrong.append(f"{name} by up to {_apart(kept, column):.2g}")
    detail = f"{found} of {len(names)} columns; the others are as the online store gave them"
    if wrong:
        return Check("features made again", "different", found * len(rows), f"{', '.join(wrong)} ({detail})")
    return Check("features made again", "same", found * len(rows), detail)


def _rebuilt(record: Record, models: ArchivedModels) -> Iterator[tuple[str, Any]]:
    ids = record["rank"]["item_ids"]
    user = record["user_features"]
    for name in USER:
        value = user.get(name)
        yield name, math.nan if value is None else value
    at = datetime.fromtimestamp(record["now_ms"] / 1000, UTC)
    angle = 2 * np.pi * (at.hour + at.minute / 60) / 24.0
    yield "hour_sin", float(np.sin(angle))
    yield "hour_cos", float(np.cos(angle))
    yield "weekday", float(at.weekday())
    device = record["device"]
    yield "device", float(DEVICES.index(device)) if device in DEVICES else math.nan
    masks = dict(zip(record["candidates"]["item_ids"], record["candidates"]["sources"], strict=True))
    for bit, source in enumerate(record["candidates"]["source_names"]):
        yield f"from_{source}", np.array([masks[item] >> bit & 1 for item in ids], np.float64)
    yield "popularity_score", np.array([models.popularity.get(item, 0.0) for item in ids])
    yield from _by_models(record, models, ids)


def _by_models(record: Record, models: ArchivedModels, ids: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Scores and places that two-tower and co-occurrence gave, over the whole pool as when it was scored."""
    pool = record["candidates"]["item_ids"]
    known = [item for item in pool if item in models.row_of]
    query = _query(record)
    cosines = models.index.vectors(np.array([models.row_of[item] for item in known], np.int64)) @ query
    cosine_of = dict(zip(known, cosines.tolist(), strict=True))
    yield "two_tower_score", np.array([cosine_of.get(item, math.nan) for item in ids])
    items, sources = list(models.row_of), record["candidates"]["source_names"]
    masks = dict(zip(pool, record["candidates"]["sources"], strict=True))
    _, near = models.index.search(query[None, :], SIZES["two_tower"])
    beyond = len(items)  # an item that the index does not hold takes its place in the order and has no neighbours
    recent = np.array([models.row_of.get(item, beyond) for item in record["recent_items"]], np.int64)
    votes, _ = models.cooccurrence.retrieve(recent, SIZES["cooccurrence"])
    rows = np.array([models.row_of.get(item, -1) for item in ids], np.int64)
    for name, votes_for in models.cooccurrence.features(recent, rows).items():
        yield name, np.where(rows >= 0, votes_for, 0.0)
    for name, found in (("two_tower", near[0]), ("cooccurrence", votes if len(recent) else votes[:0])):
        place = {items[row]: float(i) for i, row in enumerate(found.tolist(), start=1) if row >= 0}
        if name in sources and any(mask >> sources.index(name) & 1 for mask in masks.values()):
            yield f"{name}_rank", np.array([place.get(item, math.nan) for item in ids])


def _scores(record: Record, models: ArchivedModels, model: str, stage: str, rows: Rows | None) -> Check:
    name = f"{'pre-ranker' if model == 'preranker' else model}'s scores"
    kept = record.get(stage)
    if not kept or rows is None:
        raise _Cannot(f"the stage was left out: {_left_out(record)}")
    score_of = dict(zip(kept["item_ids"], kept["scores"], strict=True))
    recorded = np.array([score_of[item] for item in record["rank"]["item_ids"]], np.float32)
    return _compared(name, recorded, models.score(model, rows))


def _cut(record: Record) -> Check:
    """The ranked products are the best of the pre-ranked ones, in their order."""
    if not record.get("rank"):
        raise _Cannot(f"the ranker was left out: {_left_out(record)}")
    ranked = record["rank"]["item_ids"]
    before = record.get("prerank")
    if before:
        order = np.argsort(-np.asarray(before["scores"], np.float64), kind="stable")[: len(ranked)]
        best = [before["item_ids"][i] for i in order]
    else:
        best = record["candidates"]["item_ids"][: len(ranked)]
    moved = sum(a != b for a, b in zip(best, ranked, strict=True))
    detail = f"{moved} of {len(ranked)} places differ" if moved else "the best by the pre-ranker, in its order"
    return Check("cut after pre-ranking", "different" if moved else "same", len(ranked), detail)


def _rules(record: Record, models: ArchivedModels, after: dict[str, Sequence[str]]) -> Check:
    """Apply the recorded rules to the recorded slate; `after` is filled. The end must be the answer."""
    given = record.get("rules")
    if given is None:
        raise _Cannot("the record is older than the rules' inputs in records")
    ids = given["item_ids"]
    rules = [rule_of(rule) for rule in given["applied"]]
    by_rule = {d["item_id"]: d["rule"] for d in record["dropped"]}
    out = {item for item, rule in by_rule.items() if rule in {one.name for one in rules}}
    late = by_rule.keys() - out
    place = {item: i for i, item in enumerate(ids)}
    context = Context(
        k=int(record["k"]),
        new=np.isin(ids, given["new"]),
        promoted=np.isin(ids, given["promoted"]),
        adult=np.isin(ids, given.get("adult", [])),
        of_age=bool(record.get("of_age")),
        category=np.array(given.get("categories", [-1] * len(ids)), np.int64),
        liked=np.array(given.get("liked", []), np.int64),
        recent=np.array([place[item] for item in record["recent_items"] if item in place], np.int64),
        in_stock=lambda rows: np.array([by_rule.get(ids[row]) != Stock.name for row in rows.tolist()], bool),
        embeddings=lambda wanted: _vectors([ids[row] for row in wanted.tolist()], record, models),
    )
    order, scores = _slate(record, ids)
    if not np.array_equal(order, np.arange(len(ids))):
        return Check("rules, in order", "different", len(ids), "the slate is not in the order of the last scores")
    result = rerank(Slate(order, scores), context, rules)
    for rule, slate in zip(rules, result.after, strict=True):
        after[rule.name] = [ids[row] for row in slate.rows.tolist()]
    again = [ids[row] for row in result.slate.rows.tolist() if ids[row] not in late][: context.k]
    shown = [r["item_id"] for r in record["rerank"] if "fill" not in r["moved_by"]]
    dropped = {ids[row] for row, _ in result.dropped}
    moved = [f"place {i}: {a} was {b}" for i, (a, b) in enumerate(zip(again, shown, strict=False), start=1) if a != b]
    if moved or len(again) != len(shown) or dropped != out:
        detail = "; ".join(moved[:3]) or f"{len(again)} products instead of {len(shown)}"
        return Check("rules, in order", "different", len(shown), detail)
    names = ", ".join(rule.name for rule in rules) or "none was applied"
    return Check("rules, in order", "same", len(shown), f"{names}: the answer's products in the answer's order")


def _slate(record: Record, ids: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Rows of the slate in the order of the last stage that scored, and its scores."""
    last = record.get("rank") or record.get("prerank")
    if last is None:
        return np.arange(len(ids)), np.zeros(len(ids))
    score_of = dict(zip(last["item_ids"], last["scores"], strict=True))
    given = [item for item in last["item_ids"] if item in set(ids)]
    order = np.argsort(-np.array([score_of[item] for item in given], np.float64), kind="stable")
    place = {item: i for i, item in enumerate(ids)}
    rows = np.array([place[given[i]] for i in order], np.int64)
    return rows, np.array([score_of[given[i]] for i in order], np.float64)


def _vectors(items: Sequence[str], record: Record, models: ArchivedModels) -> Rows | None:
    if "index" not in models.bundles:
        if "index" in record["model_versions"]:
            raise _Cannot(models.problems.get("index", "the index is gone"))
        return None
    recorded, found = record["rules"]["vectors"], np.zeros((len(items), models.index.dim), np.float32)
    old = [i for i, item in enumerate(items) if item in models.row_of]
    found[old] = models.index.vectors(np.array([models.row_of[items[i]] for i in old], np.int64))
    for i, item in enumerate(items):
        if item in recorded:
            found[i] = _floats(recorded[item])
    return found


def _query(record: Record) -> Rows:
    if not record.get("query"):
        raise _Cannot("the record holds no embedding of the shopper: it is older, or retrieval went without the model")
    return _floats(record["query"])


def _floats(text: str) -> Rows:
    return np.frombuffer(base64.b64decode(text), "<f4").astype(np.float32)


def _compared(name: str, kept: Rows, again: Rows) -> Check:
    if kept.shape != again.shape:
        return Check(name, "different", kept.size, f"shape {again.shape} instead of {kept.shape}")
    if _same_bytes(kept, again):
        return Check(name, "same", kept.size, "byte for byte")
    apart = _apart(kept, again)
    count = int(np.sum(kept != again))
    outcome: Outcome = "close" if apart <= ROUNDING else "different"
    return Check(name, outcome, kept.size, f"{count} of {kept.size} differ, by up to {apart:.2g}")


def _same_bytes(a: NDArray[Any], b: NDArray[Any]) -> bool:
    """Equal bytes of float32; two NaN are equal whatever their bits."""
    return bool(np.all((a.view(np.uint32) == b.view(np.uint32)) | (np.isnan(a) & np.isnan(b))))


def _apart(kept: NDArray[Any], again: Any) -> float:
    apart = np.abs(kept - np.asarray(again, np.float32))
    return float(np.nanmax(apart)) if np.isfinite(apart).any() else math.inf


def _left_out(record: Record) -> str:
    return ", ".join(record["degraded"]) or "the record holds no scores of it"
