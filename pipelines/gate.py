"""The gate before publishing: schema, parity, index recall and quality; its findings go into every manifest."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models import onnx_export
from models.ranking_features import FEATURES
from pipelines.build_index import LEAST_RECALL
from pipelines.stages import Context, Stage

MOST_DIFFERENCE = 1e-4


@dataclass(frozen=True)
class Check:
    """One condition: what was asked, what was found."""

    name: str
    passed: bool
    found: str


def checks(context: Context, stage: Stage) -> list[Check]:
    """All checks on the stage's artifacts. A file that is missing or unreadable is a failed check, not an error."""
    found = []
    for name, check in (
        ("two-tower", _two_tower), ("index", _index), ("preranker", _trees), ("ranker", _trees), ("quality", _quality),
    ):  # fmt: skip
        try:
            found += check(context, stage, name)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            found.append(Check(f"{name} readable", False, f"{type(error).__name__}: {error}"))
    return found


def _report(stage: Stage, path: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(stage.path(path).read_text())
    return loaded


def _parity(name: str, report: dict[str, Any]) -> Check:
    return Check(f"{name} parity", report["parity"] <= MOST_DIFFERENCE, f"{report['parity']:.1e} <= {MOST_DIFFERENCE}")


def _answers(name: str, graph: bytes, inputs: dict[str, NDArray[Any]], shape: tuple[int, ...]) -> Check:
    out = onnx_export.run(graph, inputs)
    good = out.shape == shape and bool(np.isfinite(out).all())
    return Check(f"{name} answers", good, f"shape {out.shape}, finite {bool(np.isfinite(out).all())}")


def _two_tower(context: Context, stage: Stage, name: str) -> list[Check]:
    report = _report(stage, "two_tower/report.json")
    dim, recent = report["config"]["dim"], report["config"]["recent"]
    two = np.zeros(2, dtype=np.int64)
    shopper = {"user_index": two, "recent_items": np.zeros((2, recent), dtype=np.int64)}
    price = np.array([np.nan, 8.0], dtype=np.float32)
    item: dict[str, NDArray[Any]] = {"item_index": two, "category_index": two, "log_price": price}
    return [
        _parity(name, report),
        _answers("shopper tower", stage.path("two_tower/user_encoder.onnx").read_bytes(), shopper, (2, dim)),
        _answers("item tower", stage.path("two_tower/item_encoder.onnx").read_bytes(), item, (2, dim)),
    ]


def _index(context: Context, stage: Stage, name: str) -> list[Check]:
    recall = float(_report(stage, "index/report.json")["recall_at_100"])
    return [Check("index recall", recall >= LEAST_RECALL, f"{recall:.3f} >= {LEAST_RECALL}")]


def _trees(context: Context, stage: Stage, name: str) -> list[Check]:
    rows = np.full((3, len(FEATURES)), np.nan, dtype=np.float32)
    rows[1] = 0.0
    names = json.loads(stage.path(f"{name}/features.json").read_text())
    return [
        _parity(name, _report(stage, f"{name}/report.json")),
        Check(f"{name} features", names == list(FEATURES), f"{len(names)} names, {len(FEATURES)} expected"),
        _answers(name, stage.path(f"{name}/model.onnx").read_bytes(), {"features": rows}, (3, 1)),
    ]


def _quality(context: Context, stage: Stage, name: str) -> list[Check]:
    """Refused where the paired bootstrap interval of NDCG@10, funnel minus popularity, lies below zero: on a small
    world the means alone would decide by chance."""
    least = _report(context.stage("backtest"), "evaluation.json")["funnel_minus"]["popularity"]
    found = f"NDCG@10 {least['mean']:+.4f} [{least['low']:+.4f}, {least['high']:+.4f}]"
    return [Check("not below popularity", least["high"] >= 0, found)]
