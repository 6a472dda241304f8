"""The deep ranker learns what crosses, orders within requests, keeps its best epoch, and is the same in ONNX."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from adapters import provenance
from bench import numbers
from bench import rankers as bench
from models import deep_ranker, onnx_export
from models.deep_ranker import DeepRanker, DeepRankerConfig
from models.ranker import RankingRows, ndcg_of
from models.ranking_features import FEATURES

GROUPS, SIZE = 400, 20
CONFIG = DeepRankerConfig(hidden=(32,), epochs=15, batch_rows=512, learning_rate=5e-3)


def world(seed: int, groups: int = GROUPS) -> RankingRows:
    """The chance of a touch grows with the product of two features; a third one is an offset of the whole request."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(groups * SIZE, 4)).astype(np.float32)
    features[:, 3] = np.repeat(rng.normal(size=groups) * 5, SIZE)
    logit = 2.5 * features[:, 0] * features[:, 1] - 3
    labels = (rng.random(len(logit)) < 1 / (1 + np.exp(-logit))).astype(np.int64)
    features[rng.random(len(features)) < 0.05, 2] = np.nan
    return RankingRows(features, labels * rng.integers(1, 4, len(labels)), np.full(groups, SIZE))


@pytest.fixture(scope="module")
def fitted() -> tuple[DeepRanker, list[dict[str, float]]]:
    return deep_ranker.train(world(1), world(2, 100), CONFIG, threads=1)


@pytest.mark.parametrize("objective", ["listwise", "engagement"])
def test_it_learns_a_product_of_features(objective: deep_ranker.Objective) -> None:
    judge = world(3, 150)
    model, _ = deep_ranker.train(world(1), world(2, 100), replace(CONFIG, objective=objective), threads=1)
    best = ndcg_of(judge, judge.features[:, 0] * judge.features[:, 1]).mean()
    chance = ndcg_of(judge, np.random.default_rng(0).random(len(judge.labels))).mean()
    found = ndcg_of(judge, deep_ranker.predict(model, judge.features)).mean()
    assert found > chance + 0.8 * (best - chance)


def test_the_best_epoch_is_kept_and_the_same_seed_gives_the_same_bytes(
    fitted: tuple[DeepRanker, list[dict[str, float]]],
) -> None:
    model, history = fitted
    validation = world(2, 100)
    reached = float(ndcg_of(validation, deep_ranker.predict(model, validation.features)).mean())
    assert reached == max(one["ndcg_at_10"] for one in history)
    again, _ = deep_ranker.train(world(1), validation, CONFIG, threads=1)
    assert deep_ranker.export(again) == deep_ranker.export(model)


def test_onnx_scores_as_torch_does_also_where_values_are_missing(
    fitted: tuple[DeepRanker, list[dict[str, float]]],
) -> None:
    features = world(4, 30).features
    features[0] = np.nan
    answered = onnx_export.run(deep_ranker.export(fitted[0]), {"features": features})[:, 0]
    assert np.isfinite(answered).all()
    np.testing.assert_allclose(answered, deep_ranker.predict(fitted[0], features), atol=1e-5)


def test_a_positive_weighs_what_it_is_worth() -> None:
    """Rows that cannot be told apart: the odds of the score are the worth of the positives over the negatives."""
    rng = np.random.default_rng(0)
    labels = rng.choice([0, 0, 0, 1, 3], 4_000)
    rows = RankingRows(np.zeros((4_000, 1), np.float32), labels, np.full(200, 20))
    config = DeepRankerConfig("engagement", epochs=30, patience=30, learning_rate=2e-2, dropout=0, weight_decay=0)
    model, _ = deep_ranker.train(rows, rows, config, threads=1)
    odds = labels.sum() / (labels == 0).sum()
    assert float(np.exp(deep_ranker.predict(model, rows.features[:1])[0])) == pytest.approx(odds, rel=0.35)


def test_scores_of_two_models_are_put_on_one_scale_within_requests() -> None:
    rows = RankingRows(np.zeros((5, 1), np.float32), np.zeros(5, int), np.array([2, 3]))
    scaled = bench.standardised(rows, np.array([1.0, 3.0, 50.0, 50.0, 50.0]))
    assert scaled.tolist() == [-1, 1, 0, 0, 0]


def test_the_bench_judges_every_kind_and_the_readme_can_show_it() -> None:
    rows = world(5, 60)
    fitted = {name: bench.Fitted(deep_ranker.export(DeepRanker(rows.features, CONFIG)), 1.0) for name in bench.KINDS}
    values = bench.judged(fitted, rows)
    found = bench.table_of(fitted, values, bench.latencies(fitted, rows), seed=1)
    assert [row["model"] for row in found] == [*bench.KINDS, bench.BLEND]
    assert found[0]["difference"]["ndcg@10"]["mean"] == 0
    counts = found[0]["requests"]
    assert counts["ndcg@10, carts and orders"] <= counts["ndcg@10"]
    whence = {"command": "c", "seed": 1, "requests": {"judge": 60}, "rows": found, **provenance.stamp()}
    assert "DCNv2 listwise" in numbers.rankers(whence)


def test_engagement_trees_give_one_score_a_row_that_orders_by_worth() -> None:
    def rows(seed: int) -> RankingRows:
        rng = np.random.default_rng(seed)
        features = rng.normal(size=(60 * 100, len(FEATURES))).astype(np.float32)
        labels = (rng.random(len(features)) < 1 / (1 + np.exp(3 - 2 * features[:, 0]))).astype(np.int64)
        return RankingRows(features, labels * 3, np.full(60, 100))

    judge = rows(3)
    form = bench.engagement_trees(bench.Data(rows(1), rows(2), judge, threads=1))
    scores = onnx_export.run(form, {"features": judge.features})
    assert scores.shape == (len(judge.labels), 1)
    assert np.corrcoef(scores[:, 0], judge.features[:, 0])[0, 1] > 0.8
