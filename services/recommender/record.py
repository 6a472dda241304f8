"""A decision as the record that goes to `decisions.recommendation`: what explains it and trains the next models."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

from adapters.decision_log import pack_features
from models.ranking_features import FEATURES_SHA
from services.recommender.terms import Decision, Placed, Pool


def to_record(decision: Decision) -> dict[str, Any]:
    """JSON values and arrays. `candidates.sources` is a bit mask over `candidates.source_names`."""
    ask = decision.ask
    return {
        "request_id": ask.request_id,
        "event_time": ask.now_ms,
        "now_ms": ask.now_ms,
        "user_id": ask.user_id,
        "surface": ask.surface,
        "device": ask.device,
        "country": ask.country,
        "of_age": ask.of_age,
        "arm": decision.arm,
        "rollout": decision.rollout,
        "k": ask.k,
        "model_versions": dict(decision.model_versions),
        "manifests": dict(decision.manifests),
        "timings_ms": dict(decision.timings_ms),
        "degraded": list(decision.degraded),
        "cached_ms": decision.cached_ms,
        "made_for": decision.made_for,
        "cold_start": decision.cold_start,
        "user_features": {name: _finite(value) for name, value in decision.shopper.features.items()},
        "recent_items": list(decision.shopper.recent),
        "items_at_ms": decision.items_at_ms,
        "query": None if decision.embedding is None else _packed(decision.embedding),
        "candidates": _candidates(decision),
        "prerank": _stage(decision, "preranked"),
        "rank": _ranked(decision),
        "rerank": [
            {"item_id": p.item_id, "position": p.position, "score": p.score, "moved_by": list(p.moved_by)}
            for p in decision.placed
        ],
        "dropped": [{"item_id": item_id, "rule": rule} for item_id, rule in decision.dropped],
        "rules": _rules(decision),
        "items": [placed(p) for p in decision.placed],
    }


def placed(item: Placed) -> dict[str, Any]:
    """One product of the answer, as clients get it."""
    return {
        "item_id": item.item_id, "score": item.score, "sources": list(item.sources), "position": item.position,
        "new": item.new,
    }


def _candidates(decision: Decision) -> dict[str, Any]:
    pool: Pool = decision.pool
    mask = np.zeros(len(pool.rows), np.int64)
    for bit, rank in enumerate(pool.ranks.values()):
        mask += np.where(np.isnan(rank), 0, 1 << bit)
    return {
        "item_ids": decision.ids[pool.rows].tolist(),
        "sources": mask,
        "source_names": list(pool.ranks),
        "fused": pool.fused.round(6),
    }


def _stage(decision: Decision, name: str) -> dict[str, Any] | None:
    scored = getattr(decision, name)
    if scored is None:
        return None
    rows, scores = scored
    return {"item_ids": decision.ids[rows].tolist(), "scores": scores.astype(np.float32)}


def _ranked(decision: Decision) -> dict[str, Any] | None:
    stage = _stage(decision, "ranked")
    if stage is None or decision.features is None:
        return None
    return {**stage, "features_base64": pack_features(decision.features), "feature_names_sha": FEATURES_SHA}


def _rules(decision: Decision) -> dict[str, Any]:
    """What the rules were given, best first: enough to apply them again. Vectors: base64 of little-endian float32."""
    looked, ids = decision.looked, decision.ids
    return {
        "applied": [dict(rule) for rule in looked.rules],
        "item_ids": ids[looked.rows].tolist(),
        "new": ids[looked.new].tolist(),
        "promoted": ids[looked.promoted].tolist(),
        "adult": ids[looked.adult].tolist(),
        "categories": looked.categories.tolist(),
        "liked": looked.liked.tolist(),
        "vectors": {str(ids[row]): _packed(vector) for row, vector in looked.vectors.items()},
    }


def _packed(vector: np.ndarray[Any, Any]) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
