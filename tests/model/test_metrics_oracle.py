"""The metrics against ranx and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, label_ranking_average_precision_score, ndcg_score
from sklearn.metrics.pairwise import cosine_similarity

from models.metrics import list_diversity, per_shopper, ranks_from_ahead, ranks_from_scores, rivals_ahead

NAMES = ("recall@10", "ndcg@10", "map@10", "mrr@10", "hit_rate@10", "recall@50", "ndcg@50")


@pytest.mark.parametrize("seed", range(3))
def test_against_ranx(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    numba = pytest.importorskip("numba")
    monkeypatch.setattr(numba.config, "DISABLE_JIT", True)  # compiling takes longer than all it would compute
    ranx = pytest.importorskip("ranx")
    rng = np.random.default_rng(seed)
    scores = rng.permuted(np.tile(np.arange(200.0), (40, 1)), axis=1)
    relevant = [rng.choice(200, rng.integers(1, 15), replace=False) for _ in range(40)]
    ours = per_shopper([ranks_from_scores(s, r) for s, r in zip(scores, relevant, strict=True)], NAMES)
    qrels = ranx.Qrels({f"q{u:03}": {f"d{i}": 1 for i in r} for u, r in enumerate(relevant)})
    run = ranx.Run({f"q{u:03}": {f"d{i}": float(s) for i, s in enumerate(row)} for u, row in enumerate(scores)})
    oracle = ranx.evaluate(qrels, run, list(NAMES), return_mean=False)
    for name in NAMES:
        np.testing.assert_allclose(ours[name], oracle[name], atol=1e-12, err_msg=name)


def test_batches_and_lists_against_sklearn() -> None:
    rng = np.random.default_rng(5)
    scores = rng.permuted(np.tile(np.arange(120.0, dtype=np.float32), (25, 1)), axis=1)
    relevant = np.zeros((25, 120), dtype=bool)
    for row in relevant:
        row[rng.choice(120, rng.integers(1, 8), replace=False)] = True
    owner, items = np.nonzero(relevant)
    ranks = ranks_from_ahead(rivals_ahead(scores, owner, items), owner, 25)
    ours = per_shopper(ranks, ["ndcg@10", "map@120"])
    np.testing.assert_allclose(ours["ndcg@10"].mean(), ndcg_score(relevant, scores, k=10), atol=1e-12)
    precision = [average_precision_score(right, row) for right, row in zip(relevant, scores, strict=True)]
    np.testing.assert_allclose(ours["map@120"], precision, atol=1e-12)
    single = np.eye(25, 120, dtype=bool)
    alone = rivals_ahead(scores, np.arange(25), np.arange(25)) + 1
    np.testing.assert_allclose((1 / alone).mean(), label_ranking_average_precision_score(single, scores), atol=1e-12)
    vectors = rng.normal(size=(120, 8))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    lists = rng.permuted(np.tile(np.arange(120), (6, 1)), axis=1)[:, :10]
    upper = np.triu_indices(10, 1)
    expected = [1 - cosine_similarity(vectors[rows])[upper].mean() for rows in lists]
    np.testing.assert_allclose(list_diversity(vectors, lists), expected, atol=1e-9)
