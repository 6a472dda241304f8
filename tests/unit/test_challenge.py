"""The gate between a challenger and traffic: each of six bad ones is stopped, by the check that is meant for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from adapters.bundles import Bundle, write_bundle
from models.drift.baseline import shown_rows, summarise
from models.ranker import RankingRows
from models.ranking_features import FEATURES
from pipelines.challenge import Judgement, judge, ndcg_at_10
from tests.unit.recommender_bundles import D, _model, scorer, user_encoder

REQUESTS, CANDIDATES = 240, 40
SIGNAL = FEATURES.index("popularity_score")
DAY = 86_400_000


def rows_of(seed: int) -> RankingRows:
    """Requests in which the popular are clicked more often; a third comes from desktops, half from new shoppers."""
    rng = np.random.default_rng(seed)
    n = REQUESTS * CANDIDATES
    features = np.zeros((n, len(FEATURES)), np.float32)
    features[:, SIGNAL] = rng.normal(size=n)
    request = np.repeat(np.arange(REQUESTS), CANDIDATES)
    features[:, FEATURES.index("device")] = request % 3
    features[:, FEATURES.index("user_clicks_count_7d")] = request % 2
    clicked = rng.random(n) < 1 / (1 + np.exp(2.5 - features[:, SIGNAL]))
    return RankingRows(features, clicked.astype(np.int64), np.full(REQUESTS, CANDIDATES))


JUDGED, LEARNED = rows_of(1), rows_of(2)


def baseline(weight: float, rows: RankingRows = LEARNED) -> bytes:
    scores = weight * rows.features[:, SIGNAL].astype(np.float64)
    keep = shown_rows(scores, rows.groups)
    return json.dumps(summarise(rows.features[keep], FEATURES, scores[keep], rows.labels[keep])).encode()


def lineup(
    folder: Path, version: str, *, weight: float = 1.0, promised: bytes | None = None, graph: bytes | None = None,
    names: tuple[str, ...] = FEATURES, until_ms: int = 10 * DAY,
) -> dict[str, Bundle]:
    ranker = {"model.onnx": graph or scorer(weight), "features.json": json.dumps(names).encode(),
              "baseline.json": promised or baseline(weight)}  # fmt: skip
    contents: dict[str, dict[str, Any]] = {
        "preranker": {"model.onnx": scorer(), "features.json": json.dumps(FEATURES).encode()}, "ranker": ranker,
        "two-tower": {"user_encoder.onnx": user_encoder(10), "item_encoder.onnx": _items()},
        "index": {"items.faiss": b"x"},
    }  # fmt: skip
    return {name: write_bundle(folder, name, version, files, {"until_ms": until_ms}, gate="pending")
            for name, files in contents.items()}  # fmt: skip


def failed(tmp_path: Path, judgement: Judgement | None = Judgement(JUDGED), **changes: Any) -> set[str]:  # noqa: B008
    champion, challenger = lineup(tmp_path, "1"), lineup(tmp_path, "2", **changes)
    return {check.name for check in judge(challenger, champion, lambda: judgement, seed=7) if not check.passed}


def test_an_equal_challenger_passes_every_check(tmp_path: Path) -> None:
    found = judge(lineup(tmp_path, "2"), lineup(tmp_path, "1"), lambda: Judgement(JUDGED), seed=7)
    assert [check for check in found if not check.passed] == []
    slices = {"quality, device desktop", "quality, new shoppers", "quality, returning shoppers"}
    assert slices <= {check.name for check in found}


@pytest.mark.parametrize(
    ("changes", "check"),
    [
        ({"weight": -1.0, "promised": baseline(1.0)}, "quality"),
        ({"weight": float("nan"), "promised": baseline(1.0)}, "ranker answers"),
        ({"weight": 0.0, "promised": baseline(1.0)}, "ranker answers"),
        ({"names": FEATURES[::-1]}, "ranker schema"),
        ({"names": FEATURES[:-1]}, "ranker schema"),
        ({"graph": b"not a model"}, "ranker usable"),
        ({"until_ms": 5 * DAY}, "data not stale"),
        ({"weight": 3.0, "promised": baseline(1.0)}, "calibration"),
    ],
)
def test_a_bad_challenger_is_stopped_by_the_check_that_is_meant_for_it(
    tmp_path: Path, changes: dict[str, Any], check: str
) -> None:
    assert check in failed(tmp_path, **changes)


def test_rows_are_built_only_for_a_challenger_that_passed_all_else(tmp_path: Path) -> None:
    def build() -> Judgement:
        raise AssertionError("built for one that does not fit anyway")

    found = judge(lineup(tmp_path, "2", names=FEATURES[:-1]), lineup(tmp_path, "1"), build, seed=7)
    assert "ranker schema" in {check.name for check in found if not check.passed}


def test_a_challenger_that_is_worse_in_one_slice_alone_is_stopped(tmp_path: Path) -> None:
    rows = JUDGED
    spoiled = rows.features.copy()
    new = spoiled[:, FEATURES.index("user_clicks_count_7d")] == 0
    spoiled[new, SIGNAL] *= -1  # what the challenger relies on is wrong for new shoppers
    spoiled[:, FEATURES.index("item_ctr_24h")] = rows.features[:, SIGNAL]  # the champion relies on this

    champion = lineup(tmp_path, "1", graph=_by("item_ctr_24h"))
    judgement = Judgement(RankingRows(spoiled, rows.labels, rows.groups))
    found = judge(lineup(tmp_path, "2"), champion, lambda: judgement, seed=7)
    assert "quality, new shoppers" in {check.name for check in found if not check.passed}
    assert "quality, returning shoppers" not in {check.name for check in found if not check.passed}


def _by(feature: str) -> bytes:
    """score = one feature."""
    weights = np.zeros((len(FEATURES), 1), np.float32)
    weights[FEATURES.index(feature)] = 1
    nodes = [
        helper.make_node("IsNaN", ["features"], ["unknown"]),
        helper.make_node("Where", ["unknown", "zero", "features"], ["known"]),
        helper.make_node("MatMul", ["known", "w"], ["score"]),
    ]
    inputs = [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", len(FEATURES)])]
    output = helper.make_tensor_value_info("score", TensorProto.FLOAT, ["n", 1])
    return _model(nodes, inputs, [output], {"w": weights, "zero": np.zeros(1, np.float32)})


def _items() -> bytes:
    """An item tower that looks at the category alone."""
    nodes = [helper.make_node("Gather", ["table", "category_index"], ["embedding"])]
    ints = TensorProto.INT64
    inputs = [helper.make_tensor_value_info("item_index", ints, ["n"]),
              helper.make_tensor_value_info("category_index", ints, ["n"]),
              helper.make_tensor_value_info("log_price", TensorProto.FLOAT, ["n"])]  # fmt: skip
    output = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", D])
    return _model(nodes, inputs, [output], {"table": np.eye(D, dtype=np.float32)[:6]})


def test_without_judged_requests_nothing_passes(tmp_path: Path) -> None:
    assert failed(tmp_path, None) == {"quality"}


def test_ndcg_is_that_of_the_book() -> None:
    rows = RankingRows(np.zeros((4, len(FEATURES)), np.float32), np.array([3, 0, 1, 0]), np.array([4]))
    perfect = ndcg_at_10(np.array([4.0, 1.0, 3.0, 2.0]), rows)
    assert perfect.tolist() == [1.0]
    last = ndcg_at_10(np.zeros(4), rows)  # equal scores: the worst order counts
    assert last[0] == pytest.approx((1 / np.log2(4) + 3 / np.log2(5)) / (3 + 1 / np.log2(3)))
