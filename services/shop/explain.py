"""Why this product: one product's way through the funnel, read from a decision record. Pure."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from adapters.decision_log import features_of
from models.ranking_features import FEATURES, FEATURES_SHA
from services.shop import words

WORTH: Final = (
    "two_tower_score",
    "cooccurrence_score",
    "cooccurrence_steady_score",
    "popularity_score",
    "uc_clicks_count_24h",
    "uc_clicks_count_7d",
    "category_affinity_7d",
    "user_clicks_count_1h",
    "user_clicks_count_24h",
    "item_clicks_count_24h",
    "item_orders_count_7d",
    "item_ctr_24h",
    "item_momentum",
    "price_ratio_7d",
)
"""Features worth a look, most telling first; at most SHOWN of those that have a value are shown."""
SHOWN: Final = 9


@dataclass(frozen=True)
class Stage:
    """Where the product stood after one stage. `place` is 1-based among `among` products."""

    name: str
    place: int | None
    among: int
    score: float | None

    @property
    def share(self) -> float:
        """Length of its bar, 0 to 1: 1 is the first place."""
        return 0.0 if not self.place or not self.among else 1 - (self.place - 1) / self.among


@dataclass(frozen=True)
class Why:
    item_id: str
    position: int | None
    sources: tuple[str, ...] = ()
    stages: tuple[Stage, ...] = ()
    moved_by: tuple[str, ...] = ()
    features: tuple[tuple[str, str], ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    known: bool = True


def why(decision: Mapping[str, Any], item_id: str) -> Why:
    """The product's way through the decision; `known` is False where the decision never considered it."""
    candidates = decision.get("candidates") or {}
    ids = list(candidates.get("item_ids", ()))
    moved = next((dict(r) for r in decision.get("rerank") or () if r.get("item_id") == item_id), {})
    shown = next((dict(i) for i in decision.get("items") or () if i.get("item_id") == item_id), {})
    if item_id not in ids and not shown:
        return Why(item_id, None, known=False)
    stages = [
        stage
        for name, label in (("prerank", "Pre-rank"), ("rank", "Rank"))
        if (stage := _stage(label, decision.get(name) or {}, item_id)) is not None
    ]
    position = shown.get("position", moved.get("position"))
    if position is not None:
        among = len(decision.get("items") or ())
        stages.append(Stage("Re-rank", int(position), among, _float(moved.get("score", shown.get("score")))))
    return Why(
        item_id=item_id,
        position=position,
        sources=_sources(candidates, ids, item_id) or tuple(shown.get("sources", ())),
        stages=tuple(stages),
        moved_by=tuple(moved.get("moved_by") or ()),
        features=_features(decision, item_id),
        versions=decision.get("model_versions") or {},
    )


def _sources(candidates: Mapping[str, Any], ids: Sequence[str], item_id: str) -> tuple[str, ...]:
    names = candidates.get("source_names") or ()
    masks = candidates.get("sources") or ()
    if item_id not in ids or len(masks) != len(ids):
        return ()
    mask = int(masks[ids.index(item_id)])
    return tuple(name for bit, name in enumerate(names) if mask >> bit & 1)


def _stage(label: str, record: Mapping[str, Any], item_id: str) -> Stage | None:
    ids, scores = list(record.get("item_ids") or ()), list(record.get("scores") or ())
    if item_id not in ids or len(scores) != len(ids):
        return None
    score = scores[ids.index(item_id)]
    return Stage(label, 1 + sum(s > score for s in scores), len(ids), _float(score))


def _features(decision: Mapping[str, Any], item_id: str) -> tuple[tuple[str, str], ...]:
    """The values that the ranker saw; empty where it did not rank the item, or by other features.

    Where the recommender explained the decision: those that moved the score most, and which way.
    """
    explained = next((i for i in (decision.get("why") or {}).get("items", ()) if i["item_id"] == item_id), None)
    if explained and explained["features"]:
        return tuple(
            (f["words"], f"{f['value_words']}, {'lifted' if f['contribution'] > 0 else 'lowered'} it")
            for f in explained["features"]
        )
    record = decision.get("rank") or {}
    ids = list(record.get("item_ids") or ())
    if item_id not in ids or record.get("feature_names_sha") != FEATURES_SHA:
        return ()
    try:
        rows = features_of(decision)
    except (KeyError, ValueError, zlib.error):
        return ()
    if rows.shape != (len(ids), len(FEATURES)):
        return ()
    row = dict(zip(FEATURES, rows[ids.index(item_id)].tolist(), strict=True))
    seen = [(words.feature(n), words.number(row[n])) for n in WORTH if n in row and np.isfinite(row[n])]
    return tuple(seen[:SHOWN])


def _float(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None
